"""Coinbase Advanced Trade: one channel per subscription, one number per frame over all channels.

What the documentation leaves open, production frames settle: `sequence_num` counts every frame of the connection but
errors; the snapshot comes before the acknowledgement; an acknowledgement lists all that is subscribed, and a product
that the exchange does not have is absent from it, nothing more.

References:
    https://docs.cdp.coinbase.com/coinbase-app/advanced-trade-apis/websocket/websocket-overview
    https://docs.cdp.coinbase.com/coinbase-app/advanced-trade-apis/websocket/websocket-channels
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from richter.domain.times import parse_time
from richter.protocol.dialect import (
    JSON_ERRORS,
    Ack,
    Kind,
    Message,
    Placed,
    Quote,
    UnreadableError,
    check_whole,
    quote_of,
    text_of,
)

__all__ = ["AdvancedTrade"]

TICKER, HEARTBEAT, ACK, ERROR, OTHER = Kind.TICKER, Kind.HEARTBEAT, Kind.ACK, Kind.ERROR, Kind.OTHER
TICKER_CHANNELS: Final = frozenset({"ticker", "ticker_batch"})
# "heartbeat" is the Exchange feed's name.
HEARTBEATS: Final = "heartbeats"
SUBSCRIPTIONS: Final = "subscriptions"
LARGEST: Final = 2**63 - 1


class _Quote(Quote, gc=False):
    volume_24h: Raw = msgspec.field(name="volume_24_h", default=Raw())
    low_24h: Raw = msgspec.field(name="low_24_h", default=Raw())
    high_24h: Raw = msgspec.field(name="high_24_h", default=Raw())


class _Event(Struct, gc=False):
    type: str = ""
    tickers: list[_Quote] = []
    subscriptions: Raw = Raw()


class _Frame(Struct, gc=False):
    channel: str
    sequence_num: int
    timestamp: str = ""
    events: list[_Event] = []


_read_frame = msgspec.json.Decoder(_Frame).decode
_read_object = msgspec.json.Decoder(dict[str, Raw]).decode
_read_list = msgspec.json.Decoder(list[Raw]).decode
_read_set = msgspec.json.Decoder(dict[str, list[str]]).decode
_read_number = msgspec.json.Decoder(int, strict=False).decode
_read_time = msgspec.json.Decoder(str | int | float | None).decode


class AdvancedTrade:
    """The dialect of `wss://advanced-trade-ws.coinbase.com`, its public channels."""

    numbers_frames = True

    def subscribe(self, products: Sequence[str]) -> list[str]:
        """Return the frames that ask for the tickers of these products and for heartbeats.

        >>> AdvancedTrade().subscribe(["BTC-USD"])[1]
        '{"type":"subscribe","channel":"heartbeats"}'
        """
        return [_request("subscribe", products), '{"type":"subscribe","channel":"heartbeats"}']

    def resubscribe(self, products: Sequence[str]) -> list[str]:
        """Return the frames that end the tickers' subscription and ask for it anew."""
        return [_request("unsubscribe", products), _request("subscribe", products)]

    def twin(self, product: str) -> str | None:
        """Return the dollar product whose data the exchange sends for one in USDC.

        >>> AdvancedTrade().twin("BTC-USDC")
        'BTC-USD'
        """
        return product.removesuffix("C") if product.endswith("-USDC") else None

    def read(self, frame: bytes) -> Message:
        """Read one frame.

        Raises:
            UnreadableError: it cannot be read.
        """
        try:
            found = _read_frame(frame)
        except JSON_ERRORS:
            return _read_unusual(frame)
        sequence, channel, events = found.sequence_num, found.channel, found.events
        if not 0 <= sequence <= LARGEST:
            raise UnreadableError("sequence_num is no number of a frame")
        ts_event = parse_time(found.timestamp)
        if channel == "ticker" or channel == "ticker_batch":
            if len(events) == 1 and len(events[0].tickers) == 1:
                event = events[0]
                placed: Placed = (0, 0, event.type == "snapshot", event.tickers[0], frame)
                return Message(TICKER, frame, sequence, ts_event, (placed,))
            return _read_unusual(frame)
        if channel == HEARTBEATS:
            return Message(HEARTBEAT, frame, sequence, ts_event)
        if channel == SUBSCRIPTIONS:
            return Message(
                ACK, frame, sequence, ts_event, ack=_ack([event.subscriptions for event in events])
            )
        return Message(OTHER, frame, sequence, ts_event, text=channel)


def _request(kind: str, products: Sequence[str]) -> str:
    return msgspec.json.encode({"type": kind, "product_ids": list(products), "channel": "ticker"}).decode()


def _ack(sets: Sequence[Raw]) -> Ack:
    subscribed: dict[str, list[str]] = {}
    for text in sets:
        try:
            subscribed.update(_read_set(text))
        except JSON_ERRORS:
            raise UnreadableError("an acknowledgement that lists no subscriptions") from None
    tickers = subscribed.get("ticker")
    return Ack(None if tickers is None else frozenset(tickers), HEARTBEATS in subscribed)


# Frames of unusual make: several tickers, numbers for strings, missing names, what is no ticker among tickers.


def _read_unusual(frame: bytes) -> Message:
    check_whole(frame)
    try:
        found = _read_object(frame)
    except JSON_ERRORS:  # pragma: no cover # `check_whole` has read it.
        raise UnreadableError("not an object") from None
    channel = text_of(found.get("channel"))
    sequence = _sequence(found.get("sequence_num"))
    ts_event = parse_time(_value(_read_time, found.get("timestamp")))
    if text_of(found.get("type")) == "error":
        return Message(ERROR, frame, sequence, ts_event, text=text_of(found.get("message")) or "no message")
    if channel is None:
        raise UnreadableError("neither a channel nor an error")
    if sequence is None:
        raise UnreadableError("no sequence_num")
    if channel in TICKER_CHANNELS:
        return Message(TICKER, frame, sequence, ts_event, list(_parts(found.get("events"))))
    if channel == HEARTBEATS:
        return Message(HEARTBEAT, frame, sequence, ts_event)
    if channel == SUBSCRIPTIONS:
        sets = [
            (_value(_read_object, event) or {}).get("subscriptions") for event in _list(found.get("events"))
        ]
        return Message(
            ACK, frame, sequence, ts_event, ack=_ack([Raw() if part is None else part for part in sets])
        )
    return Message(OTHER, frame, sequence, ts_event, text=channel)


def _parts(events: Raw | None) -> Iterator[Placed]:
    if _value(_read_list, events) is None:
        yield 0, 0, False, "no list of events", bytes(events or b"")
    for number, part in enumerate(_list(events)):
        event = _value(_read_object, part)
        tickers = None if event is None else _value(_read_list, event.get("tickers"))
        if event is None or tickers is None:
            yield number, 0, False, "an event without a list of tickers", bytes(part)
            continue
        snapshot = text_of(event.get("type")) == "snapshot"
        for index, ticker in enumerate(tickers):
            yield number, index, snapshot, quote_of(ticker, _Quote), bytes(ticker)


def _list(raw: Raw | None) -> list[Raw]:
    return _value(_read_list, raw) or []


def _value(read: Any, raw: Raw | None) -> Any:
    if not raw:
        return None
    try:
        return read(raw)
    except JSON_ERRORS:
        return None


def _sequence(raw: Raw | None) -> int | None:
    if raw is None:
        return None
    sequence = _value(_read_number, raw)
    if sequence is None or not 0 <= sequence <= LARGEST:
        raise UnreadableError("sequence_num is no number of a frame")
    return int(sequence)
