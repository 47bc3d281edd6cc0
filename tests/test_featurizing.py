"""What a partition's next owner makes of it: the bits of one that was never interrupted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from richter.adapters.kafka.records import Record
from richter.adapters.kafka.stage import Output
from richter.config import Settings
from richter.domain import ticks as tk
from richter.domain.times import format_time
from richter.runtime.featurizing import LETTER_BYTES, NO_VALUE, TOO_LARGE, Featurizing
from richter.runtime.tick_records import RESENT_NS, Elapsed
from tests.engine_tools import offsets
from tests.streams import EVERYTHING, quiet_and_busy_stream
from tests.test_parallel import line
from tests.tick_values import START_NS, tick_value

IN, OUT, DEAD = "ticks.raw", "ticks.features", "ticks.dead"
OURS, NUMBERED, PLACED = "BTC-USD", "ETH-USD", "SOL-USD"
TICKS = 2_600
LATER = 1_200


class Message:
    """What a client keeps of a record."""

    def __init__(self, headers: list[tuple[str, bytes]]) -> None:
        self._headers = headers

    def headers(self) -> list[tuple[str, bytes]]:
        return self._headers


class Sent(NamedTuple):
    """A record before it has a place."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]
    product: str = ""
    ts_event: int = 0


def recorded(sent: list[Sent], partition: int = 0) -> list[Record]:
    return [
        Record(partition, offset, each.key, each.value, Message(each.headers))
        for offset, each in enumerate(sent)
    ]


def plain(value: bytes | None, **headers: bytes) -> Sent:
    return Sent(b"BTC-USD", value, list(headers.items()))


def featurizing(stale_after_s: float = 10) -> Featurizing:
    return Featurizing(Settings(stale_after_s=stale_after_s), IN, OUT, DEAD)


def sorted_out(outputs: Iterator[Output] | list[Output]) -> tuple[list[Output], list[Output]]:
    """Rows and letters; their order among each other depends on the batch."""
    found = list(outputs)
    rows = [each for each in found if each.topic == OUT]
    letters = [each for each in found if each.topic == DEAD]
    return rows, sorted(letters, key=lambda letter: int(dict(letter.headers or [])["offset"] or 0))


def foreign(row: list[int], product: str) -> bytes:
    """The same tick as a recorder writes it that knows neither connection nor number."""
    ours = json.loads(line(row, product))
    kept = ("product_id", "price", "volume_24h", "low_24h", "high_24h", "best_bid", "best_ask")
    return json.dumps(
        {"timestamp": format_time(row[tk.TS_EVENT]), **{name: ours[name] for name in kept}}
    ).encode()


def sent(product: str, seed: int) -> list[Sent]:
    """A product's ticks in the form that it has here."""
    ticks = quiet_and_busy_stream(seed, 40_000, 0.2, **EVERYTHING | {"hole": 0.001})[:TICKS]
    known = offsets(ticks)
    made = []
    for number, row in enumerate(ticks.tolist()):
        headers = []
        if product == OURS:
            # A recorder of ours writes the connection's clock offset on each line.
            value = line(row, product)[:-2] + b',"conn_offset":%d}' % known[row[tk.CONN]]
        else:
            value = foreign(row, product)
        if product == NUMBERED:
            headers = [("connection", b"file-%d" % (number // 700)), ("sequence", b"%d" % (number % 700))]
        made.append(Sent(product.encode(), value, headers, product, row[tk.TS_EVENT]))
    return made


@cache
def log() -> list[Record]:
    """A partition with three products, rubbish, and what producers sent again after they had failed."""
    rng = np.random.default_rng(11)
    waiting = [sent(product, seed) for product, seed in ((OURS, 1), (NUMBERED, 2), (PLACED, 3))]
    mixed: list[Sent] = []
    while any(waiting):
        own = waiting[int(rng.integers(len(waiting)))]
        # The shares differ: a product's ticks come in runs, and one ends before the others.
        for _ in range(int(rng.integers(1, 20))):
            if own:
                mixed.append(own.pop(0))
        if rng.random() < 0.01:
            mixed.append(plain([b"rubbish", b"", None, b"{", b'{"product_id":"X"}'][int(rng.integers(5))]))
    again: list[Sent] = []
    for each in mixed:
        again.append(each)
        if rng.random() < 0.01 and each.product in (OURS, NUMBERED):
            again += resent(again, each.product, int(rng.integers(1, 200)))
    return recorded(again)


def resent(log: list[Sent], product: str, most: int) -> list[Sent]:
    """The last of a product's records, no further back than a producer sends again."""
    own = [each for each in log[-4_000:] if each.product == product]
    elapsed = Elapsed()
    passed = [elapsed.add(each.ts_event) for each in own]
    return [each for each, ns in zip(own, passed, strict=True) if passed[-1] - ns <= RESENT_NS][-most:]


class Uninterrupted(NamedTuple):
    """What one handler makes of all records, and what it notes behind each commit."""

    outputs: list[list[Output]]
    notes: list[str]


@cache
def uninterrupted() -> Uninterrupted:
    handler = featurizing()
    handler.assigned(0, 0, None, 0)
    outputs, notes = [], [handler.note(0)]
    for record in log():
        outputs.append(list(handler.take(0, [record], writes=True)))
        notes.append(handler.note(0))
    return Uninterrupted(outputs, notes)


def expected(start: int, stop: int) -> tuple[list[Output], list[Output]]:
    return sorted_out([each for made in uninterrupted().outputs[start:stop] for each in made])


def goes_on(handler: Featurizing, start: int, committed: int, stop: int, size: int) -> list[Output]:
    """Read as a stage reads: silently up to what is committed, then in batches."""
    for at in range(start, committed, 2_000):
        assert list(handler.take(0, log()[at : min(at + 2_000, committed)], writes=False)) == []
    made: list[Output] = []
    for at in range(committed, stop, size):
        made += handler.take(0, log()[at : min(at + size, stop)], writes=True)
    return made


@settings(deadline=None, max_examples=25)
@given(st.data())
def test_owners_that_follow_each_other_make_the_bits_of_a_single_one(data: st.DataObject) -> None:
    committed = data.draw(st.integers(0, len(log()) - 1), label="first restart")
    note: str | None = uninterrupted().notes[committed]
    for _ in range(data.draw(st.integers(1, 4), label="owners")):
        stop = min(committed + data.draw(st.integers(1, LATER), label="records"), len(log()))
        handler = featurizing()

        start = handler.assigned(0, committed, note, 0)
        made = goes_on(handler, start, committed, stop, data.draw(st.integers(1, 500), label="batch"))

        assert sorted_out(made) == expected(committed, stop)
        note, committed = handler.note(0), stop


def test_what_has_to_be_read_again_is_a_part_of_the_log() -> None:
    notes = [int(note) for note in uninterrupted().notes]

    assert notes[0] == 0
    assert notes == sorted(notes)
    assert 0 < notes[-1] < len(log()) - LATER
    duplicates = len(log()) - sum(map(bool, uninterrupted().outputs))
    assert duplicates > 500


@pytest.mark.parametrize("kept", [0.0, 0.2])
def test_a_beginning_much_later_than_the_note_gives_other_rows(kept: float) -> None:
    committed = len(log()) - LATER
    needed = int(uninterrupted().notes[committed])
    too_late = committed - int(kept * (committed - needed))

    handler = featurizing()
    start = handler.assigned(0, committed, str(too_late), 0)
    made = goes_on(handler, start, committed, len(log()), 500)

    assert start == too_late > needed
    assert sorted_out(made) != expected(committed, len(log()))


def test_the_batch_does_not_show_in_the_rows() -> None:
    whole, single = featurizing(), featurizing()
    whole.assigned(0, 0, None, 0)
    single.assigned(0, 0, None, 0)

    made = list(whole.take(0, log()[:3_000], writes=True))

    assert sorted_out(made) == expected(0, 3_000)
    assert whole.account.lines == 3_000
    assert whole.account.rows == len(sorted_out(made)[0])
    assert whole.account.duplicates > 0


@pytest.mark.parametrize("note", [None, "", "somebody else's", "-1", "1.5"])
def test_without_a_note_the_log_is_read_from_its_beginning(note: str | None) -> None:
    assert featurizing().assigned(0, 700, note, 30) == 30


def test_a_note_never_leads_behind_what_is_committed() -> None:
    assert featurizing().assigned(0, 700, "900", 30) == 700


def test_partitions_have_states_of_their_own() -> None:
    values = [tick_value(number) for number in range(4)]
    handler = featurizing()
    for partition in (0, 1):
        handler.assigned(partition, 0, None, 0)

    made = [
        list(handler.take(partition, recorded([plain(value) for value in values], partition), writes=True))
        for partition in (0, 1)
    ]
    handler.revoked(0)

    assert [each.value for each in made[0]] == [each.value for each in made[1]]
    assert [each.partition for each in made[0] + made[1]] == [0] * 4 + [1] * 4
    assert handler.account.rows == 8
    with pytest.raises(KeyError):
        handler.note(0)


def take(values: list[bytes | None]) -> tuple[Featurizing, list[Output], list[Output]]:
    handler = featurizing()
    handler.assigned(0, 0, None, 0)
    return handler, *sorted_out(handler.take(0, recorded([plain(value) for value in values]), writes=True))


PRETTY = json.dumps(json.loads(tick_value(1)), indent=2).encode()
UNREADABLE: list[tuple[bytes | None, str]] = [
    (b"rubbish", "not JSON"),
    (None, NO_VALUE),
    (b"", NO_VALUE),
    (b" \n ", NO_VALUE),
    (b'{"ts":1,"who":"somebody else"}', ""),
    (b"x" * 900_000, ""),
    (b"\xff\xfe\x00", ""),
    (tick_value(1, ts_event=START_NS + 60 * 10**9), "stamped more than 2 s ahead"),
]


@pytest.mark.parametrize(("value", "reason"), UNREADABLE, ids=range(len(UNREADABLE)))
def test_what_cannot_be_read_is_a_letter_and_the_rest_goes_on(value: bytes | None, reason: str) -> None:
    handler, rows, letters = take([tick_value(0), value, tick_value(2)])

    (letter,) = letters
    told = dict(letter.headers or [])
    assert [json.loads(row.value)["frame_no"] for row in rows] == [0, 2]
    assert (told["topic"], told["partition"], told["offset"]) == (IN.encode(), b"0", b"1")
    assert told["size"] == b"%d" % len(value or b"")
    assert reason.encode() in (told["reason"] or b"") != b""
    assert letter.value == (value or b"")[:LETTER_BYTES]
    assert (sum(handler.account.dead.values()), handler.account.lines) == (1, 3)


def test_line_breaks_between_values_do_no_harm() -> None:
    _, rows, letters = take([tick_value(0), PRETTY, PRETTY.replace(b"\n", b"\r\n"), tick_value(2)])

    assert letters == []
    assert [json.loads(row.value)["frame_no"] for row in rows] == [0, 1, 2]


def test_a_row_too_large_for_a_record_is_a_letter() -> None:
    handler, rows, letters = take([tick_value(0), tick_value(1, conn_id="x" * 999_000), tick_value(2)])

    assert [json.loads(row.value)["frame_no"] for row in rows] == [0, 2]
    assert dict(letters[0].headers or [])["reason"] == TOO_LARGE.encode()
    assert handler.account.dead == {TOO_LARGE: 1}


def test_a_rebuild_writes_and_counts_nothing() -> None:
    handler = featurizing()
    handler.assigned(0, 3, "0", 0)

    made = list(handler.take(0, recorded([plain(tick_value(0)), plain(b"rubbish")]), writes=False))

    assert made == []
    assert (handler.account.lines, handler.account.rows, handler.account.dead) == (0, 0, {})


ENVELOPE = {
    "channel": "ticker",
    "timestamp": "2026-09-05T22:10:30.5Z",
    "events": [
        {
            "type": "update",
            "tickers": [
                {"product_id": product, "price": "10", "best_bid": "9", "best_ask": "11", "volume_24_h": "5"}
                for product in ("BTC-USD", "ETH-USD")
            ],
        }
    ],
}


def test_a_line_of_two_products_gives_each_partition_its_own() -> None:
    value = json.dumps(ENVELOPE).encode()
    handler = featurizing()
    handler.assigned(0, 0, None, 0)
    numbered = [("connection", b"file-1"), ("sequence", b"7")]

    made = handler.take(
        0, recorded([Sent(b"ETH-USD", value, numbered), Sent(b"BTC-USD", value, numbered)]), writes=True
    )

    rows = [json.loads(each.value) for each in made]
    assert [(row["product_id"], row["conn_id"], row["frame_no"]) for row in rows] == [
        ("ETH-USD", "file-1", 7),
        ("BTC-USD", "file-1", 7),
    ]


@pytest.mark.parametrize(
    "headers",
    [{}, {"connection": b"file-1"}, {"connection": b"file-1", "sequence": b"x"}, {"sequence": b"1" * 30}],
)
def test_without_a_number_the_place_in_the_topic_is_the_identity(headers: dict[str, bytes]) -> None:
    values = [foreign(row, "BTC-USD") for row in quiet_and_busy_stream(5, 100, 1.0)[:3].tolist()]
    handler = featurizing()
    handler.assigned(0, 0, None, 0)

    made = handler.take(0, recorded([plain(value, **headers) for value in values]), writes=True)

    rows = [json.loads(each.value) for each in made]
    assert [(row["conn_id"], row["frame_no"]) for row in rows] == [(f"{IN}:0", n) for n in range(3)]


ANYTHING = st.one_of(
    st.none(),
    st.binary(max_size=60),
    st.text(max_size=20).map(lambda name: tick_value(1, name)),
    st.text(max_size=20).map(lambda name: tick_value(1, conn_id=name)),
    st.integers(0, 2**63 - 1).map(lambda ns: tick_value(1, ts_event=ns, ts_recv=ns)),
    st.integers(0, 2**63 - 1).map(lambda number: tick_value(1, frame_no=number)),
    st.sampled_from([tick_value(1, "\ud800"), tick_value(1, conn_id="\ud800"), b"\xef\xbb\xbf", b"\x1c"]),
)
HEADERS = st.dictionaries(
    st.sampled_from(["connection", "sequence", "schema"]), st.one_of(st.binary(max_size=9), st.just(b"1"))
)


@settings(deadline=None, max_examples=150)
@given(st.lists(st.tuples(ANYTHING, st.none() | st.binary(max_size=9), HEADERS), min_size=1, max_size=6))
def test_whatever_comes_nothing_fails_and_nothing_is_doubled(
    some: list[tuple[bytes | None, bytes | None, dict[str, bytes]]],
) -> None:
    handler = featurizing()
    handler.assigned(0, 0, None, 0)

    made = handler.take(
        0, recorded([Sent(key, value, list(headers.items())) for value, key, headers in some]), writes=True
    )

    rows, letters = sorted_out(made)
    assert len(rows) + len(letters) <= len(some) == handler.account.lines
    assert len(rows) == handler.account.rows
    assert len(letters) == sum(handler.account.dead.values())
