import json
import os
from collections import Counter
from pathlib import Path

import msgspec
import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from richter.domain import ticks
from richter.domain.ticks import NO_TIME, TICK_COLUMNS, UNKNOWN, Gap, GapCause
from richter.domain.times import parse_time
from richter.protocol.forms import decode_line
from richter.protocol.records import Ignored, Rejected, TickRecord, fill_row

DATA = Path(__file__).parents[2] / "shared" / "data"
UNKNOWN_QUANTITY = (UNKNOWN, 0)

EXCHANGE_TIME = "2026-09-05T22:10:29.562008293Z"
EXCHANGE_NS = 1788646229_562008293
CAPTURE_TIME = "2026-09-05T22:10:29.600123"
CAPTURE_NS = 1788646229_600123000

# The shapes are those of Coinbase's feeds, the values made up.
TICKER = {
    "type": "ticker",
    "product_id": "BTC-USD",
    "price": "79879.1",
    "volume_24_h": "14152.6899",
    "low_24_h": "79445",
    "high_24_h": "80206",
    "low_52_w": "57705.8",
    "high_52_w": "126340.3",
    "price_percent_chg_24_h": "0.25541069034937",
    "best_bid": "79879",
    "best_ask": "79879.1",
    "best_bid_quantity": "2.9352",
    "best_ask_quantity": "1.7389",
}
OTHER_TICKER = TICKER | {"product_id": "ETH-USD", "price": "2053.5", "best_bid_quantity": "7"}
EXCHANGE = {
    "type": "ticker",
    "sequence": 115662765327,
    "product_id": "BTC-USD",
    "price": "79879.1",
    "open_24h": "79000",
    "volume_24h": "14152.6899",
    "low_24h": "79445",
    "high_24h": "80206",
    "volume_30d": "221024.37988824",
    "best_bid": "79879",
    "best_bid_size": "2.9352",
    "best_ask": "79879.1",
    "best_ask_size": "1.7389",
    "side": "buy",
    "time": EXCHANGE_TIME,
    "trade_id": 901997453,
    "last_size": "0.00002047",
}
FLAT = {
    "product_id": "BTC-USD",
    "price": "79879.1",
    "volume_24h": "14152.6899",
    "low_24h": "79445",
    "high_24h": "80206",
    "best_bid": "79879",
    "best_ask": "79879.1",
}
HEARTBEAT = {
    "channel": "heartbeats",
    "timestamp": EXCHANGE_TIME,
    "sequence_num": 4,
    "events": [
        {
            "current_time": "2026-09-05 22:10:30.25788961 +0000 UTC m=+139651.272674714",
            "heartbeat_counter": 139651,
        }
    ],
}


def envelope(*events, **fields):
    """Make a frame out of `(event type, tickers)`."""
    events = events or (("update", [TICKER]),)
    made = [{"type": kind, "tickers": tickers} for kind, tickers in events]
    return {"channel": "ticker", "timestamp": EXCHANGE_TIME, "sequence_num": 6, "events": made} | fields


def seed(raw=TICKER, **fields):
    return {"timestamp": CAPTURE_TIME} | FLAT | {"raw": raw} | fields


def ours(raw=None, **fields):
    return (
        {"timestamp": CAPTURE_TIME + "Z"}
        | FLAT
        | {
            "ts_event": EXCHANGE_NS,
            "ts_recv": CAPTURE_NS,
            "conn_id": "7f3a",
            "frame_no": 6,
            "event_index": 0,
            "ticker_index": 0,
            "event_type": "update",
            "gap_before": None,
            "v": 1,
            "raw": envelope() if raw is None else raw,
        }
        | fields
    )


def line(value):
    return json.dumps(value).encode() + b"\n"


def decode(value, line_no=7, decimals=8):
    return decode_line(value if isinstance(value, bytes) else line(value), lambda product: decimals, line_no)


def tick(value, **keywords):
    """Return the one tick of a line."""
    decoded = decode(value, **keywords)
    assert isinstance(decoded, list), decoded
    [record] = decoded
    return record


def changed(record, **fields):
    return msgspec.structs.replace(record, **fields)


BARE = TickRecord(
    product_id="BTC-USD",
    conn_id=None,
    frame_no=7,
    event_index=0,
    ticker_index=0,
    ts_event=EXCHANGE_NS,
    ts_recv=NO_TIME,
    snapshot=False,
    gap=None,
    conn_offset=None,
    price=7_987_910_000_000,
    bid=7_987_900_000_000,
    ask=7_987_910_000_000,
    low_24h=7_944_500_000_000,
    high_24h=8_020_600_000_000,
    volume_24h=(14152, 68_990_000),
    last_size=UNKNOWN_QUANTITY,
    bid_qty=(2, 93_520_000),
    ask_qty=(1, 73_890_000),
)
CAPTURED = changed(BARE, ts_event=CAPTURE_NS, ts_recv=CAPTURE_NS)
BOTH_TIMES = changed(BARE, ts_recv=CAPTURE_NS)
OURS = changed(BOTH_TIMES, conn_id="7f3a", frame_no=6)
NO_SIZES = {"bid_qty": UNKNOWN_QUANTITY, "ask_qty": UNKNOWN_QUANTITY}


# Our records.


def test_our_record_is_read_with_times_identity_and_the_sizes_of_its_raw_message():
    assert tick(ours()) == OURS


def test_our_records_indexes_choose_the_ticker_of_a_frame_with_several():
    frame = envelope(("update", [OTHER_TICKER]), ("update", [OTHER_TICKER, TICKER]))

    record = tick(ours(frame, event_index=1, ticker_index=1))

    assert record == changed(OURS, event_index=1, ticker_index=1)
    assert tick(ours(frame, event_index=2)) == changed(OURS, event_index=2, **NO_SIZES)


def test_our_record_of_the_exchange_feed_has_its_trades_size():
    record = tick(ours(EXCHANGE, event_index=0, ticker_index=0))

    assert record == changed(OURS, last_size=(0, 2047))


@pytest.mark.parametrize(
    ("gap_before", "gap"),
    [
        ({"cause": "start", "from": None, "missing": None}, Gap(GapCause.START)),
        ({"cause": "sequence", "from": 5, "missing": 3}, Gap(GapCause.SEQUENCE, 5, 3)),
        ({"cause": "reconnect", "from": EXCHANGE_TIME}, Gap(GapCause.RECONNECT, EXCHANGE_NS)),
        ({"cause": "overflow", "from": EXCHANGE_NS, "missing": 0}, Gap(GapCause.OVERFLOW, EXCHANGE_NS, 0)),
        ({"cause": "clock"}, Gap(GapCause.CLOCK)),
    ],
)
def test_our_records_gap_is_read_with_cause_time_and_number(gap_before, gap):
    assert tick(ours(gap_before=gap_before)).gap == gap


def test_our_records_offset_may_be_negative():
    assert tick(ours(conn_offset=-17)).conn_offset == -17


def test_our_snapshot_is_marked():
    assert tick(ours(event_type="snapshot")).snapshot


def test_our_record_without_an_exchange_time_happened_when_it_was_received():
    assert tick(ours(ts_event=None)) == changed(OURS, ts_event=CAPTURE_NS)


@pytest.mark.parametrize("raw", [{}, "no JSON", "{'type': 'ticker'}", [1], {"events": [{"tickers": 5}]}])
def test_our_record_stands_without_sizes_where_raw_cannot_be_read(raw):
    assert tick(ours(raw)) == changed(OURS, **NO_SIZES)


def test_our_record_may_have_a_field_that_is_not_known_yet():
    assert tick(ours(note="hello")) == OURS


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"v": 2}, "version 2"),
        ({"v": None}, "version None"),
        ({"conn_id": ""}, "conn_id"),
        ({"frame_no": -1}, "frame_no"),
        ({"frame_no": 2**63}, "frame_no"),
        ({"frame_no": "6"}, "frame_no"),
        ({"ts_event": -5}, "ts_event"),
        ({"ts_event": None, "ts_recv": None, "timestamp": None}, "no usable time"),
        ({"gap_before": {"cause": "moon"}}, "unknown cause in gap_before: 'moon'"),
        ({"gap_before": {"cause": "start", "from": "never"}}, "unreadable time in gap_before"),
        ({"gap_before": {"cause": "start", "from": 2**63}}, "unreadable time in gap_before"),
        ({"gap_before": {"cause": "start", "missing": -1}}, "gap_before.missing"),
    ],
)
def test_our_record_with_a_broken_field_is_rejected_by_name(fields, reason):
    decoded = decode(ours(**fields))

    assert isinstance(decoded, Rejected)
    assert reason in decoded.reason


# The course's records and other recorders'.


def test_a_record_with_the_ticker_alone_happened_when_it_was_captured():
    assert tick(seed()) == CAPTURED


def test_a_record_with_the_whole_envelope_happened_at_the_exchanges_time():
    assert tick(seed(envelope())) == BOTH_TIMES


def test_a_record_of_a_snapshot_envelope_is_a_snapshot():
    assert tick(seed(envelope(("snapshot", [TICKER])))) == changed(BOTH_TIMES, snapshot=True)


def test_a_record_finds_its_product_among_the_tickers_of_its_envelope():
    frame = envelope(("update", [OTHER_TICKER, TICKER | {"price": "1", "best_bid_quantity": "5"}, TICKER]))

    assert tick(seed(frame)) == BOTH_TIMES
    assert tick(seed(envelope(("update", [OTHER_TICKER])))) == changed(BOTH_TIMES, **NO_SIZES)


def test_a_record_with_an_exchange_message_happened_at_that_messages_time():
    assert tick(seed(EXCHANGE)) == changed(BOTH_TIMES, last_size=(0, 2047))


@pytest.mark.parametrize("raw", [TICKER, envelope()])
def test_a_records_raw_message_may_be_json_text(raw):
    expected = tick(seed(raw))

    assert tick(seed(json.dumps(raw))) == expected
    assert tick(seed(json.dumps(json.dumps(raw)))) == expected


@pytest.mark.parametrize("raw", [None, "", "lost", "{'type': 'ticker'}", 5, []])
def test_a_record_stands_without_sizes_where_raw_cannot_be_read(raw):
    assert tick(seed(raw)) == changed(CAPTURED, **NO_SIZES)


def test_a_record_needs_no_raw_message():
    assert tick({"timestamp": CAPTURE_TIME} | FLAT) == changed(CAPTURED, **NO_SIZES)


def test_what_a_record_lacks_is_taken_from_its_raw_message():
    assert tick(seed(low_24h=None, high_24h="", volume_24h=None)) == CAPTURED
    assert tick({"timestamp": CAPTURE_TIME, "price": "79879.1", "raw": TICKER}) == CAPTURED


def test_an_exchange_time_of_the_year_one_is_passed_over():
    assert tick(seed(envelope(timestamp="0001-01-01T00:00:00Z"))) == CAPTURED


def test_numbers_count_like_texts():
    numbers = {name: float(value) for name, value in FLAT.items() if name != "product_id"}

    record = tick({"ts": CAPTURE_TIME + "+00:00", "product_id": "BTC-USD"} | numbers)

    assert record == changed(CAPTURED, **NO_SIZES)
    assert tick(seed(**numbers)) == CAPTURED


def test_a_volume_of_zero_is_known():
    assert tick({"ts": CAPTURE_TIME, "volume_24h": 0.0, "product_id": "X", "price": 1}).volume_24h == (0, 0)


RAWS = (
    *(TICKER, EXCHANGE, None, {}),
    TICKER | {"best_bid_quantity": 0, "best_bid_size": "3"},
    TICKER | {"time": 5e18},
    envelope(),
    envelope(timestamp=0),
    envelope(("snapshot", [TICKER])),
    envelope(("update", [OTHER_TICKER])),
    envelope(("update", [TICKER]), ("update", [TICKER])),
)
VARIANTS = (
    *({}, {"price": 0}, {"price": ""}, {"best_bid": None}, {"low_24h": None}, {"volume_24h": ""}),
    *({"timestamp": 1.6e9}, {"timestamp": "never"}, {"ts_event": 5, "ts_recv": 6}, {"product_id": "btc_usd"}),
    *({"v": 1}, {"v": 1, "frame_no": 3}, {"conn_id": "a"}, {"event_type": "snapshot"}),
    *({"price": "x"}, {"low_24h": "0.000000001"}),
)


@pytest.mark.parametrize("raw", RAWS)
@pytest.mark.parametrize("fields", VARIANTS)
def test_the_fast_and_the_slow_way_agree(raw, fields):
    # A field that is not known leads to the slow way.
    for record in (seed(raw, **fields), ours(raw, **fields)):
        assert decode(record) == decode(record | {"note": 1})


def test_a_number_beyond_float64_matters_only_where_it_is_read():
    assert tick(line(seed({"sequence": "HUGE"} | TICKER)).replace(b'"HUGE"', b"1e999")) == CAPTURED
    assert tick(line(seed(note="HUGE")).replace(b'"HUGE"', b"1e999")) == CAPTURED
    assert decode(line(seed(price="HUGE")).replace(b'"HUGE"', b"1e999")) == Rejected(
        "BTC-USD: price inf: not a number"
    )


@pytest.mark.parametrize("name", ["product_id", "product", "symbol", "pair", "instrument"])
@pytest.mark.parametrize("product", ["BTC-USD", "btc-usd", "BTC/USD", "btc_usd", " BTC-USD "])
def test_a_product_is_known_by_any_of_its_names(name, product):
    record = {key: value for key, value in FLAT.items() if key != "product_id"} | {
        name: product,
        "ts": CAPTURE_TIME,
    }

    assert tick(record).product_id == "BTC-USD"


def test_a_product_without_a_divider_is_left_alone():
    assert tick(seed(None, product_id="btcusd")).product_id == "BTCUSD"


def test_the_names_of_other_recorders_are_understood():
    record = {
        "event_time": EXCHANGE_TIME,
        "received_at": CAPTURE_NS,
        "symbol": "BTC/USD",
        "last": 79879.1,
        "bid": 79879,
        "ask": 79879.1,
        "low": "79445",
        "high_24_h": "80206",
        "volume": "14152.6899",
        "bid_size": 2.9352,
        "ask_size": 1.7389,
    }

    assert tick(record) == BOTH_TIMES


# Coinbase's own messages, bare and wrapped.


def test_a_bare_envelope_gives_every_ticker_of_every_event():
    frame = envelope(("snapshot", [TICKER, OTHER_TICKER]), ("update", [TICKER]))

    decoded = decode(frame)

    assert isinstance(decoded, list)
    assert decoded[0] == changed(BARE, snapshot=True)
    assert decoded[1] == changed(
        BARE, snapshot=True, product_id="ETH-USD", price=205_350_000_000, bid_qty=(7, 0), ticker_index=1
    )
    assert decoded[2] == changed(BARE, event_index=1)


def test_a_batch_without_quotes_has_a_price():
    short = {name: TICKER[name] for name in ("product_id", "price")}

    record = tick(envelope(("update", [short]), channel="ticker_batch"))

    assert (record.price, record.bid, record.ask) == (BARE.price, UNKNOWN, UNKNOWN)


def test_an_exchange_ticker_happened_at_its_time():
    assert tick(EXCHANGE) == changed(BARE, last_size=(0, 2047))


def test_an_exchange_ticker_that_never_traded_is_a_tick_where_somebody_wrote_down_when_it_came():
    untraded = {name: EXCHANGE[name] for name in EXCHANGE if name not in ("time", "trade_id", "last_size")}
    untraded["price"] = "0"

    record = tick({"ts_recv": CAPTURE_NS, "data": untraded})

    assert record == changed(CAPTURED, price=0)
    assert decode(untraded) == Rejected("no usable time")


@pytest.mark.parametrize("key", ["data", "message", "msg", "payload", "raw", "envelope", "value", "anything"])
@pytest.mark.parametrize("frame", [envelope(), EXCHANGE], ids=["envelope", "exchange"])
def test_a_message_may_be_wrapped_under_another_key(key, frame):
    expected = changed(tick(frame), ts_recv=CAPTURE_NS)

    assert tick({"received": True, "ts": CAPTURE_NS / 1e9, key: frame}).ts_event == EXCHANGE_NS
    assert tick({"ts": CAPTURE_TIME, "meta": {"a": 1}, key: frame}) == expected


@pytest.mark.parametrize("key", ["data", "message", "payload", "raw"])
@pytest.mark.parametrize("frame", [envelope(), EXCHANGE], ids=["envelope", "exchange"])
def test_a_wrapped_message_may_be_text_and_wrapped_again(key, frame):
    expected = changed(tick(frame), ts_recv=CAPTURE_NS)

    assert tick({"ts": CAPTURE_TIME, "data": {key: json.dumps(frame)}}) == expected
    assert tick({"ts": CAPTURE_TIME, key: json.dumps({"data": frame})}) == expected


def test_a_wrapper_may_name_the_product():
    inner = {name: value for name, value in FLAT.items() if name != "product_id"}

    assert tick({"symbol": "btc-usd", "ts": CAPTURE_TIME, "data": inner}) == changed(CAPTURED, **NO_SIZES)


def test_our_records_and_the_courses_survive_a_dump_of_kafka():
    dump = {"topic": "ticks.raw", "partition": 0, "offset": 5, "key": "BTC-USD", "timestamp": 1788646229700}

    assert tick(dump | {"value": json.dumps(ours())}) == OURS
    assert tick(dump | {"value": json.dumps(seed())}) == changed(CAPTURED, ts_recv=1788646229_700000000)


def test_a_line_may_be_json_inside_a_json_string():
    for value, expected in ((envelope(), BARE), (seed(), CAPTURED), (ours(), OURS)):
        assert tick(json.dumps(value)) == expected
        assert tick(json.dumps(json.dumps(value))) == expected


def test_a_line_of_a_cryptofeed_recording_has_its_receive_time():
    entry = {"t": "recv", "conn": "COINBASE.ws.2", "ts": 1788646229.600123, "data": json.dumps(envelope())}

    assert tick(entry) == BOTH_TIMES
    assert decode(entry | {"data": json.dumps(HEARTBEAT)}) == Ignored("heartbeats")


@pytest.mark.parametrize("entry", ["header", "http", "connect", "send"])
def test_other_lines_of_a_cryptofeed_recording_are_ignored(entry):
    data = json.dumps(
        {"products": [{"product_id": "BTC-USD", "price": "1"}], "type": "subscribe", "channel": "ticker"}
    )

    assert decode({"t": entry, "conn": "COINBASE.ws.2", "ts": 1788646229.6, "data": data}) == Ignored(entry)
    assert decode({"t": entry, "format": 2, "exchange": "COINBASE"}) == Ignored(entry)


@pytest.mark.parametrize(
    "prefix", ["1788646229.600123: ", "1788646229600.123 ", f"{CAPTURE_TIME}Z ", f"{CAPTURE_TIME}:\t"]
)
def test_a_frame_may_stand_behind_its_receive_time(prefix):
    assert tick(prefix.encode() + line(envelope())) == BOTH_TIMES
    assert tick(prefix.encode() + line(json.dumps(EXCHANGE))) == changed(BOTH_TIMES, last_size=(0, 2047))


def test_frames_that_were_sent_are_ignored():
    subscribe = line({"type": "subscribe", "product_ids": ["BTC-USD"], "channels": ["ticker"]})

    assert decode(b"wss://ws-feed.pro.coinbase.com <- 1618677817.020779: " + subscribe) == Ignored("send")
    assert decode(b"wss://ws-feed.pro.coinbase.com <-> 1618677816.8434298\n") == Ignored("connect")
    assert decode(b"https://api.pro.coinbase.com/products -> 1618677816.1: []") == Ignored("http")
    assert decode(subscribe) == Ignored("subscribe")


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (HEARTBEAT, "heartbeats"),
        (
            {"channel": "subscriptions", "events": [{"subscriptions": {"ticker": []}}]},
            "subscriptions",
        ),
        (
            {"channel": "l2_data", "events": [{"type": "snapshot", "updates": []}]},
            "l2_data",
        ),
        ({"channel": "market_trades", "events": [{"trades": [{"price": "1"}]}]}, "market_trades"),
        ({"channel": "ticker", "events": []}, "ticker"),
        ({"channel": "ticker", "events": [{"type": "update", "tickers": []}]}, "ticker"),
        ({"channel": "new", "events": [{}]}, "other channel"),
        ({"type": "heartbeat", "sequence": 90, "product_id": "BTC-USD", "time": EXCHANGE_TIME}, "heartbeat"),
        ({"type": "subscriptions", "channels": [{"name": "ticker"}]}, "subscriptions"),
        (
            {"type": "match", "product_id": "BTC-USD", "price": "1", "time": EXCHANGE_TIME},
            "match",
        ),
        ({"type": "last_match", "product_id": "BTC-USD", "price": "1", "time": EXCHANGE_TIME}, "last_match"),
        ({"type": "snapshot", "product_id": "BTC-USD", "asks": [["1", "1"]], "bids": []}, "snapshot"),
        ({"type": "l2update", "product_id": "BTC-USD", "changes": [["sell", "1", "1"]]}, "l2update"),
        ({"type": "error", "message": "authentication failure"}, "error"),
    ],
)
def test_messages_without_a_ticker_are_ignored_by_name(message, kind):
    assert decode(message) == Ignored(kind)
    assert decode({"ts": 1788646229.6, "data": json.dumps(message)}) == Ignored(kind)


@pytest.mark.parametrize("blank", [b"", b"\n", b" \r\n", b"\xef\xbb\xbf\n"])
def test_a_blank_line_is_ignored(blank):
    assert decode(blank) == Ignored("blank")


def test_a_byte_order_mark_and_foreign_line_ends_do_no_harm():
    assert tick(b"\xef\xbb\xbf  " + line(seed()).strip() + b"\r\n") == CAPTURED


# What is no reason to reject, and what is.


@pytest.mark.parametrize(
    ("bid", "ask", "scaled"),
    [
        ("", "", (UNKNOWN, UNKNOWN)),
        (None, "1", (UNKNOWN, 10**8)),
        ("0", 0, (0, 0)),
        ("2", "1", (2 * 10**8, 10**8)),
    ],
)
def test_an_empty_zero_or_crossed_quote_is_kept(bid, ask, scaled):
    for record in (seed({}, best_bid=bid, best_ask=ask), ours(best_bid=bid, best_ask=ask)):
        kept = tick(record)
        assert (kept.bid, kept.ask) == scaled


@pytest.mark.parametrize("make", [seed, ours, lambda **fields: envelope(("update", [TICKER | fields]))])
@pytest.mark.parametrize(
    ("fields", "decimals", "reason"),
    [
        ({"price": "abc"}, 8, "BTC-USD: price 'abc': not a number"),
        ({"best_bid": "-1"}, 8, "BTC-USD: best_bid '-1': not a number"),
        ({"price": "1.005"}, 2, "BTC-USD: price '1.005': too many decimals for price_decimals 2"),
        ({"price": "90071993"}, 8, "BTC-USD: price '90071993': out of range for price_decimals 8"),
    ],
)
def test_an_unreadable_price_is_rejected_with_product_value_and_setting(make, fields, decimals, reason):
    assert decode(make(**fields), decimals=decimals) == Rejected(reason)


def test_a_price_of_another_type_is_rejected():
    assert decode(seed(best_ask=True)) == Rejected("BTC-USD: best_ask True: not a number")
    assert decode(seed(best_ask={"a": 1})) == Rejected("BTC-USD: best_ask an object: not a number")
    assert isinstance(decode(ours(best_ask=True)), Rejected)


def test_an_unreadable_quantity_is_rejected_like_a_price():
    assert decode(seed(volume_24h="1e13")) == Rejected("BTC-USD: volume_24h '1e13': out of range")


def test_each_product_has_its_own_decimals():
    frame = envelope(("update", [TICKER, OTHER_TICKER]))

    decoded = decode_line(line(frame), {"BTC-USD": 1, "ETH-USD": 2}.__getitem__)

    assert isinstance(decoded, list)
    assert [record.price for record in decoded] == [798_791, 205_350]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"ts": CAPTURE_TIME, "price": "1"}, "no product in this record"),
        (seed({}, product_id="") | {"raw": {}}, "not a product: ''"),
        (seed({}, product_id="../../etc"), "not a product: '../../etc'"),
        (seed({}, product_id="B\x00"), "not a product: 'B\\x00'"),
        (seed({}, product_id=5), "not a product: 5"),
        (FLAT, "no usable time"),
        (seed(timestamp="soon"), "no usable time"),
        (seed(timestamp="0001-01-01T00:00:00Z"), "no usable time"),
        (seed(timestamp=None), "no usable time"),
        ({"hello": "world"}, "no ticker in this record"),
        ({}, "no ticker in this record"),
        ({"ts": CAPTURE_TIME, "product_id": "BTC-USD"}, "no ticker in this record"),
        ({"data": {"data": {"data": 5}}}, "no ticker in this record"),
        ({"events": []}, "no ticker in this record"),
        ([TICKER], "not an object"),
        (5, "not an object"),
        (None, "not an object"),
        ("hello", "not JSON: a text, 'hello'"),
        (b"hello", "not JSON"),
        (b'{"timestamp":"2026-09-05T22:10:29Z","produ', "not JSON"),
        (b'{"price": NaN}', "not JSON"),
        (line(seed()) + line(seed()), "not JSON"),
        (line(seed()).strip() + b"\0\0", "not JSON"),
        (b"\0" * 4096, "NUL bytes"),
        (b'{"product_id":"\xff"}', "not UTF-8"),
        (line(seed()).replace(b"0.2554", b"\xff\xfe"), "not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested too deeply"),
        (line(seed("DEEP")).replace(b'"DEEP"', b"[" * 2000 + b"]" * 2000), "nested too deeply"),
        (line(ours("DEEP")).replace(b'"DEEP"', b"[{}," * 200 + b"0" + b"]" * 200), "nested too deeply"),
    ],
)
def test_what_cannot_be_read_is_rejected_with_its_reason(value, reason):
    assert decode(value) == Rejected(reason)


def test_a_wide_message_is_not_taken_for_a_deep_one():
    levels = [["1.5", 'quoted " [[[ {{{ \\']] * 5000

    assert decode({"type": "snapshot", "product_id": "BTC-USD", "asks": levels}) == Ignored("snapshot")


def test_json_wrapped_in_json_ends_somewhere():
    value = envelope()
    for _ in range(12):
        value = {"data": value}

    assert decode(value) == Rejected("nested too deeply")


# Rows.


def test_a_row_holds_every_number_in_its_column():
    record = changed(OURS, snapshot=True, gap=Gap(GapCause.SEQUENCE, 5, 3), last_size=(3, 4), event_index=8)
    block = np.full((3, TICK_COLUMNS), -77, dtype=np.int64)

    fill_row(block[1], record, conn_code=11, product_code=12)

    assert (block[[0, 2]] == -77).all()
    expected = {
        ticks.TS_EVENT: EXCHANGE_NS,
        ticks.TS_RECV: CAPTURE_NS,
        ticks.CONN: 11,
        ticks.FRAME_NO: 6,
        ticks.EVENT_INDEX: 8,
        ticks.TICKER_INDEX: 0,
        ticks.PRODUCT: 12,
        ticks.SNAPSHOT: 1,
        ticks.GAP_CAUSE: 3,
        ticks.GAP_FROM: 5,
        ticks.GAP_MISSING: 3,
        ticks.PRICE: record.price,
        ticks.BID: record.bid,
        ticks.ASK: record.ask,
        ticks.LOW_24H: record.low_24h,
        ticks.HIGH_24H: record.high_24h,
        ticks.VOLUME_24H_U: 14152,
        ticks.VOLUME_24H_F: 68_990_000,
        ticks.LAST_SIZE_U: 3,
        ticks.LAST_SIZE_F: 4,
        ticks.BID_QTY_U: 2,
        ticks.BID_QTY_F: 93_520_000,
        ticks.ASK_QTY_U: 1,
        ticks.ASK_QTY_F: 73_890_000,
    }
    assert dict(enumerate(block[1].tolist())) == expected


def test_what_is_unknown_is_unknown_in_the_row():
    row = np.zeros(TICK_COLUMNS, dtype=np.int64)

    fill_row(row, changed(BARE, bid=UNKNOWN), 0, 0)

    assert row[[ticks.TS_RECV, ticks.GAP_FROM]].tolist() == [NO_TIME, NO_TIME]
    assert row[[ticks.BID, ticks.GAP_CAUSE, ticks.GAP_MISSING]].tolist() == [UNKNOWN, 0, UNKNOWN]
    assert row[[ticks.LAST_SIZE_U, ticks.LAST_SIZE_F]].tolist() == [UNKNOWN, 0]


# Whatever the bytes.

VALID = [line(value) for value in (ours(), seed(), seed(envelope()), envelope(), EXCHANGE)]
VALID += [line({"data": json.dumps(envelope())}), b"1788646229.600123: " + line(EXCHANGE)]

finite = st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | finite | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
field_names = st.sampled_from(
    sorted({*ours(), *TICKER, *EXCHANGE, "events", "tickers", "data", "ts", "channel", "t"})
)
scraps = st.binary(max_size=4) | st.sampled_from([b'"', b"{", b"}", b"[", b"\\", b"1e9"])


def is_sound(decoded):
    if isinstance(decoded, list):
        row = np.zeros(TICK_COLUMNS, dtype=np.int64)
        for record in decoded:
            fill_row(row, record, 0, 0)
            assert record.ts_event >= 0
        return bool(decoded)
    return bool(decoded.kind if isinstance(decoded, Ignored) else decoded.reason)


@given(st.binary())
def test_any_bytes_are_answered(data):
    assert is_sound(decode(data))


@given(st.sampled_from(VALID), st.data())
@settings(max_examples=400)
def test_a_damaged_line_is_answered(good, data):
    damaged = bytearray(good)
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(damaged)))
        end = min(len(damaged), start + data.draw(st.integers(0, 6)))
        damaged[start:end] = data.draw(scraps)

    assert is_sound(decode(bytes(damaged)))


@given(st.dictionaries(field_names, json_values), st.sampled_from([{}, seed(), ours(), EXCHANGE, envelope()]))
@settings(max_examples=400)
def test_fields_of_the_wrong_type_are_answered(fields, record):
    assert is_sound(decode(record | fields))
    assert is_sound(decode({"data": record | fields}))
    assert is_sound(decode(seed(record | fields)))
    assert is_sound(decode(envelope(("update", [record | fields]))))


@given(st.integers(0, 2**53 - 1), st.integers(0, 2**53 - 1), st.integers(1, 2**63 - 1))
def test_a_record_gives_back_the_numbers_that_it_was_made_of(bid, ask, ns):
    def text(scaled):
        return f"{scaled // 10**8}.{scaled % 10**8:08}"

    record = tick(ours(best_bid=text(bid), best_ask=text(ask), ts_event=ns))

    assert (record.bid, record.ask, record.ts_event) == (bid, ask, ns)


# The recordings.


@pytest.fixture
def recorded():
    """Count what the lines of a recording are."""
    if not DATA.is_dir():
        if os.environ.get("CI") == "true":
            pytest.fail(f"the recordings are not at {DATA}")
        pytest.skip(f"no recordings at {DATA}")

    def count(pattern):
        counts = Counter()
        for path in sorted(DATA.glob(pattern)):
            data = path.read_bytes()
            if path.suffix == ".zst":
                data = zstandard.ZstdDecompressor().decompressobj().decompress(data)
            for number, text in enumerate(data.splitlines()):
                decoded = decode(text, number)
                if isinstance(decoded, list):
                    counts["ticks"] += len(decoded)
                else:
                    counts[decoded.kind if isinstance(decoded, Ignored) else decoded.reason] += 1
        return counts

    return count


def test_every_line_of_the_coinbase_recordings_is_a_tick(recorded):
    assert recorded("coinbase/*.ndjson") == {"ticks": 73_663}


def test_every_line_of_the_recording_with_numbers_is_a_tick(recorded):
    assert recorded("coinbase_numbers.ndjson") == {"ticks": 5_028}


def test_every_line_of_the_gemini_recordings_is_a_tick(recorded):
    assert recorded("gemini/*.ndjson") == {"ticks": 143_594}


def test_every_frame_of_advanced_trade_is_accounted_for(recorded):
    assert recorded("frames/advanced_trade_25s.jsonl.zst") == {
        "ticks": 160,
        "heartbeats": 25,
        "market_trades": 59,
        "l2_data": 775,
        "candles": 6,
        "subscriptions": 5,
        "header": 1,
        "http": 1,
        "connect": 1,
        "send": 5,
    }


def test_every_frame_of_the_exchange_feed_is_accounted_for(recorded):
    assert recorded("frames/exchange_2021_31s.ws") == {
        "ticks": 107,
        "l2update": 9_719,
        "match": 97,
        "last_match": 10,
        "snapshot": 10,
        "subscriptions": 3,
        "connect": 1,
        "send": 3,
        "blank": 2,
    }


def test_the_times_in_these_tests_are_what_they_say():
    assert (parse_time(EXCHANGE_TIME), parse_time(CAPTURE_TIME)) == (EXCHANGE_NS, CAPTURE_NS)
