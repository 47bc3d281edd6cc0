"""The fast way through a recording: lines as they are written, straight from bytes to integers.

The scanner takes the two forms that fill recordings, ours and the course's, spelled the usual way. It is a full JSON
validator with a narrow taste: whatever it does not like (an escape, a number for a string, an unknown key, a second
ticker, a gap) it leaves to `records.decode_line`, which decides. Where it does read a line, it reads exactly what
`decode_line` reads; a test holds them together.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from richter.domain import ticks as tk

__all__ = ["DONE", "FULL", "SPANS", "UNUSUAL", "scan"]

Bytes = NDArray[np.uint8]
Int64 = NDArray[np.int64]

DONE, UNUSUAL, FULL = 0, 1, 2
"""Why `scan` stopped: at the end, at a line for `decode_line`, or because the block of ticks is full."""

# What is remembered of a line: where the text of each value lies.
(
    TIMESTAMP,
    PRODUCT_ID,
    PRICE,
    VOLUME,
    LOW,
    HIGH,
    BID,
    ASK,
    RAW,
    TS_EVENT,
    TS_RECV,
    CONN_ID,
    FRAME_NO,
    EVENT_INDEX,
    TICKER_INDEX,
    EVENT_TYPE,
    GAP_BEFORE,
    VERSION,
    CONN_OFFSET,
    BID_QTY,
    ASK_QTY,
    LAST_SIZE,
    RAW_PRODUCT,
    RAW_TIME,
    RAW_EVENTS,
    RAW_TICKERS,
    RAW_VOLUME,
    RAW_LOW,
    RAW_HIGH,
    RAW_TYPE,
) = range(30)
SPANS: Final = 30
NO_KEY: Final = -1

_TOP: Final = (
    ("timestamp", TIMESTAMP),
    ("product_id", PRODUCT_ID),
    ("price", PRICE),
    ("volume_24h", VOLUME),
    ("low_24h", LOW),
    ("high_24h", HIGH),
    ("best_bid", BID),
    ("best_ask", ASK),
    ("raw", RAW),
    ("ts_event", TS_EVENT),
    ("ts_recv", TS_RECV),
    ("conn_id", CONN_ID),
    ("frame_no", FRAME_NO),
    ("event_index", EVENT_INDEX),
    ("ticker_index", TICKER_INDEX),
    ("event_type", EVENT_TYPE),
    ("gap_before", GAP_BEFORE),
    ("v", VERSION),
    ("conn_offset", CONN_OFFSET),
)
_INNER: Final = (
    ("best_bid_quantity", BID_QTY),
    ("best_bid_size", BID_QTY),
    ("best_ask_quantity", ASK_QTY),
    ("best_ask_size", ASK_QTY),
    ("last_size", LAST_SIZE),
    ("product_id", RAW_PRODUCT),
    ("time", RAW_TIME),
    ("timestamp", RAW_TIME),
    ("events", RAW_EVENTS),
    ("tickers", RAW_TICKERS),
    ("type", RAW_TYPE),
)


def _key_table(keys: tuple[tuple[str, int], ...]) -> tuple[Int64, Bytes]:
    """Rows of (length, first eight bytes as a number, id), and the keys' bytes padded to 24."""
    rows = np.array(
        [(len(name), int.from_bytes(name.encode()[:8], "big"), number) for name, number in keys], np.int64
    )
    text = np.zeros((len(keys), 24), np.uint8)
    for index, (name, _) in enumerate(keys):
        text[index, : len(name)] = np.frombuffer(name.encode(), np.uint8)
    return rows, text


TOP_KEYS, TOP_TEXT = _key_table(_TOP)
INNER_KEYS, INNER_TEXT = _key_table(_INNER)

QUOTE, BACKSLASH, COLON, COMMA = 34, 92, 58, 44
OPEN_OBJECT, CLOSE_OBJECT, OPEN_LIST, CLOSE_LIST = 123, 125, 91, 93
SPACE, TAB, RETURN, NEWLINE = 32, 9, 13, 10
ZERO, NINE, DOT, MINUS = 48, 57, 46, 45
# Bytes of a string that need no second look. A newline is none of them, and one ends every block: no bound is needed.
PLAIN: Final = np.array(
    [SPACE <= byte <= 126 and byte not in (QUOTE, BACKSLASH) for byte in range(256)], dtype=np.bool_
)
MAX_DEPTH: Final = 60
WANT_VALUE, WANT_KEY, AFTER_VALUE = 0, 1, 2
NS: Final = 1_000_000_000
POWERS: Final = np.array([10**n for n in range(19)], np.int64)
SNAPSHOT: Final = np.frombuffer(b"snapshot", np.uint8)
UPDATE: Final = np.frombuffer(b"update", np.uint8)


@njit(cache=True, nogil=True)
def _find_key(data: Bytes, start: int, size: int, head: int, table: Int64, text: Bytes) -> int:
    for index in range(table.shape[0]):
        if table[index, 1] == head and table[index, 0] == size:
            for k in range(8, size):
                if data[start + k] != text[index, k]:
                    return NO_KEY
            return int(table[index, 2])
    return NO_KEY


@njit(cache=True, nogil=True)
def _literal_end(data: Bytes, at: int, stop: int) -> int:
    """Where a number, true, false or null ends; -1 when it is none."""
    first = data[at]
    if first == 110 or first == 116:  # null, true
        if at + 4 > stop:
            return -1
        if first == 110:
            good = data[at + 1] == 117 and data[at + 2] == 108 and data[at + 3] == 108
        else:
            good = data[at + 1] == 114 and data[at + 2] == 117 and data[at + 3] == 101
        return at + 4 if good else -1
    if first == 102:  # false
        if at + 5 > stop:
            return -1
        good = data[at + 1] == 97 and data[at + 2] == 108 and data[at + 3] == 115 and data[at + 4] == 101
        return at + 5 if good else -1
    if first == MINUS:
        at += 1
    digits = at
    while at < stop and ZERO <= data[at] <= NINE:
        at += 1
    if at == digits or (data[digits] == ZERO and at > digits + 1):
        return -1
    if at < stop and data[at] == DOT:
        at += 1
        digits = at
        while at < stop and ZERO <= data[at] <= NINE:
            at += 1
        if at == digits:
            return -1
    if at < stop and (data[at] == 101 or data[at] == 69):
        return -1  # an exponent: unusual
    return at


@njit(cache=True, nogil=True)
def _spans(data: Bytes, at: int, spans: Int64) -> int:
    """Validate the line at ``at``, a JSON object, and note where the values are.

    Returns where its newline is; -1 when the line is unusual.

    A span is (start, end) of a string's text or of a literal; a string starts behind its quote.
    """
    spans[:, 0] = -1
    depth = 0
    objects = 0  # bit d: the container at depth d is an object
    want = WANT_VALUE
    key = NO_KEY
    empty = False  # just opened: an end may follow
    in_events = False
    in_tickers = False
    events = 0
    tickers = 0
    stop = data.shape[0]
    while True:
        c = data[at]
        if c == SPACE or c == TAB or c == RETURN:
            at += 1
            continue
        if want == AFTER_VALUE:
            if depth == 0:
                return at if c == NEWLINE else -1
            if c == COMMA:
                want = WANT_KEY if (objects >> depth) & 1 else WANT_VALUE
                empty = False
                key = NO_KEY
                at += 1
                continue
            if c != (CLOSE_OBJECT if (objects >> depth) & 1 else CLOSE_LIST):
                return -1
            objects &= ~(1 << depth)
            depth -= 1
            in_events = in_events and depth > 2
            in_tickers = in_tickers and depth > 4
            at += 1
            continue
        # What is no event among events, no ticker among tickers, spoils the whole of raw.
        if (
            ((in_events and depth == 3) or (in_tickers and depth == 5))
            and c != OPEN_OBJECT
            and not (empty and c == CLOSE_LIST)
        ):
            return -1
        if c == QUOTE:
            at += 1
            start = at
            if depth > 1 and start + 6 < stop:
                # Whether raw could know more of the day, by its texts' first letters.
                c = data[start]
                if c == 118 and data[start + 1] == 111 and data[start + 2] == 108:
                    spans[RAW_VOLUME, 0] = start
                elif c == 108 and data[start + 1] == 111 and data[start + 2] == 119:
                    spans[RAW_LOW, 0] = start
                elif c == 104 and data[start + 1] == 105 and data[start + 2] == 103:
                    spans[RAW_HIGH, 0] = start
            if want == WANT_KEY:
                head = 0
                while PLAIN[data[at]]:
                    if at - start == 8:
                        break
                    head = (head << 8) | data[at]
                    at += 1
                while PLAIN[data[at]]:
                    at += 1
                if data[at] != QUOTE:
                    return -1
                if depth == 1:
                    key = _find_key(data, start, at - start, head, TOP_KEYS, TOP_TEXT)
                    if key == NO_KEY or spans[key, 0] >= 0:
                        return -1
                    if key == RAW:
                        spans[RAW, 0] = start
                else:
                    key = NO_KEY
                    if spans[RAW, 0] >= 0:
                        key = _find_key(data, start, at - start, head, INNER_KEYS, INNER_TEXT)
                        if key != NO_KEY:
                            if spans[key, 0] >= 0 and key != RAW_TIME and key != RAW_TYPE:
                                return -1
                            # Where there are events, raw's own quantities do not count.
                            if key == RAW_EVENTS and (
                                depth != 2 or spans[BID_QTY : LAST_SIZE + 1, 0].max() >= 0
                            ):
                                return -1
                            if key == RAW_TICKERS and (depth != 4 or not in_events):
                                return -1
                            spans[key, 1] = depth
                            spans[key, 0] = start
                at += 1
                while data[at] == SPACE or data[at] == TAB:
                    at += 1
                if data[at] != COLON:
                    return -1
                at += 1
                want = WANT_VALUE
                empty = False
                continue
            while PLAIN[data[at]]:
                at += 1
            if data[at] != QUOTE:
                return -1
            if key != NO_KEY:
                if depth == 1:
                    if key == RAW or (key >= TS_EVENT and key != CONN_ID and key != EVENT_TYPE):
                        return -1
                    spans[key, 0] = start
                    spans[key, 1] = at
                elif key <= RAW_PRODUCT and key >= BID_QTY:
                    # Quantities count where one ticker has them: raw itself, or the only one of its events.
                    level = 6 if spans[RAW_EVENTS, 0] >= 0 else 2
                    if spans[key, 1] != level or (level == 6 and not in_tickers):
                        return -1
                    spans[key, 0] = start
                    spans[key, 1] = at
            at += 1
            want = AFTER_VALUE
            key = NO_KEY
            continue
        if c == OPEN_OBJECT or c == OPEN_LIST:
            if want == WANT_KEY or depth >= MAX_DEPTH:
                return -1
            if key != NO_KEY and depth == 1 and key != RAW:
                return -1
            if key != NO_KEY and depth > 1 and key != RAW_EVENTS and key != RAW_TICKERS:
                return -1
            if key != NO_KEY and (c == OPEN_OBJECT) != (key == RAW):
                return -1
            if key == RAW_EVENTS:
                in_events = True
            elif key == RAW_TICKERS:
                in_tickers = True
            elif in_tickers and depth == 5:
                tickers += 1
            elif in_events and depth == 3:
                events += 1
            if events > 1 or tickers > 1:
                return -1
            depth += 1
            if c == OPEN_OBJECT:
                objects |= 1 << depth
                want = WANT_KEY
            elif depth == 1:
                return -1
            else:
                want = WANT_VALUE
            empty = True
            key = NO_KEY
            at += 1
            continue
        if empty and (c == CLOSE_OBJECT or c == CLOSE_LIST):
            if c != (CLOSE_OBJECT if (objects >> depth) & 1 else CLOSE_LIST):
                return -1
            objects &= ~(1 << depth)
            depth -= 1
            in_events = in_events and depth > 2
            in_tickers = in_tickers and depth > 4
            empty = False
            want = AFTER_VALUE
            at += 1
            continue
        if want == WANT_KEY or depth == 0:
            return -1
        end = _literal_end(data, at, stop)
        if end < 0:
            return -1
        if key != NO_KEY:
            null = c == 110
            if depth == 1:
                if null:
                    if (
                        key != GAP_BEFORE
                        and not (LOW <= key <= HIGH)
                        and key != VOLUME
                        and key != CONN_OFFSET
                    ):
                        return -1
                    spans[key, 0] = at
                    spans[key, 1] = at
                elif (
                    TS_EVENT <= key <= CONN_OFFSET
                    and key != CONN_ID
                    and key != EVENT_TYPE
                    and key != GAP_BEFORE
                ):
                    spans[key, 0] = at
                    spans[key, 1] = end
                else:
                    return -1
            else:
                return -1
        at = end
        want = AFTER_VALUE
        key = NO_KEY


@njit(cache=True, nogil=True)
def _price(data: Bytes, start: int, end: int, decimals: int) -> int:
    """A price of digits with or without a point, scaled; UNKNOWN for empty text; -2 when unusual."""
    if start == end:
        return tk.UNKNOWN
    value = 0
    digits = 0
    fraction = -1
    for at in range(start, end):
        c = data[at]
        if c == DOT:
            if fraction >= 0:
                return -2
            fraction = 0
            continue
        if c < ZERO or c > NINE:
            return -2
        if fraction >= decimals:
            if c != ZERO:
                return -2
            continue
        digits += 1
        if fraction >= 0:
            fraction += 1
        value = value * 10 + (c - ZERO)
    if digits == 0 or digits > 16:
        return -2
    shift = decimals - max(fraction, 0)
    if digits + shift > 18:
        return -2
    value *= POWERS[shift]
    return value if value < tk.PRICE_LIMIT else -2


@njit(cache=True, nogil=True)
def _quantity(data: Bytes, start: int, end: int) -> tuple[int, int]:
    """A quantity as whole units and 1e-8; (UNKNOWN, 0) for empty text; (-2, 0) when unusual."""
    if start >= end:
        return tk.UNKNOWN, 0
    units = 0
    at = start
    while at < end and data[at] != DOT:
        c = data[at]
        if c < ZERO or c > NINE:
            return -2, 0
        units = units * 10 + (c - ZERO)
        at += 1
    if at == start or at - start > 12:
        return -2, 0
    if at == end:
        return units, 0
    at += 1
    if at == end or end - at > 8:
        return -2, 0
    fraction = 0
    places = end - at
    while at < end:
        c = data[at]
        if c < ZERO or c > NINE:
            return -2, 0
        fraction = fraction * 10 + (c - ZERO)
        at += 1
    return units, fraction * POWERS[8 - places]


@njit(cache=True, nogil=True)
def _integer(data: Bytes, start: int, end: int) -> int:
    """A non-negative integer; -1 when unusual."""
    if end - start < 1 or end - start > 19 or (end - start == 19 and data[start] > 56):
        return -1
    value = 0
    for at in range(start, end):
        c = data[at]
        if c < ZERO or c > NINE:
            return -1
        value = value * 10 + (c - ZERO)
    return value


@njit(cache=True, nogil=True)
def _is(data: Bytes, start: int, end: int, text: Bytes) -> bool:
    if end - start != text.shape[0]:
        return False
    for k in range(end - start):  # noqa: SIM110 # Compiled code has no generators.
        if data[start + k] != text[k]:
            return False
    return True


@njit(cache=True, nogil=True)
def _two(data: Bytes, at: int) -> int:
    tens = data[at] - ZERO
    ones = data[at + 1] - ZERO
    if tens < 0 or tens > 9 or ones < 0 or ones > 9:
        return -1
    return int(tens) * 10 + int(ones)


@njit(cache=True, nogil=True)
def _time(data: Bytes, start: int, end: int) -> int:
    """``YYYY-MM-DDThh:mm:ss[.f{1,9}][Z|+00:00]`` as ns since the epoch; -1 when unusual. Naive is UTC."""
    if end - start < 19:
        return -1
    century = _two(data, start)
    years = _two(data, start + 2)
    month = _two(data, start + 5)
    day = _two(data, start + 8)
    hour = _two(data, start + 11)
    minute = _two(data, start + 14)
    second = _two(data, start + 17)
    year = century * 100 + years
    if (
        century < 0
        or years < 0
        or data[start + 4] != MINUS
        or data[start + 7] != MINUS
        or data[start + 10] != 84
        or data[start + 13] != COLON
        or data[start + 16] != COLON
        or year < 1970
        or year > 2200
        or month < 1
        or month > 12
        or day < 1
        or hour < 0
        or hour > 23
        or minute < 0
        or minute > 59
        or second < 0
        or second > 59
    ):
        return -1
    leap = (year % 4 == 0 and year % 100 != 0) or year % 400 == 0
    longest = 31
    if month == 2:
        longest = 29 if leap else 28
    elif month == 4 or month == 6 or month == 9 or month == 11:
        longest = 30
    if day > longest:
        return -1
    at = start + 19
    ns = 0
    if at < end and data[at] == DOT:
        at += 1
        digits = 0
        while at < end and ZERO <= data[at] <= NINE:
            ns = ns * 10 + (data[at] - ZERO)
            digits += 1
            at += 1
        if digits == 0 or digits > 9:
            return -1
        ns *= POWERS[9 - digits]
    if at < end:
        if data[at] == 90:  # Z
            at += 1
        elif end - at == 6 and data[at] == 43:  # +00:00
            if _two(data, at + 1) != 0 or data[at + 3] != COLON or _two(data, at + 4) != 0:
                return -1
            at += 6
    if at != end:
        return -1
    # Days since the epoch in the proleptic Gregorian calendar, the year beginning in March.
    y = year - 1 if month <= 2 else year
    era = y // 400
    of_era = y - era * 400
    of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    days = era * 146097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719468
    return (days * 86400 + hour * 3600 + minute * 60 + second) * NS + ns


@njit(cache=True, nogil=True)
def _lookup(data: Bytes, start: int, end: int, names: Bytes, ends: Int64, last: int) -> int:
    """Index of the name data[start:end] among the registered ones, tried from the last hit on; -1 when new."""
    count = ends.shape[0]
    for step in range(count):
        index = last + step
        if index >= count:
            index -= count
        begin = 0 if index == 0 else ends[index - 1]
        if ends[index] - begin == end - start:
            same = True
            for k in range(end - start):
                if names[begin + k] != data[start + k]:
                    same = False
                    break
            if same:
                return index
    return -1


@njit(cache=True, nogil=True)
def _fill(
    data: Bytes,
    spans: Int64,
    line_no: int,
    file_conn: int,
    conn: int,
    product: int,
    decimals: int,
    row: Int64,
) -> bool:
    """Write the tick of a line whose spans are known; False when a value is unusual."""
    captured = _time(data, spans[TIMESTAMP, 0], spans[TIMESTAMP, 1])
    if captured < 0:
        return False
    if conn >= 0:
        event = _integer(data, spans[TS_EVENT, 0], spans[TS_EVENT, 1])
        received = _integer(data, spans[TS_RECV, 0], spans[TS_RECV, 1])
        frame = _integer(data, spans[FRAME_NO, 0], spans[FRAME_NO, 1])
        event_index = _integer(data, spans[EVENT_INDEX, 0], spans[EVENT_INDEX, 1])
        ticker_index = _integer(data, spans[TICKER_INDEX, 0], spans[TICKER_INDEX, 1])
        if event < 0 or received < 0 or frame < 0 or event_index != 0 or ticker_index != 0:
            return False
        if 0 <= spans[CONN_OFFSET, 0] < spans[CONN_OFFSET, 1]:
            first = spans[CONN_OFFSET, 0]
            if _integer(data, first + 1 if data[first] == MINUS else first, spans[CONN_OFFSET, 1]) < 0:
                return False
        snapshot = _is(data, spans[EVENT_TYPE, 0], spans[EVENT_TYPE, 1], SNAPSHOT)
        if not snapshot and not _is(data, spans[EVENT_TYPE, 0], spans[EVENT_TYPE, 1], UPDATE):
            return False
        row[tk.TS_EVENT] = event
        row[tk.TS_RECV] = received
        row[tk.CONN] = conn
        row[tk.FRAME_NO] = frame
        row[tk.SNAPSHOT] = 1 if snapshot else 0
    else:
        row[tk.TS_EVENT] = captured
        row[tk.TS_RECV] = captured
        row[tk.CONN] = file_conn
        row[tk.FRAME_NO] = line_no
        row[tk.SNAPSHOT] = 0
    row[tk.EVENT_INDEX] = 0
    row[tk.TICKER_INDEX] = 0
    row[tk.PRODUCT] = product
    row[tk.GAP_CAUSE] = 0
    row[tk.GAP_FROM] = tk.NO_TIME
    row[tk.GAP_MISSING] = tk.UNKNOWN
    for number, column in (
        (PRICE, tk.PRICE),
        (BID, tk.BID),
        (ASK, tk.ASK),
        (LOW, tk.LOW_24H),
        (HIGH, tk.HIGH_24H),
    ):
        value = tk.UNKNOWN
        if spans[number, 0] >= 0:
            value = _price(data, spans[number, 0], spans[number, 1], decimals)
            if value == -2:
                return False
        row[column] = value
    for number, column in (
        (VOLUME, tk.VOLUME_24H_U),
        (LAST_SIZE, tk.LAST_SIZE_U),
        (BID_QTY, tk.BID_QTY_U),
        (ASK_QTY, tk.ASK_QTY_U),
    ):
        units = tk.UNKNOWN
        fraction = 0
        if spans[number, 0] >= 0:
            units, fraction = _quantity(data, spans[number, 0], spans[number, 1])
            if units == -2:
                return False
        row[column] = units
        row[column + 1] = fraction
    return True


@njit(cache=True, nogil=True)
def _usual(data: Bytes, spans: Int64) -> int:
    """1 for our form, 0 for the course's, -1 for neither."""
    if spans[TIMESTAMP, 0] < 0 or spans[PRODUCT_ID, 0] < 0 or spans[PRODUCT_ID, 1] == spans[PRODUCT_ID, 0]:
        return -1
    ours = spans[VERSION, 0] >= 0
    if ours:
        for number in (
            TS_EVENT,
            TS_RECV,
            CONN_ID,
            FRAME_NO,
            EVENT_INDEX,
            TICKER_INDEX,
            EVENT_TYPE,
            GAP_BEFORE,
        ):
            if spans[number, 0] < 0:
                return -1
        if spans[VERSION, 1] - spans[VERSION, 0] != 1 or data[spans[VERSION, 0]] != 49:
            return -1
        if spans[CONN_ID, 1] == spans[CONN_ID, 0]:
            return -1
        return 1
    for number in range(TS_EVENT, CONN_OFFSET + 1):
        if spans[number, 0] >= 0:
            return -1
    # What these lack may be in raw, and raw may know the exchange's time.
    for number in (PRICE, BID, ASK, RAW):
        if spans[number, 0] < 0 or (number != RAW and spans[number, 1] == spans[number, 0]):
            return -1
    if spans[RAW_TIME, 0] >= 0 or spans[RAW_EVENTS, 0] >= 0:
        return -1
    for number in range(3):
        absent = spans[VOLUME + number, 0] < 0 or spans[VOLUME + number, 1] == spans[VOLUME + number, 0]
        if absent and spans[RAW_VOLUME + number, 0] >= 0:
            return -1
    if spans[RAW_PRODUCT, 0] >= 0:
        size = spans[PRODUCT_ID, 1] - spans[PRODUCT_ID, 0]
        if spans[RAW_PRODUCT, 1] - spans[RAW_PRODUCT, 0] != size:
            return -1
        for k in range(size):
            if data[spans[RAW_PRODUCT, 0] + k] != data[spans[PRODUCT_ID, 0] + k]:
                return -1
    return 0


@njit(cache=True, nogil=True)
def scan(
    data: Bytes,
    at: int,
    line_no: int,
    file_conn: int,
    products: tuple[Bytes, Int64, Int64, Int64],
    conns: tuple[Bytes, Int64, Int64],
    spans: Int64,
    ticks: Int64,
    origin: Int64,
    n: int,
) -> tuple[int, int, int, int]:
    """Read whole lines from ``at`` on into ``ticks[n:]``.

    Args:
        data: the block; its last byte is a newline.
        at: where to begin.
        line_no: number of the line at ``at``.
        file_conn: connection code of records without identity.
        products: known spellings (bytes, their ends), their codes and their decimals.
        conns: known connections (bytes, their ends) and their codes.
        spans: (SPANS, 2) scratch; after UNUSUAL, the spans of the line, as far as they were read.
        ticks: (capacity, TICK_COLUMNS).
        origin: (capacity, 3): start and end of the tick's line in ``data``, its number.
        n: ticks already there.

    Returns:
        why it stopped, where, number of the line there, ticks there.
    """
    product_names, product_ends, product_codes, product_decimals = products
    conn_names, conn_ends, conn_codes = conns
    last_product = 0
    last_conn = 0
    size = data.shape[0]
    while at < size:
        if n >= ticks.shape[0]:
            return FULL, at, line_no, n
        end = _spans(data, at, spans)
        if end < 0:
            return UNUSUAL, at, line_no, n
        form = _usual(data, spans)
        if form < 0:
            return UNUSUAL, at, line_no, n
        product = _lookup(
            data,
            spans[PRODUCT_ID, 0],
            spans[PRODUCT_ID, 1],
            product_names,
            product_ends,
            last_product,
        )
        if product < 0:
            return UNUSUAL, at, line_no, n
        last_product = product
        conn = -1
        if form == 1:
            known = _lookup(data, spans[CONN_ID, 0], spans[CONN_ID, 1], conn_names, conn_ends, last_conn)
            if known < 0:
                return UNUSUAL, at, line_no, n
            last_conn = known
            conn = conn_codes[known]
        if not _fill(
            data, spans, line_no, file_conn, conn, product_codes[product], product_decimals[product], ticks[n]
        ):
            return UNUSUAL, at, line_no, n
        origin[n, 0] = at
        origin[n, 1] = end
        origin[n, 2] = line_no
        n += 1
        line_no += 1
        at = end + 1
    return DONE, at, line_no, n
