"""Coinbase's messages and the records made of them, as written: field by field, into structs.

Two records are read this way: our own (`v` 1), which carries times and identity, and the course's. Their names
are Coinbase's; a line that has others, or is broken, takes a closer look (`forms`).

References:
    https://docs.cdp.coinbase.com/coinbase-app/advanced-trade-apis/websocket/websocket-channels
    https://docs.cdp.coinbase.com/exchange/websocket-feed/channels
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Raw, Struct

from richter.domain.ticks import NO_TIME, Gap, GapCause
from richter.domain.times import parse_time
from richter.protocol.records import Numbers, PriceDecimals, TickRecord, Unreadable, make_tick, show

__all__ = [
    "ABSENT",
    "OTHER_CHANNELS",
    "OTHER_TYPES",
    "TICKER_CHANNELS",
    "read_json",
    "read_ours",
    "read_written",
]

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

# What a field holds that says nothing.
ABSENT: Final = (None, "")
MAX_TIME: Final = 2**63 - 1
MAX_DEPTH: Final = 64
DEEP_LINE: Final = 1024
NO_BRACKETS: Final = bytes(set(range(256)) - set(b"{}[]"))

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

_BROKEN = (msgspec.MsgspecError, UnicodeError, RecursionError)
_NO_TICKER: Final = _Ticker()
_CAUSES: Final = {cause.name.lower(): cause for cause in GapCause if cause is not GapCause.NONE}


def read_written(line: bytes, price_decimals: PriceDecimals, line_no: int) -> TickRecord | None:
    """Return the tick of our record or the course's, None where the line takes a closer look.

    Raises:
        Unreadable: the record has a product, a number, or a gap that cannot be.
    """
    try:
        record = _read_line(line)
        # `raw` was only skipped over: its text may be broken, its nesting endless.
        if _flaw(line) is not None:
            return None
        raw = bytes(record.raw)
        message = _read_message(raw) if raw else _Message()
    except _BROKEN:
        return None
    # Version and identity make a record ours; one without them is the course's, or nobody's that is known.
    if record.v == 1 and record.conn_id and record.frame_no >= 0:
        return _our_tick(record, message, price_decimals)
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
    return make_tick(record.product_id, place, _numbers(record, ticker), price_decimals)


def read_ours(
    value: Mapping[str, Any], raw: Mapping[str, Any] | None, price_decimals: PriceDecimals
) -> TickRecord:
    """Return the tick of a record of ours that was found inside something else, or has more fields.

    Args:
        value: the record.
        raw: its message, None where that cannot be read: only quantities come from there.
        price_decimals: gives a product's decimals.

    Raises:
        Unreadable: the record is of another version, or a field of it is broken.
    """
    if value.get("v") != 1:
        raise Unreadable(f"a record of version {show(value.get('v'))}, which is not known here")
    try:
        record = msgspec.convert(value, _Record)
    except (msgspec.MsgspecError, UnicodeError) as why:
        raise Unreadable(f"not a record of ours: {why}") from None
    try:
        message = msgspec.convert(raw or {}, _Message)
    except (msgspec.MsgspecError, UnicodeError):
        message = _Message()
    return _our_tick(record, message, price_decimals)


def read_json(data: bytes) -> object:
    """Return what a JSON text says.

    Raises:
        Unreadable: it is no JSON, not UTF-8, or nested too deeply.
    """
    flaw = _flaw(data)
    if flaw is not None:
        raise Unreadable(flaw)
    try:
        return _read_any(data)
    except RecursionError:
        raise Unreadable("nested too deeply") from None
    except (msgspec.MsgspecError, UnicodeError):
        raise Unreadable("not JSON") from None


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


def _our_tick(record: _Record, message: _Message, price_decimals: PriceDecimals) -> TickRecord:
    if not record.conn_id:
        raise Unreadable("our record without conn_id")
    ts_recv = record.ts_recv
    if ts_recv is None:
        ts_recv = parse_time(record.timestamp)
    ts_event = record.ts_event
    if ts_event is None:
        ts_event = ts_recv
    if ts_event is None:
        raise Unreadable("no usable time")
    place = (
        record.conn_id,
        record.frame_no,
        record.event_index,
        record.ticker_index,
        ts_event,
        NO_TIME if ts_recv is None else ts_recv,
        record.event_type == "snapshot",
        None if record.gap_before is None else _gap(record.gap_before),
        record.conn_offset,
    )
    ticker = _ticker_at(message, record.event_index, record.ticker_index)
    return make_tick(record.product_id, place, _numbers(record, ticker), price_decimals)


def _only_ticker(message: _Message) -> tuple[_Ticker | None, str | None]:
    if message.events is None:
        return message, None
    if len(message.events) == 1 and len(message.events[0].tickers) == 1:
        return message.events[0].tickers[0], message.events[0].type
    return None, None


def _ticker_at(message: _Message, event_index: int, ticker_index: int) -> _Ticker:
    if message.events is None:
        return message
    try:
        return message.events[event_index].tickers[ticker_index]
    except IndexError:
        return _NO_TICKER


def _numbers(record: _Record, ticker: _Ticker) -> Numbers:
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
        raise Unreadable(f"unknown cause in gap_before: {show(gap.cause)}")
    since = gap.since
    if since is None:
        return Gap(cause, NO_TIME, gap.missing)
    # A number is nanoseconds here, whatever its size.
    ns = parse_time(since) if isinstance(since, str) else since
    if ns is None or not NO_TIME <= ns <= MAX_TIME:
        raise Unreadable(f"unreadable time in gap_before: {show(since)}")
    return Gap(cause, ns, gap.missing)
