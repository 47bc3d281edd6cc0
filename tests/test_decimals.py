import doctest
from decimal import ROUND_HALF_UP, Decimal, localcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from richter.domain import decimals as module
from richter.domain.decimals import (
    UNKNOWN_QUANTITY,
    NotANumberError,
    NumberError,
    OutOfRangeError,
    TooManyDecimalsError,
    scale_price,
    split_quantity,
)
from richter.domain.ticks import PRICE_LIMIT, QUANTITY_LIMIT, UNKNOWN

digits = st.text("0123456789", max_size=12)
exponents = st.one_of(st.just(""), st.integers(-30, 30).map(lambda n: f"e{n}"))


@st.composite
def number_texts(draw):
    whole, fraction = draw(digits), draw(digits)
    dot = "." if fraction or draw(st.booleans()) else ""
    return (whole or ("" if fraction else "0")) + dot + fraction + draw(exponents)


def expected_price(text, decimals, *, rounded=False):
    """Scale by the decimal module: the value, or the error."""
    with localcontext() as context:
        context.prec = 200
        scaled = Decimal(text).scaleb(decimals)
        if rounded:
            scaled = scaled.to_integral_value(ROUND_HALF_UP)
        if scaled >= PRICE_LIMIT:
            return {OutOfRangeError, TooManyDecimalsError} if scaled % 1 else {OutOfRangeError}
        return {TooManyDecimalsError} if scaled % 1 else int(scaled)


def outcome(function, *arguments):
    try:
        return function(*arguments)
    except NumberError as error:
        return type(error)


def test_the_examples_in_the_docstrings_hold():
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize(
    ("price", "decimals", "scaled"),
    [
        ("89665", 2, 8_966_500),
        ("89665.10", 2, 8_966_510),
        ("89665.1000000000000", 2, 8_966_510),
        ("0.00001305", 8, 1305),
        ("1e-7", 8, 10),
        ("1E+3", 2, 100_000),
        (".5", 8, 50_000_000),
        ("5.", 8, 500_000_000),
        ("007", 0, 7),
        (" 7 ", 0, 7),
        ("+7", 0, 7),
        ("-0", 8, 0),
        (66863.0, 8, 6_686_300_000_000),
        (66865.48, 8, 6_686_548_000_000),
        (0.1, 8, 10_000_000),
        (1e-07, 8, 10),
        (2278, 8, 227_800_000_000),
        (Decimal("2278.15"), 8, 227_815_000_000),
    ],
)
def test_a_price_is_scaled_exactly(price, decimals, scaled):
    assert scale_price(price, decimals) == scaled


@pytest.mark.parametrize("zero", ["0", "0.00", "0e9", 0, 0.0, -0.0, Decimal(0)])
def test_zero_is_zero_and_not_unknown(zero):
    assert scale_price(zero, 8) == 0
    assert split_quantity(zero) == (0, 0)


@pytest.mark.parametrize("absent", [None, "", "  "])
def test_absent_is_unknown_and_not_zero(absent):
    assert scale_price(absent, 8) == UNKNOWN
    assert split_quantity(absent) == UNKNOWN_QUANTITY


@pytest.mark.parametrize(
    "value",
    [
        "abc",
        "1,5",
        "1.2.3",
        ".",
        "-",
        "e5",
        "1_000",
        "0x10",
        "NaN",
        "Infinity",
        "-1",
        "-1e-9",
        "١٢",
        "1٫5",
        "²",
        "1e9999999",
        -1,
        -1.5,
        float("nan"),
        float("inf"),
        Decimal("NaN"),
        Decimal("-Infinity"),
        True,
        [],
        {},
        b"1",
    ],
)
def test_what_is_no_number_or_negative_is_an_error(value):
    with pytest.raises(NotANumberError, match=r"^not a number$"):
        scale_price(value, 8)
    with pytest.raises(NotANumberError, match=r"^not a number$"):
        split_quantity(value)


def test_a_text_finer_than_the_scale_is_an_error_and_a_float_is_rounded():
    with pytest.raises(TooManyDecimalsError, match=r"^too many decimals$"):
        scale_price("1.005", 2)
    with pytest.raises(TooManyDecimalsError):
        scale_price(Decimal("1.005"), 2)

    assert scale_price(1.005, 2) == 101  # Its repr counts: the double itself is 1.00499…
    assert scale_price(1e-300, 8) == 0


def test_the_price_limit_is_where_it_is_said_to_be():
    assert scale_price(str(PRICE_LIMIT - 1), 0) == PRICE_LIMIT - 1
    assert scale_price("90071992.54740991", 8) == PRICE_LIMIT - 1
    for beyond in ("90071992.54740992", "1e300", "9" * 5000, 10**5000, 1e22, PRICE_LIMIT):
        with pytest.raises(OutOfRangeError, match=r"^out of range$"):
            scale_price(beyond, 8)


def test_the_quantity_limit_is_where_it_is_said_to_be():
    assert split_quantity("9999999999999.99999999") == (QUANTITY_LIMIT - 1, 99_999_999)
    for beyond in ("9999999999999.999999995", str(QUANTITY_LIMIT), "1e300", "9" * 5000, 10**5000, 1e13):
        with pytest.raises(OutOfRangeError):
            split_quantity(beyond)


def test_a_quantity_is_rounded_half_up():
    assert split_quantity("0.000000005") == (0, 1)
    assert split_quantity("0.0000000049999999999999999999") == (0, 0)
    assert split_quantity("1.999999995") == (2, 0)
    assert split_quantity(0.08305734) == (0, 8_305_734)
    assert split_quantity("1000000000000.00000001") == (10**12, 1)


@given(number_texts(), st.integers(0, 12))
def test_a_text_is_scaled_as_the_decimal_module_would(text, decimals):
    expected = expected_price(text, decimals)

    scaled = outcome(scale_price, text, decimals)

    assert scaled in expected if isinstance(expected, set) else scaled == expected


@given(st.floats(min_value=0, max_value=1e15), st.integers(0, 12))
def test_a_float_is_scaled_as_the_decimal_module_would_its_repr(value, decimals):
    expected = expected_price(repr(value), decimals, rounded=True)

    scaled = outcome(scale_price, value, decimals)

    assert scaled in expected if isinstance(expected, set) else scaled == expected


@given(number_texts())
def test_a_quantity_is_split_as_the_decimal_module_would(text):
    with localcontext() as context:
        context.prec = 200
        scaled = int(Decimal(text).scaleb(8).to_integral_value(ROUND_HALF_UP))
    expected = divmod(scaled, 10**8) if scaled < QUANTITY_LIMIT * 10**8 else OutOfRangeError

    assert outcome(split_quantity, text) == expected


@given(st.integers(0, PRICE_LIMIT - 1), st.integers(0, 12))
def test_a_scaled_price_comes_back_from_its_text(scaled, decimals):
    text = f"{Decimal(scaled).scaleb(-decimals):f}"

    assert scale_price(text, decimals) == scaled
    assert scale_price(text + ("000" if "." in text else ".000"), decimals) == scaled


@given(st.text() | st.floats() | st.integers() | st.decimals())
def test_nothing_but_a_number_error_is_raised(value):
    for function, arguments in ((scale_price, (value, 8)), (split_quantity, (value,))):
        try:
            function(*arguments)
        except NumberError as error:
            assert str(error) in {"not a number", "too many decimals", "out of range"}
