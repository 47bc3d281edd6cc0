"""`richter check` against a real broker."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer, TopicPartition

from richter.adapters.kafka.connection import Broker
from richter.adapters.kafka.reading import TopicReader
from richter.cli.main import main
from richter.config import Settings
from richter.errors import TransportError
from richter.runtime.checking import check
from tests.kafka import tools
from tests.tick_values import row_value, tick_value

ROOT = Path(__file__).parents[2]
KEY = b"BTC-USD"
MakeTopic = Callable[..., str]


@pytest.fixture(autouse=True)
def elsewhere(kafka: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings but the broker's address reach these tests."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KAFKA_TOPIC_PREFIX", raising=False)
    monkeypatch.delenv("RICHTER_CONFIG", raising=False)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", kafka)


@pytest.fixture
def settings(kafka: str) -> Settings:
    return Settings(kafka_bootstrap_servers=kafka)


def producer(servers: str, **more: Any) -> Producer:
    return Producer({"bootstrap.servers": servers, "partitioner": "murmur2_random", "log_level": 0, **more})


def put(
    servers: str,
    topic: str,
    values: Iterable[bytes | None],
    *,
    key: bytes | None = KEY,
    made: Producer | None = None,
    **more: Any,
) -> None:
    """Produce records and wait until they are there."""
    client = made or producer(servers)
    failed: list[str] = []
    for value in values:
        client.produce(
            topic,
            value,
            key,
            on_delivery=lambda error, _: failed.append(str(error)) if error else None,
            **more,
        )
    assert client.flush(tools.LIMIT_S) == 0
    assert failed == []


def ticks(number: int, product: str = "BTC-USD") -> list[bytes]:
    return [tick_value(frame, product) for frame in range(number)]


class Ran:
    """The exit code and the one object that a check answers with."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *arguments: str) -> None:
        self.code = main(["check", *arguments, "--timeout", "0.3", "--json"])
        told = capsys.readouterr()
        self.err = told.err
        self.data: dict[str, Any] = json.loads(told.out) if told.out else {}
        self.found: dict[str, Any] = self.data.get("check", {})

    @property
    def problems(self) -> list[tuple[str, int]]:
        return [(each["kind"], each["records"]) for each in self.found["problems"]]


def test_good_ticks_pass(kafka: str, topic: MakeTopic, capsys: pytest.CaptureFixture[str]) -> None:
    name = topic()
    put(kafka, name, ticks(30))
    put(kafka, name, ticks(20, "ETH-USD"), key=b"ETH-USD")

    ran = Ran(capsys, "--topic", name, "--min", "50")

    assert (ran.code, ran.err) == (0, "")
    assert [ran.data[each] for each in ("ok", "enough", "valid", "wanted")] == [True, True, True, 50]
    assert (ran.found["kind"], ran.found["records"], ran.found["invalid"]) == ("ticks", 50, 0)
    assert {each: ran.found["products"][each]["records"] for each in ran.found["products"]} == {
        "BTC-USD": 30,
        "ETH-USD": 20,
    }
    assert len(ran.found["partitions"]) == 3
    assert sum(each["end"] - each["begin"] for each in ran.found["partitions"].values()) == 50
    assert sum(each["records"] for each in ran.found["partitions"].values()) == 50
    assert isinstance(ran.data["age_s"], float)
    assert ran.found["sample"]["key"] in ran.found["products"]


def test_people_are_told_the_same(kafka: str, topic: MakeTopic, capsys: pytest.CaptureFixture[str]) -> None:
    name = topic()
    put(kafka, name, ticks(1_234))

    code = main(["check", "--topic", name, "--min", "100"])

    told = capsys.readouterr()
    lines = told.out.splitlines()
    assert (code, told.err) == (0, "")
    assert lines[0] == f"{name}: 1,234 messages of ticks, from the beginning"
    assert lines[-1] == f"✓ 1,234 messages in {name} (at least 100 wanted)"
    assert any(re.match(r"  BTC-USD +[0-2] +1,234 ", line) for line in lines)
    assert '    product_id: "BTC-USD"' in lines


def test_the_default_topic_is_that_of_raw_ticks_with_the_prefix(
    kafka: str,
    unique: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    prefix = unique("prefix") + "."
    monkeypatch.setenv("KAFKA_TOPIC_PREFIX", prefix)
    tools.create_topic(kafka, f"{prefix}ticks.raw")
    put(kafka, f"{prefix}ticks.raw", ticks(1))

    ran = Ran(capsys)

    tools.delete_topics(kafka, [f"{prefix}ticks.raw"])
    assert (ran.code, ran.found["topic"], ran.found["records"]) == (0, f"{prefix}ticks.raw", 1)


@pytest.mark.parametrize(
    ("values", "key", "problem"),
    [
        ([tick_value(0), b"{", tick_value(1)], KEY, "unreadable"),
        ([tick_value(0), None, tick_value(1)], KEY, "tombstone"),
        ([tick_value(0)], b"ETH-USD", "wrong key"),
        ([tick_value(0)], None, "wrong key"),
    ],
)
def test_an_invalid_record_fails(
    kafka: str,
    topic: MakeTopic,
    capsys: pytest.CaptureFixture[str],
    values: list[bytes | None],
    key: bytes | None,
    problem: str,
) -> None:
    name = topic()
    put(kafka, name, values, key=key)

    ran = Ran(capsys, "--topic", name)
    main(["check", "--topic", name])
    told = capsys.readouterr().out

    assert (ran.code, ran.problems) == (1, [(problem, 1)])
    assert [ran.data[each] for each in ("ok", "enough", "valid")] == [False, True, False]
    assert re.search(f"^✗ 1 message: {problem}, the first in partition [0-2] at offset [01]: .", told, re.M)
    assert told.splitlines()[-1].startswith("✗ ")
    assert told.splitlines()[-1].endswith(f"in {name}, 1 of them invalid")


def test_a_product_in_two_partitions_fails(
    kafka: str, topic: MakeTopic, capsys: pytest.CaptureFixture[str]
) -> None:
    name = topic()
    put(kafka, name, ticks(5), partition=0)
    put(kafka, name, ticks(5), partition=1)

    ran = Ran(capsys, "--topic", name)

    assert (ran.code, ran.problems) == (1, [("wrong partition", 5)])


def test_duplicates_are_told_and_do_no_harm(
    kafka: str, topic: MakeTopic, capsys: pytest.CaptureFixture[str]
) -> None:
    name = topic()
    put(kafka, name, [*ticks(5), *ticks(3)])

    ran = Ran(capsys, "--topic", name)

    assert (ran.code, ran.found["products"]["BTC-USD"]["duplicates"]) == (0, 3)


def test_feature_rows_are_validated_as_such(
    kafka: str, topic: MakeTopic, capsys: pytest.CaptureFixture[str]
) -> None:
    name = topic()
    put(kafka, name, [row_value(number) for number in range(4)])
    good = Ran(capsys, "--topic", name)
    put(kafka, name, [row_value(4, schema_id="another")])
    bad = Ran(capsys, "--topic", name)

    assert (good.code, good.found["kind"], good.found["records"]) == (0, "features", 4)
    assert (bad.code, bad.problems) == (1, [("unreadable", 1)])
    assert "schema_id another" in bad.found["problems"][0]["reason"]


def test_what_a_transaction_took_back_or_has_not_committed_is_not_there(
    kafka: str, topic: MakeTopic, unique: Callable[[str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    name = topic()
    client = producer(kafka, **{"transactional.id": unique("writer")})
    client.init_transactions(tools.LIMIT_S)
    for values, end in ((ticks(3), client.commit_transaction), ([b"{", b"{"], client.abort_transaction)):
        client.begin_transaction()
        put(kafka, name, values, made=client)
        end(tools.LIMIT_S)

    taken_back = Ran(capsys, "--topic", name)
    client.begin_transaction()
    put(kafka, name, [tick_value(3)], made=client)
    left_open = Ran(capsys, "--topic", name)
    client.commit_transaction(tools.LIMIT_S)
    committed = Ran(capsys, "--topic", name)

    # Each transaction leaves a marker, which has an offset and is no record: an end that is never read.
    assert (taken_back.code, taken_back.found["records"]) == (0, 3)
    assert (left_open.code, left_open.found["records"]) == (0, 3)
    assert (committed.code, committed.found["records"]) == (0, 4)
    assert sorted(each["end"] for each in taken_back.found["partitions"].values()) == [0, 0, 7]
    assert sorted(each["end"] for each in left_open.found["partitions"].values()) == [0, 0, 7]
    assert sorted(each["end"] for each in committed.found["partitions"].values()) == [0, 0, 9]


def test_too_few_records_fail_when_the_time_is_over(
    kafka: str, topic: MakeTopic, capsys: pytest.CaptureFixture[str]
) -> None:
    name = topic()
    put(kafka, name, ticks(12))
    begun = time.monotonic()

    code = main(["check", "--topic", name, "--min", "100", "--timeout", "1"])

    took, told = time.monotonic() - begun, capsys.readouterr()
    assert code == 1
    assert 1 <= took < 20
    assert told.err == "12 messages so far, waiting for 88 more; it gives up when none comes for 1 s\n"
    assert told.out.splitlines()[-1] == (
        f"✗ 12 messages in {name}, 100 wanted: no more came within 1 s; is `richter ingest` running?"
    )


def test_as_long_as_records_come_it_goes_on_waiting(kafka: str, topic: MakeTopic) -> None:
    name = topic()
    settings = Settings(kafka_bootstrap_servers=kafka)
    records = ticks(6)
    begun = time.monotonic()

    def on_wait(_: int) -> None:
        def slowly() -> None:
            for record in records:
                time.sleep(0.7)
                put(kafka, name, [record])

        threading.Thread(target=slowly).start()

    found = check(settings, name, minimum=6, timeout_s=3, on_wait=on_wait)

    assert found.records == 6
    assert time.monotonic() - begun > 3


def test_an_empty_topic_fails_unless_nothing_is_wanted(
    topic: MakeTopic, capsys: pytest.CaptureFixture[str]
) -> None:
    name = topic()

    code = main(["check", "--topic", name, "--timeout", "0.2"])
    told = capsys.readouterr().out
    nothing = Ran(capsys, "--topic", name, "--min", "0")

    assert code == 1
    assert f"✗ 0 messages in {name}, 1 wanted: it is empty, none came within 0.2 s" in told
    assert (nothing.code, nothing.found["records"]) == (0, 0)


def test_records_that_come_later_are_waited_for(kafka: str, topic: MakeTopic, settings: Settings) -> None:
    name = topic()
    put(kafka, name, ticks(2))
    at_end = threading.Event()
    known: list[int] = []

    def later() -> None:
        assert at_end.wait(tools.LIMIT_S)
        put(kafka, name, [tick_value(number) for number in range(2, 5)])

    def on_wait(records: int) -> None:
        known.append(records)
        at_end.set()

    thread = threading.Thread(target=later)
    thread.start()
    begun = time.monotonic()

    found = check(settings, name, minimum=5, timeout_s=tools.LIMIT_S, on_wait=on_wait)

    took = time.monotonic() - begun
    thread.join(tools.LIMIT_S)
    assert known == [2]
    assert (found.records, found.invalid) == (5, 0)
    assert took < tools.LIMIT_S / 2  # It does not wait for the time to be over.


def test_from_latest_only_what_comes_counts(kafka: str, topic: MakeTopic, settings: Settings) -> None:
    name = topic()
    put(kafka, name, ticks(5))

    nothing = check(settings, name, start="latest", timeout_s=0.2)
    found = check(
        settings,
        name,
        start="latest",
        minimum=2,
        timeout_s=tools.LIMIT_S,
        on_wait=lambda _: put(kafka, name, [tick_value(5), tick_value(6)]),
    )

    assert nothing.records == 0
    assert found.records == 2
    assert found.products["BTC-USD"].records == 2


def test_since_leaves_older_records_out(
    kafka: str, topic: MakeTopic, capsys: pytest.CaptureFixture[str]
) -> None:
    name = topic()
    now_ms = time.time_ns() // 1_000_000
    put(kafka, name, ticks(5), timestamp=now_ms - 3 * 3_600_000)
    put(kafka, name, [tick_value(5), tick_value(6)], timestamp=now_ms - 60_000)
    iso = time.strftime("%Y-%m-%dT%H:%M", time.gmtime(now_ms / 1000 - 2 * 3600))

    counts = [
        Ran(capsys, "--topic", name, "--min", "0", "--since", since).found["records"]
        for since in ("1h", "1.5h", "10s", "1d", iso, "2020-01-01")
    ]

    assert counts == [2, 2, 0, 7, 2, 7]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--since", "15"], "--since is no time: '15'"),
        (["--since", "soon"], "--since is no time: 'soon'"),
        (["--since", "2999-01-01"], "in the future: '2999-01-01'"),
        (["--since", "5m", "--from", "latest"], "--from and --since both say where to begin"),
    ],
)
def test_an_impossible_beginning_is_refused(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["check", *arguments])

    err = capsys.readouterr().err
    assert code == 2
    assert told in err
    assert err.count("\n") == 1


def test_a_missing_topic_is_told(unique: Callable[[str], str], capsys: pytest.CaptureFixture[str]) -> None:
    name = unique("nowhere")

    ran = Ran(capsys, "--topic", name)

    assert (ran.code, ran.data) == (1, {})
    assert (
        ran.err == f"richter: the topic does not exist: {name!r}; create it: richter topics create {name}\n"
    )


def test_a_broker_that_does_not_answer_is_told_in_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # Taken, and not listened on.
        servers = f"127.0.0.1:{nobody.getsockname()[1]}"

        ran = Ran(capsys, "--bootstrap", servers)

    assert (ran.code, ran.data) == (1, {})
    assert ran.err.startswith("richter: no Kafka broker answers")
    assert servers in ran.err
    assert ran.err.count("\n") == 1


def test_a_topic_that_is_deleted_while_it_is_read_is_an_error(
    kafka: str, unique: Callable[[str], str], settings: Settings
) -> None:
    name = unique("topic")
    tools.create_topic(kafka, name)

    with pytest.raises(TransportError, match=name):
        check(settings, name, timeout_s=1, on_wait=lambda _: tools.delete_topics(kafka, [name]))


def test_a_reader_knows_its_end_and_disturbs_no_group(
    kafka: str, topic: MakeTopic, settings: Settings
) -> None:
    name = topic()
    put(kafka, name, ticks(10), partition=1)
    broker = Broker(settings, "test")

    with TopicReader(broker, name) as reader:
        before = reader.at_end()
        put(kafka, name, [tick_value(10)], partition=1)
        read = []
        end = time.monotonic() + tools.LIMIT_S
        while not reader.at_end():
            assert time.monotonic() < end
            read += reader.read(max_records=3)

    assert before is False
    assert (reader.begins, reader.starts) == ({0: 0, 1: 0, 2: 0}, {0: 0, 1: 0, 2: 0})
    assert reader.ends == {0: 0, 1: 10, 2: 0}
    assert [message.offset() for message in read][:10] == list(range(10))
    admin = broker.admin()
    groups = admin.list_consumer_groups(request_timeout=tools.LIMIT_S).result(tools.LIMIT_S)
    assert "richter-reading" not in [group.group_id for group in groups.valid]


def test_records_that_retention_took_are_not_waited_for(
    kafka: str, topic: MakeTopic, capsys: pytest.CaptureFixture[str], settings: Settings
) -> None:
    name = topic(1)
    put(kafka, name, ticks(10))
    place = TopicPartition(name, 0, 4)
    admin = Broker(settings, "test").admin()
    admin.delete_records([place])[place].result(tools.LIMIT_S)

    ran = Ran(capsys, "--topic", name, "--min", "6")

    assert (ran.code, ran.found["records"]) == (0, 6)
    assert ran.found["partitions"]["0"] == {"records": 6, "begin": 4, "end": 10}


def test_the_course_s_script_word_for_word(kafka: str, tmp_path: Path) -> None:
    # Its topic has no prefix, so that others may write there at the same time.
    known = Broker(Settings(kafka_bootstrap_servers=kafka), "test").cluster().topics
    if "ticks.raw" not in known:
        tools.create_topic(kafka, "ticks.raw")
    put(kafka, "ticks.raw", ticks(100, "SCRIPT-USD"), key=b"SCRIPT-USD")

    done = subprocess.run(
        [sys.executable, "scripts/kafka_consume_check.py", "--topic", "ticks.raw", "--min", "100"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=tools.LIMIT_S,
    )

    if "ticks.raw" not in known:
        tools.delete_topics(kafka, ["ticks.raw"])
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(
        r"✓ [0-9,]+ messages in ticks.raw \(at least 100 wanted\)", done.stdout.splitlines()[-1]
    )
