"""What of the recording may be deleted, and its deletion."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from richter.adapters.recording.events import EventKind, RecordingEvent, log_event
from richter.adapters.recording.segments import Position, Segment, manifest_path
from richter.domain.ticks import Ns
from richter.engine.table import LOOK_BACK_S

__all__ = ["Deleted", "apply", "plan"]

_SECOND: Final = 1_000_000_000
_DAY: Final = 86_400 * _SECOND
_GB: Final = 1_000_000_000


class Deleted(msgspec.Struct, frozen=True):
    """What a deletion did.

    Attributes:
        segments: removed.
        size: bytes freed.
        refused: files that could not be removed, with the reason.
    """

    segments: list[Path]
    size: int
    refused: list[tuple[Path, str]]


def plan(
    segments: Sequence[Segment],
    *,
    now: Ns,
    retention_days: float | None = None,
    max_gb: float | None = None,
    protected: Collection[str] = (),
    unacknowledged: Mapping[str, Position] | None = None,
    newest_event: Mapping[str, Ns] | None = None,
    look_back_s: int = LOOK_BACK_S,
) -> list[Segment]:
    """Choose the segments to delete, oldest first.

    Never chosen: one that is not sealed; one whose event times are unknown or reach into the look-back of the
    product's newest; a protected one; one that holds unacknowledged lines.

    Args:
        segments: of any products; all of them count for `max_gb`, the open ones too.
        now: ns since the epoch.
        retention_days: a segment goes when its last line is older; None keeps all, 0 none that nothing
            protects.
        max_gb: the oldest go until the rest is no larger (10**9 bytes); None is no limit.
        protected: names of segments, such as those a champion was trained on.
        unacknowledged: per product, from where on lines are still needed.
        newest_event: per product, where the caller knows of a newer event than the sealed segments hold.
        look_back_s: of event time.

    Returns:
        The segments; their sum may be too small for `max_gb`, as what is needed stays.
    """
    newest = dict(newest_event or {})
    for segment in segments:
        if segment.manifest is not None and segment.manifest.last_event is not None:
            product_id = segment.manifest.product_id
            newest[product_id] = max(
                segment.manifest.last_event, newest.get(product_id, segment.manifest.last_event)
            )
    free = [
        (age_from, segment)
        for segment in segments
        if str(segment.name) not in protected
        and (age_from := _last_time(segment)) is not None
        and _is_free(segment, newest, unacknowledged or {}, look_back_s)
    ]
    free.sort(key=lambda entry: (entry[0], entry[1].name))
    excess = sum(segment.size_on_disk for segment in segments) - (max_gb or 0) * _GB
    chosen = []
    for last, segment in free:
        is_old = retention_days is not None and last < now - retention_days * _DAY
        if is_old or (max_gb is not None and excess > 0):
            chosen.append(segment)
            excess -= segment.size_on_disk
    return chosen


def apply(segments: Sequence[Segment], *, on_event: Callable[[RecordingEvent], None] = log_event) -> Deleted:
    """Delete segments with their manifests; what cannot be deleted is told and left."""
    removed: list[Path] = []
    refused: list[tuple[Path, str]] = []
    size = 0
    for segment in segments:
        manifest = manifest_path(segment.path)
        try:
            # The manifest last: a segment without one would be sealed anew by the next start.
            segment.path.unlink(missing_ok=True)
            manifest.unlink(missing_ok=True)
        except OSError as error:
            refused.append((segment.path, str(error)))
            on_event(
                RecordingEvent(
                    EventKind.PROBLEM, f"cannot be deleted: {error}", segment.product_id, segment.path
                )
            )
            continue
        removed.append(segment.path)
        size += segment.size_on_disk
        detail = f"{segment.size_on_disk} bytes, by the retention rule"
        on_event(RecordingEvent(EventKind.DELETED, detail, segment.product_id, segment.path))
    return Deleted(removed, size, refused)


def _last_time(segment: Segment) -> Ns | None:
    manifest = segment.manifest
    if manifest is None or manifest.last_event is None:
        return None
    return max(manifest.last_event, manifest.last_recv or manifest.last_event)


def _is_free(
    segment: Segment, newest: Mapping[str, Ns], unacknowledged: Mapping[str, Position], look_back_s: int
) -> bool:
    manifest = segment.manifest
    if manifest is None or manifest.last_event is None:
        return False
    if manifest.last_event >= newest[manifest.product_id] - look_back_s * _SECOND:
        return False
    needed = unacknowledged.get(manifest.product_id)
    return needed is None or Position(str(segment.name), manifest.size) <= needed
