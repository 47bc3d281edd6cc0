"""What broke the continuity of a product's ticks: numbers that are missing, gaps kept until a record carries them."""

from __future__ import annotations

from collections import deque
from typing import Final

from richter.domain.ticks import NO_TIME, Gap, GapCause, Ns
from richter.protocol.line import line_head

__all__ = ["DUPLICATE", "FAR", "LATE", "Numbers", "ProductGaps", "merge"]

DUPLICATE, LATE, FAR = -1, -2, -3
"""Of a number that does not come next: it was there before; it was missing; it lies too far ahead to be believed."""

FARTHEST: Final = 1_000_000
"""So many missing frames are hours of a busy feed: not a loss, a wrong number."""

MOST_HOLES: Final = 32

# Of several causes the one that explains most is told: what lies before a start or a reconnection is unknown anyway.
RANK: Final = {
    GapCause.SEQUENCE: 1,
    GapCause.OVERFLOW: 2,
    GapCause.CLOCK: 3,
    GapCause.RECONNECT: 4,
    GapCause.START: 5,
}


def merge(first: Gap | None, second: Gap | None) -> Gap | None:
    """Return two gaps with no record between them as one.

    >>> merge(Gap(GapCause.SEQUENCE, 30, 2), Gap(GapCause.OVERFLOW, 20, 5))
    Gap(cause=<GapCause.OVERFLOW: 4>, from_ns=20, missing=7)
    """
    if first is None or second is None:
        return first or second
    missing = None if first.missing is None or second.missing is None else first.missing + second.missing
    cause = max(first.cause, second.cause, key=RANK.__getitem__)
    return Gap(cause, min(first.from_ns, second.from_ns), missing)


class Numbers:
    """Numbers that should go up by one: each is next, late, a duplicate, or tells how many are missing.

    Attributes:
        next: the number to come, None before the first: any may be that.
        refused: how many in a row did not go up, or went up too far.
    """

    __slots__ = ("_holes", "next", "refused")

    def __init__(self) -> None:
        self.next: int | None = None
        self.refused = 0
        self._holes: deque[range] = deque(maxlen=MOST_HOLES)

    def check(self, number: int) -> int:
        """Take the next number; returns how many are missing before it, else `DUPLICATE`, `LATE` or `FAR`.

        >>> numbers = Numbers()
        >>> [numbers.check(number) for number in (7, 8, 11, 9, 9, 12)]
        [0, 0, 2, -2, -1, 0]
        """
        if self.next is None or number == self.next:
            missing = 0
        else:
            missing = number - self.next
            if not 0 < missing <= FARTHEST:
                self.refused += 1
                return FAR if missing > 0 else self._earlier(number)
            self._holes.append(range(self.next, number))
        self.next = number + 1
        self.refused = 0
        return missing

    def skip(self, number: int) -> int:
        """Give up waiting for the numbers up to this one; returns how many they are, 0 where they are too many."""
        missing = 0 if self.next is None else number + 1 - self.next
        if self.next is None or not 0 < missing <= FARTHEST:
            return 0
        self._holes.append(range(self.next, number + 1))
        self.next = number + 1
        return missing

    def _earlier(self, number: int) -> int:
        for hole in self._holes:
            if number in hole:
                self._holes.remove(hole)
                for rest in (range(hole.start, number), range(number + 1, hole.stop)):
                    if rest:
                        self._holes.append(rest)
                return LATE
        return DUPLICATE


class ProductGaps:
    """One product's continuity.

    Args:
        name: the product, as it stands in records.
        since: event time of its last record, `NO_TIME` where there was none.

    Attributes:
        name: the product.
        head: `line_head` of it.
        pending: the gap that its next record carries.
        seen: whether this connection has sent it.
        trades: the numbers of its trades, where they are numbered.
        heard: number of a trade that the last heartbeat named and that has not come, None where all have.
        good: event time up to which no trade of it is missing.
    """

    __slots__ = (
        "_before",
        "_carried",
        "_frame",
        "_lost",
        "_noted",
        "good",
        "head",
        "heard",
        "name",
        "pending",
        "seen",
        "trades",
    )

    def __init__(self, name: str, since: Ns) -> None:
        self.name = name
        self.head = line_head(name)
        self.pending: Gap | None = Gap(GapCause.START, since)
        self.seen = False
        self.trades = Numbers()
        self.heard: int | None = None
        self.good: Ns = NO_TIME
        self._frame = 0
        self._noted = True  # There was no frame yet.
        self._lost = 0
        self._before: Ns = NO_TIME
        self._carried: Gap | None = None

    def connect(self, since: Ns) -> None:
        """Begin another connection; `since` is the last time known good on the one before."""
        self.seen = False
        self.trades = Numbers()
        self.heard = None
        self.good = NO_TIME
        self._lost = 0
        if self.pending is None or self.pending.cause != GapCause.START:
            self.pending = merge(self.pending, Gap(GapCause.RECONNECT, since))

    def jump(self, missing: int, since: Ns) -> int:
        """Note frames missing from the sequence; returns how many of them the owner is known to have dropped."""
        explained = min(missing, self._lost)
        self._lost = 0
        if self.pending is None:
            self.pending = Gap(GapCause.OVERFLOW if explained else GapCause.SEQUENCE, since, missing)
        elif missing > explained:
            self.pending = merge(self.pending, Gap(GapCause.SEQUENCE, since, missing - explained))
        return explained

    def lost(self, frames: int, since: Ns) -> None:
        """Note frames that the owner dropped."""
        self._lost += frames
        self.pending = merge(self.pending, Gap(GapCause.OVERFLOW, since, frames))

    def settled(self) -> None:
        """Note that the sequence goes on without a jump: what the owner dropped had no numbers."""
        self._lost = 0

    def spoiled(self, since: Ns) -> None:
        """Note a tick that came and cannot be recorded."""
        self.pending = merge(self.pending, Gap(GapCause.SEQUENCE, since, 1))

    def take(self, frame: int, since: Ns) -> Gap | None:
        """Return the gap of the record that is being made.

        Args:
            frame: which frame it is of.
            since: the last time known good before that frame.
        """
        if frame != self._frame:
            self._frame = frame
            self._before = since
            self._carried = None
            self._noted = False
        gap = self.pending
        if gap is not None:
            self.pending = None
            self._carried = merge(self._carried, gap)
        return gap

    def not_recorded(self) -> None:
        """Note that records of the last frame are lost, and with them the gap that they carried."""
        if self._noted:
            return
        self._noted = True
        carried, self._carried = self._carried, None
        self.pending = merge(merge(carried, Gap(GapCause.OVERFLOW, self._before, 1)), self.pending)
