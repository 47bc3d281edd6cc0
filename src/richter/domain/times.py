"""Times as integer nanoseconds since the Unix epoch, from any text or number that names one, and back.

Integers throughout: `datetime` stops at microseconds, and the exchange stamps nanoseconds with the trailing
zeros cut off ("…:30.25788961Z").
"""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import Final

from richter.domain.ticks import Ns

__all__ = ["SECOND", "format_time", "iso_capture", "parse_time"]

SECOND: Final = 10**9
LATEST: Final = 2**63 - 1
DAY_S: Final = 86_400

POWERS: Final = tuple(10**n for n in range(10))
STAMP: Final = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt ]([0-9]{2}):([0-9]{2}):([0-9]{2})")

# What may follow the seconds. A zone's name is read after an offset ("-0500 EST"), which says it all, and
# alone only where it means UTC. Go adds its monotonic clock ("m=+139651.27"); Python's isoformat() with a "Z"
# glued on gives "+00:00Z".
TAIL: Final = re.compile(
    r"(?:[.,]([0-9]+))?"
    r"(?: ?(?:([+-])([0-9]{2})(?::?([0-9]{2}))?(?: ?(?:[A-Z]{1,5}|[+-][0-9]{2,4}))?|[Zz]|UTC|GMT))?"
    r"(?: m=[+-][0-9.]+)?"
)
EPOCH: Final = re.compile(r"([0-9]{1,30})(?:\.([0-9]{0,30}))?")


def parse_time(value: str | int | float | None) -> Ns | None:
    """Return the time that a text or a number names; None where it names none that can be used.

    Texts are RFC 3339 with up to nine digits of fraction (further ones are cut), `T` or a space, any offset,
    none meaning UTC; Go's `2026-09-05 22:10:30.25788961 +0000 UTC m=+139651.27`; a number as text. Numbers
    are seconds, milliseconds, microseconds or nanoseconds, as their size tells: seconds below 10**11, then a
    thousandfold each. A number 0, the year 1 (Go's zero time) and whatever else lies before 1970 or after
    int64 is no usable time.

    >>> parse_time("2026-09-05T22:10:30.25Z"), parse_time(1788646230.25)
    (1788646230250000000, 1788646230250000000)
    """
    if type(value) is str:
        start = _start(value[:19])
        if start >= 0 and value[19:20] == ".":
            digits = value[20:-1] if value[-1] == "Z" else value[20:]
            if digits.isdigit() and digits.isascii() and len(digits) <= 9:
                return start + int(digits.ljust(9, "0"))
        return _parse_text(value.strip())
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, int):
        return _from_epoch(value, "")
    if isinstance(value, float) and math.isfinite(value) and value > 0:
        text = repr(value)
        # The repr has an exponent from 10**16 on, where a float is whole, and below 10**-4.
        return _from_epoch(int(value), "") if "e" in text else _parse_epoch(text)
    return None


def format_time(ns: Ns) -> str:
    """Return a time as ISO 8601 in UTC with microseconds, or nanoseconds where there are any.

    >>> format_time(1788646230_250000000), format_time(1788646230_257889610)
    ('2026-09-05T22:10:30.250000Z', '2026-09-05T22:10:30.257889610Z')

    Raises:
        ValueError: it is no usable time.
    """
    seconds, rest = divmod(ns, SECOND)
    return f"{_iso(seconds)}.{rest:09}Z" if rest % 1000 else f"{_iso(seconds)}.{rest // 1000:06}Z"


def iso_capture(ns: Ns) -> str:
    """Return a time as a record's `timestamp`: ISO 8601 in UTC, always with microseconds, the rest cut.

    >>> iso_capture(1788646230_257889610)
    '2026-09-05T22:10:30.257889Z'

    Raises:
        ValueError: it is no usable time.
    """
    seconds, rest = divmod(ns, SECOND)
    return f"{_iso(seconds)}.{rest // 1000:06}Z"


def _usable(ns: int) -> Ns | None:
    return ns if 0 <= ns <= LATEST else None


@lru_cache(4096)  # Many ticks share a second.
def _start(stamp: str) -> Ns:
    """Return the time of a whole second in UTC, -1 where it is something else or no fraction may be added."""
    seconds = _seconds(stamp)
    return seconds * SECOND if seconds is not None and 0 <= seconds < LATEST // SECOND else -1


def _seconds(stamp: str) -> int | None:
    """Return the seconds of `YYYY-MM-DDTHH:MM:SS`, None where it is something else."""
    match = STAMP.fullmatch(stamp)
    if match is None:
        return None
    year, month, day, hour, minute, second = map(int, match.groups())
    # Second 60 is a leap second: Unix time has none and gives it the number of the next.
    if not 1 <= month <= 12 or not 1 <= day <= _days_in(year, month):
        return None
    if hour > 23 or minute > 59 or second > 60:
        return None
    return _days(year, month, day) * DAY_S + hour * 3600 + minute * 60 + second


@lru_cache(4096)
def _iso(seconds: int) -> str:
    if not 0 <= seconds <= LATEST // SECOND:
        raise ValueError(f"not a usable time: {seconds} s")
    days, rest = divmod(seconds, DAY_S)
    year, month, day = _date(days)
    return f"{year:04}-{month:02}-{day:02}T{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"


def _parse_text(text: str) -> Ns | None:
    seconds = _seconds(text[:19])
    return _parse_epoch(text) if seconds is None else _parse_tail(seconds, text[19:])


def _parse_tail(seconds: int, tail: str) -> Ns | None:
    match = TAIL.fullmatch(tail)
    if match is None:
        return None
    fraction, sign, hours, minutes = match.groups()
    offset = 0
    if sign:
        if int(hours) > 23 or int(minutes or 0) > 59:
            return None
        offset = (int(hours) * 60 + int(minutes or 0)) * (-60 if sign == "-" else 60)
    return _usable((seconds - offset) * SECOND + int((fraction or "0")[:9].ljust(9, "0")))


def _parse_epoch(text: str) -> Ns | None:
    match = EPOCH.fullmatch(text)
    return _from_epoch(int(match[1]), match[2] or "") if match else None


def _from_epoch(whole: int, fraction: str) -> Ns | None:
    """Return the time of an epoch number, its unit told by its size."""
    for limit, places in ((10**11, 9), (10**14, 6), (10**17, 3)):
        if whole < limit:
            ns = whole * POWERS[places] + int(fraction[:places].ljust(places, "0"))
            break
    else:
        ns = whole
    return _usable(ns) or None


# Days and dates after Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", days_from_civil and
# civil_from_days: eras of 400 years whose years begin in March, so that the leap day is the last.


def _days(year: int, month: int, day: int) -> int:
    era, year_of_era = divmod(year - (month <= 2), 400)
    day_of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    return era * 146_097 + year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year - 719_468


def _date(days: int) -> tuple[int, int, int]:
    era, day_of_era = divmod(days + 719_468, 146_097)
    year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    shifted = (5 * day_of_year + 2) // 153
    month = shifted + 3 if shifted < 10 else shifted - 9
    return era * 400 + year_of_era + (month <= 2), month, day_of_year - (153 * shifted + 2) // 5 + 1


def _days_in(year: int, month: int) -> int:
    if month == 2:
        return 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    return 30 if month in (4, 6, 9, 11) else 31
