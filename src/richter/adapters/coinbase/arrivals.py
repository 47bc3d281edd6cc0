"""What happens on a socket, in order, between the thread that reads it and the one that works on it."""

from __future__ import annotations

import threading
from collections import deque
from enum import IntEnum
from typing import Final, NamedTuple

from richter.domain.ticks import Ns

__all__ = ["Arrival", "Arrivals", "What"]

LIMIT_BYTES: Final = 64 * 1024 * 1024
_OVERHEAD: Final = 200  # bytes of an arrival beside its data


class What(IntEnum):
    """What happened."""

    CONNECTING = 0
    OPENED = 1
    FRAME = 2
    LOST = 3
    CLOSED = 4
    FAILED = 5
    STOPPED = 6


class Arrival(NamedTuple):
    """Something that happened.

    Attributes:
        what: which.
        conn_id: on which connection.
        at: monotonic time, ns.
        ts_recv: wall clock, ns since the epoch.
        data: the frame; a text in UTF-8 for the others.
        frames: number of frames lost, of LOST.
    """

    what: What
    conn_id: str
    at: Ns
    ts_recv: Ns
    data: bytes = b""
    frames: int = 0


class Arrivals:
    """A queue bounded in bytes. The reader never waits: frames that find no room are counted, and said so in order.

    Args:
        limit_bytes: of all frames that wait.
    """

    def __init__(self, limit_bytes: int = LIMIT_BYTES) -> None:
        self._limit = limit_bytes
        self._waiting: deque[Arrival] = deque()
        self._bytes = 0
        self._lost = 0
        self._changed = threading.Condition()
        self.lost_frames = 0
        self.most_bytes = 0

    def put(self, arrival: Arrival) -> None:
        """Add an arrival; a frame that finds no room is dropped and counted."""
        size = len(arrival.data) + _OVERHEAD
        with self._changed:
            if arrival.what is What.FRAME and self._bytes + size > self._limit:
                self._lost += 1
                self.lost_frames += 1
                return
            if self._lost:
                self._append(arrival._replace(what=What.LOST, data=b"", frames=self._lost))
                self._lost = 0
            self._append(arrival)
            self._changed.notify()

    def take(self, timeout_s: float | None, most: int = 256) -> list[Arrival]:
        """Wait for arrivals and take those that are there; empty when none came in time.

        Args:
            timeout_s: None waits without end.
            most: at most so many.
        """
        with self._changed:
            if not self._waiting:
                self._changed.wait(timeout_s)
            taken = [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]
            self._bytes -= sum(len(arrival.data) + _OVERHEAD for arrival in taken)
            return taken

    @property
    def waiting_bytes(self) -> int:
        """Bytes that wait."""
        return self._bytes

    def _append(self, arrival: Arrival) -> None:
        self._waiting.append(arrival)
        self._bytes += len(arrival.data) + _OVERHEAD
        self.most_bytes = max(self.most_bytes, self._bytes)
