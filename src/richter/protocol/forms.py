"""One recorded line, in any form met in the wild, as ticks.

Our own records (`v` 1) carry times and identity; everything older is read as well as it can be:

- the course's record: `timestamp` (naive means UTC), `product_id`, prices, and as `raw` the ticker alone, the
  whole envelope, or either as JSON text;
- the same with numbers for strings and other names (`NAMES`);
- Coinbase's own messages: Advanced Trade envelopes (several events and tickers each), Exchange tickers;
- any of them wrapped under another key (`WRAPPERS`), as JSON inside a JSON string, or behind the time of a
  frame log (`1618677817.079694: {…}`); cryptofeed's logs (`{"t": "recv", "ts": …, "data": "…"}`).

Records without identity get none (`conn_id` None); their `frame_no` is the number of their line, and the
indexes count within the line. `raw` gives what the record itself lacks: quantities, the exchange's time,
whether it was a snapshot; where it cannot be read these are unknown, and the record stands.

References:
    https://docs.cdp.coinbase.com/coinbase-app/advanced-trade-apis/websocket/websocket-channels
    https://docs.cdp.coinbase.com/exchange/websocket-feed/channels
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from richter.domain.ticks import NO_TIME, Ns
from richter.domain.times import parse_time
from richter.protocol.messages import (
    ABSENT,
    OTHER_CHANNELS,
    OTHER_TYPES,
    TICKER_CHANNELS,
    read_json,
    read_ours,
    read_written,
)
from richter.protocol.records import (
    Decoded,
    Ignored,
    PriceDecimals,
    Rejected,
    TickRecord,
    Unreadable,
    make_tick,
    normalise,
    show,
)

__all__ = ["decode_line"]

# What another name means, first come first served, absent and empty ones passed over. The first names are the
# record's own, then come Coinbase's, then those of other recorders.
PRODUCT: Final = ("product_id", "product", "symbol", "pair", "instrument")
PRICE: Final = ("price", "last", "last_price")
BID: Final = ("best_bid", "bid", "best_bid_price", "bid_price")
ASK: Final = ("best_ask", "ask", "best_ask_price", "ask_price")
LOW: Final = ("low_24h", "low_24_h", "low")
HIGH: Final = ("high_24h", "high_24_h", "high")
VOLUME: Final = ("volume_24h", "volume_24_h", "volume")
LAST_SIZE: Final = ("last_size", "last_quantity", "trade_size")
BID_QTY: Final = ("best_bid_quantity", "best_bid_size", "bid_quantity", "bid_size", "bid_qty")
ASK_QTY: Final = ("best_ask_quantity", "best_ask_size", "ask_quantity", "ask_size", "ask_qty")
EVENT_TIME: Final = ("ts_event", "event_time", "exchange_time", "exchange_timestamp", "time")
RECV_TIME: Final = (
    "ts_recv",
    "recv_time",
    "received_at",
    "receive_time",
    "receive_timestamp",
    "local_timestamp",
)
# The capture time of a flat record, the exchange's time of an envelope.
CAPTURE_TIME: Final = ("timestamp", "ts", "capture_time", "captured_at", "ingested_at", "datetime")

# In the order of TickRecord's numbers.
NAMES: Final = (PRICE, BID, ASK, LOW, HIGH, VOLUME, LAST_SIZE, BID_QTY, ASK_QTY)
QUOTE: Final = PRICE + BID + ASK
# A Kafka dump has "value"; the rest are recorders' names for "the message".
WRAPPERS: Final = (
    "raw",
    "data",
    "message",
    "msg",
    "payload",
    "envelope",
    "value",
    "record",
    "ticker",
    "frame",
)

# Lines of cryptofeed's recordings beside "recv".
LOG_ENTRIES: Final = frozenset({"header", "http", "connect", "send", "close", "disconnect", "error"})

MAX_WRAPS: Final = 8

# "1618677817.079694: {…}", also with an ISO time, or a space or tab alone between the two.
PREFIXED: Final = re.compile(rb"([0-9][0-9T:.Z+-]*[0-9Z]):?[ \t]+(?=[{\"])")
# cryptofeed 2: "wss://… <- 1618677817.020616: {…}" is sent, "<->" connects, "->" is an answer by HTTP.
ADDRESSED: Final = re.compile(rb"(?:wss?|https?)://[^ ]+ (<->|<-|->) ")
ADDRESSED_KIND: Final = {b"<->": "connect", b"<-": "send", b"->": "http"}


def decode_line(line: bytes, price_decimals: PriceDecimals, line_no: int = 0) -> Decoded:
    """Return what one recorded line holds: ticks, something known without any, or why it is unreadable.

    Never raises, whatever the bytes (as long as `price_decimals` does not).

    Args:
        line: one line, with or without its line end.
        price_decimals: gives a product's decimals.
        line_no: the `frame_no` of records which have none.
    """
    try:
        record = read_written(line, price_decimals, line_no)
        return _Reader(price_decimals, line_no).line(line) if record is None else [record]
    except Unreadable as why:
        return Rejected(str(why))
    except RecursionError:
        return Rejected("nested too deeply")


class _Reader:
    """Reads one line of unknown form. Raises `Unreadable`."""

    def __init__(self, price_decimals: PriceDecimals, line_no: int) -> None:
        self.price_decimals = price_decimals
        self.line_no = line_no

    def line(self, line: bytes) -> list[TickRecord] | Ignored:
        line = line.removeprefix(b"\xef\xbb\xbf").strip()
        if not line:
            return Ignored("blank")
        if not line.strip(b"\0"):
            # What a file system leaves at the end of a file after a power loss.
            raise Unreadable("NUL bytes")
        received: Ns | None = None
        addressed = ADDRESSED.match(line)
        if addressed:
            return Ignored(ADDRESSED_KIND[addressed[1]])
        prefixed = PREFIXED.match(line)
        if prefixed:
            received = parse_time(prefixed[1].decode())
            line = line[prefixed.end() :]
        value = read_json(line)
        if isinstance(value, str):
            text, value = value, _nested(value)
            if value is None:
                raise Unreadable(f"not JSON: a text, {show(text)}")
        if not isinstance(value, dict):
            raise Unreadable("not an object")
        return self.read(value, received, None, MAX_WRAPS)

    def read(
        self, value: Mapping[str, Any], received: Ns | None, product: str | None, wraps: int
    ) -> list[TickRecord] | Ignored:
        """Read an object; the time of receipt and the product are what its wrappers say."""
        if wraps == 0:
            raise Unreadable("nested too deeply")
        entry, kind, channel = value.get("t"), value.get("type"), value.get("channel")
        if isinstance(entry, str) and entry in LOG_ENTRIES and ("conn" in value or "format" in value):
            return Ignored(entry)
        if "conn_id" in value and "frame_no" in value:
            return [read_ours(value, _nested(value.get("raw")), self.price_decimals)]
        if isinstance(value.get("events"), list):
            return self.envelope(value, received)
        quoted = any(name in value for name in QUOTE)
        if isinstance(kind, str) and kind in OTHER_TYPES and not (quoted and kind == "snapshot"):
            return Ignored(kind)
        if quoted or kind == "ticker":
            return [self.flat(value, received, product)]
        inner = _wrapped(value)
        if inner is not None:
            outer = _time(RECV_TIME + CAPTURE_TIME + EVENT_TIME, value)
            named = _first(PRODUCT, value)
            return self.read(
                inner,
                _known(outer, received),
                named if isinstance(named, str) else product,
                wraps - 1,
            )
        if isinstance(channel, str) and channel in OTHER_CHANNELS:
            return Ignored(channel)
        raise Unreadable("no ticker in this record")

    def envelope(self, value: Mapping[str, Any], received: Ns | None) -> list[TickRecord] | Ignored:
        channel = value.get("channel")
        tickers = list(_events(value))
        if not tickers:
            if isinstance(channel, str):
                return Ignored(channel if channel in OTHER_CHANNELS | TICKER_CHANNELS else "other channel")
            raise Unreadable("no ticker in this record")
        ts_recv = _known(_time(RECV_TIME, value), received)
        ts_event = _time(EVENT_TIME + CAPTURE_TIME, value)
        return [
            self.tick(_first(PRODUCT, ticker), (event, index), ts_event, ts_recv, snapshot, (ticker,))
            for event, index, ticker, snapshot in tickers
        ]

    def flat(self, value: Mapping[str, Any], received: Ns | None, product: str | None) -> TickRecord:
        """Read a record that has its prices itself; what it lacks may be in the message it wraps."""
        named = _first(PRODUCT, value)
        ts_event, ts_recv, captured = (_time(names, value) for names in (EVENT_TIME, RECV_TIME, CAPTURE_TIME))
        snapshot = "snapshot" in (value.get("event_type"), value.get("type"))
        inner: Mapping[str, Any] = {}
        message = _wrapped(value)
        if message is not None:
            if ts_event is None:
                ts_event = _time(EVENT_TIME + CAPTURE_TIME, message)
            inner = message
            if isinstance(message.get("events"), list):
                inner, in_snapshot = _matching(message, named, value)
                snapshot = snapshot or in_snapshot
        if ts_event is None:
            ts_event = captured
            ts_recv = _known(ts_recv, received, captured)
        else:
            ts_recv = _known(ts_recv, captured, received)
        named = _first(PRODUCT, value, inner) or product
        return self.tick(named, (0, 0), ts_event, ts_recv, snapshot, (value, inner) if inner else (value,))

    def tick(
        self,
        product: object,
        place: tuple[int, int],
        ts_event: Ns | None,
        ts_recv: Ns | None,
        snapshot: bool,
        sources: tuple[Mapping[str, Any], ...],
    ) -> TickRecord:
        if product is None:
            raise Unreadable("no product in this record")
        if not isinstance(product, str):
            raise Unreadable(f"not a product: {show(product)}")
        happened = _known(ts_event, ts_recv)
        if happened is None:
            raise Unreadable("no usable time")
        received = NO_TIME if ts_recv is None else ts_recv
        return make_tick(
            product,
            (None, self.line_no, *place, happened, received, snapshot, None, None),
            [_first(names, *sources) for names in NAMES],
            self.price_decimals,
        )


def _nested(value: object) -> Mapping[str, Any] | None:
    """Return an object that is there as such or as JSON text, None for anything else."""
    for _ in range(MAX_WRAPS):
        if not isinstance(value, str):
            break
        if value.lstrip()[:1] not in ("{", '"'):
            return None
        try:
            value = read_json(value.encode())
        except (Unreadable, UnicodeError):
            return None
    return value if isinstance(value, dict) else None


def _first(names: tuple[str, ...], *sources: Mapping[str, Any]) -> Any:
    """Return the first value under any of the names that is there and not empty, None where there is none."""
    for source in sources:
        for name in names:
            value = source.get(name)
            if value not in ABSENT:
                return value
    return None


def _time(names: tuple[str, ...], source: Mapping[str, Any]) -> Ns | None:
    """Return the first usable time under any of the names."""
    for name in names:
        value = source.get(name)
        if value is not None:
            ns = parse_time(value)
            if ns is not None:
                return ns
    return None


def _known(*times: Ns | None) -> Ns | None:
    """Return the first of some times that is known."""
    for ns in times:
        if ns is not None:
            return ns
    return None


def _events(envelope: Mapping[str, Any]) -> Iterator[tuple[int, int, Mapping[str, Any], bool]]:
    """Yield each ticker of an envelope with its two indexes, and whether it is of a snapshot."""
    for event_index, event in enumerate(envelope["events"]):
        tickers = event.get("tickers") if isinstance(event, dict) else None
        for ticker_index, ticker in enumerate(tickers if isinstance(tickers, list) else ()):
            if isinstance(ticker, dict):
                yield event_index, ticker_index, ticker, event.get("type") == "snapshot"


def _wrapped(value: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the message inside an object: under a usual key, else the only one that looks like one."""
    usual = [inner for name in WRAPPERS if name in value and (inner := _nested(value[name])) is not None]
    for inner in usual:
        if _looks_like_message(inner):
            return inner
    likely = [inner for inner in value.values() if isinstance(inner, dict) and _looks_like_message(inner)]
    if len(likely) == 1:
        return likely[0]
    return usual[0] if usual else None


def _matching(
    message: Mapping[str, Any], named: object, value: Mapping[str, Any]
) -> tuple[Mapping[str, Any], bool]:
    """Return which ticker of an envelope a record was made from: its product's, best at its prices."""
    wanted = normalise(named)
    found = [
        (ticker, snapshot)
        for _, _, ticker, snapshot in _events(message)
        if wanted is None or normalise(_first(PRODUCT, ticker)) in (None, wanted)
    ]
    for ticker, snapshot in found:
        if all(_first(names, ticker) == _first(names, value) for names in (PRICE, BID, ASK)):
            return ticker, snapshot
    return found[0] if found else ({}, False)


def _looks_like_message(value: Mapping[str, Any]) -> bool:
    return isinstance(value.get("events"), list) or any(name in value for name in QUOTE)
