"""Advanced Trade from the exchange's side.

Every frame of a connection is numbered from 0, over all channels; errors have no number. Snapshots come before the
acknowledgement, which lists all subscriptions; a product that is not served is silently absent from it.

References:
    https://docs.cdp.coinbase.com/coinbase-app/advanced-trade-apis/websocket/websocket-channels
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import ClassVar, Final

import msgspec

from richter.domain.ticks import Ns
from richter.domain.times import SECOND, iso_capture
from richter.simulate.tickers import Ticker
from richter.simulate.wire import (
    Beat,
    Change,
    Draft,
    Kind,
    NonsenseError,
    change_subscriptions,
    products_of,
    read_message,
)

__all__ = ["AdvancedSession", "rfc3339_nano"]

_NOT_SERVED: Final = ("candles", "level2", "market_trades", "status", "ticker_batch", "user")


class AdvancedSession:
    """Advanced Trade.

    Args:
        products: all that are served; another is silently left out.
    """

    path: ClassVar[str] = "/"
    ack_first: ClassVar[bool] = False
    trades_only: ClassVar[bool] = False

    def __init__(self, products: Collection[str]) -> None:
        self._products = products
        self._subscribed: dict[str, list[str]] = {}
        self._sequence = 0

    def read(self, message: str | bytes) -> Change:
        """Understand a message."""
        asked = read_message(message)
        channel = asked.get("channel")
        if channel not in ("ticker", "heartbeats"):
            if channel in _NOT_SERVED:
                raise NonsenseError(f"the simulated exchange does not serve the channel {channel}")
            raise NonsenseError("authentication failure")  # What the real one says to an unknown name.
        subscribe = asked["type"] == "subscribe"
        products = products_of(asked)
        if channel == "heartbeats":
            return Change(subscribe, {"heartbeats": None})
        if subscribe and not products:
            raise NonsenseError("no product_ids")
        return Change(subscribe, {"ticker": products})

    def apply(self, change: Change, without: Collection[str] = ()) -> tuple[str, ...]:
        """Change the subscriptions."""
        for channel, products in change.channels.items():
            if channel == "heartbeats":
                products = ("heartbeats",) if change.subscribe else None
            elif products is not None and change.subscribe:
                products = tuple(each for each in products if each in self._products and each not in without)
            change_subscriptions(self._subscribed, channel, products, change.subscribe)
        if without:
            change_subscriptions(self._subscribed, "ticker", tuple(without), subscribe=False)
        if not change.subscribe:
            return ()
        asked = dict.fromkeys(change.channels.get("ticker") or ())
        return tuple(each for each in asked if each not in without and self.wants(each))

    def wants(self, product: str) -> bool:
        """Whether the product's ticker is subscribed to."""
        return product in self._subscribed.get("ticker", ())

    def ack(self, ts: Ns) -> Draft:
        """Draft the list of all subscriptions."""
        now = {channel: list(products) for channel, products in sorted(self._subscribed.items())}
        return Draft(Kind.ACK, ts, {"subscriptions": now})

    def beats(self, ts: Ns, counter: int, last: Mapping[str, Ticker]) -> list[Draft]:
        """Draft the heartbeat of a second."""
        return [Draft(Kind.BEAT, ts, Beat(counter))] if "heartbeats" in self._subscribed else []

    def number(self, draft: Draft, shift: int = 0) -> bytes:
        """Make the frame and give it the next number."""
        content, ts = draft.content, draft.ts + shift
        if draft.kind is Kind.ERROR:
            return msgspec.json.encode(content)
        if isinstance(content, Ticker):
            channel = b"ticker"
            kind = b"snapshot" if draft.snapshot else b"update"
            event = b'{"type":"%b","tickers":[%b]}' % (kind, msgspec.json.encode(_advanced(content)))
        elif isinstance(content, Beat):
            channel = b"heartbeats"
            event = _go_beat(ts, content.counter)
        else:
            channel = b"subscriptions"
            event = msgspec.json.encode(content)
        sequence = self._sequence
        self._sequence += 1
        return b'{"channel":"%b","timestamp":"%b","sequence_num":%d,"events":[%b]}' % (
            channel,
            rfc3339_nano(ts).encode(),
            sequence,
            event,
        )


def rfc3339_nano(ns: Ns) -> str:
    """Return a time as Go's RFC3339Nano has it: up to nine digits, trailing zeros cut.

    >>> rfc3339_nano(1788646230_257889610), rfc3339_nano(1788646230_000000000)
    ('2026-09-05T22:10:30.25788961Z', '2026-09-05T22:10:30Z')
    """
    seconds, rest = divmod(ns, SECOND)
    return f"{_second(seconds)}.{rest:09}".rstrip("0") + "Z" if rest else f"{_second(seconds)}Z"


@lru_cache(256)
def _second(seconds: int) -> str:
    return iso_capture(seconds * SECOND)[:19]


def _go_beat(ts: Ns, counter: int) -> bytes:
    seconds, rest = divmod(ts, SECOND)
    fraction = f".{rest:09}".rstrip("0") if rest else ""
    day = _second(seconds).replace("T", " ")
    return b'{"current_time":"%b%b +0000 UTC m=+%d.%09d","heartbeat_counter":%d}' % (
        day.encode(),
        fraction.encode(),
        counter,
        rest,
        counter,
    )


class _Advanced(msgspec.Struct, tag="ticker", tag_field="type", omit_defaults=True, gc=False):
    """The keys in the order of the wire."""

    product_id: str
    price: str | None = None
    volume_24_h: str | None = None
    low_24_h: str | None = None
    high_24_h: str | None = None
    low_52_w: str | None = None
    high_52_w: str | None = None
    price_percent_chg_24_h: str | None = None
    best_bid: str | None = None
    best_ask: str | None = None
    best_bid_quantity: str | None = None
    best_ask_quantity: str | None = None


def _advanced(ticker: Ticker) -> _Advanced:
    return _Advanced(
        ticker.product_id,
        ticker.price,
        ticker.volume_24h,
        ticker.low_24h,
        ticker.high_24h,
        ticker.low_52w,
        ticker.high_52w,
        ticker.change_24h,
        ticker.best_bid,
        ticker.best_ask,
        ticker.best_bid_quantity,
        ticker.best_ask_quantity,
    )
