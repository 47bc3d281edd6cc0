"""The rule's alerts over feature rows, and what followed each."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import numpy as np

from richter.config import Settings
from richter.engine.labels import sigma_future
from richter.engine.rows import FeatureRows
from richter.engine.table import FEATURE_NAMES
from richter.errors import DataFolderError
from richter.models.alerts import Alert, AlertMachine, AlertPolicy, Transition, encode_alert
from richter.models.outcomes import AlertSummary, alert_outcomes, summarise_alerts
from richter.models.rule import RULE_NAME, RULE_VERSION, rule_ratio

__all__ = ["AlertReport", "AlertRun", "ShownAlert"]

_SIGMA = 1 + FEATURE_NAMES.index("realized_volatility_60s")
_TAU = 1 + FEATURE_NAMES.index("tau_rolling")


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
    def __init__(self, policy: AlertPolicy) -> None:
        self.machine = AlertMachine(policy)
        # What outcomes need of every row: time, mid, sigma, tau, gap and its beginning.
        self.rows: list[tuple[np.ndarray, ...]] = []
        self.count = 0
        self.alerts: list[tuple[int, Alert]] = []


class AlertRun:
    """Takes feature rows as they are made; at the end writes the alert log and says what followed."""

    def __init__(self, settings: Settings) -> None:
        self.policy = AlertPolicy(
            on=settings.alert_on,
            off=settings.alert_off,
            cooldown_s=settings.alert_cooldown_s,
            budget_per_hour=settings.alert_budget_per_hour,
        )
        self._products: dict[str, _Product] = {}
        self._log: list[Alert] = []
        self._stale = float(settings.stale_after_s)

    def take(self, rows: FeatureRows) -> None:
        """Advance each product's machine over its rows."""
        found: list[tuple[int, Alert]] = []
        for code in np.unique(rows.product).tolist():
            name = rows.products[code]
            product = self._products.setdefault(name, _Product(self.policy))
            at = np.flatnonzero(rows.product == code)
            mine = rows.take(at)
            sigma, tau = mine.values[:, _SIGMA].copy(), mine.values[:, _TAU].copy()
            scores = rule_ratio(sigma, tau)
            events = product.machine.run(np.ascontiguousarray(mine.ts_event), scores)
            for i, kind, state in zip(events.indices.tolist(), events.kinds, events.states, strict=True):
                frame, order, ticker = mine.identity[i].tolist()
                alert = Alert.of(
                    Transition(kind, int(mine.ts_event[i]), float(scores[i]), state),
                    self.policy,
                    product_id=name,
                    identity=(mine.conn_ids[int(mine.conn[i])], frame, order, ticker),
                    rule=RULE_NAME,
                    rule_version=RULE_VERSION,
                    mid=float(mine.values[i, 0]),
                    sigma=float(sigma[i]),
                    tau=float(tau[i]),
                )
                found.append((int(at[i]), alert))
                product.alerts.append((product.count + i, alert))
            product.rows.append(
                (
                    mine.ts_event.copy(),
                    mine.values[:, 0].copy(),
                    sigma,
                    tau,
                    mine.cause.copy(),
                    mine.gap_from.copy(),
                )
            )
            product.count += len(mine)
        self._log.extend(alert for _, alert in sorted(found, key=lambda pair: pair[0]))

    def finish(self, path: Path) -> AlertReport:
        """Write the alert log anew and judge each onset."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{path.name}.{os.getpid()}")
            temporary.write_bytes(b"".join(encode_alert(alert) + b"\n" for alert in self._log))
            temporary.replace(path)
        except OSError as error:
            raise DataFolderError(
                f"cannot write the alert log ({error.strerror})", str(path), "give another --data"
            ) from error
        followed: dict[str, tuple[str, float | None]] = {}
        summaries: dict[str, str] = {}
        for name, product in self._products.items():
            ts, mid, sigma, tau, cause, gap_from = (
                np.concatenate(column) for column in zip(*product.rows, strict=True)
            )
            future = sigma_future(ts, mid, cause, gap_from, self._stale)
            onsets = [(row, alert) for row, alert in product.alerts if alert.kind == "onset"]
            outcomes = alert_outcomes(ts, sigma, tau, future, np.array([row for row, _ in onsets], np.int64))
            for (_, alert), outcome in zip(onsets, outcomes, strict=True):
                word = "unknown" if outcome.hit is None else "hit" if outcome.hit else "miss"
                followed[alert.alert_id] = word, outcome.lead_s
            known = ~np.isnan(future + tau)
            summaries[name] = _balance(
                summarise_alerts(ts, tau, future, outcomes),
                float(np.mean(future[known] >= tau[known])) if known.any() else None,
                product.machine,
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
