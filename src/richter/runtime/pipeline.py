"""Recorded files in, feature rows out: the one path that live and replay share, fed from disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from richter.adapters.recording import reader
from richter.adapters.recording.dead import DeadLetters
from richter.config import Settings
from richter.domain import ticks as tk
from richter.engine import kernel as k
from richter.engine.engine import Block, Counts, Engine
from richter.engine.rows import FeatureRows
from richter.protocol.decoder import Decoder, DecoderState, TickBlock

__all__ = ["Account", "Letter", "Pipeline", "file_connection"]


class Account(msgspec.Struct):
    """Where every line of the input went.

    ``lines`` = one for each tick's line (a line of several ticks counts once) + ignored + dead-lettered as a line.
    """

    files: int = 0
    bytes: int = 0
    lines: int = 0
    ticks: int = 0
    rows: int = 0
    duplicates: int = 0
    clamped: int = 0
    segments: int = 0
    ignored: dict[str, int] = msgspec.field(default_factory=dict)
    dead: dict[str, int] = msgspec.field(default_factory=dict)

    def add(self, block: TickBlock, counts: Counts) -> None:
        """Count a block."""
        self.lines += block.lines
        self.ticks += len(block.ticks)
        self.rows += counts.rows
        self.duplicates += counts.duplicates
        self.clamped += counts.clamped
        self.segments += counts.segments
        for kind, number in block.ignored.items():
            self.ignored[kind] = self.ignored.get(kind, 0) + number

    def absorb(self, part: Account) -> None:
        """Add the account of a part."""
        for name in ("files", "bytes", "lines", "ticks", "rows", "duplicates", "clamped", "segments"):
            setattr(self, name, getattr(self, name) + getattr(part, name))
        for total, more in ((self.ignored, part.ignored), (self.dead, part.dead)):
            for kind, number in more.items():
                total[kind] = total.get(kind, 0) + number


class Letter(msgspec.Struct, frozen=True):
    """What could not be used: why, its bytes, where they were, and their event time where it is known."""

    reason: str
    data: bytes
    source: str
    line: int
    ts: int | None = None

    def to(self, dead: DeadLetters) -> None:
        """Keep it in a dead-letter file."""
        dead.add(self.reason, self.data, source=self.source, line=self.line, ts=self.ts)


def file_connection(path: Path) -> str:
    """Connection of a file's records that name none: the sha256 of its first line."""
    return "file:" + hashlib.sha256(reader.first_line(path)).hexdigest()


class Pipeline:
    """Decodes files and computes their features, in order, in constant memory.

    Args:
        settings: staleness and price scales.
        names: products, connections and clock offsets that are known beforehand.
        on_letter: told of what cannot be used.
        on_block: told of each block of ticks, those that make no row among them, and what the engine made of it.
        on_bytes: told of each block's bytes as it is done, for a progress bar.

    Attributes:
        account: where every line went.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        names: DecoderState | None = None,
        on_letter: Callable[[Letter], None] = lambda letter: None,
        on_block: Callable[[TickBlock, Block], None] = lambda ticks, made: None,
        on_bytes: Callable[[int], None] = lambda size: None,
    ) -> None:
        self.settings = settings
        self.account = Account()
        self.on_letter = on_letter
        self.on_block = on_block
        self._on_bytes = on_bytes
        self._decoder = Decoder(settings.decimals_for, names)
        self.names = self._decoder.state
        self.engine = Engine(
            self.names.products,
            stale_after_s=settings.stale_after_s,
            price_decimals=settings.decimals_for,
            conn_offsets=self.names.conn_offsets,
        )

    def run(self, files: list[Path]) -> Iterator[FeatureRows]:
        """The rows of the files' ticks, a block at a time."""
        for path in files:
            self.account.files += 1
            yield from self.ranges([reader.Range(path, 0, None, 1)])

    def ranges(self, parts: list[reader.Range]) -> Iterator[FeatureRows]:
        """The rows of the ticks in parts of files."""
        for part in parts:
            source = str(part.path)

            def left_out(rejected: reader.Rejected, source: str = source) -> None:
                self._bury(Letter(rejected.reason.value, rejected.data, source, rejected.line))

            conn = file_connection(part.path)
            for block in reader.read_blocks(
                part.path, part.start, part.stop, first_line=part.first_line, on_rejected=left_out
            ):
                ticks = self._decoder.decode(block.data, file_conn=conn, first_line=block.first_line)
                yield self._rows(ticks, block.data, source)
                self.account.bytes += len(block.data)
                self._on_bytes(len(block.data))

    def lines(
        self,
        data: bytes,
        source: str,
        *,
        conn: str | None = None,
        first_line: int = 1,
        only: str | None = None,
    ) -> FeatureRows:
        """The rows of the ticks in whole lines that a feed just recorded.

        Args:
            data: the lines.
            source: where they are from, for letters.
            conn: connection of records that name none; `source` when not given.
            first_line: number of the first line, which identifies those records too.
            only: ticks of other products than this are left out.
        """
        ticks = self._decoder.decode(data, file_conn=conn or source, first_line=first_line)
        if only is not None:
            ticks = ticks.of_product(self.names.products.index(only) if only in self.names.products else -1)
        self.account.bytes += len(data)
        return self._rows(ticks, memoryview(data), source)

    def _rows(self, block: TickBlock, data: memoryview, source: str) -> FeatureRows:
        result = self.engine.process(block.ticks)
        counts = result.counts()
        self.account.add(block, counts)
        self.on_block(block, result)
        for rejected in block.rejected:
            self._bury(Letter(rejected.reason, rejected.data, source, rejected.line_no))
        if counts.ahead:
            for i in ((result.meta[:, k.OUTCOME] & 3) == k.AHEAD).nonzero()[0].tolist():
                start, end, line = block.origin[i].tolist()
                ts = int(block.ticks[i, tk.TS_EVENT])
                self._bury(Letter("stamped more than 2 s ahead", bytes(data[start:end]), source, line, ts))
        return FeatureRows.of(
            block.ticks,
            result,
            self.names.products,
            self.names.conn_ids,
            float(self.settings.stale_after_s),
        )

    def _bury(self, letter: Letter) -> None:
        # Counted by kind: what a reason says of values does not count.
        kind = letter.reason.rsplit(": ", 1)[-1].split(" for price_decimals")[0]
        self.account.dead[kind] = self.account.dead.get(kind, 0) + 1
        self.on_letter(letter)
