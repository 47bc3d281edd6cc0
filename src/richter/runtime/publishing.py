"""From the recording to the topic of raw ticks: everything, in order, whatever happens to the broker or to us.

A thread reads the recording's end, as any reader would, and sends what it finds: what could not be sent yet waits on
the disk and nowhere else. What the broker has acknowledged is noted beside the recording about once a second; after a
crash or a producer's fatal error what follows the note is sent again, with the same identities, and whoever reads the
topic drops what is doubled.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec
import structlog

from richter.adapters.kafka import topics
from richter.adapters.kafka.connection import Broker
from richter.adapters.kafka.producer import RecordProducer, TooLargeError
from richter.adapters.recording.dead import DeadLetters
from richter.adapters.recording.published import Published, load_published, save_published
from richter.adapters.recording.segments import Position, list_segments
from richter.adapters.recording.tail import Chunk, Tail, end_of
from richter.config import Settings
from richter.domain.ticks import NO_TIME, Ns
from richter.errors import DataFolderError, TransportError
from richter.protocol.decoder import Decoder
from richter.runtime.tick_records import RESENT_NS, Elapsed, TickLine, tick_lines

__all__ = ["PublishStatus", "Publisher"]

IDLE_S: Final = 0.05
SAVE_S: Final = 1.0
AGAIN_S: Final = 2.0
SILENCE_S: Final = 5.0
AT_THE_END_S: Final = 10.0
"""So long the end of a run waits for a broker that answers."""


class PublishStatus(msgspec.Struct):
    """How publishing stands; written by its thread, read by anyone.

    Attributes:
        topic: the topic.
        published: records acknowledged in this run.
        outstanding: sent and not acknowledged.
        refused: lines too large for a record or without a readable tick; they are in the dead-letter file.
        restarts: producers that failed.
        trouble: why nothing is published at the moment; empty while all is well.
        left: lines that wait in the recording; known at the end.
    """

    topic: str
    published: int = 0
    outstanding: int = 0
    refused: int = 0
    restarts: int = 0
    trouble: str = ""
    left: int = 0


class _Sent(msgspec.Struct, frozen=True, gc=False):
    end: Position
    elapsed: int
    ts_event: Ns


class _Stream:
    """One product's way from the recording to the topic."""

    def __init__(
        self,
        folder: Path,
        product_id: str,
        position: Position | None,
        decoder: Decoder,
        refuse: Callable[[str, bytes, str], None],
    ) -> None:
        self.product_id = product_id
        self.acked = position
        self.acked_elapsed = Elapsed()
        self.saved_ns = 0
        self.is_blocked = False
        self._folder = folder
        self._decoder = decoder
        self._refuse = refuse
        self._seen = Position("", 0)
        self._tail: Tail | None = None
        self.rewind()

    def rewind(self) -> None:
        """Go back to what is acknowledged."""
        self.close()
        self.sent: deque[_Sent] = deque()
        self.elapsed = Elapsed(self.acked_elapsed.ns, self.acked_elapsed.last)
        self._tail = Tail(self._folder, self.product_id, self.acked)
        self._chunk: Chunk | None = None
        self._lines: Iterator[TickLine] = iter(())
        self._next: TickLine | None = None

    @property
    def missed(self) -> list[str]:
        """Segments whose rest cannot be read any more."""
        assert self._tail is not None
        return self._tail.missed

    def following(self) -> TickLine | None:
        """The line to send next; None when there is none at the moment."""
        assert self._tail is not None
        while self._next is None:
            self._next = next(self._lines, None)
            if self._next is None:
                if self._chunk is not None:
                    self._pass_to(self._chunk.end)
                self._chunk = self._tail.read()
                if self._chunk is None:
                    return None
                self._pass_to(Position(self._chunk.segment, self._chunk.offset))
                self._lines = self._decode(self._chunk)
        return self._next

    def sends(self, line: TickLine) -> None:
        """`line` is on its way."""
        assert self._chunk is not None
        self._next = None
        end = Position(self._chunk.segment, self._chunk.offset + line.end)
        self.sent.append(_Sent(end, self.elapsed.add(line.ts_event), line.ts_event))

    def acknowledged(self) -> None:
        """The oldest line on its way has arrived, or never will."""
        sent = self.sent.popleft()
        self.acked = sent.end
        self.acked_elapsed = Elapsed(sent.elapsed, sent.ts_event)

    def is_far_ahead(self, line: TickLine) -> bool:
        """Whether a crash after this line could send again more than may be."""
        step = 0 if self.elapsed.last == NO_TIME else max(0, line.ts_event - self.elapsed.last)
        reach = self.elapsed.ns + step - self.saved_ns
        self.is_blocked = reach > RESENT_NS and (bool(self.sent) or self.acked_elapsed.ns > self.saved_ns)
        return self.is_blocked

    def waiting(self) -> int:
        """Lines behind what is acknowledged."""
        tail = Tail(self._folder, self.product_id, self.acked)
        lines = 0
        while (chunk := tail.read()) is not None:
            lines += chunk.data.count(b"\n")
        tail.close()
        return lines

    def close(self) -> None:
        """Let go of the file."""
        if self._tail is not None:
            self._tail.close()

    def _decode(self, chunk: Chunk) -> Iterator[TickLine]:
        block = self._decoder.decode(chunk.data, file_conn=f"file:{chunk.segment}")
        again = 0  # Lines that were read before, and refused then; where chunks end is never the same twice.
        if chunk.segment == self._seen.segment:
            again = chunk.data.count(b"\n", 0, max(0, self._seen.offset - chunk.offset))
        if chunk.end > self._seen:
            self._seen = chunk.end
            for rejected in block.rejected:
                if rejected.line_no > again:
                    self._refuse(rejected.reason, rejected.data, chunk.segment)
        return tick_lines(block, chunk.data, self._decoder.state, chunk.segment)

    def _pass_to(self, place: Position) -> None:
        """Between the last tick before `place` and it lies nothing that needs an acknowledgement."""
        if self.sent:
            self.sent[-1] = msgspec.structs.replace(self.sent[-1], end=place)
        else:
            self.acked = place


class Publisher:
    """Publishes a recording while it is written; a sink of the feed's worker, which only wakes it.

    Args:
        settings: brokers and products.
        folder: of the recording.

    Attributes:
        status: how it stands.
        trouble: why nothing is published at the moment; empty while all is well.

    Raises:
        DataFolderError: the note of what is published cannot be read or written.
    """

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._settings = settings
        self._folder = folder
        self._broker = Broker(settings, "ingest")
        self._topic = settings.kafka_topic_prefix + topics.RAW
        self._dead = DeadLetters(settings.data_dir / "dead" / "publish.ndjson")
        self._log = structlog.get_logger("richter.publish")
        self._decoder = Decoder(settings.decimals_for)
        self.status = PublishStatus(self._topic)
        self._wake = threading.Event()
        self._end: float | None = None
        self._saved_at = 0.0
        self._heard = 0.0, 0  # When the broker acknowledged something last, and how much it had by then.
        self._failure: BaseException | None = None
        self._saved: dict[str, Position | None] | None = None
        self._troubles: dict[str, str] = {}  # What keeps us from publishing -> why.
        self._told: set[str] = set()
        known = load_published(folder)
        if known is not None and known.topic != self._topic:
            self._log.warning(
                "another_topic",
                text=f"the recording so far went to {known.topic}; {self._topic} gets what comes from now on: "
                f"`richter replay --to {self._topic}` sends the rest",
            )
            known = None
        recorded = {segment.product_id for segment in list_segments(folder) if segment.product_id}
        positions: dict[str, Position | None] = {
            # What was recorded before anyone published counts as done: `richter replay --to` sends it.
            product: known.positions[product]
            if known is not None and product in known.positions
            else end_of(folder, product)
            for product in sorted({*recorded, *settings.products, *(known.positions if known else ())})
        }
        self._cluster = known.cluster if known is not None else ""
        self._streams = [
            _Stream(folder, product, position, self._decoder, self._refuse)
            for product, position in positions.items()
        ]
        self._save()
        self._thread = threading.Thread(target=self._run, name="publish")
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def trouble(self) -> str:
        """Why nothing is published at the moment."""
        return f"not published: {self.status.trouble}" if self.status.trouble else ""

    @property
    def positions(self) -> dict[str, Position]:
        """Product -> from where on its lines are still needed, by the note: a crash goes back to it."""
        return {product: place or Position("", 0) for product, place in (self._saved or {}).items()}

    def take(self, lines: bytes, source: str, now: Ns) -> None:
        """There is more in the recording."""
        self._wake.set()

    def tick(self, now: Ns) -> None:
        """Nothing is due here."""

    def close(self) -> None:
        """Publish what is recorded, for ten seconds at most and only if a broker answers, and stop.

        Raises:
            Whatever ended publishing before.
        """
        self._end = time.monotonic() + AT_THE_END_S
        self._wake.set()
        try:
            self._thread.join()
        except BaseException:  # A second Ctrl+C.
            self._end = 0.0
            raise
        self.status.left = sum(stream.waiting() for stream in self._streams)
        for stream in self._streams:
            stream.close()
        self._dead.close()
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            while True:
                try:
                    self._session()
                    break
                except TransportError as error:
                    self._stuck("broker", error.fact, error.fix)
                    if self._end is not None:
                        break
                    self._wait(AGAIN_S)
            self._save()
        except BaseException as error:  # Raised again by whoever closes.
            self._failure = error
            self._log.error("publishing_ended", text=str(error))
            self._troubles = {"failure": str(error)}
            self.status.trouble = str(error)

    def _session(self) -> None:
        """Publish until the end, with one producer.

        Raises:
            TransportError: it cannot go on.
        """
        self._meet_the_cluster()
        for stream in self._streams:
            stream.rewind()
        producer = RecordProducer(self._broker, self._topic)
        self._heard = time.monotonic(), self.status.published
        try:
            while not (self._is_over() or self._advance(producer)):
                pass
        finally:
            producer.close()
        if producer.failure is not None:
            raise producer.failure

    def _advance(self, producer: RecordProducer) -> bool:
        """One round; returns whether all is done and nothing more will come."""
        sent = sum(self._send(stream, producer) for stream in self._streams)
        producer.poll(0 if sent else 0.001)
        if producer.failure is not None:
            self.status.restarts += 1
            raise producer.failure
        self.status.outstanding = producer.outstanding
        if self._is_save_due():
            self._save()
        now = time.monotonic()
        if producer.outstanding and self.status.published == self._heard[1]:
            if now - self._heard[0] > SILENCE_S:
                self._stuck("broker", f"the broker has acknowledged nothing for {SILENCE_S:g} s")
        else:
            self._heard = now, self.status.published
            self._freed("broker")
        for stream in self._streams:
            self._tell_missed(stream)
        if sent:
            return False
        if producer.outstanding:
            producer.poll(0.005)
            return False
        if self._end is not None and not any(stream.following() for stream in self._streams):
            return True
        self._wake.wait(IDLE_S)
        self._wake.clear()
        return False

    def _send(self, stream: _Stream, producer: RecordProducer) -> int:
        sent = 0
        while sent < 1000 and (line := stream.following()) is not None and not stream.is_far_ahead(line):

            def acknowledged() -> None:
                stream.acknowledged()
                self.status.published += 1

            try:
                if not producer.send(line.key, line.value, line.headers, acknowledged):
                    break
            except TooLargeError:
                if stream.sent:  # In its turn, when all before it has arrived.
                    break
                self._refuse("too large for a record", line.value, line.source)
                stream.sends(line)
                stream.acknowledged()
                continue
            stream.sends(line)
            sent += 1
        return sent

    def _meet_the_cluster(self) -> None:
        created = topics.ensure(self._broker, [self._topic], self._settings)
        for name in created:
            self._log.info("topic_created", text=f"created the topic {name}", topic=name)
        cluster = self._broker.cluster().cluster_id or ""
        if self._cluster not in ("", cluster):
            self._log.warning(
                "another_cluster",
                text=f"these brokers (cluster {cluster}) are not those that have the recording so far "
                f"({self._cluster}): `richter replay --to {self._topic}` publishes it there",
            )
        self._cluster = cluster

    def _is_save_due(self) -> bool:
        if time.monotonic() - self._saved_at >= SAVE_S:
            return True
        return "note" not in self._troubles and any(
            stream.acked_elapsed.ns - stream.saved_ns > RESENT_NS // 2
            or (stream.is_blocked and not stream.sent)
            for stream in self._streams
        )

    def _save(self) -> None:
        positions = {stream.product_id: stream.acked for stream in self._streams}
        self._saved_at = time.monotonic()
        if positions == self._saved:
            return
        try:
            save_published(self._folder, Published(self._topic, self._cluster, positions))
        except DataFolderError as error:
            if self._saved is None:
                raise
            self._stuck("note", error.fact, error.fix)
            return
        self._freed("note")
        self._saved = positions
        for stream in self._streams:
            stream.saved_ns = stream.acked_elapsed.ns

    def _refuse(self, reason: str, line: bytes, segment: str) -> None:
        self._dead.add(reason, line, source=self._folder / segment)
        self.status.refused += 1

    def _tell_missed(self, stream: _Stream) -> None:
        for name in stream.missed:
            self._log.error(
                "segment_missing",
                text=f"{name} is gone or cannot be read: what was not published of it is not on {self._topic}",
            )
        stream.missed.clear()

    def _stuck(self, what: str, why: str, fix: str = "") -> None:
        """Something keeps us from publishing; the same thing is told once."""
        self._troubles[what] = self.status.trouble = why
        kind = why.split(" (")[0]  # In brackets is what a client says: another address at each try.
        if kind not in self._told:
            self._told.add(kind)
            self._log.warning("not_published", text=f"{why}; recording goes on" + (f"; {fix}" if fix else ""))

    def _freed(self, what: str) -> None:
        if self._troubles.pop(what, None) is None:
            return
        self.status.trouble = next(iter(self._troubles.values()), "")
        if not self._troubles:
            self._told.clear()
            self._log.info("publishing", text=f"publishing to {self._topic} again")

    def _is_over(self) -> bool:
        return self._end is not None and time.monotonic() >= self._end

    def _wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while self._end is None and (left := end - time.monotonic()) > 0:
            self._wake.wait(min(left, IDLE_S * 4))
            self._wake.clear()
