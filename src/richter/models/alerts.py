"""The alert machine: from a score per tick to onsets and all-clears.

One machine a product. It is a table (`alert_kernel.TRANSITIONS`) over two phases and four signals: onset at
or above `on`, all-clear below `off`, between the two nothing flaps, an unknown score holds the phase. An
onset also needs

- the **cooldown**: `cooldown_s` of event time since the last onset;
- a **token** of the bucket: one an onset. An hour brings `budget_per_hour`, the bucket keeps `burst`: no
  hour holds more than `burst + budget_per_hour` onsets, and the long run no more than `budget_per_hour` an
  hour.

An onset that these hold back changes nothing but the statistics; a later tick of the same episode fires as
soon as it may. All-clears are free.

**The state changes only with an emitted event.** Refill and cooldown are functions of the tick's time and
of the last event. Each `alert_log.Alert` carries the whole state after it, so the alert log is its own checkpoint: a
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
from enum import StrEnum
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from richter.domain.ticks import Ns
from richter.errors import ConfigError, ContractError
from richter.models.alert_kernel import (
    HELD_BUDGET,
    HELD_COOLDOWN,
    NEVER,
    TOKEN,
    Move,
    Phase,
    advance,
    next_event,
)
from richter.models.rule import RULE_THRESHOLD_RATIO

__all__ = ["AlertKind", "AlertMachine", "AlertPolicy", "AlertState", "Events", "Transition"]

_SECOND: Final = 1_000_000_000

_MOST: Final = 100_000
"""Of budget and burst: a full bucket of 3.6e17 units leaves room in an int64."""

_LOGIC_VERSION: Final = 1
"""Changes with the machine's rules."""


class AlertKind(StrEnum):
    """What an alert says."""

    ONSET = "onset"
    CLEAR = "clear"


_KIND: Final[dict[int, AlertKind]] = {Move.ONSET: AlertKind.ONSET, Move.CLEAR: AlertKind.CLEAR}


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
            NEVER if state.last_onset is None else state.last_onset,
            min(state.bucket, policy.capacity),
            NEVER if state.ts_event is None else state.ts_event,
        )

    @property
    def state(self) -> AlertState:
        """What the last event left."""
        # int: without its compiler numba leaves numpy's integers, which JSON does not take.
        phase, last_onset, bucket, ts_event = (int(value) for value in self._state)
        return AlertState(
            phase=Phase(phase),
            last_onset=None if last_onset == NEVER else last_onset,
            bucket=bucket,
            ts_event=None if ts_event == NEVER else ts_event,
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
        outcome, self._state = advance(int(t_ns), float(score), self._state, self._rules)
        if outcome in _KIND:
            return Transition(_KIND[outcome], int(t_ns), float(score), self.state)
        self.held_by_cooldown += outcome == HELD_COOLDOWN
        self.held_by_budget += outcome == HELD_BUDGET
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
            row, outcome, self._state, by_cooldown, by_budget = next_event(
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
