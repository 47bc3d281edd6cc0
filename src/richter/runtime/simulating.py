"""The simulated exchange as a process, and recorded files as its source."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import structlog

from richter.adapters.recording.reader import expand, read_blocks
from richter.config import Settings
from richter.domain import ticks as tk
from richter.errors import InputFileError
from richter.protocol.decoder import Decoder
from richter.simulate.lines import LineReader
from richter.simulate.server import Served, SimulatedExchange
from richter.simulate.sources import RecordingSource
from richter.simulate.tickers import Ticker

__all__ = ["Recording", "open_recording", "read_tickers", "run_exchange"]


class Recording(msgspec.Struct, frozen=True):
    """A recording that is about to be served.

    Attributes:
        source: its ticks, for the exchange.
        files: how many there are.
        ticks: of the products that are served.
        first: event time of the first of them, ns.
        last: of the last.
    """

    source: RecordingSource
    files: int
    ticks: int
    first: int
    last: int


def open_recording(
    patterns: Sequence[str], settings: Settings, *, speed: float | None, products: Sequence[str] | None = None
) -> Recording:
    """Find recorded files, see what they hold, and make them a source.

    Args:
        patterns: files, folders or globs; they are served in this order.
        settings: price scales.
        speed: so many of its seconds a second; None for as fast as the reader reads.
        products: what is served of it; None for everything.

    Raises:
        ArgumentsError: the speed is not positive.
        InputFileError: nothing is found, or it holds no tick of a product that is asked for.
    """
    files = expand(patterns)
    decoder = Decoder(settings.decimals_for)
    counted: dict[str, tuple[int, int, int]] = {}
    for path in files:
        for block in read_blocks(path, on_rejected=lambda _: None):
            ticks = decoder.decode(block.data, file_conn="file:", first_line=block.first_line).ticks
            for code, product in enumerate(decoder.state.products):
                times = ticks[ticks[:, tk.PRODUCT] == code, tk.TS_EVENT]
                if len(times):
                    number, first, _ = counted.get(product, (0, int(times[0]), 0))
                    counted[product] = (number + len(times), first, int(times[-1]))
    if not counted:
        raise InputFileError(
            "no tick in the recording", " ".join(patterns), "richter inspect says what it holds"
        )
    for product in products or ():
        if product not in counted:
            raise InputFileError("the recording lacks a product", product, f"it holds {', '.join(counted)}")
    served = list(dict.fromkeys(products)) if products else list(counted)
    source = RecordingSource(
        served,
        lambda: read_tickers(files, settings),
        speed=speed,
        description=f"recording of {len(files)} {'file' if len(files) == 1 else 'files'}",
    )
    return Recording(
        source,
        len(files),
        sum(counted[product][0] for product in served),
        min(counted[product][1] for product in served),
        max(counted[product][2] for product in served),
    )


def read_tickers(files: Sequence[Path], settings: Settings) -> Iterator[Ticker]:
    """The ticks of files in their order, to the letter; what cannot be read is counted in the log at the end."""
    lines = LineReader(settings.decimals_for)
    for path in files:
        for block in read_blocks(path):
            for number, line in enumerate(block.lines(), block.first_line):
                yield from lines.read(line, number)
    if lines.rejected:
        structlog.get_logger("richter.simulate").warning("lines_not_served", **{"reasons": lines.rejected})


def run_exchange(
    exchange: SimulatedExchange, on_listening: Callable[[SimulatedExchange], None] = lambda exchange: None
) -> Served:
    """Serve until SIGINT or SIGTERM, then close all connections and return what was done.

    Args:
        exchange: not yet listening.
        on_listening: called once it is.

    Raises:
        OperatorError: the port is in use.
        RichterError: the source cannot be read further.
    """
    return asyncio.run(_run(exchange, on_listening))


async def _run(exchange: SimulatedExchange, on_listening: Callable[[SimulatedExchange], None]) -> Served:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        async with exchange:
            on_listening(exchange)
            stopped = asyncio.create_task(stop.wait())
            failed = asyncio.create_task(exchange.failed())
            try:
                await asyncio.wait((stopped, failed), return_when=asyncio.FIRST_COMPLETED)
            finally:
                stopped.cancel()
                failed.cancel()
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
    return exchange.served
