"""The feature log: what was put in comes out to the last bit, at any moment, or a sentence says why not."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from richter.adapters.tables import features
from richter.adapters.tables.features import feature_schema, read_features
from richter.adapters.tables.parts import FeatureLogWriter
from richter.domain import ticks as tk
from richter.engine.digest import schema_id
from richter.engine.rows import FeatureRows, reason_text
from richter.engine.table import FEATURE_NAMES
from richter.errors import DataFolderError, InputFileError, SchemaMismatchError

COLUMNS = ("product", "conn", "identity", "ts_event", "ts_recv", "cause", "gap_from", "reasons", "values")
NAN = 0x7FF8000000000000


def some(n: int, seed: int = 3, stale_after_s: float = 10.0) -> FeatureRows:
    """Rows of any values a column can hold, extremes and all."""
    rng = np.random.default_rng(seed)
    edges = np.array([tk.NO_TIME, -1, 0, 1, 2**53 + 1, 2**63 - 1], np.int64)

    def whole(size: int | tuple[int, int]) -> np.ndarray:
        return np.where(rng.random(size) < 0.5, rng.choice(edges, size), rng.integers(0, 2**62, size))

    shape = n, 1 + len(FEATURE_NAMES)
    cells = np.array([NAN, 0, 1, 0x7FEFFFFFFFFFFFFF, 0x0010000000000000, 0x3FF0000000000001], np.int64)
    values = np.where(
        rng.random(shape) < 0.5, rng.choice(cells, shape), rng.normal(size=shape).view(np.int64)
    )
    return FeatureRows(
        products=["BTC-USD", "ETH-USD"],
        conn_ids=["file:x", "c-1", "ünï"],
        product=rng.integers(0, 2, n),
        conn=rng.integers(0, 3, n),
        identity=whole((n, 3)),
        ts_event=whole(n),
        ts_recv=whole(n),
        cause=rng.integers(0, len(tk.GapCause), n),
        gap_from=whole(n),
        reasons=rng.integers(0, 16, n),
        values=values.view(np.float64),
        stale_after_s=stale_after_s,
    )


def text(rows: FeatureRows) -> list[list[object]]:
    """Rows with names for codes and bits for floats."""
    table: list[list[object]] = []
    for i in range(len(rows)):
        numbers = [rows.ts_event[i], rows.ts_recv[i], rows.cause[i], rows.gap_from[i], rows.reasons[i]]
        table.append(
            [rows.products[rows.product[i]], rows.conn_ids[rows.conn[i]], rows.stale_after_s]
            + rows.identity[i].tolist()
            + [int(number) for number in numbers]
            + np.ascontiguousarray(rows.values[i]).view(np.int64).tolist()
        )
    return table


def read(folder: Path, **options: int) -> list[list[object]]:
    return [row for rows in read_features(folder, **options) for row in text(rows)]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(("part_rows", "batch_rows"), [(3, 7), (64, 10), (97, 50), (10_000, 10_000)])
def test_every_bit_comes_back_whatever_the_parts(tmp_path: Path, part_rows: int, batch_rows: int) -> None:
    rows = some(300)

    with FeatureLogWriter(tmp_path / "log", part_rows=part_rows, durable=False) as log:
        for start in range(0, 300, 41):
            log.append(rows.take(slice(start, start + 41)))

    assert read(tmp_path / "log", batch_rows=batch_rows) == text(rows)
    assert len(names(tmp_path / "log")) == 1 + -(-300 // part_rows)


def test_a_changed_bit_would_show(tmp_path: Path) -> None:
    rows = some(50)
    with FeatureLogWriter(tmp_path / "log", durable=False) as log:
        log.append(rows)
    values = rows.values.copy()
    values.view(np.int64)[20, 7] ^= 1

    changed = msgspec.structs.replace(rows, values=values)

    assert read(tmp_path / "log") != text(changed)


def test_the_first_part_has_the_schema_and_no_rows(tmp_path: Path) -> None:
    FeatureLogWriter(tmp_path / "log")

    assert names(tmp_path / "log") == ["part-000000.parquet"]
    table = pq.read_table(tmp_path / "log" / "part-000000.parquet")
    assert table.num_rows == 0
    assert table.schema.equals(feature_schema())
    assert table.schema.metadata[b"richter.schema_id"].decode() == schema_id()
    assert list(read_features(tmp_path / "log")) == []


def test_any_reader_reads_the_folder_at_any_moment(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    rows = some(90)
    seen = []

    with FeatureLogWriter(folder, part_rows=30, durable=False) as log:
        for start in range(0, 91, 10):
            (folder / ".part-000009.parquet.123").write_bytes(b"PAR1 half a part")
            polars = pl.scan_parquet(folder / "*.parquet").collect()
            arrow = ds.dataset(folder, format="parquet").to_table()
            assert polars.height == arrow.num_rows == pq.read_table(folder).num_rows == len(read(folder))
            assert polars.columns == arrow.column_names == feature_schema().names
            seen.append(arrow.num_rows)
            log.append(rows.take(slice(start, start + 10)))

    assert seen == [0, 0, 0, 30, 30, 30, 60, 60, 60, 90]
    assert (
        polars["mid"].to_numpy().view(np.int64).tolist() == rows.values[:90, 0].copy().view(np.int64).tolist()
    )
    assert polars["reasons"].cast(pl.String).to_list() == [
        reason_text(bits) for bits in rows.reasons.tolist()
    ]


def test_pandas_reads_the_folder(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    with FeatureLogWriter(tmp_path / "log", durable=False) as log:
        assert len(pandas.read_parquet(tmp_path / "log")) == 0
        log.append(some(20))

    frame = pandas.read_parquet(tmp_path / "log")

    assert len(frame) == 20
    assert list(frame.columns) == feature_schema().names


def test_parts_are_written_once_under_a_dot_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    rename = Path.rename

    def spied(path: Path, target: Path) -> Path:
        written.append(path.name)
        assert not target.exists()
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", spied)
    folder = tmp_path / "log"
    before: dict[str, tuple[int, bytes]] = {}

    with FeatureLogWriter(folder, part_rows=10) as log:
        for seed in range(4):
            log.append(some(10, seed))
            now = {path.name: (path.stat().st_ino, path.read_bytes()) for path in folder.iterdir()}
            assert before.items() <= now.items()
            before = now

    assert written == [f".part-{number:06d}.parquet.{os.getpid()}" for number in range(5)]
    assert names(folder) == [f"part-{number:06d}.parquet" for number in range(5)]


def test_a_writer_goes_on_behind_the_last_part(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    for seed in range(3):
        with FeatureLogWriter(folder, durable=False) as log:
            log.append(some(5, seed))

    assert names(folder) == [f"part-{number:06d}.parquet" for number in range(4)]
    assert read(folder) == [row for seed in range(3) for row in text(some(5, seed))]


def test_rows_of_another_staleness_keep_theirs(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    with FeatureLogWriter(folder, durable=False) as log:
        log.append(some(5, 1, 10.0))
        log.append(some(5, 2, 20.0))

    assert read(folder) == text(some(5, 1, 10.0)) + text(some(5, 2, 20.0))


def of_another_schema(folder: Path) -> Path:
    folder.mkdir()
    schema = feature_schema().with_metadata({b"richter.schema_id": b"older"})
    pq.write_table(schema.empty_table(), folder / "part-000000.parquet")
    return folder


def test_another_schema_is_refused_with_the_way_out(tmp_path: Path) -> None:
    folder = of_another_schema(tmp_path / "log")

    with pytest.raises(SchemaMismatchError, match=r"older.*richter replay --raw"):
        list(read_features(folder))


def test_a_schema_of_the_same_name_with_other_columns_is_refused(tmp_path: Path) -> None:
    schema = feature_schema()
    pq.write_table(schema.remove(len(schema) - 1).empty_table(), tmp_path / "f.parquet")

    with pytest.raises(SchemaMismatchError, match="richter replay --raw"):
        list(read_features(tmp_path / "f.parquet"))


@pytest.mark.parametrize(("column", "kind"), [("mid", pa.float32()), ("ts_event", pa.float64())])
def test_a_schema_with_a_column_of_another_type_is_refused(
    tmp_path: Path, column: str, kind: pa.DataType
) -> None:
    schema = feature_schema()
    at = schema.get_field_index(column)
    pq.write_table(schema.set(at, pa.field(column, kind)).empty_table(), tmp_path / "f.parquet")

    with pytest.raises(SchemaMismatchError, match="richter replay --raw"):
        list(read_features(tmp_path / "f.parquet"))


def test_texts_of_any_arrow_kind_are_read(tmp_path: Path) -> None:
    with FeatureLogWriter(tmp_path / "log", durable=False) as log:
        log.append(some(5))
    table = pq.read_table(tmp_path / "log")
    for at, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            table = table.set_column(at, field.name, table.column(at).cast(pa.large_string()))
    pq.write_table(table, tmp_path / "f.parquet")

    assert read(tmp_path / "f.parquet") == text(some(5))


def test_a_writer_moves_a_log_of_another_schema_aside(tmp_path: Path) -> None:
    folder = of_another_schema(tmp_path / "log")

    with FeatureLogWriter(folder, durable=False) as log:
        log.append(some(5))

    assert read(folder) == text(some(5))
    assert names(tmp_path) == ["log", "log.old.1"]
    assert names(tmp_path / "log.old.1") == ["part-000000.parquet"]


def no_parquet(path: Path) -> None:
    path.write_bytes(b"product_id,mid\nBTC-USD,1\n")


def empty_file(path: Path) -> None:
    path.write_bytes(b"")


def truncated(path: Path) -> None:
    with FeatureLogWriter(path, durable=False) as log:
        log.append(some(50))
    part = path / "part-000001.parquet"
    part.write_bytes(part.read_bytes()[:-20])


def damaged(path: Path) -> None:
    with FeatureLogWriter(path, durable=False) as log:
        log.append(some(500))
    part = path / "part-000001.parquet"
    data = bytearray(part.read_bytes())
    data[4:4000] = bytes(3996)
    part.write_bytes(data)


def foreign(path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), path)


def empty_folder(path: Path) -> None:
    path.mkdir()


def missing(path: Path) -> None:
    pass


def with_column(path: Path, name: str, values: list[object]) -> None:
    with FeatureLogWriter(path, durable=False) as log:
        log.append(some(2))
    part = path / "part-000001.parquet"
    table = pq.read_table(part)
    field = table.schema.field(name)
    at = table.schema.get_field_index(name)
    pq.write_table(table.set_column(at, field, pa.array(values, field.type)), part)


def unknown_reason(path: Path) -> None:
    with_column(path, "reasons", ["bad_weather", "bad_weather"])


def unknown_cause(path: Path) -> None:
    with_column(path, "gap_before", ["bad_weather", "bad_weather"])


def contradiction(path: Path) -> None:
    valid = (some(2).reasons == 0).tolist()
    with_column(path, "valid", [not valid[0], valid[1]])


BAD = [no_parquet, empty_file, truncated, damaged, foreign, empty_folder, missing]


@pytest.mark.parametrize("make", [*BAD, unknown_reason, unknown_cause, contradiction])
def test_what_is_no_feature_log_is_named(tmp_path: Path, make: object) -> None:
    make(tmp_path / "log.parquet")  # type: ignore[operator]  # one of the functions above

    with pytest.raises(InputFileError) as refused:
        list(read_features(tmp_path / "log.parquet"))

    assert "log.parquet" in str(refused.value)
    assert refused.value.fix
    assert "\n" not in str(refused.value)


def test_a_full_disk_is_said_and_leaves_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "log"
    log = FeatureLogWriter(folder, part_rows=10)

    def full(writer: pq.ParquetWriter, batch: pa.RecordBatch) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(features.pq.ParquetWriter, "write_batch", full)
        with pytest.raises(DataFolderError, match=r"No space left on device.*free space"):
            log.append(some(10))

    assert names(folder) == ["part-000000.parquet"]
    assert read(folder) == []


def test_a_file_size_limit_is_said_and_leaves_no_part(tmp_path: Path) -> None:
    code = (
        "import resource, sys; from pathlib import Path; sys.path.insert(0, sys.argv[2])\n"
        "from tests.test_feature_log import FeatureLogWriter, some\n"
        "log = FeatureLogWriter(Path(sys.argv[1]), part_rows=2000)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "log.append(some(2000))\n"
    )

    ended = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "log"), str(Path(__file__).parents[1])],
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 1
    assert "DataFolderError: cannot write the feature log (File too large)" in ended.stderr.splitlines()[-1]
    assert names(tmp_path / "log") == ["part-000000.parquet"]


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"")

    with pytest.raises(DataFolderError, match="cannot make the feature log"):
        FeatureLogWriter(tmp_path / "log")
