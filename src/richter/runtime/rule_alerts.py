"""The baseline rule over feature rows: one machine a product, alerts out."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from richter.config import Settings
from richter.engine.rows import FeatureRows
from richter.engine.table import FEATURE_NAMES
from richter.models.alert_log import Alert
from richter.models.alerts import AlertMachine, AlertPolicy, AlertState, Transition
from richter.models.rule import RULE_NAME, RULE_VERSION, rule_ratio

__all__ = ["SIGMA", "TAU", "RuleAlerts", "policy_of"]

SIGMA = 1 + FEATURE_NAMES.index("realized_volatility_60s")
TAU = 1 + FEATURE_NAMES.index("tau_rolling")
"""Columns of a block of values."""


def policy_of(settings: Settings) -> AlertPolicy:
    """The policy that the settings say."""
    return AlertPolicy(
        on=settings.alert_on,
        off=settings.alert_off,
        cooldown_s=settings.alert_cooldown_s,
        budget_per_hour=settings.alert_budget_per_hour,
    )


class RuleAlerts:
    """Advances each product's machine over its rows.

    Args:
        policy: of every machine.
        states: product -> state to go on from.

    Attributes:
        machines: product -> its machine.
    """

    def __init__(self, policy: AlertPolicy, states: Mapping[str, AlertState] | None = None) -> None:
        self.policy = policy
        self.machines: dict[str, AlertMachine] = {}
        self._states = dict(states or {})

    def take(
        self, rows: FeatureRows, on_product: Callable[[str, FeatureRows], None] = lambda name, rows: None
    ) -> list[tuple[int, Alert]]:
        """The alerts of some rows, each with the number of its row, in their order.

        Args:
            rows: any mix of products, in log order.
            on_product: told of each product's rows.
        """
        found: list[tuple[int, Alert]] = []
        for code in np.unique(rows.product).tolist():
            name = rows.products[code]
            at = np.flatnonzero(rows.product == code)
            mine = rows if len(at) == len(rows) else rows.take(at)
            on_product(name, mine)
            found += [(int(at[i]), alert) for i, alert in self._of(name, mine)]
        return sorted(found, key=lambda pair: pair[0])

    def _of(self, name: str, rows: FeatureRows) -> list[tuple[int, Alert]]:
        machine = self.machines.get(name)
        if machine is None:
            machine = self.machines[name] = AlertMachine(self.policy, self._states.get(name))
        sigma, tau = rows.values[:, SIGMA].copy(), rows.values[:, TAU].copy()
        scores = rule_ratio(sigma, tau)
        events = machine.run(np.ascontiguousarray(rows.ts_event), scores)
        alerts = []
        for i, kind, state in zip(events.indices.tolist(), events.kinds, events.states, strict=True):
            frame, order, ticker = rows.identity[i].tolist()
            alert = Alert.of(
                Transition(kind, int(rows.ts_event[i]), float(scores[i]), state),
                self.policy,
                product_id=name,
                identity=(rows.conn_ids[int(rows.conn[i])], frame, order, ticker),
                rule=RULE_NAME,
                rule_version=RULE_VERSION,
                mid=float(rows.values[i, 0]),
                sigma=float(sigma[i]),
                tau=float(tau[i]),
            )
            alerts.append((i, alert))
        return alerts
