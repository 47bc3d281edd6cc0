"""What is recorded is on the topic: every line, in order, whatever happens to the broker, to the disk and to us."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from structlog.testing import capture_logs

from richter.adapters.broker.cluster import Cluster
from richter.adapters.broker.probe import free_ports
from richter.adapters.kafka import topics
from richter.adapters.kafka.connection import Broker
from richter.adapters.kafka.producer import RecordProducer
from richter.adapters.kafka.topics import RAW
from richter.adapters.recording.published import load_published
from richter.adapters.recording.recovery import recover
from richter.adapters.recording.segments import Position, list_segments
from richter.adapters.recording.writer import Recorder
from richter.config import Settings
from richter.engine.table import LOOK_BACK_S
from richter.errors import ContractError, DataFolderError, TransportError
from richter.runtime import publishing, topic_replay
from richter.runtime.publishing import Publisher
from richter.runtime.retaining import retain, trim
from richter.runtime.tick_records import RESENT_NS
from richter.runtime.topic_replay import publish_recordings
from tests.kafka import tools
from tests.kafka.pipeline import Pipeline, end, kill
from tests.live_tools import exchange
from tests.tick_values import SECOND, START_NS, tick_value

A, B = "A-BUSD", "AB-USD"  # Both are ABUSD in a file's name.
BTC = "BTC-USD"


class Found(NamedTuple):
    """A record, as a plain client sees it."""

    key: str
    value: bytes
    headers: dict[str, bytes]
    timestamp_ms: int


def read_topic(servers: str, topic: str) -> list[Found]:
    """All records, partition by partition."""
    consumer = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": "none",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "log_level": 0,
        }
    )
    found = []
    try:
        for number in consumer.list_topics(topic, timeout=tools.LIMIT_S).topics[topic].partitions:
            consumer.assign([TopicPartition(topic, number, 0)])
            is_read, limit = False, time.monotonic() + tools.LIMIT_S
            while not is_read:
                assert time.monotonic() < limit, f"{topic} [{number}] cannot be read"
                for message in consumer.consume(1000, 0.2):
                    error = message.error()
                    if error is not None:
                        assert error.code() == KafkaError._PARTITION_EOF, error
                        is_read = True
                        continue
                    headers = dict(message.headers() or ())
                    found.append(
                        Found(message.key().decode(), message.value(), headers, message.timestamp()[1])
                    )
    finally:
        consumer.close()
    return found


def values(found: list[Found], product: str) -> list[bytes]:
    return [record.value for record in found if record.key == product]


def first_times(all_values: list[bytes]) -> list[bytes]:
    """Without what is there again."""
    return list(dict.fromkeys(all_values))


class Log:
    """A recording in the making, and what is in it by product."""

    def __init__(self, folder: Path, **limits: Any) -> None:
        recover(folder)
        self.folder = folder
        self.lines: dict[str, list[bytes]] = {}
        self.recorder = Recorder(folder, min_free_bytes=0, **limits)

    def add(self, number: int, product: str = BTC, **fields: Any) -> bytes:
        line = tick_value(number, product, **fields)
        at = START_NS + number * SECOND
        self.recorder.append(product, [line], ts_recv=at, ts_event=at, conn_id="conn-1")
        self.lines.setdefault(product, []).append(line)
        return line


@pytest.fixture
def prefix(kafka: str, unique: Callable[[str], str]) -> Iterator[str]:
    """A prefix of topics of this test, which are deleted at its end."""
    prefix = unique("publish") + "."
    yield prefix
    delete_topics_of(kafka, prefix)


def delete_topics_of(servers: str, prefix: str) -> None:
    known = AdminClient({"bootstrap.servers": servers}).list_topics(timeout=tools.LIMIT_S).topics
    tools.delete_topics(servers, [name for name in known if name.startswith(prefix)])


@pytest.fixture
def make(tmp_path: Path, prefix: str) -> Callable[..., Settings]:
    """Settings with topics of their own."""
    return lambda servers, *products: Settings(
        data_dir=tmp_path / "data",
        kafka_bootstrap_servers=servers,
        kafka_topic_prefix=prefix,
        products=products or (BTC,),
    )


@pytest.fixture
def pipeline(tmp_path: Path, prefix: str) -> Iterator[Callable[..., Pipeline]]:
    """Makes pipelines on one data folder and one prefix; what they started is killed at the end."""
    started: list[subprocess.Popen[str]] = []

    class Ours(Pipeline):
        def start(self, command: list[str]) -> subprocess.Popen[str]:
            started.append(super().start(command))
            return started[-1]

    yield lambda servers, url, *pairs: Ours(tmp_path / "data", servers, prefix, url, pairs or (BTC,))
    for process in started:
        if process.poll() is None:
            kill(process)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A broker to kill."""
    tools.has_kafka()
    cluster = Cluster(tmp_path_factory.mktemp("own"))
    cluster.start(1, 0)
    yield cluster
    cluster.stop()


def wait_published(publisher: Publisher, records: int) -> None:
    tools.wait(lambda: publisher.status.published >= records, f"{records} records published")


def told(logs: list[Any], event: str) -> list[str]:
    return [entry["text"] for entry in logs if entry["event"] == event]


def test_every_line_arrives_in_order_with_its_key_its_identity_and_the_time_of_publishing(
    kafka: str, make: Callable[..., Settings]
) -> None:
    settings = make(kafka, A, B)
    folder = settings.data_dir / "raw"
    log = Log(folder, rotate_bytes=20_000, compress=True)
    before = time.time() * 1000
    with Publisher(settings, folder) as publisher:
        for number in range(300):
            log.add(number, (A, B)[number % 3 == 0])
            if number % 50 == 0:
                log.recorder.tick()
                publisher.take(b"", "", 0)
        log.recorder.close()

    found = read_topic(kafka, settings.kafka_topic_prefix + RAW)
    for product in (A, B):
        assert values(found, product) == log.lines[product]
    assert (publisher.status.published, publisher.status.left, publisher.status.trouble) == (300, 0, "")
    for record in found:
        tick = json.loads(record.value)
        assert record.headers["schema"] == b"richter.tick/1"
        assert record.headers["connection"].decode() == tick["conn_id"]
        assert int(record.headers["sequence"]) == tick["frame_no"]
        assert (folder / f"{record.headers['source'].decode()}.manifest.json").exists()
        assert before - 1000 <= record.timestamp_ms <= time.time() * 1000 + 1000
    assert len(list(folder.glob("*.zst"))) > 4


def test_what_was_recorded_before_anyone_published_counts_as_done(
    kafka: str, make: Callable[..., Settings]
) -> None:
    settings = make(kafka)
    log = Log(settings.data_dir / "raw")
    for number in range(5):
        log.add(number)
    log.recorder.close()
    log = Log(settings.data_dir / "raw")
    with Publisher(settings, log.folder):
        log.add(5)
        log.add(6, "NEW-USD")
        log.recorder.close()
    # The products of a later start, and what is recorded in between, are published from their first line on.
    log = Log(settings.data_dir / "raw")
    log.add(7)
    log.recorder.close()
    with Publisher(settings, log.folder):
        pass

    found = read_topic(kafka, settings.kafka_topic_prefix + RAW)

    assert values(found, BTC) == [tick_value(5), tick_value(7)]


def test_ingest_killed_again_and_again_publishes_every_line_and_little_of_it_twice(
    kafka: str, tmp_path: Path, pipeline: Callable[..., Pipeline]
) -> None:
    pairs = ("BTC-USD", "ETH-USD")
    raw = tmp_path / "data" / "raw"
    products = [argument for pair in pairs for argument in ("--product", pair)]
    with exchange("--history", "6h", *products, "--seed", "5", "--no-limits") as url:
        pipe = pipeline(kafka, url, *pairs)
        notes = []
        for _ in range(3):
            before = pipe.recorded()
            process = pipe.ingest()
            # The note is of this run, amid a segment, and behind the topic.
            tools.wait(
                lambda before=before: before < sum(noted(raw).values()) < records_in(kafka, pipe.raw),
                "records that the note does not know",
            )
            kill(process)
            notes.append(noted(raw))
        process = pipe.ingest()
        pipe.wait_for(pipe.recorded, pipe.recorded() + 3, process)
        ran = end(process)

    assert ran["published"]["left"] == 0
    found = read_topic(kafka, pipe.raw)
    headers: dict[bytes, dict[str, bytes]] = {}
    for record in found:
        assert headers.setdefault(record.value, record.headers) == record.headers
    doubled = 0
    for pair in pairs:
        recorded = recorded_lines(raw, pair)
        published = values(found, pair)
        assert first_times(published) == recorded
        number_of = {line: number for number, line in enumerate(recorded)}
        steps = pairwise(number_of[line] for line in published)
        begins = {after for before, after in steps if after != before + 1}
        assert begins <= {note.get(pair, 0) for note in notes}  # The first line behind the note.
        passed = dict(zip(recorded, event_time_passed(recorded), strict=True))
        newest = -1
        for line in published:
            if passed[line] <= newest:
                doubled += 1
                assert newest - passed[line] <= RESENT_NS
            newest = max(newest, passed[line])
    assert doubled > 0


def recorded_lines(raw: Path, product: str) -> list[bytes]:
    paths = sorted(raw.glob(f"ticks_{product.replace('-', '')}_*.ndjson"))
    return [line for path in paths for line in path.read_bytes().splitlines()]


def event_time_passed(lines: list[bytes]) -> list[int]:
    """Event time since the first line; steps backwards do not count."""
    times = [json.loads(line)["ts_event"] for line in lines]
    return list(accumulate((max(0, after - before) for before, after in pairwise(times)), initial=0))


def noted(raw: Path) -> dict[str, int]:
    """Product -> lines that the note says are published."""
    note = load_published(raw) if raw.exists() else None
    lines = {}
    for product, place in ({} if note is None else note.positions).items():
        if place is not None:
            paths = sorted(raw.glob(f"{place.segment[:-22]}*.ndjson"))
            before = [path.read_bytes() for path in paths if path.name < place.segment]
            before.append((raw / place.segment).read_bytes()[: place.offset])
            lines[product] = sum(data.count(b"\n") for data in before)
    return lines


def records_in(servers: str, topic: str) -> int:
    """Records in a topic; none where it is not there yet."""
    consumer = Consumer({"bootstrap.servers": servers, "group.id": "none", "log_level": 0})
    try:
        metadata = consumer.list_topics(topic, timeout=tools.LIMIT_S).topics[topic]
        places = [TopicPartition(topic, number) for number in metadata.partitions]
        return sum(consumer.get_watermark_offsets(place, timeout=tools.LIMIT_S)[1] for place in places)
    except KafkaException:
        return 0  # Made this moment.
    finally:
        consumer.close()


def test_without_a_broker_recording_goes_on_and_the_next_start_catches_up(
    kafka: str, make: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make(kafka)
    log = Log(settings.data_dir / "raw")
    with monkeypatch.context() as patch, capture_logs() as logs:
        tries = no_broker(patch)
        with Publisher(settings, log.folder) as publisher:
            for number in range(50):
                log.add(number)
            tools.wait(lambda: len(tries) >= 3, "three tries")
            assert publisher.trouble.startswith("not published: no Kafka broker answers (address ")
            log.recorder.close()
    assert publisher.status.left == 50
    assert told(logs, "not_published") == [
        "no Kafka broker answers (address 1); recording goes on; start one"
    ]

    with Publisher(settings, log.folder) as publisher:
        pass

    assert publisher.status.left == 0
    assert values(read_topic(kafka, settings.kafka_topic_prefix + RAW), BTC) == log.lines[BTC]


def test_a_broker_that_comes_after_the_start_gets_everything_in_the_same_run(
    kafka: str, make: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make(kafka)
    log = Log(settings.data_dir / "raw")
    with capture_logs() as logs, monkeypatch.context() as patch:
        tries = no_broker(patch)
        with Publisher(settings, log.folder) as publisher:
            for number in range(50):
                log.add(number)
            tools.wait(lambda: len(tries) >= 3, "three tries")
            patch.undo()
            wait_published(publisher, 50)
            tools.wait(lambda: publisher.trouble == "", "end of the trouble")
            log.recorder.close()

    assert len(told(logs, "not_published")) == len(told(logs, "publishing")) == 1
    assert values(read_topic(kafka, settings.kafka_topic_prefix + RAW), BTC) == log.lines[BTC]


def no_broker(patch: pytest.MonkeyPatch) -> list[int]:
    """No broker answers, at another address each time; gives the tries."""
    tries: list[int] = []

    def refuse(*_: object) -> None:
        tries.append(len(tries) + 1)
        raise TransportError(f"no Kafka broker answers (address {tries[-1]})", None, "start one")

    patch.setattr(publishing.topics, "ensure", refuse)
    patch.setattr(publishing, "AGAIN_S", 0.05)
    return tries


def test_a_broker_killed_and_started_gets_everything_in_order_from_ingest_and_from_a_replay(
    own: Cluster, make: Callable[..., Settings], tmp_path: Path
) -> None:
    settings = make(own.addresses())
    log = Log(settings.data_dir / "raw", rotate_bytes=100_000)
    lines = [tick_value(number) for number in range(1_200)]
    path = tmp_path / "recording.ndjson"
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    again = settings.kafka_topic_prefix + "again"
    now, starting, outstanding = [0.0], [], []

    def sleep(seconds: float) -> None:
        now[0] += seconds
        if now[0] < 300 or starting:
            return
        own.kill_node(1)
        for number in range(200, 3_000):  # 2,800 s of event time: more than may be on its way.
            log.add(number)
        tools.wait(lambda: publisher.trouble != "", "trouble")
        outstanding.append(publisher.status.outstanding)
        starting.append(threading.Thread(target=own.start_node, args=[1]))
        starting[0].start()

    with capture_logs() as logs, Publisher(settings, log.folder) as publisher:
        for number in range(200):
            log.add(number)
        wait_published(publisher, 200)
        sent = publish_recordings(
            [str(path)], again, settings, speed=1, sleep=sleep, monotonic=lambda: now[0]
        )
        starting[0].join()
        wait_published(publisher, 3_000)
        tools.wait(lambda: publisher.trouble == "", "end of the trouble")
        log.recorder.close()

    assert 0 < outstanding[0] <= RESENT_NS // SECOND
    assert len(told(logs, "not_published")) == len(told(logs, "publishing")) == 1
    found = read_topic(own.addresses(), settings.kafka_topic_prefix + RAW)
    assert values(found, BTC) == log.lines[BTC]
    assert sent.records == 1_200
    assert values(read_topic(own.addresses(), again), BTC) == lines


def test_a_replay_gives_up_on_a_broker_that_stays_away(
    own: Cluster, make: Callable[..., Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make(own.addresses())
    path = tmp_path / "recording.ndjson"
    path.write_bytes(tick_value(1) + b"\n")
    topics.ensure(Broker(settings, "test"), [settings.kafka_topic_prefix + RAW], settings)
    monkeypatch.setattr(topic_replay, "SILENCE_S", 0.3)
    monkeypatch.setattr(topic_replay.topics, "ensure", lambda *_: None)

    with (
        stopped(own),
        pytest.raises(TransportError, match=r"1 records are not acknowledged, and nothing came"),
    ):
        publish_recordings([str(path)], settings.kafka_topic_prefix + RAW, settings)


@contextmanager
def stopped(cluster: Cluster) -> Iterator[None]:
    """The broker holds still."""
    pid = cluster.status().nodes[0].pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_another_cluster_is_told_and_gets_what_comes_from_then_on(
    kafka: str, own: Cluster, make: Callable[..., Settings]
) -> None:
    log = Log(make(kafka).data_dir / "raw")
    with Publisher(make(kafka), log.folder):
        log.add(1)
        log.recorder.close()
    log = Log(make(kafka).data_dir / "raw")
    settings = make(own.addresses())
    with capture_logs() as logs, Publisher(settings, log.folder):
        log.add(2)
        log.recorder.close()

    assert "are not those that have the recording so far" in "".join(told(logs, "another_cluster"))
    found = read_topic(own.addresses(), settings.kafka_topic_prefix + RAW)
    assert values(found, BTC) == [tick_value(2)]


def test_another_topic_is_told_and_gets_what_comes_from_then_on(
    kafka: str, make: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make(kafka)
    log = Log(settings.data_dir / "raw")
    with monkeypatch.context() as patch:
        no_broker(patch)
        with Publisher(settings, log.folder):
            log.add(1)  # Not even the first topic gets it.
            log.recorder.close()
    log = Log(settings.data_dir / "raw")
    prefix = settings.kafka_topic_prefix + "other."
    with (
        capture_logs() as logs,
        Publisher(msgspec.structs.replace(settings, kafka_topic_prefix=prefix), log.folder),
    ):
        log.add(2)
        log.recorder.close()

    assert told(logs, "another_topic") == [
        f"the recording so far went to {settings.kafka_topic_prefix + RAW}; {prefix + RAW} gets what comes from "
        f"now on: `richter replay --to {prefix + RAW}` sends the rest"
    ]
    assert values(read_topic(kafka, prefix + RAW), BTC) == [tick_value(2)]


def test_a_segment_that_went_unpublished_is_told_and_the_rest_arrives(
    kafka: str, make: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make(kafka)
    log = Log(settings.data_dir / "raw", rotate_bytes=20_000)
    with monkeypatch.context() as patch:
        no_broker(patch)
        with Publisher(settings, log.folder):
            for number in range(100):
                log.add(number)
            log.recorder.close()
    gone = list_segments(log.folder)[1].path
    lost = gone.read_bytes().splitlines()
    gone.unlink()  # Its manifest is still there.

    with capture_logs() as logs, Publisher(settings, log.folder) as publisher:
        pass

    (text,) = told(logs, "segment_missing")
    assert text.startswith(f"{gone.name} is gone or cannot be read: what was not published of it is not on ")
    assert publisher.status.left == 0
    found = values(read_topic(kafka, settings.kafka_topic_prefix + RAW), BTC)
    assert found == [line for line in log.lines[BTC] if line not in lost]
    assert 0 < len(found) < 100


def test_an_error_of_ours_ends_publishing_but_not_recording_and_the_next_start_publishes(
    kafka: str, make: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ContractError("broken")

    settings = make(kafka)
    log = Log(settings.data_dir / "raw")
    with monkeypatch.context() as patch:
        patch.setattr(publishing, "tick_lines", fail)
        publisher = Publisher(settings, log.folder)
        log.add(1)
        tools.wait(lambda: publisher.trouble != "", "trouble")
        log.add(2)
        log.recorder.close()
        with pytest.raises(ContractError, match="broken"):
            publisher.close()
    assert (publisher.trouble, publisher.status.left) == ("not published: broken", 2)

    with Publisher(settings, log.folder):
        pass

    assert values(read_topic(kafka, settings.kafka_topic_prefix + RAW), BTC) == log.lines[BTC]


def test_while_the_note_cannot_be_written_publishing_waits_and_tells_it_once(
    kafka: str, make: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make(kafka)
    log = Log(settings.data_dir / "raw")
    tries: list[float] = []
    save = publishing.save_published
    room = threading.Event()

    def refuse(folder: Path, note: Any) -> None:
        if tries and not room.is_set():
            tries.append(time.monotonic())
            raise DataFolderError("the note cannot be written", str(folder), "free space")
        tries.append(time.monotonic())
        save(folder, note)

    monkeypatch.setattr(publishing, "save_published", refuse)
    monkeypatch.setattr(publishing, "SAVE_S", 0.3)
    with capture_logs() as logs, Publisher(settings, log.folder) as publisher:
        for number in range(3_000):
            log.add(number)
        tools.wait(lambda: len(tries) > 3, "three tries to save")
        waiting = publisher.status.published
        trouble = publisher.trouble
        room.set()
        wait_published(publisher, 3_000)
        log.recorder.close()

    assert 500 < waiting <= 1 + RESENT_NS // SECOND
    assert trouble == "not published: the note cannot be written"
    assert len(told(logs, "not_published")) == len(told(logs, "publishing")) == 1
    assert min(after - before for before, after in pairwise(tries[1:4])) >= 0.3
    assert values(read_topic(kafka, settings.kafka_topic_prefix + RAW), BTC) == log.lines[BTC]


def test_lines_too_large_or_unreadable_are_dead_letters_and_the_others_arrive(
    kafka: str, make: Callable[..., Settings]
) -> None:
    settings = make(kafka, BTC, "ETH-USD")
    log = Log(settings.data_dir / "raw")
    with Publisher(settings, log.folder) as publisher:
        log.add(1)
        log.add(2, pad="x" * 1_100_000)
        log.add(3, price="1" + "0" * 30)  # More than a price can be, by a reader's setting.
        log.add(4)
        log.add(5, "ETH-USD")
        log.recorder.close()

    found = read_topic(kafka, settings.kafka_topic_prefix + RAW)
    assert values(found, BTC) == [log.lines[BTC][0], log.lines[BTC][3]]
    assert values(found, "ETH-USD") == log.lines["ETH-USD"]
    dead = (settings.data_dir / "dead" / "publish.ndjson").read_bytes()
    letters = [json.loads(line) for line in dead.splitlines()]
    assert [letter["size"] for letter in letters] == [
        len(line) for line in (log.lines[BTC][2], log.lines[BTC][1])
    ]
    assert letters[1]["reason"] == "too large for a record"
    assert (publisher.status.refused, publisher.status.left) == (2, 0)


def test_a_producer_that_fails_is_replaced_and_nothing_is_lost(
    kafka: str, make: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make(kafka)
    log = Log(settings.data_dir / "raw", rotate_bytes=50_000)
    made: list[RecordProducer] = []

    class Failing(RecordProducer):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            made.append(self)
            self.number = len(made)
            self.sends = 0

        def send(self, *arguments: Any) -> bool:
            self.sends += 1
            if self.number <= 3 and self.sends > 200 * self.number:
                self.failure = TransportError(f"failure {self.number}")
                return False
            return super().send(*arguments)

    monkeypatch.setattr(publishing, "RecordProducer", Failing)
    monkeypatch.setattr(publishing, "AGAIN_S", 0.05)
    with Publisher(settings, log.folder) as publisher:
        for number in range(1_500):
            log.add(number)
        tools.wait(lambda: publisher.status.restarts == 3, "three failures")
        wait_published(publisher, 1_500)
        log.recorder.close()

    assert publisher.status.left == 0
    found = values(read_topic(kafka, settings.kafka_topic_prefix + RAW), BTC)
    assert first_times(found) == log.lines[BTC]


def test_what_is_refused_is_a_dead_letter_once_though_its_lines_are_read_again(
    kafka: str, make: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    failed: list[RecordProducer] = []

    class Failing(RecordProducer):
        """The first one fails when something of its first 200 records has arrived."""

        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.sends = 0

        def send(self, *arguments: Any) -> bool:
            if not failed and self.sends == 200:
                if self.outstanding < 200:
                    failed.append(self)
                    self.failure = TransportError("failed")
                return False
            self.sends += 1
            return super().send(*arguments)

    settings = make(kafka)
    log = Log(settings.data_dir / "raw")
    monkeypatch.setattr(publishing, "RecordProducer", Failing)
    monkeypatch.setattr(publishing, "AGAIN_S", 0.05)
    with monkeypatch.context() as patch:
        no_broker(patch)
        publisher = Publisher(settings, log.folder)
        for number in range(1_000):  # More than is read at a time.
            log.add(number, **({"price": "1" + "0" * 30} if number in (250, 900) else {}))
    wait_published(publisher, 998)
    log.recorder.close()
    publisher.close()

    assert (publisher.status.restarts, publisher.status.refused, publisher.status.left) == (1, 2, 0)
    assert len((settings.data_dir / "dead" / "publish.ndjson").read_bytes().splitlines()) == 2


def test_what_is_thrown_away_at_the_end_is_no_failure_and_what_is_too_large_waits_for_its_turn(
    make: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch, own: Cluster
) -> None:
    settings = make(own.addresses())
    log = Log(settings.data_dir / "raw")
    monkeypatch.setattr(publishing, "AT_THE_END_S", 1.0)
    monkeypatch.setattr(publishing, "SILENCE_S", 0.2)
    publisher = Publisher(settings, log.folder)
    log.add(1)
    wait_published(publisher, 1)
    with stopped(own):
        for number in range(2, 12):
            log.add(number, pad="x" * 1_100_000 if number == 5 else "")
        log.recorder.close()
        tools.wait(lambda: publisher.trouble != "", "trouble")
        on_their_way = publisher.status.outstanding
        publisher.close()

    assert on_their_way == 3
    assert (publisher.status.left, publisher.status.refused) == (10, 0)
    assert publisher.status.trouble == "the broker has acknowledged nothing for 0.2 s"
    with Publisher(settings, log.folder) as publisher:
        pass
    assert (publisher.status.left, publisher.status.refused) == (0, 1)
    found = read_topic(own.addresses(), settings.kafka_topic_prefix + RAW)
    assert first_times(values(found, BTC)) == [line for line in log.lines[BTC] if len(line) < 10_000]


@pytest.mark.parametrize("acknowledged", [False, True])
def test_a_spool_keeps_what_no_broker_has_and_what_is_looked_back_to(
    tmp_path: Path, acknowledged: bool
) -> None:
    log = Log(tmp_path / "spool", rotate_bytes=30_000)
    for number in range(0, 4 * LOOK_BACK_S, 30):
        log.add(number)
    log.recorder.close()
    segments = list_segments(log.folder)
    place = Position(str(segments[-1].name), segments[-1].manifest.size) if acknowledged else Position("", 0)

    trim(log.folder, {BTC: place}, time.time_ns())

    left = b"".join(path.read_bytes() for path in sorted(log.folder.glob("*.ndjson"))).splitlines()
    assert left == log.lines[BTC][len(log.lines[BTC]) - len(left) :]
    if not acknowledged:
        assert left == log.lines[BTC]
    newest = json.loads(left[-1])["ts_event"]
    looked_back = [
        line for line in log.lines[BTC] if json.loads(line)["ts_event"] >= newest - LOOK_BACK_S * SECOND
    ]
    assert left[-len(looked_back) :] == looked_back
    assert not acknowledged or len(left) < len(looked_back) + 2 * 50


def test_a_product_that_the_spool_has_and_nobody_publishes_is_kept(tmp_path: Path) -> None:
    log = Log(tmp_path / "spool", rotate_bytes=30_000)
    for number in range(0, 4 * LOOK_BACK_S, 30):
        log.add(number, "OLD-USD")
    log.recorder.close()
    before = sorted(log.folder.iterdir())

    trim(log.folder, {}, time.time_ns())

    assert sorted(log.folder.iterdir()) == before


def test_retention_spares_what_is_recorded_and_not_published(
    kafka: str, make: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = msgspec.structs.replace(make(kafka), retention_days=1e-6)
    log = Log(settings.data_dir / "raw", rotate_bytes=30_000)
    with monkeypatch.context() as patch:
        no_broker(patch)
        with Publisher(settings, log.folder):
            for number in range(0, 4 * LOOK_BACK_S, 30):
                log.add(number)
            log.recorder.close()
    before = len(list_segments(log.folder))
    retain(settings, time.time_ns())
    unpublished = len(list_segments(log.folder))
    with Publisher(settings, log.folder):
        pass

    retain(settings, time.time_ns())

    assert unpublished == before
    assert 0 < len(list_segments(log.folder)) < before
    assert values(read_topic(kafka, settings.kafka_topic_prefix + RAW), BTC) == log.lines[BTC]


def test_a_note_that_cannot_be_read_is_refused_at_the_start(make: Callable[..., Settings]) -> None:
    settings = make("127.0.0.1:1")
    folder = settings.data_dir / "raw"
    folder.mkdir(parents=True)
    (folder / "published.json").write_bytes(b"{")

    with pytest.raises(DataFolderError, match="the note of what is published cannot be read"):
        Publisher(settings, folder)


def test_a_disk_too_full_for_the_first_note_is_refused_at_the_start(
    make: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    settings = make("127.0.0.1:1")

    with pytest.raises(DataFolderError, match="No space left on device"):
        Publisher(settings, settings.data_dir / "raw")


def test_ingest_ends_with_1_and_one_sentence_while_something_waits_and_with_0_when_all_is_there(
    kafka: str, tmp_path: Path, pipeline: Callable[..., Pipeline]
) -> None:
    with exchange("--history", "10m") as url:
        nowhere = pipeline(f"127.0.0.1:{free_ports(1)[0]}", url)
        process = nowhere.ingest("--minutes", "0.03")
        out, _ = process.communicate(timeout=tools.LIMIT_S)
        recorded = nowhere.recorded()
        said = nowhere.log(process).splitlines()[-1]
        assert process.returncode == 1
        assert json.loads(out)["ran"]["published"]["left"] == recorded > 100
        assert f"{recorded:,} recorded lines are not published yet (no Kafka broker answers" in said
        assert load_published(tmp_path / "data" / "raw").positions == {BTC: None}

        pipe = pipeline(kafka, url)
        process = pipe.ingest()
        pipe.wait_for(pipe.recorded, recorded + 3, process)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=tools.LIMIT_S)

    assert process.returncode == 0, pipe.log(process)
    assert json.loads(out)["ran"]["published"]["left"] == 0
    assert values(read_topic(kafka, pipe.raw), BTC) == recorded_lines(tmp_path / "data" / "raw", BTC)


def test_a_second_signal_at_the_end_ends_at_once(own: Cluster, pipeline: Callable[..., Pipeline]) -> None:
    with exchange() as url:
        pipe = pipeline(own.addresses(), url)
        process = pipe.ingest()
        pipe.wait_for(lambda: pipe.log(process).count("created the topic"), 1, process)
        with stopped(own):
            pipe.wait_for(pipe.recorded, pipe.recorded() + 3, process)
            process.send_signal(signal.SIGINT)
            tools.wait(lambda: "recording_sealed" in pipe.log(process), "the end of the recording")
            began = time.monotonic()
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=tools.LIMIT_S)

    assert process.returncode == 130
    assert time.monotonic() - began < publishing.AT_THE_END_S / 2
