"""Features that survive a disk which refuses them: the recording goes on, and they go on from it once there is room."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

import structlog

from richter.domain.ticks import Ns
from richter.errors import DataFolderError
from richter.runtime.catching_up import CaughtUp
from richter.runtime.live import LiveFeatures

__all__ = ["SteadyFeatures"]

RETRY_NS: Final = 10 * 1_000_000_000


class SteadyFeatures:
    """Live features, begun anew from the recording whenever their logs could not be written.

    Args:
        make: begins them.

    Attributes:
        trouble: why there are none at the moment; empty while all is well.
        rows: made so far.
    """

    def __init__(self, make: Callable[[], LiveFeatures]) -> None:
        self._make = make
        self._live: LiveFeatures | None = None
        self._failed_at: Ns = 0
        self._rows_before = 0
        self._log = structlog.get_logger("richter.features")
        self.trouble = ""

    @property
    def rows(self) -> int:
        """Feature rows made since the start."""
        live = 0 if self._live is None else self._live.new_rows
        return self._rows_before + live

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.__exit__(kind, error, trace)

    def start(self, on_total: Callable[[int], None] = lambda total: None) -> CaughtUp:
        """Begin, and bring the logs to the end of the recording.

        Raises:
            DataFolderError: the logs cannot be written.
        """
        live = self._make()
        try:
            done = live.catch_up(on_total)
        except BaseException:
            live.abandon()
            raise
        self._live = live
        return done

    def take(self, lines: bytes, source: str, now: Ns) -> None:
        """Take recorded lines; while the disk refuses the logs they wait in the recording."""
        if self._live is not None:
            live = self._live
            self._guard(now, lambda: live.take(lines, source, now))

    def tick(self, now: Ns) -> None:
        """Do what is due; begin anew when it is time to try."""
        if self._live is not None:
            live = self._live
            self._guard(now, lambda: live.tick(now))
        elif now - self._failed_at >= RETRY_NS:
            self._failed_at = now
            with suppress(DataFolderError):
                done = self.start()
                self.trouble = ""
                self._log.info("features_resumed", rows=done.added)

    def _guard(self, now: Ns, work: Callable[[], None]) -> None:
        try:
            work()
        except DataFolderError as error:
            self.trouble = str(error)
            self._log.error("features_paused", text=str(error))
            self._failed_at = now
            if self._live is not None:
                self._live.abandon()
                self._rows_before += self._live.new_rows
                self._live = None
