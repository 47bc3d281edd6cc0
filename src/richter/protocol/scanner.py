"""The fast way through a recording: lines as they are written, straight from bytes to integers.

The scanner takes the two forms that fill recordings, ours and the course's, spelled the usual way. Whatever it does
not like (an escape, a number for a string, an unknown key, a second ticker, a gap) it leaves to
`forms.decode_line`, which decides. Where it does read a line, it reads exactly what `decode_line` reads; a test
holds them together.

numba's cache looks at the time stamp of this file alone, so the file names the sources that it compiles in: a test
checks it, and whoever changes one of them must touch this file.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from richter.compiled import kernel
from richter.domain import ticks as tk
from richter.protocol.spans import (
    ASK,
    ASK_QTY,
    BID,
    BID_QTY,
    CONN_ID,
    CONN_OFFSET,
    EVENT_INDEX,
    EVENT_TYPE,
    FRAME_NO,
    GAP_BEFORE,
    HIGH,
    LAST_SIZE,
    LOW,
    PRICE,
    PRODUCT_ID,
    RAW,
    RAW_EVENTS,
    RAW_PRODUCT,
    RAW_TIME,
    RAW_VOLUME,
    TICKER_INDEX,
    TIMESTAMP,
    TS_EVENT,
    TS_RECV,
    VERSION,
    VOLUME,
    find_same_values,
    find_values,
)
from richter.protocol.texts import MINUS, UNUSUAL_TEXT, Bytes, Int64, integer, price, quantity, time

__all__ = ["DONE", "FULL", "UNUSUAL", "scan"]

SOURCES_FINGERPRINT: Final = "a3f548e15ce8b27c"

DONE, UNUSUAL, FULL = 0, 1, 2
"""Why `scan` stopped: at the end, at a line for `decode_line`, or because the block of ticks is full."""

SNAPSHOT: Final = np.frombuffer(b"snapshot", np.uint8)
UPDATE: Final = np.frombuffer(b"update", np.uint8)


@kernel()
def _is(data: Bytes, start: int, end: int, text: Bytes) -> bool:
    if end - start != text.shape[0]:
        return False
    for k in range(end - start):  # noqa: SIM110 # Compiled code has no generators.
        if data[start + k] != text[k]:
            return False
    return True


@kernel()
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


@kernel()
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
    captured = time(data, spans[TIMESTAMP, 0], spans[TIMESTAMP, 1])
    if captured < 0:
        return False
    if conn >= 0:
        event = integer(data, spans[TS_EVENT, 0], spans[TS_EVENT, 1])
        received = integer(data, spans[TS_RECV, 0], spans[TS_RECV, 1])
        frame = integer(data, spans[FRAME_NO, 0], spans[FRAME_NO, 1])
        event_index = integer(data, spans[EVENT_INDEX, 0], spans[EVENT_INDEX, 1])
        ticker_index = integer(data, spans[TICKER_INDEX, 0], spans[TICKER_INDEX, 1])
        if event < 0 or received < 0 or frame < 0 or event_index != 0 or ticker_index != 0:
            return False
        if 0 <= spans[CONN_OFFSET, 0] < spans[CONN_OFFSET, 1]:
            first = spans[CONN_OFFSET, 0]
            if integer(data, first + 1 if data[first] == MINUS else first, spans[CONN_OFFSET, 1]) < 0:
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
            value = price(data, spans[number, 0], spans[number, 1], decimals)
            if value == UNUSUAL_TEXT:
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
            units, fraction = quantity(data, spans[number, 0], spans[number, 1])
            if units == UNUSUAL_TEXT:
                return False
        row[column] = units
        row[column + 1] = fraction
    return True


@kernel()
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


@kernel(cache=True)
def scan(
    data: Bytes,
    at: int,
    line_no: int,
    file_conn: int,
    products: tuple[Bytes, Int64, Int64, Int64],
    conns: tuple[Bytes, Int64, Int64],
    spans: Int64,
    marks: Int64,
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
        marks: (MARKS, 4) scratch.
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
    before = at
    count = -1  # of marks of the line before
    while at < size:
        if n >= ticks.shape[0]:
            return FULL, at, line_no, n
        end = -1
        if count > 0:
            end = find_same_values(data, at, before, at - 1, spans, marks, count)
        if end < 0:
            end, count = find_values(data, at, spans, marks)
        if end < 0:
            return UNUSUAL, at, line_no, n
        before = at
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
