"""The protocols of the simulated exchange, over real sockets."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK, InvalidStatus

from richter.domain.times import SECOND, parse_time
from richter.errors import ArgumentsError, OperatorError
from richter.simulate.outbox import Outbox
from richter.simulate.server import HEADER, Limits, SimulatedExchange
from richter.simulate.sources import MarketSource
from richter.simulate.wire import Draft, Kind
from tests.simulate.exchanges import (
    NOON,
    ManualClock,
    acked,
    beats,
    connected,
    eventually,
    numbers,
    run,
    say,
    subscribe,
    take,
    take_all,
    take_until,
    tickers,
)

# Keys in the order of frames captured in production.
ADVANCED_KEYS = [
    "type",
    "product_id",
    "price",
    "volume_24_h",
    "low_24_h",
    "high_24_h",
    "low_52_w",
    "high_52_w",
    "price_percent_chg_24_h",
    "best_bid",
    "best_ask",
    "best_bid_quantity",
    "best_ask_quantity",
]
EXCHANGE_KEYS = [
    "type",
    "sequence",
    "product_id",
    "price",
    "open_24h",
    "volume_24h",
    "low_24h",
    "high_24h",
    "volume_30d",
    "best_bid",
    "best_bid_size",
    "best_ask",
    "best_ask_size",
    "side",
    "time",
    "trade_id",
    "last_size",
]


def market(*products: str, seed: int = 7, **options: Any) -> MarketSource:
    return MarketSource(products or ("BTC-USD", "ETH-USD"), seed=seed, **options)


async def first_frames(
    source: MarketSource, seconds: float = 20, start: int = NOON, path: str = "/"
) -> list[dict[str, Any]]:
    """What a client gets in the first seconds of a market."""
    clock = ManualClock(start)
    async with SimulatedExchange(source, clock=clock) as exchange, connected(exchange.url + path) as socket:
        if path == "/":
            await subscribe(socket, *source.products, heartbeats=True)
        else:
            await say(socket, type="subscribe", product_ids=source.products, channels=["ticker", "heartbeat"])
        await eventually(lambda: exchange.served.messages == (2 if path == "/" else 1))
        await clock.advance(seconds)
        reading = asyncio.create_task(take_all(socket))
        await exchange.close()
        return await reading


def test_snapshots_come_before_the_acknowledgement_and_each_lists_the_whole_set() -> None:
    async def test() -> None:
        async with (
            SimulatedExchange(market(), clock=ManualClock()) as exchange,
            connected(exchange.url) as socket,
        ):
            await subscribe(socket, "BTC-USD", "ETH-USD", heartbeats=True)

            frames = await take(socket, 4)

        assert numbers(frames) == [0, 1, 2, 3]
        snapshots = tickers(frames)
        assert [(each["kind"], each["product_id"]) for each in snapshots] == [
            ("snapshot", "BTC-USD"),
            ("snapshot", "ETH-USD"),
        ]
        assert acked(frames[2]) == {"ticker": ["BTC-USD", "ETH-USD"]}
        assert acked(frames[3]) == {"heartbeats": ["heartbeats"], "ticker": ["BTC-USD", "ETH-USD"]}

    run(test)


def test_one_number_counts_the_frames_of_all_channels() -> None:
    async def test() -> None:
        frames = await first_frames(market())

        assert {frame["channel"] for frame in frames} == {"ticker", "subscriptions", "heartbeats"}
        assert numbers(frames) == list(range(len(frames)))
        assert {each["kind"] for each in tickers(frames)[2:]} == {"update"}

    run(test)


def test_frames_have_the_shape_of_captured_ones() -> None:
    async def test() -> None:
        frames = await first_frames(market("BTC-USD"), 3)

        ticker = next(frame for frame in frames if frame["channel"] == "ticker")
        assert list(ticker) == ["channel", "timestamp", "sequence_num", "events"]
        assert list(ticker["events"][0]) == ["type", "tickers"]
        assert list(ticker["events"][0]["tickers"][0]) == ADVANCED_KEYS
        assert all(isinstance(value, str) for value in ticker["events"][0]["tickers"][0].values())
        beat = beats(frames)[0]
        assert list(beat["events"][0]) == ["current_time", "heartbeat_counter"]
        assert parse_time(beat["events"][0]["current_time"]) == parse_time(beat["timestamp"])
        assert isinstance(beat["events"][0]["heartbeat_counter"], int)

    run(test)


def test_a_heartbeat_comes_each_second() -> None:
    async def test() -> None:
        frames = await first_frames(market("BTC-USD"), 20)

        times = [parse_time(frame["timestamp"]) for frame in beats(frames)]
        counters = [frame["events"][0]["heartbeat_counter"] for frame in beats(frames)]
        assert times == [NOON + second * SECOND for second in range(1, 21)]
        assert [b - a for a, b in pairwise(counters)] == [1] * 19

    run(test)


def test_ticks_go_out_at_their_own_times_and_are_conflated() -> None:
    async def test() -> None:
        frames = await first_frames(market("BTC-USD"), 20)

        snapshot, *updates = tickers(frames)
        slots = [each["ts"] // 250_000_000 for each in updates]
        assert snapshot["ts"] == NOON
        assert len(slots) > 20
        assert all(a < b for a, b in pairwise(slots))
        stamps = [
            frame["timestamp"].partition(".")[2][:-1] for frame in frames if frame["channel"] == "ticker"
        ]
        assert {len(stamp) for stamp in stamps} <= set(range(10))
        assert not any(stamp.endswith("0") for stamp in stamps)

    run(test)


def test_the_same_seed_gives_the_same_frames_whenever_it_begins() -> None:
    async def test() -> None:
        first = await first_frames(market())
        again = await first_frames(market())
        later = await first_frames(market(), start=NOON + 12_345 * SECOND)
        other = await first_frames(market(seed=8))

        assert first == again
        timeless = [{**each, "ts": 0} for each in tickers(first)]
        assert timeless == [{**each, "ts": 0} for each in tickers(later)]
        assert timeless != [{**each, "ts": 0} for each in tickers(other)]

    run(test)


def test_a_products_market_does_not_depend_on_the_others() -> None:
    async def test() -> None:
        alone = tickers(await first_frames(market("ETH-USD")))
        beside = tickers(await first_frames(market("BTC-USD", "ETH-USD")))

        assert [each for each in beside if each["product_id"] == "ETH-USD"] == alone

    run(test)


def test_a_product_that_is_not_served_is_silently_absent() -> None:
    async def test() -> None:
        async with (
            SimulatedExchange(market(), clock=ManualClock()) as exchange,
            connected(exchange.url) as socket,
        ):
            await subscribe(socket, "DOGE-USD", "ETH-USD")

            frames = await take(socket, 2)

        assert [each["product_id"] for each in tickers(frames)] == ["ETH-USD"]
        assert acked(frames[1]) == {"ticker": ["ETH-USD"]}

    run(test)


def test_unsubscribing_ends_a_product_or_a_channel() -> None:
    async def test() -> None:
        clock = ManualClock()
        async with SimulatedExchange(market(), clock=clock) as exchange, connected(exchange.url) as socket:
            await subscribe(socket, "BTC-USD", "ETH-USD", heartbeats=True)
            await say(socket, type="unsubscribe", product_ids=["BTC-USD"], channel="ticker")
            frames = await take(socket, 5)
            await clock.advance(10)
            await say(socket, type="unsubscribe", channel="ticker")
            frames += await take_until(socket, lambda frame: frame["channel"] == "subscriptions")

        assert acked(frames[4]) == {"heartbeats": ["heartbeats"], "ticker": ["ETH-USD"]}
        assert {each["product_id"] for each in tickers(frames[5:])} == {"ETH-USD"}
        assert acked(frames[-1]) == {"heartbeats": ["heartbeats"]}
        assert numbers(frames) == list(range(len(frames)))

    run(test)


def test_subscribing_again_gives_the_snapshot_again() -> None:
    async def test() -> None:
        async with (
            SimulatedExchange(market("BTC-USD"), clock=ManualClock()) as exchange,
            connected(exchange.url) as socket,
        ):
            await subscribe(socket, "BTC-USD")
            await subscribe(socket, "BTC-USD")

            frames = await take(socket, 4)

        assert [each["kind"] for each in tickers(frames)] == ["snapshot", "snapshot"]
        assert acked(frames[3]) == {"ticker": ["BTC-USD"]}

    run(test)


@pytest.mark.parametrize(
    "message",
    [
        "nonsense",
        "[]",
        '{"type":"hello"}',
        b"\xff\xfe",
        '{"type":"subscribe","channel":"tickers","product_ids":["BTC-USD"]}',
        '{"type":"subscribe","channel":["ticker"],"product_ids":["BTC-USD"]}',
        '{"type":"subscribe","channel":"level2","product_ids":["BTC-USD"]}',
        '{"type":"subscribe","channel":"ticker","product_ids":"BTC-USD"}',
        '{"type":"subscribe","channel":"ticker","product_ids":[1]}',
        '{"type":"subscribe","channel":"ticker"}',
    ],
)
def test_nonsense_is_answered_by_an_error_without_channel_or_number(message: str | bytes) -> None:
    async def test() -> None:
        async with (
            SimulatedExchange(market("BTC-USD"), clock=ManualClock()) as exchange,
            connected(exchange.url) as socket,
        ):
            await socket.send(message)
            await subscribe(socket, "BTC-USD")

            frames = await take(socket, 3)

        assert list(frames[0]) == ["type", "message"]
        assert frames[0]["type"] == "error"
        assert numbers(frames) == [0, 1]

    run(test)


def test_an_unknown_channel_is_an_authentication_failure() -> None:
    async def test() -> None:
        async with (
            SimulatedExchange(market(), clock=ManualClock()) as exchange,
            connected(exchange.url) as socket,
        ):
            await say(socket, type="subscribe", product_ids=["BTC-USD"], channel="heartbeat")

            assert await take(socket, 1) == [{"type": "error", "message": "authentication failure"}]

    run(test)


def test_who_does_not_subscribe_in_time_is_disconnected() -> None:
    async def test() -> None:
        clock = ManualClock()
        async with (
            SimulatedExchange(market(), clock=clock, subscribe_within_s=2) as exchange,
            connected(exchange.url) as silent,
            connected(exchange.url) as other,
        ):
            await subscribe(other, "BTC-USD")
            await take(other, 2)
            await clock.advance(2)

            with pytest.raises(ConnectionClosedError, match="1008"):
                await silent.recv()
            await clock.advance(10)
            assert tickers(await take(other, 1))

    run(test)


def test_more_connections_a_second_than_allowed_get_429() -> None:
    async def test() -> None:
        clock = ManualClock()
        async with SimulatedExchange(market(), clock=clock) as exchange:
            for _ in range(8):
                async with connected(exchange.url):
                    pass
            with pytest.raises(InvalidStatus) as refused:
                async with connected(exchange.url):
                    pass
            await clock.advance(1)
            async with connected(exchange.url):
                pass

            assert refused.value.response.status_code == 429
            assert refused.value.response.headers["Retry-After"] == "1"
            assert (exchange.served.connections, exchange.served.refused) == (9, 1)

    run(test)


def test_more_messages_a_second_than_allowed_are_errors() -> None:
    async def test() -> None:
        clock = ManualClock()
        async with SimulatedExchange(market(), clock=clock) as exchange, connected(exchange.url) as socket:
            for _ in range(9):
                await say(socket, type="subscribe", channel="heartbeats")
            frames = await take(socket, 9)
            await clock.advance(1)
            await say(socket, type="unsubscribe", channel="heartbeats")
            frames += await take_until(socket, lambda frame: frame.get("channel") == "subscriptions")

        assert [frame.get("channel") for frame in frames[:8]] == ["subscriptions"] * 8
        assert frames[8] == {"type": "error", "message": "rate limit exceeded"}
        assert acked(frames[-1]) == {}

    run(test)


def test_limits_can_be_lifted() -> None:
    async def test() -> None:
        async with SimulatedExchange(market(), clock=ManualClock(), limits=Limits(None, None)) as exchange:
            for _ in range(12):
                async with connected(exchange.url) as socket:
                    await say(socket, type="subscribe", channel="heartbeats")
                    acked((await take(socket, 1))[0])

        assert exchange.served.connections == 12

    run(test)


def test_the_handshake_says_that_it_is_simulated() -> None:
    async def test() -> None:
        async with (
            SimulatedExchange(market(), clock=ManualClock()) as exchange,
            connected(exchange.url) as socket,
        ):
            assert socket.response is not None
            assert socket.response.headers[HEADER] == "market realistic, seed 7"
            assert "SIMULATED" in socket.response.headers["Server"]

    run(test)


def test_an_unknown_path_is_not_found() -> None:
    async def test() -> None:
        async with SimulatedExchange(market(), clock=ManualClock()) as exchange:
            with pytest.raises(InvalidStatus, match="404"):
                async with connected(exchange.url + "/elsewhere"):
                    pass

    run(test)


def test_a_port_in_use_is_one_sentence() -> None:
    async def test() -> None:
        async with SimulatedExchange(market(), clock=ManualClock()) as exchange:
            with pytest.raises(OperatorError, match=f"the port is in use: {exchange.port}; stop the program"):
                async with SimulatedExchange(market(), port=exchange.port, clock=ManualClock()):
                    pass

    run(test)


def test_leaving_closes_connections_as_going_away() -> None:
    async def test() -> None:
        async with SimulatedExchange(market(), clock=ManualClock()) as exchange:
            assert exchange.url == f"ws://127.0.0.1:{exchange.port}"
            async with connected(exchange.url) as socket:
                await subscribe(socket, "BTC-USD")
                await take(socket, 2)
                await exchange.close()
                with pytest.raises(ConnectionClosedOK, match="1001"):
                    await socket.recv()

        assert (exchange.served.connections, exchange.served.frames) == (1, 2)

    run(test)


def test_in_real_time_ticks_carry_the_time_of_the_wall() -> None:
    async def test() -> None:
        async with (
            SimulatedExchange(market("BTC-USD", preset="predictable")) as exchange,
            connected(exchange.url) as socket,
        ):
            before = exchange._clock.now()
            await subscribe(socket, "BTC-USD")
            frames = await take(socket, 4)
            after = exchange._clock.now()

        times = [each["ts"] for each in tickers(frames)]
        assert all(before <= ts <= after for ts in times)
        assert times == sorted(times)

    run(test)


# The Exchange feed.


def test_the_exchange_feed_acknowledges_then_tells_the_last_trades() -> None:
    async def test() -> None:
        frames = await first_frames(market(), 20, path="/exchange")

        channels = [
            {"name": name, "product_ids": ["BTC-USD", "ETH-USD"], "account_ids": None}
            for name in ("ticker", "heartbeat")
        ]
        assert frames[0] == {"type": "subscriptions", "channels": channels}
        assert [(frame["type"], frame["product_id"]) for frame in frames[1:3]] == [
            ("ticker", "BTC-USD"),
            ("ticker", "ETH-USD"),
        ]
        for product in ("BTC-USD", "ETH-USD"):
            told = [frame for frame in frames if frame["type"] == "ticker" and frame["product_id"] == product]
            assert len(told) > 10
            assert list(told[0]) == EXCHANGE_KEYS
            trades = [each["trade_id"] for each in told]
            assert trades == list(range(trades[0], trades[0] + len(trades)))
            assert all(a["sequence"] < b["sequence"] for a, b in pairwise(told))
            assert any(b["sequence"] - a["sequence"] > 1 for a, b in pairwise(told))
            assert all(len(each["time"]) == len("2025-12-05T12:00:00.123456Z") for each in told)
            texts = set(EXCHANGE_KEYS) - {"sequence", "trade_id"}
            assert all(isinstance(each[key], str) for each in told for key in texts)

    run(test)


def test_heartbeats_of_the_exchange_feed_are_a_products_own() -> None:
    async def test() -> None:
        frames = await first_frames(market(), 5, path="/exchange")

        told = [frame for frame in frames if frame["type"] == "heartbeat"]
        assert list(told[0]) == ["type", "sequence", "last_trade_id", "product_id", "time"]
        assert [each["product_id"] for each in told] == ["BTC-USD", "ETH-USD"] * 5
        trade = 0
        for frame in frames:
            if frame.get("product_id") == "BTC-USD":
                if frame["type"] == "ticker":
                    trade = frame["trade_id"]
                else:
                    assert frame["last_trade_id"] == trade

    run(test)


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (
            {"product_ids": ["BTC-USD", "BTC-USDX"], "channels": ["ticker"]},
            "BTC-USDX is not a valid product",
        ),
        ({"product_ids": ["BTC-USD"], "channels": ["tickers"]}, "tickers is not a valid channel"),
        (
            {"channels": ["heartbeat"]},
            "You need to specify at least one product ID for channel heartbeat",
        ),
        ({"product_ids": ["BTC-USD"]}, "channels must be a list"),
    ],
)
def test_the_exchange_feed_says_why_it_refuses(asked: dict[str, Any], reason: str) -> None:
    async def test() -> None:
        async with (
            SimulatedExchange(market(), clock=ManualClock()) as exchange,
            connected(exchange.exchange_url) as socket,
        ):
            await say(socket, type="subscribe", **asked)

            assert await take(socket, 1) == [
                {"type": "error", "message": "Failed to subscribe", "reason": reason}
            ]

    run(test)


def test_the_exchange_feed_takes_channels_with_products_of_their_own() -> None:
    async def test() -> None:
        async with (
            SimulatedExchange(market(), clock=ManualClock()) as exchange,
            connected(exchange.exchange_url) as socket,
        ):
            await say(
                socket,
                type="subscribe",
                channels=[
                    {"name": "heartbeat", "product_ids": ["ETH-USD"]},
                    {"name": "ticker", "product_ids": ["BTC-USD"]},
                ],
            )
            await say(socket, type="unsubscribe", channels=["heartbeat"])

            frames = await take(socket, 3)

        assert [each["name"] for each in frames[0]["channels"]] == ["heartbeat", "ticker"]
        assert [each["product_ids"] for each in frames[0]["channels"]] == [["ETH-USD"], ["BTC-USD"]]
        assert [each["name"] for each in frames[2]["channels"]] == ["ticker"]

    run(test)


# Who does not read.


def test_an_outbox_is_full_at_its_bound_and_has_room_at_half() -> None:
    async def test() -> None:
        outbox = Outbox(4)
        for _ in range(4):
            outbox.push(Draft(Kind.ERROR, 0, {}))
        assert outbox.full

        await outbox.get()
        assert outbox.full
        await outbox.get()

        assert not outbox.full

    run(test)


def test_who_does_not_read_in_real_time_is_dropped() -> None:
    async def test() -> None:
        clock = ManualClock()
        # Small buffers on this side, and nobody who empties them.
        async with (
            SimulatedExchange(market(), clock=clock, bound=64, limits=Limits(None, None)) as exchange,
            connected(exchange.url, max_queue=1) as socket,
        ):
            await subscribe(socket, "BTC-USD", "ETH-USD", heartbeats=True)
            socket.transport.pause_reading()
            await eventually(lambda: exchange.served.messages == 2)
            while exchange._connections:
                await clock.advance(600)
            socket.transport.abort()

            # The market goes on without it.
            ticks = exchange.served.ticks
            await clock.advance(60)
            assert exchange.served.ticks > ticks

    run(test)


def test_an_impossible_market_is_refused() -> None:
    with pytest.raises(ArgumentsError, match="choose one of calm"):
        MarketSource(preset="wild")
    with pytest.raises(ArgumentsError, match="needs a product"):
        MarketSource([])
    with pytest.raises(ArgumentsError, match="cannot be negative"):
        MarketSource(history_s=-1)


def test_frames_are_compact_json() -> None:
    async def test() -> None:
        async with (
            SimulatedExchange(market("BTC-USD"), clock=ManualClock()) as exchange,
            connected(exchange.url) as socket,
        ):
            await subscribe(socket, "BTC-USD")
            frame = await socket.recv()

        assert isinstance(frame, str)
        assert frame == json.dumps(json.loads(frame), separators=(",", ":"))

    run(test)
