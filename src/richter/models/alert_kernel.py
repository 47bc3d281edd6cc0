"""The alert machine's table, compiled: what a tick does to the state, and the next event of a batch.

Everything that is compiled stands in this file: numba's cache sees a change of no other.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from itertools import product
from types import MappingProxyType
from typing import Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = [
    "HELD_BUDGET",
    "HELD_COOLDOWN",
    "NEVER",
    "TOKEN",
    "TRANSITIONS",
    "Edge",
    "Move",
    "Phase",
    "Rules",
    "Signal",
    "State",
    "advance",
    "next_event",
]

TOKEN: Final = 3_600_000_000_000
"""Units of the bucket in one token: one onset."""

NEVER: Final = -1
"""The time of what has not been: an int64, where the records have None. Real times are 0 or more."""

# 2 s: further back is a new segment, as everywhere in richter.
_BACK_STEP: Final = 2_000_000_000

State = tuple[int, int, int, int]
"""As in `AlertState`: phase, last_onset, bucket, ts_event; times may be `NEVER`."""

Rules = tuple[float, float, int, int, int]
"""Of a policy: on, off, cooldown in ns, budget_per_hour, capacity."""


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

HELD_COOLDOWN, HELD_BUDGET = 3, 4
"""What comes of a tick, beside the moves: an onset that was held back."""

_STAY, _ONSET = int(Move.STAY), int(Move.ONSET)
_UNKNOWN, _BELOW, _BETWEEN, _ABOVE = (int(signal) for signal in Signal)

# TRANSITIONS as the kernel reads it: [phase, signal] -> move, and -> phase.
_MOVES: Final = np.zeros((len(Phase), len(Signal)), dtype=np.int64)
_PHASES: Final = np.zeros((len(Phase), len(Signal)), dtype=np.int64)
for _key in product(Phase, Signal):
    _MOVES[_key], _PHASES[_key] = TRANSITIONS[_key]


@njit(cache=True, nogil=True)
def advance(t: int, score: float, state: State, rules: Rules) -> tuple[int, State]:
    """Take one tick.

    Args:
        t: Its effective event time, ns, 0 or more.
        score: NaN when unknown.
        state: The state before it.
        rules: The policy.

    Returns:
        What came of it, a `Move` or `HELD_COOLDOWN` or `HELD_BUDGET`, and the state after it.
    """
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

    fresh = ts_event == NEVER or t < ts_event - _BACK_STEP
    if move == _ONSET and not fresh and last_onset != NEVER and t - last_onset < cooldown:
        return HELD_COOLDOWN, state
    if not fresh and t > ts_event:
        # Divide before multiplying: years of silence would leave the int64.
        elapsed = t - ts_event
        full = elapsed > (capacity - bucket) // budget
        bucket = capacity if full else bucket + elapsed * budget
    if move == _ONSET:
        if bucket < TOKEN:
            return HELD_BUDGET, state
        bucket -= TOKEN
        last_onset = t
    elif fresh:
        last_onset = NEVER
    return move, (_PHASES[phase, signal], last_onset, bucket, t if fresh else max(t, ts_event))


@njit(cache=True, nogil=True)
def next_event(
    ts: NDArray[np.int64], scores: NDArray[np.float64], start: int, state: State, rules: Rules
) -> tuple[int, int, State, int, int]:
    """Take the ticks of a batch up to its next event.

    Args:
        ts: Effective event times, (n,) int64 ns, 0 or more.
        scores: (n,) float64, NaN where unknown.
        start: The row to begin with.
        state: The state before it.
        rules: The policy.

    Returns:
        The event's row, the number of rows without one; its move; the state after it; onsets on the way
        that the cooldown held back; those that the budget held back.
    """
    by_cooldown = 0
    by_budget = 0
    for row in range(start, ts.shape[0]):
        outcome, state = advance(ts[row], scores[row], state, rules)
        if outcome == HELD_COOLDOWN:
            by_cooldown += 1
        elif outcome == HELD_BUDGET:
            by_budget += 1
        elif outcome != _STAY:
            return row, outcome, state, by_cooldown, by_budget
    return ts.shape[0], _STAY, state, by_cooldown, by_budget
