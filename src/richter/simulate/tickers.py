"""A ticker as the exchange says it: texts, not numbers, so that a recording is served to the letter."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Protocol

import msgspec

from richter.domain.ticks import Ns

__all__ = ["Pace", "Source", "Ticker"]


class Ticker(msgspec.Struct, frozen=True, gc=False):
    """One tick of one product. A text is None where it is not known; it then is left out of the frame.

    Attributes:
        ts: event time.
        product_id: as on the wire.
        snapshot: whether a recording has it as the state at subscription.
        traded: whether there was a trade; the Exchange feed says nothing else.
        sequence: the product's number on the Exchange feed: it grows, with holes.
        trade_id: of the last trade; it grows by one with each.
    """

    ts: Ns
    product_id: str
    price: str | None = None
    best_bid: str | None = None
    best_ask: str | None = None
    low_24h: str | None = None
    high_24h: str | None = None
    volume_24h: str | None = None
    last_size: str | None = None
    best_bid_quantity: str | None = None
    best_ask_quantity: str | None = None
    low_52w: str | None = None
    high_52w: str | None = None
    change_24h: str | None = None
    open_24h: str | None = None
    volume_30d: str | None = None
    side: str | None = None
    snapshot: bool = False
    traded: bool = True
    sequence: int = 0
    trade_id: int = 0


class Pace(Enum):
    """Which clock a source's ticks follow."""

    WALL = "wall"
    """Event times are those of the wall; what lies in the past goes out as fast as it is read."""

    RECORDED = "recorded"
    """The first tick goes out at the first subscription, the others as far after it as their times say."""

    READER = "reader"
    """As fast as the reader reads."""


class Source(Protocol):
    """Where ticks come from.

    Attributes:
        products: all that are served.
        description: what it is, for people: "market realistic, seed 7".
        pace: which clock its times follow.
        speed: of a recording: so many of its seconds a second.
        waits: whether its first tick waits for the first subscription.
    """

    products: tuple[str, ...]
    description: str
    pace: Pace
    speed: float
    waits: bool

    def begin(self, now: Ns) -> Iterator[Ticker]:
        """The ticks in their order, from the beginning; drawn or read as they are asked for."""
