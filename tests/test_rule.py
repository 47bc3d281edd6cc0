import doctest
import math
import struct
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from richter.models import rule
from richter.models.alerts import AlertPolicy
from richter.models.rule import RULE_THRESHOLD_RATIO, rule_ratio, rule_z

CANONICAL_NAN = 0x7FF8000000000000

volatilities = st.floats(min_value=1e-12, max_value=1.0)
anything = st.floats()


def bits(value: float) -> int:
    return int(struct.unpack("<Q", struct.pack("<d", value))[0])


def test_the_examples_in_the_docstrings_hold():
    assert doctest.testmod(rule).failed == 0


@given(volatilities, volatilities)
@example(math.nextafter(2e-5, 0), 2e-5)
@example(2e-5, 2e-5)
@example(math.nextafter(2.0**-15, 0), 2.0**-15)
def test_one_threshold_holds_in_all_units_to_the_last_bit(sigma, tau):
    ratio = rule_ratio(sigma, tau)

    spike = Fraction(sigma) >= Fraction(tau)

    assert (ratio >= RULE_THRESHOLD_RATIO) == spike
    assert (rule_z(ratio) >= 0.0) == spike


@given(volatilities, st.integers(-3, 3))
def test_neighbouring_floats_fall_on_the_right_side_of_the_threshold(tau, steps):
    sigma = tau
    for _ in range(abs(steps)):
        sigma = math.nextafter(sigma, math.inf if steps > 0 else 0.0)

    assert (rule_ratio(sigma, tau) >= RULE_THRESHOLD_RATIO) == (steps >= 0)


def test_a_z_threshold_of_two_is_another_rule():
    # Negative control: a baseline evaluated at one z and served at another.
    ratio = rule_ratio(1.1e-5, 1.0e-5)

    assert rule_z(ratio) >= 0.0
    assert not rule_z(ratio) >= 2.0


def test_alerts_use_the_rules_threshold_by_default():
    assert AlertPolicy().on == RULE_THRESHOLD_RATIO


@given(volatilities, volatilities)
def test_z_counts_standard_errors_above_tau(sigma, tau):
    with localcontext() as context:
        context.prec = 60
        standard_error = Decimal(tau) / Decimal(2 * 59).sqrt()
        expected = (Decimal(sigma) - Decimal(tau)) / standard_error

    z = rule_z(rule_ratio(sigma, tau))

    assert z == pytest.approx(float(expected), rel=1e-14, abs=1e-14)


def test_the_standard_error_is_what_simulation_finds():
    returns = np.random.default_rng(1).standard_normal((20_000, 60))

    z = rule_z(rule_ratio(returns.std(axis=1, ddof=1), 1.0))

    assert z.std() == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize(
    ("sigma", "tau"),
    [
        (math.nan, 1.0),
        (1.0, math.nan),
        (-math.nan, 1.0),
        (1.0, 0.0),
        (0.0, 0.0),
        (1.0, -1.0),
        (-1.0, 1.0),
        (math.inf, 1.0),
        (1.0, math.inf),
        (1.0, 5e-324),
    ],
)
def test_an_unknown_ratio_is_the_canonical_nan(sigma, tau):
    ratio = rule_ratio(sigma, tau)

    assert bits(ratio) == CANONICAL_NAN
    assert bits(rule_z(ratio)) == CANONICAL_NAN


def test_no_ratio_is_minus_zero():
    assert bits(rule_ratio(-0.0, 1.0)) == 0
    assert bits(rule_z(1.0)) == 0


def test_z_is_finite_wherever_the_ratio_is():
    assert math.isfinite(rule_ratio(1e300, 1e-8))
    assert math.isfinite(rule_z(rule_ratio(1e300, 1e-8)))


@given(st.lists(st.tuples(anything, anything), max_size=20))
@example([(1.7e307, 1.0), (-0.0, 1.0), (1.0, 5e-324)])
def test_arrays_give_the_bits_of_scalars(pairs):
    sigma = np.array([pair[0] for pair in pairs], dtype=np.float64)
    tau = np.array([pair[1] for pair in pairs], dtype=np.float64)

    ratios = rule_ratio(sigma, tau)
    z = rule_z(ratios)

    assert ratios.view(np.uint64).tolist() == [bits(rule_ratio(s, t)) for s, t in pairs]
    assert z.view(np.uint64).tolist() == [bits(rule_z(rule_ratio(s, t))) for s, t in pairs]


def test_scalars_give_floats_and_thresholds_broadcast():
    assert type(rule_ratio(1.0, 2.0)) is float
    assert type(rule_z(1.0)) is float
    assert rule_ratio(np.array([1.0, 4.0]), 2.0).tolist() == [0.5, 2.0]
    assert rule_ratio(4.0, np.array([1.0, 2.0])).tolist() == [4.0, 2.0]
