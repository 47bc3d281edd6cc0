"""The rule's alerts over feature rows, and what followed each."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np

from richter.adapters.alerts.log import write_log
from richter.config import Settings
from richter.engine.labels import sigma_future
from richter.engine.rows import FeatureRows
from richter.models.alert_log import Alert
from richter.models.alerts import AlertMachine
from richter.models.outcomes import AlertSummary, alert_outcomes, summarise_alerts
from richter.runtime.rule_alerts import SIGMA, TAU, RuleAlerts, policy_of

__all__ = ["AlertReport", "AlertRun", "ShownAlert"]


class ShownAlert(msgspec.Struct, frozen=True):
    """An alert as a person reads it.

    Attributes:
        ts_event: event time, ns.
        product_id: the product.
        kind: onset or clear.
        score: 60 s volatility over tau.
        followed: hit, miss, unknown; empty for a clear.
        lead_s: seconds until the volatility reached tau; None when it did not.
    """

    ts_event: int
    product_id: str
    kind: str
    score: float
    followed: str
    lead_s: float | None


class AlertReport(msgspec.Struct):
    """Alerts in log order, the file they are in, and each product's balance."""

    path: Path
    alerts: list[ShownAlert]
    summaries: dict[str, str]


class _Product:
    def __init__(self) -> None:
        # What outcomes need of every row: time, mid, sigma, tau, gap and its beginning.
        self.rows: list[tuple[np.ndarray, ...]] = []
        self.count = 0
        self.onsets: list[tuple[int, Alert]] = []

    def take(self, rows: FeatureRows) -> None:
        sigma, tau = rows.values[:, SIGMA].copy(), rows.values[:, TAU].copy()
        mid, ts = rows.values[:, 0].copy(), rows.ts_event.copy()
        self.rows.append((ts, mid, sigma, tau, rows.cause.copy(), rows.gap_from.copy()))


class AlertRun:
    """Takes feature rows as they are made; at the end writes the alert log and says what followed."""

    def __init__(self, settings: Settings) -> None:
        self._rule = RuleAlerts(policy_of(settings))
        self._products: dict[str, _Product] = {}
        self._log: list[Alert] = []
        self._stale = float(settings.stale_after_s)

    def take(self, rows: FeatureRows) -> None:
        """Advance each product's machine over its rows."""
        alerts = self._rule.take(rows, lambda name, mine: self._of(name).take(mine))
        for at, alert in alerts:
            self._log.append(alert)
            if alert.kind == "onset":
                product = self._of(alert.product_id)
                within = int(np.count_nonzero(rows.product[:at] == rows.product[at]))
                product.onsets.append((product.count + within, alert))
        for code, number in zip(*np.unique(rows.product, return_counts=True), strict=True):
            self._of(rows.products[int(code)]).count += int(number)

    def _of(self, name: str) -> _Product:
        return self._products.setdefault(name, _Product())

    def finish(self, path: Path) -> AlertReport:
        """Write the alert log anew and judge each onset."""
        write_log(path, self._log)
        followed: dict[str, tuple[str, float | None]] = {}
        summaries: dict[str, str] = {}
        for name, product in self._products.items():
            ts, mid, sigma, tau, cause, gap_from = (
                np.concatenate(column) for column in zip(*product.rows, strict=True)
            )
            future = sigma_future(ts, mid, cause, gap_from, self._stale)
            rows = np.array([row for row, _ in product.onsets], np.int64)
            outcomes = alert_outcomes(ts, sigma, tau, future, rows)
            for (_, alert), outcome in zip(product.onsets, outcomes, strict=True):
                word = "unknown" if outcome.hit is None else "hit" if outcome.hit else "miss"
                followed[alert.alert_id] = word, outcome.lead_s
            known = ~np.isnan(future + tau)
            summaries[name] = _balance(
                summarise_alerts(ts, tau, future, outcomes),
                float(np.mean(future[known] >= tau[known])) if known.any() else None,
                self._rule.machines[name],
            )
        shown = [
            ShownAlert(
                alert.ts_event,
                alert.product_id,
                str(alert.kind),
                alert.score,
                *followed.get(alert.alert_id, ("", None)),
            )
            for alert in self._log
        ]
        return AlertReport(path, shown, summaries)


def _balance(summary: AlertSummary, base_rate: float | None, machine: AlertMachine) -> str:
    def percent(share: float | None) -> str:
        return "unknown" if share is None else f"{share:.0%}"

    lead = "" if summary.median_lead_s is None else f", median lead {summary.median_lead_s:.0f} s"
    return (
        f"{summary.onsets} onsets, {summary.hits} hits, {summary.unknown} unknown: precision "
        f"{percent(summary.precision)} (base rate {percent(base_rate)}){lead}; "
        f"{summary.caught} of {summary.episodes} spikes met, {summary.caught_early} of them 30 s ahead; "
        f"ticks held back by cooldown {machine.held_by_cooldown:,}, by budget {machine.held_by_budget:,}"
    )
