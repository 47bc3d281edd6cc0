"""Recordings into a topic, and a topic against what was made of it."""

from __future__ import annotations

import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from richter.adapters.kafka import topics
from richter.adapters.kafka.connection import Broker
from richter.adapters.kafka.feature_records import FeatureDecoder
from richter.adapters.kafka.producer import RecordProducer, TooLargeError
from richter.adapters.kafka.reading import TopicReader
from richter.adapters.kafka.records import records_of
from richter.adapters.recording.dead import DeadLetters
from richter.adapters.recording.reader import Rejected, expand, read_blocks
from richter.adapters.tables.parts import PART_ROWS, PartWriter, open_log, replace_log
from richter.config import Settings
from richter.engine.digest import Digest, schema_id
from richter.engine.rows import FeatureRows
from richter.errors import InputFileError, TransportError
from richter.protocol.decoder import Decoder
from richter.runtime.compare import compare_logs
from richter.runtime.featurizing import Featurizing
from richter.runtime.pipeline import file_connection
from richter.runtime.replay import Replayed, digest_rows
from richter.runtime.tick_records import RESENT_NS, Elapsed, TickLine, tick_lines

__all__ = ["Sent", "hold", "publish_recordings", "replay_topic"]

READ: Final = 2000
SILENCE_S: Final = 60.0
SERVE_S: Final = 0.1


class Sent(msgspec.Struct):
    """What became of recordings that were published.

    Attributes:
        topic: they are in.
        files: read.
        records: acknowledged.
        unread: lines that hold no tick, by the reason.
        too_large: lines too large for a record, in the dead-letter file.
        restarts: producers that failed; what they had not acknowledged was sent again.
    """

    topic: str
    files: int = 0
    records: int = 0
    unread: dict[str, int] = msgspec.field(default_factory=dict)
    too_large: int = 0
    restarts: int = 0


class _Way:
    """Lines on their way: a producer, and what it has not acknowledged, to be sent again when it fails."""

    def __init__(self, broker: Broker, sent: Sent, dead: DeadLetters) -> None:
        self._broker = broker
        self._sent = sent
        self._dead = dead
        self._pending: dict[bytes, deque[tuple[int, TickLine]]] = {}
        self._unsent: deque[TickLine] = deque()  # Of what is pending, what the producer has not got yet.
        self._elapsed: dict[bytes, Elapsed] = {}
        self._producer = RecordProducer(broker, sent.topic)
        self._heard = time.monotonic(), 0

    def send(self, line: TickLine) -> None:
        """Send a line; waits for room.

        Raises:
            TransportError: nothing is acknowledged any more.
        """
        pending = self._pending.setdefault(line.key, deque())
        elapsed = self._elapsed.setdefault(line.key, Elapsed()).add(line.ts_event)
        while self._unsent or (pending and elapsed - pending[0][0] > RESENT_NS):
            self.serve(0.01)
        pending.append((elapsed, line))
        self._unsent.append(line)
        self.serve()

    def serve(self, timeout_s: float = 0.0) -> None:
        """Send what is to be sent and take what has come back; to be called ten times a second at least."""
        while self._unsent and self._produce(self._unsent[0]):
            self._unsent.popleft()
        self._producer.poll(timeout_s)
        now = time.monotonic()
        if not self._left() or self._sent.records != self._heard[1]:
            self._heard = now, self._sent.records
        elif now - self._heard[0] > SILENCE_S:
            raise TransportError(
                f"{self._left():,} records are not acknowledged, and nothing came in for {SILENCE_S:g} s",
                self._sent.topic,
                "look at the brokers, and start again",
            )
        if self._producer.failure is not None:
            self._producer.close()
            self._sent.restarts += 1
            self._producer = RecordProducer(self._broker, self._sent.topic)
            self._unsent = deque(line for pending in self._pending.values() for _, line in pending)

    def finish(self) -> None:
        """Wait until everything is acknowledged.

        Raises:
            TransportError: nothing is acknowledged any more.
        """
        while self._left():
            self.serve(0.1)

    def close(self) -> None:
        """Let go; what is on its way is given up."""
        self._producer.close()

    def _left(self) -> int:
        return sum(map(len, self._pending.values()))

    def _produce(self, line: TickLine) -> bool:
        def acknowledged() -> None:
            self._pending[line.key].popleft()
            self._sent.records += 1

        try:
            return self._producer.send(line.key, line.value, line.headers, acknowledged)
        except TooLargeError:
            self._pending[line.key].pop()  # It is the newest: those before it were not too large.
            self._sent.too_large += 1
            self._dead.add("too large for a record", line.value, source=line.source)
            return True


def publish_recordings(
    raw: list[str],
    topic: str,
    settings: Settings,
    *,
    speed: float | None = None,
    on_total: Callable[[int], None] = lambda total: None,
    on_bytes: Callable[[int], None] = lambda size: None,
    sleep: Callable[[float], None] = time.sleep,
    monotonic: Callable[[], float] = time.monotonic,
) -> Sent:
    """Publish recordings, of any form, each line as it is.

    Args:
        raw: files, folders or globs, in order.
        topic: made when it is missing.
        settings: brokers and price scales.
        speed: times faster than they were received; None is as fast as the brokers take them.
        on_total: told how many bytes there are to read.
        on_bytes: told of bytes as they are done.
        sleep: waits.
        monotonic: s.

    Raises:
        InputFileError: nothing to read, or no tick in it.
        TransportError: the cluster does not answer, or not any more.
    """
    files = expand(raw)
    on_total(sum(path.stat().st_size for path in files))
    broker = Broker(settings, "replay")
    topics.ensure(broker, [topic], settings)
    sent = Sent(topic)
    first: tuple[int, float] | None = None
    dead = DeadLetters(settings.data_dir / "dead" / "publish.ndjson")
    way = _Way(broker, sent, dead)
    try:
        with dead:
            for line in _lines(files, settings, sent, dead, on_bytes):
                if speed is not None:
                    first = first or (line.ts_recv, monotonic())
                    due = first[1] + (line.ts_recv - first[0]) / 1e9 / speed
                    while (wait := due - monotonic()) > 0:
                        way.serve()
                        sleep(min(wait, SERVE_S))
                way.send(line)
            way.finish()
    finally:
        way.close()
    if not sent.records:
        raise InputFileError(
            f"no readable tick in {len(files)} files, the first of them",
            str(files[0]),
            "richter inspect says what is in them",
        )
    return sent


def _lines(
    files: list[Path], settings: Settings, sent: Sent, dead: DeadLetters, on_bytes: Callable[[int], None]
) -> Iterator[TickLine]:
    decoder = Decoder(settings.decimals_for)

    def unread(reason: str, data: bytes, path: Path, line: int) -> None:
        sent.unread[reason] = sent.unread.get(reason, 0) + 1
        dead.add(reason, data, source=str(path), line=line)

    for path in files:
        sent.files += 1
        conn = file_connection(path)

        def left_out(rejected: Rejected, path: Path = path) -> None:
            unread(rejected.reason.value, rejected.data, path, rejected.line)

        for read in read_blocks(path, on_rejected=left_out):
            block = decoder.decode(read.data, file_conn=conn, first_line=read.first_line)
            for kind, number in block.ignored.items():
                sent.unread[kind] = sent.unread.get(kind, 0) + number
            for rejected in block.rejected:
                unread(rejected.reason.rsplit(": ", 1)[-1], rejected.data, path, rejected.line_no)
            yield from tick_lines(block, read.data, decoder.state, path.name)
            on_bytes(len(read.data))


class _Log:
    """A feature log by partition, made in one go."""

    def __init__(self, folder: Path, source: str) -> None:
        self._folder = folder
        self._source = source
        self._parts: dict[int, PartWriter] = {}
        self._numbers: dict[int, int] = {}
        open_log(folder, source)

    def add(self, partition: int, rows: FeatureRows) -> None:
        """Add rows."""
        part = self._parts.get(partition)
        if part is None:
            number = self._numbers[partition] = self._numbers.get(partition, 0) + 1
            name = f"part-{partition:03d}-{number:06d}.parquet"
            part = self._parts[partition] = PartWriter(
                self._folder / name, durable=False, source=self._source
            )
        part.add(rows)
        if part.rows >= PART_ROWS:
            self._parts.pop(partition).finish()

    def finish(self) -> None:
        """Give everything a name."""
        for part in self._parts.values():
            part.finish()


def replay_topic(
    topic_in: str,
    topic_out: str | None,
    out: Path,
    settings: Settings,
    *,
    on_total: Callable[[int], None] = lambda total: None,
    on_records: Callable[[int], None] = lambda number: None,
) -> Replayed:
    """Recompute the features of what a topic holds into `out`; compare them with what another topic holds.

    Args:
        topic_in: of raw ticks.
        topic_out: of the rows that were made of them; None compares with nothing.
        out: the feature log to write; replaced when complete.
        settings: brokers, staleness and price scales.
        on_total: told how many records there are to read.
        on_records: told of records as they are done.

    Raises:
        TransportError: a topic cannot be read.
        InputFileError: no tick in it.
    """
    broker = Broker(settings, "replay")
    building = out.with_name(f".{out.name}.building")
    held = out.with_name(f".{out.name}.held")
    digests: dict[str, Digest] = {}
    names = [topic_in] if topic_out is None else [topic_in, topic_out]
    on_total(sum(state.records for state in topics.describe(broker, names)))
    try:
        for folder in (building, held):
            shutil.rmtree(folder, ignore_errors=True)
        log = _Log(building, topic_in)
        handler = Featurizing(settings, topic_in, "", "")
        with TopicReader(broker, topic_in) as reader:
            for partition, begin in reader.begins.items():
                handler.assigned(partition, begin, None, begin)
            while not reader.at_end():
                messages = reader.read(READ)
                for partition, records in records_of(messages).items():
                    for rows, _ in handler.work(partition, records):
                        digest_rows(digests, rows)
                        log.add(partition, rows)
                on_records(len(messages))
        log.finish()
        if not handler.account.rows:
            raise InputFileError(
                f"no readable tick in {handler.account.lines:,} records of the topic",
                topic_in,
                "richter check says what is in it",
            )
        replace_log(building, out)
        if topic_out is not None:
            hold(broker, topic_out, held, on_records)
        return Replayed(
            out=out,
            schema_id=schema_id(),
            account=handler.account,
            digests={name: digest.hexdigest() for name, digest in digests.items()},
            comparison=None if topic_out is None else compare_logs(out, held),
        )
    finally:
        for folder in (building, held):
            shutil.rmtree(folder, ignore_errors=True)


def hold(broker: Broker, topic: str, folder: Path, on_records: Callable[[int], None]) -> None:
    """Write down what is committed in a topic of rows, as a feature log."""
    log = _Log(folder, topic)
    with TopicReader(broker, topic) as reader:
        decoders = {partition: FeatureDecoder() for partition in reader.begins}
        while not reader.at_end():
            messages = reader.read(READ)
            for partition, records in records_of(messages).items():
                values = (record.value for record in records if record.value is not None)
                for rows in decoders[partition].decode(values):
                    log.add(partition, rows)
            on_records(len(messages))
    log.finish()
