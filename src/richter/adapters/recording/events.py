"""What the recording tells of itself: to the log, and to whoever asks."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

import msgspec
import structlog

__all__ = ["EventKind", "RecordingEvent", "log_event"]


class EventKind(StrEnum):
    """What happened."""

    OPENED = "opened"
    SEALED = "sealed"
    COMPRESSED = "compressed"
    DELETED = "deleted"
    DEGRADED = "degraded"
    RESUMED = "resumed"
    CUT = "cut"
    PROBLEM = "problem"


_LOUD = frozenset({EventKind.DEGRADED, EventKind.PROBLEM, EventKind.CUT})


class RecordingEvent(msgspec.Struct, frozen=True):
    """Something that happened to the recording.

    Attributes:
        kind: what.
        detail: in words, with the numbers.
        product_id: None where it is not one product's.
        path: the file, None where it is not one file's.
    """

    kind: EventKind
    detail: str = ""
    product_id: str | None = None
    path: Path | None = None


def log_event(event: RecordingEvent) -> None:
    """Write an event to the log, as an error where lines are or may be lost."""
    log = structlog.get_logger("richter.recording")
    (log.error if event.kind in _LOUD else log.info)(
        f"recording_{event.kind.value}",
        detail=event.detail,
        product_id=event.product_id,
        path=None if event.path is None else str(event.path),
    )
