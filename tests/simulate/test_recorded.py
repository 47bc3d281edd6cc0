"""A recording served again: every tick, in its order, to the letter."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from richter.config import Settings
from richter.domain.times import SECOND
from richter.errors import ArgumentsError, InputFileError
from richter.runtime.simulating import open_recording, read_tickers
from richter.simulate.lines import LineReader
from richter.simulate.market import PRESETS, simulate_market
from richter.simulate.recording import recorded_lines, write_recording
from richter.simulate.server import SimulatedExchange
from richter.simulate.sources import RecordingSource
from richter.simulate.tickers import Ticker
from tests.simulate.exchanges import (
    NOON,
    ManualClock,
    beats,
    connected,
    numbers,
    run,
    say,
    subscribe,
    take,
    take_all,
    take_until,
    tickers,
)

# Ticker of Advanced Trade -> field of the record.
NAMES = {
    "price": "price",
    "best_bid": "best_bid",
    "best_ask": "best_ask",
    "volume_24_h": "volume_24h",
    "low_24_h": "low_24h",
    "high_24_h": "high_24h",
}


def lines(seconds: int = 120, product: str = "BTC-USD", start: int = NOON) -> list[bytes]:
    market = simulate_market(PRESETS["predictable"], seed=7, seconds=seconds, start_ns=start)
    return list(recorded_lines(market, product, "sim-7"))


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "ticks.ndjson"
    path.write_bytes(b"".join(lines()))
    return path


def opened(path: Path, speed: float | None = None, **options: Any) -> RecordingSource:
    return open_recording([str(path)], Settings(), speed=speed, **options).source


async def everything(path: Path, *products: str, heartbeats: bool = False) -> list[dict[str, Any]]:
    """All frames of a recording, served as fast as it is read."""
    async with (
        SimulatedExchange(opened(path), clock=ManualClock(), close_at_end=True) as exchange,
        connected(exchange.url) as socket,
    ):
        await subscribe(socket, *products, heartbeats=heartbeats)
        frames = await take_all(socket)
        assert socket.close_code == 1000
    return frames


def test_a_recording_is_served_tick_by_tick_to_the_letter(recording: Path) -> None:
    async def test() -> None:
        frames = await everything(recording, "BTC-USD")

        records = [json.loads(line) for line in recording.read_bytes().splitlines()]
        ticks = tickers(frames)
        assert numbers(frames) == list(range(len(records) + 1))
        assert [each["ts"] for each in ticks] == [record["ts_event"] for record in records]
        assert [each["kind"] for each in ticks] == [record["event_type"] for record in records]
        for ours, theirs in zip(ticks, records, strict=True):
            [sent] = theirs["raw"]["events"][0]["tickers"]
            assert {key: value for key, value in ours.items() if key not in ("ts", "kind")} == sent

    run(test)


def test_the_first_tick_is_the_snapshot_and_comes_once(recording: Path) -> None:
    async def test() -> None:
        frames = await everything(recording, "BTC-USD")

        assert [frame["channel"] for frame in frames[:3]] == ["ticker", "subscriptions", "ticker"]
        assert [each["kind"] for each in tickers(frames)].count("snapshot") == 1

    run(test)


def test_files_are_served_in_their_order(tmp_path: Path) -> None:
    async def test() -> None:
        market = simulate_market(PRESETS["calm"], seed=7, seconds=2 * 3600, start_ns=NOON)
        paths = write_recording(market, tmp_path / "raw", "BTC-USD", "sim-7")

        ticks = tickers(await everything(tmp_path / "raw", "BTC-USD"))

        records = [json.loads(line) for path in paths for line in path.read_bytes().splitlines()]
        assert len(paths) > 1
        assert [each["ts"] for each in ticks] == [record["ts_event"] for record in records]
        assert [each["price"] for each in ticks] == [record["price"] for record in records]

    run(test)


def test_two_products_keep_the_order_of_the_log(tmp_path: Path) -> None:
    async def test() -> None:
        both = sorted(
            lines(60) + lines(60, "ETH-USD", NOON + 10_000_000), key=lambda line: json.loads(line)["ts_event"]
        )
        path = tmp_path / "both.ndjson"
        path.write_bytes(b"".join(both))

        ticks = tickers(await everything(path, "ETH-USD", "BTC-USD"))
        alone = tickers(await everything(path, "ETH-USD"))

        places = [(each["product_id"], each["ts"]) for each in ticks]
        assert places == [(record["product_id"], record["ts_event"]) for record in map(json.loads, both)]
        assert [(each["product_id"], each["ts"]) for each in alone] == [
            place for place in places if place[0] == "ETH-USD"
        ]

    run(test)


def test_two_connections_get_the_same_ticks(tmp_path: Path) -> None:
    async def test() -> None:
        path = tmp_path / "both.ndjson"
        path.write_bytes(b"".join(lines(20) + lines(20, "ETH-USD", NOON + 20 * SECOND)))
        clock = ManualClock()
        async with (
            SimulatedExchange(
                opened(path, 1.0), clock=clock, close_at_end=True, subscribe_within_s=100
            ) as exchange,
            connected(exchange.url) as first,
            connected(exchange.url) as second,
        ):
            await subscribe(first, "BTC-USD", "ETH-USD")
            await take(first, 2)
            await clock.advance(19.9)
            # The first tick of the other product is nobody's snapshot: the first connection waits for it.
            await subscribe(second, "ETH-USD")
            await take(second, 1)
            await clock.advance(30)
            frames, others = await take_all(first), await take_all(second)

        ethers = [each for each in tickers(frames) if each["product_id"] == "ETH-USD"]
        assert len(ethers) == len(lines(20, "ETH-USD"))
        assert tickers(others) == ethers

    run(test)


def test_after_the_end_there_are_heartbeats_only(recording: Path) -> None:
    async def test() -> None:
        clock = ManualClock(NOON + 10**6 * SECOND)
        async with (
            SimulatedExchange(opened(recording), clock=clock) as exchange,
            connected(exchange.url) as socket,
        ):
            await subscribe(socket, "BTC-USD", heartbeats=True)
            await exchange.finished()
            await clock.advance(5)
            await say(socket, type="unsubscribe", channel="heartbeats")
            frames = await take_until(
                socket,
                lambda frame: (
                    frame["channel"] == "subscriptions"
                    and frame["events"] == [{"subscriptions": {"ticker": ["BTC-USD"]}}]
                    and frame["sequence_num"] > 3
                ),
            )

        last = max(i for i, frame in enumerate(frames) if frame["channel"] == "ticker")
        after = frames[last + 1 : -1]
        assert len(tickers(frames)) == len(lines())
        assert len(beats(after)) == len(after) == 5
        # The recording's time goes on.
        assert beats(after)[0]["timestamp"].startswith("2025-12-05T12:02:0")

    run(test)


def test_whoever_comes_after_the_end_gets_the_last_tick(recording: Path) -> None:
    async def test() -> None:
        async with SimulatedExchange(opened(recording), clock=ManualClock(), close_at_end=True) as exchange:
            for _ in range(2):
                async with connected(exchange.url) as socket:
                    await subscribe(socket, "BTC-USD")
                    frames = await take_all(socket)

        [ticker] = tickers(frames)
        assert ticker["kind"] == "snapshot"
        assert ticker["price"] == json.loads(lines()[-1])["price"]

    run(test)


@pytest.mark.parametrize("speed", [1.0, 10.0])
def test_a_recording_keeps_its_own_pace(recording: Path, speed: float) -> None:
    async def test() -> None:
        clock = ManualClock(NOON + 10**6 * SECOND)
        async with SimulatedExchange(opened(recording, speed), clock=clock) as exchange:
            await clock.advance(100)
            async with connected(exchange.url) as socket:
                await subscribe(socket, "BTC-USD", heartbeats=True)
                await take(socket, 3)
                await clock.advance(30 / speed)
                first = exchange.served.ticks
                await clock.advance(30 / speed)
                second = exchange.served.ticks
                frames = await take_until(socket, lambda frame: frame["sequence_num"] == second)

        times = [json.loads(line)["ts_event"] - NOON for line in lines()]
        assert first == sum(ts - times[0] <= 30 * SECOND for ts in times)
        assert second == sum(ts - times[0] <= 60 * SECOND for ts in times)
        # A heartbeat comes each second of the wall, with the recording's time.
        assert all(each["timestamp"] > frames[0]["timestamp"] for each in beats(frames))
        assert len(beats(frames)) <= 60 / speed

    run(test)


def test_a_recording_may_go_back_in_time_and_have_holes(tmp_path: Path) -> None:
    async def test() -> None:
        path = tmp_path / "odd.ndjson"
        path.write_bytes(b"".join(lines(20) + lines(20, start=NOON + 86_400 * SECOND) + lines(20)))

        frames = await everything(path, "BTC-USD", heartbeats=True)

        assert len(tickers(frames)) == 3 * len(lines(20))
        assert numbers(frames) == list(range(len(frames)))
        # At most a minute of heartbeats for a day without ticks.
        assert 40 < len(beats(frames)) < 130

    run(test)


def test_the_exchange_feed_serves_every_tick_too(recording: Path) -> None:
    async def test() -> None:
        async with (
            SimulatedExchange(opened(recording), clock=ManualClock(), close_at_end=True) as exchange,
            connected(exchange.exchange_url) as socket,
        ):
            await say(socket, type="subscribe", product_ids=["BTC-USD"], channels=["ticker"])
            frames = await take_all(socket)

        told = [frame for frame in frames if frame["type"] == "ticker"]
        assert [each["price"] for each in told] == [json.loads(line)["price"] for line in lines()]
        assert [each["trade_id"] for each in told] == list(range(1, len(told) + 1))
        assert "last_size" not in told[0]

    run(test)


def test_products_of_a_recording_can_be_chosen(tmp_path: Path) -> None:
    path = tmp_path / "both.ndjson"
    path.write_bytes(b"".join(lines(20) + lines(20, "ETH-USD")))

    assert opened(path).products == ("BTC-USD", "ETH-USD")
    chosen = opened(path, products=["ETH-USD"])
    assert {ticker.product_id for ticker in chosen.begin(0)} == {"ETH-USD"}
    with pytest.raises(InputFileError, match="lacks a product: 'SOL-USD'; it holds BTC-USD, ETH-USD"):
        opened(path, products=["SOL-USD"])


def test_a_recording_without_ticks_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.ndjson").write_text('{"type":"heartbeat"}\n')

    with pytest.raises(InputFileError, match="no tick in the recording"):
        opened(tmp_path / "a.ndjson")


def test_an_impossible_speed_is_refused(recording: Path) -> None:
    for speed in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ArgumentsError, match="a speed must be positive"):
            opened(recording, speed)


def test_a_source_that_fails_says_so_at_the_end(recording: Path) -> None:
    def failing() -> Iterator[Ticker]:
        yield from list(read_tickers([recording], Settings()))[:10]
        raise InputFileError("the disk is gone", "x")

    async def test() -> None:
        source = RecordingSource(["BTC-USD"], failing, speed=None)
        with pytest.raises(InputFileError, match="the disk is gone"):
            async with (
                SimulatedExchange(source, clock=ManualClock()) as exchange,
                connected(exchange.url) as socket,
            ):
                await subscribe(socket, "BTC-USD")
                assert len(await take(socket, 11)) == 11
                await exchange.failed()

    run(test)


# Lines of every form.

TICKER = {
    "type": "ticker",
    "product_id": "BTC-USD",
    "price": "89468.150",
    "volume_24_h": "8072.84769870",
    "low_24_h": "88099.05",
    "high_24_h": "92748.5",
    "low_52_w": "74420.69",
    "high_52_w": "126296",
    "price_percent_chg_24_h": "-2.96520264770456",
    "best_bid": "89468.10",
    "best_ask": "89468.13",
    "best_bid_quantity": "0.15432900",
    "best_ask_quantity": "0.28456466",
}
RECORD = {
    "timestamp": "2025-12-05T20:33:01.669201",
    "product_id": "BTC-USD",
    "price": "89468.150",
    "volume_24h": "8072.84769870",
    "low_24h": "88099.05",
    "high_24h": "92748.5",
    "best_bid": "89468.10",
    "best_ask": "89468.13",
}
OTHER = {**TICKER, "product_id": "ETH-USD", "price": "3000.0"}
ENVELOPE = {
    "channel": "ticker",
    "timestamp": "2025-12-05T20:33:01.6692010Z",
    "sequence_num": 5,
    "events": [{"type": "update", "tickers": [TICKER]}],
}
FORMS: dict[str, Any] = {
    "course": {**RECORD, "raw": TICKER},
    "course with text": {**RECORD, "raw": json.dumps(TICKER)},
    "course with envelope": {**RECORD, "raw": ENVELOPE},
    "envelope": ENVELOPE,
    "wrapped": {"received_at": "2025-12-05T20:33:01.7Z", "data": ENVELOPE},
    "wrapped text": {"message": json.dumps(ENVELOPE)},
    "json in json": json.dumps(ENVELOPE),
    "ours": {
        **RECORD,
        "ts_event": 1_764_966_781_669_201_000,
        "ts_recv": 1_764_966_781_700_000_000,
        "conn_id": "c",
        "frame_no": 5,
        "event_index": 0,
        "ticker_index": 1,
        "event_type": "update",
        "v": 1,
        "raw": {**ENVELOPE, "events": [{"type": "update", "tickers": [OTHER, TICKER]}]},
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_exchanges_own_texts(form: str) -> None:
    [ticker] = LineReader(lambda product: 8).read(json.dumps(FORMS[form]).encode())

    assert ticker == Ticker(
        1_764_966_781_669_201_000,
        "BTC-USD",
        price="89468.150",
        best_bid="89468.10",
        best_ask="89468.13",
        low_24h="88099.05",
        high_24h="92748.5",
        volume_24h="8072.84769870",
        best_bid_quantity="0.15432900",
        best_ask_quantity="0.28456466",
        low_52w="74420.69",
        high_52w="126296",
        change_24h="-2.96520264770456",
        sequence=1,
        trade_id=1,
    )


def test_every_ticker_of_a_frame_has_its_own_texts() -> None:
    again = {**TICKER, "price": "89468.15"}
    frame = {**ENVELOPE, "events": [{"type": "snapshot", "tickers": [OTHER, TICKER]}, {"tickers": [again]}]}

    ticks = LineReader(lambda product: 8).read(json.dumps(frame).encode())

    assert [(each.product_id, each.price, each.snapshot) for each in ticks] == [
        ("ETH-USD", "3000.0", True),
        ("BTC-USD", "89468.150", True),
        ("BTC-USD", "89468.15", False),
    ]
    assert [each.trade_id for each in ticks] == [1, 1, 2]


def test_numbers_for_texts_keep_their_digits() -> None:
    line = b'{"ts":1775254421.69,"symbol":"BTC-USD","price":66865.50,"bid":66865.4,"ask":66866,"volume":0.0}'

    [ticker] = LineReader(lambda product: 8).read(line)

    assert (ticker.price, ticker.best_bid, ticker.best_ask) == ("66865.50", "66865.4", "66866")
    assert (ticker.volume_24h, ticker.low_24h) == ("0.0", None)


def test_a_ticker_of_the_exchange_feed_keeps_what_only_that_has() -> None:
    line = (
        b'1763081874.33: {"type":"ticker","sequence":115662765327,"product_id":"BTC-USD","price":"98961.13",'
        b'"open_24h":"101857.27","volume_24h":"13153.35982162","low_24h":"97870","high_24h":"104050",'
        b'"volume_30d":"221024.37988824","best_bid":"98961.12","best_bid_size":"0.02294485",'
        b'"best_ask":"98961.24","best_ask_size":"0.00172792","side":"buy",'
        b'"time":"2025-11-14T00:57:54.324567Z","trade_id":901997453,"last_size":"0.00002047"}'
    )

    [ticker] = LineReader(lambda product: 8).read(line)

    assert (ticker.sequence, ticker.trade_id, ticker.side) == (115662765327, 901997453, "buy")
    assert (ticker.open_24h, ticker.volume_30d, ticker.last_size) == (
        "101857.27",
        "221024.37988824",
        "0.00002047",
    )
    assert (ticker.best_bid_quantity, ticker.best_ask_quantity) == ("0.02294485", "0.00172792")


def test_an_empty_quote_stays_empty_and_an_absent_one_absent() -> None:
    read: Callable[[bytes], list[Ticker]] = LineReader(lambda product: 8).read
    flat = {"timestamp": "2025-12-05T20:33:01Z", "product_id": "BTC-USD", "price": "1"}

    [empty] = read(json.dumps({**flat, "best_bid": "", "best_ask": "2"}).encode())
    [absent] = read(json.dumps({**flat, "best_ask": None}).encode())

    assert (empty.best_bid, empty.best_ask) == ("", "2")
    assert (absent.best_bid, absent.best_ask) == (None, None)


def test_what_cannot_be_read_is_counted() -> None:
    reader = LineReader(lambda product: 8)

    assert reader.read(b"{torn") == []
    assert reader.read(b"") == []
    assert reader.read(b'{"type":"heartbeat"}') == []

    assert reader.rejected == {"not JSON": 1}


def test_lines_that_cannot_be_read_do_not_end_a_replay(tmp_path: Path) -> None:
    path = tmp_path / "torn.ndjson"
    first, *others = lines(5)
    path.write_bytes(first + b"{torn\n" + b"".join(others))

    ticks = list(opened(path).begin(0))

    assert len(ticks) == len(others) + 1
    assert all(a.ts < b.ts for a, b in pairwise(ticks))
