"""What a recording holds: products, spans, rates, gaps, and how much of each feature is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np

from richter.adapters.recording.reader import expand
from richter.config import Settings
from richter.domain.ticks import GapCause
from richter.engine.rows import FeatureRows
from richter.engine.table import FEATURE_NAMES
from richter.errors import InputFileError
from richter.runtime.pipeline import Account, Pipeline

__all__ = ["Inspection", "ProductInspection", "inspect"]

_SIGMA = 1 + FEATURE_NAMES.index("realized_volatility_60s")
_TAU = 1 + FEATURE_NAMES.index("tau_rolling")
_LONGEST = 5


class Silence(msgspec.Struct, frozen=True):
    """A time without ticks: where it began (ns) and how long it was."""

    ts_event: int
    seconds: float


class ProductInspection(msgspec.Struct):
    """One product of a recording.

    Attributes:
        ticks: rows it makes.
        first: effective time of the first, ns.
        last: of the last.
        median_spacing_s: between ticks.
        price_low: smallest mid; None without a good quote.
        price_high: largest mid.
        connections: how many carried it.
        gaps: recorded gaps by cause.
        silences: the longest times without a tick, of those longer than `stale_after_s`.
        silent: how many there are.
        bad_quotes: ticks with an empty, zero or crossed quote.
        valid: share of rows fit to predict from.
        known: feature -> share of rows where it is known.
        tau_known_from: time of the first row with a rolling tau, ns; None when there is none.
        mid: one point a second, for a plot.
        sigma: likewise, 60 s volatility.
        tau: likewise, its threshold.
    """

    ticks: int = 0
    first: int = 0
    last: int = 0
    median_spacing_s: float = float("nan")
    price_low: float | None = None
    price_high: float | None = None
    connections: int = 0
    gaps: dict[str, int] = msgspec.field(default_factory=dict)
    silences: list[Silence] = msgspec.field(default_factory=list)
    silent: int = 0
    bad_quotes: int = 0
    valid: float = 0.0
    known: dict[str, float] = msgspec.field(default_factory=dict)
    tau_known_from: int | None = None
    mid: list[float] = msgspec.field(default_factory=list)
    sigma: list[float] = msgspec.field(default_factory=list)
    tau: list[float] = msgspec.field(default_factory=list)


class Inspection(msgspec.Struct):
    """What is in the files: the account of their lines, and each product."""

    account: Account
    products: dict[str, ProductInspection]


class _Running:
    def __init__(self, stale_ns: int) -> None:
        self.shown = ProductInspection()
        self.known = np.zeros(1 + len(FEATURE_NAMES), np.int64)
        self.valid = 0
        self.spacings: dict[int, int] = {}
        self.conns: set[int] = set()
        self.stale_ns = stale_ns
        self.points: list[np.ndarray] = []

    def take(self, rows: FeatureRows) -> None:
        shown = self.shown
        times = rows.ts_event if not shown.ticks else np.insert(rows.ts_event, 0, shown.last)
        steps = np.diff(times)
        for step, number in zip(*np.unique(steps // 1_000_000, return_counts=True), strict=True):
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
        self.points.append(rows.values[change][:, [0, _SIGMA, _TAU]])

    def finish(self) -> ProductInspection:
        shown = self.shown
        shown.connections = len(self.conns)
        shown.bad_quotes = shown.ticks - int(self.known[0])
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
        points = np.concatenate(self.points)
        shown.mid, shown.sigma, shown.tau = (points[:, column].tolist() for column in range(3))
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
    pipeline = Pipeline(settings, on_bytes=on_bytes)
    running: dict[str, _Running] = {}
    for rows in pipeline.run(files):
        for code in np.unique(rows.product).tolist():
            name = rows.products[code]
            running.setdefault(name, _Running(round(settings.stale_after_s * 1e9))).take(
                rows.of_product(code)
            )
    if not running:
        account = pipeline.account
        raise InputFileError(
            f"no readable tick in {account.lines} lines of {account.files} files (ignored {account.ignored}, "
            f"unreadable {account.dead}), the first of them",
            str(files[0]),
            "give a recording of tickers",
        )
    return Inspection(pipeline.account, {name: one.finish() for name, one in sorted(running.items())})
