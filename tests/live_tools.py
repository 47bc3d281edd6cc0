"""What tests of live runs share: real processes on loopback, and the check of what they leave."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from richter.config import Settings
from richter.domain import ticks as tk
from richter.models.alert_log import decode_alert
from richter.protocol.decoder import Decoder
from richter.runtime.alerting import AlertRun
from richter.runtime.compare import Comparison
from richter.runtime.replay import replay

RICHTER = [sys.executable, "-m", "richter"]
LIMIT_S = 60


@contextmanager
def exchange(*arguments: str) -> Iterator[str]:
    """`richter simulate` as a process; gives its address."""
    process = subprocess.Popen(
        [*RICHTER, "simulate", "--port", "0", "--json", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["url"]
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=LIMIT_S)


def start_run(folder: Path, url: str, *arguments: str) -> subprocess.Popen[str]:
    """`richter run` as a process; its log goes to a file beside the folder: a full pipe would stop it."""
    with log_of(folder).open("w") as log:
        return subprocess.Popen(
            [*RICHTER, "run", "--data", str(folder), "--url", url, "--json", *arguments],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=folder.parent,
            env={**os.environ, "RICHTER_ALERT_BUDGET_PER_HOUR": "2"},
        )


def log_of(folder: Path) -> Path:
    """The log of the last run on a folder."""
    return folder.parent / f"{folder.name}.log"


def end_run(process: subprocess.Popen[str]) -> dict[str, Any]:
    """End a run in order; returns what it says it did."""
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0
    ran: dict[str, Any] = json.loads(out)["ran"]
    return ran


def recorded_lines(folder: Path) -> int:
    """Whole lines of the recording."""
    return sum(path.read_bytes().count(b"\n") for path in (folder / "raw").glob("*.ndjson"))


def wait_for_lines(folder: Path, lines: int, process: subprocess.Popen[str] | None = None) -> None:
    """Wait until the recording has grown so far."""
    end = time.monotonic() + LIMIT_S
    while recorded_lines(folder) < lines:
        assert time.monotonic() < end, f"{recorded_lines(folder)} of {lines} lines after {LIMIT_S} s"
        assert process is None or process.poll() is None, log_of(folder).read_text()[-2000:]
        time.sleep(0.02)


def recorded_ticks(folder: Path) -> tuple[np.ndarray, Decoder]:
    """Every recorded tick, in the order of the log, and the names behind its codes."""
    decoder = Decoder(lambda product: 8)
    blocks = [
        decoder.decode(path.read_bytes(), file_conn="x").ticks
        for path in sorted((folder / "raw").glob("*.ndjson"))
    ]
    return np.concatenate(blocks), decoder


def check_run(
    folder: Path, settings: Settings | None = None, dead: dict[str, int] | None = None
) -> Comparison:
    """A run's logs are those of an uninterrupted replay of its recording, alerts too; nothing is doubled."""
    settings = settings or Settings(data_dir=folder, alert_budget_per_hour=2)
    alerting = AlertRun(settings)
    done = replay(
        [str(folder / "raw")],
        folder / "again.parquet",
        settings,
        compare=folder / "processed" / "features.parquet",
        on_rows=alerting.take,
    )
    comparison = done.comparison
    assert comparison is not None
    assert comparison.same, comparison.difference
    assert done.account.duplicates == 0
    assert done.account.dead == (dead or {})
    for product in comparison.products.values():
        outside = product.live_before, product.live_after, product.replayed_before, product.replayed_after
        assert (*outside, product.warm_up) == (0, 0, 0, 0, 0)
    alerting.finish(folder / "alerts" / "expected.ndjson")

    def alerts(name: str) -> dict[str, list[bytes]]:
        found: dict[str, list[bytes]] = {}
        path = folder / "alerts" / name
        for line in path.read_bytes().splitlines() if path.exists() else []:
            found.setdefault(decode_alert(line).product_id, []).append(line)
        return found

    assert alerts("alerts.ndjson") == alerts("expected.ndjson")
    ticks, _ = recorded_ticks(folder)
    for product in np.unique(ticks[:, tk.PRODUCT]):
        for conn in np.unique(ticks[:, tk.CONN]):
            mine = ticks[(ticks[:, tk.PRODUCT] == product) & (ticks[:, tk.CONN] == conn)]
            identities = [tuple(row) for row in mine[:, tk.FRAME_NO : tk.TICKER_INDEX + 1].tolist()]
            assert identities == sorted(set(identities))
    return comparison


def features(folder: Path, columns: Sequence[str]) -> dict[str, np.ndarray]:
    """Columns of a feature log."""
    table = pq.read_table(folder, columns=list(columns))
    return {name: table.column(name).to_numpy() for name in columns}
