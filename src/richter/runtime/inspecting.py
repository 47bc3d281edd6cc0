"""What a recording holds: products, spans, rates, gaps, and how much of each feature is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np

from richter.adapters.recording.reader import expand
from richter.config import Settings
from richter.domain import ticks as tk
from richter.domain.ticks import GapCause
from richter.engine.engine import Block
from richter.engine.rows import FeatureRows
from richter.engine.state import Float64, Int64
from richter.engine.table import FEATURE_NAMES
from richter.errors import InputFileError
from richter.protocol.decoder import TickBlock
from richter.runtime.pipeline import Account, Letter, Pipeline

__all__ = ["Inspection", "ProductInspection", "inspect"]

_SIGMA = 1 + FEATURE_NAMES.index("realized_volatility_60s")
_TAU = 1 + FEATURE_NAMES.index("tau_rolling")
_LONGEST = 5
_LONGEST_SPACING_MS = 60_000
_POINTS = 2_048
_EXAMPLES = 3
_EXAMPLE_BYTES = 100


class Silence(msgspec.Struct, frozen=True):
    """A time without ticks: where it began (ns) and how long it was."""

    ts_event: int
    seconds: float


class Quotes(msgspec.Struct):
    """Ticks by the state of their quote.

    Attributes:
        good: both sides above zero and in order.
        empty: a side is absent.
        zero: a side is 0.
        crossed: the bid lies above the ask.
        price_outside: good ones whose last price lies outside of [bid, ask]: it is older than the quote.
    """

    good: int = 0
    empty: int = 0
    zero: int = 0
    crossed: int = 0
    price_outside: int = 0

    def add(self, ticks: Int64) -> None:
        """Count ticks."""
        bid, ask, price = ticks[:, tk.BID], ticks[:, tk.ASK], ticks[:, tk.PRICE]
        empty = (bid == tk.UNKNOWN) | (ask == tk.UNKNOWN)
        zero = ~empty & ((bid == 0) | (ask == 0))
        crossed = ~empty & ~zero & (bid > ask)
        good = ~empty & ~zero & ~crossed
        self.good += int(good.sum())
        self.empty += int(empty.sum())
        self.zero += int(zero.sum())
        self.crossed += int(crossed.sum())
        self.price_outside += int((good & (price > 0) & ((price < bid) | (price > ask))).sum())


class ProductInspection(msgspec.Struct):
    """One product of a recording.

    Attributes:
        ticks: rows it makes.
        duplicates: ticks that were there before, dropped.
        clamped: times up to 2 s backwards.
        segments: times further back, where all memory ends.
        ahead: ticks stamped more than 2 s ahead, dropped.
        first: effective time of the first, ns.
        last: of the last.
        median_spacing_s: between ticks, at most 60.
        price_low: smallest mid; None without a good quote.
        price_high: largest mid.
        connections: how many carried it.
        gaps: recorded gaps by cause.
        silences: the longest times without a tick, of those longer than `stale_after_s`.
        silent: how many there are.
        quotes: the rows' ticks by their quotes.
        valid: share of rows fit to predict from.
        known: feature -> share of rows where it is known.
        tau_known_from: time of the first row with a rolling tau, ns; None when there is none.
        mid: in at most 2,048 equal runs of seconds that have a tick, the last; for a plot.
        sigma: likewise, the largest 60 s volatility.
        tau: likewise, its threshold.
    """

    ticks: int = 0
    duplicates: int = 0
    clamped: int = 0
    segments: int = 0
    ahead: int = 0
    first: int = 0
    last: int = 0
    median_spacing_s: float = float("nan")
    price_low: float | None = None
    price_high: float | None = None
    connections: int = 0
    gaps: dict[str, int] = msgspec.field(default_factory=dict)
    silences: list[Silence] = msgspec.field(default_factory=list)
    silent: int = 0
    quotes: Quotes = msgspec.field(default_factory=Quotes)
    valid: float = 0.0
    known: dict[str, float] = msgspec.field(default_factory=dict)
    tau_known_from: int | None = None
    mid: list[float] = msgspec.field(default_factory=list)
    sigma: list[float] = msgspec.field(default_factory=list)
    tau: list[float] = msgspec.field(default_factory=list)


class Unreadable(msgspec.Struct, frozen=True):
    """A dead letter and the beginning of its text."""

    source: str
    line: int
    reason: str
    text: str


class Inspection(msgspec.Struct):
    """What is in the files: the account of their lines, some that cannot be read, and each product."""

    account: Account
    unreadable: list[Unreadable]
    products: dict[str, ProductInspection]


class _Series:
    """Values a second, in a bounded number of runs; a run is as long as it must be."""

    def __init__(self, together: Callable[[Float64], Float64]) -> None:
        self._together = together
        self._width = 1
        self._done: list[Float64] = []
        self._rest = np.empty(0)

    def add(self, values: Float64) -> None:
        self._rest = np.concatenate([self._rest, values])
        whole = len(self._rest) // self._width * self._width
        self._done.append(self._together(self._rest[:whole].reshape(-1, self._width)))
        self._rest = self._rest[whole:]
        while sum(map(len, self._done)) > _POINTS:
            done = np.concatenate(self._done)
            even = len(done) // 2 * 2
            self._done = [self._together(done[:even].reshape(-1, 2))]
            self._rest = np.concatenate([np.repeat(done[even:], self._width), self._rest])
            self._width *= 2

    def points(self) -> list[float]:
        last = [self._together(self._rest[None, :])] if len(self._rest) else []
        return [float(value) for value in np.concatenate([*self._done, *last, np.empty(0)])]


def _last(runs: Float64) -> Float64:
    return runs[:, -1]


def _largest(runs: Float64) -> Float64:
    largest: Float64 = np.fmax.reduce(runs, axis=1)
    return largest


class _Running:
    def __init__(self, stale_ns: int) -> None:
        self.shown = ProductInspection()
        self.known = np.zeros(1 + len(FEATURE_NAMES), np.int64)
        self.valid = 0
        self.spacings: dict[int, int] = {}
        self.conns: set[int] = set()
        self.stale_ns = stale_ns
        self.series = _Series(_last), _Series(_largest), _Series(_largest)

    def count(self, ticks: Int64, made: Block) -> None:
        """Count what became of ticks."""
        counts = made.counts()
        shown = self.shown
        shown.duplicates += counts.duplicates
        shown.clamped += counts.clamped
        shown.segments += counts.segments
        shown.ahead += counts.ahead
        shown.quotes.add(ticks[made.accepted()])

    def take(self, rows: FeatureRows) -> None:
        shown = self.shown
        times = rows.ts_event if not shown.ticks else np.insert(rows.ts_event, 0, shown.last)
        steps = np.diff(times)
        spacings = np.clip(steps // 1_000_000, 0, _LONGEST_SPACING_MS)
        for step, number in zip(*np.unique(spacings, return_counts=True), strict=True):
            self.spacings[int(step)] = self.spacings.get(int(step), 0) + int(number)
        for i in np.flatnonzero(steps > self.stale_ns).tolist():
            shown.silent += 1
            shown.silences.append(Silence(int(times[i]), float(steps[i]) / 1e9))
        shown.silences = sorted(shown.silences, key=lambda silence: -silence.seconds)[:_LONGEST]
        if not shown.ticks:
            shown.first = int(rows.ts_event[0])
        if shown.tau_known_from is None:
            known = np.flatnonzero(~np.isnan(rows.values[:, _TAU]))
            shown.tau_known_from = int(rows.ts_event[known[0]]) if len(known) else None
        shown.ticks += len(rows)
        shown.last = int(rows.ts_event[-1])
        self.conns.update(np.unique(rows.conn).tolist())
        for code in rows.cause[rows.cause != 0].tolist():
            name = GapCause(code).name.lower()
            shown.gaps[name] = shown.gaps.get(name, 0) + 1
        known_cells = ~np.isnan(rows.values)
        self.known += known_cells.sum(axis=0)
        self.valid += int(np.count_nonzero(rows.reasons == 0))
        mid = rows.values[:, 0][known_cells[:, 0]]
        if len(mid):
            shown.price_low = min(float(mid.min()), shown.price_low or float("inf"))
            shown.price_high = max(float(mid.max()), shown.price_high or 0.0)
        change = np.flatnonzero(np.diff(rows.ts_event // 1_000_000_000, append=0))
        for series, column in zip(self.series, (0, _SIGMA, _TAU), strict=True):
            series.add(rows.values[change, column])

    def finish(self) -> ProductInspection:
        shown = self.shown
        shown.connections = len(self.conns)
        shown.valid = self.valid / shown.ticks
        shown.known = {
            name: float(number) / shown.ticks
            for name, number in zip(FEATURE_NAMES, self.known[1:].tolist(), strict=True)
        }
        left = sum(self.spacings.values()) / 2
        for step in sorted(self.spacings):
            left -= self.spacings[step]
            if left <= 0:
                shown.median_spacing_s = step / 1e3
                break
        shown.mid, shown.sigma, shown.tau = (series.points() for series in self.series)
        return shown


def inspect(
    patterns: list[str],
    settings: Settings,
    *,
    on_total: Callable[[int], None] = lambda total: None,
    on_bytes: Callable[[int], None] = lambda size: None,
) -> Inspection:
    """Say what recordings hold.

    Raises:
        InputFileError: nothing to read, or no tick in it.
    """
    files: list[Path] = expand(patterns)
    on_total(sum(path.stat().st_size for path in files))
    running: dict[str, _Running] = {}
    unreadable: list[Unreadable] = []
    stale_ns = round(settings.stale_after_s * 1e9)

    def of(code: int) -> _Running:
        return running.setdefault(pipeline.names.products[code], _Running(stale_ns))

    def count(block: TickBlock, made: Block) -> None:
        codes = block.ticks[:, tk.PRODUCT]
        for code in np.unique(codes).tolist():
            mine = codes == code
            of(code).count(block.ticks[mine], Block(made.values[mine], made.meta[mine]))

    def keep(letter: Letter) -> None:
        if len(unreadable) < _EXAMPLES:
            text = letter.data[:_EXAMPLE_BYTES].decode(errors="replace")
            unreadable.append(Unreadable(letter.source, letter.line, letter.reason, text))

    pipeline = Pipeline(settings, on_letter=keep, on_block=count, on_bytes=on_bytes)
    for rows in pipeline.run(files):
        for code in np.unique(rows.product).tolist():
            of(code).take(rows.of_product(code))
    running = {name: one for name, one in running.items() if one.shown.ticks}
    if not running:
        account = pipeline.account
        raise InputFileError(
            f"no readable tick in {account.lines} lines of {account.files} files (ignored {account.ignored}, "
            f"unreadable {account.dead}), the first of them",
            str(files[0]),
            "give a recording of tickers",
        )
    products = {name: one.finish() for name, one in sorted(running.items())}
    return Inspection(pipeline.account, unreadable, products)
