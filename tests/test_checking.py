"""A check's account of records, without a broker."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Sequence

import pytest

from richter.runtime.check_report import CheckReport, Record
from richter.runtime.checking import Check
from tests.tick_values import SECOND, START_NS, row_value, tick_value

KEY = b"BTC-USD"


def checked(*records: Record, kind: str | None = None) -> CheckReport:
    check = Check("t", lambda product: 8, kind)
    check.add(records)
    return check.report()


def of(values: Sequence[bytes | None], *, partition: int = 0, key: bytes | None = KEY) -> list[Record]:
    return [Record(partition, number, 1_000 + number, key, value) for number, value in enumerate(values)]


def problems(report: CheckReport) -> list[tuple[str, int, int, int]]:
    return [(each.kind, each.records, each.partition, each.offset) for each in report.problems]


def test_good_ticks_are_counted_by_partition_and_product() -> None:
    btc = of([tick_value(number) for number in range(10)])
    eth = of([tick_value(number, "ETH-USD") for number in range(5)], partition=2, key=b"ETH-USD")

    report = checked(*btc, *eth)

    assert (report.kind, report.records, report.invalid, report.problems) == ("ticks", 15, 0, [])
    assert {number: each.records for number, each in report.partitions.items()} == {0: 10, 2: 5}
    assert {name: (each.partition, each.records) for name, each in report.products.items()} == {
        "BTC-USD": (0, 10),
        "ETH-USD": (2, 5),
    }
    one = report.products["BTC-USD"]
    assert (one.first, one.last) == (START_NS, START_NS + 9 * SECOND)
    assert one.rate_per_s == pytest.approx(10 / 9)
    assert (one.duplicates, one.out_of_order, one.gaps) == (0, 0, {})
    assert (report.first, report.last) == (START_NS, START_NS + 9 * SECOND)
    assert report.newest == START_NS + 9 * SECOND + 30_000_000


def test_batches_make_no_difference() -> None:
    values = [*(tick_value(number) for number in range(20)), b"{", tick_value(3), None]
    whole, parts = Check("t", lambda product: 8), Check("t", lambda product: 8)

    whole.add(of(values))
    for record in of(values):
        parts.add([record])

    assert parts.report() == whole.report()


def test_nothing_at_all_is_no_error() -> None:
    report = checked()

    assert (report.records, report.kind, report.newest, report.sample) == (0, None, None, None)


def test_what_cannot_be_read_is_told_with_its_first_place_and_reason() -> None:
    values = [tick_value(0), b"\xff", tick_value(1), b"{", tick_value(2, price="a lot")]

    report = checked(*of(values))

    assert problems(report) == [("unreadable", 3, 0, 1)]
    assert report.problems[0].reason == "not UTF-8"
    assert report.invalid == 3
    assert report.products["BTC-USD"].records == 2


def test_a_tombstone_and_a_record_without_a_tick_are_invalid() -> None:
    report = checked(*of([tick_value(0), None, b"", b'{"channel":"heartbeats","events":[]}']))

    assert problems(report) == [("tombstone", 1, 0, 1), ("unreadable", 2, 0, 2)]
    assert report.problems[1].reason == "no tick (blank)"
    assert report.invalid == 3


def test_newlines_within_a_record_do_not_shift_the_others() -> None:
    pretty = json.dumps(json.loads(tick_value(1)), indent=2).encode()

    report = checked(*of([tick_value(0), pretty, b"{\n\n", tick_value(2)]))

    assert problems(report) == [("unreadable", 1, 0, 2)]
    assert report.products["BTC-USD"].records == 3


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        (None, "no key on a record of BTC-USD"),
        (b"ETH-USD", "key 'ETH-USD' on a record of BTC-USD"),
        (b"\xff", "key '\ufffd' on a record of BTC-USD"),
    ],
)
def test_the_key_must_be_the_product(key: bytes | None, reason: str) -> None:
    report = checked(*of([tick_value(0), tick_value(1)], key=key))

    assert problems(report) == [("wrong key", 2, 0, 0)]
    assert report.problems[0].reason == reason
    assert report.invalid == 2


def test_a_product_must_stay_in_its_partition() -> None:
    here, there = of([tick_value(5), tick_value(6)]), of([tick_value(1), tick_value(2)], partition=1)

    report = checked(*here, *there)

    assert problems(report) == [("wrong partition", 2, 1, 0)]
    assert report.problems[0].reason == "BTC-USD in partition 1, its first record was in 0"
    # Between partitions there is no order: these are neither.
    assert (report.products["BTC-USD"].duplicates, report.products["BTC-USD"].out_of_order) == (0, 0)


def test_a_record_with_two_problems_is_one_invalid_record() -> None:
    report = checked(*of([tick_value(0)]), *of([tick_value(1)], partition=1, key=None))

    assert [each.kind for each in report.problems] == ["wrong key", "wrong partition"]
    assert report.invalid == 1


def test_an_identity_that_is_not_above_the_last_is_a_duplicate_and_no_fault() -> None:
    numbers = [0, 1, 2, 1, 2, 2, 3]

    report = checked(*of([tick_value(number) for number in numbers]))

    assert report.products["BTC-USD"].duplicates == 3
    assert report.products["BTC-USD"].out_of_order == 0
    assert report.invalid == 0


def test_events_and_tickers_of_a_frame_are_no_duplicates_nor_are_other_connections_and_products() -> None:
    report = checked(
        *of(
            [
                tick_value(1),
                tick_value(1, ticker_index=1),
                tick_value(1, event_index=1),
                tick_value(1, conn_id="conn-2"),
            ]
        ),
        *of([tick_value(1, "ETH-USD")], partition=1, key=b"ETH-USD"),
    )

    assert [each.duplicates for each in report.products.values()] == [0, 0]


def test_event_times_that_go_back_are_out_of_order() -> None:
    times = [0, 5, 4, 3, 6]

    report = checked(
        *of([tick_value(number, ts_event=START_NS + at * SECOND) for number, at in enumerate(times)])
    )

    assert report.products["BTC-USD"].out_of_order == 2
    assert report.products["BTC-USD"].last == START_NS + 6 * SECOND
    assert report.invalid == 0


def test_gaps_are_counted_by_cause_once_each() -> None:
    def gap(cause: str) -> dict[str, object]:
        return {"cause": cause, "from": None, "missing": None}

    values = [
        tick_value(0, gap_before=gap("start")),
        tick_value(1, gap_before=gap("sequence")),
        tick_value(1, gap_before=gap("sequence")),
        tick_value(2, gap_before=gap("sequence")),
    ]

    report = checked(*of(values))

    assert report.products["BTC-USD"].gaps == {"start": 1, "sequence": 2}


def test_duplicates_of_records_without_identity_cannot_be_told() -> None:
    seed = b'{"timestamp":"2025-11-08T20:15:42.123456","product_id":"BTC-USD","price":"1","best_bid":"1"}'

    report = checked(*of([seed, seed, tick_value(0)]))

    assert (report.without_identity, report.records, report.invalid) == (2, 3, 0)
    assert report.products["BTC-USD"].duplicates == 0


def test_feature_rows_are_told_by_their_schema_and_checked_likewise() -> None:
    values = [row_value(0), row_value(1), row_value(1), row_value(2, gap_before="reconnect")]

    report = checked(*of(values))

    one = report.products["BTC-USD"]
    assert (report.kind, report.records, report.invalid) == ("features", 4, 0)
    assert (one.records, one.duplicates, one.gaps) == (4, 1, {"reconnect": 1})
    assert (one.first, one.last) == (START_NS, START_NS + 2 * SECOND)
    assert report.newest == START_NS + 2 * SECOND + 30_000_000


@pytest.mark.parametrize(
    "bad",
    [
        row_value(1, schema_id="another"),
        row_value(1, frame_no=2**70),
        row_value(1, mid="high"),
        row_value(1).replace(b"conn-1", b"\xff"),
        row_value(1)[:-1] + b',"deep":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        tick_value(1),
        b"",
    ],
    ids=["schema", "huge", "text", "utf8", "deep", "tick", "empty"],
)
def test_a_bad_feature_row_spoils_no_other(bad: bytes) -> None:
    report = checked(*of([row_value(0), bad, row_value(2)]))

    assert problems(report) == [("unreadable", 1, 0, 1)]
    assert report.problems[0].reason
    assert report.products["BTC-USD"].records == 2


def test_the_first_readable_record_decides_the_kind() -> None:
    check = Check("t", lambda product: 8)
    check.add(of([b"{", b"null"]))
    undecided = check.report().kind

    check.add(of([b"?", row_value(0), tick_value(1)]))

    assert undecided is None
    assert check.report().kind == "features"
    assert check.report().invalid == 4
    assert checked(*of([tick_value(0), row_value(1)])).invalid == 1


def test_records_of_other_topics_are_counted_and_not_read() -> None:
    report = checked(*of([b"\xff", None, b"{}"], key=None), kind="other")

    assert (report.kind, report.records, report.invalid, report.products) == ("other", 3, 0, {})
    assert report.newest == 1_002 * 1_000_000


def test_the_sample_is_the_newest_record_with_its_long_fields_cut() -> None:
    old = Record(0, 9, 5_000, KEY, tick_value(0))
    new = Record(1, 3, 6_000, b"ETH-USD", tick_value(0, "ETH-USD", raw="x" * 5_000, odd=2**80))

    sample = checked(new, old).sample

    assert sample is not None
    assert (sample.partition, sample.offset, sample.timestamp_ms, sample.key) == (1, 3, 6_000, "ETH-USD")
    assert isinstance(sample.value, dict)
    assert sample.value["price"] == "79879.1"
    assert sample.value["raw"] == "x" * 100 + "…"
    assert sample.value["odd"] == str(2**80)


@pytest.mark.parametrize("value", [None, b"", b"\xff" * 1_000, b"[1,2]", b"9" * 5_000, b"[" * 5_000])
def test_a_sample_is_made_of_anything(value: bytes | None) -> None:
    sample = checked(*of([value])).sample

    assert sample is not None
    assert len(str(sample.value)) <= 200


def test_memory_does_not_grow_with_the_records() -> None:
    check = Check("t", lambda product: 8)

    def add(batches: range) -> None:
        for batch in batches:
            check.add(of([tick_value(batch * 1_000 + number) for number in range(1_000)]))

    add(range(10))  # Caches are full.
    tracemalloc.start()

    add(range(10, 20))

    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert check.records == 20_000
    assert kept < 1_000_000  # Their values alone are 5 MB.
