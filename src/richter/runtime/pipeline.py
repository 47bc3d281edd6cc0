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
from richter.engine.engine import Counts, Engine
from richter.engine.rows import FeatureRows
from richter.protocol.decoder import Decoder, TickBlock

__all__ = ["Account", "Pipeline", "bury", "file_connection"]


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
        self._add_counts(counts)
        for kind, number in block.ignored.items():
            self.ignored[kind] = self.ignored.get(kind, 0) + number

    def absorb(self, part: Account, counts: Counts) -> None:
        """Add the account of a part that was decoded elsewhere, and what became of its ticks."""
        self.bytes += part.bytes
        self.lines += part.lines
        self.ticks += part.ticks
        for kind, number in part.ignored.items():
            self.ignored[kind] = self.ignored.get(kind, 0) + number
        self._add_counts(counts)

    def _add_counts(self, counts: Counts) -> None:
        self.rows += counts.rows
        self.duplicates += counts.duplicates
        self.clamped += counts.clamped
        self.segments += counts.segments


def bury(
    account: Account,
    dead: DeadLetters | None,
    reason: str,
    data: bytes,
    source: str,
    line: int,
    ts: int | None = None,
) -> None:
    """Keep a dead letter and count it by kind: what a reason says of values does not count."""
    kind = reason.rsplit(": ", 1)[-1].split(" for price_decimals")[0]
    account.dead[kind] = account.dead.get(kind, 0) + 1
    if dead is not None:
        dead.add(reason, data, source=source, line=line, ts=ts)


def file_connection(path: Path) -> str:
    """Connection of a file's records that name none: the sha256 of its first line."""
    return "file:" + hashlib.sha256(reader.first_line(path)).hexdigest()


class Pipeline:
    """Decodes files and computes their features, in order, in constant memory.

    Args:
        settings: staleness and price scales.
        dead: where unreadable lines go; None only counts them.
        on_bytes: told of each block's bytes as it is done, for a progress bar.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        dead: DeadLetters | None = None,
        on_bytes: Callable[[int], None] = lambda size: None,
    ) -> None:
        self.settings = settings
        self.decoder = Decoder(settings.decimals_for)
        names = self.decoder.state
        self.engine = Engine(
            names.products,
            stale_after_s=settings.stale_after_s,
            price_decimals=settings.decimals_for,
            conn_offsets=names.conn_offsets,
        )
        self.account = Account()
        self._dead = dead
        self._on_bytes = on_bytes

    def run(self, files: list[Path]) -> Iterator[FeatureRows]:
        """The rows of the files' ticks, a block at a time."""
        for path in files:
            self.account.files += 1
            source = str(path)

            def left_out(rejected: reader.Rejected, source: str = source) -> None:
                self._bury(rejected.reason.value, rejected.data, source, rejected.line)

            conn = file_connection(path)
            for block in reader.read_blocks(path, on_rejected=left_out):
                ticks = self.decoder.decode(block.data, file_conn=conn, first_line=block.first_line)
                yield self._rows(ticks, block.data, source)
                self.account.bytes += len(block.data)
                self._on_bytes(len(block.data))

    def _rows(self, block: TickBlock, data: memoryview, source: str) -> FeatureRows:
        result = self.engine.process(block.ticks)
        counts = result.counts()
        self.account.add(block, counts)
        for rejected in block.rejected:
            self._bury(rejected.reason, rejected.data, source, rejected.line_no)
        if counts.ahead:
            for i in ((result.meta[:, k.OUTCOME] & 3) == k.AHEAD).nonzero()[0].tolist():
                start, end, line = block.origin[i].tolist()
                self._bury(
                    "stamped more than 2 s ahead",
                    bytes(data[start:end]),
                    source,
                    line,
                    int(block.ticks[i, tk.TS_EVENT]),
                )
        names = self.decoder.state
        return FeatureRows.of(
            block.ticks, result, names.products, names.conn_ids, float(self.settings.stale_after_s)
        )

    def _bury(self, reason: str, data: bytes, source: str, line: int, ts: int | None = None) -> None:
        bury(self.account, self._dead, reason, data, source, line, ts)
