"""`python -m benchmarks.kafka`: the distributed form beside a plain loop of its client, on a broker of its own."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
from confluent_kafka import Consumer, Producer, TopicPartition

from benchmarks.live import make_frames
from benchmarks.stream import make_ticks
from richter.adapters.broker.cluster import Cluster
from richter.adapters.kafka import topics
from richter.adapters.kafka.connection import Broker
from richter.adapters.kafka.producer import PRODUCER, RecordProducer
from richter.adapters.kafka.stage import COMMIT_S
from richter.config import Settings
from richter.domain import ticks as tk
from richter.protocol.advanced import AdvancedTrade
from richter.protocol.feed import Feed, Record

TICK_S = os.sysconf("SC_CLK_TCK")
LIMIT_S = 300


class _Place(msgspec.Struct):
    """What tells a feature row from others."""

    frame_no: int


def make_lines(products: list[str], n: int) -> list[tuple[bytes, bytes]]:
    """Product and recorded line of ticks, as `richter ingest` would have published them."""
    feed = Feed(AdvancedTrade(), products)
    feed.connect("bench", 0)
    feed.opened(0)
    lines = []
    frames = make_frames(products, n, 10**9)[1:]  # But for the heartbeat.
    for frame, ts_event in zip(frames, make_ticks(n)[:, tk.TS_EVENT].tolist(), strict=True):
        for action in feed.receive(frame, ts_event + 10**7, ts_event):
            if isinstance(action, Record):
                lines.append((action.product_id.encode(), action.line.rstrip(b"\n")))
    return lines


class Bench:
    """A broker and topics for each measurement."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cluster = Cluster(folder / "kafka")
        self.cluster.start(1, 0)
        self.servers = self.cluster.addresses()
        self.number = 0

    def settings(self) -> Settings:
        """Settings with a prefix nobody has used."""
        self.number += 1
        return Settings(
            data_dir=self.folder / f"data-{self.number}",
            kafka_bootstrap_servers=self.servers,
            kafka_topic_prefix=f"b{self.number}.",
            kafka_retention_hours=10**6,
        )

    def fill(self, settings: Settings, lines: list[tuple[bytes, bytes]]) -> None:
        """Publish lines as `richter ingest` does."""
        broker = Broker(settings, "bench")
        raw = settings.kafka_topic_prefix + topics.RAW
        topics.ensure(broker, [raw, settings.kafka_topic_prefix + topics.FEATURES], settings)
        producer = RecordProducer(broker, raw)
        for key, line in lines:
            while not send(producer, key, line):
                producer.poll(0.01)
            producer.poll(0)
        assert producer.close(60) == 0

    @contextmanager
    def featurizers(
        self, settings: Settings, number: int = 1, commit_s: float = COMMIT_S
    ) -> Iterator[list[subprocess.Popen[bytes]]]:
        """Processes of `richter featurize`."""
        env = {
            **os.environ,
            "KAFKA_BOOTSTRAP_SERVERS": self.servers,
            "KAFKA_TOPIC_PREFIX": settings.kafka_topic_prefix,
        }
        command = [
            sys.executable,
            "-c",
            FEATURIZE,
            str(commit_s),
            "featurize",
            "--no-parquet",
            "--data",
            str(settings.data_dir),
        ]
        running = [
            subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            for _ in range(number)
        ]
        try:
            yield running
        finally:
            for process in running:
                process.terminate()
            for process in running:
                process.wait(30)


def send(producer: RecordProducer, key: bytes, line: bytes) -> bool:
    return producer.send(
        key,
        line,
        headers=[("schema", b"richter.tick/1")],
        acknowledged=lambda: None,
    )


def cpu_s(processes: list[subprocess.Popen[bytes]]) -> float:
    """Processor time of processes so far; Linux only."""
    total = 0
    for process in processes:
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICK_S


def ends(broker: Broker, topic: str) -> int:
    (state,) = topics.describe(broker, [topic])
    return state.records


def rate_of(
    broker: Broker, topic: str, n: int, processes: list[subprocess.Popen[bytes]]
) -> tuple[float, float]:
    """Records a second between the first and the last ones that come into a topic, and CPU seconds a record."""
    end = time.monotonic() + LIMIT_S
    begun: tuple[float, int, float] | None = None
    while True:
        found, now = ends(broker, topic), time.monotonic()
        if begun is None and found > n // 20:  # When it has warmed up.
            begun = now, found, cpu_s(processes)
        if found >= n:
            assert begun is not None
            return (found - begun[1]) / (now - begun[0]), (cpu_s(processes) - begun[2]) / (found - begun[1])
        assert now < end, f"{found} of {n} records"
        time.sleep(0.05)


FEATURIZE = """
import sys
from richter.adapters.kafka.stage import Stage
from richter.cli.main import main
Stage.__init__.__kwdefaults__["commit_s"] = float(sys.argv.pop(1))
sys.exit(main())
"""

PLAIN = """
import sys
from confluent_kafka import Consumer, Producer
servers, source, target, n, path = sys.argv[1:6]
rows = open(path, 'rb').read().splitlines() if path != '-' else None
consumer = Consumer({'bootstrap.servers': servers, 'group.id': target, 'auto.offset.reset': 'earliest'})
producer = Producer({'bootstrap.servers': servers, 'enable.idempotence': True, 'compression.type': 'zstd',
                     'linger.ms': 5, 'queue.buffering.max.kbytes': 65536})
consumer.subscribe([source])
left = int(n)
while left:
    for message in consumer.consume(500, 0.5):
        while True:
            try:
                value = rows[left % len(rows)] if rows else message.value()
                producer.produce(target, value, message.key(), partition=message.partition())
                break
            except BufferError:
                producer.poll(0.01)
        left -= 1
    producer.poll(0)
producer.flush()
consumer.close()
import time; time.sleep(60)
"""


def throughput(bench: Bench, lines: list[tuple[bytes, bytes]], rows: list[tuple[str, str, str]]) -> None:
    from richter.adapters.kafka.reading import TopicReader

    settings = bench.settings()
    bench.fill(settings, lines)
    broker = Broker(settings, "bench")
    raw, features = (settings.kafka_topic_prefix + name for name in (topics.RAW, topics.FEATURES))
    with bench.featurizers(settings) as running:
        ours, ours_cpu = rate_of(broker, features, len(lines), running)
    with TopicReader(broker, features) as reader:
        sample = [message.value() or b"" for message in reader.read(2000, 10.0)]
    grown = bench.folder / "rows.json"
    grown.write_bytes(b"\n".join(sample))
    rows.append(("ticks for the comparison", f"{len(lines):,}", f"{len(lines[0][1])} B each"))
    rows.append(("richter featurize, ticks/s", f"{ours:,.0f}", f"{ours_cpu * 1e6:.1f} us of CPU a tick"))
    for what, path, note in (
        (
            f"a plain loop that reads and writes the same bytes ({len(sample[-1]):,} B a row)",
            str(grown),
            "target 30 %",
        ),
        ("a plain loop that passes the ticks on, and writes a third of that", "-", ""),
    ):
        target = f"{settings.kafka_topic_prefix}plain-{len(path)}"
        topics.ensure(broker, [target], settings)
        process = subprocess.Popen(
            [sys.executable, "-c", PLAIN, bench.servers, raw, target, str(len(lines)), path]
        )
        try:
            plain, plain_cpu = rate_of(broker, target, len(lines), [process])
        finally:
            process.kill()
            process.wait()
        rows.append((f"{what}, ticks/s", f"{plain:,.0f}", f"{plain_cpu * 1e6:.1f} us of CPU a tick"))
        rows.append(("featurize / that loop", f"{ours / plain:.0%}", note))


def latency(
    bench: Bench,
    lines: list[tuple[bytes, bytes]],
    rate: int,
    seconds: float,
    *,
    plain: bool = False,
    commit_s: float = COMMIT_S,
) -> tuple[float, float]:
    """ms from a tick's produce call to its feature row at a reader of committed records: p50 and p99.

    With `plain` the reader reads the ticks themselves: what brokers and clients take of it.
    """
    settings = bench.settings()
    bench.fill(settings, lines[:1])
    broker = Broker(settings, "bench")
    raw, features = (settings.kafka_topic_prefix + name for name in (topics.RAW, topics.FEATURES))
    partitions = topics.partitions_of(broker, [features])[features]
    wanted = lines[1 : 1 + round(rate * seconds)]
    sent: dict[int, float] = {}
    got: dict[int, float] = {}
    decode = msgspec.json.Decoder(_Place).decode
    over = threading.Event()
    topic = raw if plain else features

    def read() -> None:
        consumer = Consumer(
            broker.config(group_id="latency", isolation_level="read_committed", fetch_wait_max_ms=10)
        )
        consumer.assign([TopicPartition(topic, partition, 0) for partition in range(partitions)])
        while not over.is_set():
            message = consumer.poll(0.1)
            if message is not None and not message.error():
                got.setdefault(decode(message.value() or b"{}").frame_no, time.perf_counter())
        consumer.close()

    reader = threading.Thread(target=read)
    with bench.featurizers(settings, commit_s=commit_s) as _:
        reader.start()
        try:
            wait(lambda: len(got) >= 1)
            producer = Producer(broker.config(**{**PRODUCER, "linger_ms": 1}))
            start = time.perf_counter()
            for number, (key, line) in enumerate(wanted):
                while (left := start + number / rate - time.perf_counter()) > 0:
                    producer.poll(min(left, 0.01))
                sent[decode(line).frame_no] = time.perf_counter()
                producer.produce(raw, line, key)
                producer.poll(0)
            producer.flush(30)
            wait(lambda: len(got) > len(wanted))
        finally:
            over.set()
            reader.join()
    taken = np.array([got[place] - at for place, at in sent.items()]) * 1e3
    p50, p99 = np.percentile(taken[len(taken) // 5 :], [50, 99])  # The first fifth warms up.
    return float(p50), float(p99)


def wait(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def scaling(bench: Bench, n: int, rows: list[tuple[str, str, str]]) -> None:
    lines = make_lines([f"P{number:02d}-USD" for number in range(50)], n)
    found = []
    for number in (1, 2):
        settings = bench.settings()
        bench.fill(settings, lines)
        with bench.featurizers(settings, number) as running:
            found.append(
                rate_of(
                    Broker(settings, "bench"),
                    settings.kafka_topic_prefix + topics.FEATURES,
                    len(lines),
                    running,
                )[0]
            )
    rows.append(("50 products, 3 partitions, one process, ticks/s", f"{found[0]:,.0f}", ""))
    rows.append(
        (
            "the same, two processes",
            f"{found[1]:,.0f}",
            f"{found[1] / found[0]:.2f} x, on two cores with the broker",
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ticks", type=int, default=400_000)
    parser.add_argument("--seconds", type=float, default=20, help="of each measurement of latency")
    parser.add_argument("--out", type=Path, help="write the table as Markdown")
    chosen = parser.parse_args()
    rows: list[tuple[str, str, str]] = []
    with tempfile.TemporaryDirectory(prefix="richter-bench-") as place:
        bench = Bench(Path(place))
        try:
            lines = make_lines(["BTC-USD", "ETH-USD", "SOL-USD"], chosen.ticks)
            throughput(bench, lines, rows)
            for rate in (10, 100, 1000):
                floor = latency(bench, lines, rate, chosen.seconds, plain=True)
                ours = latency(bench, lines, rate, chosen.seconds)
                rows.append(
                    (
                        f"produced -> row committed and read, {rate:,} ticks/s, p50 / p99",
                        f"{ours[0]:.0f} / {ours[1]:.0f} ms",
                        f"the tick itself: {floor[0]:.0f} / {floor[1]:.0f} ms",
                    )
                )
            for commit_s in (0.01, 0.02, 0.1):
                p50, p99 = latency(bench, lines, 1000, chosen.seconds, commit_s=commit_s)
                rows.append(
                    (
                        f"the same at 1,000 ticks/s, a commit after {commit_s * 1e3:g} ms at the latest",
                        f"{p50:.0f} / {p99:.0f} ms",
                        f"richter's own is {COMMIT_S * 1e3:g} ms",
                    )
                )
            scaling(bench, chosen.ticks // 2, rows)
        finally:
            bench.cluster.stop()
    table = "\n".join(
        ["| what | measured | |", "|---|---:|---|", *(f"| {' | '.join(row)} |" for row in rows)]
    )
    print(table)
    if chosen.out:
        chosen.out.write_text(
            "# Benchmarks on Kafka\n\nWritten by `make bench`: one Apache Kafka broker, its clients and richter on the "
            f"same {os.cpu_count()} cores. Timings are of one noisy machine: read the ratios.\n\n{table}\n"
        )


if __name__ == "__main__":
    main()
