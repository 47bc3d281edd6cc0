"""The alert machine: from a score per tick to onsets and all-clears.

One machine a product. It is a table (`TRANSITIONS`) over two phases and four signals: onset at or above `on`,
all-clear below `off`, between the two nothing flaps, an unknown score holds the phase. An onset also needs

- the **cooldown**: `cooldown_s` of event time since the last onset;
- a **token** of the bucket: one an onset. An hour brings `budget_per_hour`, the bucket keeps `burst`: no
  hour holds more than `burst + budget_per_hour` onsets, and the long run no more than `budget_per_hour` an
  hour.

An onset that these hold back changes nothing but the statistics; a later tick of the same episode fires as
soon as it may. All-clears are free.

**The state changes only with an emitted event.** Refill and cooldown are functions of the tick's time and
of the last event. Each `Alert` carries the whole state after it, so the alert log is its own checkpoint: a
machine that starts from the last alert at or before a position goes on exactly as one that was never
interrupted.

**Exact arithmetic.** The bucket counts in units of which a token holds `TOKEN` = 3.6e12, the nanoseconds of
an hour: each nanosecond adds `budget_per_hour` whole units, and nothing is ever rounded.

**A clock that goes back**, always against the time in the state (the latest event's):

- up to 2 s: nothing refills, and no time is counted twice; the cooldown takes the tick's time as it is;
- further (a new segment): the cooldown counts as passed and the bucket keeps its level. If the segment runs
  without an event up to the old time again, then from 2 s before it the machine is where the old segment
  had left it. An all-clear in the new segment forgets the last onset, whose time means nothing there.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from enum import IntEnum, StrEnum
from itertools import product
from types import MappingProxyType
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numba import njit
from numpy.typing import NDArray

from richter.domain.ticks import Ns
from richter.errors import ConfigError, ContractError
from richter.models.rule import RULE_THRESHOLD_RATIO, rule_ratio, rule_z

__all__ = [
    "TOKEN",
    "TRANSITIONS",
    "Alert",
    "AlertKind",
    "AlertMachine",
    "AlertPolicy",
    "AlertState",
    "Edge",
    "Events",
    "Move",
    "Phase",
    "Signal",
    "Transition",
    "alert_id",
    "decode_alert",
    "encode_alert",
]

TOKEN: Final = 3_600_000_000_000
"""Units of the bucket in one token: one onset."""

_SECOND: Final = 1_000_000_000
_BACK_STEP: Final = 2 * _SECOND
"""Further back than this is a new segment, as everywhere in richter."""

# The kernel's "never": an int64, where the records have None. Real times are 0 or more.
_NEVER: Final = -1

_MOST: Final = 100_000
"""Of budget and burst: a full bucket of 3.6e17 units leaves room in an int64."""

_LOGIC_VERSION: Final = 1
"""Changes with the machine's rules."""


Identity = tuple[str, int, int, int]
"""Of a tick: `conn_id`, `frame_no`, `event_index`, `ticker_index`."""


class AlertKind(StrEnum):
    """What an alert says."""

    ONSET = "onset"
    CLEAR = "clear"


class Phase(IntEnum):
    """Where the machine is between two ticks."""

    QUIET = 0
    ALERTING = 1


class Signal(IntEnum):
    """What a score says."""

    UNKNOWN = 0
    """Not a finite number."""
    BELOW = 1
    """Below `off`."""
    BETWEEN = 2
    ABOVE = 3
    """At or above `on`."""


class Move(IntEnum):
    """What a tick asks for. An onset has to be granted by cooldown and bucket."""

    STAY = 0
    ONSET = 1
    CLEAR = 2


class Edge(NamedTuple):
    """One entry of the table: the move, and the phase after it."""

    move: Move
    phase: Phase


_STAY_QUIET = Edge(Move.STAY, Phase.QUIET)
_STAY_ALERTING = Edge(Move.STAY, Phase.ALERTING)

TRANSITIONS: Final[Mapping[tuple[Phase, Signal], Edge]] = MappingProxyType(
    {
        (Phase.QUIET, Signal.UNKNOWN): _STAY_QUIET,
        (Phase.QUIET, Signal.BELOW): _STAY_QUIET,
        (Phase.QUIET, Signal.BETWEEN): _STAY_QUIET,
        (Phase.QUIET, Signal.ABOVE): Edge(Move.ONSET, Phase.ALERTING),
        (Phase.ALERTING, Signal.UNKNOWN): _STAY_ALERTING,
        (Phase.ALERTING, Signal.BELOW): Edge(Move.CLEAR, Phase.QUIET),
        (Phase.ALERTING, Signal.BETWEEN): _STAY_ALERTING,
        (Phase.ALERTING, Signal.ABOVE): _STAY_ALERTING,
    }
)
"""The machine."""

_STAY, _ONSET, _CLEAR = (int(move) for move in Move)
_HELD_COOLDOWN, _HELD_BUDGET = 3, 4
_KIND: Final = {_ONSET: AlertKind.ONSET, _CLEAR: AlertKind.CLEAR}

_UNKNOWN, _BELOW, _BETWEEN, _ABOVE = (int(signal) for signal in Signal)

# TRANSITIONS as the kernel reads it: [phase, signal] -> move, and -> phase.
_MOVES: Final = np.zeros((len(Phase), len(Signal)), dtype=np.int64)
_PHASES: Final = np.zeros((len(Phase), len(Signal)), dtype=np.int64)
for _key in product(Phase, Signal):
    _MOVES[_key], _PHASES[_key] = TRANSITIONS[_key]


class AlertState(msgspec.Struct, frozen=True):
    """All that the machine remembers: what its last event left.

    Attributes:
        phase: quiet or alerting.
        last_onset: event time of the last onset; None before the first, and once a new segment has
            forgotten it.
        bucket: level of the token bucket at `ts_event`, in units of 1/`TOKEN` token.
        ts_event: event time of the last event, or the latest where the clock stepped back by up to 2 s;
            None before the first.
    """

    phase: Phase
    last_onset: Ns | None
    bucket: int
    ts_event: Ns | None


class AlertPolicy(msgspec.Struct, frozen=True):
    """When to alert.

    Attributes:
        on: an onset needs a score at or above it; for the baseline rule the score is σ60/τ.
        off: an all-clear needs a score below it; at most `on`.
        cooldown_s: event time from one onset to the next, at least.
        budget_per_hour: tokens an hour: onsets in the long run, at most.
        burst: tokens that the bucket keeps: onsets on end after a quiet time. None: as many as an hour
            brings; then a single hour can hold twice the budget, never more.

    Raises:
        ConfigError: a value is out of range.

    >>> AlertPolicy(on=0.5, off=0.4).initial_state().bucket == 6 * TOKEN
    True
    """

    on: float = RULE_THRESHOLD_RATIO
    off: float = 0.8
    cooldown_s: int = 60
    budget_per_hour: int = 6
    burst: int | None = None

    def __post_init__(self) -> None:
        """Refuse what makes no machine."""
        if not (math.isfinite(self.on) and math.isfinite(self.off)):
            raise ConfigError("alerts: a threshold is not a number", (self.on, self.off))
        if self.off > self.on:
            raise ConfigError("alerts: off lies above on", (self.off, self.on), "lower off")
        if not 0 <= self.cooldown_s <= 86_400:
            raise ConfigError("alerts: cooldown_s is out of range", self.cooldown_s, "use 0 to 86400")
        if not 1 <= self.budget_per_hour <= _MOST:
            raise ConfigError(
                "alerts: budget_per_hour is out of range", self.budget_per_hour, f"use 1 to {_MOST}"
            )
        if self.burst is not None and not 1 <= self.burst <= _MOST:
            raise ConfigError("alerts: burst is out of range", self.burst, f"use 1 to {_MOST}")

    @property
    def capacity(self) -> int:
        """Level of a full bucket, in units of 1/`TOKEN` token."""
        return (self.budget_per_hour if self.burst is None else self.burst) * TOKEN

    @property
    def version(self) -> str:
        """Hash of everything that decides when this policy alerts, 16 hex digits."""
        told = (
            _LOGIC_VERSION,
            float(self.on),
            float(self.off),
            self.cooldown_s,
            self.budget_per_hour,
            self.capacity,
        )
        return hashlib.sha256(msgspec.json.encode(told)).hexdigest()[:16]

    def initial_state(self) -> AlertState:
        """State of a machine without a past: quiet, with a full bucket."""
        return AlertState(phase=Phase.QUIET, last_onset=None, bucket=self.capacity, ts_event=None)


class Transition(NamedTuple):
    """An event of the machine: what it says of a tick, and the state after it."""

    kind: AlertKind
    ts_event: Ns
    score: float
    state: AlertState


class Events(NamedTuple):
    """The events of a batch, in its order.

    Attributes:
        indices: rows of the batch, int64.
        kinds: what each event says.
        states: the machine after each.
    """

    indices: NDArray[np.int64]
    kinds: list[AlertKind]
    states: list[AlertState]


# The state as the kernel has it: phase, last_onset, bucket, ts_event; times may be _NEVER.
_State = tuple[int, int, int, int]

# The policy: on, off, cooldown in ns, budget_per_hour, capacity.
_Rules = tuple[float, float, int, int, int]


@njit(cache=True, nogil=True)
def _advance(t: int, score: float, state: _State, rules: _Rules) -> tuple[int, _State]:
    # One tick: the outcome, a Move or why an onset was held back, and the state after it.
    phase, last_onset, bucket, ts_event = state
    on, off, cooldown, budget, capacity = rules
    if not np.isfinite(score):
        signal = _UNKNOWN
    elif score >= on:
        signal = _ABOVE
    elif score < off:
        signal = _BELOW
    else:
        signal = _BETWEEN
    move = _MOVES[phase, signal]
    if move == _STAY:
        return _STAY, state

    fresh = ts_event == _NEVER or t < ts_event - _BACK_STEP
    if move == _ONSET and not fresh and last_onset != _NEVER and t - last_onset < cooldown:
        return _HELD_COOLDOWN, state
    if not fresh and t > ts_event:
        # Divide before multiplying: years of silence would leave the int64.
        elapsed = t - ts_event
        full = elapsed > (capacity - bucket) // budget
        bucket = capacity if full else bucket + elapsed * budget
    if move == _ONSET:
        if bucket < TOKEN:
            return _HELD_BUDGET, state
        bucket -= TOKEN
        last_onset = t
    elif fresh:
        last_onset = _NEVER
    return move, (_PHASES[phase, signal], last_onset, bucket, t if fresh else max(t, ts_event))


@njit(cache=True, nogil=True)
def _next_event(
    ts: NDArray[np.int64], scores: NDArray[np.float64], start: int, state: _State, rules: _Rules
) -> tuple[int, int, _State, int, int]:
    # (its row or the number of rows, outcome, state after it, onsets held by cooldown, by budget)
    by_cooldown = 0
    by_budget = 0
    for row in range(start, ts.shape[0]):
        outcome, state = _advance(ts[row], scores[row], state, rules)
        if outcome == _HELD_COOLDOWN:
            by_cooldown += 1
        elif outcome == _HELD_BUDGET:
            by_budget += 1
        elif outcome != _STAY:
            return row, outcome, state, by_cooldown, by_budget
    return ts.shape[0], _STAY, state, by_cooldown, by_budget


class AlertMachine:
    """The alert machine of one product.

    `step` takes one tick, `run` a batch; any mixture of the two gives the same events.

    Args:
        policy: When to alert.
        state: The state in the last alert at or before the position to go on from; None without one. A bucket
            above this policy's capacity (the policy has changed) is cut to it.

    Attributes:
        held_by_cooldown: onsets held back by the cooldown since this object was made; a statistic, no state.
        held_by_budget: onsets held back by an empty bucket, likewise.

    Raises:
        ContractError: the state is none that a machine can have left.

    >>> machine = AlertMachine(AlertPolicy())
    >>> for second, score in enumerate((0.9, 1.2, 0.9, float("nan"), 0.7)):
    ...     if event := machine.step(second * 1_000_000_000, score):
    ...         print(second, event.kind, event.state.bucket / TOKEN)
    1 onset 5.0
    4 clear 5.005
    """

    def __init__(self, policy: AlertPolicy, state: AlertState | None = None) -> None:
        state = policy.initial_state() if state is None else state
        times = (state.last_onset, state.ts_event)
        if state.bucket < 0 or any(time is not None and time < 0 for time in times):
            raise ContractError("an alert machine cannot start from this state", state)
        self.policy = policy
        self.held_by_cooldown = 0
        self.held_by_budget = 0
        self._rules = (
            float(policy.on),
            float(policy.off),
            policy.cooldown_s * _SECOND,
            policy.budget_per_hour,
            policy.capacity,
        )
        self._state = (
            int(state.phase),
            _NEVER if state.last_onset is None else state.last_onset,
            min(state.bucket, policy.capacity),
            _NEVER if state.ts_event is None else state.ts_event,
        )

    @property
    def state(self) -> AlertState:
        """What the last event left."""
        # int: without its compiler numba leaves numpy's integers, which JSON does not take.
        phase, last_onset, bucket, ts_event = (int(value) for value in self._state)
        return AlertState(
            phase=Phase(phase),
            last_onset=None if last_onset == _NEVER else last_onset,
            bucket=bucket,
            ts_event=None if ts_event == _NEVER else ts_event,
        )

    def step(self, t_ns: Ns, score: float) -> Transition | None:
        """Take one tick.

        Args:
            t_ns: Its effective event time, 0 or more.
            score: NaN when unknown.

        Returns:
            The event, None when there is none.

        Raises:
            ContractError: the time is negative.
        """
        if t_ns < 0:
            raise ContractError("a tick without a time reached the alert machine", t_ns)
        outcome, self._state = _advance(int(t_ns), float(score), self._state, self._rules)
        if outcome in _KIND:
            return Transition(_KIND[outcome], int(t_ns), float(score), self.state)
        self.held_by_cooldown += outcome == _HELD_COOLDOWN
        self.held_by_budget += outcome == _HELD_BUDGET
        return None

    def run(self, ts: NDArray[np.int64], scores: NDArray[np.float64]) -> Events:
        """Take a batch of ticks, in log order.

        Args:
            ts: Effective event times, (n,) int64, 0 or more.
            scores: (n,) float64, NaN where unknown.

        Returns:
            The events: what `step` returns, row by row.

        Raises:
            ContractError: the arrays differ in length, or a time is negative.
        """
        ts = np.ascontiguousarray(ts, dtype=np.int64)
        scores = np.ascontiguousarray(scores, dtype=np.float64)
        if ts.ndim != 1 or ts.shape != scores.shape:
            raise ContractError("times and scores are not two columns of one table", (ts.shape, scores.shape))
        if ts.size and ts.min() < 0:
            raise ContractError("a tick without a time reached the alert machine", int(ts.min()))
        indices: list[int] = []
        kinds: list[AlertKind] = []
        states: list[AlertState] = []
        start = 0
        while start < ts.size:
            row, outcome, self._state, by_cooldown, by_budget = _next_event(
                ts, scores, start, self._state, self._rules
            )
            self.held_by_cooldown += by_cooldown
            self.held_by_budget += by_budget
            if outcome in _KIND:
                indices.append(row)
                kinds.append(_KIND[outcome])
                states.append(self.state)
            start = row + 1
        return Events(np.array(indices, dtype=np.int64), kinds, states)


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
