"""What a stage does with each partition: the rows of a replay, from any restart on, and a letter for the rest."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from richter.adapters.kafka.producer import MESSAGE_BYTES
from richter.adapters.kafka.records import Record
from richter.adapters.kafka.stage import Output
from richter.config import Settings
from richter.domain import ticks as tk
from richter.domain.times import format_time
from richter.engine.table import LOOK_BACK_S
from richter.runtime.featurizing import Featurizing
from tests.engine_tools import offsets
from tests.streams import EVERYTHING, SECOND, quiet_and_busy_stream
from tests.test_parallel import line
from tests.tick_values import START_NS, row_value, tick_value

NOW_MS = START_NS // 10**6 + 86_400_000
RESENT_S = 600
MARGIN_S = 120
"""Of a window: a margin, and how coarsely its beginning is known."""


class Message:
    """The client's message, as far as a record needs it."""

    def __init__(self, timestamp_ms: int, headers: Sequence[tuple[str, bytes]]) -> None:
        self._timestamp_ms = timestamp_ms
        self._headers = list(headers)

    def timestamp(self) -> tuple[int, int]:
        return 1, self._timestamp_ms

    def headers(self) -> list[tuple[str, bytes]]:
        return self._headers


def record(
    offset: int,
    value: bytes | None,
    *,
    key: bytes | None = b"BTC-USD",
    headers: Sequence[tuple[str, bytes]] = (),
    partition: int = 1,
    timestamp_ms: int = NOW_MS,
) -> Record:
    return Record(partition, offset, key, value, Message(timestamp_ms, headers))


def handler() -> Featurizing:
    return Featurizing(Settings(), "ticks.raw", "ticks.features", "ticks.dead")


def outputs_of(records: list[Record], size: int = 1000) -> list[Output]:
    """What an uninterrupted handler makes of a partition's records."""
    made = handler()
    made.assigned(1, 0, None, 0)
    return [
        output
        for at in range(0, len(records), size)
        for output in made.take(1, records[at : at + size], writes=True)
    ]


def rows_of(outputs: list[Output]) -> list[dict[str, Any]]:
    return [json.loads(output.value) for output in outputs if output.topic == "ticks.features"]


def letters_of(outputs: list[Output]) -> list[dict[str, str]]:
    return [
        {str(name): value.decode() for name, value in output.headers or () if isinstance(value, bytes)}
        for output in outputs
        if output.topic == "ticks.dead"
    ]


def foreign(seconds: int, product: str = "XRP-USD") -> bytes:
    """A tick of the course's form, without identity."""
    at = START_NS + seconds * SECOND
    return json.dumps(
        {
            "timestamp": format_time(at),
            "product_id": product,
            "price": "1.5",
            "best_bid": "1.4",
            "best_ask": "1.6",
        }
    ).encode()


class Point(NamedTuple):
    """Where a commit was: the offset, what the handler said, and how many outputs there were."""

    offset: int
    note: str
    outputs: int


class History(NamedTuple):
    """A partition's records, what an uninterrupted handler makes of them, and each of its commits."""

    records: list[Record]
    outputs: list[Output]
    points: list[Point]


@functools.cache
def history(seed: int) -> History:
    """Three products with every oddity, one of them without identity, and what was sent again after crashes."""
    rng = np.random.default_rng(seed)
    options = EVERYTHING | {"gap": 0.004, "hole": 0.002, "far_backward": 0.0004, "clock": 0.0004}
    values: list[tuple[float, bytes, bytes, list[tuple[str, bytes]]]] = []
    for code, product in enumerate(("BTC-USD", "ETH-USD", "SOL-USD")):
        anonymous = code == 2
        stream = quiet_and_busy_stream(
            seed * 10 + code, 16_000, 0.15, **(options | {"ahead": 0.0} if anonymous else options)
        )
        if not anonymous:
            stream = resent(stream, rng)
        known = offsets(stream)
        for place, row in enumerate(stream.tolist()):
            fields = json.loads(line(row, product))
            if anonymous:
                for name in ("conn_id", "frame_no", "event_index", "ticker_index", "v"):
                    del fields[name]
            else:
                fields |= {"conn_id": f"{product}-{row[tk.CONN]}", "conn_offset": known[row[tk.CONN]]}
            # The products are interleaved: at places of their own, each in its order.
            values.append((place / len(stream), product.encode(), json.dumps(fields).encode(), []))
    values.sort(key=lambda each: each[0])
    records = [record(at, value, key=key, headers=more) for at, (_, key, value, more) in enumerate(values)]
    made, outputs, points = handler(), list[Output](), list[Point]()
    made.assigned(1, 0, None, 0)
    at = 0
    while at < len(records):
        size = int(rng.integers(1, 200))
        outputs += made.take(1, records[at : at + size], writes=True)
        at = min(at + size, len(records))
        points.append(Point(at, made.note(1), len(outputs)))
    return History(records, outputs, points)


def resent(stream: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The stream, with stretches of up to 600 s of event time sent again."""
    pieces, times = [], stream[:, tk.TS_EVENT]
    done = 0
    for end in sorted(rng.integers(50, len(stream), 6).tolist()):
        since = times[:end].max() - RESENT_S * SECOND
        begin = end - int(rng.integers(1, 60))
        while begin < end and (
            times[begin:end].min() < since or np.ptp(times[begin:end]) > RESENT_S * SECOND
        ):
            begin += 1
        pieces += [stream[done:end], stream[begin:end]]
        done = end
    return np.concatenate([*pieces, stream[done:]])


def restarted(made: History, point: Point, start: int, size: int) -> list[Output]:
    """What a handler that begins anew makes of the records from a commit on."""
    again = handler()
    again.assigned(1, point.offset, str(start), 0)
    outputs: list[Output] = []
    cuts = sorted({point.offset, len(made.records), *range(start, len(made.records), size)})
    for begin, end in zip(cuts, cuts[1:], strict=False):
        written = again.take(1, made.records[begin:end], writes=begin >= point.offset)
        outputs += written
    return outputs


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3), st.floats(0, 1, exclude_max=True), st.integers(50, 2000))
def test_from_any_commit_on_the_rows_are_those_of_an_uninterrupted_run(
    seed: int, where: float, size: int
) -> None:
    made = history(seed)
    point = made.points[int(where * len(made.points))]

    outputs = restarted(made, point, int(point.note), size)

    assert outputs == made.outputs[point.outputs :]


def test_a_restart_that_reads_a_quarter_less_of_the_window_makes_other_rows() -> None:
    made = history(1)
    differ = []

    for point in made.points[len(made.points) // 2 :: 12]:
        start = int(point.note) + (point.offset - int(point.note)) // 4
        differ.append(restarted(made, point, start, 500) != made.outputs[point.outputs :])

    assert any(differ)


def test_the_histories_hold_what_they_are_for() -> None:
    made = history(1)

    reasons = {letter["reason"] for letter in letters_of(made.outputs)}
    rows = rows_of(made.outputs)

    assert reasons == {"stamped more than 2 s ahead"}
    assert len(made.records) - len(letters_of(made.outputs)) - len(rows) > 300  # Doubled ones make no row.
    assert {row["gap_before"] for row in rows} >= {None, "start", "reconnect", "sequence", "clock"}
    assert {row["conn_id"] for row in rows} > {"ticks.raw:1", "BTC-USD-0"}
    assert 0 < sum(int(point.note) > 0 for point in made.points) < len(made.points)


def test_the_note_moves_on_and_leaves_no_more_than_the_window() -> None:
    records = [record(n, tick_value(n)) for n in range(3 * (LOOK_BACK_S + RESENT_S))]
    made = handler()
    made.assigned(1, 0, None, 0)
    windows = []

    for at in range(0, len(records), 10):
        list(made.take(1, records[at : at + 10], writes=True))
        windows.append(at + 10 - int(made.note(1)))

    assert max(windows) <= LOOK_BACK_S + RESENT_S + MARGIN_S
    assert min(windows[len(windows) // 2 :]) > LOOK_BACK_S + RESENT_S


@pytest.mark.parametrize("note", [None, "", "seven", "²", "-1", "99999999999999999999"])
def test_without_a_note_of_ours_everything_is_read_again(note: str | None) -> None:
    begins = handler().assigned(1, 500, note, 20)

    assert begins == (500 if note and note.isdecimal() else 20)


DEAD = {
    "tombstone": (None, "no value"),
    "empty": (b"", "no value"),
    "blank": (b" \n\t\x0b ", "no value"),
    "binary": (b"\x00\xff\x01\n\xfe{", "not"),
    "rubbish": (b"x" * 900_000, "not JSON"),
    "cut off": (tick_value(5)[:-7], "not JSON"),
    "two ticks": (tick_value(5) + b"\n" + tick_value(6), "not JSON"),
    "other schema": (b'{"user":"x","amount":1}', "no ticker"),
    "no object": (b"[1,2]", "not an object"),
    "a row": (row_value(5), ""),
    "ahead": (tick_value(5, ts_event=START_NS + 9 * SECOND), "stamped more than 2 s ahead"),
}


@pytest.mark.parametrize(("value", "reason"), DEAD.values(), ids=DEAD)
def test_what_cannot_be_read_is_one_letter_and_work_goes_on(value: bytes | None, reason: str) -> None:
    good = [record(n, tick_value(n)) for n in (3, 4, 6, 7)]
    bad = record(5, value)

    outputs = outputs_of([*good[:2], bad, *good[2:]])

    (letter,) = letters_of(outputs)
    assert reason in letter.pop("reason")
    assert letter == {"topic": "ticks.raw", "partition": "1", "offset": "5", "size": str(len(value or b""))}
    assert [row["frame_no"] for row in rows_of(outputs)] == [3, 4, 6, 7]


def test_a_letter_carries_the_record_up_to_256_kib() -> None:
    (short, long) = (
        output for output in outputs_of([record(1, b"short"), record(2, b"x" * 900_000, key=b"k" * 900_000)])
    )

    assert (short.value, short.key, short.topic) == (b"short", b"BTC-USD", "ticks.dead")
    assert len(long.value) == len(long.key or b"") == 256 * 1024
    assert len(long.value) + len(long.key or b"") < MESSAGE_BYTES


def test_a_row_that_no_record_can_hold_is_a_letter() -> None:
    long = record(2, tick_value(2, conn_id="c" * MESSAGE_BYTES))

    outputs = outputs_of([record(1, tick_value(1)), long, record(3, tick_value(3))])

    assert [letter["offset"] for letter in letters_of(outputs)] == ["2"]
    assert [row["frame_no"] for row in rows_of(outputs)] == [1, 3]


def test_a_record_with_line_breaks_is_read_like_one_without() -> None:
    plain = [tick_value(n) for n in range(4)]
    pretty = [json.dumps(json.loads(value), indent=2).replace("\n", "\r\n").encode() for value in plain]

    outputs = outputs_of([record(n, value) for n, value in enumerate(pretty)])

    assert outputs == outputs_of([record(n, value) for n, value in enumerate(plain)])
    assert len(rows_of(outputs)) == 4


def test_a_row_has_its_products_key_its_ticks_partition_and_receive_time() -> None:
    products = ["BTC-USD", "ETH-USD", "BTC-USD"]

    outputs = outputs_of([record(n, tick_value(n, each), key=b"other") for n, each in enumerate(products)])

    assert [(output.key, output.partition) for output in outputs] == [(each.encode(), 1) for each in products]
    assert [output.timestamp_ms for output in outputs] == [
        START_NS // 10**6 + 1000 * n + 30 for n in range(3)
    ]


def test_a_rows_timestamp_is_never_ahead_of_its_ticks_record() -> None:
    years_ahead = START_NS + 10**9 * SECOND
    value = tick_value(1, ts_event=years_ahead, ts_recv=years_ahead)

    (output,) = outputs_of([record(1, value)])

    assert output.timestamp_ms == NOW_MS
    assert json.loads(output.value)["ts_event"] == years_ahead


def test_records_without_identity_get_the_place_in_the_topic() -> None:
    values = [foreign(0), tick_value(1), foreign(2), foreign(3), b"", foreign(4)]

    rows = rows_of(outputs_of([record(70 + n, value) for n, value in enumerate(values)], size=4))

    places = [(row["conn_id"], row["frame_no"]) for row in rows if row["product_id"] == "XRP-USD"]
    assert places == [("ticks.raw:1", number) for number in (70, 72, 73, 75)]


def test_the_same_offset_twice_makes_one_row() -> None:
    records = [record(n, foreign(n)) for n in range(5)]

    rows = rows_of(outputs_of([*records, *records[2:], record(5, foreign(5))]))

    assert [row["frame_no"] for row in rows] == [0, 1, 2, 3, 4, 5]


def test_the_publishers_headers_identify_a_record_that_does_not_do_so_itself() -> None:
    envelope = json.dumps(
        {
            "channel": "ticker",
            "timestamp": format_time(START_NS),
            "events": [
                {
                    "type": "update",
                    "tickers": [{"product_id": each, "price": "1", "best_bid": "1", "best_ask": "2"}],
                }
                for each in ("BTC-USD", "ETH-USD")
            ],
        }
    ).encode()
    headers = [("connection", b"file:abc"), ("sequence", b"41")]
    records = [
        record(n, envelope, key=key, headers=headers) for n, key in enumerate([b"BTC-USD", b"ETH-USD"])
    ]

    rows = rows_of(outputs_of([*records, record(2, envelope, headers=headers)]))

    assert [(row["product_id"], row["conn_id"], row["frame_no"]) for row in rows] == [
        ("BTC-USD", "file:abc", 41),
        ("ETH-USD", "file:abc", 41),
    ]


@pytest.mark.parametrize("sequence", [b"", b"x", b"-1", b"\xd9\xa3", b"9" * 19, b"9" * 5000])
def test_headers_that_are_not_the_publishers_are_left_alone(sequence: bytes) -> None:
    headers = [("connection", b"\xff"), ("sequence", sequence)]

    (row,) = rows_of(outputs_of([record(9, foreign(0), headers=headers)]))

    assert (row["conn_id"], row["frame_no"]) == ("ticks.raw:1", 9)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.one_of(
                st.none(),
                st.binary(max_size=60),
                st.text(max_size=20).map(lambda name: tick_value(1, name)),
                st.text(max_size=20).map(lambda name: tick_value(1, conn_id=name)),
                st.integers(0, 2**63 - 1).map(lambda ns: tick_value(1, ts_event=ns, ts_recv=ns)),
                st.integers(0, 2**63 - 1).map(lambda number: tick_value(1, frame_no=number)),
                st.sampled_from(
                    [b'{"conn_id":"\\ud800","frame_no":1}', tick_value(1, "\ud800"), foreign(1, "\ud800")]
                ),
            ),
            st.one_of(st.none(), st.binary(max_size=9)),
            st.lists(
                st.tuples(st.sampled_from(["connection", "sequence", "x"]), st.binary(max_size=9)), max_size=3
            ),
            st.integers(0, NOW_MS),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_whatever_comes_nothing_fails_and_every_record_is_accounted_for(
    some: list[tuple[bytes | None, bytes | None, list[tuple[str, bytes]], int]],
) -> None:
    made = handler()
    made.assigned(1, 0, None, 0)
    records = [
        record(n, value, key=key, headers=headers, timestamp_ms=at)
        for n, (value, key, headers, at) in enumerate(some)
    ]

    outputs = list(made.take(1, records, writes=True))

    assert made.account.lines == len(records)
    assert len(outputs) <= len(records)
    assert len(letters_of(outputs)) == sum(made.account.dead.values())
    assert all(0 <= output.timestamp_ms <= NOW_MS for output in outputs)


def test_a_rebuild_counts_nothing_and_writes_nothing() -> None:
    made = handler()
    made.assigned(1, 2, "0", 0)

    silent = list(made.take(1, [record(0, tick_value(0)), record(1, b"bad")], writes=False))
    loud = list(made.take(1, [record(2, tick_value(2)), record(3, b"bad")], writes=True))

    assert silent == []
    assert [len(rows_of(loud)), len(letters_of(loud))] == [1, 1]
    assert (made.account.lines, made.account.rows, made.account.dead) == (2, 1, {"not JSON": 1})


def test_partitions_know_nothing_of_each_other() -> None:
    made = handler()
    for partition in (0, 1):
        made.assigned(partition, 0, None, 0)

    rows = [
        rows_of(list(made.take(partition, [record(0, tick_value(7), partition=partition)], writes=True)))
        for partition in (0, 1)
    ]
    made.revoked(0)
    made.assigned(0, 0, None, 0)
    again = rows_of(list(made.take(0, [record(0, tick_value(7), partition=0)], writes=True)))

    assert rows[0] == rows[1] == again
    assert len(again) == 1
    assert msgspec.structs.astuple(made.account)[4] == 3
