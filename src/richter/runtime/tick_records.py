"""Recorded lines as records of the topic of raw ticks: what each carries beside the line itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec
import numpy as np

from richter.domain import ticks as tk
from richter.domain.ticks import NO_TIME, Ns
from richter.protocol.decoder import DecoderState, TickBlock

__all__ = ["RESENT_NS", "SCHEMA", "Elapsed", "TickLine", "tick_lines"]

SCHEMA: Final = b"richter.tick/1"

RESENT_NS: Final = 600 * 1_000_000_000
"""What is sent again after a crash reaches back no further than this, in event time of its product: whoever drops
doubled ticks remembers that long beyond LOOK_BACK."""


class Elapsed:
    """Event time that has passed in a product's log; steps backwards do not count.

    Attributes:
        ns: so far.
        last: event time of the last tick; NO_TIME before the first.
    """

    __slots__ = ("last", "ns")

    def __init__(self, ns: int = 0, last: Ns = NO_TIME) -> None:
        self.ns = ns
        self.last = last

    def add(self, ts_event: Ns) -> int:
        """A tick has come; returns what has passed by then."""
        if self.last != NO_TIME and ts_event > self.last:
            self.ns += ts_event - self.last
        self.last = ts_event
        return self.ns


class TickLine(msgspec.Struct, frozen=True, gc=False):
    """A line that holds a product's ticks.

    Attributes:
        key: the product.
        value: the line, without its newline.
        ts_recv: receive time, else event time.
        headers: schema, connection, sequence, source.
        source: where the line comes from.
        ts_event: of its last tick.
        end: of the line with its newline, in the block's bytes.
    """

    key: bytes
    value: bytes
    ts_recv: Ns
    headers: list[tuple[str, str | bytes | None]]
    source: str
    ts_event: Ns
    end: int


def tick_lines(
    block: TickBlock, data: bytes | memoryview, names: DecoderState, source: str
) -> Iterator[TickLine]:
    """Each line of a block once for each product in it, in order.

    Args:
        block: what `Decoder.decode` made of `data`.
        data: whole lines.
        names: the decoder's.
        source: where the lines come from, for the header.
    """
    if not len(block.ticks):
        return
    products = [name.encode() for name in names.products]
    connections = [name.encode() for name in names.conn_ids]
    ticks, origin = block.ticks, block.origin
    product, line = ticks[:, tk.PRODUCT], origin[:, 2]
    # A line's last tick of each product; a line may name a product twice.
    share = line * len(products) + product
    _, back = np.unique(share[::-1], return_index=True)
    last = np.sort(len(share) - 1 - back)
    told = source.encode()
    for code, conn, frame, event, recv, start, end in zip(
        product[last].tolist(),
        ticks[last, tk.CONN].tolist(),
        ticks[last, tk.FRAME_NO].tolist(),
        ticks[last, tk.TS_EVENT].tolist(),
        ticks[last, tk.TS_RECV].tolist(),
        origin[last, 0].tolist(),
        origin[last, 1].tolist(),
        strict=True,
    ):
        yield TickLine(
            products[code],
            bytes(data[start:end]),
            event if recv == NO_TIME else recv,
            [
                ("schema", SCHEMA),
                ("connection", connections[conn]),
                ("sequence", b"%d" % frame),
                ("source", told),
            ],
            source,
            event,
            end + 1,
        )
