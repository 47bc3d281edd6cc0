"""Coinbase Exchange's feed: all channels in one subscription, no numbers on frames, trades numbered per product.

`sequence` is sparse on the ticker channel and says nothing about losses there; `trade_id` is dense. A heartbeat names
the product's last trade, which shows a loss also when nothing follows it. The first ticker after a subscription is the
last trade, however old: a snapshot.

References:
    https://docs.cdp.coinbase.com/exchange/websocket-feed/overview
    https://docs.cdp.coinbase.com/exchange/websocket-feed/channels
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Raw

from richter.domain.times import parse_time
from richter.protocol.dialect import (
    JSON_ERRORS,
    Ack,
    Kind,
    Message,
    Quote,
    UnreadableError,
    check_whole,
    quote_of,
    text_of,
)

__all__ = ["ExchangeFeed"]

_Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class _Frame(Quote, kw_only=True, gc=False):
    type: str
    product_id: str = ""
    time: str = ""
    trade_id: _Count | None = None
    last_trade_id: _Count | None = None
    message: str = ""
    reason: str = ""
    channels: Raw = Raw()


class _Channel(msgspec.Struct):
    name: str
    product_ids: list[str] = []


_read_frame = msgspec.json.Decoder(_Frame).decode
_read_object = msgspec.json.Decoder(dict[str, Raw]).decode
_read_channels = msgspec.json.Decoder(list[_Channel]).decode
_read_number = msgspec.json.Decoder(_Count, strict=False).decode
_read_time = msgspec.json.Decoder(str | int | float | None).decode

TICKER: Final = Kind.TICKER


class ExchangeFeed:
    """The dialect of `wss://ws-feed.exchange.coinbase.com`."""

    numbers_frames = False

    def subscribe(self, products: Sequence[str]) -> list[str]:
        """Return the frame that asks for the tickers and the heartbeats of these products.

        >>> ExchangeFeed().subscribe(["BTC-USD"])
        ['{"type":"subscribe","product_ids":["BTC-USD"],"channels":["ticker","heartbeat"]}']
        """
        return [_request("subscribe", products, ["ticker", "heartbeat"])]

    def resubscribe(self, products: Sequence[str]) -> list[str]:
        """Return the frames that end the tickers' subscription and ask for it anew."""
        return [_request(kind, products, ["ticker"]) for kind in ("unsubscribe", "subscribe")]

    def twin(self, product: str) -> str | None:
        """Return None: this feed sends each product under its own name."""
        return None

    def read(self, frame: bytes) -> Message:
        """Read one frame.

        Raises:
            UnreadableError: it cannot be read.
        """
        try:
            found = _read_frame(frame)
        except JSON_ERRORS:
            return _read_unusual(frame)
        if found.type == "ticker":
            if not found.product_id:
                raise UnreadableError("a ticker without product_id")
            return Message(
                TICKER, frame, None, parse_time(found.time), ((0, 0, None, found, frame),), found.trade_id
            )
        return _other(frame, found.type, found.product_id, found.time, found.last_trade_id, found)


def _request(kind: str, products: Sequence[str], channels: list[str]) -> str:
    return msgspec.json.encode({"type": kind, "product_ids": list(products), "channels": channels}).decode()


def _other(
    frame: bytes, kind: str, product_id: str, time: Any, last_trade_id: int | None, found: _Frame
) -> Message:
    if kind == "heartbeat":
        return Message(
            Kind.HEARTBEAT,
            frame,
            None,
            parse_time(time),
            trade_id=last_trade_id,
            product_id=product_id or None,
        )
    if kind == "subscriptions":
        return Message(Kind.ACK, frame, None, None, ack=_ack(found.channels))
    if kind == "error":
        text = ": ".join(part for part in (found.message, found.reason) if part)
        return Message(Kind.ERROR, frame, None, None, text=text or "no message")
    return Message(Kind.OTHER, frame, None, parse_time(time), text=kind)


def _ack(channels: Raw) -> Ack:
    try:
        subscribed = {channel.name: channel.product_ids for channel in _read_channels(channels)}
    except JSON_ERRORS:
        raise UnreadableError("an acknowledgement that lists no channels") from None
    tickers = subscribed.get("ticker")
    return Ack(None if tickers is None else frozenset(tickers), "heartbeat" in subscribed)


def _read_unusual(frame: bytes) -> Message:
    """Read a frame that has numbers for strings or strings for numbers."""
    check_whole(frame)
    try:
        found = _read_object(frame)
    except JSON_ERRORS:  # pragma: no cover # `check_whole` has read it.
        raise UnreadableError("not an object") from None
    kind = text_of(found.get("type"))
    if kind is None:
        raise UnreadableError("no type")
    time = _value(_read_time, found.get("time"))
    if kind == "ticker":
        quote = quote_of(Raw(frame), Quote)
        if isinstance(quote, str):
            raise UnreadableError(quote)
        trade_id = _number(found, "trade_id")
        return Message(TICKER, frame, None, parse_time(time), ((0, 0, None, quote, frame),), trade_id)
    product_id = text_of(found.get("product_id")) or ""
    texts = _Frame(
        type=kind,
        message=text_of(found.get("message")) or "",
        reason=text_of(found.get("reason")) or "",
        channels=found.get("channels", Raw()),
    )
    return _other(frame, kind, product_id, time, _number(found, "last_trade_id"), texts)


def _number(found: dict[str, Raw], name: str) -> int | None:
    """Return the number of a trade; None where there is none, and with it no order to check."""
    number: int | None = _value(_read_number, found.get(name))
    return number


def _value(read: Any, raw: Raw | None) -> Any:
    if not raw:
        return None
    try:
        return read(raw)
    except JSON_ERRORS:
        return None
