"""The digest: its layout written out, and what it sees."""

from __future__ import annotations

import hashlib
import re
import struct

import msgspec
import numpy as np
import pytest

from richter.domain import ticks as tk
from richter.engine import digest
from richter.engine.digest import Digest, schema_id
from richter.engine.kernel import FORMULAS_VERSION
from richter.engine.rows import FeatureRows
from richter.engine.table import FEATURES, table_fingerprint
from tests.engine_tools import run
from tests.streams import EVERYTHING, quiet_and_busy_stream

CONN_IDS = ["", "conn", "a longer one: Größe"]


def rows_of(seed: int) -> FeatureRows:
    """Rows that three connections carry in turn."""
    ticks = quiet_and_busy_stream(seed, 300, 2.0, **EVERYTHING)
    ticks[:, tk.CONN] = np.arange(len(ticks)) // 7 % 3
    ticks[:, tk.FRAME_NO] = np.arange(len(ticks)) + 1
    return FeatureRows.of(ticks, run(ticks), ["P0"], CONN_IDS, 10.0)


def digest_of(*parts: FeatureRows) -> str:
    made = Digest()
    for rows in parts:
        made.update(rows)
    return made.hexdigest()


def copy_of(rows: FeatureRows) -> FeatureRows:
    return rows.take(np.arange(len(rows)))


def test_the_digest_is_that_of_the_rows_written_out() -> None:
    rows = rows_of(1)
    expected = hashlib.sha256()
    for i in range(len(rows)):
        name = CONN_IDS[rows.conn[i]].encode()
        expected.update(struct.pack("<I", len(name)) + name)
        expected.update(struct.pack("<4q", *rows.identity[i].tolist(), int(rows.ts_event[i])))
        expected.update(struct.pack(f"<{1 + len(FEATURES)}d", *rows.values[i].tolist()))
        reasons = int(rows.reasons[i])
        expected.update(struct.pack("<BBI", int(rows.cause[i]), int(reasons == 0), reasons))

    assert digest_of(rows) == expected.hexdigest()


def test_the_digest_of_no_rows_is_that_of_nothing() -> None:
    assert digest_of(rows_of(1).take(slice(0, 0))) == hashlib.sha256().hexdigest()


@pytest.mark.parametrize("size", [1, 5, 7, 37])
def test_the_digest_does_not_depend_on_batches(size: int) -> None:
    rows = rows_of(2)

    parts = [rows.take(slice(start, start + size)) for start in range(0, len(rows), size)]

    assert digest_of(*parts) == digest_of(rows)


def test_the_digest_depends_on_the_order_of_rows() -> None:
    rows = rows_of(2)

    swapped = [rows.take(slice(100, None)), rows.take(slice(0, 100))]

    assert digest_of(*swapped) != digest_of(rows)


def test_one_flipped_bit_in_any_column_changes_the_digest() -> None:
    rows = rows_of(3)
    flips = [("ts_event", 0), ("cause", 0), ("reasons", 0)]
    flips += [("identity", column) for column in range(3)]
    flips += [("values", column) for column in range(1 + len(FEATURES))]

    digests = set()
    for name, column in flips:
        flipped = copy_of(rows)
        cells = np.ascontiguousarray(getattr(flipped, name))
        cells.view(np.int64).reshape(len(rows), -1)[100, column] ^= 1
        getattr(flipped, name)[:] = cells
        digests.add(digest_of(flipped))

    assert len(digests) == len(flips)
    assert digest_of(rows) not in digests


def test_another_connection_changes_the_digest_and_another_code_for_it_does_not() -> None:
    rows = rows_of(4)
    renamed, recoded = copy_of(rows), copy_of(rows)
    renamed.conn[100] = (renamed.conn[100] + 1) % 3
    recoded.conn[:] = 2 - recoded.conn

    recoded = msgspec.structs.replace(recoded, conn_ids=CONN_IDS[::-1])

    assert digest_of(renamed) != digest_of(rows)
    assert digest_of(recoded) == digest_of(rows)


def test_where_a_gap_begins_and_when_a_tick_came_are_not_in_the_digest() -> None:
    rows = rows_of(5)
    changed = copy_of(rows)

    changed.gap_from[:] += 1
    changed.ts_recv[:] += 1

    assert digest_of(changed) == digest_of(rows)


def test_the_schema_id_is_of_the_table_and_the_formulas_version() -> None:
    text = f"{table_fingerprint()}/{FORMULAS_VERSION}".encode()

    assert schema_id() == hashlib.sha256(text).hexdigest()[:12]
    assert re.fullmatch("[0-9a-f]{12}", schema_id())


def test_the_schema_id_changes_with_the_formulas_version_and_with_the_table(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = schema_id()

    monkeypatch.setattr(digest, "FORMULAS_VERSION", FORMULAS_VERSION + 1)
    after_formulas = schema_id()
    monkeypatch.undo()
    monkeypatch.setattr(digest, "table_fingerprint", lambda: "another table")

    assert len({before, after_formulas, schema_id()}) == 3
