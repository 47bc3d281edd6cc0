"""The connection's states and deadlines: one table, and what reads it."""

from __future__ import annotations

from collections import deque
from enum import IntEnum, StrEnum
from typing import Final

from msgspec import Struct

from richter.domain.ticks import Ns
from richter.domain.times import SECOND
from richter.protocol.actions import Cause, Deadlines, FeedState

__all__ = [
    "BYTES",
    "DATA",
    "HEARTBEAT",
    "MOVES",
    "OPENED",
    "RESUBSCRIBE",
    "RESUBSCRIBED",
    "TABLE",
    "After",
    "Clock",
    "Clocks",
    "Event",
    "Row",
    "Then",
]

CONNECTING, SUBSCRIBING, WAITING = FeedState.CONNECTING, FeedState.SUBSCRIBING, FeedState.WAITING
LIVE, QUIET, CLOSED = FeedState.LIVE, FeedState.QUIET, FeedState.CLOSED


class Event(StrEnum):
    """What moves a connection from state to state, beside time."""

    CONNECT = "connect"
    OPENED = "opened"
    ACKED = "acked"
    DATA = "data"
    CLOSED = "closed"


class Clock(IntEnum):
    """What deadlines count from."""

    CONNECT = 0
    OPENED = 1
    BYTES = 2
    """The last frame, whatever it holds."""
    HEARTBEAT = 3
    """The last heartbeat; before the first, the acknowledgement."""
    DATA = 4
    """The last ticker; stopped while a renewed subscription is waited for."""
    RESUBSCRIBED = 5


# Python finds a member of an enumeration slowly: every frame sets a clock or two.
OPENED, BYTES, HEARTBEAT, DATA, RESUBSCRIBED = map(
    int, (Clock.OPENED, Clock.BYTES, Clock.HEARTBEAT, Clock.DATA, Clock.RESUBSCRIBED)
)


class After(Struct, frozen=True):
    """A deadline: `limit` (a field of `Deadlines`, `quiet` or `mute`) after `since`."""

    since: Clock
    limit: str


RESUBSCRIBE: Final = "resubscribe"

Then = FeedState | Cause | str
"""The next state; or why the connection is given up; or `RESUBSCRIBE`."""


class Row(Struct, frozen=True):
    """In one of `states`, on `when`, `then` follows."""

    states: tuple[FeedState, ...]
    when: Event | After
    then: Then


TABLE: Final = (
    Row((CLOSED,), Event.CONNECT, CONNECTING),
    Row((CONNECTING,), Event.OPENED, SUBSCRIBING),
    Row((CONNECTING,), After(Clock.CONNECT, "connect_s"), Cause.CONNECT_TIMEOUT),
    # The snapshot comes before the acknowledgement, which is waited for all the same.
    Row((SUBSCRIBING,), Event.ACKED, WAITING),
    Row((SUBSCRIBING,), After(Clock.OPENED, "ack_s"), Cause.SUBSCRIBE_TIMEOUT),
    Row((WAITING,), Event.DATA, LIVE),
    # Counted from the opening: a watchdog that waits for a first frame never barks.
    Row((WAITING,), After(Clock.OPENED, "first_data_s"), Cause.NO_DATA),
    # Three clocks: neither bytes nor heartbeats prove that there is data, nor data that the connection lives.
    Row((WAITING, LIVE, QUIET), After(Clock.BYTES, "silence_s"), Cause.NO_BYTES),
    Row((WAITING, LIVE, QUIET), After(Clock.HEARTBEAT, "silence_s"), Cause.NO_HEARTBEAT),
    Row((LIVE,), After(Clock.DATA, "quiet"), QUIET),
    Row((QUIET,), Event.DATA, LIVE),
    Row((QUIET,), After(Clock.DATA, "mute"), RESUBSCRIBE),
    # A renewed subscription brings a snapshot, also of a product that nobody trades.
    Row((QUIET,), After(Clock.RESUBSCRIBED, "first_data_s"), Cause.MUTE),
    Row((CONNECTING, SUBSCRIBING, WAITING, LIVE, QUIET), Event.CLOSED, CLOSED),
)
"""Rows above come before rows below where both are due."""

MOVES: Final = {
    (state, row.when): row.then for row in TABLE if isinstance(row.when, Event) for state in row.states
}
DUE: Final = {
    state: tuple((row.when, row.then) for row in TABLE if isinstance(row.when, After) and state in row.states)
    for state in FeedState
}

SPACINGS: Final = 64
"""So many spacings of tickers make the median."""


class Clocks:
    """The deadlines of one feed.

    Args:
        deadlines: the limits.
    """

    def __init__(self, deadlines: Deadlines) -> None:
        fields = {name: getattr(deadlines, name) for name in deadlines.__struct_fields__}
        self._limits = {name: round(value * SECOND) for name, value in fields.items()}
        self._least_mute: Ns = self._limits["mute_s"]
        self._mute_spacings = deadlines.mute_spacings
        self._spacings: deque[Ns] = deque(maxlen=SPACINGS)
        self._fresh = 0
        self.at: list[Ns | None] = [None] * len(Clock)
        self._set_mute(self._least_mute)

    def reset(self, now: Ns) -> None:
        """Begin a connection."""
        self.at = [None] * len(Clock)
        self.at[Clock.CONNECT] = now

    def spaced(self, spacing: Ns) -> None:
        """Note the spacing of two tickers' frames."""
        self._spacings.append(spacing)
        self._fresh += 1
        # The first few change the median most; after that, not each of them is worth a sort.
        if self._fresh >= SPACINGS // 2 or len(self._spacings) < SPACINGS // 2:
            self._fresh = 0
            median = sorted(self._spacings)[len(self._spacings) // 2]
            self._set_mute(max(self._least_mute, round(median * self._mute_spacings)))

    def limit(self, name: str) -> Ns:
        """Return a limit in ns."""
        return self._limits[name]

    def deadline(self, state: FeedState) -> Ns | None:
        """Return when the next deadline passes, None for never."""
        next_due = None
        for when, _ in DUE[state]:
            since = self.at[when.since]
            if since is not None:
                due = since + self._limits[when.limit]
                if next_due is None or due < next_due:
                    next_due = due
        return next_due

    def due(self, state: FeedState, now: Ns) -> tuple[After, Then] | None:
        """Return a deadline that has passed and what follows, None where none has."""
        for when, then in DUE[state]:
            since = self.at[when.since]
            if since is not None and since + self._limits[when.limit] <= now:
                return when, then
        return None

    def _set_mute(self, mute: Ns) -> None:
        self._limits["mute"] = mute
        self._limits["quiet"] = mute // 3
