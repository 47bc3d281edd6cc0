"""Prices and quantities as integers, exactly.

A price is `price * 10**decimals`, below `PRICE_LIMIT`. A quantity is whole units and a fraction in 1e-8. What
the exchange sends as text is exact or an error; a JSON number counts as the shortest text that names it,
rounded. Absent (None, empty text) is unknown, never 0; 0 is 0.
"""

from __future__ import annotations

import re
from decimal import Decimal
from functools import lru_cache
from typing import Final

from richter.domain.ticks import PRICE_LIMIT, QUANTITY_LIMIT, UNKNOWN

__all__ = [
    "UNKNOWN_QUANTITY",
    "NotANumberError",
    "Number",
    "NumberError",
    "OutOfRangeError",
    "Quantity",
    "TooManyDecimalsError",
    "scale_price",
    "split_quantity",
]

Number = str | int | float | Decimal | None
"""A price or quantity as received."""

Quantity = tuple[int, int]
"""Whole units and the fraction in 1e-8."""

UNKNOWN_QUANTITY: Final[Quantity] = (UNKNOWN, 0)

QUANTITY_DECIMALS: Final = 8
FRACTION: Final = 10**QUANTITY_DECIMALS

# Longer texts are kept out of the cache: its size is counted in entries, not in bytes.
SHORT: Final = 24
CACHED: Final = 8192

POWERS: Final = tuple(10**n for n in range(40))
NUMBER: Final = re.compile(r"([+-]?)(?:([0-9]+)\.?([0-9]*)|\.([0-9]+))(?:[eE]([+-]?[0-9]{1,6}))?")


class NumberError(ValueError):
    """A price or quantity that cannot be kept as an integer; the text says why."""

    reason = "not a number"

    def __init__(self) -> None:
        super().__init__(self.reason)


class NotANumberError(NumberError):
    """Neither digits nor a decimal: letters, NaN, an infinity, or below zero."""


class TooManyDecimalsError(NumberError):
    """A non-zero digit lies beyond the scale."""

    reason = "too many decimals"


class OutOfRangeError(NumberError):
    """At or above the limit."""

    reason = "out of range"


def scale_price(value: Number, decimals: int) -> int:
    """Return a price times `10**decimals`, or `UNKNOWN` where there is none.

    Text and Decimals must fit exactly; zeros beyond the scale are no digits. A float is rounded to the scale,
    halves up, its repr counting: 0.1 is 0.1.

    >>> scale_price("89665.10", 2), scale_price("1e-7", 8), scale_price("", 8)
    (8966510, 10, -1)

    Raises:
        NotANumberError: it is no number, or negative.
        TooManyDecimalsError: it is finer than the scale.
        OutOfRangeError: it is `PRICE_LIMIT` or more.
    """
    if type(value) is str:
        return _scale_short(value, decimals) if len(value) <= SHORT else _scale_text(value, decimals)
    if value is None:
        return UNKNOWN
    digits, exponent = _digits(_text(value))
    return _within(_shift(digits, exponent + decimals, rounded=isinstance(value, float)), PRICE_LIMIT)


def split_quantity(value: Number) -> Quantity:
    """Return a quantity's whole units and its fraction in 1e-8, halves up; `(UNKNOWN, 0)` where none is.

    >>> split_quantity("7669.05164882"), split_quantity(0.000000005), split_quantity(None)
    ((7669, 5164882), (0, 1), (-1, 0))

    Raises:
        NotANumberError: it is no number, or negative.
        OutOfRangeError: it is `QUANTITY_LIMIT` units or more.
    """
    if type(value) is str:
        return _split_short(value) if len(value) <= SHORT else _split_text(value)
    return UNKNOWN_QUANTITY if value is None else _split_exact(_text(value))


def _scale_text(text: str, decimals: int) -> int:
    whole, _, fraction = text.partition(".")
    spare = decimals - len(fraction)
    digits = whole + fraction
    # Sixteen digits at most: as many as PRICE_LIMIT has.
    if 0 <= spare <= 16 - len(whole) - len(fraction) and digits.isdigit() and digits.isascii():
        scaled = int(digits) * POWERS[spare]
        return scaled if scaled < PRICE_LIMIT else _within(scaled, PRICE_LIMIT)
    if not text or text.isspace():
        return UNKNOWN
    digits, exponent = _digits(text)
    return _within(_shift(digits, exponent + decimals, rounded=False), PRICE_LIMIT)


def _split_text(text: str) -> Quantity:
    whole, _, fraction = text.partition(".")
    size = len(fraction)
    if size <= QUANTITY_DECIMALS and len(whole) <= 13 and whole.isdigit() and text.isascii():
        if not size:
            return int(whole), 0
        if fraction.isdigit():
            return int(whole), int(fraction) * POWERS[QUANTITY_DECIMALS - size]
    if not text or text.isspace():
        return UNKNOWN_QUANTITY
    return _split_exact(text)


def _split_exact(text: str) -> Quantity:
    digits, exponent = _digits(text)
    scaled = _shift(digits, exponent + QUANTITY_DECIMALS, rounded=True)
    return divmod(_within(scaled, QUANTITY_LIMIT * FRACTION), FRACTION)


# Nine in ten of a ticker's prices and seven in ten of its quantities stood in one of the last ticks too.
_scale_short = lru_cache(CACHED)(_scale_text)
_split_short = lru_cache(CACHED)(_split_text)


def _text(value: str | int | float | Decimal) -> str:
    if isinstance(value, str):
        return value
    # JSON's true is a Python int.
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise NotANumberError
    # Python refuses to print an integer of thousands of digits, with an error of its own.
    if isinstance(value, int) and value >= POWERS[-1]:
        raise OutOfRangeError
    if isinstance(value, int) and value < 0:
        raise NotANumberError
    return repr(value) if isinstance(value, float) else str(value)


def _digits(text: str) -> tuple[str, int]:
    """Return the significant digits and the power of ten of the last; no digits for zero."""
    match = NUMBER.fullmatch(text.strip())
    if match is None:
        raise NotANumberError
    sign, whole, fraction, bare, power = match.groups()
    fraction = bare or fraction or ""
    digits = ((whole or "") + fraction).lstrip("0")
    if not digits:
        return "", 0
    if sign == "-":
        raise NotANumberError
    significant = digits.rstrip("0")
    return significant, int(power or 0) - len(fraction) + len(digits) - len(significant)


def _shift(digits: str, places: int, *, rounded: bool) -> int:
    """Return `digits * 10**places`, the places possibly negative."""
    if not digits:
        return 0
    # Both limits have fewer digits than this; beyond it the power would grow without bound.
    if len(digits) + places > 30:
        raise OutOfRangeError
    if places >= 0:
        return int(digits) * POWERS[places]
    if not rounded:
        raise TooManyDecimalsError
    if -places > len(digits):
        return 0
    return int(digits[:places] or "0") + (digits[places] >= "5")


def _within(scaled: int, limit: int) -> int:
    if scaled >= limit:
        raise OutOfRangeError
    return scaled
