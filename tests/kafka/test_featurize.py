"""`richter featurize` as processes: order, partitions, dead letters, a group that shrinks, and what it refuses."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer

from richter.adapters.kafka.connection import Broker
from richter.adapters.kafka.reading import TopicReader
from richter.adapters.kafka.records import Record, records_of
from richter.adapters.kafka.topics import DEAD
from tests.kafka import tools
from tests.kafka.pipeline import Pipeline, check, end
from tests.kafka.recorded import publish, record, running
from tests.kafka.test_check import put
from tests.tick_values import START_NS, row_value, tick_value

FIFTY = tuple(f"P{number:02d}-USD" for number in range(50))


@pytest.fixture
def pipeline(kafka: str, unique: Callable[[str], str], tmp_path: Path) -> Iterator[Pipeline]:
    with running(tmp_path, kafka, unique("featurize") + ".", FIFTY) as made:
        yield made


def records(pipeline: Pipeline, topic: str) -> list[Record]:
    found = []
    with TopicReader(Broker(pipeline.settings, "test"), topic) as reader:
        while not reader.at_end():
            found += [record for own in records_of(reader.read()).values() for record in own]
    return found


def partition_of(found: list[Record]) -> dict[bytes, set[int]]:
    places: dict[bytes, set[int]] = {}
    for each in found:
        places.setdefault(each.key or b"", set()).add(each.partition)
    return places


def assigned(pipeline: Pipeline, process: subprocess.Popen[str]) -> int:
    log = pipeline.log(process)
    return log.count('"assigned"') - log.count('"revoked"')


def test_fifty_products_keep_their_order_and_partitions_while_the_group_grows_and_shrinks(
    pipeline: Pipeline,
) -> None:
    parts = record(pipeline.folder, FIFTY, ticks=60, parts=3)
    sent = publish(pipeline, parts[0])
    one, two = pipeline.featurize(), pipeline.featurize("--no-parquet")
    tools.wait(lambda: min(assigned(pipeline, one), assigned(pipeline, two)) > 0, "share for each process")
    sent += publish(pipeline, parts[1])
    pipeline.wait_for(pipeline.committed, sent // 2 + 10, one, two)
    left = end(two)
    publish(pipeline, parts[2])
    pipeline.wait_for(pipeline.committed, pipeline.recorded(), one)
    stayed = end(one)

    check(pipeline)
    raw, rows = records(pipeline, pipeline.raw), records(pipeline, pipeline.features)
    assert partition_of(rows) == partition_of(raw)
    assert len(set.union(*partition_of(rows).values())) == 3
    assert all(len(places) == 1 for places in partition_of(rows).values())
    assert left["account"]["rows"] > 0 and stayed["account"]["rows"] > 0
    assert left["account"]["rows"] + stayed["account"]["rows"] == pipeline.recorded()
    assert stayed["log"]["rows"] == pipeline.recorded()
    assert left["log"] is None


LETTERS: list[tuple[bytes | None, str]] = [
    (b"rubbish", ""),
    (None, "no value"),
    (b"", "no value"),
    (b'{"sensor":3,"temperature":21.5}', ""),
    (b"x" * 900_000, ""),
    # Its number lies between those of its neighbours: it is no doubled tick.
    (tick_value(14, event_index=1, ts_event=START_NS + 60 * 10**9), "stamped more than 2 s ahead"),
    (b'"' + b"x" * 2_000_000 + b'"', ""),  # Larger than a letter may be.
]


def test_what_cannot_be_read_is_a_dead_letter_once_and_the_rest_goes_on(pipeline: Pipeline) -> None:
    for name in (pipeline.raw, pipeline.features):
        tools.create_topic(pipeline.servers, name, 1, max_message_bytes="5000000")
    large = Producer({"bootstrap.servers": pipeline.servers, "message.max.bytes": 5_000_000})
    pretty = json.dumps(json.loads(tick_value(2)), indent=4).encode()
    values = [tick_value(1), pretty]
    for number, (value, _) in enumerate(LETTERS):
        values += [value, tick_value(10 + number)]  # type: ignore[list-item]  # a tombstone is None
    put(pipeline.servers, pipeline.raw, values, made=large)
    first = pipeline.featurize("--no-parquet")
    pipeline.wait_for(pipeline.committed, 2 + len(LETTERS), first)
    done = end(first)
    put(pipeline.servers, pipeline.raw, [tick_value(20)])
    second = pipeline.featurize("--no-parquet")
    pipeline.wait_for(pipeline.committed, 3 + len(LETTERS), second)
    end(second)

    frames = [json.loads(value)["frame_no"] for value in pipeline.read(pipeline.features)[0]]
    letters = [record.headers for record in records(pipeline, pipeline.prefix + DEAD)]
    assert frames == [1, 2, *range(10, 10 + len(LETTERS)), 20]
    assert sorted(int(letter["offset"]) for letter in letters) == [2 + 2 * n for n in range(len(LETTERS))]
    assert {(letter["topic"], letter["partition"]) for letter in letters} == {(pipeline.raw.encode(), b"0")}
    by_offset = {int(letter["offset"]): letter["reason"].decode() for letter in letters}
    for number, (_, reason) in enumerate(LETTERS):
        assert by_offset[2 + 2 * number]
        assert reason in by_offset[2 + 2 * number]
    assert sum(done["account"]["dead"].values()) == len(LETTERS)


def refused(process: subprocess.Popen[str], pipeline: Pipeline) -> tuple[int, str]:
    """Exit code and last sentence of a process that ends by itself."""
    process.communicate(timeout=tools.LIMIT_S)
    log = pipeline.log(process)
    assert "Traceback" not in log
    return process.returncode, log.splitlines()[-1]


def test_without_a_broker_it_ends_with_a_sentence(pipeline: Pipeline) -> None:
    code, told = refused(pipeline.featurize("--bootstrap", "127.0.0.1:1"), pipeline)

    assert code == 1
    assert "no Kafka broker answers" in told
    assert "127.0.0.1:1" in told


def test_topics_of_different_partitions_are_refused(pipeline: Pipeline) -> None:
    tools.create_topic(pipeline.servers, pipeline.raw, 3)
    tools.create_topic(pipeline.servers, pipeline.features, 2)

    code, told = refused(pipeline.featurize(), pipeline)

    assert code == 2
    assert f"{pipeline.raw} has 3 partitions and {pipeline.features} has 2" in told


@pytest.mark.parametrize("value", [row_value(1, schema_id="another"), b'{"sensor":3}', b"\xff"])
def test_a_topic_of_other_rows_is_refused(pipeline: Pipeline, value: bytes) -> None:
    tools.create_topic(pipeline.servers, pipeline.features, 3)
    put(pipeline.servers, pipeline.features, [None, value])

    code, told = refused(pipeline.featurize(), pipeline)

    assert code == 1
    assert pipeline.features in told
    assert "--topic_out" in told


def test_a_deleted_topic_is_told_and_waited_for_and_must_fit_when_it_comes_back(pipeline: Pipeline) -> None:
    process = pipeline.featurize("--no-parquet")
    tools.wait(lambda: assigned(pipeline, process) == 3, "three partitions")

    tools.delete_topics(pipeline.servers, [pipeline.raw])
    tools.wait(lambda: f"does not exist any more: {pipeline.raw}" in pipeline.log(process), "word of it")
    tools.create_topic(pipeline.servers, pipeline.raw, 4)
    code, told = refused(process, pipeline)

    assert code == 2
    assert f"{pipeline.raw} has 4 partitions and {pipeline.features} has 3" in told
