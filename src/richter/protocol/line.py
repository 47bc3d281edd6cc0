"""One line of the recording, joined from the bytes that the exchange sent. Nothing is decoded and encoded again."""

from __future__ import annotations

from itertools import product
from typing import Final

import msgspec
from msgspec import Raw

from richter.domain.decimals import NotANumberError, NumberError, split_quantity
from richter.domain.ticks import NO_TIME, Gap, Ns
from richter.domain.times import SECOND, iso_capture
from richter.protocol.dialect import Quote, UnreadableError

__all__ = ["LineMaker"]

# A reader looks no further into longer lines than it must, and into nothing that is nested more deeply.
SHORT_LINE: Final = 1024
MAX_DEPTH: Final = 32

DIGITS: Final = b"0123456789"
# Six strings which are empty or hold digits with at most one point are, without their digits, one of these. Two
# are left over: a point alone is told apart by what surrounds it.
USUAL: Final = frozenset(b" ".join(shape) for shape in product((b'"."', b'""'), repeat=6))
NO_DIGITS: Final = b'"."'

NAMES: Final = tuple(field.name for field in msgspec.structs.fields(Quote)[1:])
NULL: Final = b"null"
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
        product: bytes,
        quote: Quote,
        ts_event: Ns,
        ts_recv: Ns,
        place: tuple[int, int, int],
        snapshot: bool,
        gap: Gap | None,
        frame: bytes,
    ) -> bytes:
        """Return the line of one ticker, its newline included.

        Args:
            product: its product, which needs no escaping.
            quote: the ticker.
            ts_event: when, by the exchange.
            ts_recv: when it came.
            place: number of the frame, index of the event, index of the ticker.
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
        numbers: tuple[Raw | bytes, ...] = (
            quote.price,
            quote.volume_24h,
            quote.low_24h,
            quote.high_24h,
            quote.best_bid,
            quote.best_ask,
        )
        texts = b" ".join(numbers)
        if texts.translate(None, DIGITS) not in USUAL or texts.count(NO_DIGITS):
            numbers = tuple(map(_value, NAMES, numbers))
        if NEWLINE in frame or RETURN in frame:
            # JSON allows them between its parts only.
            frame = frame.replace(b"\n", b" ").replace(b"\r", b" ")
        price, volume, low, high, bid, ask = numbers
        line = b"".join(
            (
                self._stamp,
                b'%06dZ","product_id":"' % (rest // 1000),
                product,
                b'","price":',
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
                self._place % (ts_event, ts_recv, *place),
                b'snapshot","gap_before":' if snapshot else b'update","gap_before":',
                NULL if gap is None else _gap(gap),
                self._tail,
                frame,
                b"}\n",
            )
        )
        if len(line) > SHORT_LINE or not frame.isascii():
            _check(frame)
        return line


def _gap(gap: Gap) -> bytes:
    since = NULL if gap.from_ns == NO_TIME else b"%d" % gap.from_ns
    missing = NULL if gap.missing is None else b"%d" % gap.missing
    return b'{"cause":"%b","from":%b,"missing":%b}' % (gap.cause.name.lower().encode(), since, missing)


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
