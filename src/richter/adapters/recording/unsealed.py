"""A segment of this run that is not sealed yet: open for its product's lines, then closed."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

from richter.adapters.recording.recovery import try_lock
from richter.adapters.recording.sealing import Sync, Tally, scan, seal, sync_folder
from richter.adapters.recording.segments import create_segment
from richter.domain.ticks import Ns

__all__ = ["Unsealed"]


class Unsealed:
    """One segment of one product: made open and empty, closed once, and sealed then.

    Args:
        folder: of the recording.
        product_id: whose lines it is for.
        ts_recv: capture time of the first of them.
        now: by the recorder's clock.

    Attributes:
        product_id: whose lines it holds.
        path: the file.
        first_recv: capture time of the first line.
        opened_at: by the recorder's clock.
        tally: of the lines that were written whole.
        synced_at: when it was last put on the disk, or opened.
        is_synced: whether every line has been put on the disk.
        tried_at: when its sealing was tried last, or put off; None: it is due.

    Raises:
        OSError: the file cannot be made.
    """

    def __init__(self, folder: Path, product_id: str, ts_recv: Ns, now: Ns) -> None:
        self._fd, self.path = create_segment(folder, product_id, ts_recv)
        try_lock(self._fd)
        self.product_id = product_id
        self.first_recv = ts_recv
        self.opened_at = now
        self.tally = Tally()
        self.synced_at = now
        self.is_synced = True
        self.tried_at: Ns | None = None
        self._is_named = False  # The folder's entry is on the disk.
        self._is_torn = False

    def append(self, data: bytes, lines: int, write: Callable[[int, bytes], int]) -> None:
        """Write whole lines, all or none.

        Raises:
            OSError: none is in the file, unless as a torn end that `seal` cuts off.
        """
        try:
            written = write(self._fd, data)
            if written != len(data):
                raise OSError(errno.ENOSPC, f"{written} of {len(data)} bytes were written")
        except BaseException:  # Also an interrupt: half a line must not get a neighbour.
            try:
                os.ftruncate(self._fd, self.tally.size)
            except OSError:
                self._is_torn = True
            raise
        self.tally.add_bytes(data, lines)
        self.is_synced = False

    def put_on_disk(self, now: Ns, sync: Sync) -> bool:
        """Sync what is written; returns whether the file still has its name: False when it was deleted.

        Raises:
            OSError: after a failed sync the kernel may have dropped the pages: only a new file can be trusted.
        """
        self.synced_at = now
        sync(self._fd)
        if not self._is_named:
            sync_folder(self.path.parent, sync)
        links = os.fstat(self._fd).st_nlink
        self.is_synced = self._is_named = True
        return links > 0

    def close(self) -> None:
        """Take no more lines."""
        os.close(self._fd)

    def seal(self, now: Ns, sync: Sync) -> Tally:
        """Seal what is in the file, closed before; returns its tally.

        Raises:
            FileNotFoundError: it was deleted.
            OSError: the disk refuses.
            InputFileError: it cannot be read.
        """
        size = self.path.stat().st_size
        tally = self.tally
        if size > tally.size and self._is_torn:
            os.truncate(self.path, tally.size)
        elif size != tally.size:
            tally = scan(self.path)[0]
        seal(self.path, tally.manifest(self.product_id, now), sync=sync)
        return tally
