"""What is left to do to closed segments: sealing them, and compressing them then."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from richter.adapters.recording.events import EventKind, RecordingEvent
from richter.adapters.recording.intervals import is_due
from richter.adapters.recording.sealing import Sync, compress
from richter.adapters.recording.troubles import Troubles
from richter.adapters.recording.unsealed import Unsealed
from richter.domain.ticks import Ns
from richter.errors import InputFileError

__all__ = ["Backlog"]


class Backlog:
    """Closed segments in the order in which they were closed; a seal that fails is tried again.

    Args:
        compress: sealed segments become zstd.
        retry_ns: after a failure.
        on_event: told of what became of each.
        sync: as `os.fdatasync`.
        troubles: a segment that cannot be sealed is one.
    """

    def __init__(
        self,
        *,
        compress: bool,
        retry_ns: Ns,
        on_event: Callable[[RecordingEvent], None],
        sync: Sync,
        troubles: Troubles,
    ) -> None:
        self._compress = compress
        self._retry_ns = retry_ns
        self._on_event = on_event
        self._sync = sync
        self._troubles = troubles
        self._unsealed: list[Unsealed] = []
        self._uncompressed: deque[Path] = deque()
        self._compression: Iterator[int] | None = None

    def add(self, segment: Unsealed) -> None:
        """Take over a closed segment with lines in it."""
        self._unsealed.append(segment)

    def seal(self, now: Ns) -> None:
        """Seal the segments that are due."""
        for segment in self._unsealed.copy():
            if not is_due(now, segment.tried_at, self._retry_ns):
                continue
            segment.tried_at = now
            product_id, path = segment.product_id, segment.path
            trouble = f"seal {path.name}"
            try:
                tally = segment.seal(now, self._sync)
            except FileNotFoundError:
                detail = f"{segment.tally.count} lines were deleted before their segment was sealed"
                self._on_event(RecordingEvent(EventKind.PROBLEM, detail, product_id, path))
            except (OSError, InputFileError) as error:
                self._troubles.add(trouble, f"a segment cannot be sealed: {error}", product_id)
                continue
            else:
                self._on_event(RecordingEvent(EventKind.SEALED, f"{tally.count} lines", product_id, path))
                if self._compress:
                    self._uncompressed.append(path)
            self._unsealed.remove(segment)
            self._troubles.clear(trouble, product_id=product_id)

    def compress_step(self) -> None:
        """Compress about a MiB more, when there is any."""
        if not self._uncompressed:
            return
        path = self._uncompressed[0]
        if self._compression is None:
            self._compression = compress(path, sync=self._sync)
        try:
            if next(self._compression, None) is not None:
                return
            self._on_event(RecordingEvent(EventKind.COMPRESSED, path=path))
        except (OSError, InputFileError) as error:
            detail = f"a segment stays uncompressed: {error}"
            self._on_event(RecordingEvent(EventKind.PROBLEM, detail, path=path))
        self._uncompressed.popleft()
        self._compression = None

    def finish(self, now: Ns) -> None:
        """Seal all, due or not, and compress to the end; what the disk refuses stays as it is."""
        for segment in self._unsealed:
            segment.tried_at = None
        self.seal(now)
        while self._uncompressed:
            self.compress_step()
