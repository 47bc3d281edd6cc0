"""What a connection still has to send: first in, first out, with a mark above which the market waits."""

from __future__ import annotations

import asyncio
from collections import deque

from richter.simulate.wire import Draft

__all__ = ["Outbox"]


class Outbox:
    """Drafts on their way from the market to one connection.

    Args:
        bound: with so many waiting it is full. What answers the client is taken all the same.

    Attributes:
        closed: whether nobody reads any more; what is pushed then is dropped.
    """

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._drafts: deque[Draft | None] = deque()
        self._filled = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self.closed = False

    @property
    def full(self) -> bool:
        """Whether the market has to wait."""
        return not self._room.is_set()

    def push(self, draft: Draft | None) -> None:
        """Append; None is the end of the market."""
        if self.closed:
            return
        self._drafts.append(draft)
        self._filled.set()
        if len(self._drafts) >= self._bound:
            self._room.clear()

    async def get(self) -> Draft | None:
        """Take the first, waiting for it."""
        while not self._drafts:
            self._filled.clear()
            await self._filled.wait()
        draft = self._drafts.popleft()
        # At half, not at one less: else market and writer would take turns at every frame.
        if len(self._drafts) <= self._bound // 2:
            self._room.set()
        return draft

    async def room(self) -> None:
        """Wait until it is no longer full, or closed."""
        await self._room.wait()

    def close(self) -> None:
        """Drop everything; nobody reads any more."""
        self.closed = True
        self._drafts.clear()
        self._room.set()
