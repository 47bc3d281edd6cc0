"""Faults: how they are written, and what a client sees of each."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, InvalidStatus

from richter.domain.times import SECOND, parse_time
from richter.errors import ArgumentsError
from richter.simulate.faults import KINDS, Fault, parse_fault, parse_faults
from richter.simulate.server import SimulatedExchange
from richter.simulate.sources import MarketSource
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


class Trial:
    """An exchange with faults, and its clock."""

    def __init__(self, exchange: SimulatedExchange, clock: ManualClock) -> None:
        self.exchange = exchange
        self.clock = clock

    @asynccontextmanager
    async def client(self, *products: str) -> AsyncIterator[ClientConnection]:
        """A client that has subscribed and had its answers, unless a fault came before."""
        async with connected(self.exchange.url) as socket:
            messages = self.exchange.served.messages
            try:
                await subscribe(socket, *(products or ("BTC-USD",)), heartbeats=True)
                await eventually(
                    lambda: self.exchange.served.messages == messages + 2 or socket.close_code is not None
                )
            except ConnectionClosed:
                pass
            yield socket

    async def rest(self, socket: ClientConnection, seconds: float = 20) -> list[str]:
        """What else a client gets: as text, for it may be no JSON."""
        await self.clock.advance(seconds)
        reading = asyncio.create_task(_texts(socket))
        await self.exchange.close()
        return await reading


async def _texts(socket: ClientConnection) -> list[str]:
    frames = []
    try:
        async for frame in socket:
            frames.append(str(frame))
    except ConnectionClosedError:
        pass
    return frames


@asynccontextmanager
async def trial(*faults: str) -> AsyncIterator[Trial]:
    clock = ManualClock()
    source = MarketSource(["BTC-USD", "ETH-USD"], seed=7, preset="predictable")
    planned = [parse_fault(each) for each in faults]
    async with SimulatedExchange(source, clock=clock, faults=planned) as exchange:
        yield Trial(exchange, clock)


async def frames_with(*faults: str, seconds: float = 20) -> list[str]:
    async with trial(*faults) as made, made.client() as socket:
        return await made.rest(socket, seconds)


def parsed(frames: list[str]) -> list[dict[str, Any]]:
    return [json.loads(frame) for frame in frames]


# How they are written.


def test_short_and_long_forms_say_the_same() -> None:
    assert parse_fault("drop@30") == Fault(kind="drop", frames_after=30)
    assert parse_fault("drop@5s") == Fault(kind="drop", frames_after=None, seconds_after=5.0)
    assert parse_fault("clock@0.5s,seconds=2.5,times=3").options == {"seconds": 2.5}
    content = [
        {"kind": "drop", "after": 30},
        {"kind": "close", "after": "5s", "code": 1013, "reason": "busy", "connection": 2, "times": 3},
        "too_many,retry_after=7",
    ]
    assert parse_faults(content, "faults.yaml") == [
        parse_fault("drop@30"),
        parse_fault("close@5s,code=1013,reason=busy,connection=2,times=3"),
        parse_fault("too_many,retry_after=7"),
    ]
    assert parse_faults(None, "faults.yaml") == []


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_can_be_written_without_fields(kind: str) -> None:
    assert parse_fault(kind).options == dict(KINDS[kind].fields)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("dorp@30", "--fault has an unknown kind: 'dorp'; did you mean drop?"),
        ("Drop 30", "--fault is no fault: 'Drop 30'; write one such as drop@30 or close@5s,code=1013"),
        (
            "drop@soon",
            "--fault (drop): after is wrong: 'soon'; write a number of frames such as 30, or a time such as 5s",
        ),
        (
            "drop@3,tims=2",
            "--fault (drop) has an unknown field: 'tims'; drop takes after, connection, times; did you mean times?",
        ),
        ("drop@3,times", "--fault has a field without a value: 'times'; write times=VALUE"),
        ("drop,times=0", "--fault (drop): times is wrong: 0; expected a whole number of 1 or more"),
        ("drop,connection=first", "--fault (drop): connection is wrong: 'first'; expected a whole number"),
        ("mute,seconds=long", "--fault (mute): seconds is wrong: 'long'; expected a number above 0"),
        (
            "close,code=1005",
            "--fault (close): code is wrong: 1005; expected a close code such as 1001 or 4000",
        ),
        ("close,reason=3", "--fault (close): reason is wrong: 3; expected a text"),
        ("too_many@3", "--fault (too_many) has an unknown field: 'after'; too_many takes connection, times"),
        (
            "drop,code=1000",
            "--fault (drop) has an unknown field: 'code'; drop takes after, connection, times",
        ),
    ],
)
def test_a_fault_that_cannot_be_understood_is_one_clear_error(text: str, told: str) -> None:
    with pytest.raises(ArgumentsError) as error:
        parse_fault(text)

    assert str(error.value).startswith(told)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"kind": "drop"}, "f.yaml is no list of faults"),
        ([3], "f.yaml, fault 1 is no fault: 3"),
        (["drop", {"after": 3}], "f.yaml, fault 2 has no kind; give one of drop, stall"),
        ([{"kind": "drop", "after": True}], "f.yaml, fault 1 (drop): after is wrong: True"),
        ([{"kind": "drop", "after": -1}], "f.yaml, fault 1 (drop): after is wrong: -1"),
        ([{"kind": ["drop"]}], "f.yaml, fault 1 has an unknown kind: ['drop']"),
        ([{1: 2}], "f.yaml, fault 1 has no kind"),
    ],
)
def test_a_file_of_faults_that_cannot_be_understood_says_where(content: object, told: str) -> None:
    with pytest.raises(ArgumentsError) as error:
        parse_faults(content, "f.yaml")

    assert str(error.value).startswith(told)


# What ends a connection.


def test_drop_closes_tcp_without_a_close_frame() -> None:
    async def test() -> None:
        async with trial("drop@10") as made:
            async with made.client() as socket:
                await made.clock.advance(20)
                frames = await take(socket, 10)
                with pytest.raises(ConnectionClosedError) as closed:
                    await socket.recv()
            async with made.client() as again:
                await made.clock.advance(10)
                others = await take(again, 20)

            assert numbers(frames) == list(range(10))
            assert closed.value.rcvd is None
            assert numbers(others) == list(range(20))
            assert made.exchange.served.faults == {"drop": 1}

    run(test)


def test_a_fault_strikes_as_often_as_it_says_from_its_connection_on() -> None:
    async def test() -> None:
        async with trial("drop@3,connection=2,times=2") as made:
            dropped = []
            for _ in range(4):
                async with made.client() as socket:
                    await made.clock.advance(2)
                    await take(socket, 3)
                    # Those that are not dropped have more to say.
                    try:
                        await take(socket, 1)
                        dropped.append(False)
                    except ConnectionClosedError:
                        dropped.append(True)

            assert dropped == [False, True, True, False]

    run(test)


def test_close_sends_its_code_and_reason_after_some_seconds() -> None:
    async def test() -> None:
        async with trial("close@5s,code=1013,reason=busy") as made, made.client() as socket:
            await made.clock.advance(4)
            frames = await take_until(socket, lambda frame: len(beats([frame])))
            moving = asyncio.create_task(made.clock.advance(10))
            with pytest.raises(ConnectionClosed, match=r"1013 .*busy"):
                while True:
                    frames += await take(socket, 1)
            await moving

        assert parse_time(frames[-1]["timestamp"]) <= NOON + 5 * SECOND  # type: ignore[operator]

    run(test)


def test_stall_is_mute_but_answers_pings() -> None:
    async def test() -> None:
        async with trial("stall@10") as made, made.client() as socket:
            await made.clock.advance(30)
            await take(socket, 10)

            await (await socket.ping())
            await say(socket, type="unsubscribe", channel="ticker")
            await (await socket.ping())

            frames = await made.rest(socket, 10)
            assert frames == []

    run(test)


def test_a_stall_that_ends_has_lost_frames_with_their_numbers() -> None:
    async def test() -> None:
        frames = parsed(await frames_with("stall@5s,seconds=5", seconds=20))

        seen = numbers(frames)
        [at] = [i for i in range(1, len(seen)) if seen[i] != seen[i - 1] + 1]
        before, after = (parse_time(frames[i]["timestamp"]) or 0 for i in (at - 1, at))
        assert before <= NOON + 5 * SECOND
        assert after >= NOON + 10 * SECOND
        assert seen[at] - seen[at - 1] > 5

    run(test)


def test_half_open_neither_reads_nor_writes_and_keeps_tcp() -> None:
    async def test() -> None:
        async with trial("half_open@10") as made, made.client() as socket:
            await made.clock.advance(30)
            await take(socket, 10)

            messages = made.exchange.served.messages
            pong = await socket.ping()
            await say(socket, type="unsubscribe", channel="ticker")
            # Another connection shows that the exchange has had its chance.
            async with made.client() as other:
                await made.clock.advance(5)
                await take(other, 3)

            assert not pong.done()
            assert socket.close_code is None
            assert made.exchange.served.messages == messages + 2
            await made.exchange.close()

    run(test)


def test_mute_has_heartbeats_and_numbers_without_holes_but_no_data() -> None:
    async def test() -> None:
        frames = parsed(await frames_with("mute@5s", seconds=20))

        assert numbers(frames) == list(range(len(frames)))
        assert max(each["ts"] for each in tickers(frames)) <= NOON + 5 * SECOND
        assert len(beats(frames)) == 20

    run(test)


def test_refuse_drops_the_connection_and_refuses_others_for_a_while() -> None:
    async def test() -> None:
        async with trial("refuse@10,seconds=30") as made:
            port = made.exchange.port
            async with made.client() as socket:
                await made.clock.advance(5)
                await take(socket, 10)
                with pytest.raises(ConnectionClosedError):
                    await socket.recv()
            with pytest.raises(OSError):
                async with connected(made.exchange.url):
                    pass
            await made.clock.advance(30)
            await eventually(lambda: made.exchange._servers[-1].is_serving())
            async with made.client() as socket:
                assert numbers(await take(socket, 3)) == [0, 1, 2]

            assert made.exchange.port == port

    run(test)


def test_leaving_while_connections_are_refused_leaves_nothing_behind() -> None:
    async def test() -> None:
        async with trial("refuse@3,seconds=100") as made, made.client() as socket:
            with pytest.raises(ConnectionClosedError):
                await take(socket, 10)

    run(test)


def test_too_many_is_429_with_retry_after() -> None:
    async def test() -> None:
        async with trial("too_many,connection=2,times=2,retry_after=7") as made:
            async with made.client() as socket:
                await take(socket, 3)
            for _ in range(2):
                with pytest.raises(InvalidStatus) as refused:
                    async with connected(made.exchange.url):
                        pass
                assert refused.value.response.status_code == 429
                assert refused.value.response.headers["Retry-After"] == "7"
            async with made.client() as socket:
                await take(socket, 3)

            assert made.exchange.served.connections == 2
            assert made.exchange.served.refused == 2

    run(test)


def test_ack_without_leaves_a_product_out_of_acknowledgement_and_data() -> None:
    async def test() -> None:
        async with trial("ack_without,product=BTC-USD") as made, made.client("BTC-USD", "ETH-USD") as socket:
            await made.clock.advance(10)
            frames = await take(socket, 20)
            await subscribe(socket, "BTC-USD")
            answer = await take_until(
                socket,
                lambda frame: (
                    "BTC-USD" in acked(frame).get("ticker", [])
                    if frame["channel"] == "subscriptions"
                    else False
                ),
            )

        assert acked(frames[1]) == {"ticker": ["ETH-USD"]}
        assert {each["product_id"] for each in tickers(frames)} == {"ETH-USD"}
        # Once only: asking again helps.
        assert tickers(answer)[-1]["product_id"] == "BTC-USD"

    run(test)


# What changes a frame. Number n is `sequence_num` n - 1.


def test_reorder_swaps_a_frame_with_the_next() -> None:
    async def test() -> None:
        assert numbers(parsed(await frames_with("reorder@10")))[8:12] == [8, 10, 9, 11]

    run(test)


def test_duplicate_sends_a_frame_twice_and_again() -> None:
    async def test() -> None:
        frames = await frames_with("duplicate@10,times=2")

        assert numbers(parsed(frames))[8:22] == [8, 9, 9, *range(10, 20), 19]
        assert frames[9] == frames[10]

    run(test)


def test_sequence_gap_loses_frames() -> None:
    async def test() -> None:
        assert numbers(parsed(await frames_with("sequence_gap@10,frames=3")))[8:11] == [8, 12, 13]

    run(test)


def test_garbage_is_no_json_and_takes_no_number() -> None:
    async def test() -> None:
        frames = await frames_with("garbage@10")

        with pytest.raises(ValueError):
            json.loads(frames[9])
        assert numbers(parsed(frames[:9] + frames[10:])) == list(range(len(frames) - 1))

    run(test)


def test_truncated_breaks_off() -> None:
    async def test() -> None:
        frames = await frames_with("truncated@10")

        with pytest.raises(ValueError):
            json.loads(frames[9])
        assert frames[9].startswith('{"channel":')
        assert numbers(parsed(frames[:9] + frames[10:]))[8:10] == [8, 10]

    run(test)


def test_huge_is_20_mb() -> None:
    async def test() -> None:
        frames = await frames_with("huge@10")

        assert len(frames[9]) == 20_000_000
        assert numbers(parsed(frames)) == list(range(len(frames) - 1))

    run(test)


def test_clock_makes_all_stamps_slow() -> None:
    async def test() -> None:
        plain, slow = parsed(await frames_with()), parsed(await frames_with("clock@10"))

        shifts = [
            (parse_time(a["timestamp"]) or 0) - (parse_time(b["timestamp"]) or 0)
            for a, b in zip(plain, slow, strict=True)
        ]
        assert shifts == [0] * 9 + [90 * SECOND] * (len(shifts) - 9)

    run(test)


def test_ahead_stamps_one_tick_ahead() -> None:
    async def test() -> None:
        plain, ahead = parsed(await frames_with()), parsed(await frames_with("ahead@10"))

        shifts = [
            (parse_time(b["timestamp"]) or 0) - (parse_time(a["timestamp"]) or 0)
            for a, b in zip(plain, ahead, strict=True)
        ]
        [at] = [i for i, shift in enumerate(shifts) if shift]
        assert shifts[at] == 30 * SECOND
        assert plain[at]["channel"] == "ticker"
        assert at == next(i for i in range(9, len(plain)) if plain[i]["channel"] == "ticker")

    run(test)


def test_times_of_the_exchange_feed_are_ahead_too() -> None:
    async def test() -> None:
        async with trial("ahead@5", "clock@6") as made, connected(made.exchange.exchange_url) as socket:
            await say(socket, type="subscribe", product_ids=["BTC-USD"], channels=["ticker"])
            await eventually(lambda: made.exchange.served.messages)
            frames = parsed(await made.rest(socket))

        times = [(parse_time(frame["time"]) or 0) - NOON for frame in frames[1:]]
        assert times[3] - times[2] > 25 * SECOND
        assert times[4] - times[2] < -80 * SECOND

    run(test)


def test_faults_come_together() -> None:
    async def test() -> None:
        async with trial("duplicate@4", "garbage@6", "drop@12") as made, made.client() as socket:
            await made.clock.advance(20)
            frames = await _texts(socket)

            assert numbers(parsed(frames[:6])) == [0, 1, 2, 3, 3, 4]
            assert len(frames) == 14
            assert made.exchange.served.faults == {"duplicate": 1, "garbage": 1, "drop": 1}

    run(test)


def test_the_same_faults_at_the_same_frames_give_the_same_bytes() -> None:
    async def test() -> None:
        faults = ("duplicate@4,times=3", "sequence_gap@9", "truncated@15", "ahead@20")

        assert await frames_with(*faults) == await frames_with(*faults)

    run(test)


def test_take_all_is_empty_once_an_exchange_is_gone() -> None:
    async def test() -> None:
        async with trial() as made, connected(made.exchange.url) as socket:
            await made.exchange.close()
            assert await take_all(socket) == []

    run(test)


def test_the_page_names_every_kind_with_its_fields() -> None:
    page = (Path(__file__).parents[2] / "docs" / "simulate.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| .* \| (.*?) ?\|$", page, flags=re.MULTILINE))

    assert rows.keys() == KINDS.keys()
    for name, kind in KINDS.items():
        assert set(re.findall(r"`(\w+)`", rows[name])) == set(kind.fields), name
