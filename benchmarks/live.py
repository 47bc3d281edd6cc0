"""The live way: frames as they come from a socket to a decided alert, on one thread."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import numpy as np

from benchmarks.stream import make_ticks
from richter.adapters.coinbase.arrivals import Arrival, Arrivals, What
from richter.adapters.recording.dead import DeadLetters
from richter.adapters.recording.writer import Recorder
from richter.config import Settings
from richter.domain import ticks as tk
from richter.domain.times import iso_capture
from richter.protocol.advanced import AdvancedTrade
from richter.protocol.feed import Feed
from richter.runtime.feeding import FeedWorker
from richter.runtime.live import LiveFeatures

CONN = "bench"


class _Nobody:
    """A socket that sends nothing."""

    def send(self, conn_id: str, text: str) -> None:
        pass

    def drop(self, conn_id: str) -> None:
        raise AssertionError("the feed gave a good connection up")

    def note_live(self, live: bool, now: int) -> None:
        pass


def make_frames(products: list[str], n: int, heartbeat_every: int) -> list[bytes]:
    """Ticker frames of these products in turn, as on the wire, and heartbeats."""
    ticks = make_ticks(n).tolist()
    frames: list[bytes] = []

    def add(channel: str, ts: int, event: dict[str, object]) -> None:
        envelope = {
            "channel": channel,
            "timestamp": iso_capture(ts),
            "sequence_num": len(frames) + 1,
            "events": [event],
        }
        frames.append(json.dumps(envelope, separators=(",", ":")).encode())

    for number, row in enumerate(ticks):
        if number % heartbeat_every == 0:
            add("heartbeats", row[tk.TS_EVENT], {"current_time": "", "heartbeat_counter": number})
        ticker = {
            "type": "ticker",
            "product_id": products[number % len(products)],
            "price": f"{row[tk.PRICE] / 1e8:.2f}",
            "volume_24_h": f"{row[tk.VOLUME_24H_U]}.{row[tk.VOLUME_24H_F]:08d}",
            "low_24_h": f"{row[tk.LOW_24H] / 1e8:.2f}",
            "high_24_h": f"{row[tk.HIGH_24H] / 1e8:.2f}",
            "low_52_w": "57705.8",
            "high_52_w": "126340.3",
            "price_percent_chg_24_h": "0.25541069034937",
            "best_bid": f"{row[tk.BID] / 1e8:.2f}",
            "best_ask": f"{row[tk.ASK] / 1e8:.2f}",
            "best_bid_quantity": f"0.{row[tk.BID_QTY_F]:08d}",
            "best_ask_quantity": f"0.{row[tk.ASK_QTY_F]:08d}",
        }
        add("ticker", row[tk.TS_EVENT], {"type": "update", "tickers": [ticker]})
    return frames


def run_live(
    folder: Path, frames: list[bytes], products: list[str], rate: float | None
) -> tuple[float, np.ndarray, int]:
    """Work on frames that come at a rate (None: all there at once).

    Returns:
        seconds of the thread that works, each frame's time from its arrival until its alert was decided (us), and the
        most bytes that waited.
    """
    settings = Settings(data_dir=folder, products=tuple(products), min_free_gib=0)
    arrivals = Arrivals(10**9)
    taken: list[int] = []
    waiting: list[int] = []
    with (
        DeadLetters(folder / "dead.ndjson") as dead,
        Recorder(folder / "raw", min_free_bytes=0) as recorder,
        LiveFeatures(settings, sync_recording=recorder.sync) as live,
    ):
        feed = Feed(AdvancedTrade(), products)
        worker = FeedWorker("ws://bench", arrivals, _Nobody(), feed, recorder, dead, live)
        receive, take = feed.receive, live.take

        def received(frame: bytes, ts_recv: int, now: int) -> list[object]:
            waiting.append(now)
            return receive(frame, ts_recv, now)  # type: ignore[return-value]

        def took(lines: bytes, source: str, now: int) -> None:
            take(lines, source, now)
            done = time.monotonic_ns()
            taken.extend(done - at for at in waiting)
            waiting.clear()

        feed.receive = received  # type: ignore[method-assign,assignment]
        live.take = took  # type: ignore[method-assign]

        def put(what: What, data: bytes = b"") -> None:
            arrivals.put(Arrival(what, CONN, time.monotonic_ns(), time.time_ns(), data))

        put(What.CONNECTING)
        put(What.OPENED)
        acknowledged = {"ticker": products, "heartbeats": ["heartbeats"]}
        ack = {"channel": "subscriptions", "timestamp": "2025-12-01T00:00:00Z", "sequence_num": 0}
        put(What.FRAME, json.dumps({**ack, "events": [{"subscriptions": acknowledged}]}).encode())

        def arrive() -> None:
            start = time.perf_counter()
            for number, frame in enumerate(frames):
                if rate is not None:
                    while (left := start + number / rate - time.perf_counter()) > 0:
                        time.sleep(left)
                put(What.FRAME, frame)
            put(What.STOPPED)

        thread = threading.Thread(target=arrive)
        if rate is None:
            arrive()
        else:
            thread.start()
        start = time.perf_counter()
        worker.work()
        seconds = time.perf_counter() - start
        if rate is not None:
            thread.join()
        assert worker.status.recorded > 0.99 * len(frames)
        assert feed.counts.gaps == feed.counts.dead == 0
    return seconds, np.array(taken[len(frames) // 5 :]) / 1e3, arrivals.most_bytes


def live_table(folder: Path, rows: list[tuple[str, str, str]]) -> None:
    """Latency at 1,000 ticks/s, and twenty products at 200 ticks/s each."""
    one = make_frames(["BTC-USD"], 10_000, 1_000)
    dialect = AdvancedTrade()
    feed = Feed(dialect, ["BTC-USD"])
    for what, parse in (
        ("json.loads of a frame", json.loads),
        ("frame -> tick", dialect.read),
        ("frame -> sequence checked, gap, record line", lambda data: feed.receive(data, 0, 0)),
    ):
        feed.connect(CONN, 0)
        start = time.perf_counter()
        for frame in one:
            parse(frame)
        rows.append((what, f"{(time.perf_counter() - start) / len(one) * 1e6:.2f} us", ""))
    run_live(folder / "warm", one[:500], ["BTC-USD"], None)
    _, taken, _ = run_live(folder / "one", one, ["BTC-USD"], 1_000.0)
    p50, p99 = np.percentile(taken, [50, 99])
    rows.append(("frame received -> alert decided, 1,000 ticks/s, p50", f"{p50:.0f} us", ""))
    rows.append(("the same, p99", f"{p99:.0f} us", "target 1,000"))
    products = [f"C{number:02d}-USD" for number in range(20)]
    many = make_frames(products, 40_000, 4_000)
    seconds, _, _ = run_live(folder / "all", many, products, None)
    rows.append(
        (
            "frames of 20 products, recorded to decided, frames/s",
            f"{len(many) / seconds:,.0f}",
            "target 4,000",
        )
    )
    _, _, most = run_live(folder / "paced", many[:20_000], products, 4_000.0)
    rows.append(("most bytes waiting at 20 x 200 ticks/s", f"{most / 1e3:.0f} kB", "bounded"))
