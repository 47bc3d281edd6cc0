"""Whatever the bytes: no exception, every frame counted once, no connection state lost."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from richter.protocol import line, order
from richter.protocol.feed import Dead, Record
from tests.protocol.chaos import ODD, chaos
from tests.protocol.frames import ack, advanced, dump, exchange, heartbeat, outcomes, ticker


def test_fifty_thousand_mutated_frames() -> None:
    found = chaos(50_000)

    # The mutations are neither harmless nor hopeless.
    assert found["Record"] > 20_000
    assert found["Dead"] > 20_000
    assert found["Reconnect"] > 10


def test_the_same_seed_gives_the_same_chaos() -> None:
    assert chaos(400, seed=5) == chaos(400, seed=5) != chaos(400, seed=6)


@pytest.mark.parametrize(
    ("module", "name", "broken", "complaint"),
    [
        (line, "_usual", lambda shape: True, "Rejected"),
        (line, "_check", lambda frame: None, "Rejected"),
        (order, "MOST_REFUSED", 10**9, "good frames are not recorded"),
    ],
)
def test_chaos_finds_a_feed_that_checks_too_little(
    monkeypatch: pytest.MonkeyPatch, module: Any, name: str, broken: Any, complaint: str
) -> None:
    monkeypatch.setattr(module, name, broken)

    with pytest.raises(AssertionError, match=complaint):
        chaos(20_000)


JSON: st.SearchStrategy[Any] = st.recursive(
    st.sampled_from([value for value in ODD if not isinstance(value, dict | list)])
    | st.text()
    | st.integers(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["channel", "type", "sequence_num", "events", "tickers", "product_id", "price", "time"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(st.lists(JSON.map(dump) | st.binary(max_size=60) | st.just(b'{"type":"error"}'), max_size=12))
def test_every_frame_comes_to_exactly_one_thing(frames: list[bytes]) -> None:
    for driver in (advanced(), exchange()):
        driver.connect()
        given = Counter[str]()
        for data in [*frames, *frames]:
            actions = driver.give(data)
            given.update(type(action).__name__ for action in actions if isinstance(action, Dead | Record))
        counts = driver.feed.counts
        assert outcomes(counts) == counts.frames == 2 * len(frames)
        assert counts.bytes == 2 * sum(map(len, frames))
        assert given["Record"] == counts.ticks
        assert given["Dead"] >= counts.dead + counts.duplicates + counts.out_of_order


ORDER = st.permutations(range(24)).map(lambda order: [number for number in order if number % 7])


@settings(max_examples=100, deadline=None)
@given(ORDER, st.lists(st.integers(0, 23), max_size=10))
def test_each_outcome_is_the_one_an_oracle_says(numbers: list[int], again: list[int]) -> None:
    driver = advanced()
    driver.connect()
    makes = (ticker, heartbeat, lambda number, at: ack(number, at, "BTC-USD"))
    expected = Counter[str]()
    seen: set[int] = set()
    for number in [*numbers, *again]:
        if not seen or number > max(seen):
            expected[("tickers", "heartbeats", "acks")[number % 3]] += 1
        elif number in seen or number < numbers[0]:
            expected["duplicates"] += 1
        else:
            expected["out_of_order"] += 1
        seen.add(number)
        driver.give(makes[number % 3](number, driver.at))

    counts = driver.feed.counts
    assert {name: getattr(counts, name) for name in expected} == expected
    assert outcomes(counts) == sum(expected.values())
