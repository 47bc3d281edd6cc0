"""The alert log: one `Alert` a line, JSON, each with the state of the machine after it.

The state makes the log its own checkpoint: see `richter.models.alerts`.
"""

from __future__ import annotations

import hashlib
import math
from typing import Final

import msgspec

from richter.domain.ticks import Ns
from richter.models.alerts import AlertKind, AlertPolicy, AlertState, Transition
from richter.models.rule import rule_ratio, rule_z

__all__ = ["Alert", "alert_id", "decode_alert", "encode_alert"]

Identity = tuple[str, int, int, int]
"""Of a tick: `conn_id`, `frame_no`, `event_index`, `ticker_index`."""


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the alert log, and the machine's checkpoint.

    Attributes:
        alert_id: the same for the same event in every run; see `alert_id`.
        kind: onset or all-clear.
        product_id: what it is about.
        conn_id: of the tick's identity, with `frame_no`, `event_index`, `ticker_index`.
        ts_event: effective event time of the tick.
        score: what the machine saw; finite.
        on: threshold of an onset.
        off: threshold of an all-clear.
        policy: version of the policy.
        rule: what made the score: the baseline rule's name, or the model's.
        rule_version: its version: the rule's, or the model's sha256.
        mid: of the tick; None when unknown, as all that follow.
        sigma: volatility of the last 60 s.
        tau: the threshold of a spike.
        ratio: sigma / tau, whatever made the score.
        z: the same in standard errors.
        state: the machine after this event.
        v: version of the form.
    """

    alert_id: str
    kind: AlertKind
    product_id: str
    conn_id: str
    frame_no: int
    event_index: int
    ticker_index: int
    ts_event: Ns
    score: float
    on: float
    off: float
    policy: str
    rule: str
    rule_version: str
    mid: float | None
    sigma: float | None
    tau: float | None
    ratio: float | None
    z: float | None
    state: AlertState
    v: int = 1

    @classmethod
    def of(
        cls,
        event: Transition,
        policy: AlertPolicy,
        *,
        product_id: str,
        identity: Identity,
        rule: str,
        rule_version: str,
        mid: float,
        sigma: float,
        tau: float,
    ) -> Alert:
        """Build the record of an event.

        Args:
            event: What the machine said.
            policy: The machine's.
            product_id: What it is about.
            identity: `conn_id`, `frame_no`, `event_index`, `ticker_index` of the tick.
            rule: Name of what made the score.
            rule_version: Its version.
            mid: NaN when unknown, as the next two.
            sigma: Volatility of the last 60 s.
            tau: The threshold of a spike.
        """
        conn_id, frame_no, event_index, ticker_index = identity
        ratio = rule_ratio(sigma, tau)
        return cls(
            alert_id=alert_id(product_id, identity, event.kind, policy.version),
            kind=event.kind,
            product_id=product_id,
            conn_id=conn_id,
            frame_no=frame_no,
            event_index=event_index,
            ticker_index=ticker_index,
            ts_event=event.ts_event,
            score=event.score,
            on=float(policy.on),
            off=float(policy.off),
            policy=policy.version,
            rule=rule,
            rule_version=rule_version,
            mid=_known(mid),
            sigma=_known(sigma),
            tau=_known(tau),
            ratio=_known(ratio),
            z=_known(rule_z(ratio)),
            state=event.state,
        )


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def alert_id(product_id: str, identity: Identity, kind: AlertKind, policy_version: str) -> str:
    """Name an event, the same in every run: a hash of tick, kind and policy, 32 hex digits.

    Args:
        product_id: What it is about.
        identity: `conn_id`, `frame_no`, `event_index`, `ticker_index` of the tick.
        kind: Onset or all-clear.
        policy_version: `AlertPolicy.version`.
    """
    # JSON keeps the parts apart: no two lists of parts share a text.
    told = msgspec.json.encode((product_id, *identity, kind, policy_version))
    return hashlib.sha256(told).hexdigest()[:32]


_DECODER: Final = msgspec.json.Decoder(Alert)


def encode_alert(alert: Alert) -> bytes:
    """One JSON object without a line feed. Floats are written so that they come back to the bit."""
    return msgspec.json.encode(alert)


def decode_alert(line: bytes) -> Alert:
    """What `encode_alert` wrote; unknown keys, of later versions, are passed over.

    Raises:
        msgspec.DecodeError: this is no alert.
    """
    return _DECODER.decode(line)
