"""Logarithms and volatilities in fixed point."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from richter.engine.fixed_point import LIMB, log_ratio, square_sum, volatility

prices = st.floats(1e-8, 1e8, allow_nan=False)
returns = st.lists(st.integers(-(2**49), 2**49), min_size=2, max_size=60)


def limbs(values: list[int]) -> tuple[int, int, int]:
    parts = [(abs(value) >> 25, abs(value) & LIMB) for value in values]
    return (
        sum(hi * hi for hi, _ in parts),
        sum(2 * hi * lo for hi, lo in parts),
        sum(lo * lo for _, lo in parts),
    )


@given(prices, prices)
def test_log_ratio_is_the_logarithm(earlier: float, later: float) -> None:
    with localcontext() as context:
        context.prec = 50
        expected = float((Decimal(later) / Decimal(earlier)).ln())

    found = log_ratio(earlier, later)

    assert math.isclose(found, expected, rel_tol=2e-15, abs_tol=1e-17)


@given(prices)
def test_an_unchanged_price_returns_exactly_nothing(price: float) -> None:
    assert log_ratio(price, price) == 0.0


@given(returns)
def test_volatility_is_exact_before_its_root(values: list[int]) -> None:
    n = len(values)
    mean = Fraction(sum(values), n)
    expected = math.sqrt(sum((value - mean) ** 2 for value in values) / (n - 1) / 2**88)

    found = volatility(sum(values), *limbs(values), n)

    assert math.isclose(found, expected, rel_tol=1e-14)


@given(st.integers(-(2**49), 2**49), st.integers(2, 3600))
def test_equal_returns_have_no_volatility(value: int, n: int) -> None:
    assert volatility(value * n, *limbs([value] * n), n) == 0.0


@given(returns)
def test_a_sum_of_squares_is_the_sum_of_the_squares(values: list[int]) -> None:
    expected = float(Fraction(sum(value * value for value in values), 2**88))

    assert math.isclose(square_sum(*limbs(values)), expected, rel_tol=1e-14)
