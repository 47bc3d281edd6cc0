"""Exactly once, by killing: what is committed is an uninterrupted replay, and the check would see it otherwise."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from richter.adapters.broker.cluster import Cluster
from tests.kafka import tools
from tests.kafka.crash import PAIRS, kill_again_and_again
from tests.kafka.pipeline import PYTHON, Pipeline, check, compare, end
from tests.kafka.recorded import clean_up, publish, record, running
from tests.live_tools import exchange

# A featurizer as one might write it without transactions; it kills itself between its two steps.
BROKEN = """
import os, signal, sys
from confluent_kafka import Consumer, Producer, TopicPartition
from richter.adapters.kafka.records import records_of
from richter.config import Settings
from richter.runtime.featurizing import Featurizing

first, servers, source, target, dies = sys.argv[1:6]
consumer = Consumer({"bootstrap.servers": servers, "group.id": target, "enable.auto.commit": False})
producer = Producer({"bootstrap.servers": servers, "enable.idempotence": True})
handler = Featurizing(Settings(), source, target, target + ".dead")
places = consumer.committed([TopicPartition(source, partition) for partition in range(3)], 10)
ends = {place.partition: consumer.get_watermark_offsets(place, 10)[1] for place in places}
done = {place.partition: max(place.offset, 0) for place in places}
written = dict(done)
for place in places:
    note = place.metadata if place.offset >= 0 else None
    place.offset = handler.assigned(place.partition, done[place.partition], note, 0)
consumer.assign(places)

def produce(outputs):
    for each in outputs:
        producer.produce(each.topic, each.value, each.key, partition=each.partition)
    assert producer.flush(30) == 0

def commit(partition):
    place = TopicPartition(source, partition, done[partition], metadata=handler.note(partition))
    consumer.commit(offsets=[place], asynchronous=False)

while any(done[partition] < ends[partition] for partition in ends):
    for partition, records in records_of(consumer.consume(200, 1.0)).items():
        known = [each for each in records if each.offset < written[partition]]
        for _ in handler.take(partition, known, writes=False) if known else ():
            pass
        new = records[len(known):]
        if not new:
            continue
        outputs = list(handler.take(partition, new, writes=True))
        done[partition] = new[-1].offset + 1
        is_middle = new[0].offset > 0 and done[partition] < ends[partition]
        steps = [lambda: produce(outputs), lambda: commit(partition)]
        if first == "commit":
            steps.reverse()
        steps[0]()
        if dies and is_middle:
            os.kill(os.getpid(), signal.SIGKILL)
        steps[1]()
"""


@pytest.fixture
def prefix(kafka: str, unique: Callable[[str], str]) -> Iterator[str]:
    name = unique("crash") + "."
    yield name
    clean_up(kafka, name)


def test_kills_at_any_moment_double_and_lose_nothing(kafka: str, prefix: str, tmp_path: Path) -> None:
    comparison, killed = kill_again_and_again(tmp_path, kafka, prefix, 4, 3, most=40, history="20m")

    assert comparison.compared > 2_000
    assert sum(killed.values()) == 4
    assert len(killed) == 2


def run_broken(pipeline: Pipeline, first: str, *, dies: bool = False) -> int:
    script = pipeline.folder / "broken.py"
    script.write_text(BROKEN)
    command = [
        PYTHON,
        str(script),
        first,
        pipeline.servers,
        pipeline.raw,
        pipeline.features,
        "yes" if dies else "",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=tools.LIMIT_S, check=False)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


@pytest.fixture
def pipeline(kafka: str, prefix: str, tmp_path: Path) -> Pipeline:
    """A recording of three products that is on Kafka already."""
    made = Pipeline(tmp_path, kafka, prefix, "", PAIRS)
    record(made.folder, PAIRS, ticks=400)
    publish(made)
    tools.create_topic(kafka, made.features)
    return made


def test_without_a_kill_the_broken_featurizer_passes(pipeline: Pipeline) -> None:
    assert run_broken(pipeline, "produce") == 0

    check(pipeline)


@pytest.mark.parametrize(("first", "sign"), [("produce", 1), ("commit", -1)])
def test_a_kill_between_the_steps_of_a_broken_featurizer_is_found(
    pipeline: Pipeline, first: str, sign: int
) -> None:
    assert run_broken(pipeline, first, dies=True) == -signal.SIGKILL
    assert run_broken(pipeline, first) == 0

    found = compare(pipeline)

    assert not found.same
    assert not found.rows_match
    assert (pipeline.committed() - pipeline.recorded()) * sign > 0
    with pytest.raises(AssertionError):
        check(pipeline)


def test_a_broker_killed_in_mid_stream_costs_nothing(tmp_path: Path) -> None:
    tools.has_kafka()
    cluster = Cluster(tmp_path / "broker")
    cluster.start(1, 0)
    products = [argument for name in PAIRS for argument in ("--product", name)]
    try:
        with (
            running(tmp_path / "data", cluster.addresses(), "own.", PAIRS) as pipeline,
            exchange("--history", "10m", *products, "--seed", "5", "--no-limits") as url,
        ):
            pipeline.url = url
            ingest, featurizer = pipeline.ingest(), pipeline.featurize()
            pipeline.wait_for(lambda: pipeline.log(featurizer).count('"assigned"'), 3, featurizer)
            pipeline.wait_for(pipeline.recorded, 500, ingest)

            cluster.kill_node(1)
            pipeline.wait_for(pipeline.recorded, pipeline.recorded() + 5, ingest)
            cluster.start_node(1)

            # Both have found the broker again: ingest does not wait for ever at its end.
            pipeline.wait_for(pipeline.committed, pipeline.recorded(), ingest, featurizer)
            pipeline.wait_for(pipeline.recorded, pipeline.recorded() + 5, ingest)
            assert end(ingest)["published"]["left"] == 0
            pipeline.wait_for(pipeline.committed, pipeline.recorded(), featurizer)
            assert end(featurizer)["log"]["rows"] == pipeline.recorded()
            check(pipeline)
    finally:
        cluster.stop()
