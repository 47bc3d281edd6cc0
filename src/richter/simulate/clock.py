"""The clock of the simulated exchange: real, or one that a test moves."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

from richter.domain.ticks import Ns
from richter.domain.times import SECOND

__all__ = ["Clock", "WallClock"]


class Clock(Protocol):
    """What time it is, and waiting for a time."""

    def now(self) -> Ns:
        """The time, which never goes backwards."""

    async def sleep_until(self, ns: Ns) -> None:
        """Return at a time; let others run at least once even where it has passed."""


class WallClock:
    """The time of day at the start, carried on by the monotonic clock, so that nobody can set it back."""

    def __init__(self) -> None:
        self._offset = time.time_ns() - time.monotonic_ns()

    def now(self) -> Ns:
        """The time."""
        return time.monotonic_ns() + self._offset

    async def sleep_until(self, ns: Ns) -> None:
        """Return at a time."""
        await asyncio.sleep(max(0.0, (ns - self.now()) / SECOND))
