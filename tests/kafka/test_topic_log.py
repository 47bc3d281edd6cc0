"""The feature log of a topic: each committed row once, whoever is killed, and told where that cannot be."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
from confluent_kafka import TopicPartition
from structlog.testing import capture_logs

from richter.adapters.kafka.connection import Broker
from richter.config import Settings
from richter.errors import SchemaMismatchError, TransportError
from richter.runtime.compare import compare_logs
from richter.runtime.topic_log import TopicLog
from tests.kafka import tools
from tests.kafka.crash import PAIRS
from tests.kafka.pipeline import PYTHON, Pipeline, check, end, kill
from tests.kafka.recorded import publish, record, running
from tests.kafka.test_check import put
from tests.tick_values import row_value

MakeTopic = Callable[..., str]
NAME = re.compile(r"part-(\d{3})-(\d{12})-(\d{12})")


@pytest.fixture
def broker(kafka: str) -> Broker:
    return Broker(Settings(kafka_bootstrap_servers=kafka), "test")


def put_rows(broker: Broker, topic: str, first: int, number: int) -> None:
    for product in ("BTC-USD", "ETH-USD"):
        values = [row_value(n, product) for n in range(first, first + number)]
        put(broker.servers, topic, values, key=product.encode())


def rows_in(folder: Path) -> list[tuple[str, int]]:
    table = pd.read_parquet(folder)
    return sorted(zip(table["product_id"].tolist(), table["frame_no"].tolist(), strict=True))


def rows(number: int) -> list[tuple[str, int]]:
    return [(product, n) for product in ("BTC-USD", "ETH-USD") for n in range(number)]


def keep(broker: Broker, topic: str, folder: Path) -> TopicLog:
    """Bring a log up to what is committed."""
    log = TopicLog(broker, topic, folder)
    try:
        assert log.drain(30)
    finally:
        log.close()
    return log


def spans(folder: Path) -> dict[int, list[tuple[int, int]]]:
    """The offsets of each partition's parts."""
    found: dict[int, list[tuple[int, int]]] = {}
    for path in sorted(folder.glob("part-*.parquet")):
        if (match := NAME.fullmatch(path.stem)) is not None:
            partition, begin, end = map(int, match.groups())
            found.setdefault(partition, []).append((begin, end))
    return found


def test_parts_are_named_by_partition_and_offsets_and_follow_each_other(
    broker: Broker, topic: MakeTopic, tmp_path: Path
) -> None:
    name, folder = topic(), tmp_path / "log"

    empty = TopicLog(broker, name, folder)
    assert rows_in(folder) == []
    empty.close()
    for first in (0, 40, 80):
        put_rows(broker, name, first, 40)
        kept = keep(broker, name, folder)
        assert rows_in(folder) == rows(first + 40)

    parts = [span for own in spans(folder).values() for span in own]
    assert kept.status.rows == 80
    assert sum(end - begin for begin, end in parts) == 240
    for own in spans(folder).values():
        assert [begin for begin, _ in own] == [0, *(end for _, end in own[:-1])]
    assert not list(folder.glob(".*"))


def test_what_had_no_name_yet_is_read_again(broker: Broker, topic: MakeTopic, tmp_path: Path) -> None:
    name = topic()
    put_rows(broker, name, 0, 50)
    log = TopicLog(broker, name, tmp_path / "log")
    tools.wait(
        lambda: sum(part.writer.rows for part in log._parts.values()) == 100 or log.step(0.1) < 0, "rows"
    )
    log.close()

    before = rows_in(tmp_path / "log")
    keep(broker, name, tmp_path / "log")

    assert before == []
    assert rows_in(tmp_path / "log") == rows(50)


# Parts of few rows, so that a kill meets one at any stage of its writing.
WRITER = """
import sys
from pathlib import Path
from richter.adapters.kafka.connection import Broker
from richter.config import Settings
from richter.runtime import topic_log

topic_log.PART_ROWS = 20
topic_log.BATCH = 10
log = topic_log.TopicLog(Broker(Settings(kafka_bootstrap_servers=sys.argv[1]), "test"), sys.argv[2], Path(sys.argv[3]))
while True:
    log.step()
"""


def test_a_killed_writer_loses_and_doubles_nothing(broker: Broker, topic: MakeTopic, tmp_path: Path) -> None:
    name, folder = topic(), tmp_path / "log"
    put_rows(broker, name, 0, 1_500)
    for parts in (10, 30):
        writer = subprocess.Popen([PYTHON, "-c", WRITER, broker.servers, name, str(folder)])

        def has_grown(parts: int = parts) -> bool:
            return sum(map(len, spans(folder).values())) >= parts

        tools.wait(has_grown, f"{parts} parts")
        kill(writer)
        found = rows_in(folder)
        assert len(found) == len(set(found))

    keep(broker, name, folder)

    assert rows_in(folder) == rows(1_500)
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize("anew", [False, True])
def test_the_log_of_another_topic_is_moved_aside(
    broker: Broker, topic: MakeTopic, tmp_path: Path, anew: bool
) -> None:
    name, folder = topic(), tmp_path / "log"
    put_rows(broker, name, 0, 10)
    keep(broker, name, folder)
    if anew:
        tools.delete_topics(broker.servers, [name])
        tools.create_topic(broker.servers, name)
    else:
        name = topic()
    put_rows(broker, name, 0, 3)

    with capture_logs() as logs:
        keep(broker, name, folder)

    assert [each["event"] for each in logs] == ["log_moved_aside"]
    assert rows_in(folder) == rows(3)
    assert rows_in(tmp_path / "log.old.1") == rows(10)


def test_records_that_the_topic_dropped_unread_are_told(
    broker: Broker, topic: MakeTopic, tmp_path: Path
) -> None:
    name, folder = topic(1), tmp_path / "log"
    put_rows(broker, name, 0, 10)
    keep(broker, name, folder)
    put_rows(broker, name, 10, 5)
    with tools._admin(broker.servers) as client:
        (dropped,) = client.delete_records([TopicPartition(name, 0, 26)]).values()
        dropped.result(tools.LIMIT_S)

    with capture_logs() as logs:
        kept = keep(broker, name, folder)

    assert kept.status.missed == 6
    assert [(each["event"], each["log_level"]) for each in logs] == [("rows_missed", "error")]
    assert len(rows_in(folder)) == 24


def test_a_record_that_is_no_row_is_refused(broker: Broker, topic: MakeTopic, tmp_path: Path) -> None:
    name = topic(1)
    put(broker.servers, name, [row_value(1), b'{"sensor":3}'])

    with pytest.raises(SchemaMismatchError, match="no feature row"):
        keep(broker, name, tmp_path / "log")

    assert rows_in(tmp_path / "log") == []


# `richter featurize` on a data folder whose disk is full until a file appears.
FULL = """
import errno, os, sys
from pathlib import Path
from richter.adapters.tables import parts
from richter.cli.main import main

sync = parts._sync

def is_full(path):
    if not Path("freed").exists() and path.name.count("-") == 2:  # The first part, without rows, has one.
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    sync(path)

parts._sync = is_full
parts.GROUP_ROWS = 10
from richter.runtime import topic_log
topic_log.PART_ROWS = 50
sys.exit(main(["featurize", *sys.argv[1:]]))
"""


def test_a_topic_that_is_missing_is_told(broker: Broker, tmp_path: Path) -> None:
    with pytest.raises(TransportError, match=r"does not exist: 'nowhere\.rows'"):
        TopicLog(broker, "nowhere.rows", tmp_path / "log")


@pytest.fixture
def pipeline(kafka: str, unique: Callable[[str], str], tmp_path: Path) -> Iterator[Pipeline]:
    with running(tmp_path, kafka, unique("log") + ".", PAIRS) as made:
        yield made


def test_one_of_two_processes_writes_and_the_other_takes_over(pipeline: Pipeline) -> None:
    folder = pipeline.folder / "processed" / "features.parquet"
    first, second = record(pipeline.folder, PAIRS, ticks=200, parts=2)
    publish(pipeline, first)
    writer = pipeline.featurize()
    tools.wait(lambda: '"assigned"' in pipeline.log(writer) and folder.exists(), "first process at work")
    other = pipeline.featurize()
    tools.wait(lambda: "another process writes the feature log" in pipeline.log(other), "word of the other")
    tools.wait(lambda: '"assigned"' in pipeline.log(other), "share for the other")
    assert rows_in(folder) == []

    kill(writer)
    publish(pipeline, second)
    pipeline.wait_for(pipeline.committed, pipeline.recorded(), other)
    done = end(other)

    assert done["log"]["rows"] == pipeline.recorded() == len(rows_in(folder))
    assert done["log_trouble"] == ""
    check(pipeline)


def test_rows_go_on_while_the_disk_is_full_and_the_log_catches_up(pipeline: Pipeline) -> None:
    folder = pipeline.folder / "processed" / "features.parquet"
    first, second = record(pipeline.folder, PAIRS, ticks=200, parts=2)
    script = pipeline.folder / "full.py"
    script.write_text(FULL)
    sent = publish(pipeline, first)

    process = pipeline.start([PYTHON, str(script)])
    pipeline.wait_for(lambda: pipeline.log(process).count('"assigned"'), 3, process)
    pipeline.wait_for(pipeline.committed, sent, process)
    tools.wait(lambda: "No space left on device" in pipeline.log(process), "word of the full disk")
    sent += publish(pipeline, second)
    pipeline.wait_for(pipeline.committed, sent, process)
    while_full = rows_in(folder)
    (pipeline.folder / "freed").touch()
    tools.wait(lambda: len(rows_in(folder)) > 0, "part of the log")
    done = end(process)

    assert while_full == []
    assert len(rows_in(folder)) == sent == done["log"]["rows"]
    assert (done["log_trouble"], done["restarts"]) == ("", 0)
    assert "Traceback" not in pipeline.logs()
    check(pipeline)
    assert compare_logs(pipeline.folder / "again.parquet", folder).same
