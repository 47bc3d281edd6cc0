"""The demo: a recording made on the spot, turned into features and alerts, and proved to replay to the same bits."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable

import msgspec
import numpy as np

from richter.config import Settings
from richter.engine.rows import FeatureRows
from richter.engine.table import FEATURE_NAMES
from richter.errors import ArgumentsError
from richter.runtime.alerting import AlertReport, AlertRun
from richter.runtime.replay import Replayed, replay
from richter.simulate.market import PRESETS, simulate_market
from richter.simulate.recording import write_recording

__all__ = ["Demo", "run_demo"]

START_NS = 1_764_936_000 * 1_000_000_000  # a fixed moment: the same seed gives the same files


class Demo(msgspec.Struct):
    """What the demo did.

    Attributes:
        simulated: whether the recording was made on the spot.
        recordings: what was replayed.
        replayed: the replay, with its comparison.
        alerts: the rule's alerts and what followed.
        seconds: taken by the first replay.
        latest: features at the last tick.
        sigma: (points,) 60 s volatility over time, for a plot; NaN where unknown.
        tau: (points,) its threshold.
    """

    simulated: bool
    recordings: list[str]
    replayed: Replayed
    alerts: AlertReport
    seconds: float
    latest: dict[str, float]
    sigma: list[float]
    tau: list[float]


class _Watch:
    """Keeps what the demo shows of the rows: one point a second."""

    def __init__(self) -> None:
        self.points: list[np.ndarray] = []
        self.last: FeatureRows | None = None

    def take(self, rows: FeatureRows) -> None:
        if not len(rows):
            return
        at = [1 + FEATURE_NAMES.index(name) for name in ("realized_volatility_60s", "tau_rolling")]
        change = np.flatnonzero(np.diff(rows.ts_event // 1_000_000_000, append=0))
        self.points.append(rows.values[change][:, at])
        self.last = rows.take(slice(-1, None))


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
    """
    folder = settings.data_dir / "demo"
    settings = msgspec.structs.replace(settings, data_dir=folder)
    if not raw:
        if preset not in PRESETS:
            raise ArgumentsError(
                "no such preset of the market", preset, f"choose one of {', '.join(PRESETS)}"
            )
        say(f"making {hours:g} h of a simulated market (preset {preset}, seed {seed})")
        market = simulate_market(PRESETS[preset], seed=seed, seconds=round(hours * 3600), start_ns=START_NS)
        shutil.rmtree(folder / "raw", ignore_errors=True)
        raw = [str(write_recording(market, folder / "raw", "BTC-USD", f"sim-{seed}"))]
        simulated = True
    else:
        simulated = False
    say("computing features (the first time, the kernel is compiled: about 10 s)")
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
    assert watch.last is not None  # a replay without a row has raised
    points = np.concatenate(watch.points)
    return Demo(
        simulated=simulated,
        recordings=raw,
        replayed=replayed,
        alerts=alerts,
        seconds=seconds,
        latest=dict(zip(("mid", *FEATURE_NAMES), watch.last.values[0].tolist(), strict=True)),
        sigma=points[:, 0].tolist(),
        tau=points[:, 1].tolist(),
    )
