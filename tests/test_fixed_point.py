"""Logarithms and volatilities in fixed point."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from richter.engine.fixed_point import LIMB, fixed_return, log_ratio, square_sum, volatility

prices = st.integers(1, 2**53 - 1).map(lambda scaled: scaled / 1e8) | st.floats(1e-8, 1e8)
# Of a second's return: ln(2**53) * 2**44 is below 2**50.
LARGEST = 2**50
returns = st.lists(
    st.integers(-LARGEST, LARGEST) | st.sampled_from([0, 1, -1, LIMB, LIMB + 1, -LIMB, LARGEST, -LARGEST]),
    min_size=2,
    max_size=60,
)


@pytest.fixture(autouse=True, scope="module")
def compiled() -> None:
    """The first call of each takes longer than hypothesis allows an example."""
    square_sum(1, 1, 1)
    volatility(1, *limbs([0, 1]), 2)
    fixed_return(1.0, log_ratio(1.0, 2.0))


def logarithm(ratio: Decimal) -> Decimal:
    with localcontext() as context:
        context.prec = 50
        return ratio.ln()


def quotient(earlier: float, later: float) -> Decimal:
    with localcontext() as context:
        context.prec = 50
        return Decimal(later) / Decimal(earlier)


def limbs(values: list[int]) -> tuple[int, int, int]:
    parts = [(abs(value) >> 25, abs(value) & LIMB) for value in values]
    return (
        sum(hi * hi for hi, _ in parts),
        sum(2 * hi * lo for hi, lo in parts),
        sum(lo * lo for _, lo in parts),
    )


@given(prices, prices)
@example(1e-8, 90_071_992.54740991)
@example(3.0, 4.0)
@example(3.0, math.nextafter(4.0, 5.0))
@example(3.0, 2.0)
@example(math.nextafter(3.0, 4.0), 2.0)
@example(1.0, math.nextafter(1.0, 2.0))
def test_log_ratio_is_the_logarithm(earlier: float, later: float) -> None:
    expected = logarithm(quotient(earlier, later))

    found = log_ratio(earlier, later)

    assert abs(Decimal(found) - expected) <= abs(expected) * Decimal("1e-15")


@given(prices, st.floats(0.6, 1.6))
def test_log_ratio_of_near_prices_is_as_exact(earlier: float, ratio: float) -> None:
    expected = logarithm(quotient(earlier, earlier * ratio))

    found = log_ratio(earlier, earlier * ratio)

    assert abs(Decimal(found) - expected) <= abs(expected) * Decimal("1e-15")


def test_a_term_less_of_the_series_would_be_seen() -> None:
    # Negative control: 1e-15 is strict enough to miss the last term that counts.
    expected = logarithm(quotient(3.0, 4.0))
    x = Fraction(1, 7)
    short = 2 * sum(x**k / k for k in range(1, 17, 2))

    assert abs(short - Fraction(expected)) > Fraction(expected) / 10**15
    assert abs(short + 2 * x**17 / 17 - Fraction(expected)) < Fraction(expected) / 10**15


@given(prices, prices)
def test_there_and_back_is_nothing_within_four_units_of_the_last_place(earlier: float, later: float) -> None:
    there, back = log_ratio(earlier, later), log_ratio(later, earlier)

    assert abs(there + back) <= 4 * math.ulp(there)


@given(prices, prices)
def test_a_fixed_return_is_the_nearest_multiple_and_fits(earlier: float, later: float) -> None:
    r = fixed_return(earlier, later)

    assert abs(r) < LARGEST
    assert abs(r - log_ratio(earlier, later) * 2**44) <= 0.5


@given(prices)
def test_an_unchanged_price_returns_exactly_nothing(price: float) -> None:
    assert log_ratio(price, price) == 0.0


def exact_volatility(values: list[int]) -> float:
    n = len(values)
    square = Fraction(n * sum(value * value for value in values) - sum(values) ** 2, n * (n - 1) * 2**88)
    with localcontext() as context:
        context.prec = 50
        return float((Decimal(square.numerator) / Decimal(square.denominator)).sqrt())


@given(returns)
def test_volatility_is_exact_before_its_root(values: list[int]) -> None:
    found = volatility(sum(values), *limbs(values), len(values))

    assert math.isclose(found, exact_volatility(values), rel_tol=1e-15)


@given(st.integers(-LARGEST, LARGEST), st.integers(-1, 1), st.integers(2, 3600))
@example(LARGEST, 1, 3600)
@example(-LARGEST, -1, 3600)
def test_one_unit_among_equal_returns_is_not_lost(value: int, step: int, n: int) -> None:
    # Sums of squares near 2**112 that differ in their last unit: floats would see nothing or noise.
    values = [value] * (n - 1) + [value + step]

    found = volatility(sum(values), *limbs(values), n)

    assert math.isclose(found, exact_volatility(values), rel_tol=1e-15)
    assert (found == 0.0) == (step == 0)


@given(st.integers(0, LARGEST), st.integers(2, 3600))
@example(LARGEST, 3600)
def test_returns_that_swing_as_far_as_they_can_do_not_overflow(value: int, n: int) -> None:
    values = [value if i % 2 else -value for i in range(n)]

    found = volatility(sum(values), *limbs(values), n)

    assert math.isclose(found, exact_volatility(values), rel_tol=1e-15)


@given(st.integers(-LARGEST, LARGEST), st.integers(2, 3600))
def test_equal_returns_have_no_volatility(value: int, n: int) -> None:
    assert volatility(value * n, *limbs([value] * n), n) == 0.0


@given(returns)
def test_a_sum_of_squares_is_the_sum_of_the_squares(values: list[int]) -> None:
    expected = float(Fraction(sum(value * value for value in values), 2**88))

    assert math.isclose(square_sum(*limbs(values)), expected, rel_tol=1e-15)
