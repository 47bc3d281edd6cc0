"""One broker of a cluster: its folder, its process, its log."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from richter.adapters.broker import process, properties
from richter.adapters.broker.distribution import Distribution
from richter.adapters.broker.properties import Layout, Node
from richter.errors import DataFolderError, TransportError

__all__ = ["Broker"]

_MAIN: Final = "kafka.Kafka"
_TAIL_LINES: Final = 5


class Broker:
    """A broker's folder: `server.properties`, `data/`, `broker.log`, `broker.out`, `pid`.

    Args:
        folder: The cluster's folder, absolute.
        node: The broker and its ports.
    """

    def __init__(self, folder: Path, node: Node) -> None:
        self.node = node
        self.folder = folder / f"broker-{node.node_id}"
        self._settings = self.folder / "server.properties"
        self._pid_file = self.folder / "pid"
        self._logs = (self.folder / "broker.log", self.folder / "broker.out")
        self._sizes = [0, 0]  # Of the logs before this start

    @property
    def is_formatted(self) -> bool:
        """Whether it has data."""
        return self._meta.exists()

    @property
    def is_written(self) -> bool:
        """Whether it has settings."""
        return self._settings.exists()

    def pid(self) -> int | None:
        """The id of its process; None when it does not run, even if another process has the id now."""
        try:
            pid = int(self._pid_file.read_text())
        except (OSError, ValueError):
            return None
        told = process.command_line(pid)
        return pid if _MAIN in told and str(self._settings) in told else None

    def check_cluster(self, cluster_id: str) -> None:
        """Refuse the data of another cluster.

        Raises:
            DataFolderError: They are.
        """
        if not self.is_formatted:
            return
        lines = (line.partition("=") for line in self._meta.read_text(errors="replace").splitlines())
        theirs = next((value.strip() for key, _, value in lines if key.strip() == "cluster.id"), None)
        if theirs != cluster_id:
            raise DataFolderError(
                f"the data of broker {self.node.node_id} belong to the cluster {theirs}, not to {cluster_id}",
                str(self.folder / "data"),
                "move them away, or choose another folder with --dir",
            )

    def write(self, layout: Layout, more: Mapping[str, str]) -> None:
        """Write its settings.

        Raises:
            DataFolderError: Kafka would take the folder for two.
        """
        if "," in str(self.folder):
            raise DataFolderError(
                "Kafka keeps no data in a folder with a comma in its name",
                str(self.folder),
                "choose another with --dir",
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = properties.server_properties(layout, self.node, str(self.folder / "data"), more)
        # They may hold passwords.
        with os.fdopen(os.open(self._settings, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(properties.render(settings))
        (self.folder / "log4j2.properties").write_text(properties.log_properties())

    def format(self, distribution: Distribution, cluster_id: str) -> None:
        """Prepare its folder for data, once.

        Raises:
            TransportError: Kafka refuses.
        """
        if self.is_formatted:
            return
        command = distribution.command(
            "kafka.tools.StorageTool",
            *("format", "-t", cluster_id, "-c", str(self._settings)),
            options=("-Xmx128m", "-XX:TieredStopAtLevel=1", *self._log_options),
        )
        self._note_sizes()
        if process.call(command, self._logs[1], deadline_s=120) != 0:
            raise TransportError(f"Kafka did not format {self.folder / 'data'}", fix=self._last_lines())

    def spawn(self, distribution: Distribution, brokers: int) -> None:
        """Start its process."""
        self._note_sizes()
        options = (*properties.java_options(brokers), *self._log_options)
        pid = process.spawn(distribution.command(_MAIN, str(self._settings), options=options), self._logs[1])
        self._pid_file.write_text(f"{pid}\n")

    def send(self, number: signal.Signals) -> None:
        """Send a signal to its process, if that runs."""
        pid = self.pid()
        if pid is not None:
            process.send(pid, number)

    def forget(self) -> None:
        """Remove what tells of a process that has ended."""
        self._pid_file.unlink(missing_ok=True)

    def ended(self) -> TransportError:
        """The error that tells why it does not run."""
        return TransportError(
            f"broker {self.node.node_id} ended while it was starting", fix=self._last_lines()
        )

    def late(self, deadline_s: float) -> TransportError:
        """The error that tells why it does not answer."""
        fact = f"broker {self.node.node_id} does not answer on {self.node.address()} after {deadline_s:.0f} s"
        return TransportError(fact, fix=self._last_lines())

    @property
    def _meta(self) -> Path:
        return self.folder / "data" / "meta.properties"

    @property
    def _log_options(self) -> tuple[str, ...]:
        return (
            f"-Dlog4j2.configurationFile={self.folder / 'log4j2.properties'}",
            f"-Dkafka.log={self._logs[0]}",
        )

    def _note_sizes(self) -> None:
        self._sizes = [each.stat().st_size if each.exists() else 0 for each in self._logs]

    def _last_lines(self) -> str:
        """The last lines of the log since this start: of Kafka's own, else of what Java said."""
        for path, size in zip(self._logs, self._sizes, strict=True):
            if not path.exists():
                continue
            with path.open("rb") as file:
                file.seek(size)
                lines = file.read().decode(errors="replace").splitlines()
            # A stack trace has its reason in the first line.
            told = [
                line.strip() for line in lines if line.strip() and not line.startswith(("\tat ", "\t..."))
            ]
            if told:
                return "\n  ".join([f"{path} ends with", *(line[:500] for line in told[-_TAIL_LINES:])])
        return f"its log {self._logs[0]} says nothing"
