"""From the topic of raw ticks to the topic of feature rows: what a stage does with each partition.

A partition's state is a pipeline: the very one of a replay. It is never saved: with each commit goes the offset from
which the next owner has to read to have it again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import groupby
from typing import Final, NamedTuple

import msgspec
import numpy as np

from richter.adapters.kafka.feature_records import encode_rows
from richter.adapters.kafka.producer import MESSAGE_BYTES
from richter.adapters.kafka.records import Record
from richter.adapters.kafka.stage import Output
from richter.config import Settings
from richter.engine.engine import Block
from richter.engine.rows import FeatureRows
from richter.protocol.decoder import TickBlock
from richter.runtime.catching_up import LOOK_BACK_NS
from richter.runtime.pipeline import Account, Letter, Pipeline
from richter.runtime.tick_records import RESENT_NS

__all__ = ["Featurizing"]

REBUILD_NS: Final = LOOK_BACK_NS + RESENT_NS
MARK_NS: Final = 30 * 1_000_000_000
LETTER_BYTES: Final = 256 * 1024
ROW_BYTES: Final = MESSAGE_BYTES - 4096
"""Of a row's record: a connection's name may be of any length."""
NUMBER_DIGITS: Final = 18
IDENTITY: Final = b'"conn_id"'
NO_VALUE: Final = "no value"
TOO_LARGE: Final = "the row is too large for a record"


class _Mark(msgspec.Struct, frozen=True):
    """How much event time had passed in a product's log before an offset."""

    elapsed: int
    offset: int


class _Reach:
    """How far back a partition has to be read for its state: REBUILD_NS of event time of each product."""

    def __init__(self) -> None:
        self._marks: dict[int, deque[_Mark]] = {}
        self._elapsed: dict[int, int] = {}
        self._last: dict[int, int] = {}

    def add(self, rows: FeatureRows, offset: int) -> None:
        """Rows were made of records from this offset on."""
        for code in np.unique(rows.product).tolist():
            times = rows.ts_event[rows.product == code]
            marks = self._marks.setdefault(code, deque())
            elapsed = self._elapsed.get(code, 0)
            if not marks or elapsed - marks[-1].elapsed >= MARK_NS:
                marks.append(_Mark(elapsed, offset))
            steps = np.diff(times, prepend=self._last.get(code, int(times[0])))
            elapsed += int(steps[steps > 0].sum())  # A clock set back does not count.
            self._elapsed[code], self._last[code] = elapsed, int(times[-1])
            while len(marks) > 1 and marks[1].elapsed <= elapsed - REBUILD_NS:
                marks.popleft()

    def begin(self, following: int) -> int:
        """The offset to begin with; `following` where no row was made yet."""
        return min((marks[0].offset for marks in self._marks.values()), default=following)


class _Partition:
    """A partition's state.

    Attributes:
        letters: of the last run.
        lines: of its rows, by number.
        following: the offset that comes next.
    """

    def __init__(self, settings: Settings, following: int) -> None:
        self.letters: list[Letter] = []
        self.lines: list[int] = []
        self.pipeline = Pipeline(settings, on_letter=self.letters.append, on_block=self._on_block)
        self.reach = _Reach()
        self.following = following

    def _on_block(self, ticks: TickBlock, made: Block) -> None:
        self.lines = ticks.origin[made.accepted(), 2].tolist()


class _Made(NamedTuple):
    """What a run of records became: rows, the record of each, and what cannot be read with the reason."""

    rows: FeatureRows
    sources: list[Record]
    letters: list[tuple[Record, str]]


class Featurizing:
    """Handler of the stage that computes features.

    Args:
        settings: staleness and price scales.
        topic_in: of raw ticks, for identities and letters.
        topic_out: of feature rows; as many partitions.
        topic_dead: of what cannot be read.
        account: to go on with.

    Attributes:
        account: where every record went, those of partitions given up included; rebuilds do not count.
    """

    def __init__(
        self,
        settings: Settings,
        topic_in: str,
        topic_out: str,
        topic_dead: str,
        account: Account | None = None,
    ) -> None:
        self._settings = settings
        self._in = topic_in
        self._out = topic_out
        self._dead = topic_dead
        self._partitions: dict[int, _Partition] = {}
        self.account = account or Account()

    def assigned(self, partition: int, committed: int, note: str | None, begin: int) -> int:
        """A partition's state begins empty, that far back that nothing is missing at `committed`."""
        start = begin if note is None or not note.isdecimal() else min(int(note), committed)
        self._partitions[partition] = _Partition(self._settings, start)
        return start

    def revoked(self, partition: int) -> None:
        """Its next owner begins anew."""
        del self._partitions[partition]

    def note(self, partition: int) -> str:
        """Where the next owner has to begin."""
        own = self._partitions[partition]
        return str(own.reach.begin(own.following))

    def take(self, partition: int, records: list[Record], writes: bool) -> Iterator[Output]:
        """Rows and letters of records."""
        for made in self._work(partition, records, counts=writes):
            if writes:
                yield from self._outputs(partition, made)

    def work(
        self, partition: int, records: list[Record]
    ) -> Iterator[tuple[FeatureRows, list[tuple[Record, str]]]]:
        """Rows of records, and those that cannot be read with the reason; a block for each run of a kind."""
        for made in self._work(partition, records, counts=True):
            yield made.rows, made.letters

    def _work(self, partition: int, records: list[Record], *, counts: bool) -> Iterator[_Made]:
        own = self._partitions[partition]
        own.pipeline.account = Account()
        kinds = [_kind(record, place, self._in) for place, record in enumerate(records)]
        start = 0
        for kind, group in groupby(kinds):
            stop = start + len(list(group))
            yield self._run(own, records[start:stop], kind, start)
            start = stop
        own.following = records[-1].offset + 1
        if counts:
            own.pipeline.account.lines = len(records)
            self.account.absorb(own.pipeline.account)

    def _run(self, own: _Partition, run: list[Record], kind: _Kind, start: int) -> _Made:
        """Records that follow each other."""
        first = kind.base + start
        data = b"".join([_line(record) for record in run])
        rows = own.pipeline.lines(data, self._in, conn=kind.conn, first_line=first, only=kind.product)
        if len(rows):
            own.reach.add(rows, run[0].offset)
        letters = [(run[letter.line - first], letter.reason) for letter in own.letters]
        own.letters.clear()
        for record in run:
            if not record.value or record.value.isspace():
                self._count(own, NO_VALUE)
                letters.append((record, NO_VALUE))
        return _Made(rows, [run[line - first] for line in own.lines], letters)

    def _outputs(self, partition: int, made: _Made) -> Iterator[Output]:
        rows = made.rows
        products = [name.encode() for name in rows.products]
        for value, code, source in zip(encode_rows(rows), rows.product.tolist(), made.sources, strict=True):
            if len(value) > ROW_BYTES:
                self._count(self._partitions[partition], TOO_LARGE)
                yield self._letter(source, TOO_LARGE)
                continue
            yield Output(self._out, value, products[code], partition)
        for record, reason in made.letters:
            yield self._letter(record, reason)

    @staticmethod
    def _count(own: _Partition, reason: str) -> None:
        dead = own.pipeline.account.dead
        dead[reason] = dead.get(reason, 0) + 1

    def _letter(self, record: Record, reason: str) -> Output:
        value = record.value or b""
        told = {
            "reason": reason,
            "topic": self._in,
            "partition": record.partition,
            "offset": record.offset,
            "size": len(value),
        }
        return Output(
            self._dead,
            value[:LETTER_BYTES],
            record.key and record.key[:LETTER_BYTES],
            headers=[(name, str(each).encode()) for name, each in told.items()],
        )


class _Kind(NamedTuple):
    """How a record's ticks are identified where it does not say so itself; the same for a run of neighbours.

    Attributes:
        conn: the connection.
        base: a record's number on it, less its place in the batch.
        product: of the ticks that count; None for all.
    """

    conn: str
    base: int
    product: str | None


def _kind(record: Record, place: int, topic: str) -> _Kind:
    """By its headers, as the publisher of a file of another form sets them, else by its place in the topic."""
    value = record.value
    if value is None or IDENTITY not in value:
        headers = record.headers
        conn, number = headers.get("connection"), headers.get("sequence")
        if conn and number and number.isdigit() and len(number) <= NUMBER_DIGITS:
            # A line with several products stands in the topic once for each.
            key = record.key
            product = None if key is None else key.decode(errors="replace")
            return _Kind(conn.decode(errors="replace"), int(number) - place, product)
    return _Kind(f"{topic}:{record.partition}", record.offset - place, None)


def _line(record: Record) -> bytes:
    """The record as one line: a line break can stand between values only."""
    value = record.value or b""
    return (value.replace(b"\n", b" ") if b"\n" in value else value) + b"\n"
