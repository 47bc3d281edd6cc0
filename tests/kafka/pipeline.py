"""The distributed form as real processes, and the check of what they leave on Kafka."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from richter.adapters.kafka.connection import Broker
from richter.adapters.kafka.reading import TopicReader
from richter.adapters.kafka.records import records_of
from richter.adapters.kafka.topics import FEATURES, RAW
from richter.config import Settings
from richter.runtime.compare import Comparison, compare_logs
from richter.runtime.replay import replay
from richter.runtime.topic_replay import hold
from tests.live_tools import RICHTER

LIMIT_S = 90


class Pipeline:
    """Ingest and featurizers on one data folder and one prefix of topics.

    Args:
        folder: of the data.
        servers: of Kafka.
        prefix: of topics and groups.
        url: of the exchange.
        pairs: to be watched.
    """

    def __init__(self, folder: Path, servers: str, prefix: str, url: str, pairs: tuple[str, ...]) -> None:
        self.folder = folder
        self.servers = servers
        self.prefix = prefix
        self.url = url
        self.pairs = pairs
        self.settings = Settings(
            data_dir=folder, kafka_bootstrap_servers=servers, kafka_topic_prefix=prefix, products=pairs
        )
        self.raw = prefix + RAW
        self.features = prefix + FEATURES
        self._log_of: dict[int, Path] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def ingest(self, *arguments: str) -> subprocess.Popen[str]:
        """Start `richter ingest`."""
        pairs = [argument for pair in self.pairs for argument in ("--pair", pair)]
        return self.start([*RICHTER, "ingest", "--url", self.url, "--save-disk", *pairs, *arguments])

    def featurize(self, *arguments: str) -> subprocess.Popen[str]:
        """Start `richter featurize`."""
        return self.start([*RICHTER, "featurize", *arguments])

    def start(self, command: list[str]) -> subprocess.Popen[str]:
        """Start a process of the pipeline; what it logs goes to a file: a full pipe would stop it."""
        path = self.folder / f"process-{len(self._log_of) + 1}.log"
        with path.open("w") as log:
            process = subprocess.Popen(
                [*command, "--data", str(self.folder), "--json"],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=self.folder,
                env={
                    **os.environ,
                    "KAFKA_BOOTSTRAP_SERVERS": self.servers,
                    "KAFKA_TOPIC_PREFIX": self.prefix,
                },
            )
        self._log_of[process.pid] = path
        return process

    def log(self, process: subprocess.Popen[str]) -> str:
        """What a process has logged."""
        return self._log_of[process.pid].read_text()

    def logs(self) -> str:
        """The ends of all logs, for a failure's message."""
        return "\n".join(
            f"{path.name}: {path.read_text()[-1500:]}" for path in sorted(self.folder.glob("process-*.log"))
        )

    def recorded(self) -> int:
        """Whole lines of the recording."""
        return sum(path.read_bytes().count(b"\n") for path in (self.folder / "raw").glob("*.ndjson"))

    def committed(self) -> int:
        """Records that a reader of committed rows sees."""
        return sum(len(records) for records in self.read(self.features).values())

    def read(self, topic: str) -> dict[int, list[bytes]]:
        """Values of a topic by partition, of committed records only."""
        found: dict[int, list[bytes]] = {}
        with TopicReader(Broker(self.settings, "test"), topic) as reader:
            while not reader.at_end():
                for partition, records in records_of(reader.read()).items():
                    found.setdefault(partition, []).extend(record.value or b"" for record in records)
        return found

    def wait_for_word(self, word: str, process: subprocess.Popen[str]) -> None:
        """Wait until a process has logged a word."""
        self.wait_for(lambda: self.log(process).count(word), 1, process)

    def wait_for(self, what: Any, wanted: int, *processes: subprocess.Popen[str]) -> None:
        """Wait until a count has come so far."""
        end = time.monotonic() + LIMIT_S
        while what() < wanted:
            assert time.monotonic() < end, f"{what()} of {wanted} after {LIMIT_S} s\n{self.logs()}"
            for process in processes:
                assert process.poll() is None, self.logs()
            time.sleep(0.05)


def end(process: subprocess.Popen[str]) -> dict[str, Any]:
    """End a process in order; returns what it says it did."""
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, out
    answer: dict[str, Any] = json.loads(out)
    return next(iter(answer.values()))


def kill(process: subprocess.Popen[str]) -> None:
    """End a process at once."""
    process.kill()
    process.communicate()


def compare(pipeline: Pipeline) -> Comparison:
    """`ticks.features`, as a reader of committed rows sees it, beside an uninterrupted replay of the recording."""
    again, held = pipeline.folder / "again.parquet", pipeline.folder / "held.parquet"
    replay([str(pipeline.folder / "raw")], again, pipeline.settings)
    hold(Broker(pipeline.settings, "test"), pipeline.features, held, lambda number: None)
    return compare_logs(again, held)


def check(pipeline: Pipeline) -> Comparison:
    """Same rows, same order per product, same bits; none missing, none twice."""
    comparison = compare(pipeline)
    assert comparison.same, comparison.difference
    for product in comparison.products.values():
        outside = product.live_before, product.live_after, product.replayed_before, product.replayed_after
        assert (*outside, product.warm_up) == (0, 0, 0, 0, 0)
    assert comparison.compared == pipeline.recorded() == pipeline.committed()
    return comparison


PYTHON = sys.executable
