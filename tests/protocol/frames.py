"""Frames as Coinbase sends them, and a feed driven with them."""

from __future__ import annotations

import json
from typing import Any, Final

from richter.domain.times import format_time
from richter.protocol.advanced import AdvancedTrade
from richter.protocol.exchange import ExchangeFeed
from richter.protocol.feed import OUTCOMES, Action, Counts, Feed, Record

SECOND: Final = 10**9
START: Final = 1_788_646_229 * SECOND
"""The wall clock when the monotonic clock of these tests is 0."""


def dump(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def stamp(ns: int) -> str:
    """An exchange's time: RFC 3339, trailing zeros trimmed."""
    text = format_time(ns)[:-1]
    return (text.rstrip("0").rstrip(".") if "." in text else text) + "Z"


def quote(product: str, price: str = "79879.1", **changes: Any) -> dict[str, Any]:
    return {
        "type": "ticker",
        "product_id": product,
        "price": price,
        "volume_24_h": "14152.6699",
        "low_24_h": "79445",
        "high_24_h": "80206",
        "low_52_w": "57705.8",
        "high_52_w": "126340.3",
        "price_percent_chg_24_h": "0.25541069034937",
        "best_bid": "79879",
        "best_ask": "79879.1",
        "best_bid_quantity": "2.9352",
        "best_ask_quantity": "1.7389",
        **changes,
    }


def frame(channel: str, sequence: int, at: int, events: list[Any]) -> bytes:
    return dump({"channel": channel, "timestamp": stamp(at), "sequence_num": sequence, "events": events})


def ticker(sequence: int, at: int, *products: str, kind: str = "update", **changes: Any) -> bytes:
    tickers = [quote(product, **changes) for product in products or ("BTC-USD",)]
    return frame("ticker", sequence, at, [{"type": kind, "tickers": tickers}])


def heartbeat(sequence: int, at: int) -> bytes:
    event = {
        "current_time": "2026-09-05 22:10:30.25788961 +0000 UTC m=+139651.2",
        "heartbeat_counter": 139651,
    }
    return frame("heartbeats", sequence, at, [event])


def ack(sequence: int, at: int, *products: str, heartbeats: bool = True) -> bytes:
    subscribed = {"heartbeats": ["heartbeats"]} if heartbeats else {}
    return frame(
        "subscriptions",
        sequence,
        at,
        [{"subscriptions": subscribed | ({"ticker": products} if products else {})}],
    )


def trade(product: str, trade_id: int | None, at: int | None, **changes: Any) -> bytes:
    """A ticker of the Exchange feed."""
    message: dict[str, Any] = {
        "type": "ticker",
        "sequence": 115662765327,
        "product_id": product,
        "price": "98961.13",
        "open_24h": "101857.27",
        "volume_24h": "13153.35982162",
        "low_24h": "97870",
        "high_24h": "104050",
        "volume_30d": "221024.37988824",
        "best_bid": "98961.12",
        "best_bid_size": "0.02294485",
        "best_ask": "98961.24",
        "best_ask_size": "0.00172792",
        "side": "buy",
    }
    if at is not None:
        message["time"] = stamp(at)
    if trade_id is not None:
        message["trade_id"] = trade_id
    return dump(message | {"last_size": "0.00002047"} | changes)


def beat(product: str, trade_id: int, at: int) -> bytes:
    """A heartbeat of the Exchange feed."""
    return dump(
        {
            "type": "heartbeat",
            "sequence": 90,
            "last_trade_id": trade_id,
            "product_id": product,
            "time": stamp(at),
        }
    )


def listed(*products: str) -> bytes:
    """An acknowledgement of the Exchange feed."""
    channels = [
        {"name": name, "product_ids": products, "account_ids": None} for name in ("ticker", "heartbeat")
    ]
    return dump({"type": "subscriptions", "channels": channels})


class Driver:
    """A feed and its clocks: the wall clock is START ahead of the monotonic one, the exchange 30 ms behind it."""

    def __init__(self, feed: Feed) -> None:
        self.feed = feed
        self.now = 0
        self.sequence = 0
        self.connections = 0

    @property
    def at(self) -> int:
        """The exchange's time."""
        return START + self.now - 30_000_000

    def connect(self) -> list[Action]:
        self.connections += 1
        self.sequence = 0
        actions = self.feed.connect(f"conn-{self.connections}", self.now)
        return actions + self.feed.opened(self.now)

    def give(self, data: bytes) -> list[Action]:
        return self.feed.receive(data, START + self.now, self.now)

    def numbered(self, make: Any, *rest: Any, **more: Any) -> list[Action]:
        """Give a frame of Advanced Trade, with the next number."""
        data = make(self.sequence, self.at, *rest, **more)
        self.sequence += 1
        return self.give(data)

    def wait(self, seconds: float) -> list[Action]:
        """Let time pass, waking the feed whenever it asks for it."""
        end = self.now + round(seconds * SECOND)
        actions: list[Action] = []
        while (due := self.feed.deadline()) is not None and due <= end:
            self.now = max(self.now, due)
            actions += self.feed.wake(self.now)
        self.now = end
        return actions


def advanced(*products: str, **settings: Any) -> Driver:
    return Driver(Feed(AdvancedTrade(), products or ("BTC-USD",), **settings))


def exchange(*products: str, **settings: Any) -> Driver:
    return Driver(Feed(ExchangeFeed(), products or ("BTC-USD",), **settings))


def live(*products: str, **settings: Any) -> Driver:
    """A live connection of Advanced Trade: snapshots before the acknowledgements, as in production."""
    driver = advanced(*products, **settings)
    driver.connect()
    products = products or ("BTC-USD",)
    for product in products:
        driver.numbered(ticker, product, kind="snapshot")
    driver.numbered(ack, *products, heartbeats=False)
    driver.numbered(ack, *products)
    return driver


def records(actions: list[Action]) -> list[dict[str, Any]]:
    return [json.loads(action.line) for action in actions if isinstance(action, Record)]


def outcomes(counts: Counts) -> int:
    return sum(getattr(counts, name) for name in OUTCOMES)
