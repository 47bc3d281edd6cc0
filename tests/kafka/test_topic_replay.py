"""Recordings of any form go into a topic, and what was made of a topic is what is made of it again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from richter.adapters.kafka import topics
from richter.adapters.kafka.connection import Broker
from richter.adapters.kafka.producer import RecordProducer
from richter.cli.main import main
from richter.config import Settings
from richter.errors import InputFileError, TransportError
from richter.runtime import topic_replay
from richter.runtime.compare import compare_logs
from richter.runtime.replay import replay
from richter.runtime.topic_replay import publish_recordings, replay_topic
from tests.kafka.pipeline import Pipeline, end, kill
from tests.kafka.test_publishing import Found, delete_topics_of, first_times, read_topic, values
from tests.kafka.tools import LIMIT_S, create_topic
from tests.test_tick_records import envelope
from tests.tick_values import SECOND, START_NS, tick_value

BTC, ETH = "BTC-USD", "ETH-USD"


def write(path: Path, lines: list[bytes]) -> Path:
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def of_the_course(number: int) -> bytes:
    """A line as the course's own recorder writes it: no identity, no time in ns, the inner ticker only."""
    tick = json.loads(tick_value(number, ETH))
    names = ("timestamp", "product_id", "price", "volume_24h", "low_24h", "high_24h", "best_bid", "best_ask")
    return json.dumps({name: tick[name] for name in names}).encode()


@pytest.fixture
def settings(kafka: str, tmp_path: Path, unique: Callable[[str], str]) -> Iterator[Settings]:
    """Settings with topics of their own, which are deleted at the end."""
    prefix = unique("replay") + "."
    yield Settings(data_dir=tmp_path / "data", kafka_bootstrap_servers=kafka, kafka_topic_prefix=prefix)
    delete_topics_of(kafka, prefix)


def test_recordings_of_any_form_give_the_features_of_their_files(
    kafka: str, tmp_path: Path, settings: Settings
) -> None:
    ours = write(tmp_path / "1.ndjson", [tick_value(number, (BTC, ETH)[number % 2]) for number in range(600)])
    course = write(tmp_path / "2.ndjson", [of_the_course(number) for number in range(600, 900)])
    bare = write(
        tmp_path / "3.ndjson",
        [envelope(number, BTC, "SOL-USD", BTC)[:-1] + b' ,"n":%d}' % number for number in range(50)],
    )
    files = [str(ours), str(course), str(bare)]
    topic = settings.kafka_topic_prefix + "any"

    sent = publish_recordings(files, topic, settings)
    replay_topic(topic, None, tmp_path / "of_topic.parquet", settings)
    replay(files, tmp_path / "of_files.parquet", settings)
    comparison = compare_logs(tmp_path / "of_topic.parquet", tmp_path / "of_files.parquet")

    assert (sent.files, sent.records, sent.unread, sent.too_large) == (3, 600 + 300 + 2 * 50, {}, 0)
    assert comparison.same, comparison.difference
    assert comparison.compared == 600 + 300 + 3 * 50
    assert {
        (each.replayed_before, each.replayed_after, each.live_before, each.live_after)
        for each in comparison.products.values()
    } == {(0, 0, 0, 0)}
    found = read_topic(kafka, topic)
    lines = [path.read_bytes().splitlines() for path in (ours, course, bare)]
    assert values(found, BTC) == lines[0][::2] + lines[2]
    assert values(found, ETH) == lines[0][1::2] + lines[1]
    assert values(found, "SOL-USD") == lines[2]
    assert {record.headers["source"] for record in found} == {b"1.ndjson", b"2.ndjson", b"3.ndjson"}
    foreign = [record for record in found if record.headers["source"] == b"3.ndjson" and record.key == BTC]
    assert [int(record.headers["sequence"]) for record in foreign] == list(range(1, 51))
    assert {record.headers["connection"][:5] for record in foreign} == {b"file:"}


def test_what_cannot_be_read_or_sent_is_a_dead_letter_and_the_rest_goes_on(
    kafka: str, tmp_path: Path, settings: Settings
) -> None:
    path = tmp_path / "recording.ndjson"
    good = [tick_value(1), tick_value(4)]
    path.write_bytes(
        good[0]
        + b"\nno JSON\n\n"
        + tick_value(2, pad="x" * 1_100_000)
        + b"\n"
        + tick_value(3, price="1" + "0" * 30)
        + b"\n"
        + good[1]
        + b'\n{"torn'
    )
    topic = settings.kafka_topic_prefix + "dead"

    sent = publish_recordings([str(path)], topic, settings)

    assert values(read_topic(kafka, topic), BTC) == good
    letters = (settings.data_dir / "dead" / "publish.ndjson").read_bytes().splitlines()
    assert sorted(
        (letter["line"], letter["size"]) for letter in map(json.loads, letters) if letter["line"]
    ) == [
        (2, len("no JSON")),
        (5, len(tick_value(3, price="1" + "0" * 30))),
        (7, len('{"torn')),
    ]
    assert [json.loads(letter)["reason"] for letter in letters].count("too large for a record") == 1
    assert (sent.records, sent.too_large, sum(sent.unread.values())) == (2, 1, 4)
    assert sent.unread["blank"] == sent.unread["torn"] == 1


def test_an_old_recording_is_as_young_to_the_brokers_as_its_publishing_and_the_command_says_what_it_sent(
    kafka: str, tmp_path: Path, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    old = 1_500_000_000 * SECOND  # 2017: any retention would delete it at once.
    at = {"timestamp": "2017-07-14T02:40:00Z", "ts_event": old, "ts_recv": old}
    lines = [tick_value(1, **at), b"", tick_value(2, **at, pad="x" * 1_100_000), tick_value(3, **at)]
    path = write(tmp_path / "recording.ndjson", lines)
    topic = settings.kafka_topic_prefix + "old"
    to = ["--to", topic, "--bootstrap", kafka, "--data", str(settings.data_dir)]
    before = time.time() * 1000

    codes = [main(["replay", "--raw", str(path), *to, *form]) for form in ([], ["--json"])]

    said = capsys.readouterr().out.splitlines()
    assert codes == [0, 0]
    assert said[:3] == [
        f"1 file -> 2 records in {topic}",
        "          1  lines without ticks: blank",
        "          1  lines too large for a record, kept as dead letters",
    ]
    assert json.loads("".join(said[3:]))["sent"] == {
        "topic": topic,
        "files": 1,
        "records": 2,
        "unread": {"blank": 1},
        "too_large": 1,
        "restarts": 0,
    }
    found = read_topic(kafka, topic)
    assert values(found, BTC) == [lines[0], lines[3]] * 2
    assert min(record.timestamp_ms for record in found) >= before - 1000


def test_a_recording_without_ticks_is_refused(tmp_path: Path, settings: Settings) -> None:
    path = write(tmp_path / "recording.ndjson", [b"nothing", b"to see"])

    with pytest.raises(InputFileError, match="no readable tick in 1 file"):
        publish_recordings([str(path)], settings.kafka_topic_prefix + "none", settings)


@pytest.mark.parametrize("speed", [0.5, 10.0])
def test_the_pace_is_that_of_the_recording_times_the_speed(
    tmp_path: Path, settings: Settings, speed: float
) -> None:
    seconds = [0, 1, 1, 5, 4, 65]  # After START_NS; a step backwards does not wait.
    path = write(
        tmp_path / "recording.ndjson",
        [tick_value(n, ts_recv=START_NS + second * SECOND) for n, second in enumerate(seconds)],
    )
    now, sent_at = [1_000.0], []
    send = topic_replay._Way.send

    def sleep(wait: float) -> None:
        assert 0 < wait <= 0.1  # The client is served in between.
        now[0] += wait

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            topic_replay._Way, "send", lambda way, line: (sent_at.append(now[0] - 1_000), send(way, line))
        )
        publish_recordings(
            [str(path)],
            settings.kafka_topic_prefix + "paced",
            settings,
            speed=speed,
            sleep=sleep,
            monotonic=lambda: now[0],
        )

    assert sent_at == pytest.approx([second / speed for second in (0, 1, 1, 5, 5, 65)], abs=1e-6)


def test_producers_that_fail_also_while_they_send_again_lose_nothing_and_keep_the_order(
    kafka: str, tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [tick_value(number, (BTC, ETH)[number % 2]) for number in range(900)]
    path = write(tmp_path / "recording.ndjson", lines)
    topic = settings.kafka_topic_prefix + "failing"
    made: list[Any] = []

    class Failing(RecordProducer):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            made.append(self)
            self.left = [400, 30, 7, 300][len(made) - 1] if len(made) < 5 else 10**9

        def send(self, *arguments: Any) -> bool:
            self.left -= 1
            if self.left < 0:
                self.failure = TransportError("failed")
                return False
            return super().send(*arguments)

    monkeypatch.setattr(topic_replay, "RecordProducer", Failing)
    sent = publish_recordings([str(path)], topic, settings)

    found = read_topic(kafka, topic)
    assert (sent.records, sent.restarts, len(made)) == (900, 4, 5)
    for product, own in ((BTC, lines[::2]), (ETH, lines[1::2])):
        assert first_times(values(found, product)) == own
        # Whatever was sent again was so from one place on, without a hole.
        numbers = [json.loads(line)["frame_no"] for line in values(found, product)]
        assert {after - before for before, after in pairwise(numbers) if after > before} == {2}


def test_the_rows_on_kafka_are_those_of_the_ticks_and_one_changed_value_is_named(
    kafka: str, tmp_path: Path, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline = Pipeline(settings.data_dir, kafka, settings.kafka_topic_prefix, "", (BTC,))
    lines = [
        tick_value(number, (BTC, ETH)[number % 2], price=f"{79_000 + number % 7}.5") for number in range(800)
    ]
    publish_recordings([str(write(tmp_path / "recording.ndjson", lines))], pipeline.raw, settings)
    topics.ensure(Broker(settings, "test"), [pipeline.features], settings)
    process = pipeline.featurize()
    try:
        pipeline.wait_for(pipeline.committed, 800, process)
        end(process)
    finally:
        kill(process)
    arguments = [
        "replay",
        "--from-topic",
        pipeline.raw,
        "--data",
        str(settings.data_dir),
        "--bootstrap",
        kafka,
    ]
    rows = read_topic(kafka, pipeline.features)
    changed = json.loads(rows[500].value)
    changed["mid"] += 0.001
    other, fewer = settings.kafka_topic_prefix + "changed", settings.kafka_topic_prefix + "fewer"
    put(kafka, other, [*rows[:500], rows[500]._replace(value=json.dumps(changed).encode()), *rows[501:]])
    put(kafka, fewer, [*rows[:300], *rows[301:]])

    answers = []
    for topic in (pipeline.features, other, fewer):
        capsys.readouterr()
        code = main([*arguments, "--compare-topic", topic])
        answers.append((code, capsys.readouterr().out))

    assert len(rows) == 800
    assert [code for code, _ in answers] == [0, 1, 1]
    assert (
        "✓ Features match between live and replay\n✓ Row counts identical\n✓ Reproducibility verified"
        in answers[0][1]
    )
    assert "mid" in answers[1][1]
    assert str(changed["frame_no"]) in answers[1][1]
    assert "✓ Reproducibility verified" not in answers[1][1] + answers[2][1]
    assert str(json.loads(rows[300].value)["frame_no"]) in answers[2][1]


def put(servers: str, topic: str, records: list[Found]) -> None:
    """Produce records into a topic of their own."""
    create_topic(servers, topic)
    producer = Producer({"bootstrap.servers": servers, "enable.idempotence": True})
    for record in records:
        producer.produce(topic, record.value, record.key)
    assert producer.flush(LIMIT_S) == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("", "--raw GLOB or --from-topic TOPIC is needed"),
        ("--to t", "--raw GLOB or --from-topic TOPIC is needed"),
        ("--compare-topic t", "--raw GLOB or --from-topic TOPIC is needed"),
        ("--raw x", "--out FILE is needed"),
        ("--raw x --to t --out f", "--out means nothing with --to"),
        ("--raw x --to t --compare f", "--compare means nothing with --to"),
        ("--raw x --to t --alerts", "--alerts means nothing with --to"),
        ("--raw x --to t --workers 2", "--workers means nothing with --to"),
        ("--raw x --to t --speed 0", "--speed"),
        ("--raw x --out f --speed 2", "--speed means nothing with a replay without --to"),
        ("--raw x --out f --compare-topic t", "--compare-topic means nothing with --raw"),
        ("--from-topic t --raw x", "--raw means nothing with --from-topic"),
        ("--from-topic t --to u", "--to means nothing with --from-topic"),
        ("--from-topic t --speed 2", "--speed means nothing with --from-topic"),
        ("--from-topic t --compare f", "--compare means nothing with --from-topic"),
        ("--from-topic t --alerts", "--alerts means nothing with --from-topic"),
        ("--from-topic t --workers 2", "--workers means nothing with --from-topic"),
    ],
)
def test_options_that_mean_nothing_together_are_refused(
    arguments: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["replay", *arguments.split()])

    told = capsys.readouterr().err
    assert code == 2
    assert said in told
    assert "Traceback" not in told


def test_a_topic_that_is_not_there_is_one_sentence(
    settings: Settings, kafka: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["replay", "--from-topic", settings.kafka_topic_prefix + "nowhere", "--bootstrap", kafka])

    said = capsys.readouterr().err
    assert code == 1
    assert "the topic does not exist" in said
    assert len(said.strip().splitlines()) == 1
