"""A progress bar on a terminal, nothing elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Progress", "progress"]


class Progress:
    """What is done of what there is to do; does nothing unless a bar is shown."""

    def total(self, size: int) -> None:
        """Say how much there is."""

    def advance(self, size: int) -> None:
        """Say that some of it is done."""

    def close(self) -> None:
        """Take the bar away before the end."""


@contextmanager
def progress(what: str, *, shown: bool = True, unit: str = "bytes") -> Iterator[Progress]:
    """Show a bar on standard error where that is a terminal."""
    if not shown or not sys.stderr.isatty():
        yield Progress()
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        *(
            (DownloadColumn(), TransferSpeedColumn())
            if unit == "bytes"
            else (MofNCompleteColumn(), TextColumn(unit))
        ),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(what, total=None)

        class Shown(Progress):
            def total(self, size: int) -> None:
                bars.update(task, total=size)

            def advance(self, size: int) -> None:
                bars.advance(task, size)

            def close(self) -> None:
                bars.stop()

        yield Shown()
