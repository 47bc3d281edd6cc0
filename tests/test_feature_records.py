"""Feature rows through JSON and back: the same bits, and nothing else is taken for a row."""

from __future__ import annotations

import json
import math
import struct
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from richter.adapters.kafka.feature_records import FeatureDecoder, encode_rows
from richter.domain.ticks import NO_TIME, GapCause
from richter.engine.digest import schema_id
from richter.engine.rows import FeatureRows, Reason
from richter.engine.table import FEATURE_NAMES
from richter.errors import SchemaMismatchError
from tests.tick_values import row_value

WIDTH = 1 + len(FEATURE_NAMES)
NAN = np.uint64(0x7FF8000000000000).view(np.float64)
COLUMNS = ("identity", "ts_event", "ts_recv", "cause", "gap_from", "reasons")
ODD = [0.0, 5e-324, -5e-324, 2.2250738585072014e-308, 1.7976931348623157e308, 0.1, 1 / 3, 1e22, 1e23, 2.0**53]


def rows_of(values: np.ndarray, **columns: Any) -> FeatureRows:
    n = len(values)
    made = FeatureRows(
        products=["BTC-USD", "ETH-USD"],
        conn_ids=["conn-1", 'a "name" \u2028 \x00'],
        product=np.arange(n) % 2,
        conn=np.arange(n) // 2 % 2,
        identity=np.arange(3 * n, dtype=np.int64).reshape(n, 3),
        ts_event=np.full(n, 2**62 + 1),
        ts_recv=np.full(n, NO_TIME),
        cause=np.zeros(n, np.int64),
        gap_from=np.full(n, NO_TIME),
        reasons=np.zeros(n, np.int64),
        values=values,
        stale_after_s=10.0,
    )
    return msgspec.structs.replace(made, **columns)


def same(one: FeatureRows, other: FeatureRows) -> bool:
    names = [[rows.products[code] for code in rows.product] for rows in (one, other)]
    conns = [[rows.conn_ids[code] for code in rows.conn] for rows in (one, other)]
    return (
        names[0] == names[1]
        and conns[0] == conns[1]
        and one.stale_after_s == other.stale_after_s
        and all(np.array_equal(getattr(one, name), getattr(other, name)) for name in COLUMNS)
        and np.array_equal(one.values.view(np.uint64), other.values.view(np.uint64))
    )


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=WIDTH, max_size=3 * WIDTH))
def test_any_finite_number_reads_back_as_the_same_bits(numbers: list[float]) -> None:
    values = np.array(numbers[: len(numbers) // WIDTH * WIDTH]).reshape(-1, WIDTH)
    rows = rows_of(values)

    (back,) = FeatureDecoder().decode(encode_rows(rows))

    assert same(back, rows)


@given(st.binary(min_size=8, max_size=8))
def test_any_bits_but_infinity_read_back(bits: bytes) -> None:
    (number,) = struct.unpack("<d", bits)
    if math.isinf(number):
        return
    rows = rows_of(np.full((1, WIDTH), NAN if math.isnan(number) else number))

    (back,) = FeatureDecoder().decode(encode_rows(rows))

    assert same(back, rows)


def test_odd_numbers_and_the_unknown_read_back_in_every_column() -> None:
    values = np.array([[*ODD, NAN] * WIDTH]).reshape(-1, WIDTH)
    n = len(values)
    rows = rows_of(
        values,
        ts_recv=np.arange(n) + 2**60,
        cause=np.arange(n) % len(GapCause),
        gap_from=np.where(np.arange(n) % 2, NO_TIME, 2**61 + 1),
        reasons=np.arange(n) % (1 << len(Reason)),
    )

    (back,) = FeatureDecoder().decode(encode_rows(rows))

    assert same(back, rows)


def test_the_unknown_is_null_and_a_row_one_json_object() -> None:
    values = np.full((1, WIDTH), NAN)
    values[0, 0] = 90_000.05

    row = json.loads(encode_rows(rows_of(values))[0])

    assert (row["mid"], row["ts_recv"], row["gap_before"]) == (90_000.05, None, None)
    assert {row[name] for name in FEATURE_NAMES} == {None}
    assert row["schema_id"] == schema_id()


def test_names_keep_their_numbers_from_one_call_to_the_next() -> None:
    decoder = FeatureDecoder()

    blocks = [
        decoder.decode([row_value(n, product)])[0] for n, product in enumerate(["A-USD", "B-USD", "A-USD"])
    ]

    assert [block.products[block.product[0]] for block in blocks] == ["A-USD", "B-USD", "A-USD"]
    assert blocks[0].product[0] == blocks[2].product[0]


def test_another_staleness_begins_another_block() -> None:
    values = [row_value(1), row_value(2), row_value(3, stale_after_s=20.0), row_value(4)]

    blocks = FeatureDecoder().decode(values)

    assert [(len(block), block.stale_after_s) for block in blocks] == [(2, 10.0), (1, 20.0), (1, 10.0)]
    assert FeatureDecoder().decode([]) == []


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (row_value(1, schema_id="another"), "schema_id another"),
        (row_value(1, gap_before="weather"), "weather"),
        (row_value(1, reasons="weather"), "weather"),
        (row_value(1, mid="90000"), "no feature row"),
        (row_value(1, frame_no=2**63), "no feature row"),
        (b'{"product_id":"BTC-USD","price":"1"}', "no feature row"),
        (b"\xff\x00", "no feature row"),
        (b"", "no feature row"),
    ],
)
def test_what_is_no_row_of_this_version_is_refused_in_a_sentence(value: bytes, told: str) -> None:
    with pytest.raises(SchemaMismatchError, match=told):
        FeatureDecoder().decode([row_value(0), value])
