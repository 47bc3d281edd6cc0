"""One writer a data folder."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from richter.adapters.recording.recovery import try_lock
from richter.errors import DataFolderError

__all__ = ["FolderLock"]


class FolderLock:
    """Holds a data folder while it is written to; the kernel lets go of it when the process ends, however it ends.

    Args:
        folder: made when it is missing.
        holder: what to tell others, such as "richter run".

    Raises:
        DataFolderError: another process holds it, or the folder cannot be written to.
    """

    def __init__(self, folder: Path, holder: str) -> None:
        path = folder / ".lock"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise DataFolderError(
                f"the data folder cannot be written to ({error.strerror})",
                str(folder),
                "choose another with --data",
            ) from error
        if not try_lock(self._fd):
            told = os.pread(self._fd, 200, 0).decode(errors="replace").strip() or "another process"
            os.close(self._fd)
            raise DataFolderError(
                f"the data folder is in use by {told}", str(folder), "stop it, or choose another with --data"
            )
        with suppress(OSError):  # A full disk: the lock holds without a name in it.
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{holder}, process {os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let go of it."""
        os.close(self._fd)
