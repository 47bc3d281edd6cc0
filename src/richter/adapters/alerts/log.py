"""The alert log: append-only JSON lines, each a checkpoint of its product's machine."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

import msgspec

from richter.errors import DataFolderError, InputFileError
from richter.models.alert_log import Alert, decode_alert, encode_alert

__all__ = ["AlertLog", "write_log"]


class AlertLog:
    """Appends alerts, each on disk before `append` returns.

    A torn last line is cut off at the start: what it said follows from the recording again.

    Args:
        path: made at the first alert.

    Attributes:
        last: product -> its last alert.

    Raises:
        DataFolderError: the file cannot be read or made.
        InputFileError: a line that is no alert.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.last: dict[str, Alert] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
            data = path.read_bytes()
            whole = data.rfind(b"\n") + 1
            if whole < len(data):
                os.ftruncate(self._fd, whole)
        except OSError as error:
            raise DataFolderError(
                f"the alert log cannot be opened ({error.strerror})",
                str(path),
                "make it writable, or give another --data",
            ) from error
        for number, line in enumerate(data[:whole].splitlines(), 1):
            try:
                alert = decode_alert(line)
            except msgspec.MsgspecError as error:
                os.close(self._fd)
                raise InputFileError(
                    f"line {number} of the alert log is no alert",
                    str(path),
                    "mend the line, or move the file away",
                ) from error
            self.last[alert.product_id] = alert

    def close(self) -> None:
        """Give the file back."""
        os.close(self._fd)

    def append(self, alert: Alert) -> None:
        """Write an alert and wait until it is on disk.

        Raises:
            DataFolderError: the disk refuses it. What is torn is cut off by whoever opens the log next.
        """
        line = encode_alert(alert) + b"\n"
        end = os.fstat(self._fd).st_size
        try:
            if os.write(self._fd, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._fd)
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._fd, end)
            raise DataFolderError(
                f"the alert log cannot be written ({error.strerror})", str(self.path), "make room on the disk"
            ) from error
        self.last[alert.product_id] = alert


def write_log(path: Path, alerts: list[Alert]) -> None:
    """Write a log anew, whole or not at all.

    Raises:
        DataFolderError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_bytes(b"".join(encode_alert(alert) + b"\n" for alert in alerts))
        temporary.replace(path)
    except OSError as error:
        raise DataFolderError(
            f"cannot write the alert log ({error.strerror})", str(path), "give another --data"
        ) from error
