import doctest
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from richter.domain import times as module
from richter.domain.times import format_time, iso_capture, parse_time

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LATEST = 2**63 - 1

usable = st.integers(0, LATEST)
moments = st.datetimes(
    min_value=datetime(1970, 1, 2),
    max_value=datetime(2262, 4, 10),
    timezones=st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes))),
)


def ns_of(moment):
    return (moment - EPOCH) // timedelta(microseconds=1) * 1000


def test_the_examples_in_the_docstrings_hold():
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize(
    ("text", "fraction"),
    [
        ("2026-09-05T22:10:30Z", 0),
        ("2026-09-05T22:10:30.2Z", 200_000_000),
        ("2026-09-05T22:10:30.25788961Z", 257_889_610),
        ("2026-09-05T22:10:30.257889611Z", 257_889_611),
        ("2026-09-05T22:10:30.000000001Z", 1),
        ("2026-09-05T22:10:30.2578896119999Z", 257_889_611),
        ("2026-09-05T22:10:30.257889", 257_889_000),
        ("2026-09-05T22:10:30", 0),
        ("2026-09-05 22:10:30.25", 250_000_000),
        ("2026-09-05t22:10:30.25z", 250_000_000),
        ("2026-09-05T22:10:30,25Z", 250_000_000),
        ("2026-09-05T22:10:30.25+00:00", 250_000_000),
        ("2026-09-05T22:10:30.25+00:00Z", 250_000_000),
        ("2026-09-05T22:10:30.25 UTC", 250_000_000),
        ("2026-09-05T17:10:30.25-0500", 250_000_000),
        ("2026-09-05T17:10:30.25-05", 250_000_000),
        ("2026-09-06T03:40:30.25+05:30", 250_000_000),
        ("2026-09-05 22:10:30.25788961 +0000 UTC", 257_889_610),
        ("2026-09-05 22:10:30.25788961 +0000 UTC m=+139651.272674714", 257_889_610),
        ("2026-09-05 17:10:30.25 -0500 EST m=-0.5", 250_000_000),
        (" 2026-09-05T22:10:30.25Z\n", 250_000_000),
    ],
)
def test_every_way_to_write_a_time_means_the_same_nanosecond(text, fraction):
    assert parse_time(text) == ns_of(datetime(2026, 9, 5, 22, 10, 30, tzinfo=UTC)) + fraction


@pytest.mark.parametrize(
    "text",
    [
        "",
        "never",
        "2026-09-05",
        "2026-09-05T22:10",
        "2026-02-29T00:00:00Z",
        "2026-13-01T00:00:00Z",
        "2026-09-31T00:00:00Z",
        "2026-09-05T24:00:00Z",
        "2026-09-05T22:60:00Z",
        "2026-09-05T22:10:30.Z",
        "2026-09-05T22:10:30.25 EST",
        "2026-09-05T22:10:30+25:00",
        "2026-09-05T22:10:30.٢Z",
        "2026-09-05T22:10:30 m",
        "1e9",
        "0x10",
        "-5",
        "1.2.3",
        "nan",
        ".",
    ],
)
def test_a_text_that_is_no_time_is_none(text):
    assert parse_time(text) is None


@pytest.mark.parametrize(
    "value",
    [
        "0001-01-01T00:00:00Z",
        "0001-01-01T00:00:00.000000",
        "0001-01-01 00:00:00 +0000 UTC",
        "0000-00-00T00:00:00Z",
        "1969-12-31T23:59:59.999999999Z",
        "1970-01-01T00:00:00+00:01",
        "2262-04-11T23:47:16.854775808Z",
        "9999-12-31T23:59:59Z",
        0,
        0.0,
        "0",
        "0.000",
        -1,
        -1.5,
        2**63,
        1e300,
        None,
        True,
    ],
)
def test_a_time_outside_1970_to_2262_is_not_usable(value):
    assert parse_time(value) is None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), [], {}, b"1786309548"])
def test_a_value_that_names_no_time_is_none(value):
    assert parse_time(value) is None


def test_the_first_and_the_last_usable_nanosecond_are_read():
    assert parse_time("1970-01-01T00:00:00Z") == 0
    assert parse_time("1969-12-31T19:00:00-05:00") == 0
    assert parse_time("2262-04-11T23:47:16.854775807Z") == LATEST
    assert parse_time(LATEST) == LATEST


def test_an_endless_integer_is_no_time():
    assert parse_time(10**5000) is None


def test_a_leap_second_is_the_next_minute():
    assert parse_time("2016-12-31T23:59:60.5Z") == parse_time("2017-01-01T00:00:00.5Z")


@pytest.mark.parametrize(
    ("number", "ns"),
    [
        (1786309548, 1786309548_000000000),
        (1786309548.62, 1786309548_620000000),
        (1786309548.6428218, 1786309548_642821800),
        ("1618677817.1295161", 1618677817_129516100),
        ("1618677817.1295161239", 1618677817_129516123),
        (1786309548642, 1786309548_642000000),
        (1786309548642.5, 1786309548_642500000),
        (1786309548642821, 1786309548_642821000),
        (1786309548642821.8, 1786309548_642821800),
        (1786309548642821801, 1786309548_642821801),
        ("1786309548642821801", 1786309548_642821801),
        (1786309548642821888.0, 1786309548_642821888),
    ],
)
def test_the_size_of_a_number_tells_its_unit_and_no_digit_is_lost(number, ns):
    assert parse_time(number) == ns


@given(moments)
def test_a_time_is_read_as_datetime_reads_it(moment):
    for text in (
        moment.isoformat(),
        moment.isoformat(" ", "microseconds"),
        moment.strftime("%Y-%m-%dT%H:%M:%S.%f%z"),
    ):
        assert parse_time(text) == ns_of(moment)
    assert parse_time(moment.astimezone(UTC).replace(tzinfo=None).isoformat()) == ns_of(moment)


@given(usable)
def test_a_time_comes_back_from_its_text(ns):
    text = format_time(ns)

    assert parse_time(text) == ns
    assert len(text) == (30 if ns % 1000 else 27)


@given(st.integers(1, LATEST))
def test_nanoseconds_come_back_from_decimal_seconds(ns):
    assert parse_time(f"{ns // 10**9}.{ns % 10**9:09}") == ns


@given(usable)
def test_a_time_is_written_as_datetime_writes_it(ns):
    moment = EPOCH + timedelta(microseconds=ns // 1000)

    assert iso_capture(ns) == moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
    assert format_time(ns // 1000 * 1000) == iso_capture(ns)


@pytest.mark.parametrize("ns", [-1, -(2**63), 2**64])
def test_what_is_no_usable_time_is_not_written(ns):
    with pytest.raises(ValueError, match="not a usable time"):
        format_time(ns)
    with pytest.raises(ValueError, match="not a usable time"):
        iso_capture(ns)


@given(st.text() | st.text("0123456789-:.TZ +", max_size=40) | st.floats() | st.integers())
def test_whatever_is_read_is_a_usable_time_or_none(value):
    ns = parse_time(value)

    assert ns is None or 0 <= ns <= LATEST
