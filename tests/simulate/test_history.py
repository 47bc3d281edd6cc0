"""A market that began in the past: as fast as it is read, then real time, without a hole."""

from __future__ import annotations

import asyncio
from itertools import islice, pairwise

import numpy as np

from richter.domain.times import SECOND, parse_time
from richter.simulate.market import PRESETS, endless_market, simulate_market
from richter.simulate.server import SimulatedExchange
from richter.simulate.sources import STRETCH_S, MarketSource
from tests.simulate.exchanges import (
    NOON,
    ManualClock,
    beats,
    connected,
    eventually,
    numbers,
    run,
    subscribe,
    take,
    take_all,
    take_until,
    tickers,
)

HISTORY_S = 1_000  # more than one stretch of the market


def source(history_s: float = HISTORY_S) -> MarketSource:
    return MarketSource(["BTC-USD", "ETH-USD"], seed=7, history_s=history_s)


def is_live(frame: dict[str, str]) -> bool:
    """Whether it is the last heartbeat before the present."""
    return frame["channel"] == "heartbeats" and parse_time(frame["timestamp"]) == NOON


def test_history_goes_over_into_real_time_without_a_hole() -> None:
    async def test() -> None:
        clock = ManualClock()
        async with SimulatedExchange(source(), clock=clock) as exchange, connected(exchange.url) as socket:
            await subscribe(socket, "BTC-USD", "ETH-USD", heartbeats=True)
            frames = await take_until(socket, is_live)
            served = exchange.served.ticks
            await clock.advance(30)
            reading = asyncio.create_task(take_all(socket))
            await exchange.close()
            frames += await reading

        assert served > 2 * HISTORY_S
        assert numbers(frames) == list(range(len(frames)))
        ticks = tickers(frames)
        drawn = list(islice(source().begin(NOON), len(ticks)))
        # Snapshots and updates are the market's ticks, each once, in their order, at their times.
        assert [(each["ts"], each["product_id"], each["price"], each["best_bid"]) for each in ticks] == [
            (each.ts, each.product_id, each.price, each.best_bid) for each in drawn
        ]
        assert ticks[0]["ts"] < NOON - (HISTORY_S - 1) * SECOND
        assert NOON + 28 * SECOND < ticks[-1]["ts"] <= NOON + 30 * SECOND

    run(test)


def test_heartbeats_carry_the_markets_time_second_by_second() -> None:
    async def test() -> None:
        clock = ManualClock()
        async with SimulatedExchange(source(100), clock=clock) as exchange, connected(exchange.url) as socket:
            await subscribe(socket, "BTC-USD", "ETH-USD", heartbeats=True)
            frames = await take_until(socket, is_live)
            await clock.advance(5)
            frames += await take_until(
                socket, lambda frame: parse_time(frame["timestamp"]) >= NOON + 5 * SECOND
            )

        times = [parse_time(frame["timestamp"]) or 0 for frame in beats(frames)]
        assert {b - a for a, b in pairwise(times)} == {SECOND}
        assert times[-1] == NOON + 5 * SECOND
        stamps = [parse_time(frame["timestamp"]) or 0 for frame in frames]
        assert stamps == sorted(stamps)

    run(test)


def test_history_waits_for_the_first_subscription_and_for_a_reader() -> None:
    async def test() -> None:
        clock = ManualClock()
        async with SimulatedExchange(source(8 * 3600), clock=clock, bound=32) as exchange:
            await clock.advance(10)
            assert exchange.served.ticks == 0
            async with connected(exchange.url, max_queue=1) as socket:
                socket.transport.pause_reading()
                await subscribe(socket, "BTC-USD", "ETH-USD")
                seen = -1
                while exchange.served.ticks != seen:  # Until the socket's buffers are full.
                    seen = exchange.served.ticks
                    await asyncio.sleep(0.05)
                socket.transport.resume_reading()
                await take(socket, 1_000)

                # 8 h are 95,000 ticks.
                assert seen < 60_000
                await eventually(lambda: exchange.served.ticks > seen)

    run(test)


def test_heartbeats_go_on_while_the_market_waits() -> None:
    async def test() -> None:
        clock = ManualClock()
        async with SimulatedExchange(source(), clock=clock) as exchange, connected(exchange.url) as socket:
            await subscribe(socket, "DOGE-USD", heartbeats=True)
            await take(socket, 2)
            await clock.advance(3)
            waiting = await take(socket, 3)
            await subscribe(socket, "BTC-USD", "ETH-USD")
            frames = await take_until(socket, lambda frame: frame["channel"] == "ticker")

            assert len(beats(waiting)) == 3
            assert exchange.served.ticks > 0
            assert tickers(frames)[0]["ts"] // SECOND == NOON // SECOND - HISTORY_S

    run(test)


def test_after_a_reconnect_history_goes_on_where_the_market_is() -> None:
    async def test() -> None:
        clock = ManualClock()
        async with SimulatedExchange(source(), clock=clock, bound=8) as exchange:
            async with connected(exchange.url) as socket:
                await subscribe(socket, "BTC-USD", "ETH-USD")
                first = tickers(await take(socket, 50))
            await eventually(lambda: not exchange._connections)
            async with connected(exchange.url) as socket:
                await subscribe(socket, "BTC-USD", "ETH-USD")
                again = tickers(await take(socket, 50))

        assert again[0]["kind"] == "snapshot"
        assert again[0]["ts"] >= first[-1]["ts"]
        assert all(a["ts"] <= b["ts"] for a, b in pairwise(again))

    run(test)


def test_a_reader_that_stops_is_dropped_after_a_while() -> None:
    async def test() -> None:
        clock = ManualClock()
        async with (
            SimulatedExchange(source(8 * 3600), clock=clock, bound=32, slow_after_s=0.05) as exchange,
            connected(exchange.url, max_queue=1) as socket,
        ):
            socket.transport.pause_reading()
            await subscribe(socket, "BTC-USD", "ETH-USD")
            await eventually(lambda: exchange.served.connections and not exchange._connections)
            socket.transport.abort()

    run(test)


def test_stretches_of_a_market_join_without_a_seam() -> None:
    law = PRESETS["predictable"]
    stretches = list(islice(endless_market(law, seed=3, start_ns=NOON, seconds=STRETCH_S), 12))

    first = simulate_market(law, seed=3, seconds=STRETCH_S, start_ns=NOON)
    assert np.array_equal(stretches[0].bid, first.bid)
    assert np.array_equal(stretches[0].ts, first.ts)
    # The slow factor moves from one second to the next as it does within a stretch.
    steps = np.concatenate([np.diff(each.factors[:, 1]) for each in stretches])
    seams = [b.factors[0, 1] - a.factors[-1, 1] for a, b in pairwise(stretches)]
    assert max(map(abs, seams)) < 5 * steps.std()
    assert all(b.ts[0] - a.ts[-1] < 3 * SECOND for a, b in pairwise(stretches))
    moves = np.concatenate([np.diff(np.log(each.bid)) for each in stretches])
    gaps = [np.log(b.bid[0] / a.bid[-1]) for a, b in pairwise(stretches)]
    assert max(map(abs, gaps)) < 10 * moves.std()


def test_a_market_of_many_stretches_keeps_its_law() -> None:
    law = PRESETS["realistic"]
    stretches = list(islice(endless_market(law, seed=5, start_ns=NOON), 48))

    fast = np.concatenate([each.factors[:, 0] for each in stretches])
    middle = np.concatenate([each.factors[:, 1] for each in stretches])

    assert abs(fast.std() / law.s[0] - 1) < 0.1
    assert abs(middle.std() / law.s[1] - 1) < 0.2
