"""The stage: one transaction for offsets and outputs, whoever is killed, stopped, doubled or left without its topic."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition
from structlog.testing import capture_logs

from richter.adapters.kafka import topic_watch
from richter.adapters.kafka.connection import Broker
from richter.adapters.kafka.reading import TopicReader
from richter.adapters.kafka.records import Record
from richter.adapters.kafka.stage import Output, Stage, StageStatus
from richter.config import Settings
from richter.errors import TransportError
from tests.kafka import tools
from tests.kafka.crash import PAIRS
from tests.kafka.pipeline import PYTHON, Pipeline, check, end
from tests.kafka.recorded import publish, record, running

MakeTopic = Callable[..., str]
PARTITIONS = 3


class Copy:
    """Writes each record to another topic, and remembers what it was told."""

    def __init__(self, target: str, fails_at: int | None = None) -> None:
        self.assignments: dict[int, tuple[int, str | None, int]] = {}
        self.seen: list[bytes] = []
        self.silent: list[bytes] = []
        self._target = target
        self._fails_at = fails_at

    def assigned(self, partition: int, committed: int, note: str | None, begin: int) -> int:
        self.assignments[partition] = committed, note, begin
        return begin if note is None else int(note)

    def revoked(self, partition: int) -> None:
        pass

    def take(self, partition: int, records: list[Record], writes: bool) -> Iterable[Output]:
        for each in records:
            assert each.value is not None
            if not writes:
                self.silent.append(each.value)
                continue
            self.seen.append(each.value)
            yield Output(self._target, each.value, each.key, partition)
            if len(self.seen) == self._fails_at:
                raise RuntimeError("no more")

    def note(self, partition: int) -> str:
        return "1"


class Copying:
    """Topics, a group and stages over them."""

    def __init__(self, servers: str, source: str, target: str, group: str) -> None:
        self.broker = Broker(Settings(kafka_bootstrap_servers=servers), "test")
        self.servers, self.source, self.target, self.group = servers, source, target, group

    def run(self, handler: Copy, is_over: Callable[[], bool], limit_s: float = 30) -> StageStatus:
        limit = time.monotonic() + limit_s
        status = StageStatus()

        def ends() -> bool:
            assert time.monotonic() < limit, f"not over after {limit_s} s"
            return is_over()

        Stage(self.broker, self.source, self.group, "one", handler, status).run(ends)
        return status

    def put(self, first: int, number: int) -> None:
        tools.produce(self.servers, self.source, {str(n): str(n) for n in range(first, first + number)})

    def written(self) -> list[bytes]:
        found = []
        with TopicReader(self.broker, self.target) as reader:
            while not reader.at_end():
                found += [message.value() or b"" for message in reader.read()]
        return sorted(found, key=int)


@pytest.fixture
def copying(kafka: str, topic: MakeTopic, group: str) -> Copying:
    made = Copying(kafka, topic(PARTITIONS), topic(PARTITIONS), group)
    made.put(0, 100)
    return made


def numbers(stop: int) -> list[bytes]:
    return [b"%d" % number for number in range(stop)]


def test_the_next_stage_goes_on_from_the_commit_and_its_note(copying: Copying) -> None:
    first, second = Copy(copying.target), Copy(copying.target)

    status = copying.run(first, lambda: len(first.seen) == 100)
    copying.put(100, 50)
    copying.run(second, lambda: len(second.seen) == 50)

    assert status.commits >= 1
    assert copying.written() == numbers(150)
    assert {note for _, note, _ in second.assignments.values()} == {"1"}
    assert sum(committed for committed, _, _ in second.assignments.values()) == 100
    assert len(second.silent) == 100 - PARTITIONS


def test_what_a_failed_stage_wrote_is_never_seen(copying: Copying) -> None:
    broken, next_one = Copy(copying.target, fails_at=30), Copy(copying.target)

    with pytest.raises(RuntimeError, match="no more"):
        copying.run(broken, lambda: False)
    before = copying.written()
    copying.run(next_one, lambda: len(next_one.seen) == 100)

    assert before == []
    assert copying.written() == numbers(100)


@pytest.mark.parametrize("name", ["assigned", "revoked", "note"])
def test_an_error_of_the_handler_within_a_rebalance_or_a_commit_ends_the_stage(
    copying: Copying, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def fails(self: Copy, *_: object) -> None:
        raise RuntimeError(f"{name} failed")

    broken, next_one = Copy(copying.target), Copy(copying.target)
    with monkeypatch.context() as patched:
        patched.setattr(Copy, name, fails)
        with pytest.raises(RuntimeError, match=f"{name} failed"):
            copying.run(broken, lambda: len(broken.seen) == 100)
    copying.run(next_one, lambda: len(broken.seen if name == "revoked" else next_one.seen) == 100)

    assert copying.written() == numbers(100)


def idle(copying: Copying, then: Callable[[], object]) -> Callable[[], object]:
    """A stage's run that does something once, when everything is read and committed, and goes on until it is lost."""
    handler, limit = Copy(copying.target), time.monotonic() + 30
    stage = Stage(copying.broker, copying.source, copying.group, "one", handler, StageStatus())
    done: list[object] = []

    def is_over() -> bool:
        assert time.monotonic() < limit
        # The stage has to know which topic it reads.
        if len(handler.seen) == 100 and stage._begun is None and stage._watch._id is not None and not done:
            done.append(then())
        return False

    return lambda: stage.run(is_over)


def test_a_topic_deleted_while_it_is_read_is_told(copying: Copying, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topic_watch, "WATCH_S", 0.3)
    run = idle(copying, lambda: tools.delete_topics(copying.servers, [copying.source]))

    with pytest.raises(TransportError, match=f"does not exist any more: '{copying.source}'"):
        run()

    assert copying.written() == numbers(100)
    tools.create_topic(copying.servers, copying.source)


def test_a_topic_made_anew_while_it_is_read_is_told(
    copying: Copying, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topic_watch, "WATCH_S", 0.3)

    def make_anew() -> None:
        tools.delete_topics(copying.servers, [copying.source])
        tools.create_topic(copying.servers, copying.source)

    run = idle(copying, make_anew)

    with pytest.raises(TransportError, match="made anew while it was read"):
        run()


def test_records_dropped_before_they_were_read_are_told(copying: Copying) -> None:
    first, second = Copy(copying.target), Copy(copying.target)
    copying.run(first, lambda: len(first.seen) == 100)
    copying.put(100, 60)
    with tools._admin(copying.servers) as client:
        dropped = client.delete_records([TopicPartition(copying.source, n, -1) for n in range(PARTITIONS)])
        begins = [future.result(tools.LIMIT_S).low_watermark for future in dropped.values()]
    copying.put(160, 40)

    with capture_logs() as logs:
        copying.run(second, lambda: len(second.seen) == 40)

    told = [each for each in logs if each["event"] == "records_lost"]
    assert sum(begins) == 160
    assert len(told) == PARTITIONS
    assert all(each["log_level"] == "error" for each in told)
    assert copying.written() == sorted([*numbers(100), *(b"%d" % n for n in range(160, 200))], key=int)


# `richter featurize` that stops itself, like a laptop put to sleep, while a transaction is open.
SLEEPER = """
import os, signal, sys, time
from richter.adapters.kafka import stage
from richter.cli.main import main
from richter.runtime import featurizing

stage.TRANSACTION_MS = 4_000
take = featurizing.Featurizing.take
slept = []

def sleeps(self, partition, records, writes):
    yield from take(self, partition, records, writes)
    if writes and not slept:
        slept.append(1)
        time.sleep(0.3)  # What was produced leaves.
        os.kill(os.getpid(), signal.SIGSTOP)

featurizing.Featurizing.take = sleeps
sys.exit(main(["featurize", *sys.argv[1:]]))
"""


@pytest.fixture
def pipeline(kafka: str, unique: Callable[[str], str], tmp_path: Path) -> Iterator[Pipeline]:
    with running(tmp_path, kafka, unique("stage") + ".", PAIRS) as made:
        yield made


def is_stopped(process: subprocess.Popen[str]) -> bool:
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def has_all(pipeline: Pipeline, process: subprocess.Popen[str], count: int = 3) -> None:
    pipeline.wait_for(lambda: pipeline.log(process).count('"assigned"'), count, process)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="asks Linux whether a process is stopped")
def test_a_process_that_slept_through_its_transaction_writes_nothing(pipeline: Pipeline) -> None:
    first, second = record(pipeline.folder, PAIRS, ticks=200, parts=2)
    publish(pipeline, first)
    script = pipeline.folder / "sleeper.py"
    script.write_text(SLEEPER)
    sleeper = pipeline.start([PYTHON, str(script), "--instance", "sleeper", "--no-parquet"])
    tools.wait(lambda: is_stopped(sleeper), "process that stopped itself")
    other = pipeline.featurize("--instance", "other", "--no-parquet")
    has_all(pipeline, other)
    pipeline.wait_for(pipeline.committed, 300, other)

    os.kill(sleeper.pid, signal.SIGCONT)
    # It loses its stage, comes back with an empty hand, and gets a share.
    tools.wait(lambda: '"stage_lost"' in pipeline.log(sleeper), "end of the sleeper's stage")
    tools.wait(lambda: '"revoked"' in pipeline.log(other), "share for the sleeper")
    publish(pipeline, second)
    pipeline.wait_for(pipeline.committed, pipeline.recorded(), sleeper, other)
    end(sleeper)
    end(other)
    check(pipeline)
    assert "Traceback" not in pipeline.logs()


def test_of_two_processes_with_one_instance_the_older_ends(pipeline: Pipeline) -> None:
    first, second = record(pipeline.folder, PAIRS, ticks=200, parts=2)
    publish(pipeline, first)
    older = pipeline.featurize("--instance", "same", "--no-parquet")
    pipeline.wait_for(lambda: "assigned" in pipeline.log(older), 1, older)

    newer = pipeline.featurize("--instance", "same", "--no-parquet")
    older.communicate(timeout=tools.LIMIT_S)
    has_all(pipeline, newer)
    publish(pipeline, second)
    pipeline.wait_for(pipeline.committed, pipeline.recorded(), newer)
    done = end(newer)

    assert older.returncode == 1
    told = pipeline.log(older).splitlines()[-1]
    assert "another process has taken this one's place in the group" in told
    assert "KAFKA_INSTANCE" in told
    assert "Traceback" not in pipeline.logs()
    assert done["restarts"] <= 1
    check(pipeline)
