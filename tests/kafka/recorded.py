"""Recordings without an exchange, and their way into a topic."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from richter.domain import ticks as tk
from richter.runtime.topic_replay import publish_recordings
from tests.kafka import tools
from tests.kafka.pipeline import Pipeline, kill
from tests.streams import quiet_and_busy_stream
from tests.test_parallel import line


def record(folder: Path, products: Sequence[str], ticks: int, parts: int = 1) -> list[Path]:
    """Write a recording of so many ticks of each product, without oddities, in parts that follow each other."""
    made: list[tuple[int, bytes]] = []
    for number, product in enumerate(products):
        stream = quiet_and_busy_stream(number, 4 * ticks, 1.0)[:ticks]
        assert len(stream) == ticks
        made += [(row[tk.TS_EVENT], line(row, product)) for row in stream.tolist()]
    made.sort(key=lambda each: each[0])
    (folder / "raw").mkdir(parents=True)
    paths = [folder / "raw" / f"part-{part}.ndjson" for part in range(parts)]
    size = -(-len(made) // parts)
    for part, path in enumerate(paths):
        path.write_bytes(b"".join(value for _, value in made[part * size : (part + 1) * size]))
    return paths


def publish(pipeline: Pipeline, *paths: Path) -> int:
    """Publish these parts of a recording, or all of it; returns how many records that made."""
    raw = [str(path) for path in paths] or [str(pipeline.folder / "raw")]
    return publish_recordings(raw, pipeline.raw, pipeline.settings).records


@contextmanager
def running(folder: Path, servers: str, prefix: str, pairs: tuple[str, ...]) -> Iterator[Pipeline]:
    """A pipeline whose processes and topics are gone afterwards, whatever happened."""
    started: list[subprocess.Popen[str]] = []

    class Noted(Pipeline):
        def start(self, command: list[str]) -> subprocess.Popen[str]:
            process = super().start(command)
            started.append(process)
            return process

    try:
        yield Noted(folder, servers, prefix, "", pairs)
    finally:
        for process in started:
            if process.poll() is None:
                kill(process)
        clean_up(servers, prefix)


def clean_up(servers: str, prefix: str) -> None:
    """Remove the topics with this prefix."""
    with tools._admin(servers) as client:
        names = [name for name in client.list_topics(timeout=tools.LIMIT_S).topics if name.startswith(prefix)]
    tools.delete_topics(servers, names)
