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
import struct
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Annotated, Any, Final

import msgspec
import numpy as np
from msgspec import Meta, Raw, Struct

from richter.domain.decimals import NumberError, Quantity, scale_price, split_quantity
from richter.domain.ticks import NO_TIME, TICK_COLUMNS, UNKNOWN, Gap, GapCause, Ns
from richter.domain.times import parse_time

__all__ = ["Decoded", "Ignored", "Rejected", "TickRecord", "decode_line", "fill_row"]


class TickRecord(Struct, frozen=True, gc=False):
    """One tick, its numbers as integers.

    Attributes:
        product_id: normalised: upper case, parts joined by `-`.
        conn_id: the connection; None in older forms, where the reader knows the file.
        frame_no: the frame's number on its connection; the line's number in older forms.
        event_index: which event of the frame.
        ticker_index: which ticker of the event.
        ts_event: exchange time where there is one, else the capture time; always known.
        ts_recv: capture time, `NO_TIME` where nobody wrote it down.
        snapshot: the state at subscription, no trade.
        gap: why continuity broke before this tick; None where it did not.
        conn_offset: event minus receive time of the connection's first frame in ns, None where not given.
        price: last trade, scaled like the five prices after it; `UNKNOWN` where absent.
        bid: best bid.
        ask: best ask.
        low_24h: lowest trade of 24 h.
        high_24h: highest trade of 24 h.
        volume_24h: traded in 24 h, as whole units and 1e-8, like the three quantities after it.
        last_size: size of the last trade.
        bid_qty: quantity at the best bid.
        ask_qty: quantity at the best ask.
    """

    product_id: str
    conn_id: str | None
    frame_no: int
    event_index: int
    ticker_index: int
    ts_event: Ns
    ts_recv: Ns
    snapshot: bool
    gap: Gap | None
    conn_offset: int | None
    price: int
    bid: int
    ask: int
    low_24h: int
    high_24h: int
    volume_24h: Quantity
    last_size: Quantity
    bid_qty: Quantity
    ask_qty: Quantity


class Ignored(Struct, frozen=True):
    """A line that is known and holds no tick.

    Attributes:
        kind: one of a closed set: "blank", a channel ("other channel" where it is unknown), a message type,
            or a kind of log entry.
    """

    kind: str


class Rejected(Struct, frozen=True):
    """A line that cannot be read, and why: what belongs into the dead-letter file."""

    reason: str


Decoded = list[TickRecord] | Ignored | Rejected
"""What a line is. A line is read as a whole: one bad ticker rejects its neighbours of the same frame too."""

PriceDecimals = Callable[[str], int]
"""The decimals of a product's scaled prices, by its normalised name."""


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

TICKER_CHANNELS: Final = frozenset({"ticker", "ticker_batch"})
OTHER_CHANNELS: Final = frozenset(
    {
        "candles",
        "futures_balance_summary",
        "heartbeats",
        "l2_data",
        "level2",
        "market_trades",
        "status",
        "subscriptions",
        "user",
    }
)
# Exchange messages, and what is sent to either feed.
OTHER_TYPES: Final = frozenset(
    {
        "activate",
        "auction",
        "change",
        "done",
        "error",
        "heartbeat",
        "l2update",
        "last_match",
        "match",
        "open",
        "received",
        "rfq_match",
        "snapshot",
        "status",
        "subscribe",
        "subscriptions",
        "unsubscribe",
    }
)
# Lines of cryptofeed's recordings beside "recv".
LOG_ENTRIES: Final = frozenset({"header", "http", "connect", "send", "close", "disconnect", "error"})

ABSENT: Final = (None, "")
MAX_WRAPS: Final = 8
MAX_DEPTH: Final = 64
DEEP_LINE: Final = 1024
MAX_TIME: Final = 2**63 - 1

# "1618677817.079694: {…}", also with an ISO time, or a space or tab alone between the two.
PREFIXED: Final = re.compile(rb"([0-9][0-9T:.Z+-]*[0-9Z]):?[ \t]+(?=[{\"])")
# cryptofeed 2: "wss://… <- 1618677817.020616: {…}" is sent, "<->" connects, "->" is an answer by HTTP.
ADDRESSED: Final = re.compile(rb"(?:wss?|https?)://[^ ]+ (<->|<-|->) ")
ADDRESSED_KIND: Final = {b"<->": "connect", b"<-": "send", b"->": "http"}
NO_BRACKETS: Final = bytes(set(range(256)) - set(b"{}[]"))
PRODUCT_ID: Final = re.compile(r"[A-Z0-9][A-Z0-9.:-]{0,63}")


# The two structs of the fast path. Names are Coinbase's or the record's: what has others takes the slow path.

_Number = str | int | float | None
_Count = Annotated[int, Meta(ge=0, le=MAX_TIME)]
_Offset = Annotated[int, Meta(ge=-MAX_TIME, le=MAX_TIME)]


class _Gap(Struct):
    cause: str
    since: str | int | None = msgspec.field(name="from", default=None)
    missing: _Count | None = None


class _Record(Struct, gc=False):
    product_id: str
    timestamp: _Number = None
    price: _Number = None
    volume_24h: _Number = None
    low_24h: _Number = None
    high_24h: _Number = None
    best_bid: _Number = None
    best_ask: _Number = None
    ts_event: _Count | None = None
    ts_recv: _Count | None = None
    conn_id: str | None = None
    frame_no: _Count = -1
    event_index: _Count = 0
    ticker_index: _Count = 0
    event_type: str | None = None
    gap_before: _Gap | None = None
    conn_offset: _Offset | None = None
    v: int = 0


class _Line(_Record, forbid_unknown_fields=True, gc=False):
    raw: Raw = Raw()  # Skipped over; read once the rest is known to be good.


class _Ticker(Struct, gc=False):
    product_id: str | None = None
    best_bid_quantity: _Number = None
    best_ask_quantity: _Number = None
    best_bid_size: _Number = None
    best_ask_size: _Number = None
    last_size: _Number = None


class _Event(Struct, gc=False):
    type: str | None = None
    tickers: list[_Ticker] = []


class _Message(_Ticker, gc=False):
    """A Coinbase message: an envelope with events, or (no events) a ticker itself."""

    timestamp: _Number = None
    time: _Number = None
    events: list[_Event] | None = None


_read_line = msgspec.json.Decoder(_Line).decode
_read_message = msgspec.json.Decoder(_Message).decode
# Without the hook a number beyond float64 in a field that nobody reads would spoil the line.
_read_any = msgspec.json.Decoder(float_hook=float).decode

_UNREADABLE = (msgspec.MsgspecError, UnicodeError, RecursionError)
_NO_TICKER: Final = _Ticker()
_CAUSES: Final = {cause.name.lower(): cause for cause in GapCause if cause is not GapCause.NONE}

_Values = tuple[object, object, object, object, object, object, object, object, object]


class _Unreadable(Exception):
    """The line has to be rejected; the text says why."""


def decode_line(line: bytes, price_decimals: PriceDecimals, line_no: int = 0) -> Decoded:
    """Return what one recorded line holds: ticks, something known without any, or why it is unreadable.

    Never raises, whatever the bytes (as long as `price_decimals` does not).

    Args:
        line: one line, with or without its line end.
        price_decimals: gives a product's decimals.
        line_no: the `frame_no` of records which have none.
    """
    try:
        record = _read_line(line)
    except _UNREADABLE:
        pass
    else:
        # `raw` was only skipped over: its text may be broken, its nesting endless.
        if (line.isascii() and len(line) <= DEEP_LINE) or _flaw(line) is None:
            try:
                ticks = _typed(record, price_decimals, line_no)
            except _Unreadable as why:
                return Rejected(str(why))
            if ticks is not None:
                return ticks
    try:
        return _Reader(price_decimals, line_no).line(line)
    except _Unreadable as why:
        return Rejected(str(why))
    except RecursionError:
        return Rejected("nested too deeply")


_pack_row = struct.Struct(f"={TICK_COLUMNS}q").pack_into


def fill_row(
    row: np.ndarray[Any, np.dtype[np.int64]], record: TickRecord, conn_code: int, product_code: int
) -> None:
    """Write a tick into one row of a block, in the order of `domain.ticks`.

    Args:
        row: contiguous, `TICK_COLUMNS` long.
        record: the tick.
        conn_code: the block's number of the connection.
        product_code: the block's number of the product.
    """
    gap = record.gap
    cause, since, missing = (0, NO_TIME, UNKNOWN) if gap is None else (gap.cause, gap.from_ns, gap.missing)
    _pack_row(
        row.data,
        0,
        record.ts_event,
        record.ts_recv,
        conn_code,
        record.frame_no,
        record.event_index,
        record.ticker_index,
        product_code,
        record.snapshot,
        cause,
        since,
        UNKNOWN if missing is None else missing,
        record.price,
        record.bid,
        record.ask,
        record.low_24h,
        record.high_24h,
        *record.volume_24h,
        *record.last_size,
        *record.bid_qty,
        *record.ask_qty,
    )


# The fast path: our records and the course's, as written.


def _typed(record: _Line, price_decimals: PriceDecimals, line_no: int) -> list[TickRecord] | None:
    """Return the record's tick, None where it takes a closer look."""
    raw = bytes(record.raw)
    try:
        message = _read_message(raw) if raw else _Message()
    except _UNREADABLE:
        return None
    if record.v == 1 and record.conn_id and record.frame_no >= 0:
        return _ours(record, message, price_decimals)
    if (record.conn_id, record.ts_event, record.ts_recv, record.event_type) != (None, None, None, None):
        return None
    ticker, event_type = _only_ticker(message)
    if ticker is None or ticker.product_id not in (None, record.product_id):
        return None
    # What is missing may be in `raw`.
    if record.price in ABSENT or record.best_bid in ABSENT or record.best_ask in ABSENT:
        return None
    if (
        (record.volume_24h in ABSENT and b'"volume' in raw)
        or (record.low_24h in ABSENT and b'"low' in raw)
        or (record.high_24h in ABSENT and b'"high' in raw)
    ):
        return None
    captured = parse_time(record.timestamp)
    if captured is None:
        return None
    at = parse_time(message.time)
    if at is None:
        at = parse_time(message.timestamp)
    if at is None:
        at = captured
    place = (None, line_no, 0, 0, at, captured, event_type == "snapshot", None, None)
    return [_tick(record.product_id, place, _values(record, ticker), price_decimals)]


def _ours(record: _Record, message: _Message | None, price_decimals: PriceDecimals) -> list[TickRecord]:
    if not record.conn_id:
        raise _Unreadable("our record without conn_id")
    ts_recv = record.ts_recv
    if ts_recv is None:
        ts_recv = parse_time(record.timestamp)
    ts_event = record.ts_event
    if ts_event is None:
        ts_event = ts_recv
    if ts_event is None:
        raise _Unreadable("no usable time")
    return [
        _tick(
            record.product_id,
            (
                record.conn_id,
                record.frame_no,
                record.event_index,
                record.ticker_index,
                ts_event,
                NO_TIME if ts_recv is None else ts_recv,
                record.event_type == "snapshot",
                None if record.gap_before is None else _gap(record.gap_before),
                record.conn_offset,
            ),
            _values(record, _ticker_at(message, record.event_index, record.ticker_index)),
            price_decimals,
        )
    ]


def _only_ticker(message: _Message) -> tuple[_Ticker | None, str | None]:
    if message.events is None:
        return message, None
    if len(message.events) == 1 and len(message.events[0].tickers) == 1:
        return message.events[0].tickers[0], message.events[0].type
    return None, None


def _ticker_at(message: _Message | None, event_index: int, ticker_index: int) -> _Ticker:
    if message is None or message.events is None:
        return message or _NO_TICKER
    try:
        return message.events[event_index].tickers[ticker_index]
    except IndexError:
        return _NO_TICKER


def _values(record: _Record, ticker: _Ticker) -> _Values:
    return (
        record.price,
        record.best_bid,
        record.best_ask,
        record.low_24h,
        record.high_24h,
        record.volume_24h,
        ticker.last_size,
        ticker.best_bid_size if ticker.best_bid_quantity in ABSENT else ticker.best_bid_quantity,
        ticker.best_ask_size if ticker.best_ask_quantity in ABSENT else ticker.best_ask_quantity,
    )


def _gap(gap: _Gap) -> Gap:
    cause = _CAUSES.get(gap.cause)
    if cause is None:
        raise _Unreadable(f"unknown cause in gap_before: {_show(gap.cause)}")
    since = gap.since
    if since is None:
        return Gap(cause, NO_TIME, gap.missing)
    # A number is nanoseconds here, whatever its size.
    ns = parse_time(since) if isinstance(since, str) else since
    if ns is None or not NO_TIME <= ns <= MAX_TIME:
        raise _Unreadable(f"unreadable time in gap_before: {_show(since)}")
    return Gap(cause, ns, gap.missing)


_Place = tuple[str | None, int, int, int, Ns, Ns, bool, Gap | None, int | None]


def _tick(product: str, place: _Place, values: Any, price_decimals: PriceDecimals) -> TickRecord:
    """Return the tick of a product at a place in the log, its numbers scaled."""
    product_id = _normalised(product) if len(product) <= 64 else None
    if product_id is None:
        raise _Unreadable(f"not a product: {_show(product)}")
    decimals = price_decimals(product_id)
    price, bid, ask, low, high, volume, last_size, bid_qty, ask_qty = values
    try:
        return TickRecord(
            product_id,
            *place,
            scale_price(price, decimals),
            scale_price(bid, decimals),
            scale_price(ask, decimals),
            scale_price(low, decimals),
            scale_price(high, decimals),
            split_quantity(volume),
            split_quantity(last_size),
            split_quantity(bid_qty),
            split_quantity(ask_qty),
        )
    except NumberError:
        raise _Unreadable(_culprit(product_id, values, decimals)) from None


@lru_cache(1024)
def _normalised(product: str) -> str | None:
    product_id = product.strip().upper().replace("/", "-").replace("_", "-")
    return product_id if PRODUCT_ID.fullmatch(product_id) else None


def _culprit(product_id: str, values: _Values, decimals: int) -> str:
    """Return the reason of the first number that does not fit."""
    for index, (names, value) in enumerate(zip(NAMES, values, strict=True)):
        try:
            if index < 5:
                scale_price(value, decimals)  # type: ignore[arg-type] # Whatever the JSON had is answered for.
            else:
                split_quantity(value)  # type: ignore[arg-type] # Likewise.
        except NumberError as why:
            limit = f" for price_decimals {decimals}" if index < 5 and why.reason != "not a number" else ""
            return f"{product_id}: {names[0]} {_show(value)}: {why}{limit}"
    return f"{product_id}: unreadable number"


def _show(value: object) -> str:
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    # An integer of thousands of digits has no repr.
    text = repr(value) if not isinstance(value, int) or abs(value) < 10**40 else "an endless integer"
    return text if len(text) <= 48 else f"{text[:44]}…'"


# The slow path: anything else.


def _flaw(data: bytes) -> str | None:
    """Return what rules the bytes out before anything is decoded, None for nothing."""
    if not data.isascii():
        try:
            data.decode()
        except UnicodeDecodeError:
            return "not UTF-8"
    # Counted by ourselves: where the decoder gives up depends on the caller's stack and on the Python.
    # A depth that short lines can reach harms nobody.
    if len(data) > DEEP_LINE and data.count(b"{") + data.count(b"[") > MAX_DEPTH:
        outside = data.replace(rb"\\", b"").replace(rb"\"", b"").split(b'"')[::2]
        brackets = b"".join(outside).translate(None, NO_BRACKETS)
        for _ in range(MAX_DEPTH):
            rest = brackets.replace(b"{}", b"").replace(b"[]", b"")
            if rest == brackets:
                return None  # Nothing left, or broken: the decoder says so better.
            brackets = rest
        return "nested too deeply"
    return None


def _json(data: bytes) -> object:
    flaw = _flaw(data)
    if flaw is not None:
        raise _Unreadable(flaw)
    try:
        return _read_any(data)
    except RecursionError:
        raise _Unreadable("nested too deeply") from None
    except (msgspec.MsgspecError, UnicodeError):
        raise _Unreadable("not JSON") from None


def _nested(value: object) -> Mapping[str, Any] | None:
    """Return an object that is there as such or as JSON text, None for anything else."""
    for _ in range(MAX_WRAPS):
        if not isinstance(value, str):
            break
        if value.lstrip()[:1] not in ("{", '"'):
            return None
        try:
            value = _json(value.encode())
        except (_Unreadable, UnicodeError):
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


def _events(envelope: Mapping[str, Any]) -> Iterator[tuple[int, int, Mapping[str, Any], bool]]:
    """Yield each ticker of an envelope with its two indexes, and whether it is of a snapshot."""
    for event_index, event in enumerate(envelope["events"]):
        tickers = event.get("tickers") if isinstance(event, dict) else None
        for ticker_index, ticker in enumerate(tickers if isinstance(tickers, list) else ()):
            if isinstance(ticker, dict):
                yield event_index, ticker_index, ticker, event.get("type") == "snapshot"


class _Reader:
    """Reads one line of unknown form. Raises `_Unreadable`."""

    def __init__(self, price_decimals: PriceDecimals, line_no: int) -> None:
        self.price_decimals = price_decimals
        self.line_no = line_no

    def line(self, line: bytes) -> list[TickRecord] | Ignored:
        line = line.removeprefix(b"\xef\xbb\xbf").strip()
        if not line:
            return Ignored("blank")
        if not line.strip(b"\0"):
            # What a file system leaves at the end of a file after a power loss.
            raise _Unreadable("NUL bytes")
        received: Ns | None = None
        addressed = ADDRESSED.match(line)
        if addressed:
            return Ignored(ADDRESSED_KIND[addressed[1]])
        prefixed = PREFIXED.match(line)
        if prefixed:
            received = parse_time(prefixed[1].decode())
            line = line[prefixed.end() :]
        value = _json(line)
        if isinstance(value, str):
            text, value = value, _nested(value)
            if value is None:
                raise _Unreadable(f"not JSON: a text, {_show(text)}")
        if not isinstance(value, dict):
            raise _Unreadable("not an object")
        return self.read(value, received, None, MAX_WRAPS)

    def read(
        self, value: Mapping[str, Any], received: Ns | None, product: str | None, wraps: int
    ) -> list[TickRecord] | Ignored:
        """Read an object; the time of receipt and the product are what its wrappers say."""
        if wraps == 0:
            raise _Unreadable("nested too deeply")
        entry, kind, channel = value.get("t"), value.get("type"), value.get("channel")
        if isinstance(entry, str) and entry in LOG_ENTRIES and ("conn" in value or "format" in value):
            return Ignored(entry)
        if "conn_id" in value and "frame_no" in value:
            return self.ours(value)
        if isinstance(value.get("events"), list):
            return self.envelope(value, received)
        quoted = any(name in value for name in QUOTE)
        if isinstance(kind, str) and kind in OTHER_TYPES and not (quoted and kind == "snapshot"):
            return Ignored(kind)
        if quoted or kind == "ticker":
            return [self.flat(value, received, product)]
        inner = self.wrapped(value)
        if inner is not None:
            outer = _time(RECV_TIME + CAPTURE_TIME + EVENT_TIME, value)
            named = _first(PRODUCT, value)
            return self.read(
                inner,
                received if outer is None else outer,
                named if isinstance(named, str) else product,
                wraps - 1,
            )
        if isinstance(channel, str) and channel in OTHER_CHANNELS:
            return Ignored(channel)
        raise _Unreadable("no ticker in this record")

    def wrapped(self, value: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Return the message inside an object: under a usual key, else the only one that looks like one."""
        usual = [inner for name in WRAPPERS if name in value and (inner := _nested(value[name])) is not None]
        for inner in usual:
            if _looks_like_message(inner):
                return inner
        likely = [inner for inner in value.values() if isinstance(inner, dict) and _looks_like_message(inner)]
        if len(likely) == 1:
            return likely[0]
        return usual[0] if usual else None

    def ours(self, value: Mapping[str, Any]) -> list[TickRecord]:
        if value.get("v") != 1:
            raise _Unreadable(f"a record of version {_show(value.get('v'))}, which is not known here")
        try:
            record = msgspec.convert(value, _Record)
        except (msgspec.MsgspecError, UnicodeError) as why:
            raise _Unreadable(f"not a record of ours: {why}") from None
        raw = _nested(value.get("raw"))
        try:
            message = None if raw is None else msgspec.convert(raw, _Message)
        except (msgspec.MsgspecError, UnicodeError):
            message = None  # Only quantities come from there: unknown.
        return _ours(record, message, self.price_decimals)

    def envelope(self, value: Mapping[str, Any], received: Ns | None) -> list[TickRecord] | Ignored:
        channel = value.get("channel")
        tickers = list(_events(value))
        if not tickers:
            if isinstance(channel, str):
                return Ignored(channel if channel in OTHER_CHANNELS | TICKER_CHANNELS else "other channel")
            raise _Unreadable("no ticker in this record")
        own = _time(RECV_TIME, value)
        ts_recv = received if own is None else own
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
        message = self.wrapped(value)
        if message is not None:
            if ts_event is None:
                ts_event = _time(EVENT_TIME + CAPTURE_TIME, message)
            inner = message
            if isinstance(message.get("events"), list):
                inner, in_snapshot = self.matching(message, named, value)
                snapshot = snapshot or in_snapshot
        if ts_event is None:
            ts_event = captured
            ts_recv = next((ns for ns in (ts_recv, received, captured) if ns is not None), None)
        else:
            ts_recv = next((ns for ns in (ts_recv, captured, received) if ns is not None), None)
        named = _first(PRODUCT, value, inner) or product
        return self.tick(named, (0, 0), ts_event, ts_recv, snapshot, (value, inner) if inner else (value,))

    def matching(
        self, message: Mapping[str, Any], named: object, value: Mapping[str, Any]
    ) -> tuple[Mapping[str, Any], bool]:
        """Return which ticker of an envelope a record was made from: its product's, best at its prices."""
        wanted = _normal(named)
        found = [
            (ticker, snapshot)
            for _, _, ticker, snapshot in _events(message)
            if wanted is None or _normal(_first(PRODUCT, ticker)) in (None, wanted)
        ]
        for ticker, snapshot in found:
            if all(_first(names, ticker) == _first(names, value) for names in (PRICE, BID, ASK)):
                return ticker, snapshot
        return found[0] if found else ({}, False)

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
            raise _Unreadable("no product in this record")
        if not isinstance(product, str):
            raise _Unreadable(f"not a product: {_show(product)}")
        if ts_event is None:
            ts_event = ts_recv
        if ts_event is None:
            raise _Unreadable("no usable time")
        recv = NO_TIME if ts_recv is None else ts_recv
        return _tick(
            product,
            (None, self.line_no, *place, ts_event, recv, snapshot, None, None),
            [_first(names, *sources) for names in NAMES],
            self.price_decimals,
        )


def _normal(product: object) -> str | None:
    return _normalised(product) if isinstance(product, str) and len(product) <= 64 else None


def _looks_like_message(value: Mapping[str, Any]) -> bool:
    return isinstance(value.get("events"), list) or any(name in value for name in QUOTE)
