"""The demo: a recording made on the spot, turned into features and alerts, and proved to replay to the same bits."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np

from richter.config import Settings
from richter.engine.kernel import advance
from richter.engine.rows import FeatureRows
from richter.engine.table import FEATURE_NAMES
from richter.errors import ArgumentsError
from richter.runtime.alerting import AlertReport, AlertRun
from richter.runtime.replay import Replayed, replay
from richter.simulate.market import PRESETS, simulate_market
from richter.simulate.recording import write_recording

__all__ = ["Demo", "run_demo"]

START_NS = 1_764_936_000 * 1_000_000_000  # a fixed moment: the same seed gives the same files
MAX_POINTS = 512
SIMULATED = "sim-"  # what the connections of a simulator are called

_SHOWN = [1 + FEATURE_NAMES.index(name) for name in ("realized_volatility_60s", "tau_rolling")]


class Demo(msgspec.Struct):
    """What the demo did.

    Attributes:
        simulated: whether a simulator's ticks are among the recording's.
        recordings: what was replayed.
        live: the feature log of the first pass.
        replayed: the second pass, with its comparison.
        alerts: the rule's alerts and what followed.
        seconds: taken by the first pass, compilation left out.
        product: the product that `latest`, `sigma` and `tau` are of: the recording's first.
        first: event time of its first tick, ns.
        last: event time of its last tick, ns.
        latest: its features at that tick.
        sigma: its 60 s volatility over time, for a plot: at most `MAX_POINTS`, the largest of each stretch of ticks;
            NaN where unknown.
        tau: its threshold, likewise.
    """

    simulated: bool
    recordings: list[str]
    live: Path
    replayed: Replayed
    alerts: AlertReport
    seconds: float
    product: str
    first: int
    last: int
    latest: dict[str, float]
    sigma: list[float]
    tau: list[float]


class _Watch:
    """Keeps what the demo shows of the first product's rows."""

    def __init__(self) -> None:
        self.product = ""
        self.simulated = False
        self.first = self.last = 0
        self.latest: list[float] = []
        self._points: list[np.ndarray] = []

    def take(self, rows: FeatureRows) -> None:
        if not len(rows):
            return
        self.simulated |= any(conn.startswith(SIMULATED) for conn in rows.conn_ids)
        self.product = self.product or rows.products[int(rows.product[0])]
        mine = rows.of_product(rows.products.index(self.product))
        if not len(mine):
            return
        self.first = self.first or int(mine.ts_event[0])
        self.last = int(mine.ts_event[-1])
        self.latest = mine.values[-1].tolist()
        self._points.append(mine.values[:, _SHOWN].copy())

    def points(self) -> np.ndarray:
        """(n, 2): volatility and tau, n at most `MAX_POINTS`."""
        points = np.concatenate(self._points)
        edges = np.linspace(0, len(points), min(len(points), MAX_POINTS), endpoint=False, dtype=np.int64)
        return np.fmax.reduceat(points, edges)


def run_demo(
    settings: Settings,
    *,
    seed: int,
    hours: float,
    preset: str,
    raw: list[str],
    say: Callable[[str], None],
) -> Demo:
    """Make a recording (or take `raw`), replay it twice, compare, raise alerts.

    Everything is kept in the folder `demo` of the data folder.

    Raises:
        ArgumentsError: there is no such preset.
        InputFileError: nothing to read in `raw`, or no tick in it.
    """
    folder = settings.data_dir / "demo"
    settings = msgspec.structs.replace(settings, data_dir=folder)
    if not raw and preset not in PRESETS:
        raise ArgumentsError("no such preset of the market", preset, f"choose one of {', '.join(PRESETS)}")
    _compile(settings, say)
    if not raw:
        say(f"making {hours:g} h of a SIMULATED market (preset {preset}, seed {seed})")
        market = simulate_market(PRESETS[preset], seed=seed, seconds=round(hours * 3600), start_ns=START_NS)
        shutil.rmtree(folder / "raw", ignore_errors=True)
        write_recording(market, folder / "raw", "BTC-USD", f"{SIMULATED}{seed}")
        raw = [str(folder / "raw")]
    say("computing features and alerts, tick by tick")
    watch, alerting = _Watch(), AlertRun(settings)

    def take(rows: FeatureRows) -> None:
        watch.take(rows)
        alerting.take(rows)

    live = folder / "processed" / "features.parquet"
    live.parent.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    replay(raw, live, settings, on_rows=take)
    seconds = time.perf_counter() - start
    alerts = alerting.finish(folder / "alerts" / "alerts.ndjson")
    say("replaying the recording and comparing every cell, bit for bit")
    replayed = replay(raw, folder / "processed" / "features_replay.parquet", settings, compare=live)
    points = watch.points()
    return Demo(
        simulated=watch.simulated,
        recordings=raw,
        live=live,
        replayed=replayed,
        alerts=alerts,
        seconds=seconds,
        product=watch.product,
        first=watch.first,
        last=watch.last,
        latest=dict(zip(("mid", *FEATURE_NAMES), watch.latest, strict=True)),
        sigma=points[:, 0].tolist(),
        tau=points[:, 1].tolist(),
    )


def _compile(settings: Settings, say: Callable[[str], None]) -> None:
    """Replay a short recording, so that the time taken afterwards is that of the ticks: no compiler, no imports."""
    # Without its compiler (NUMBA_DISABLE_JIT) numba leaves a plain function.
    cache = advance.stats.cache_path if hasattr(advance, "stats") else None
    if cache is None or not any(Path(cache).glob("kernel.advance-*.nbi")):
        say("compiling the kernel once (about 20 s)")
    scratch = settings.data_dir / ".compile"
    settings = msgspec.structs.replace(settings, data_dir=scratch)
    try:
        market = simulate_market(PRESETS["flat"], seed=0, seconds=120, start_ns=START_NS)
        write_recording(market, scratch / "raw", "BTC-USD", f"{SIMULATED}0")
        alerting = AlertRun(settings)
        replay([str(scratch / "raw")], scratch / "features.parquet", settings, on_rows=alerting.take)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
