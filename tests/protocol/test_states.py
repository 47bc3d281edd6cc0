"""States and deadlines are what the table says."""

from __future__ import annotations

import itertools

import pytest

from richter.protocol.feed import Cause, Deadlines, FeedState, Moved, Reconnect, Send
from richter.protocol.states import RESUBSCRIBE, TABLE, After, Clock, Event
from tests.protocol.frames import SECOND, Driver, ack, advanced, exchange, heartbeat, live, ticker

CONNECTING, SUBSCRIBING, WAITING, LIVE, QUIET, CLOSED = FeedState


def causes(actions: list[object]) -> list[Cause]:
    return [action.cause for action in actions if isinstance(action, Reconnect)]


def states(actions: list[object]) -> list[FeedState]:
    return [action.state for action in actions if isinstance(action, Moved)]


def test_the_table_says_what_the_specification_says() -> None:
    deadlines = {
        (state, row.when.since, row.when.limit): row.then
        for row in TABLE
        if isinstance(row.when, After)
        for state in row.states
    }
    moves = {
        (state, row.when): row.then for row in TABLE if isinstance(row.when, Event) for state in row.states
    }

    assert deadlines == {
        (CONNECTING, Clock.CONNECT, "connect_s"): Cause.CONNECT_TIMEOUT,
        (SUBSCRIBING, Clock.OPENED, "ack_s"): Cause.SUBSCRIBE_TIMEOUT,
        (WAITING, Clock.OPENED, "first_data_s"): Cause.NO_DATA,
        **{(state, Clock.BYTES, "silence_s"): Cause.NO_BYTES for state in (WAITING, LIVE, QUIET)},
        **{(state, Clock.HEARTBEAT, "silence_s"): Cause.NO_HEARTBEAT for state in (WAITING, LIVE, QUIET)},
        (LIVE, Clock.DATA, "quiet"): QUIET,
        (QUIET, Clock.DATA, "mute"): RESUBSCRIBE,
        (QUIET, Clock.RESUBSCRIBED, "first_data_s"): Cause.MUTE,
    }
    assert moves == {
        (CLOSED, Event.CONNECT): CONNECTING,
        (CONNECTING, Event.OPENED): SUBSCRIBING,
        (SUBSCRIBING, Event.ACKED): WAITING,
        (WAITING, Event.DATA): LIVE,
        (QUIET, Event.DATA): LIVE,
        **{(state, Event.CLOSED): CLOSED for state in FeedState if state != CLOSED},
    }
    assert Deadlines() == Deadlines(10, 1, 5, 10, 5, 15, 20)


def test_no_state_is_a_dead_end_and_every_state_but_closed_has_a_deadline() -> None:
    for state in FeedState:
        rows = [row for row in TABLE if state in row.states]
        assert rows
        assert state == CLOSED or any(isinstance(row.when, After) for row in rows)
        assert state == CLOSED or any(row.then == CLOSED for row in rows)


def connecting() -> Driver:
    driver = advanced()
    driver.feed.connect("c", 0)
    return driver


def subscribing() -> Driver:
    driver = advanced()
    driver.connect()
    return driver


def waiting() -> Driver:
    driver = subscribing()
    driver.numbered(ack, "BTC-USD")
    return driver


def beating(driver: Driver, seconds: int) -> list[object]:
    """Only heartbeats come, one a second."""
    actions: list[object] = []
    for _ in range(seconds):
        actions += driver.wait(1)
        actions += driver.numbered(heartbeat)
    return actions


@pytest.mark.parametrize(
    ("make", "seconds", "cause"),
    [
        (connecting, 10, Cause.CONNECT_TIMEOUT),
        (subscribing, 5, Cause.SUBSCRIBE_TIMEOUT),
        (waiting, 5, Cause.NO_BYTES),
        (live, 5, Cause.NO_BYTES),
    ],
)
def test_silence_ends_each_state_at_its_deadline(make: object, seconds: int, cause: Cause) -> None:
    driver = make()  # type: ignore[operator]

    assert driver.feed.deadline() == seconds * SECOND
    assert causes(driver.wait(seconds - 0.001)) == []
    assert causes(driver.wait(0.001)) == [cause]
    assert driver.feed.deadline() is None  # said once
    assert driver.feed.wake(driver.now + 100 * SECOND) == []


def test_heartbeats_without_a_first_tick_end_the_connection_after_ten_seconds() -> None:
    driver = waiting()

    assert causes(beating(driver, 9)) == []
    assert causes(beating(driver, 1)) == [Cause.NO_DATA]


def test_ticks_do_not_replace_heartbeats() -> None:
    driver = live()
    actions: list[object] = []
    for _ in range(49):
        actions += driver.wait(0.1)
        actions += driver.numbered(ticker)

    assert causes(actions) == []
    assert causes(driver.wait(0.1)) == [Cause.NO_HEARTBEAT]


def test_ticks_before_the_acknowledgement_do_not_replace_it() -> None:
    driver = subscribing()
    for _ in range(4):
        driver.wait(1)
        driver.numbered(ticker)

    assert driver.feed.state == SUBSCRIBING
    assert causes(driver.wait(1)) == [Cause.SUBSCRIBE_TIMEOUT]


def test_the_snapshot_before_the_acknowledgement_counts_as_the_first_data() -> None:
    driver = subscribing()
    driver.numbered(ticker, kind="snapshot")
    driver.numbered(ack, "BTC-USD", heartbeats=False)
    actions = driver.numbered(ack, "BTC-USD")

    assert states(actions) == [WAITING, LIVE]


def test_a_mute_connection_is_subscribed_anew_once_then_given_up() -> None:
    driver = live()
    driver.numbered(heartbeat)
    actions = beating(driver, 14)
    assert states(actions) == [QUIET]
    assert not any(isinstance(action, Send) for action in actions)

    sent = [action.data for action in beating(driver, 1) if isinstance(action, Send)]
    assert sent == [
        '{"type":"unsubscribe","product_ids":["BTC-USD"],"channel":"ticker"}',
        '{"type":"subscribe","product_ids":["BTC-USD"],"channel":"ticker"}',
    ]

    assert causes(beating(driver, 9)) == []
    assert causes(beating(driver, 1)) == [Cause.MUTE]


def test_a_renewed_subscription_that_brings_ticks_goes_on() -> None:
    driver = live()
    driver.numbered(heartbeat)
    beating(driver, 15)
    assert driver.feed.counts.resubscribed == 1

    driver.numbered(ack, heartbeats=True)  # of the unsubscription
    actions = driver.numbered(ticker, kind="snapshot")

    assert states(actions) == [LIVE]
    assert causes(beating(driver, 60)) == []
    assert not [warning for warning in actions if type(warning).__name__ == "Warn"]


def test_a_slow_market_is_given_twenty_median_spacings() -> None:
    driver = live()
    actions: list[object] = []
    for _ in range(10):
        actions += beating(driver, 4)
        actions += driver.numbered(ticker)
    actions += beating(driver, 79)
    assert not any(isinstance(action, Send) for action in actions)
    assert driver.feed.state == QUIET

    assert any(isinstance(action, Send) for action in beating(driver, 1))


def test_a_single_quiet_product_is_quiet_not_dead_while_others_deliver() -> None:
    driver = live("BTC-USD", "ETH-USD")
    actions: list[object] = []
    for _ in range(600):
        actions += driver.wait(1)
        actions += driver.numbered(heartbeat)
        actions += driver.numbered(ticker, "BTC-USD")

    assert driver.feed.state == LIVE
    assert not [action for action in actions if isinstance(action, Reconnect | Send)]


def test_deadlines_are_the_owners_to_set() -> None:
    deadlines = Deadlines(connect_s=1, ack_s=2, first_data_s=3, silence_s=30)
    driver = advanced(deadlines=deadlines)
    driver.feed.connect("c", 0)

    assert causes(driver.wait(1)) == [Cause.CONNECT_TIMEOUT]
    driver.feed.closed("", driver.now)
    driver.connect()
    assert causes(driver.wait(2)) == [Cause.SUBSCRIBE_TIMEOUT]
    driver.connect()
    driver.numbered(ack, "BTC-USD")
    assert causes(driver.wait(3)) == [Cause.NO_DATA]


def test_any_order_of_calls_leaves_the_feed_usable() -> None:
    """Whatever happened before, connect, opened, acknowledged and a tick is a live connection."""
    steps = {
        "connect": lambda driver: driver.feed.connect("x", driver.now),
        "open": lambda driver: driver.feed.opened(driver.now) if driver.feed.state == CONNECTING else None,
        "ack": lambda driver: driver.numbered(ack, "BTC-USD") if driver.feed.conn_id else None,
        "tick": lambda driver: driver.numbered(ticker) if driver.feed.conn_id else None,
        "wait": lambda driver: driver.wait(7),
        "close": lambda driver: driver.feed.closed("1006", driver.now),
    }
    for order in itertools.product(steps, repeat=4):
        driver = advanced()
        for name in order:
            steps[name](driver)
        driver.connect()
        driver.numbered(ack, "BTC-USD")
        driver.numbered(ticker)
        assert driver.feed.state == LIVE, order


def test_the_exchange_feed_lives_by_its_heartbeats_too() -> None:
    from tests.protocol.frames import beat, listed, trade

    driver = exchange()
    driver.connect()
    driver.give(listed("BTC-USD"))
    driver.give(trade("BTC-USD", 7, driver.at))
    assert driver.feed.state == LIVE

    for _ in range(4):
        driver.wait(1)
        driver.give(beat("BTC-USD", 7, driver.at))
    assert causes(driver.wait(4.999)) == []
    assert causes(driver.wait(0.001)) == [Cause.NO_BYTES]
