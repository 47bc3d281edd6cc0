"""What a start makes of the recording: from LOOK_BACK before the logs' ends it computes silently, then goes on.

Only two things tell where an earlier run stopped: the last row of each product in the feature log, and its last alert,
which may be of a later row. Nothing else is a checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from richter.adapters.recording.segments import Segment, list_segments
from richter.adapters.tables.last_rows import LastRow, last_rows
from richter.domain.ticks import Ns
from richter.engine.rows import FeatureRows
from richter.engine.table import LOOK_BACK_S
from richter.models.alert_log import Alert
from richter.runtime.pipeline import Pipeline

__all__ = ["CaughtUp", "catch_up"]

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
    """How far a product's logs reach, and where that is in its rows."""

    def __init__(self, row: LastRow | None, alert: Alert | None) -> None:
        self.row = row
        self.alert = None if alert is None else _identity_of(alert)
        self._alert_ts = 0 if alert is None else alert.ts_event

    def split(self, rows: FeatureRows) -> tuple[int, int]:
        """How many of the rows are in the feature log, and how many were seen by the alert machine."""
        start = 0
        if self.row is not None:
            at = _find(rows, self.row.identity)
            seen = None if self.alert is None else _find(rows, self.alert)
            if seen is not None and (at is None or seen <= at):
                self.alert = None
            if at is None:
                return len(rows), len(rows)
            if self._alert_ts < self.row.ts_event:
                self.alert = None  # Older than the look-back.
            self.row = None
            start = at + 1
        if self.alert is None:
            return start, start
        seen = _find(rows, self.alert)
        if seen is None:
            return start, len(rows)
        self.alert = None
        return start, seen + 1


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
        by_symbol.setdefault(segment.name.symbol, []).append(segment)
    products = {segment.product_id for own in by_symbol.values() for segment in own if segment.product_id}
    committed = last_rows(log, products)
    ends: dict[str, _Ends] = {}
    files = [path for own in by_symbol.values() for path in _from_look_back(own, committed)]
    on_total(sum(path.stat().st_size for path in files))
    for rows in _of_one_product(pipeline.run(files)):
        name = rows.products[int(rows.product[0])]
        own = ends.setdefault(name, _Ends(committed.get(name), alerts.get(name)))
        known, seen = own.split(rows)
        done.looked_back += known
        done.added += len(rows) - known
        done.last_good[name] = int(rows.ts_event[-1])
        if known < len(rows):
            emit(rows.take(slice(known, None)), seen - known)
    for name in sorted(committed.keys() | alerts.keys()):
        own = ends.get(name, _Ends(committed.get(name), None))
        if own.row is not None:
            done.warnings.append(f"{name}: the feature log's last row is not in the recording any more")
        elif own.alert is not None:
            done.warnings.append(f"{name}: the alert log's last alert is not in the recording")
    return done


def _from_look_back(segments: list[Segment], committed: dict[str, LastRow]) -> list[Path]:
    """The segments of a symbol from LOOK_BACK before the log's end on; all where the log lacks the product."""
    needed: dict[str | None, Ns] = {}
    for segment in segments:
        last = committed.get(segment.product_id or "")
        if last is None:
            return [segment.path for segment in segments]
        needed[segment.product_id] = last.ts_event - LOOK_BACK_NS
    first = len(segments)
    while first > 0 and needed:
        first -= 1
        segment = segments[first]
        begins = None if segment.manifest is None else segment.manifest.first_event
        if segment.product_id in needed and begins is not None and begins <= needed[segment.product_id]:
            del needed[segment.product_id]
    return [segment.path for segment in segments[first:]]


def _of_one_product(batches: Iterator[FeatureRows]) -> Iterator[FeatureRows]:
    for rows in batches:
        for code in np.unique(rows.product).tolist():
            yield rows.of_product(code)


def _identity_of(alert: Alert) -> Identity:
    return alert.conn_id, alert.frame_no, alert.event_index, alert.ticker_index


def _find(rows: FeatureRows, identity: Identity) -> int | None:
    """Number of the row with this identity."""
    conn, *numbers = identity
    if conn not in rows.conn_ids:
        return None
    mine = (rows.conn == list(rows.conn_ids).index(conn)) & (rows.identity == np.array(numbers)).all(axis=1)
    hits = np.flatnonzero(mine)
    return int(hits[-1]) if len(hits) else None
