"""A cluster of one or three brokers in a folder: start it, look at it, stop it."""

from __future__ import annotations

import base64
import fcntl
import os
import signal
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from richter.adapters.broker import probe, process
from richter.adapters.broker.distribution import obtain
from richter.adapters.broker.node import Broker
from richter.adapters.broker.properties import Layout, arrange
from richter.errors import ArgumentsError, DataFolderError, OperatorError

__all__ = ["Cluster", "ClusterStatus", "NodeStatus", "Stopped"]

PORT: Final = 9092
START_S: Final = 120.0
STOP_S: Final = 15.0

_KILL_S: Final = 10.0
_CLOSE_S: Final = 2.0


class NodeStatus(msgspec.Struct, frozen=True):
    """A broker: its process (None when it does not run), its memory in MiB, and whether it answers."""

    node_id: int
    address: str
    pid: int | None
    rss_mib: float | None
    answers: bool


class ClusterStatus(msgspec.Struct, frozen=True):
    """A cluster: its id (None in a folder where none was started yet) and its brokers."""

    cluster_id: str | None
    bootstrap_servers: str | None
    nodes: tuple[NodeStatus, ...] = ()

    @property
    def answers(self) -> bool:
        """Whether any broker does."""
        return any(node.answers for node in self.nodes)


class Stopped(msgspec.Struct, frozen=True):
    """A broker that was stopped; `killed` says that it had to be."""

    node_id: int
    pid: int
    killed: bool


def _quiet(_: str) -> None:
    """Say nothing."""


class Cluster:
    """A cluster whose processes, data and ports are remembered in a folder.

    Brokers outlive the process that starts them. They listen on 127.0.0.1 only.

    Args:
        folder: Made by the first start.
        tell: Called with a line of progress where something takes a while.
    """

    def __init__(self, folder: Path, tell: Callable[[str], object] = _quiet) -> None:
        self.folder = folder.resolve()
        self._tell = tell

    @property
    def layout(self) -> Layout | None:
        """The cluster's id and ports; None before the first start.

        Raises:
            DataFolderError: The file that remembers them cannot be read.
        """
        path = self._file
        try:
            return msgspec.json.decode(path.read_bytes(), type=Layout)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError) as error:
            raise DataFolderError(
                f"the file that remembers the Kafka cluster cannot be read ({error})",
                str(path),
                "choose another folder with --dir",
            ) from error

    @property
    def is_running(self) -> bool:
        """Whether any of its brokers has a process."""
        return any(broker.pid() is not None for broker in self._brokers())

    def addresses(self, listener: str | None = None) -> str:
        """Where clients begin: `host:port` of each broker, with commas between.

        Args:
            listener: A further listener's name; None is the one without encryption.
        """
        return self._known().addresses(listener)

    def start(
        self,
        brokers: int | None = None,
        port: int | None = None,
        *,
        listeners: Mapping[str, str] | None = None,
        settings: Mapping[str, str] | None = None,
        deadline_s: float = START_S,
    ) -> tuple[int, ...]:
        """Start the brokers that do not run, and wait until all answer.

        Args:
            brokers: 1 or 3; None is as many as at the first start, then 1.
            port: The first broker's; those of the others and of the controllers follow. 0 takes free ones. None is
                the last start's, or 9092.
            listeners: Further ones for clients: name and protocol, such as `{"SECURE": "SASL_SSL"}`.
            settings: Further settings of the brokers; they win over richter's.
            deadline_s: How long to wait.

        Returns:
            The nodes that were started, none when all ran already.

        Raises:
            OperatorError: A port is taken, the folder is another cluster's, or the arguments do not fit what is in it.
            TransportError: A broker does not start, or Kafka could not be fetched.
        """
        with self._alone():
            layout = self._arranged(brokers, port, listeners or {})
            members = [Broker(self.folder, node) for node in layout.nodes]
            for broker in members:
                broker.check_cluster(layout.cluster_id)
            waiting = [broker for broker in members if broker.pid() is None]
            if waiting:
                _refuse_taken(waiting)
                distribution = obtain(self._tell)
                self._remember(layout)
                for broker in waiting:
                    # Beside brokers that run, the settings stay those that these were started with.
                    if len(waiting) == len(members) or not broker.is_written:
                        broker.write(layout, settings or {})
                    broker.format(distribution, layout.cluster_id)
                self._launch(waiting, members, deadline_s)
            else:
                self._wait(members, members, deadline_s)
            return tuple(broker.node.node_id for broker in waiting)

    def start_node(self, node_id: int, deadline_s: float = START_S) -> None:
        """Start one broker as it was started last, and wait until it answers and knows of the others that run."""
        broker = self._broker(node_id)
        if broker.pid() is None:
            _refuse_taken([broker])
            others = [each for each in self._brokers() if each.pid() is not None]
            self._launch([broker], [broker, *others], deadline_s)

    def kill_node(self, node_id: int) -> None:
        """End one broker as a power cut would (SIGKILL), and wait until it is gone."""
        broker = self._broker(node_id)
        if broker.pid() is not None:
            broker.send(signal.SIGKILL)
            process.until(lambda: _is_gone(broker), _KILL_S)
            broker.forget()

    def stop(self, deadline_s: float = STOP_S) -> tuple[Stopped, ...]:
        """Stop the brokers that run: SIGTERM, and SIGKILL for what runs on after the deadline.

        No acknowledged record is lost by either. Of three brokers the last one cannot leave in good order, as it
        has nobody left to tell.
        """
        running = [(broker, pid) for broker in self._brokers() if (pid := broker.pid()) is not None]
        for broker, _ in running:
            broker.send(signal.SIGTERM)
        process.until(lambda: all(_is_gone(broker) for broker, _ in running), deadline_s)
        late = [broker for broker, _ in running if broker.pid() is not None]
        for broker in late:
            broker.send(signal.SIGKILL)
        process.until(lambda: all(_is_gone(broker) for broker in late), _KILL_S)
        for broker, _ in running:
            broker.forget()
        return tuple(Stopped(broker.node.node_id, pid, broker in late) for broker, pid in running)

    def status(self) -> ClusterStatus:
        """Look at every broker and ask those that run."""
        layout = self.layout
        if layout is None:
            return ClusterStatus(None, None)
        nodes = []
        for broker in self._brokers():
            pid = broker.pid()
            answer = None if pid is None else probe.ask(broker.node.address())
            nodes.append(
                NodeStatus(
                    broker.node.node_id,
                    broker.node.address(),
                    pid,
                    None if pid is None else process.resident_mib(pid),
                    answer is not None and answer.cluster_id == layout.cluster_id,
                )
            )
        return ClusterStatus(layout.cluster_id, layout.addresses(), tuple(nodes))

    @property
    def _file(self) -> Path:
        return self.folder / "cluster.json"

    def _known(self) -> Layout:
        layout = self.layout
        if layout is None:
            raise DataFolderError(
                "no Kafka cluster was started here yet", str(self.folder), "richter kafka up"
            )
        return layout

    def _brokers(self) -> list[Broker]:
        layout = self.layout
        return [Broker(self.folder, node) for node in layout.nodes] if layout else []

    def _broker(self, node_id: int) -> Broker:
        nodes = {node.node_id: node for node in self._known().nodes}
        if node_id not in nodes:
            raise ArgumentsError(
                "the cluster has no such broker", node_id, f"it has {', '.join(map(str, nodes))}"
            )
        return Broker(self.folder, nodes[node_id])

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Let one process at a time start brokers in the folder; a second one waits, and finds them started."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise DataFolderError(
                f"the folder for Kafka cannot be written to ({error.strerror})",
                str(self.folder),
                "choose another with --dir",
            ) from error
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._tell(f"Waiting for another process that starts brokers in {self.folder} …")
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _arranged(self, brokers: int | None, port: int | None, listeners: Mapping[str, str]) -> Layout:
        """The layout of this start: what is remembered, unless the arguments move it."""
        known = self.layout
        if known is None and any(self.folder.glob("broker-*/data/meta.properties")):
            raise DataFolderError(
                f"there are data of brokers, but {self._file.name} is missing, which tells whose they are",
                str(self.folder),
                "move them away, or choose another folder with --dir",
            )
        number = brokers or (len(known.nodes) if known else 1)
        if known and number != len(known.nodes):
            raise ArgumentsError(
                f"the folder holds a cluster of {len(known.nodes)}, which cannot become one of {number}",
                str(self.folder),
                "leave --brokers out, or choose another folder with --dir",
            )
        if known and self.is_running:
            _refuse_move(known, port)
            return known
        if known and port in (None, known.nodes[0].port) and dict(listeners) == known.protocols:
            return known
        needed = number * (2 + len(listeners))
        first = port if port is not None else known.nodes[0].port if known else PORT
        ports: Sequence[int] = probe.free_ports(needed) if port == 0 else range(first, first + needed)
        nodes = arrange(ports, number, list(listeners))
        return Layout(known.cluster_id if known else _new_id(), nodes, dict(listeners))

    def _remember(self, layout: Layout) -> None:
        new = self._file.with_suffix(".new")
        new.write_bytes(msgspec.json.format(msgspec.json.encode(layout)) + b"\n")
        new.replace(self._file)

    def _launch(self, waiting: list[Broker], members: list[Broker], deadline_s: float) -> None:
        distribution = obtain(self._tell)
        shown = ", ".join(f"broker {each.node.node_id} on {each.node.address()}" for each in waiting)
        self._tell(f"Starting {shown} …")
        try:
            for broker in waiting:
                broker.spawn(distribution, len(self._known().nodes))
            self._wait(waiting, members, deadline_s)
        except BaseException:
            # Ctrl+C too: what does not answer is not left behind.
            for broker in waiting:
                broker.send(signal.SIGKILL)
            raise

    def _wait(self, waiting: Collection[Broker], members: Collection[Broker], deadline_s: float) -> None:
        """Wait until each of these answers for itself and knows of all members."""
        cluster_id, wanted = self._known().cluster_id, {broker.node.node_id for broker in members}
        left = list(waiting)

        def all_answer() -> bool:
            for broker in left:
                if broker.pid() is None:
                    raise broker.ended()
            # Not asked before it listens: a client that was refused waits longer and longer.
            while left and probe.listens(left[0].node.port):
                answer = probe.ask(left[0].node.address())
                if answer is None or answer.cluster_id != cluster_id or not wanted <= answer.nodes:
                    break
                left.pop(0)
            return not left

        if not process.until(all_answer, deadline_s):
            raise left[0].late(deadline_s)


def _refuse_move(known: Layout, port: int | None) -> None:
    if port and port != known.nodes[0].port:
        raise ArgumentsError(
            f"the cluster runs already, on {known.addresses()}, and not on port {port}",
            fix="leave --port out, or stop it first with richter kafka down",
        )


def _is_gone(broker: Broker) -> bool:
    """Whether its process has ended and its ports are closed, which is a moment later."""
    return broker.pid() is None and all(map(probe.is_free, broker.node.ports))


def _refuse_taken(brokers: Collection[Broker]) -> None:
    for port in (port for broker in brokers for port in broker.node.ports):
        # A broker that was killed just now has not closed them yet.
        if not process.until(partial(probe.is_free, port), _CLOSE_S):
            why = probe.why_taken(port)
            raise OperatorError(f"port {port} {why}", fix="choose other ports with --port, 0 for free ones")


def _new_id() -> str:
    """A cluster id as Kafka makes them: 16 random bytes, without one that looks like an option of a program."""
    while True:
        made = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not made.startswith("-"):
            return made
