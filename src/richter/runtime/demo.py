"""The demo: a simulated exchange, a live run against it, and the proof that its recording replays to the same bits."""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np

from richter.adapters.coinbase.client import SIMULATED_PREFIX
from richter.adapters.recording.lock import FolderLock
from richter.config import Settings
from richter.engine.rows import FeatureRows
from richter.engine.table import FEATURE_NAMES
from richter.errors import ArgumentsError
from richter.runtime.alerting import AlertReport, AlertRun
from richter.runtime.compare import compare_logs
from richter.runtime.feed_run import Ran
from richter.runtime.replay import Replayed, replay
from richter.runtime.rule_alerts import SIGMA, TAU
from richter.runtime.running import QUIET, Progress, run
from richter.runtime.warming import warm_up
from richter.simulate.market import PRESETS
from richter.simulate.server import SimulatedExchange
from richter.simulate.sources import MarketSource

__all__ = ["Demo", "run_demo"]

MAX_POINTS = 512


class Demo(msgspec.Struct):
    """What the demo did.

    Attributes:
        simulated: whether a simulator's ticks are among the recording's.
        recordings: what was replayed.
        ran: the live run; None where recordings were given.
        live: the feature log of the live run, or of the first pass over the recordings given.
        replayed: the replay, with its comparison.
        alerts: the rule's alerts and what followed.
        seconds: taken by the replay, without the comparison.
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
    ran: Ran | None
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
        self.simulated |= any(conn.startswith(SIMULATED_PREFIX) for conn in rows.conn_ids)
        self.product = self.product or rows.products[int(rows.product[0])]
        mine = rows.of_product(rows.products.index(self.product))
        if not len(mine):
            return
        self.first = self.first or int(mine.ts_event[0])
        self.last = int(mine.ts_event[-1])
        self.latest = mine.values[-1].tolist()
        self._points.append(mine.values[:, [SIGMA, TAU]].copy())

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
    minutes: float,
    raw: list[str],
    say: Callable[[str], None],
    progress: Progress = QUIET,
) -> Demo:
    """Run live against a simulated exchange (or take `raw`), then replay the recording and compare.

    Everything is kept in the folder `demo` of the data folder, which begins anew.

    Args:
        settings: the data folder, and all else.
        seed: of the market.
        hours: of history before the market goes over into real time.
        preset: of the market.
        minutes: of real time.
        raw: recordings in the place of a market.
        say: told what is being done.
        progress: told of the live run's state.

    Raises:
        ArgumentsError: there is no such preset.
        InputFileError: nothing to read in `raw`, or no tick in it.
    """
    folder = settings.data_dir / "demo"
    settings = msgspec.structs.replace(settings, data_dir=folder)
    if not raw and preset not in PRESETS:
        raise ArgumentsError("no such preset of the market", preset, f"choose one of {', '.join(PRESETS)}")
    warm_up(say)
    live = folder / "processed" / "features.parquet"
    ran = None
    if raw:
        say("computing features and alerts, tick by tick")
        live.parent.mkdir(parents=True, exist_ok=True)
        replay(raw, live, settings)
    else:
        say(
            f"a SIMULATED exchange opens: {hours:g} h of history (preset {preset}, seed {seed}), then real time"
        )
        _empty(folder)
        source = MarketSource(settings.products, seed=seed, preset=preset, history_s=hours * 3600)
        with _exchange(source) as url:
            own = msgspec.structs.replace(settings, coinbase_ws_url=url, coinbase_feed="advanced")
            ran = run(own, minutes=minutes, progress=progress)
        raw = [str(folder / "raw")]
    say("replaying the recording and comparing every cell, bit for bit")
    watch, alerting = _Watch(), AlertRun(settings)

    def take(rows: FeatureRows) -> None:
        watch.take(rows)
        alerting.take(rows)

    start = time.perf_counter()
    replayed = replay(raw, folder / "processed" / "features_replay.parquet", settings, on_rows=take)
    seconds = time.perf_counter() - start
    replayed.comparison = compare_logs(replayed.out, live)
    name = "alerts.ndjson" if ran is None else "replay_alerts.ndjson"
    alerts = alerting.finish(folder / "alerts" / name)
    points = watch.points()
    return Demo(
        simulated=watch.simulated,
        recordings=raw,
        ran=ran,
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


def _empty(folder: Path) -> None:
    """Begin anew, unless another demo is at work there."""
    lock = FolderLock(folder, "richter demo")
    try:
        for each in folder.iterdir():
            if each.is_dir():
                shutil.rmtree(each, ignore_errors=True)
    finally:
        lock.release()


@contextmanager
def _exchange(source: MarketSource) -> Iterator[str]:
    """A simulated exchange in a thread of its own; gives its address."""
    opened = threading.Event()
    told: list[object] = []

    async def serve() -> None:
        over = asyncio.Event()
        try:
            async with SimulatedExchange(source) as exchange:
                told.extend((exchange.url, asyncio.get_running_loop(), over))
                opened.set()
                await over.wait()
        finally:
            opened.set()

    thread = threading.Thread(target=asyncio.run, args=(serve(),), name="exchange")
    thread.start()
    opened.wait()
    try:
        url, loop, over = told
        assert isinstance(loop, asyncio.AbstractEventLoop)
        assert isinstance(over, asyncio.Event)
        try:
            yield str(url)
        finally:
            loop.call_soon_threadsafe(over.set)
    finally:
        thread.join()
