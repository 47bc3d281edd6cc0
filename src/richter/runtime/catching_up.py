"""What a start makes of the recording: from LOOK_BACK before the logs' ends it computes silently, then goes on.

Only two things tell where an earlier run stopped: the last row of each product in the feature log, and its last alert,
which may be of a later row. Nothing else is a checkpoint. Both are looked for by identity: a clock may have been set
back since.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from richter.adapters.recording.sealing import scan
from richter.adapters.recording.segments import Segment, list_segments
from richter.adapters.tables.last_rows import LastRow, last_rows
from richter.domain import ticks as tk
from richter.domain.ticks import Ns
from richter.engine.rows import FeatureRows
from richter.engine.table import LOOK_BACK_S
from richter.models.alert_log import Alert
from richter.protocol.decoder import TickBlock
from richter.runtime.pipeline import Letter, Pipeline, file_connection

__all__ = ["LOOK_BACK_NS", "CaughtUp", "catch_up"]

LOOK_BACK_NS: Final = (LOOK_BACK_S + 60) * 1_000_000_000
"""With a margin: clamped times stand in the log."""

Identity = tuple[str, int, int, int]


class CaughtUp(msgspec.Struct):
    """What a start made of the recording.

    Attributes:
        looked_back: rows that the log holds, computed again for what comes after them.
        added: rows that were recorded and not in the log.
        last_good: product -> event time of its last record.
        warnings: what does not fit.
    """

    looked_back: int = 0
    added: int = 0
    last_good: dict[str, Ns] = msgspec.field(default_factory=dict)
    warnings: list[str] = msgspec.field(default_factory=list)


class _Ends:
    """How far a product's logs reach, and where that is in its rows.

    Args:
        row: the feature log's last one; None when it has none in the recording.
        alert: the last one, where it is later than `row`.
    """

    def __init__(self, row: Identity | None, alert: Identity | None) -> None:
        self.row = row
        self.alert = alert

    def split(self, rows: FeatureRows) -> tuple[int, int]:
        """How many of the rows are in the feature log, and how many were seen by the alert machine."""
        start = 0
        if self.row is not None:
            end = _end_of(rows, self.row)
            if end is None:
                return len(rows), len(rows)
            self.row = None
            start = end
        if self.alert is None:
            return start, start
        seen = _end_of(rows, self.alert)
        if seen is None:
            return start, len(rows)
        self.alert = None
        return start, max(start, seen)


class _Known:
    """Keeps back the letters of lines whose rows are in the log: an earlier run told of them."""

    def __init__(
        self, ends: dict[str, _Ends], products: dict[str, str], hand_on: Callable[[Letter], None]
    ) -> None:
        self._ends = ends
        self._products = products
        self._hand_on = hand_on
        self._until = 0

    def block(self, block: TickBlock, names: list[str]) -> None:
        """Note where in a block the log ends."""
        self._until = 0
        for code in np.unique(block.ticks[:, tk.PRODUCT]).tolist():
            own = self._ends.get(names[code])
            if own is None or own.row is None:
                continue
            _, *numbers = own.row
            mine = block.ticks[:, tk.PRODUCT] == code
            at = np.flatnonzero(
                mine & (block.ticks[:, tk.FRAME_NO : tk.TICKER_INDEX + 1] == np.array(numbers)).all(axis=1)
            )
            line = int(block.origin[at[-1], 2]) if len(at) else 2**62
            self._until = max(self._until, line)

    def letter(self, letter: Letter) -> None:
        """Hand a letter on, unless it was told of."""
        own = self._ends.get(self._products.get(letter.source, ""))
        told = own is not None and own.row is not None and (not self._until or letter.line <= self._until)
        if not told:
            self._hand_on(letter)


def catch_up(
    pipeline: Pipeline,
    raw: Path,
    log: Path,
    alerts: dict[str, Alert],
    emit: Callable[[FeatureRows, int], None],
    on_total: Callable[[int], None] = lambda total: None,
) -> CaughtUp:
    """Bring the logs to the end of the recording.

    Args:
        pipeline: a new one; it holds the state at the end of the recording afterwards.
        raw: folder of the recording.
        log: the feature log.
        alerts: product -> its last alert.
        emit: takes rows that the log lacks, and how many of them the alert machine has seen.
        on_total: told how many bytes will be read.
    """
    done = CaughtUp()
    by_symbol: dict[str, list[Segment]] = {}
    for segment in list_segments(raw):
        if segment.path.exists():  # A manifest alone is told of by the recovery.
            by_symbol.setdefault(segment.name.symbol, []).append(segment)
    sources = {str(segment.path): segment.product_id or "" for own in by_symbol.values() for segment in own}
    committed = last_rows(log, {product for product in sources.values() if product})
    ends: dict[str, _Ends] = {}
    files: list[Path] = []
    for own in by_symbol.values():
        first = len(own)
        for product in {segment.product_id for segment in own if segment.product_id}:
            row, alert = committed.get(product), alerts.get(product)
            order = _connections([segment for segment in own if segment.product_id == product])
            if row is not None and row.identity[0] not in order:
                done.warnings.append(
                    f"{product}: the feature log's last row is not in the recording any more"
                )
                row = None
            ends[product] = _Ends(
                None if row is None else row.identity, _later_alert(alert, row, list(order))
            )
            first = min(first, 0 if row is None else _look_back(own, product, row, order))
        files += [segment.path for segment in own[first:]]
    on_total(sum(path.stat().st_size for path in files))
    on_letter, on_block = pipeline.on_letter, pipeline.on_block
    known = _Known(ends, sources, on_letter)
    pipeline.on_letter = known.letter
    pipeline.on_block = lambda block, made: known.block(block, pipeline.names.products)
    for rows in _of_one_product(pipeline.run(files)):
        name = rows.products[int(rows.product[0])]
        in_log, seen = ends.setdefault(name, _Ends(None, None)).split(rows)
        done.looked_back += in_log
        done.added += len(rows) - in_log
        done.last_good[name] = int(rows.ts_event[-1])
        if in_log < len(rows):
            emit(rows.take(slice(in_log, None)), seen - in_log)
    pipeline.on_letter, pipeline.on_block = on_letter, on_block
    for name, own_ends in sorted(ends.items()):
        if own_ends.row is not None:
            done.warnings.append(f"{name}: the feature log's last row is not where its recording says")
        elif own_ends.alert is not None:
            done.warnings.append(f"{name}: the alert log's last alert is not where its recording says")
    return done


def _connections(segments: list[Segment]) -> dict[str, int]:
    """A product's connections in the order of its log, each with the number of the last segment that has it."""
    order: dict[str, int] = {}
    for number, segment in enumerate(segments):
        named = segment.manifest.connections if segment.manifest is not None else ()
        if not named:  # Lines without identity, or nobody noted whose they are.
            named = scan(segment.path)[0].connections or (file_connection(segment.path),)
        order |= dict.fromkeys(named, number)
    return order


def _later_alert(alert: Alert | None, row: LastRow | None, order: list[str]) -> Identity | None:
    """The alert's identity, where its tick is in the recording and comes after the feature log's last row."""
    if alert is None or alert.conn_id not in order:
        return None
    identity = alert.conn_id, alert.frame_no, alert.event_index, alert.ticker_index
    if row is None:
        return identity
    one, other = order.index(alert.conn_id), order.index(row.identity[0])
    return identity if (one, *identity[1:]) > (other, *row.identity[1:]) else None


def _look_back(segments: list[Segment], product: str, row: LastRow, order: dict[str, int]) -> int:
    """The segment to begin with: LOOK_BACK before the row, counted from the last segment that can hold it."""
    own = [number for number, segment in enumerate(segments) if segment.product_id == product]
    first = own[order[row.identity[0]]]
    needed = row.ts_event - LOOK_BACK_NS
    while first > 0:
        segment = segments[first]
        begins = None if segment.manifest is None else segment.manifest.first_event
        if segment.product_id == product and begins is not None and begins <= needed:
            break
        first -= 1
    return first


def _of_one_product(batches: Iterator[FeatureRows]) -> Iterator[FeatureRows]:
    for rows in batches:
        for code in np.unique(rows.product).tolist():
            yield rows.of_product(code)


def _end_of(rows: FeatureRows, identity: Identity) -> int | None:
    """How many rows there are up to the one with this identity, or to where its connection goes beyond it."""
    conn, frame, event, ticker = identity
    if conn not in rows.conn_ids:
        return None
    mine = rows.conn == list(rows.conn_ids).index(conn)
    frames, events, tickers = rows.identity.T
    hits = np.flatnonzero(mine & (frames == frame) & (events == event) & (tickers == ticker))
    if len(hits):
        return int(hits[-1]) + 1
    later = (frames > frame) | (
        (frames == frame) & ((events > event) | ((events == event) & (tickers > ticker)))
    )
    beyond = np.flatnonzero(mine & later)
    return int(beyond[0]) if len(beyond) else None
