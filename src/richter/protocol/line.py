"""One line of the recording, joined from the bytes that the exchange sent. Nothing is decoded and encoded again."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import msgspec
from msgspec import Raw

from richter.domain.decimals import NotANumberError, NumberError, split_quantity
from richter.domain.ticks import NO_TIME, Gap, Ns
from richter.domain.times import SECOND, iso_capture
from richter.protocol.dialect import Quote, UnreadableError

__all__ = ["LineMaker", "line_head"]

# A reader looks no further into longer lines than it must, and into nothing that is nested more deeply.
SHORT_LINE: Final = 1024
MAX_DEPTH: Final = 32

DIGITS: Final = b"0123456789"
USUAL: Final = frozenset((b'"."', b'""', b""))
"""What is left of a decimal string, or of nothing at all, without its digits."""

NO_DIGITS: Final = b'"."'
NAMES: Final = tuple(field.name for field in msgspec.structs.fields(Quote)[1:])
NULL: Final = b"null"
NO_GAP: Final = b'","gap_before":null'
NEWLINE, RETURN = b"\n\r"

_read_any = msgspec.json.Decoder(float_hook=float).decode


class LineMaker:
    """Makes the lines of one connection.

    Args:
        conn_id: the connection.

    Raises:
        UnicodeError: the connection's name is no text.
    """

    def __init__(self, conn_id: str) -> None:
        conn = msgspec.json.encode(conn_id).replace(b"%", b"%%")
        self._place = b',"ts_event":%%d,"ts_recv":%%d,"conn_id":%b,"frame_no":%%d,"event_index":%%d,' % conn
        self._place += b'"ticker_index":%d,"event_type":"'
        self._tail = b',"v":1,"raw":'
        self._second = -1
        self._stamp = b""

    def set_offset(self, offset: Ns) -> None:
        """Set event minus receive time of the connection's first frame, which then stands on every line."""
        self._tail = b',"conn_offset":%d,"v":1,"raw":' % offset

    def line(
        self,
        head: bytes,
        quote: Quote,
        ts_event: Ns,
        ts_recv: Ns,
        frame_no: int,
        event_index: int,
        ticker_index: int,
        snapshot: bool,
        gap: Gap | None,
        frame: bytes,
    ) -> bytes:
        """Return the line of one ticker, its newline included.

        Args:
            head: `line_head` of its product.
            quote: the ticker.
            ts_event: when, by the exchange.
            ts_recv: when it came.
            frame_no: number of the frame.
            event_index: which event of the frame.
            ticker_index: which ticker of the event.
            snapshot: whether it is the state at subscription.
            gap: why continuity broke before it.
            frame: the whole frame.

        Raises:
            UnreadableError: a number is none, or no reader would read the frame.
            ValueError: a time cannot be written.
        """
        second, rest = divmod(ts_recv, SECOND)
        if second != self._second:
            self._stamp = b'{"timestamp":"' + iso_capture(ts_recv)[:20].encode()
            self._second = second
        price: Raw | bytes = quote.price
        volume: Raw | bytes = quote.volume_24h
        low: Raw | bytes = quote.low_24h
        high: Raw | bytes = quote.high_24h
        bid: Raw | bytes = quote.best_bid
        ask: Raw | bytes = quote.best_ask
        numbers = (
            price,
            volume,
            low,
            high,
            bid,
            ask,
            quote.best_bid_quantity,
            quote.best_ask_quantity,
            quote.best_bid_size,
            quote.best_ask_size,
            quote.last_size,
        )
        texts = b" ".join(numbers)
        if not _usual(texts.translate(None, DIGITS)) or texts.count(NO_DIGITS):
            price, volume, low, high, bid, ask, *_ = map(_value, NAMES, numbers)
        if NEWLINE in frame or RETURN in frame:
            # JSON allows them between its parts only.
            frame = frame.replace(b"\n", b" ").replace(b"\r", b" ")
        line = b"".join(
            (
                self._stamp,
                b"%06d" % (rest // 1000),
                head,
                price,
                b',"volume_24h":',
                volume,
                b',"low_24h":',
                low,
                b',"high_24h":',
                high,
                b',"best_bid":',
                bid,
                b',"best_ask":',
                ask,
                self._place % (ts_event, ts_recv, frame_no, event_index, ticker_index),
                b"snapshot" if snapshot else b"update",
                NO_GAP if gap is None else _gap(gap),
                self._tail,
                frame,
                b"}\n",
            )
        )
        if len(line) > SHORT_LINE or not frame.isascii():
            _check(frame)
        return line


def line_head(product_id: str) -> bytes:
    """Return the part of a product's lines that names it; the name is one that needs no escaping."""
    return b'Z","product_id":"%b","price":' % product_id.encode()


def _gap(gap: Gap) -> bytes:
    since = NULL if gap.from_ns == NO_TIME else b"%d" % gap.from_ns
    missing = NULL if gap.missing is None else b"%d" % gap.missing
    return b'","gap_before":{"cause":"%b","from":%b,"missing":%b}' % (
        gap.cause.name.lower().encode(),
        since,
        missing,
    )


@lru_cache(1024)
def _usual(shape: bytes) -> bool:
    """Return whether numbers without their digits are decimal strings, the first six of them there."""
    shapes = shape.split(b" ")
    return USUAL.issuperset(shapes) and all(shapes[:6])


def _value(name: str, raw: Raw | bytes) -> bytes:
    """Return a number of unusual make as it goes into the line: text as it came, a number's digits as text."""
    literal = bytes(raw)
    if not literal or literal == NULL:
        return NULL
    try:
        text = msgspec.json.decode(literal) if literal[:1] == b'"' else literal.decode()
        split_quantity(text)
    except NotANumberError as why:
        raise UnreadableError(f"{name}: {why}") from None
    except NumberError:
        pass  # How large a number may be is a setting of the reader's.
    except (msgspec.MsgspecError, UnicodeError):
        raise UnreadableError(f"{name}: no text") from None
    return literal if literal[:1] == b'"' else b'"%b"' % literal


def _check(frame: bytes) -> None:
    """Raise `UnreadableError` where a reader of the recording would refuse the frame."""
    try:
        frame.decode()
    except UnicodeDecodeError:
        raise UnreadableError("not UTF-8") from None
    if frame.count(b"{") + frame.count(b"[") > MAX_DEPTH:
        try:
            level = [_read_any(frame)]
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            raise UnreadableError("nested too deeply, or not JSON") from None
        for _ in range(MAX_DEPTH):
            level = [inner for value in level for inner in _inside(value)]
        if level:
            raise UnreadableError("nested too deeply")


def _inside(value: object) -> list[object]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []
