"""Where the values of a line are: a JSON validator with a narrow taste, and a shortcut for lines that look alike.

`find_values` reads a line from scratch. `find_same_values` compares it with the line before it: where what stands
between the values is the same, byte for byte, only the values are looked at. A recording's lines nearly always are.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from richter.compiled import kernel
from richter.protocol.texts import COLON, DOT, MINUS, NINE, ZERO, Bytes, Int64

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

QUOTE, BACKSLASH, COMMA = 34, 92, 44
OPEN_OBJECT, CLOSE_OBJECT, OPEN_LIST, CLOSE_LIST = 123, 125, 91, 93
SPACE, TAB, RETURN, NEWLINE = 32, 9, 13, 10
# Bytes of a string that need no second look. A newline is none of them, and one ends every block: no bound is needed.
PLAIN: Final = np.array(
    [SPACE <= byte <= 126 and byte not in (QUOTE, BACKSLASH) for byte in range(256)], dtype=np.bool_
)
MAX_DEPTH: Final = 60
WANT_VALUE, WANT_KEY, AFTER_VALUE = 0, 1, 2

# All values of a line in their order, also those that nobody needs, for `find_same_values`.
START, END, KIND, KEY = range(4)
MARKS: Final = 64
OUTER_STRING, INNER_STRING, NUMBER = range(3)


@kernel()
def _find_key(data: Bytes, start: int, size: int, head: int, table: Int64, text: Bytes) -> int:
    for index in range(table.shape[0]):
        if table[index, 1] == head and table[index, 0] == size:
            for k in range(8, size):
                if data[start + k] != text[index, k]:
                    return NO_KEY
            return int(table[index, 2])
    return NO_KEY


@kernel()
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


@kernel()
def _mark(marks: Int64, count: int, start: int, end: int, kind: int, key: int) -> int:
    """Note a value; returns the new number of marks."""
    if count < 0 or count >= MARKS:
        return -1
    marks[count, START] = start
    marks[count, END] = end
    marks[count, KIND] = kind
    marks[count, KEY] = key
    return count + 1


@kernel()
def find_values(data: Bytes, at: int, spans: Int64, marks: Int64) -> tuple[int, int]:
    """Validate the line at ``at``, a JSON object, and note where the values are.

    A span is (start, end) of a string's text or of a literal; a string starts behind its quote.

    Returns:
        where the line's newline is, -1 when the line is unusual; the number of ``marks``, -1 when they do not suffice.
    """
    count = 0
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
                return at if c == NEWLINE else -1, count
            if c == COMMA:
                want = WANT_KEY if (objects >> depth) & 1 else WANT_VALUE
                empty = False
                key = NO_KEY
                at += 1
                continue
            if c != (CLOSE_OBJECT if (objects >> depth) & 1 else CLOSE_LIST):
                return -1, 0
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
            return -1, 0
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
                    return -1, 0
                if depth == 1:
                    key = _find_key(data, start, at - start, head, TOP_KEYS, TOP_TEXT)
                    if key == NO_KEY or spans[key, 0] >= 0:
                        return -1, 0
                    if key == RAW:
                        spans[RAW, 0] = start
                else:
                    key = NO_KEY
                    if spans[RAW, 0] >= 0:
                        key = _find_key(data, start, at - start, head, INNER_KEYS, INNER_TEXT)
                        if key != NO_KEY:
                            if spans[key, 0] >= 0 and key != RAW_TIME and key != RAW_TYPE:
                                return -1, 0
                            # Where there are events, raw's own quantities do not count.
                            if key == RAW_EVENTS and (
                                depth != 2
                                or spans[BID_QTY, 0] >= 0
                                or spans[ASK_QTY, 0] >= 0
                                or spans[LAST_SIZE, 0] >= 0
                            ):
                                return -1, 0
                            if key == RAW_TICKERS and (depth != 4 or not in_events):
                                return -1, 0
                            spans[key, 1] = depth
                            spans[key, 0] = start
                at += 1
                while data[at] == SPACE or data[at] == TAB:
                    at += 1
                if data[at] != COLON:
                    return -1, 0
                at += 1
                want = WANT_VALUE
                empty = False
                continue
            while PLAIN[data[at]]:
                at += 1
            if data[at] != QUOTE:
                return -1, 0
            count = _mark(marks, count, start, at, OUTER_STRING if depth == 1 else INNER_STRING, key)
            if key != NO_KEY:
                if depth == 1:
                    if key == RAW or (key >= TS_EVENT and key != CONN_ID and key != EVENT_TYPE):
                        return -1, 0
                    spans[key, 0] = start
                    spans[key, 1] = at
                elif key <= RAW_PRODUCT and key >= BID_QTY:
                    # Quantities count where one ticker has them: raw itself, or the only one of its events.
                    level = 6 if spans[RAW_EVENTS, 0] >= 0 else 2
                    if spans[key, 1] != level or (level == 6 and not in_tickers):
                        return -1, 0
                    spans[key, 0] = start
                    spans[key, 1] = at
            at += 1
            want = AFTER_VALUE
            key = NO_KEY
            continue
        if c == OPEN_OBJECT or c == OPEN_LIST:
            if want == WANT_KEY or depth >= MAX_DEPTH:
                return -1, 0
            if key != NO_KEY and depth == 1 and key != RAW:
                return -1, 0
            if key != NO_KEY and depth > 1 and key != RAW_EVENTS and key != RAW_TICKERS:
                return -1, 0
            if key != NO_KEY and (c == OPEN_OBJECT) != (key == RAW):
                return -1, 0
            if key == RAW_EVENTS:
                in_events = True
            elif key == RAW_TICKERS:
                in_tickers = True
            elif in_tickers and depth == 5:
                tickers += 1
            elif in_events and depth == 3:
                events += 1
            if events > 1 or tickers > 1:
                return -1, 0
            depth += 1
            if c == OPEN_OBJECT:
                objects |= 1 << depth
                want = WANT_KEY
            elif depth == 1:
                return -1, 0
            else:
                want = WANT_VALUE
            empty = True
            key = NO_KEY
            at += 1
            continue
        if empty and (c == CLOSE_OBJECT or c == CLOSE_LIST):
            if c != (CLOSE_OBJECT if (objects >> depth) & 1 else CLOSE_LIST):
                return -1, 0
            objects &= ~(1 << depth)
            depth -= 1
            in_events = in_events and depth > 2
            in_tickers = in_tickers and depth > 4
            empty = False
            want = AFTER_VALUE
            at += 1
            continue
        if want == WANT_KEY or depth == 0:
            return -1, 0
        end = _literal_end(data, at, stop)
        if end < 0:
            return -1, 0
        if c == MINUS or ZERO <= c <= NINE:
            count = _mark(marks, count, at, end, NUMBER, key)
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
                        return -1, 0
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
                    return -1, 0
            else:
                return -1, 0
        at = end
        want = AFTER_VALUE
        key = NO_KEY


@kernel()
def find_same_values(
    data: Bytes, at: int, before: int, before_end: int, spans: Int64, marks: Int64, count: int
) -> int:
    """Note where the values are in a line that differs from the one before it in nothing else.

    Args:
        data: the block of lines.
        at: where the line begins.
        before: where the line before it began.
        before_end: where its newline is.
        spans: its spans; they become this line's.
        marks: its marks, likewise.
        count: their number.

    Returns:
        where the newline is; -1 when the lines differ otherwise, with ``spans`` and ``marks`` spoiled.
    """
    stop = data.shape[0]
    for mark in range(count):
        size = marks[mark, START] - before
        if not _same(data, before, at, size):
            return -1
        at += size
        start = at
        kind = marks[mark, KIND]
        if kind == NUMBER:
            if data[at] != MINUS and not (ZERO <= data[at] <= NINE):
                return -1
            at = _literal_end(data, at, stop)
            if at < 0:
                return -1
        else:
            while PLAIN[data[np.uintp(at)]]:
                at += 1
            if data[at] != QUOTE:
                return -1
        before = marks[mark, END]
        marks[mark, START] = start
        marks[mark, END] = at
        key = marks[mark, KEY]
        if key != NO_KEY and (kind != INNER_STRING or BID_QTY <= key <= RAW_PRODUCT):
            spans[key, 0] = start
            spans[key, 1] = at
    size = before_end + 1 - before
    if not _same(data, before, at, size):
        return -1
    return at + size - 1


@kernel()
def _same(data: Bytes, one: int, other: int, size: int) -> bool:
    """Whether ``size`` bytes from ``one`` and from the later ``other`` on are the same."""
    if other + size > data.shape[0]:
        return False
    different = 0
    for k in range(size):
        different |= data[np.uintp(one + k)] ^ data[np.uintp(other + k)]
    return different == 0
