"""Recorded lines become records: one for each product of a line, with the identity that a reader needs."""

from __future__ import annotations

import json
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from richter.domain.ticks import NO_TIME
from richter.protocol.decoder import Decoder
from richter.runtime.tick_records import Elapsed, TickLine, tick_lines
from tests.tick_values import START_NS, tick_value

TIME = "2026-09-05T18:10:30Z"


def envelope(sequence: int, *products: str) -> bytes:
    """A bare message of the exchange, with a ticker of each of these products."""
    tickers = [
        {
            "type": "ticker",
            "product_id": product,
            "price": "100",
            "volume_24_h": "5",
            "low_24_h": "90",
            "high_24_h": "110",
            "best_bid": "99",
            "best_ask": "101",
        }
        for product in products
    ]
    return json.dumps(
        {
            "channel": "ticker",
            "timestamp": TIME,
            "sequence_num": sequence,
            "events": [{"type": "update", "tickers": tickers}],
        }
    ).encode()


def lines_of(data: bytes, *, conn: str = "file:abc", first_line: int = 1) -> list[TickLine]:
    decoder = Decoder(lambda product: 8)
    block = decoder.decode(data, file_conn=conn, first_line=first_line)
    return list(tick_lines(block, data, decoder.state, "source.ndjson"))


def test_a_recorded_line_carries_its_product_its_identity_and_its_times():
    value = tick_value(7, "ETH-USD")

    (line,) = lines_of(value + b"\n")

    assert line.key == b"ETH-USD"
    assert line.value == value
    assert line.headers == [
        ("schema", b"richter.tick/1"),
        ("connection", b"conn-1"),
        ("sequence", b"7"),
        ("source", b"source.ndjson"),
    ]
    assert line.source == "source.ndjson"
    assert (line.ts_event, line.ts_recv) == (START_NS + 7 * 10**9, START_NS + 7 * 10**9 + 30_000_000)
    assert line.end == len(value) + 1


def test_a_line_of_several_products_is_a_record_of_each_and_of_none_twice():
    data = b"\n".join(
        [
            envelope(1, "BTC-USD", "ETH-USD", "BTC-USD"),
            envelope(2, "ETH-USD"),
            envelope(3, "BTC-USD", "SOL-USD"),
            b"",
        ]
    )

    found = lines_of(data, first_line=5)

    values = data.split(b"\n")
    assert [
        (line.key, line.value, dict(line.headers)["sequence"]) for line in found if line.key == b"BTC-USD"
    ] == [
        (b"BTC-USD", values[0], b"5"),
        (b"BTC-USD", values[2], b"7"),
    ]
    assert [line.value for line in found if line.key == b"ETH-USD"] == values[:2]
    assert [line.value for line in found if line.key == b"SOL-USD"] == [values[2]]
    assert len(found) == 5


def test_a_line_of_another_form_is_known_by_its_file_and_number():
    found = lines_of(
        envelope(900, "BTC-USD") + b"\n" + envelope(901, "BTC-USD") + b"\n", conn="file:f00", first_line=41
    )

    assert [dict(line.headers)["connection"] for line in found] == [b"file:f00"] * 2
    assert [dict(line.headers)["sequence"] for line in found] == [b"41", b"42"]


def test_without_a_receive_time_the_event_time_stands_for_it():
    (line,) = lines_of(envelope(1, "BTC-USD") + b"\n")

    assert line.ts_recv == line.ts_event


def test_lines_without_ticks_make_no_records():
    assert lines_of(b"\nrubbish\n{}\n") == []
    assert lines_of(b"") == []


KINDS = st.sampled_from(["ours", "two", "blank", "rubbish"])


@settings(deadline=None, max_examples=50)
@given(st.lists(KINDS, max_size=30), st.sets(st.integers(0, 29)))
def test_any_cut_into_blocks_gives_the_same_records_of_each_product(kinds, cuts):
    made = {
        "ours": lambda n: tick_value(n, ("BTC-USD", "ETH-USD")[n % 2]),
        "two": lambda n: envelope(n, "BTC-USD", "ETH-USD"),
        "blank": lambda n: b"",
        "rubbish": lambda n: b"rubbish %d" % n,
    }
    lines = [made[kind](n) for n, kind in enumerate(kinds)]
    expected = {
        product: [
            line
            for n, (kind, line) in enumerate(zip(kinds, lines, strict=True))
            if kind == "two" or (kind == "ours" and ("BTC-USD", "ETH-USD")[n % 2] == product)
        ]
        for product in ("BTC-USD", "ETH-USD")
    }

    found: dict[str, list[bytes]] = {"BTC-USD": [], "ETH-USD": []}
    decoder = Decoder(lambda product: 8)
    edges = [0, *sorted(cut for cut in cuts if 0 < cut < len(lines)), len(lines)]
    for start, stop in pairwise(edges):
        data = b"".join(line + b"\n" for line in lines[start:stop])
        block = decoder.decode(data, file_conn="f", first_line=start + 1)
        for line in tick_lines(block, data, decoder.state, "s"):
            found[line.key.decode()].append(line.value)
            assert data[: line.end].endswith(line.value + b"\n")

    assert found == expected


@settings(deadline=None)
@given(st.lists(st.integers(0, 10**18)))
def test_the_time_that_passed_is_the_sum_of_the_steps_forward(times):
    elapsed = Elapsed()

    told = [elapsed.add(time) for time in times]

    steps = [max(0, after - before) for before, after in pairwise(times)]
    assert told == [sum(steps[:number]) for number in range(len(times))]
    assert elapsed.last == (times[-1] if times else NO_TIME)
