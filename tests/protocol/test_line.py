"""A record's line is what a reader of recordings reads as the ticker that came."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from richter.domain import ticks as tk
from richter.domain.decimals import NotANumberError, NumberError, scale_price, split_quantity
from richter.domain.ticks import NO_TIME
from richter.protocol import decoder as decoders
from richter.protocol.decoder import Decoder
from richter.protocol.feed import Action, Dead, Record
from richter.protocol.forms import decode_line
from richter.protocol.records import Rejected
from tests.protocol.frames import (
    START,
    Driver,
    advanced,
    dump,
    exchange,
    frame,
    live,
    quote,
    records,
    ticker,
    trade,
)


def lines(actions: list[Action]) -> list[bytes]:
    return [action.line for action in actions if isinstance(action, Record)]


def test_the_line_of_a_ticker_word_for_word() -> None:
    driver = advanced()
    driver.connect()
    data = ticker(7, driver.at, kind="snapshot")
    line = lines(driver.give(data))[0]

    assert line == (
        b'{"timestamp":"2026-09-05T22:10:29.000000Z","product_id":"BTC-USD","price":"79879.1",'
        b'"volume_24h":"14152.6699","low_24h":"79445","high_24h":"80206","best_bid":"79879","best_ask":"79879.1",'
        b'"ts_event":1788646228970000000,"ts_recv":1788646229000000000,"conn_id":"conn-1","frame_no":7,'
        b'"event_index":0,"ticker_index":0,"event_type":"snapshot",'
        b'"gap_before":{"cause":"start","from":null,"missing":null},"conn_offset":-30000000,"v":1,"raw":'
        + data
        + b"}\n"
    )


def test_later_lines_take_the_scanners_fast_way(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = live()
    first = lines(driver.numbered(ticker))[0]
    decoder = Decoder(lambda product: 8)
    decoder.decode(first, file_conn="file:x")
    slow: list[bytes] = []
    monkeypatch.setattr(
        decoders, "decode_line", lambda line, *rest: slow.append(line) or decode_line(line, *rest)
    )
    data = b"".join(lines([action for _ in range(50) for action in driver.numbered(ticker)]))

    block = decoder.decode(data, file_conn="file:x")

    assert len(block.ticks) == 50
    assert slow == []


def test_each_ticker_of_a_frame_has_its_line_and_its_place() -> None:
    driver = live("BTC-USD", "ETH-USD")
    events = [
        {"type": "snapshot", "tickers": [quote("BTC-USD", "1"), quote("ETH-USD", "2")]},
        {"type": "update", "tickers": []},
        {"type": "update", "tickers": [quote("ETH-USD", "3")]},
    ]
    data = dump(
        {"channel": "ticker", "timestamp": "2026-09-05T22:10:30Z", "sequence_num": 3 + 1, "events": events}
    )
    found = lines(driver.give(data))

    assert [
        (tick["product_id"], tick["event_index"], tick["ticker_index"], tick["event_type"], tick["price"])
        for tick in map(json.loads, found)
    ] == [
        ("BTC-USD", 0, 0, "snapshot", "1"),
        ("ETH-USD", 0, 1, "snapshot", "2"),
        ("ETH-USD", 2, 0, "update", "3"),
    ]
    assert all(line.endswith(b'"raw":' + data + b"}\n") for line in found)
    ticks = [decode_line(line, lambda product: 8) for line in found]
    assert [tick[0].bid_qty for tick in ticks] == [(2, 93520000)] * 3  # read from each one's own place in raw


def test_what_is_not_the_usual_is_kept_as_it_came() -> None:
    driver = live()
    changes = {"price": 89665.10, "volume_24_h": 7, "low_24_h": None, "high_24_h": "1e3", "best_bid": ""}
    odd = quote("BTC-USD", **changes)
    del odd["best_ask"]
    data = dump(
        {
            "channel": "ticker",
            "timestamp": 1788646230,
            "sequence_num": "4",
            "events": [{"tickers": [odd]}],
            "new": {},
        }
    ).replace(b"89665.1,", b"89665.10,")
    (record,) = records(driver.give(data))

    assert [
        record[name] for name in ("price", "volume_24h", "low_24h", "high_24h", "best_bid", "best_ask")
    ] == [
        "89665.10",
        "7",
        None,
        "1e3",
        "",
        None,
    ]
    assert record["ts_event"] == 1788646230 * 10**9
    assert record["event_type"] == "update"


def test_line_breaks_become_spaces() -> None:
    driver = live()
    data = json.dumps(json.loads(ticker(4, driver.at)), indent=2).replace("\n", "\r\n").encode()
    (line,) = lines(driver.give(data))

    assert line.count(b"\n") == 1
    assert b"\r" not in line
    assert json.loads(line)["raw"] == json.loads(data)


@pytest.mark.parametrize(
    ("time", "ns"),
    [
        ("2026-09-05T22:10:30Z", 0),
        ("2026-09-05T22:10:30.5Z", 500_000_000),
        ("2026-09-05T22:10:30.123456789Z", 123_456_789),
        ("2026-09-05T22:10:30.00000001Z", 10),
        ("2026-09-05T22:10:30.257Z", 257_000_000),
    ],
)
def test_times_are_exact_to_the_nanosecond(time: str, ns: int) -> None:
    driver = live()
    data = dump(json.loads(ticker(3, 0)) | {"timestamp": time, "sequence_num": 3})

    assert records(driver.give(data))[0]["ts_event"] == 1788646230 * 10**9 + ns


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00Z", "", "yesterday", None, True, [1]])
def test_without_a_usable_time_the_receipt_counts(time: Any) -> None:
    driver = live()
    driver.wait(1)
    data = dump(json.loads(ticker(3, 0)) | {"timestamp": time})
    (record,) = records(driver.give(data))

    assert record["ts_event"] == record["ts_recv"] == START + driver.now
    assert driver.feed.counts.untimed == 1


def test_the_offset_is_that_of_the_connections_first_frame_with_a_time() -> None:
    driver = exchange()
    driver.connect()
    driver.give(b'{"type":"subscriptions","channels":[]}')
    untimed = records(driver.give(trade("BTC-USD", None, None, price="0")))
    later = [records(driver.give(trade("BTC-USD", 5 + n, START - n))) for n in range(2)]

    assert "conn_offset" not in untimed[0]
    assert [record[0]["conn_offset"] for record in later] == [0, 0]


def test_the_exchange_feeds_ticker() -> None:
    driver = exchange()
    driver.connect()
    data = trade("BTC-USD", 901997453, driver.at)
    driver.give(data)
    data = trade("BTC-USD", 901997454, driver.at)
    (line,) = lines(driver.give(data))
    (tick,) = decode_line(line, lambda product: 8)

    assert (tick.frame_no, tick.snapshot, tick.gap, tick.ts_event) == (1, False, None, driver.at)
    assert (tick.last_size, tick.bid_qty, tick.ask_qty) == ((0, 2047), (0, 2294485), (0, 172792))
    assert line.endswith(b'"raw":' + data + b"}\n")


NUMBER = st.one_of(
    st.decimals(0, 10**6, places=8).map(str),
    st.sampled_from(
        ["", " ", "0", ".5", "5.", ".", "1e-7", "-0", "-1", "NaN", "1_0", "٣", "1.2.3", "+1", "abc", "1" * 50]
    ),
    st.floats(0, 10**6),
    st.integers(-3, 10**6),
    st.none(),
    st.booleans(),
    st.just([1]),
    st.just({"a": "1"}),
)


def text_of(value: Any) -> Any:
    """A number's literal."""
    return json.dumps(value) if type(value) in (int, float) else value


def form(value: Any) -> str:
    """What a reader's own rules say: a number, none, or one that some setting allows."""
    try:
        scale_price(text_of(value), 8)
        split_quantity(text_of(value))
    except NotANumberError:
        return "bad"
    except NumberError:
        return "far"
    return "good"


@given(st.tuples(*[NUMBER] * 6))
def test_a_line_is_written_exactly_where_a_reader_reads_its_numbers(values: tuple[Any, ...]) -> None:
    driver = live()
    named = dict(
        zip(("price", "best_bid", "best_ask", "low_24_h", "high_24_h", "volume_24_h"), values, strict=True)
    )
    event = {"type": "update", "tickers": [quote("BTC-USD", **named)]}
    actions = driver.give(frame("ticker", 3, driver.at, [event]))
    forms = {form(value) for value in values}

    if "bad" in forms:
        assert [type(action) for action in actions] == [Dead]
        return
    (line,) = lines(actions)
    found = decode_line(line, lambda product: 8)
    if "far" in forms and isinstance(found, Rejected):
        assert "out of range" in found.reason or "too many decimals" in found.reason
        return
    (tick,) = found
    prices = [tick.price, tick.bid, tick.ask, tick.low_24h, tick.high_24h]
    assert prices == [scale_price(text_of(value), 8) for value in values[:5]]
    assert tick.volume_24h == split_quantity(text_of(values[5]))


@given(
    product=st.sampled_from(["BTC-USD", "00-USD", "A.B:C-9"]),
    conn_id=st.text(min_size=1, max_size=40).filter(lambda text: text.isprintable()),
    sequence=st.integers(0, 2**63 - 1),
    event=st.integers(10**9, 2**62),
    received=st.integers(0, 2**62),
    price=st.decimals(0, 10**6, places=8).map(str),
    snapshot=st.booleans(),
    last_good=st.none() | st.integers(0, 2**62),
)
def test_a_line_reads_back_as_what_it_was_made_of(
    product: str,
    conn_id: str,
    sequence: int,
    event: int,
    received: int,
    price: str,
    snapshot: bool,
    last_good: int | None,
) -> None:
    driver = advanced(product, last_good={} if last_good is None else {product: last_good})
    driver.feed.connect(conn_id, 0)
    driver.feed.opened(0)
    data = ticker(sequence, event, product, kind="snapshot" if snapshot else "update", price=price)
    (line,) = lines(driver.feed.receive(data, received, 0))
    (tick,) = decode_line(line, lambda name: 8)

    assert (tick.product_id, tick.conn_id, tick.frame_no, tick.ts_event, tick.ts_recv) == (
        product,
        conn_id,
        sequence,
        event,
        received,
    )
    assert (tick.snapshot, tick.conn_offset) == (snapshot, event - received)
    assert tick.gap is not None
    assert tick.gap.from_ns == (NO_TIME if last_good is None else last_good)
    assert tick.price == scale_price(price, 8)
    assert json.loads(line)["raw"] == json.loads(data)

    decoder = Decoder(lambda name: 8)
    row = decoder.decode(line, file_conn="file:x").ticks[0]
    assert row[[tk.TS_EVENT, tk.TS_RECV, tk.FRAME_NO, tk.PRICE]].tolist() == [
        event,
        received,
        sequence,
        tick.price,
    ]
    assert isinstance(row, np.ndarray)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda data: data.replace(b'"new":1', b'"new":"\xff"'), "not UTF-8"),
        (lambda data: data.replace(b'"new":1', b'"new":' + b"[" * 100 + b"]" * 100), "nested too deeply"),
        (lambda data: data.replace(b'"new":1', b'"new":' + b"[" * 9000 + b"]" * 9000), "nested too deeply"),
        (lambda data: data.replace(b'"new":1', b'"new":01'), "not JSON"),
        (lambda data: data.replace(b'"new":1', b'"new":"a\nb"'), "not JSON"),
        (lambda data: data + b"}", "not JSON"),
        (lambda data: b"[" + data + b"]", "not an object"),
        (lambda data: b"", "not JSON"),
        (
            lambda data: data.replace(b'"sequence_num":3', b'"sequence_num":-3'),
            "sequence_num is no number of a frame",
        ),
        (lambda data: data.replace(b'"sequence_num":3,', b""), "no sequence_num"),
        (
            lambda data: data.replace(b'"channel":"ticker"', b'"chan":"ticker"'),
            "neither a channel nor an error",
        ),
        (lambda data: data.replace(b'"product_id"', b'"product"'), "a ticker without product_id"),
        (lambda data: data.replace(b"BTC-USD", b"BTC-EUR"), "a ticker of a product that is not wanted"),
        (lambda data: data.replace(b'"events"', b'"event"'), "no list of events"),
    ],
)
def test_what_no_reader_would_read_is_a_dead_letter(change: Any, reason: str) -> None:
    driver = live()
    data = change(ticker(3, driver.at)[:-1] + b',"new":1}')
    actions = driver.give(data)

    assert [(action.reason) for action in actions if isinstance(action, Dead)] == [reason]
    assert lines(actions) == []
    assert driver.feed.counts.dead == 1


def test_a_name_in_another_script_is_recorded() -> None:
    driver = live()
    data = ticker(3, driver.at)[:-1] + ',"new":"χρόνος"}'.encode()

    assert records(driver.give(data))[0]["raw"]["new"] == "χρόνος"


def test_text_of_the_feed_does_not_reach_the_form_of_the_line() -> None:
    driver: Driver = advanced()
    driver.feed.connect('100%d "quoted"', 0)
    driver.feed.opened(0)

    assert records(driver.give(ticker(1, driver.at)))[0]["conn_id"] == '100%d "quoted"'
