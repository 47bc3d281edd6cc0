"""What is kept: the settings' `retention_days` and `max_gb`, applied to a recording and to the features made of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import structlog

from richter.adapters.recording import retention
from richter.adapters.recording.published import Published, load_published
from richter.adapters.recording.segments import Position, Segment, list_segments
from richter.adapters.tables.last_rows import last_rows
from richter.config import Settings
from richter.domain.ticks import Ns
from richter.errors import RichterError
from richter.runtime.catching_up import LOOK_BACK_NS

__all__ = ["retain", "trim"]


def retain(settings: Settings, now: Ns) -> None:
    """Delete what is too old or too much, oldest first; features go when the recording of their time is gone.

    What a start has to read again, or a broker has not acknowledged, is never touched. What goes wrong is logged.

    Args:
        settings: the limits, and the data folder.
        now: ns since the epoch.
    """
    if settings.retention_days is None and settings.max_gb is None:
        return
    try:
        _retain(settings, now)
    except (OSError, RichterError) as error:
        structlog.get_logger("richter.retention").error("not_deleted", text=str(error))


def trim(folder: Path, acknowledged: Mapping[str, Position], now: Ns) -> None:
    """Delete what a broker has of a recording that is kept only for it, but for the look-back. Errors are logged.

    Args:
        folder: of the recording.
        acknowledged: product -> everything before it is on the broker.
        now: ns since the epoch.
    """
    try:
        segments = list_segments(folder)
        unknown = {segment.product_id for segment in segments if segment.product_id} - set(acknowledged)
        needed = {**acknowledged, **dict.fromkeys(unknown, Position("", 0))}
        retention.apply(retention.plan(segments, now=now, retention_days=0, unacknowledged=needed))
    except (OSError, RichterError) as error:
        structlog.get_logger("richter.retention").error("not_deleted", text=str(error))


def _retain(settings: Settings, now: Ns) -> None:
    raw = settings.data_dir / "raw"
    parts = _parts(settings.data_dir / "processed" / "features.parquet")
    made = sum(part.stat().st_size for part, _ in parts) / 1e9
    segments = list_segments(raw)
    published = load_published(raw)
    chosen = retention.plan(
        segments,
        now=now,
        unacknowledged=None if published is None else _waiting(published),
        protected=_needed(segments, settings.data_dir / "processed" / "features.parquet"),
        retention_days=settings.retention_days,
        max_gb=None if settings.max_gb is None else max(0.0, settings.max_gb - made),
    )
    if not retention.apply(chosen).segments:
        return
    begins = [
        segment.manifest.first_event
        for segment in list_segments(raw)
        if segment.manifest is not None and segment.manifest.first_event is not None
    ]
    gone = [part for part, last in parts if begins and last < min(begins)]
    for part in gone:
        part.unlink(missing_ok=True)
    structlog.get_logger("richter.retention").info("deleted", segments=len(chosen), feature_parts=len(gone))


def _waiting(published: Published) -> dict[str, Position]:
    return {product: position or Position("", 0) for product, position in published.positions.items()}


def _needed(segments: list[Segment], log: Path) -> set[str]:
    """Segments with ticks that the feature log lacks, and those that a start looks back to from its end."""
    if not log.is_dir():
        return set()
    last = last_rows(log, {segment.product_id for segment in segments if segment.product_id})
    return {
        str(segment.name)
        for segment in segments
        if segment.manifest is not None
        and segment.manifest.last_event is not None
        and (row := last.get(segment.manifest.product_id)) is not None
        and segment.manifest.last_event >= row.ts_event - LOOK_BACK_NS
    }


def _parts(log: Path) -> list[tuple[Path, Ns]]:
    """The parts of a feature log that hold rows, and the last event time in each."""
    found = []
    for path in sorted(log.glob("part-*.parquet")):
        try:
            metadata = pq.read_metadata(path)
        except (OSError, pa.ArrowException):
            continue
        column = metadata.schema.names.index("ts_event")
        groups = (metadata.row_group(number).column(column) for number in range(metadata.num_row_groups))
        times = [group.statistics.max for group in groups if group.statistics is not None]
        if times:
            found.append((path, max(times)))
    return found
