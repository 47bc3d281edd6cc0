"""Frames as they really came."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

from richter.domain.decimals import scale_price, split_quantity
from richter.domain.times import parse_time
from richter.protocol.decoder import Decoder
from richter.protocol.feed import FeedState, Record, Warn
from richter.protocol.forms import decode_line
from tests.protocol.frames import Driver, advanced, exchange, outcomes

FRAMES = Path(__file__).parents[3] / "shared" / "data" / "frames"
real = pytest.mark.skipif(
    not FRAMES.is_dir() and "CI" not in os.environ, reason="the recordings are not here"
)


# One production connection of Advanced Trade, 2026-09-05, word for word.
PRODUCTION = (
    b'{"channel":"ticker","timestamp":"2026-09-05T22:10:29.562008293Z","sequence_num":0,"events":[{"type":"snapshot",'
    b'"tickers":[{"type":"ticker","product_id":"BTC-PERP-INTX","price":"79879.1","volume_24_h":"14152.6899",'
    b'"low_24_h":"79445","high_24_h":"80206","low_52_w":"57705.8","high_52_w":"126340.3",'
    b'"price_percent_chg_24_h":"0.25541069034937","best_bid":"79879","best_ask":"79879.1",'
    b'"best_bid_quantity":"2.9352","best_ask_quantity":"1.7389"}]}]}',
    b'{"channel":"subscriptions","timestamp":"2026-09-05T22:10:29.562097895Z","sequence_num":1,'
    b'"events":[{"subscriptions":{"ticker":["BTC-PERP-INTX"]}}]}',
    b'{"channel":"subscriptions","timestamp":"2026-09-05T22:10:29.562197895Z","sequence_num":2,'
    b'"events":[{"subscriptions":{"heartbeats":["heartbeats"],"ticker":["BTC-PERP-INTX"]}}]}',
    b'{"channel":"heartbeats","timestamp":"2026-09-05T22:10:30.260465255Z","sequence_num":3,"events":[{'
    b'"current_time":"2026-09-05 22:10:30.25788961 +0000 UTC m=+139651.272674714","heartbeat_counter":139651}]}',
    b'{"type":"error","message":"authentication failure"}',
)


def test_a_production_connection() -> None:
    driver = advanced("BTC-PERP-INTX")
    driver.connect()
    actions = [action for data in PRODUCTION for action in driver.give(data)]
    (record,) = (action for action in actions if isinstance(action, Record))
    (tick,) = decode_line(record.line, lambda product: 8)

    assert tick.ts_event == 1788646229562008293
    assert (tick.frame_no, tick.snapshot, tick.price, tick.bid_qty) == (0, True, 7987910000000, (2, 93520000))
    counts = driver.feed.counts
    assert (counts.tickers, counts.acks, counts.heartbeats, counts.errors) == (1, 2, 1, 1)
    assert driver.feed.state == FeedState.LIVE


def advanced_frames() -> Iterator[tuple[float, bytes]]:
    packed = (FRAMES / "advanced_trade_25s.jsonl.zst").read_bytes()
    with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(packed)) as stream:
        for line in stream.read().splitlines():
            entry = json.loads(line)
            if entry["t"] == "recv":
                yield entry["ts"], entry["data"].encode()


def exchange_frames() -> Iterator[tuple[float, bytes]]:
    for line in (FRAMES / "exchange_2021_31s.ws").read_bytes().splitlines():
        at, _, data = line.partition(b": ")
        if at and not line.startswith(b"wss:"):
            yield float(at), data


def played(driver: Driver, frames: Iterator[tuple[float, bytes]]) -> tuple[list[Any], list[Record]]:
    driver.connect()
    actions: list[Any] = []
    first = None
    for at, data in frames:
        first = at if first is None else first
        driver.now = round((at - first) * 1e9)
        actions += driver.feed.receive(data, round(at * 1e6) * 1000, driver.now)
    return actions, [action for action in actions if isinstance(action, Record)]


@real
def test_the_captured_advanced_trade_connection_is_whole() -> None:
    driver = advanced("BTC-USD", "ETH-USD")
    frames = list(advanced_frames())
    actions, found = played(driver, iter(frames))
    counts = driver.feed.counts

    assert (counts.frames, counts.tickers, counts.heartbeats, counts.acks) == (1030, 160, 25, 5)
    assert counts.channels == {"market_trades": 59, "l2_data": 775, "candles": 6}
    assert (counts.gaps, counts.dead, counts.duplicates, counts.out_of_order, counts.errors) == (
        0,
        0,
        0,
        0,
        0,
    )
    assert outcomes(counts) == counts.frames
    assert driver.feed.state == FeedState.LIVE
    assert not [action for action in actions if isinstance(action, Warn)]
    check_against_json(found, [data for _, data in frames])


@real
def test_a_frame_left_out_of_the_capture_is_found() -> None:
    frames = list(advanced_frames())
    for left_out in (300, 500, 1028):
        driver = advanced("BTC-USD", "ETH-USD")
        played(driver, iter(frames[:left_out] + frames[left_out + 1 :]))
        assert (driver.feed.counts.gaps, driver.feed.counts.missing) == (1, 1)


def check_against_json(found: list[Record], frames: list[bytes]) -> None:
    """Every ticker of the frames has its record, and readers read from it what the frame says."""
    tickers = [
        (message["sequence_num"], parse_time(message["timestamp"]), event["type"], ticker)
        for message in map(json.loads, frames)
        if message.get("channel") == "ticker"
        for event in message["events"]
        for ticker in event["tickers"]
    ]
    decoder = Decoder(lambda product: 8)
    block = decoder.decode(b"".join(record.line for record in found), file_conn="file:x")

    assert len(found) == len(tickers) == len(block.ticks)
    for record, (number, time, kind, ticker) in zip(found, tickers, strict=True):
        (tick,) = decode_line(record.line, lambda product: 8)
        assert (tick.frame_no, tick.ts_event, tick.snapshot) == (number, time, kind == "snapshot")
        assert (tick.product_id, tick.price) == (ticker["product_id"], scale_price(ticker["price"], 8))
        assert (tick.bid, tick.ask) == (
            scale_price(ticker["best_bid"], 8),
            scale_price(ticker["best_ask"], 8),
        )
        assert tick.volume_24h == split_quantity(ticker["volume_24_h"])
        assert tick.bid_qty == split_quantity(ticker["best_bid_quantity"])
        assert json.loads(record.line)["price"] == ticker["price"]


@real
def test_the_captured_exchange_feed_is_whole() -> None:
    frames = list(exchange_frames())
    driver = exchange(*{json.loads(data)["product_id"] for _, data in frames if b'product_id"' in data})
    _, found = played(driver, iter(frames))
    counts = driver.feed.counts

    assert counts.frames == len(frames) == outcomes(counts)
    assert (counts.tickers, counts.acks, counts.dead) == (107, 3, 0)
    assert counts.channels == {"l2update": 9719, "match": 97, "snapshot": 10, "last_match": 10}
    assert (counts.gaps, counts.duplicates, counts.out_of_order) == (0, 0, 0)
    ticks = [decode_line(record.line, lambda product: 8)[0] for record in found]
    sent = [message for _, data in frames if (message := json.loads(data))["type"] == "ticker"]
    assert [(tick.product_id, tick.ts_event, tick.price, tick.last_size) for tick in ticks] == [
        (
            message["product_id"],
            parse_time(message["time"]),
            scale_price(message["price"], 8),
            split_quantity(message["last_size"]),
        )
        for message in sent
    ]
    assert sum(tick.snapshot for tick in ticks) == 10
