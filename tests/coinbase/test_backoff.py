"""The waits between attempts to connect."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from richter.adapters.coinbase.backoff import BASE_S, CAP_S, LEAST_S, TOO_MANY_S, Backoff


@given(st.integers(0, 200), st.integers())
def test_a_wait_lies_between_an_eighth_and_the_doubled_limit(failures: int, seed: int) -> None:
    backoff = Backoff(random.Random(seed).random)

    waits = [backoff.delay() for _ in range(failures + 1)]

    assert waits[0] == LEAST_S
    for number, wait in enumerate(waits[1:]):
        assert LEAST_S <= wait <= max(LEAST_S, min(CAP_S, BASE_S * 2**number))


def test_waits_use_their_whole_range() -> None:
    longest = Backoff(lambda: 0.999999)
    shortest = Backoff(lambda: 0.0)

    assert [round(longest.delay(), 3) for _ in range(10)] == [0.125, 0.25, 0.5, 1, 2, 4, 8, 16, 30, 30]
    assert {shortest.delay() for _ in range(10)} == {LEAST_S}


def test_a_reset_begins_anew() -> None:
    backoff = Backoff(lambda: 0.999999)
    for _ in range(8):
        backoff.delay()

    backoff.reset()

    assert backoff.delay() == LEAST_S


@pytest.mark.parametrize(("asked", "least"), [(None, TOO_MANY_S), (7.0, 7.0), (0.0, LEAST_S), (1e9, 3600.0)])
def test_what_the_server_asks_for_is_kept(asked: float | None, least: float) -> None:
    wait = Backoff(lambda: 0.5).delay(too_many=True, retry_after_s=asked)

    assert least <= wait <= least * 1.1
