"""`make seed`: the course's commands, typed word for word, against a simulated exchange and a Kafka broker.

Everything happens in a copy of the project: only the exchange's and the broker's address differ (in `.env`), and the
minutes where fewer are asked for.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from richter.adapters.broker.cluster import Cluster
from tests.live_tools import exchange

ROOT = Path(__file__).parents[1]
LIMIT_S = 120

SETUP = """python3 -m venv .venv
source .venv/bin/activate
pip install -r requirements.txt"""
TOPICS = "richter topics create ticks.raw ticks.features"  # In the containers it is kafka-topics.
INGEST = "python scripts/ws_ingest.py --pair BTC-USD --minutes 15 --save-disk"
CHECK = "python scripts/kafka_consume_check.py --topic ticks.raw --min 100"
FEATURIZE = "python features/featurizer.py --topic_in ticks.raw --topic_out ticks.features"
FEATURIZE_FOR = "python features/featurizer.py --duration 15"
LIST_RAW = "ls -lth data/raw/ | head -5"
HEAD_RAW = "head -5 data/raw/ticks_BTCUSD_*.ndjson"
REPLAY_TO = """python scripts/replay.py \\
  --raw "data/raw/*.ndjson" \\
  --out data/processed/features_replay.parquet"""
REPLAY = 'python scripts/replay.py --raw "data/raw/*.ndjson"'
CHECK_TEN = "python scripts/kafka_consume_check.py --topic ticks.raw --min 10"
LIST_FEATURES = "ls -lh data/processed/features.parquet"
SHAPE = "python -c \"import pandas as pd; print(pd.read_parquet('data/processed/features.parquet').shape)\""

REPRODUCED = r"✓ Features match between live and replay\n✓ Row counts identical\n✓ Reproducibility verified"


class Typing:
    """Types commands in a folder and keeps what came of them.

    Args:
        folder: a copy of the project.
        minutes: in the place of the course's 15.
        venv: whose python is `python`.
        tell: told of each command.
    """

    def __init__(self, folder: Path, minutes: float, venv: Path, tell: Callable[[str], object]) -> None:
        self._folder = folder
        self._minutes = minutes
        self._venv = venv
        self._tell = tell
        self.rows: list[tuple[str, float, str]] = []

    def start(self, command: str) -> subprocess.Popen[str]:
        """Begin a command."""
        typed = re.sub(r"(--minutes|--duration) 15\b", rf"\1 {self._minutes:g}", command)
        self._tell(f"$ {typed}")
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("KAFKA_", "RICHTER_", "COINBASE_"))
        }
        return subprocess.Popen(
            ["bash", "-c", typed],
            cwd=self._folder,
            env={**kept, "PATH": f"{self._venv / 'bin'}:{os.environ['PATH']}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def end(
        self,
        command: str,
        process: subprocess.Popen[str],
        expected: str,
        began: float,
        *,
        limit_s: float = LIMIT_S,
        interrupt: bool = False,
    ) -> str:
        """Wait for a command (with `interrupt` press Ctrl+C) and check what it says; returns that."""
        if interrupt:
            os.killpg(process.pid, signal.SIGINT)
        try:
            out, _ = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, _ = process.communicate()
            raise AssertionError(f"{command} did not end in {limit_s:.0f} s:\n{out[-3000:]}") from None
        found = re.search(expected, out)
        assert process.returncode == 0, f"{command}: exit code {process.returncode}\n{out[-3000:]}"
        assert found is not None, f"{command}: no {expected!r} in\n{out[-3000:]}"
        told = " ".join(found[0].split())
        self.rows.append((command, time.monotonic() - began, told))
        self._tell(f"  {told}")
        return out

    def type(self, command: str, expected: str, limit_s: float = LIMIT_S) -> str:
        """Type a command and wait for it."""
        began = time.monotonic()
        return self.end(command, self.start(command), expected, began, limit_s=limit_s)


def copy_project(target: Path) -> None:
    """Copy what git knows of, as it is now."""
    names = subprocess.check_output(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, text=True
    )
    for name in filter(None, names.split("\0")):
        source, place = ROOT / name, target / name
        if source.is_file():
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, place)


@contextmanager
def broker(folder: Path, port: int) -> Iterator[str]:
    """A broker of our own: the course's topics have names that somebody's own may have."""
    cluster = Cluster(folder)
    cluster.start(1, port)
    try:
        yield cluster.addresses()
    finally:
        cluster.stop()


def type_the_seed(
    folder: Path,
    servers: str,
    url: str,
    minutes: float,
    *,
    setup: bool = False,
    tell: Callable[[str], object] = lambda text: None,
) -> list[tuple[str, float, str]]:
    """Type the commands of the course's streaming part, those that run for minutes side by side.

    Args:
        folder: an empty one, for the copy.
        servers: of Kafka.
        url: of the exchange.
        minutes: in the place of 15.
        setup: also make the virtual environment anew, as the course does.
        tell: told of each command and what it says.

    Returns:
        Each command with its seconds and the words that were looked for.
    """
    copy_project(folder)
    (folder / ".env").write_text(f"KAFKA_BOOTSTRAP_SERVERS={servers}\nCOINBASE_WS_URL={url}\n")
    typing = Typing(folder, minutes, folder / ".venv" if setup else Path(sys.prefix), tell)
    if setup:
        typing.type(SETUP, r"Successfully installed", 1200)
    typing.type(TOPICS, r"created +ticks\.raw|ticks\.raw.*created|created")
    long_s = minutes * 60 + LIMIT_S
    began = time.monotonic()
    running = {command: typing.start(command) for command in (FEATURIZE, FEATURIZE_FOR, INGEST)}
    try:
        typing.type(CHECK, r"✓ [\d,]+ messages in ticks\.raw.*", long_s)
        ingested = typing.end(
            INGEST,
            running.pop(INGEST),
            r"recorded [\d,]+ ticks .*\n(.*\n)*? +[\d,]+ +published to ticks\.raw",
            began,
            limit_s=long_s,
        )
        assert re.search(r"WebSocket connected to wss?://", ingested)
        typing.end(
            FEATURIZE_FOR,
            running.pop(FEATURIZE_FOR),
            r"made [\d,]+ rows? of ticks\.features",
            began,
            limit_s=long_s,
        )
        time.sleep(1)
        typing.end(
            FEATURIZE,
            running.pop(FEATURIZE),
            r"made [\d,]+ rows? of ticks\.features(.*\n)*? +[\d,]+ +rows written",
            began,
            interrupt=True,
        )
    finally:
        for process in running.values():
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    typing.type(LIST_RAW, r"ticks_BTCUSD_\d{8}_\d{6}\.ndjson")
    typing.type(HEAD_RAW, r'"product_id": ?"BTC-USD"')
    typing.type(REPLAY_TO, REPRODUCED)
    typing.type(REPLAY, REPRODUCED)
    typing.type(CHECK_TEN, r"✓ [\d,]+ messages in ticks\.raw.*")
    typing.type(LIST_FEATURES, r"part-\d+.*\.parquet")
    typing.type(SHAPE, r"\(\d{2,}, \d+\)")
    return typing.rows


def history(minutes: float) -> tuple[str, ...]:
    """What an exchange needs for a hundred ticks in less than the course's time."""
    return () if minutes >= 15 else ("--history", "30m")


def shown(command: str) -> str:
    """A command in a cell of a table."""
    return " ".join(command.split()).replace("|", "\\|")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=float(os.environ.get("SEED_MINUTES") or 15))
    parser.add_argument("--port", type=int, default=9092, help="of the broker; 0 takes a free one")
    parser.add_argument(
        "--out", type=Path, help="write the table as Markdown, when all 15 minutes were typed"
    )
    chosen = parser.parse_args()
    start = time.monotonic()
    with (
        TemporaryDirectory(prefix="richter-seed-") as place,
        broker(Path(place) / "kafka", chosen.port) as servers,
        exchange("--product", "BTC-USD", "--seed", "7", *history(chosen.minutes)) as url,
    ):
        servers = servers.replace("127.0.0.1", "localhost")
        rows = type_the_seed(
            Path(place) / "project",
            servers,
            url,
            chosen.minutes,
            setup=True,
            tell=lambda text: print(text, flush=True),
        )
    table = "\n".join(f"| `{shown(command)}` | {s:.0f} | {told} |" for command, s, told in rows)
    text = (
        "# The course's commands\n\nWritten by `make seed`: each command word for word, in a copy of the project "
        "with a virtual environment of its own, against a simulated exchange and a Kafka broker on this machine; "
        f"those that run for minutes side by side. {chosen.minutes:g} of the course's 15 minutes, "
        f"{(time.monotonic() - start) / 60:.0f} minutes in all. The commands in containers: `make compose-test`.\n\n"
        f"| command | s | it says |\n|---|---:|---|\n{table}\n"
    )
    print(text)
    if chosen.out and chosen.minutes >= 15:
        chosen.out.write_text(text)


if __name__ == "__main__":
    main()
