"""The Exchange feed from the exchange's side.

Numbers are a product's own: `sequence` has holes, `trade_id` has none. The acknowledgement comes first, then each
product's last trade; a product that is not served fails the whole message.

References:
    https://docs.cdp.coinbase.com/exchange/websocket-feed/channels
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import ClassVar

import msgspec

from richter.domain.ticks import Ns
from richter.domain.times import iso_capture
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

__all__ = ["ExchangeSession"]


class ExchangeSession:
    """The Exchange feed.

    Args:
        products: all that are served; another fails the whole message.
    """

    path: ClassVar[str] = "/exchange"
    ack_first: ClassVar[bool] = True
    trades_only: ClassVar[bool] = True

    def __init__(self, products: Collection[str]) -> None:
        self._products = products
        self._subscribed: dict[str, list[str]] = {}

    def read(self, message: str | bytes) -> Change:
        """Understand a message."""
        asked = read_message(message)
        subscribe = asked["type"] == "subscribe"
        listed = asked.get("channels")
        if not isinstance(listed, list) or not listed:
            raise NonsenseError(*self._failed(subscribe, "channels must be a list"))
        channels: dict[str, tuple[str, ...] | None] = {}
        for each in listed:
            own = each if isinstance(each, dict) else {"name": each}
            name, products = own.get("name"), products_of(own) + products_of(asked)
            if name not in ("ticker", "heartbeat"):
                raise NonsenseError(*self._failed(subscribe, f"{name} is not a valid channel"))
            if subscribe and not products:
                reason = f"You need to specify at least one product ID for channel {name}"
                raise NonsenseError(*self._failed(subscribe, reason))
            for product in products:
                if product not in self._products:
                    raise NonsenseError(*self._failed(subscribe, f"{product} is not a valid product"))
            channels[name] = tuple(dict.fromkeys((channels.get(name) or ()) + products)) or None
        return Change(subscribe, channels)

    def _failed(self, subscribe: bool, reason: str) -> tuple[str, str]:
        return f"Failed to {'subscribe' if subscribe else 'unsubscribe'}", reason

    def apply(self, change: Change, without: Collection[str] = ()) -> tuple[str, ...]:
        """Change the subscriptions."""
        for channel, products in change.channels.items():
            if products is not None and change.subscribe:
                products = tuple(each for each in products if each not in without)
            change_subscriptions(self._subscribed, channel, products, change.subscribe)
        if without:
            change_subscriptions(self._subscribed, "ticker", tuple(without), subscribe=False)
        asked = change.channels.get("ticker") or ()
        return tuple(each for each in asked if each not in without) if change.subscribe else ()

    def wants(self, product: str) -> bool:
        """Whether the product's ticker is subscribed to."""
        return product in self._subscribed.get("ticker", ())

    def ack(self, ts: Ns) -> Draft:
        """Draft the list of all subscriptions."""
        channels = [
            {"name": name, "product_ids": list(products), "account_ids": None}
            for name, products in self._subscribed.items()
        ]
        return Draft(Kind.ACK, ts, {"type": "subscriptions", "channels": channels})

    def beats(self, ts: Ns, counter: int, last: Mapping[str, Ticker]) -> list[Draft]:
        """Draft the heartbeats of a second, one a product."""
        return [
            Draft(Kind.BEAT, ts, Beat(counter, last[product]))
            for product in self._subscribed.get("heartbeat", ())
            if product in last
        ]

    def number(self, draft: Draft, shift: int = 0) -> bytes:
        """Make the frame: its numbers are the product's own."""
        content = draft.content
        if isinstance(content, Ticker):
            return msgspec.json.encode(_exchange(content, content.ts + shift))
        if isinstance(content, Beat):
            last = content.last
            assert last is not None  # See `beats`.
            content = {
                "type": "heartbeat",
                "sequence": last.sequence,
                "last_trade_id": last.trade_id,
                "product_id": last.product_id,
                "time": iso_capture(draft.ts + shift),
            }
        return msgspec.json.encode(content)


class _Exchange(msgspec.Struct, tag="ticker", tag_field="type", omit_defaults=True, gc=False):
    """The keys in the order of the wire."""

    sequence: int
    product_id: str
    price: str | None = None
    open_24h: str | None = None
    volume_24h: str | None = None
    low_24h: str | None = None
    high_24h: str | None = None
    volume_30d: str | None = None
    best_bid: str | None = None
    best_bid_size: str | None = None
    best_ask: str | None = None
    best_ask_size: str | None = None
    side: str | None = None
    time: str | None = None
    trade_id: int | None = None
    last_size: str | None = None


def _exchange(ticker: Ticker, ts: Ns) -> _Exchange:
    return _Exchange(
        ticker.sequence,
        ticker.product_id,
        ticker.price,
        ticker.open_24h,
        ticker.volume_24h,
        ticker.low_24h,
        ticker.high_24h,
        ticker.volume_30d,
        ticker.best_bid,
        ticker.best_bid_quantity,
        ticker.best_ask,
        ticker.best_ask_quantity,
        ticker.side,
        iso_capture(ts),
        ticker.trade_id,
        ticker.last_size,
    )
