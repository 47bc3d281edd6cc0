"""Two feature logs: the same to the last bit, or the first place where they are not."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from richter.adapters.tables.features import read_features
from richter.adapters.tables.parts import FeatureLogWriter
from richter.domain import ticks as tk
from richter.engine.rows import FeatureRows
from richter.engine.table import FEATURE_NAMES, LOOK_BACK_S
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


def changed_cell(rows: FeatureRows, column: int, i: int) -> FeatureRows:
    values = np.array(rows.values)
    values.view(np.int64)[i, column] ^= 1
    return msgspec.structs.replace(rows, values=values)


@pytest.mark.parametrize("name", ["mid", *FEATURE_NAMES])
def test_the_last_bit_of_any_value_counts(tmp_path: Path, rows: FeatureRows, name: str) -> None:
    few = rows.take(slice(1_000, 1_200))
    column = ("mid", *FEATURE_NAMES).index(name)

    result = compared(tmp_path, few, changed_cell(few, column, 77))

    assert result.difference is not None
    assert (result.difference.product, result.difference.what) == ("P0", name)
    assert result.difference.identity == ("conn", *few.identity[77].tolist())
    assert result.difference.ts_event == few.ts_event[77]


def test_the_first_of_several_differences_is_named(tmp_path: Path, rows: FeatureRows) -> None:
    late = changed_cell(rows, 0, 2_000)
    early = msgspec.structs.replace(late, ts_recv=late.ts_recv + (np.arange(len(rows)) == 1_234))

    result = compared(tmp_path, rows, early)

    assert result.difference is not None
    assert result.difference.what == "ts_recv"
    assert result.difference.identity[1] == rows.identity[1_234, 0]


def test_another_staleness_is_a_difference_wherever_it_begins(tmp_path: Path, rows: FeatureRows) -> None:
    live = log(tmp_path / "live", rows.take(slice(0, 1_000)))
    log(live, msgspec.structs.replace(rows.take(slice(1_000, None)), stale_after_s=20.0))

    result = compare_logs(log(tmp_path / "replayed", rows), live)

    assert result.difference is not None
    assert (result.difference.what, result.difference.live) == ("stale_after_s", "20.0")
    assert result.difference.identity[1] == rows.identity[1_000, 0]


EDGES = [1, 449, 450, 699, 700, 899, 900, 1_399, 1_400, -2]


@pytest.mark.parametrize("i", EDGES)
@pytest.mark.parametrize("side", ["live", "replay"])
def test_a_row_missing_at_the_edge_of_a_part_is_named(
    tmp_path: Path, rows: FeatureRows, side: str, i: int
) -> None:
    i %= len(rows)
    pair = (rows, without(rows, i)) if side == "live" else (without(rows, i), rows)

    result = compared(tmp_path, *pair)

    assert result.difference is not None
    assert result.difference.identity == ("conn", *rows.identity[i].tolist())
    assert result.difference.what == f"the row is missing in the {side}{' log' if side == 'live' else ''}"
    assert (result.difference.live == "absent") == (side == "live")


@pytest.mark.parametrize("i", [0, *EDGES, -1])
@pytest.mark.parametrize("side", ["live", "replay"])
def test_a_row_doubled_at_the_edge_of_a_part_is_named(
    tmp_path: Path, rows: FeatureRows, side: str, i: int
) -> None:
    i %= len(rows)
    doubled = rows.take(np.insert(np.arange(len(rows)), i, i))
    pair = (rows, doubled) if side == "live" else (doubled, rows)

    result = compared(tmp_path, *pair)

    assert not result.same
    assert result.difference is not None
    assert result.difference.identity == ("conn", *rows.identity[i].tolist())
    assert result.difference.what == f"the row stands twice in the {side}{' log' if side == 'live' else ''}"


@pytest.mark.parametrize("i", EDGES)
def test_swapped_rows_are_found(tmp_path: Path, rows: FeatureRows, i: int) -> None:
    i %= len(rows)
    order = np.arange(len(rows))
    order[[i - 1, i]] = i, i - 1

    result = compared(tmp_path, rows, rows.take(order))

    assert not result.same
    assert result.difference is not None or result.compared < len(rows)


def test_swapped_rows_are_told_from_missing_ones(tmp_path: Path, rows: FeatureRows) -> None:
    order = np.arange(len(rows))
    order[[500, 1_500]] = 1_500, 500

    result = compared(tmp_path, rows, rows.take(order))

    assert result.difference is not None
    assert result.difference.what == "the order of the rows"
    assert result.difference.identity[1] == rows.identity[500, 0]


def test_live_rows_outside_are_counted_too(tmp_path: Path, rows: FeatureRows) -> None:
    result = compared(tmp_path, rows.take(slice(0, -50)), rows)

    product = result.products["P0"]
    assert result.same
    assert (product.live_before, product.live_after, product.warm_up) == (0, 50, 0)
    assert product.compared == len(rows) - 50


def test_a_difference_behind_the_warm_up_is_found(tmp_path: Path, rows: FeatureRows) -> None:
    later = rows.take(slice(200, None))
    first = int(np.argmax(later.ts_event >= later.ts_event[0] + LOOK_BACK_S * 10**9))

    inside = compared(tmp_path / "inside", changed_cell(later, 3, first - 1), rows)
    behind = compared(tmp_path / "behind", changed_cell(later, 3, first), rows)

    assert inside.same
    assert behind.difference is not None
    assert behind.difference.identity[1] == later.identity[first, 0]


def test_a_row_missing_in_the_warm_up_is_found(tmp_path: Path, rows: FeatureRows) -> None:
    result = compared(tmp_path, without(rows.take(slice(200, None)), 40), rows)

    assert result.difference is not None
    assert result.difference.identity[1] == rows.identity[240, 0]


def test_a_replay_that_is_all_warm_up_proves_nothing(tmp_path: Path, rows: FeatureRows) -> None:
    result = compared(tmp_path, rows.take(slice(200, 300)), rows)

    assert not result.same
    assert (result.compared, result.products["P0"].warm_up) == (0, 100)


def of_two(a: FeatureRows, b: FeatureRows, *, names: tuple[str, str] = ("P0", "P1")) -> FeatureRows:
    """Rows of two products, one of each in turn."""
    order = np.argsort(np.r_[np.arange(len(a)) * 2, np.arange(len(b)) * 2 + 1], kind="stable")
    columns = ("identity", "ts_event", "ts_recv", "cause", "gap_from", "reasons", "values", "conn")
    return FeatureRows(
        products=list(names),
        conn_ids=["conn"],
        product=np.repeat([0, 1], [len(a), len(b)])[order],
        stale_after_s=10.0,
        **{name: np.concatenate([getattr(a, name), getattr(b, name)])[order] for name in columns},
    )


def test_two_products_are_compared_each_by_itself(tmp_path: Path, rows: FeatureRows) -> None:
    both = of_two(rows, rows.take(slice(0, 1_500)))
    first_p1_last = both.take(np.argsort(-both.product, kind="stable"))

    same = compared(tmp_path / "same", both, first_p1_last)
    other = compared(
        tmp_path / "other", both, of_two(rows, changed_cell(rows, 4, 1_100).take(slice(0, 1_500)))
    )

    assert same.same
    assert [same.products[name].compared for name in ("P0", "P1")] == [len(rows), 1_500]
    assert other.difference is not None
    assert (other.difference.product, other.difference.identity[1]) == ("P1", rows.identity[1_100, 0])


def test_a_product_of_one_side_alone_is_counted(tmp_path: Path, rows: FeatureRows) -> None:
    result = compared(tmp_path, of_two(rows, rows), rows)

    assert result.same
    assert result.products["P1"].replayed_before == len(rows)
    assert result.products["P1"].compared == 0


def test_one_product_does_not_stand_for_another_without_a_common_row(
    tmp_path: Path, rows: FeatureRows
) -> None:
    half = len(rows) // 2

    result = compared(
        tmp_path, of_two(rows, rows.take(slice(0, half))), of_two(rows, rows.take(slice(half, None)))
    )

    assert not result.same
    assert result.difference is not None
    assert (result.difference.product, result.products["P0"].compared) == ("P1", len(rows))


def test_batches_of_the_reader_do_not_matter(
    tmp_path: Path, rows: FeatureRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "richter.runtime.compare.read_features",
        lambda path: read_features(path, batch_rows=13 + len(path.name)),
    )

    result = compared(tmp_path, rows, rows)

    assert result.same
    assert result.compared == len(rows)
