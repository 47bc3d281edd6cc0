"""What a run shows of each product while it goes on."""

from __future__ import annotations

from collections import deque
from typing import Final

import msgspec
import numpy as np

from richter.domain.ticks import GapCause, Ns
from richter.engine.rows import FeatureRows, reason_text
from richter.engine.table import FEATURE_NAMES
from richter.models.alert_log import Alert
from richter.runtime.rule_alerts import SIGMA, TAU

__all__ = ["ProductWatch", "Watch"]

POINTS: Final = 600
ALERTS: Final = 8
HISTORY_S: Final = 272
"""Seconds until the features over five minutes are known: 270 returns, from the second after the first tick on."""
TAU_S: Final = 962
"""Until the threshold is: 900 volatilities of 60 s."""

_RATE: Final = 1 + FEATURE_NAMES.index("trade_intensity")
_SPREAD: Final = 1 + FEATURE_NAMES.index("bid_ask_spread_bps")


class ProductWatch(msgspec.Struct):
    """One product.

    Attributes:
        rows: so far.
        gaps: rows that said so.
        since: event time of the first row since the last clock reset, ns.
        ts_event: of the last row.
        mid: NaN when unknown, as all that follow.
        spread_bps: of it.
        sigma: 60 s volatility.
        tau: its threshold.
        rate: ticks in the last minute.
        reasons: why the last row is not valid; empty when it is.
        points: (second, sigma, tau), the last `POINTS` seconds with a tick.
        alerts: the last ones.
        alerting: whether the last alert is an onset.
    """

    rows: int = 0
    gaps: int = 0
    since: Ns = 0
    ts_event: Ns = 0
    mid: float = float("nan")
    spread_bps: float = float("nan")
    sigma: float = float("nan")
    tau: float = float("nan")
    rate: float = float("nan")
    reasons: str = ""
    points: deque[tuple[int, float, float]] = msgspec.field(default_factory=lambda: deque(maxlen=POINTS))
    alerts: deque[Alert] = msgspec.field(default_factory=lambda: deque(maxlen=ALERTS))
    alerting: bool = False

    def waits(self) -> list[tuple[str, Ns]]:
        """What is not known yet, and the event time at which it will be, if nothing is missed until then."""
        waiting = []
        if "history_300s" in self.reasons:
            waiting.append(("features over 5 min", self.since + HISTORY_S * 1_000_000_000))
        if "tau_900s" in self.reasons:
            waiting.append(("threshold tau", self.since + TAU_S * 1_000_000_000))
        return waiting


class Watch:
    """Takes a run's rows and alerts; shows the last state of each product."""

    def __init__(self) -> None:
        self.products: dict[str, ProductWatch] = {}
        self.alerts = 0

    def take(self, rows: FeatureRows) -> None:
        """Take new rows."""
        for code in np.unique(rows.product).tolist():
            self._of(rows.products[code], rows.of_product(code))

    def alert(self, alert: Alert) -> None:
        """Take an alert."""
        self.alerts += 1
        product = self.products.setdefault(alert.product_id, ProductWatch())
        product.alerts.append(alert)
        product.alerting = alert.kind == "onset"

    def _of(self, name: str, rows: FeatureRows) -> None:
        shown = self.products.setdefault(name, ProductWatch())
        last = rows.values[-1]
        if not shown.rows:
            shown.since = int(rows.ts_event[0])
        resets = np.flatnonzero(rows.cause == GapCause.CLOCK)
        if len(resets):
            shown.since = int(rows.ts_event[resets[-1]])
        shown.rows += len(rows)
        shown.gaps += int(np.count_nonzero(rows.cause))
        shown.ts_event = int(rows.ts_event[-1])
        shown.mid, shown.spread_bps = float(last[0]), float(last[_SPREAD])
        shown.sigma, shown.tau, shown.rate = float(last[SIGMA]), float(last[TAU]), float(last[_RATE])
        shown.reasons = reason_text(int(rows.reasons[-1]))
        seconds = rows.ts_event // 1_000_000_000
        for i in np.flatnonzero(np.diff(seconds, append=0))[-POINTS:].tolist():
            if shown.points and shown.points[-1][0] == seconds[i]:
                shown.points.pop()
            shown.points.append((int(seconds[i]), float(rows.values[i, SIGMA]), float(rows.values[i, TAU])))
