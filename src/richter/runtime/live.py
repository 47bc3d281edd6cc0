"""Recorded ticks in, features and alerts out, as they come: the pipeline of a replay, fed line by line.

Nothing downstream is on disk before its record: the recording is synced before an alert is written and before a part
of the feature log gets its name. So after any end, a power cut too, the recording holds whatever the logs hold.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from richter.adapters.alerts.log import AlertLog
from richter.adapters.tables.parts import FeatureLogWriter
from richter.config import Settings
from richter.domain.ticks import Ns
from richter.engine.rows import FeatureRows
from richter.models.alert_log import Alert
from richter.runtime.catching_up import CaughtUp, catch_up
from richter.runtime.pipeline import Letter, Pipeline
from richter.runtime.rule_alerts import RuleAlerts, policy_of

__all__ = ["LiveFeatures"]

PART_NS: Final = 300 * 1_000_000_000
"""Rows wait for their part at most so long."""


class LiveFeatures:
    """Takes a run's recorded lines; writes the feature log and the alert log.

    Where the disk refuses one of them its methods raise DataFolderError, and it is of no use any more: another one goes
    on from what is on disk.

    Args:
        settings: staleness, price scales, policy of alerts, data folder.
        sync_recording: puts what is recorded on disk.
        on_rows: told of new rows.
        on_alert: told of new alerts, once they are on disk.
        on_letter: told of what cannot be used.

    Attributes:
        pipeline: with the account of the run's lines.
        alerts: the alert log.
        new_rows: that the feature log did not have, so far.
        trouble: always empty; what goes wrong is raised.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        sync_recording: Callable[[], None],
        on_rows: Callable[[FeatureRows], None] = lambda rows: None,
        on_alert: Callable[[Alert], None] = lambda alert: None,
        on_letter: Callable[[Letter], None] = lambda letter: None,
    ) -> None:
        self._settings = settings
        self._sync_recording = sync_recording
        self._on_rows = on_rows
        self._on_alert = on_alert
        self.pipeline = Pipeline(settings, on_letter=on_letter)
        self.alerts = AlertLog(settings.data_dir / "alerts" / "alerts.ndjson")
        self._log = FeatureLogWriter(settings.data_dir / "processed" / "features.parquet")
        self._rule = RuleAlerts(
            policy_of(settings), {name: alert.state for name, alert in self.alerts.last.items()}
        )
        self._part_since: Ns | None = None
        self.new_rows = 0
        self.trouble = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.flush()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Leave the logs as they are on disk: whoever comes next goes on from them."""
        self.new_rows -= self._log.discard()
        self.alerts.close()

    def catch_up(self, on_total: Callable[[int], None] = lambda total: None) -> CaughtUp:
        """Bring the logs to the end of the recording; to be called once, before the first line."""
        done = catch_up(
            self.pipeline,
            self._settings.data_dir / "raw",
            self._log.folder,
            dict(self.alerts.last),
            self._emit,
            on_total,
        )
        self.flush()
        return done

    def take(self, lines: bytes, source: str, now: Ns) -> None:
        """Take lines that are recorded.

        Args:
            lines: whole ones.
            source: their connection, for dead letters.
            now: monotonic, ns.
        """
        rows = self.pipeline.lines(lines, source)
        if len(rows):
            self._part_since = self._part_since or now
            self._emit(rows, 0)

    def tick(self, now: Ns) -> None:
        """Do what is due: give the rows of the last five minutes to the log."""
        if self._part_since is not None and now - self._part_since >= PART_NS:
            self.flush()

    def flush(self) -> None:
        """Give all rows to the log."""
        self._sync_recording()
        self._log.flush()
        self._part_since = None

    def _emit(self, rows: FeatureRows, seen: int) -> None:
        """Write rows; the machines have seen the first of them."""
        alerts = self._rule.take(rows.take(slice(seen, None)) if seen else rows)
        if alerts:
            self._sync_recording()
        for _, alert in alerts:
            self.alerts.append(alert)
            self._on_alert(alert)
        self._log.append(rows)
        self.new_rows += len(rows)
        self._on_rows(rows)
