"""What came in order on a connection, what is missing, and up to when the feed is known good."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Final

from richter.domain.ticks import NO_TIME, Ns
from richter.domain.times import SECOND
from richter.protocol.actions import Counts
from richter.protocol.gaps import FAR, LATE, Numbers, ProductGaps

__all__ = ["MOST_GAPS", "MOST_REFUSED", "Order"]

MOST_REFUSED: Final = 20
"""So many numbers in a row that do not go up: the sequence began anew, or one number was wrong."""

MOST_GAPS: Final = 20
GAPS_WITHIN: Final = 60 * SECOND

AHEAD: Final = 2 * SECOND
"""Frames stamped further ahead do not say how far the feed is known good; the engine refuses their ticks likewise."""

HELD: Final = -1
"""No frame has this number."""


class Order:
    """The order of one connection after another.

    Args:
        since: for each product, event time of its last record before, `NO_TIME` where there was none.
        counts: where duplicates, gaps and their like are counted.

    Attributes:
        products: continuity of each.
        numbers: of the connection's frames.
        good: the exchange's time of the last frame known good, on this connection or, before its first, on the
            one before; `NO_TIME` before any.
        fresh: whether `good` is still that of the connection before.
        broken: why the order of this connection can no longer be trusted; empty while it can.
    """

    def __init__(self, since: Mapping[str, Ns], counts: Counts) -> None:
        self.products = {name: ProductGaps(name, at) for name, at in since.items()}
        self.numbers = Numbers()
        self.good: Ns = NO_TIME
        self.broken = ""
        self._counts = counts
        self._held = 0
        self.fresh = True
        self._ahead = AHEAD
        self._gaps: deque[Ns] = deque(maxlen=MOST_GAPS)

    def connect(self) -> None:
        """Begin another connection: each product's next record is the first after a break."""
        for product in self.products.values():
            product.connect(self.good)
        self.numbers = Numbers()
        self.broken = ""
        self.fresh = True
        self._ahead = AHEAD
        self._gaps.clear()

    def set_offset(self, offset: Ns) -> None:
        """Set event minus receive time of the connection's first frame: clocks may differ."""
        self._ahead = AHEAD + max(0, offset)

    def believes(self, ts_event: Ns, ts_recv: Ns) -> bool:
        """Return whether an exchange's time can be right."""
        return ts_event <= ts_recv + self._ahead

    def know(self, ts_event: Ns, ts_recv: Ns) -> None:
        """Note the time of a frame that was read: nothing before it is missing unnoticed.

        Only to be called where it is later than `good`, or the connection's first.
        """
        if ts_event <= ts_recv + self._ahead:
            self.good = ts_event
            self.fresh = False

    def frame(self, sequence: int, now: Ns) -> str:
        """Take a frame's number; returns why the frame is not to be used, empty where it is."""
        if self.numbers.next == HELD:
            self.numbers.next = self._held
        missing = self.numbers.check(sequence)
        if missing < 0:
            return self._refused(missing, self.numbers, "frames")
        if missing == 0:
            for product in self.products.values():
                product.settled()
        else:
            explained = max(product.jump(missing, self.good) for product in self.products.values())
            self._jumped(missing - explained)
            if len(self._gaps) == MOST_GAPS and now - self._gaps[0] < GAPS_WITHIN:
                self.broken = f"{MOST_GAPS} gaps within a minute"
            self._gaps.append(now)
        return ""

    def trade(self, product: ProductGaps, trade_id: int, snapshot: bool) -> str:
        """Take the number of a ticker's trade; returns why the ticker is not to be used, empty where it is."""
        numbers = product.trades
        if snapshot and numbers.next is not None and trade_id < numbers.next:
            return ""  # The last trade once more.
        missing = numbers.check(trade_id)
        if missing < 0:
            return self._refused(missing, numbers, f"trades of {product.name}")
        if missing:
            self._jumped(missing - product.jump(missing, self._good_of(product)))
        else:
            product.settled()
        return ""

    def heard(self, product: ProductGaps, named: int | None, ts_event: Ns | None, ts_recv: Ns) -> None:
        """Take the number of the product's last trade from its heartbeat, which tells of a loss in quiet times too.

        A trade may be on its way: it is missing when the next heartbeat comes before it.
        """
        trades = product.trades
        if named is None or trades.next is None:
            return
        if product.heard is not None and product.heard >= trades.next:
            missing = trades.skip(product.heard)
            if missing:
                self._jumped(missing - product.jump(missing, self._good_of(product)))
        product.heard = named if named >= trades.next else None
        if product.heard is None and ts_event is not None and self.believes(ts_event, ts_recv):
            product.good = max(product.good, ts_event)

    def lost(self, frames: int) -> None:
        """Note frames that the owner dropped, after those that it handed over."""
        if self.numbers.next is not None and self.numbers.next != HELD:
            # The next frame takes the long way, whether its number jumps or not.
            self._held, self.numbers.next = self.numbers.next, HELD
        for product in self.products.values():
            product.lost(frames, self.good)

    def _good_of(self, product: ProductGaps) -> Ns:
        return self.good if product.good == NO_TIME else product.good

    def _jumped(self, missing: int) -> None:
        self._counts.gaps += 1
        self._counts.missing += missing

    def _refused(self, verdict: int, numbers: Numbers, what: str) -> str:
        """Count a frame whose number does not go up by one; returns why it is not used."""
        if numbers.refused >= MOST_REFUSED:
            self.broken = f"{MOST_REFUSED} {what} in a row with wrong numbers"
        if verdict == FAR:
            self._counts.dead += 1
            return "its number is too far ahead"
        if verdict == LATE:
            self._counts.out_of_order += 1
            return "late"
        self._counts.duplicates += 1
        return "duplicate"
