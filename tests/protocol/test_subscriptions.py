"""What is asked for, what the exchange says to it, and what the operator hears of it."""

from __future__ import annotations

from typing import Any

import pytest

from richter.errors import ContractError
from richter.protocol.advanced import AdvancedTrade
from richter.protocol.feed import Cause, Dead, Feed, FeedState, Reconnect, Send, Warn
from tests.protocol.frames import (
    ack,
    advanced,
    dump,
    exchange,
    frame,
    heartbeat,
    listed,
    live,
    outcomes,
    records,
    ticker,
    trade,
)


def warnings(actions: list[Any]) -> list[tuple[str, str]]:
    return [(action.kind, action.text) for action in actions if isinstance(action, Warn)]


def sent(actions: list[Any]) -> list[str]:
    return [action.data for action in actions if isinstance(action, Send)]


def test_advanced_trade_is_asked_for_one_channel_at_a_time() -> None:
    assert sent(advanced("BTC-USD", "ETH-USD").connect()) == [
        '{"type":"subscribe","product_ids":["BTC-USD","ETH-USD"],"channel":"ticker"}',
        '{"type":"subscribe","channel":"heartbeats"}',
    ]


def test_the_exchange_feed_is_asked_for_all_at_once() -> None:
    assert sent(exchange("BTC-USD").connect()) == [
        '{"type":"subscribe","product_ids":["BTC-USD"],"channels":["ticker","heartbeat"]}'
    ]


def test_a_product_that_the_acknowledgement_lacks_is_told_once_and_the_rest_goes_on() -> None:
    driver = advanced("BTC-USD", "NOT-USD")
    driver.connect()
    actions = driver.numbered(ticker, "BTC-USD", kind="snapshot")
    actions += driver.numbered(ack, "BTC-USD", heartbeats=False)
    actions += driver.numbered(ack, "BTC-USD")
    driver.connect()
    actions += driver.numbered(ack, "BTC-USD", heartbeats=False)
    actions += driver.numbered(ack, "BTC-USD")
    actions += driver.numbered(ticker, "BTC-USD")

    assert warnings(actions) == [("missing", "the exchange sends no NOT-USD: its acknowledgement lacks it")]
    assert driver.feed.state == FeedState.LIVE
    driver.connect()
    assert warnings(driver.numbered(ack, "BTC-USD", "NOT-USD")) == [
        ("back", "the exchange sends NOT-USD again")
    ]


def test_an_acknowledgement_without_any_ticker_names_every_product() -> None:
    driver = advanced("BTC-USD", "ETH-USD")
    driver.connect()
    assert warnings(driver.numbered(ack)) == []  # the tickers may be answered next
    driver = advanced("BTC-USD", "ETH-USD")
    driver.connect()
    driver.give(frame("subscriptions", 0, driver.at, [{"subscriptions": {}}]))
    driver.sequence = 1

    assert [kind for kind, _ in warnings(driver.numbered(ack))] == ["missing", "missing"]


def test_both_subscriptions_must_be_acknowledged() -> None:
    driver = advanced()
    driver.connect()
    driver.numbered(ack, "BTC-USD", heartbeats=False)
    assert driver.feed.state == FeedState.SUBSCRIBING
    driver.numbered(ack, "BTC-USD")
    assert driver.feed.state == FeedState.WAITING


def test_a_product_in_usdc_comes_as_its_dollar_twin() -> None:
    driver = advanced("BTC-USDC", "ETH-USD", last_good={"BTC-USDC": 5})
    driver.connect()
    actions = driver.numbered(ticker, "BTC-USD")
    (record,) = records(actions)
    actions += driver.numbered(ack, "BTC-USD", "ETH-USD")
    actions += driver.numbered(ticker, "BTC-USD")

    assert (record["product_id"], record["gap_before"]["from"]) == ("BTC-USD", 5)
    assert warnings(actions) == [("twin", "BTC-USDC comes as BTC-USD and is recorded as that")]


def test_a_product_wanted_twice_is_asked_for_once() -> None:
    actions = advanced("BTC-USDC", "BTC-USD", "BTC-USD").connect()

    assert '"product_ids":["BTC-USD"]' in sent(actions)[0]
    assert warnings(actions) == [("twin", "BTC-USDC comes as BTC-USD, which is wanted too")]


def test_a_refused_product_does_not_take_the_others_with_it() -> None:
    driver = exchange("BTC-USD", "BTC-USDX")
    driver.connect()
    message = {"type": "error", "message": "Failed to subscribe", "reason": "BTC-USDX is not a valid product"}
    actions = driver.give(dump(message))

    assert sent(actions) == [
        '{"type":"subscribe","product_ids":["BTC-USD"],"channels":["ticker","heartbeat"]}'
    ]
    assert [kind for kind, _ in warnings(actions)] == ["refused"]
    assert warnings(driver.give(listed("BTC-USD"))) == []
    driver.give(trade("BTC-USD", 1, driver.at))
    assert driver.feed.state == FeedState.LIVE


def test_three_errors_before_any_data_end_the_connection() -> None:
    driver = advanced()
    error = b'{"type":"error","message":"authentication failure"}'
    actions: list[Any] = []
    for _ in range(3):
        assert not any(isinstance(action, Reconnect) for action in actions)
        driver.connect()
        actions += driver.give(error)

    assert [action.cause for action in actions if isinstance(action, Reconnect)] == [Cause.ERRORS]
    assert warnings(actions) == [("error", "the exchange says: authentication failure")] * 3
    assert driver.feed.counts.errors == driver.feed.counts.frames == 3


def test_errors_on_a_live_connection_are_told_and_counted() -> None:
    driver = live()
    actions = [
        action
        for _ in range(10)
        for action in driver.give(b'{"type":"error","message":"rate limit exceeded"}')
    ]

    assert warnings(actions) == [("error", "the exchange says: rate limit exceeded")] * 10
    assert not any(isinstance(action, Reconnect) for action in actions)
    assert records(driver.numbered(ticker))[0]["gap_before"] is None


def test_other_channels_are_counted_by_name() -> None:
    driver = live()
    driver.give(frame("l2_data", 3, driver.at, [{"type": "update", "updates": [{"side": "offer"}]}]))
    driver.give(frame("novelties", 4, driver.at, ["what", {"type": 5}]))
    for number in range(100):
        driver.give(frame(f"channel {number}", 5 + number, driver.at, []))

    assert driver.feed.counts.other == 102
    assert driver.feed.counts.channels["novelties"] == 1
    assert len(driver.feed.counts.channels) == 33
    assert driver.feed.counts.gaps == 0


def test_an_unreadable_acknowledgement_is_a_dead_letter() -> None:
    driver = live()
    actions = driver.give(frame("subscriptions", 3, driver.at, [{"subscriptions": ["ticker"]}]))

    assert [action.reason for action in actions if isinstance(action, Dead)] == [
        "an acknowledgement that lists no subscriptions"
    ]


@pytest.mark.parametrize("counter", ["3049", 3049, None])
def test_heartbeats_of_any_make_count(counter: object) -> None:
    driver = live()
    driver.give(frame("heartbeats", 3, driver.at, [{"current_time": "?", "heartbeat_counter": counter}]))
    driver.give(dump({"channel": "heartbeats", "client_id": "", "sequence_num": 4}))

    assert (driver.feed.counts.heartbeats, driver.feed.counts.gaps) == (2, 0)


def test_frames_still_queued_when_the_connection_closed_are_recorded() -> None:
    driver = live()
    driver.feed.closed("1006", driver.now)

    assert len(records(driver.numbered(ticker))) == 1
    assert driver.feed.state == FeedState.CLOSED
    assert driver.feed.deadline() is None
    assert driver.feed.closed("again", driver.now) == []


def test_a_breach_of_the_contract_is_an_error() -> None:
    feed = Feed(AdvancedTrade(), ["BTC-USD"])
    with pytest.raises(ContractError, match="without a connection"):
        feed.receive(b"{}", 0, 0)
    with pytest.raises(ContractError, match="not being opened"):
        feed.opened(0)
    with pytest.raises(ContractError, match="without a name"):
        feed.connect("", 0)
    with pytest.raises(ContractError, match="without products"):
        Feed(AdvancedTrade(), [])
    with pytest.raises(ContractError, match="no product"):
        Feed(AdvancedTrade(), ['BTC"USD'])


def test_counts_add_up() -> None:
    driver = live()
    driver.numbered(heartbeat)
    driver.numbered(ticker, "BTC-USD", "ETH-USD")
    driver.numbered(ticker, "ETH-USD")
    counts = driver.feed.counts

    assert (counts.tickers, counts.ticks, counts.snapshots) == (2, 2, 1)
    assert (counts.dead, counts.dead_tickers, counts.acks, counts.heartbeats) == (1, 1, 2, 1)
    assert outcomes(counts) == counts.frames == 6
