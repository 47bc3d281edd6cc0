"""Texts of prices, quantities, integers and times to integers, where they are spelled the usual way."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from richter.compiled import kernel
from richter.domain import ticks as tk

__all__ = [
    "DOT",
    "MINUS",
    "NINE",
    "UNUSUAL_TEXT",
    "ZERO",
    "Bytes",
    "Int64",
    "integer",
    "price",
    "quantity",
    "time",
]

Bytes = NDArray[np.uint8]
Int64 = NDArray[np.int64]

ZERO, NINE, DOT, MINUS, COLON = 48, 57, 46, 45, 58
UNUSUAL_TEXT: Final = -2
NS: Final = 1_000_000_000
POWERS: Final = np.array([10**n for n in range(19)], np.int64)
# `data[np.uintp(at)]` in hot loops: nobody needs to look whether an index counts from the end.


@kernel()
def price(data: Bytes, start: int, end: int, decimals: int) -> int:
    """A price of digits with or without a point, scaled; UNKNOWN for empty text; -2 when unusual."""
    if start == end:
        return tk.UNKNOWN
    value = 0
    digits = 0
    fraction = -1
    for at in range(start, end):
        c = data[np.uintp(at)]
        if c == DOT:
            if fraction >= 0:
                return UNUSUAL_TEXT
            fraction = 0
            continue
        if c < ZERO or c > NINE:
            return UNUSUAL_TEXT
        if fraction >= decimals:
            if c != ZERO:
                return UNUSUAL_TEXT
            continue
        digits += 1
        if fraction >= 0:
            fraction += 1
        value = value * 10 + (c - ZERO)
    if digits == 0 or digits > 16:
        return UNUSUAL_TEXT
    shift = decimals - max(fraction, 0)
    if digits + shift > 18:
        return UNUSUAL_TEXT
    value *= POWERS[shift]
    return value if value < tk.PRICE_LIMIT else UNUSUAL_TEXT


@kernel()
def quantity(data: Bytes, start: int, end: int) -> tuple[int, int]:
    """A quantity as whole units and 1e-8; (UNKNOWN, 0) for empty text; (-2, 0) when unusual."""
    if start >= end:
        return tk.UNKNOWN, 0
    units = 0
    at = start
    while at < end and data[np.uintp(at)] != DOT:
        c = data[np.uintp(at)]
        if c < ZERO or c > NINE:
            return UNUSUAL_TEXT, 0
        units = units * 10 + (c - ZERO)
        at += 1
    if at == start or at - start > 12:
        return UNUSUAL_TEXT, 0
    if at == end:
        return units, 0
    at += 1
    if at == end or end - at > 8:
        return UNUSUAL_TEXT, 0
    fraction = 0
    places = end - at
    while at < end:
        c = data[np.uintp(at)]
        if c < ZERO or c > NINE:
            return UNUSUAL_TEXT, 0
        fraction = fraction * 10 + (c - ZERO)
        at += 1
    return units, fraction * POWERS[8 - places]


@kernel()
def integer(data: Bytes, start: int, end: int) -> int:
    """A non-negative integer; -1 when unusual."""
    if end - start < 1 or end - start > 19 or (end - start == 19 and data[start] > 56):
        return -1
    value = 0
    for at in range(start, end):
        c = data[np.uintp(at)]
        if c < ZERO or c > NINE:
            return -1
        value = value * 10 + (c - ZERO)
    return value


@kernel()
def _two(data: Bytes, at: int) -> int:
    tens = data[at] - ZERO
    ones = data[at + 1] - ZERO
    if tens < 0 or tens > 9 or ones < 0 or ones > 9:
        return -1
    return int(tens) * 10 + int(ones)


@kernel()
def time(data: Bytes, start: int, end: int) -> int:
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
