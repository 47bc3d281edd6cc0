"""Two feature logs: the same to the last bit, or the first place where they are not."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from richter.adapters.tables.features import FeatureLogWriter
from richter.domain import ticks as tk
from richter.engine.rows import FeatureRows
from richter.engine.table import LOOK_BACK_S
from richter.runtime.compare import Comparison, compare_logs
from tests.engine_tools import run
from tests.streams import EVERYTHING, quiet_and_busy_stream


@pytest.fixture(scope="module")
def rows() -> FeatureRows:
    ticks = quiet_and_busy_stream(61, 9_000, 0.3, **(EVERYTHING | {"far_backward": 0.0, "duplicate": 0.0}))
    ticks[:, tk.CONN] = 0
    ticks[:, tk.FRAME_NO] = np.arange(len(ticks))
    return FeatureRows.of(ticks, run(ticks), ["P0"], ["conn"], 10.0)


def log(folder: Path, rows: FeatureRows, part_rows: int = 700) -> Path:
    with FeatureLogWriter(folder, part_rows=part_rows, durable=False) as writer:
        writer.append(rows)
    return folder


def compared(tmp_path: Path, replayed: FeatureRows, live: FeatureRows) -> Comparison:
    return compare_logs(log(tmp_path / "replayed", replayed), log(tmp_path / "live", live, 450))


def without(rows: FeatureRows, i: int) -> FeatureRows:
    return rows.take(np.delete(np.arange(len(rows)), i))


def test_equal_logs_are_the_same_whatever_their_parts(tmp_path: Path, rows: FeatureRows) -> None:
    result = compared(tmp_path, rows, rows)

    product = result.products["P0"]
    assert result.same
    assert product.compared == len(rows)
    assert product.digest_live == product.digest_replayed != ""


@pytest.mark.parametrize("column", ["ts_event", "ts_recv", "cause", "gap_from", "reasons", "values"])
def test_one_flipped_bit_is_found(tmp_path: Path, rows: FeatureRows, column: str) -> None:
    i = len(rows) // 2
    changed = np.array(getattr(rows, column))
    cells = changed.view(np.int64).reshape(len(rows), -1)
    cells[i, -1] ^= 1
    live = msgspec.structs.replace(rows, **{column: changed})

    result = compared(tmp_path, rows, live)

    assert not result.same
    assert result.difference is not None
    assert result.difference.identity[1] == rows.identity[i, 0]
    names = {"cause": "gap_before", "values": "hour_of_day_phase"}
    assert result.difference.what == names.get(column, column)


@pytest.mark.parametrize("side", ["live", "replayed"])
def test_a_missing_row_is_found(tmp_path: Path, rows: FeatureRows, side: str) -> None:
    i = len(rows) // 3
    pair = (rows, without(rows, i)) if side == "live" else (without(rows, i), rows)

    result = compared(tmp_path, *pair)

    assert result.difference is not None
    assert not result.rows_match
    assert result.difference.identity[1] == rows.identity[i, 0]
    assert "missing" in result.difference.what


@pytest.mark.parametrize("side", ["live", "replayed"])
def test_a_doubled_row_is_found(tmp_path: Path, rows: FeatureRows, side: str) -> None:
    i = len(rows) // 3
    doubled = rows.take(np.insert(np.arange(len(rows)), i, i))
    pair = (rows, doubled) if side == "live" else (doubled, rows)

    result = compared(tmp_path, *pair)

    assert result.difference is not None
    assert result.difference.identity[1] == rows.identity[i, 0]
    assert "twice" in result.difference.what


def test_rows_outside_the_common_stretch_are_counted(tmp_path: Path, rows: FeatureRows) -> None:
    result = compared(tmp_path, rows, rows.take(slice(100, -213)))

    product = result.products["P0"]
    assert result.same
    assert (product.replayed_before, product.replayed_after) == (100, 213)
    assert product.compared == len(rows) - 313


def test_a_replay_that_begins_later_warms_up_first(tmp_path: Path, rows: FeatureRows) -> None:
    later = rows.take(slice(200, None))
    values = later.values.copy()
    values[0, 5] = -1.0  # Whatever the first LOOK_BACK holds does not count.
    later = msgspec.structs.replace(later, values=values)

    result = compared(tmp_path, later, rows)

    product = result.products["P0"]
    warm = later.ts_event < later.ts_event[0] + LOOK_BACK_S * 10**9
    assert result.same
    assert product.live_before == 200
    assert product.warm_up == np.argmin(warm)
    assert product.compared == len(later) - product.warm_up


def test_logs_without_a_common_row_are_not_the_same(tmp_path: Path, rows: FeatureRows) -> None:
    half = len(rows) // 2

    result = compared(tmp_path, rows.take(slice(0, half)), rows.take(slice(half, None)))

    assert not result.same
    assert result.compared == 0
