"""`python -m benchmarks [--ticks N]`: the engine beside its peers, on one core, in one run."""

from __future__ import annotations

import os

os.environ["POLARS_MAX_THREADS"] = "1"  # Before polars is imported: peers get one core as well.

import argparse
import gc
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.live import live_table
from benchmarks.stream import make_ticks, write_lines
from richter.config import Settings
from richter.domain import ticks as tk
from richter.engine.engine import Engine
from richter.engine.table import FEATURE_NAMES
from richter.protocol.decoder import Decoder
from richter.runtime.pipeline import Pipeline

EIGHT = (
    "price_return_1min",
    "price_return_5min",
    "realized_volatility_60s",
    "price_volatility_5min",
    "bid_ask_spread_bps_mean_60s",
    "bid_ask_spread_bps_mean_300s",
    "trade_intensity",
    "tick_intensity_300s",
)
BLOCK = 10_000


def best_of(times: int, job: Callable[[], object]) -> float:
    """Shortest of several runs, in seconds."""
    taken = []
    for _ in range(times):
        gc.collect()
        start = time.perf_counter()
        job()
        taken.append(time.perf_counter() - start)
    return min(taken)


def engine() -> Engine:
    return Engine(["BTC-USD"], conn_offsets=[0])


def run_engine(ticks: np.ndarray) -> None:
    runner = engine()
    for at in range(0, len(ticks), BLOCK):
        runner.process(ticks[at : at + BLOCK])


def frame(ticks: np.ndarray) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "ts": pl.Series(ticks[:, tk.TS_EVENT]).cast(pl.Datetime("ns")),
            "bid": ticks[:, tk.BID] / 1e8,
            "ask": ticks[:, tk.ASK] / 1e8,
        }
    )


def polars_eight(data: pl.DataFrame) -> pl.DataFrame:
    mid = (pl.col("bid") + pl.col("ask")) / 2
    data = data.with_columns(mid=mid).with_columns(
        r=pl.col("mid").log().diff(), bps=(pl.col("ask") - pl.col("bid")) / pl.col("mid") * 1e4
    )
    parts = [
        data.rolling("ts", period=period).agg(
            (pl.col("mid").last() / pl.col("mid").first() - 1).alias(f"ret_{period}"),
            pl.col("r").std().alias(f"std_{period}"),
            pl.col("bps").mean().alias(f"bps_{period}"),
            pl.len().alias(f"n_{period}"),
        )
        for period in ("60s", "300s")
    ]
    return pl.concat([parts[0], parts[1].drop("ts")], how="horizontal")


def river_eight(ticks: np.ndarray) -> None:
    from river import stats, utils

    rolling = [
        [utils.TimeRolling(stat, period=timedelta(seconds=seconds)) for stat in (stats.Var, stats.Mean)]
        for seconds in (60, 300)
    ]
    count = [utils.TimeRolling(stats.Sum, period=timedelta(seconds=seconds)) for seconds in (60, 300)]
    change = [utils.TimeRolling(stats.Sum, period=timedelta(seconds=seconds)) for seconds in (60, 300)]
    before = None
    from datetime import datetime

    start = datetime(2025, 12, 1)
    for row in ticks.tolist():
        at = start + timedelta(microseconds=(row[tk.TS_EVENT] - ticks[0, tk.TS_EVENT].item()) // 1000)
        mid = (row[tk.BID] + row[tk.ASK]) / 2e8
        r = 0.0 if before is None else float(np.log(mid / before))
        before = mid
        bps = (row[tk.ASK] - row[tk.BID]) / 1e8 / mid * 1e4
        for (var, mean), ticks_in, moved in zip(rolling, count, change, strict=True):
            var.update(r, t=at)
            mean.update(bps, t=at)
            ticks_in.update(1, t=at)
            moved.update(r, t=at)
            var.get(), mean.get(), ticks_in.get(), moved.get()


def kernel_table(ticks: np.ndarray, rows: list[tuple[str, str, str]]) -> None:
    run_engine(ticks[: 2 * BLOCK])
    ours = best_of(3, lambda: run_engine(ticks))
    data = frame(ticks)
    theirs = best_of(2, lambda: polars_eight(data))
    sample = ticks[:40_000]
    river = best_of(1, lambda: river_eight(sample)) / len(sample) * len(ticks)
    full, eight = len(FEATURE_NAMES), len(EIGHT)
    rate = len(ticks) / ours
    rows.append(
        ("richter, all features, ticks/s", f"{rate / 1e6:.2f} M", f"{rate * full / 1e6:.0f} M values/s")
    )
    rate = len(ticks) / theirs
    rows.append(
        (
            "polars df.rolling, 8 features, ticks/s",
            f"{rate / 1e6:.2f} M",
            f"{rate * eight / 1e6:.0f} M values/s",
        )
    )
    rows.append(("river TimeRolling, 8 features, ticks/s", f"{len(ticks) / river / 1e3:.1f} k", ""))
    rows.append(("feature values, richter / polars", f"{theirs / ours * full / eight:.1f} x", "target 3"))
    rows.append(("ticks, richter / river", f"{river / ours:.0f} x", "target 50"))


def files_table(ticks: np.ndarray, folder: Path, rows: list[tuple[str, str, str]]) -> None:
    path = folder / "ticks.ndjson"
    write_lines(ticks, path)
    columns = [1 + FEATURE_NAMES.index(name) for name in EIGHT]

    schema = pa.schema([("ts_event", pa.int64()), *((name, pa.float64()) for name in EIGHT)])

    def write(out: pq.ParquetWriter, parts: list[np.ndarray]) -> None:
        times, *values = np.hstack(parts)
        out.write_batch(pa.record_batch([times.view(np.int64), *values], schema=schema))
        parts.clear()

    def ours() -> None:
        with pq.ParquetWriter(
            folder / "ours.parquet", schema, compression="lz4", use_dictionary=False
        ) as out:
            parts: list[np.ndarray] = []
            for made in Pipeline(Settings()).run([path]):
                parts.append(np.vstack([made.ts_event.view(np.float64), *made.values.T[columns]]))
                if len(parts) == 64:
                    write(out, parts)
            write(out, parts)

    def theirs() -> None:
        data = (
            pl.scan_ndjson(path)
            .select(
                ts=pl.col("timestamp").str.to_datetime("%Y-%m-%dT%H:%M:%S%.f", time_unit="ns"),
                bid=pl.col("best_bid").cast(pl.Float64),
                ask=pl.col("best_ask").cast(pl.Float64),
            )
            .collect()
        )
        polars_eight(data).write_parquet(folder / "theirs.parquet", compression="lz4", statistics=False)

    ours()
    mine, peers = best_of(2, ours), best_of(2, theirs)
    n = len(ticks)
    rows.append(("NDJSON -> 8 features -> Parquet, richter, rows/s", f"{n / mine / 1e6:.2f} M", ""))
    rows.append(("the same, polars", f"{n / peers / 1e6:.2f} M", ""))
    rows.append(("richter / polars", f"{peers / mine:.1f} x", "target 2"))


def latency_table(ticks: np.ndarray, folder: Path, rows: list[tuple[str, str, str]]) -> None:
    path = folder / "few.ndjson"
    write_lines(ticks[:20_000], path)
    lines = path.read_bytes().splitlines(keepends=True)
    decoder = Decoder(lambda product: 8)
    runner = Engine(decoder.state.products, conn_offsets=decoder.state.conn_offsets)
    taken = []
    gc.disable()
    for number, line in enumerate(lines, 1):
        start = time.perf_counter_ns()
        runner.process(decoder.decode(line, file_conn="file:x", first_line=number).ticks)
        taken.append(time.perf_counter_ns() - start)
    gc.enable()
    p50, p99 = np.percentile(taken[2_000:], [50, 99]) / 1e3
    rows.append(("bytes of one record -> feature row, p50", f"{p50:.1f} us", "target 10"))
    rows.append(("the same, p99", f"{p99:.1f} us", "target 50"))


def memory_table(ticks: np.ndarray, rows: list[tuple[str, str, str]]) -> None:
    steady = ticks[: 10 * 3600].copy()
    steady[:, tk.TS_EVENT] = steady[:, tk.TS_RECV] = steady[0, tk.TS_EVENT] + np.arange(len(steady)) * 10**8
    runner = engine()
    runner.process(steady)
    rows.append(("state of a product at 10 ticks/s", f"{runner.nbytes / 1e6:.2f} MB", "target 2"))
    runner = engine()
    before = None
    step = ticks[-1, tk.TS_EVENT] - ticks[0, tk.TS_EVENT] + 10**8
    for turn in range(max(1, 10_000_000 // len(ticks))):
        for at in range(0, len(ticks), BLOCK):
            moved = ticks[at : at + BLOCK].copy()
            moved[:, [tk.TS_EVENT, tk.TS_RECV]] += turn * step
            moved[:, tk.FRAME_NO] += turn * len(ticks)
            runner.process(moved)
        before = before or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rows.append(
        (
            "peak memory after 10 M ticks, against after the first part",
            f"+{(after - before) / 1024:.0f} MB",
            "flat",
        )
    )


def workers_table(ticks: np.ndarray, folder: Path, rows: list[tuple[str, str, str]]) -> None:
    from richter.runtime.replay import replay

    def run(workers: int) -> None:
        replay(
            [str(folder / "ticks.ndjson")], folder / "all.parquet", Settings(data_dir=folder), workers=workers
        )

    one, two = (best_of(2, lambda workers=workers: run(workers)) for workers in (1, 2))
    rate = len(ticks) / one
    rows.append(("richter replay: all features, digest, log, rows/s", f"{rate / 1e6:.2f} M", ""))
    rows.append(("replay --workers 2 against 1, on two cores", f"{one / two:.2f} x", "same digest"))


def start_table(rows: list[tuple[str, str, str]]) -> None:
    command = [sys.executable, "-m", "richter", "--help"]
    taken = best_of(5, lambda: subprocess.run(command, check=True, capture_output=True))
    rows.append(("richter --help", f"{taken:.2f} s", "target 0.3"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ticks", type=int, default=2_000_000)
    parser.add_argument("--out", type=Path, help="write the table as Markdown")
    chosen = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="richter-bench-"))
    rows: list[tuple[str, str, str]] = []
    try:
        ticks = make_ticks(chosen.ticks)
        kernel_table(ticks, rows)
        latency_table(ticks, folder, rows)
        live_table(folder, rows)
        memory_table(ticks, rows)
        files_table(ticks, folder, rows)
        workers_table(ticks, folder, rows)
        start_table(rows)
    finally:
        shutil.rmtree(folder)
    table = "\n".join(
        ["| what | measured | |", "|---|---:|---|", *(f"| {' | '.join(row)} |" for row in rows)]
    )
    print(table)
    if chosen.out:
        head = (
            "# Benchmarks\n\nWritten by `make bench`. Peers run in the same process, on one core, on the same seeded "
            f"stream of {chosen.ticks:,} ticks at 8 ticks/s. Timings are of one noisy machine: read the ratios.\n\n"
        )
        chosen.out.write_text(head + table + "\n")


if __name__ == "__main__":
    main()
