"""Gaps: what breaks continuity stands on the next record of every product it concerns, once."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from richter.domain.ticks import Gap, GapCause
from richter.errors import ContractError
from richter.protocol.feed import Cause, Dead, Reconnect, Record
from richter.protocol.gaps import DUPLICATE, FAR, LATE, Numbers, merge
from tests.protocol.frames import (
    SECOND,
    START,
    advanced,
    beat,
    exchange,
    heartbeat,
    listed,
    live,
    outcomes,
    records,
    ticker,
    trade,
)

PRODUCTS = ("BTC-USD", "ETH-USD")


def gaps(actions: list[Any]) -> dict[str, Any]:
    return {record["product_id"]: record["gap_before"] for record in records(actions)}


def test_the_first_record_starts_where_the_last_run_ended() -> None:
    driver = advanced(*PRODUCTS, last_good={"ETH-USD": 17})
    driver.connect()

    assert gaps(driver.numbered(ticker, *PRODUCTS)) == {
        "BTC-USD": {"cause": "start", "from": None, "missing": None},
        "ETH-USD": {"cause": "start", "from": 17, "missing": None},
    }
    assert gaps(driver.numbered(ticker, *PRODUCTS)) == {"BTC-USD": None, "ETH-USD": None}


def test_a_jump_stands_on_the_next_record_of_every_product() -> None:
    driver = live(*PRODUCTS)
    driver.wait(1)
    good = driver.at
    driver.numbered(heartbeat)
    driver.wait(1)
    driver.sequence += 3

    expected = {"cause": "sequence", "from": good, "missing": 3}
    assert gaps(driver.numbered(ticker, "BTC-USD")) == {"BTC-USD": expected}
    assert gaps(driver.numbered(ticker, *PRODUCTS)) == {"BTC-USD": None, "ETH-USD": expected}
    assert (driver.feed.counts.gaps, driver.feed.counts.missing) == (1, 3)


def test_the_sequence_starts_anywhere_and_counts_frames_of_all_channels() -> None:
    driver = advanced()
    driver.connect()
    driver.sequence = 4711
    actions = driver.numbered(ticker)
    for _ in range(10):
        actions += driver.numbered(heartbeat)
        actions += driver.numbered(ticker)
        actions += driver.give(b'{"type":"error","message":"no number"}')

    assert [record["gap_before"] for record in records(actions)][1:] == [None] * 10
    assert [record["frame_no"] for record in records(actions)] == [4711 + 2 * n for n in range(11)]
    assert driver.feed.counts.gaps == 0


def test_late_and_duplicate_frames_are_counted_and_never_recorded() -> None:
    driver = live()
    first, second, third = (ticker(number, driver.at) for number in (3, 4, 5))

    driver.give(first)
    assert driver.give(first) == [Dead("duplicate", first)]
    assert len(records(driver.give(third))) == 1
    assert driver.give(second) == [Dead("late", second)]
    assert driver.give(second) == [Dead("duplicate", second)]

    counts = driver.feed.counts
    assert (counts.duplicates, counts.out_of_order, counts.gaps, counts.missing) == (2, 1, 1, 1)
    assert outcomes(counts) == counts.frames


def test_a_reconnection_stands_on_the_first_record_of_each_product() -> None:
    driver = live(*PRODUCTS)
    driver.wait(1)
    good = driver.at
    driver.numbered(heartbeat)
    driver.feed.closed("1006", driver.now)
    driver.wait(30)
    driver.connect()  # ends before any frame
    driver.wait(30)
    driver.connect()

    expected = {"cause": "reconnect", "from": good, "missing": None}
    assert gaps(driver.numbered(ticker, "BTC-USD")) == {"BTC-USD": expected}
    driver.sequence += 5  # within the outage of ETH-USD, whose length nobody knows
    assert gaps(driver.numbered(ticker, "ETH-USD")) == {"ETH-USD": expected}


def test_a_product_that_never_came_still_starts_after_a_reconnection() -> None:
    driver = advanced(*PRODUCTS)
    driver.connect()
    driver.numbered(ticker, "BTC-USD")
    driver.connect()

    assert gaps(driver.numbered(ticker, "ETH-USD")) == {
        "ETH-USD": {"cause": "start", "from": None, "missing": None}
    }


def test_dropped_frames_are_an_overflow_and_counted_once() -> None:
    driver = live(*PRODUCTS)
    good = driver.at
    driver.wait(1)
    driver.sequence += 7
    driver.feed.lost(5, driver.now)  # two more were lost on the way

    assert gaps(driver.numbered(ticker, "BTC-USD")) == {
        "BTC-USD": {"cause": "overflow", "from": good, "missing": 7}
    }
    assert (driver.feed.counts.lost, driver.feed.counts.missing) == (5, 2)
    driver.sequence += 2
    assert gaps(driver.numbered(ticker, "ETH-USD"))["ETH-USD"]["missing"] == 9
    driver.sequence += 1
    assert gaps(driver.numbered(ticker, "ETH-USD"))["ETH-USD"]["cause"] == "sequence"


def test_an_unrecorded_line_hands_its_gap_on() -> None:
    driver = live()
    driver.wait(1)
    good = driver.at
    driver.numbered(heartbeat)
    driver.sequence += 3
    driver.wait(1)
    driver.numbered(ticker)
    driver.feed.not_recorded("BTC-USD")
    driver.wait(1)

    assert gaps(driver.numbered(ticker)) == {"BTC-USD": {"cause": "overflow", "from": good, "missing": 4}}
    driver.feed.not_recorded("BTC-USD")
    assert gaps(driver.numbered(ticker)) == {"BTC-USD": {"cause": "overflow", "from": good, "missing": 5}}
    assert gaps(driver.numbered(ticker)) == {"BTC-USD": None}


def test_unrecorded_lines_of_one_frame_are_one_frame() -> None:
    driver = live()
    before = driver.at
    driver.wait(1)
    assert len(records(driver.numbered(ticker, "BTC-USD", "BTC-USD"))) == 2
    for _ in range(2):
        driver.feed.not_recorded("BTC-USD")

    assert gaps(driver.numbered(ticker)) == {"BTC-USD": {"cause": "overflow", "from": before, "missing": 1}}
    with pytest.raises(ContractError, match="not of this feed"):
        driver.feed.not_recorded("XRP-USD")


def test_an_unreadable_frame_is_a_missing_frame() -> None:
    driver = live(*PRODUCTS)
    good = driver.at
    driver.wait(1)
    broken = ticker(driver.sequence, driver.at)[:-1]
    driver.sequence += 1

    assert driver.give(broken) == [Dead("not JSON", broken)]
    assert gaps(driver.numbered(ticker, *PRODUCTS)) == {
        product: {"cause": "sequence", "from": good, "missing": 1} for product in PRODUCTS
    }


def test_a_ticker_that_cannot_be_recorded_is_missing_for_its_product_alone() -> None:
    driver = live(*PRODUCTS)
    good = driver.at
    driver.wait(1)
    actions = driver.numbered(ticker, "BTC-USD", price="1.2.3")
    assert [action.reason for action in actions if isinstance(action, Dead)] == ["price: not a number"]

    assert gaps(driver.numbered(ticker, *PRODUCTS)) == {
        "BTC-USD": {"cause": "sequence", "from": good, "missing": 1},
        "ETH-USD": None,
    }


def test_one_wrong_number_costs_twenty_frames_at_most() -> None:
    driver = live()
    driver.give(ticker(9_000, driver.at))
    actions: list[Any] = []
    for _ in range(20):
        actions += driver.numbered(ticker)

    assert [action.cause for action in actions if isinstance(action, Reconnect)] == [Cause.SEQUENCE]
    assert records(actions) == []
    driver.connect()
    assert len(records(driver.numbered(ticker))) == 1


def test_an_absurd_number_is_not_believed() -> None:
    driver = live()
    absurd = ticker(10**15, driver.at)

    assert driver.give(absurd) == [Dead("its number is too far ahead", absurd)]
    assert gaps(driver.numbered(ticker)) == {"BTC-USD": None}


def test_many_gaps_within_a_minute_end_the_connection() -> None:
    driver = live()
    actions: list[Any] = []
    for _ in range(20):
        driver.sequence += 1
        actions += driver.numbered(ticker)
    assert not any(isinstance(action, Reconnect) for action in actions)

    driver.sequence += 1
    actions = driver.numbered(ticker)
    assert [action.cause for action in actions if isinstance(action, Reconnect)] == [Cause.SEQUENCE]
    assert len(records(actions)) == 1  # recorded all the same


def test_as_many_gaps_in_a_longer_time_do_not() -> None:
    driver = live()
    for _ in range(100):
        driver.wait(3.2)
        driver.sequence += 1
        actions = driver.numbered(heartbeat) + driver.numbered(ticker)
        assert not any(isinstance(action, Reconnect) for action in actions)


def test_a_time_out_of_the_future_does_not_become_known_good() -> None:
    driver = live()
    good = driver.at
    driver.give(heartbeat(driver.sequence, driver.at + 3600 * SECOND))
    driver.sequence += 2

    assert gaps(driver.numbered(ticker))["BTC-USD"] == {"cause": "sequence", "from": good, "missing": 1}


# The Exchange feed.


def test_trade_ids_are_dense_per_product() -> None:
    driver = exchange(*PRODUCTS)
    driver.connect()
    driver.give(listed(*PRODUCTS))
    driver.give(trade("BTC-USD", 100, driver.at))
    driver.give(trade("ETH-USD", 7, driver.at))
    good = driver.at
    driver.wait(1)
    later = driver.at

    assert gaps(driver.give(trade("BTC-USD", 103, later))) == {
        "BTC-USD": {"cause": "sequence", "from": good, "missing": 2}
    }
    assert gaps(driver.give(trade("ETH-USD", 8, later))) == {"ETH-USD": None}
    assert [type(action) for action in driver.give(trade("BTC-USD", 103, later))] == [Dead]
    assert [type(action) for action in driver.give(trade("BTC-USD", 102, later))] == [Dead]
    counts = driver.feed.counts
    assert (counts.gaps, counts.missing, counts.duplicates, counts.out_of_order) == (1, 2, 1, 1)
    assert outcomes(counts) == counts.frames


def test_a_heartbeat_tells_of_lost_trades_in_quiet_time() -> None:
    driver = exchange()
    driver.connect()
    driver.give(listed("BTC-USD"))
    driver.give(trade("BTC-USD", 100, driver.at))
    driver.wait(1)
    driver.give(beat("BTC-USD", 100, driver.at))
    good = driver.at
    driver.wait(1)
    driver.give(beat("BTC-USD", 102, driver.at))
    assert driver.feed.counts.gaps == 0  # they may be on their way
    driver.wait(1)
    driver.give(beat("BTC-USD", 102, driver.at))

    assert (driver.feed.counts.gaps, driver.feed.counts.missing) == (1, 2)
    late = trade("BTC-USD", 102, driver.at)
    assert driver.give(late) == [Dead("late", late)]
    assert gaps(driver.give(trade("BTC-USD", 103, driver.at))) == {
        "BTC-USD": {"cause": "sequence", "from": good, "missing": 2}
    }


def test_a_trade_that_a_heartbeat_overtakes_is_not_lost() -> None:
    driver = exchange()
    driver.connect()
    driver.give(trade("BTC-USD", 100, driver.at))
    driver.give(beat("BTC-USD", 101, driver.at))

    assert gaps(driver.give(trade("BTC-USD", 101, driver.at))) == {"BTC-USD": None}
    driver.give(beat("BTC-USD", 101, driver.at))
    assert driver.feed.counts.gaps == 0


def test_the_last_trade_comes_again_as_the_next_connections_snapshot() -> None:
    driver = exchange()
    driver.connect()
    good = driver.at
    driver.give(trade("BTC-USD", 100, good))
    driver.give(trade("BTC-USD", 101, good))
    driver.wait(9)
    driver.connect()
    found = records(driver.give(trade("BTC-USD", 101, good)))

    assert [(record["event_type"], record["gap_before"]) for record in found] == [
        ("snapshot", {"cause": "reconnect", "from": good, "missing": None})
    ]


# Against models that know nothing of the code.

RANKS = ["sequence", "overflow", "reconnect", "start"]


def merged(pending: list[tuple[str, int | None, int | None]]) -> dict[str, Any] | None:
    """The specification: causes merge, the earliest time counts, missing frames add up where they are known."""
    if not pending:
        return None
    since = [time for _, time, _ in pending]
    missing = [number for _, _, number in pending]
    return {
        "cause": max((cause for cause, _, _ in pending), key=RANKS.index),
        "from": None if None in since else min(since),
        "missing": None if None in missing else sum(missing),
    }


STEP = st.one_of(
    st.tuples(st.just("tick"), st.sets(st.sampled_from(PRODUCTS), min_size=1)),
    st.just(("beat", None)),
    st.tuples(st.just("drop"), st.integers(1, 5)),
    st.tuples(st.just("overflow"), st.integers(1, 5)),
    st.just(("reconnect", None)),
    st.tuples(st.just("unrecorded"), st.sampled_from(PRODUCTS)),
    st.just(("again", None)),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(STEP, max_size=40))
def test_gaps_are_what_a_model_says(steps: list[tuple[str, Any]]) -> None:
    driver = advanced(*PRODUCTS)
    driver.connect()
    pending: dict[str, list[tuple[str, int | None, int | None]]] = {
        product: [("start", None, None)] for product in PRODUCTS
    }
    started: set[str] = set()
    good: int | None = None
    fresh = True  # nothing was received on this connection yet: its first number may be any
    last: dict[str, tuple[list[Any], int | None]] = {}
    sent = ticker(10**6, START)
    for what, value in steps:
        driver.wait(4)
        if what in ("drop", "overflow"):
            driver.sequence += value
            since = good
            if what == "overflow":
                driver.feed.lost(value, driver.now)
            if what == "overflow" or not fresh:
                for product in PRODUCTS:
                    pending[product].append(("sequence" if what == "drop" else "overflow", since, value))
            # The gap is seen with the next frame.
            what, value = "beat", None
        if what == "reconnect":
            driver.connect()
            fresh = True
            for product in started:
                pending[product].append(("reconnect", good, None))
            last.clear()
        elif what == "unrecorded":
            if value in last:
                carried, before = last.pop(value)
                pending[value] = [*carried, ("overflow", before, 1), *pending[value]]
                driver.feed.not_recorded(value)
        elif what == "again":
            if not fresh:
                driver.give(sent)
        else:
            sent = (
                heartbeat(driver.sequence, driver.at)
                if what == "beat"
                else ticker(driver.sequence, driver.at, *sorted(value))
            )
            at = driver.at
            found = gaps(driver.give(sent))
            assert set(found) == (set() if what == "beat" else value)
            for product, gap in found.items():
                assert gap == merged(pending[product])
                last[product] = (pending[product], good)
                pending[product] = []
                started.add(product)
            for product in set(last) - set(found):
                del last[product]  # only a record of the newest frame can be called unrecorded
            driver.sequence += 1
            good = at
            fresh = False
    assert outcomes(driver.feed.counts) == driver.feed.counts.frames


@given(st.lists(st.integers(0, 40), max_size=60))
def test_numbers_are_what_a_set_says(numbers: list[int]) -> None:
    order = Numbers()
    seen: set[int] = set()
    first = highest = None
    for number in numbers:
        if highest is None:
            first, expected = number, 0
        elif number > highest:
            expected = number - highest - 1
        else:
            expected = LATE if number not in seen and number > first else DUPLICATE
        highest = number if highest is None else max(highest, number)
        assert order.check(number) == expected
        seen.add(number)


def test_numbers_too_far_ahead_are_refused() -> None:
    order = Numbers()

    assert [order.check(number) for number in (5, 1_000_007, 6, 1_000_007)] == [0, FAR, 0, 1_000_000]


GAP = st.builds(
    Gap,
    st.sampled_from([GapCause.START, GapCause.RECONNECT, GapCause.SEQUENCE, GapCause.OVERFLOW]),
    st.integers(0, 100),
    st.none() | st.integers(0, 9),
)


@given(GAP, GAP, GAP)
def test_merging_does_not_depend_on_the_order(first: Gap, second: Gap, third: Gap) -> None:
    assert merge(merge(first, second), third) == merge(first, merge(second, third))
    assert merge(first, second) == merge(second, first)
    assert merge(first, None) == merge(None, first) == first


def test_every_record_belongs_to_its_frame() -> None:
    driver = live(*PRODUCTS)
    actions = driver.numbered(ticker, *PRODUCTS)

    assert [action.product_id for action in actions if isinstance(action, Record)] == list(PRODUCTS)
    assert all(json.loads(action.line)["raw"]["sequence_num"] == driver.sequence - 1 for action in actions)
