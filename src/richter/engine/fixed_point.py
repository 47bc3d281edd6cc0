"""Fixed-point arithmetic of returns: integers inside, floats only on the way out.

No libm but ``sqrt``, which IEEE 754 rounds correctly: logarithms differ between platforms.

A one-second log return is an integer multiple of 2**-44. Its square is kept in three limbs of 25 bits,
``r**2 = A 2**50 + B 2**25 + C``, so that sums of squares are exact in int64.
"""

from __future__ import annotations

import math
from typing import Final

from richter.compiled import kernel

__all__ = [
    "LIMB",
    "LIMB_ONE",
    "NAN",
    "NS",
    "RETURN_ONE",
    "fixed_return",
    "log_ratio",
    "square_sum",
    "volatility",
]

NS: Final = 1_000_000_000
NAN: Final = math.nan
RETURN_ONE: Final = float(2**44)
LN2: Final = 0.6931471805599453
LIMB: Final = 2**25 - 1
LIMB_ONE: Final = float(2**25)
SQUARE_UNIT: Final = 2.0**-88


@kernel()
def log_ratio(earlier: float, later: float) -> float:
    """ln(later / earlier) by + - * / alone: the same bits everywhere, relative error below 1e-15.

    2 atanh((b - a) / (b + a)) as its odd series, after bringing the ratio into [2/3, 4/3] by powers of two.
    """
    halvings = 0.0
    while later > 1.3333333333333333 * earlier:
        earlier *= 2.0
        halvings += 1.0
    while earlier > 1.5 * later:
        later *= 2.0
        halvings -= 1.0
    x = (later - earlier) / (later + earlier)
    y = x * x
    series = 1.0 / 23.0
    series = series * y + 1.0 / 21.0
    series = series * y + 1.0 / 19.0
    series = series * y + 1.0 / 17.0
    series = series * y + 1.0 / 15.0
    series = series * y + 1.0 / 13.0
    series = series * y + 1.0 / 11.0
    series = series * y + 1.0 / 9.0
    series = series * y + 1.0 / 7.0
    series = series * y + 1.0 / 5.0
    series = series * y + 1.0 / 3.0
    series = series * y + 1.0
    return halvings * LN2 + 2.0 * x * series


@kernel()
def fixed_return(earlier: float, later: float) -> int:
    """The log return in multiples of 2**-44, halves up."""
    return math.floor(log_ratio(earlier, later) * RETURN_ONE + 0.5)


@kernel()
def volatility(total: int, a: int, b: int, c: int, n: int) -> float:
    """Standard deviation (ddof 1) from n, the sum and the limbs of the sum of squares.

    n * sum(r^2) - sum(r)^2 is formed exactly, in limbs, before it becomes a float: no cancellation.
    """
    c0 = c & LIMB
    carry = b + (c >> 25)
    c1 = carry & LIMB
    carry = a + (carry >> 25)
    c2 = carry & LIMB
    c3 = carry >> 25
    s = abs(total)
    s0 = s & LIMB
    s1 = (s >> 25) & LIMB
    s2 = s >> 50
    d0 = n * c0 - s0 * s0
    d1 = n * c1 - 2 * s0 * s1 + (d0 >> 25)
    d2 = n * c2 - 2 * s0 * s2 - s1 * s1 + (d1 >> 25)
    d3 = n * c3 - 2 * s1 * s2 + (d2 >> 25)
    d4 = (d3 >> 25) - s2 * s2
    exact = (
        ((float(d4) * LIMB_ONE + float(d3 & LIMB)) * LIMB_ONE + float(d2 & LIMB)) * LIMB_ONE
        + float(d1 & LIMB)
    ) * LIMB_ONE + float(d0 & LIMB)
    return math.sqrt(exact / float(n * (n - 1)) * SQUARE_UNIT)


@kernel()
def square_sum(a: int, b: int, c: int) -> float:
    """A sum of squared returns from its limbs, as a float."""
    return ((float(a) * LIMB_ONE + float(b)) * LIMB_ONE + float(c)) * SQUARE_UNIT
