"""From a socket's arrivals to the recording: what the protocol object says is done here, in order.

One thread works on the arrivals; the thread that reads the socket never waits for it. A frame's lines are recorded
before anyone else sees them.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

import msgspec
import structlog

from richter.adapters.coinbase.arrivals import Arrival, Arrivals, What
from richter.adapters.recording.dead import DeadLetters
from richter.adapters.recording.writer import Recorder, RecorderState
from richter.domain.ticks import Ns
from richter.protocol.feed import Action, Dead, Feed, FeedState, Moved, Reconnect, Record, Send, Warn

__all__ = ["FeedStatus", "FeedWorker", "Sink", "Socket"]

TICK_NS: Final = 1_000_000_000
STOPPED: Final = "stopped"
MESSAGES: Final = 8


class Socket(Protocol):
    """What the worker asks of the socket's thread; from any thread."""

    def send(self, conn_id: str, text: str) -> None:
        """Send a frame on a connection, while it is there."""

    def drop(self, conn_id: str) -> None:
        """Give a connection up at once."""

    def note_live(self, live: bool, now: Ns) -> None:
        """Say whether data flow."""


class Sink(Protocol):
    """Who works on what is recorded."""

    def take(self, lines: bytes, source: str, now: Ns) -> None:
        """Take recorded lines."""

    def tick(self, now: Ns) -> None:
        """Do what is due."""

    @property
    def trouble(self) -> str:
        """Why nothing is worked on; empty while all is well."""


class FeedStatus(msgspec.Struct):
    """The feed as a person wants to see it; written by the worker, read by anyone.

    Attributes:
        state: of the protocol object.
        conn_id: the connection.
        connections: opened so far.
        recorded: lines.
        recorded_bytes: of them.
        recorder: its state, and why it is degraded.
        unrecorded: lines that the disk refused.
        lost_frames: that found no room in the queue.
        waiting_bytes: in the queue.
        features: why there are none at the moment; empty while all is well.
        trouble: the last thing that went wrong.
        messages: the last things worth telling, newest last.
    """

    state: FeedState = FeedState.CLOSED
    conn_id: str = ""
    connections: int = 0
    recorded: int = 0
    recorded_bytes: int = 0
    recorder: str = RecorderState.RECORDING.value
    unrecorded: int = 0
    lost_frames: int = 0
    waiting_bytes: int = 0
    features: str = ""
    trouble: str = ""
    messages: deque[str] = msgspec.field(default_factory=lambda: deque(maxlen=MESSAGES))


class FeedWorker:
    """Works on the arrivals of one socket until it says that it has stopped.

    Args:
        url: of the feed, for messages.
        arrivals: what happens on the socket.
        socket: takes what the protocol object wants sent or given up.
        feed: the protocol object.
        recorder: the recording.
        dead: frames that cannot be used.
        sink: works on what is recorded; None only records.
        monotonic: ns.
    """

    def __init__(
        self,
        url: str,
        arrivals: Arrivals,
        socket: Socket,
        feed: Feed,
        recorder: Recorder,
        dead: DeadLetters,
        sink: Sink | None,
        *,
        monotonic: Callable[[], Ns] = time.monotonic_ns,
    ) -> None:
        self.url = url
        self._arrivals = arrivals
        self._socket = socket
        self.feed = feed
        self._recorder = recorder
        self._dead = dead
        self._sink = sink
        self._monotonic = monotonic
        self._lines: list[bytes] = []
        self._ticked: Ns = 0
        self._log = structlog.get_logger("richter.feed")
        self.status = FeedStatus()

    def work(self) -> None:
        """Work until the socket has stopped and everything before that is done."""
        while self.step():
            pass

    def step(self) -> bool:
        """Wait for arrivals, at most until something is due, and do what they say.

        Returns:
            Whether to go on: the socket has not stopped.
        """
        now = self._monotonic()
        due = min(self.feed.deadline() or now + TICK_NS, self._ticked + TICK_NS)
        batch = self._arrivals.take(max(0.0, (due - now) / 1e9))
        stopped = False
        for arrival in batch:
            stopped |= arrival.what is What.STOPPED
            self._arrive(arrival)
        self._hand_on()
        now = self._monotonic()
        if not self._arrivals.waiting_bytes:  # What came in time must not be judged by when it is worked on.
            self._do(self.feed.wake(now))
            self._hand_on()
        if now - self._ticked >= TICK_NS:
            self.tick(now)
        return not stopped

    def tick(self, now: Ns) -> None:
        """What is due about once a second."""
        self._ticked = now
        self._recorder.tick()
        try:
            self._dead.sync()
        except OSError as error:
            self._tell("error", "dead_letters", f"the dead letters cannot be put on disk ({error.strerror})")
        if self._sink is not None:
            self._sink.tick(now)
            self.status.features = self._sink.trouble
        self._socket.note_live(self.feed.state in (FeedState.LIVE, FeedState.QUIET), now)
        status = self.status
        status.recorder = self._recorder.state.value + (
            f": {self._recorder.reason}" if self._recorder.reason else ""
        )
        status.unrecorded = sum(self._recorder.lost.values())
        status.lost_frames = self._arrivals.lost_frames
        status.waiting_bytes = self._arrivals.waiting_bytes

    def _arrive(self, arrival: Arrival) -> None:
        at, feed = arrival.at, self.feed
        if arrival.what is What.FRAME:
            self._do(feed.receive(arrival.data, arrival.ts_recv, at))
        elif arrival.what is What.LOST:
            feed.lost(arrival.frames, at)
            self._tell("warning", "frames_lost", f"{arrival.frames} frames found no room in the queue")
        elif arrival.what is What.CONNECTING:
            self._do(feed.connect(arrival.conn_id, at))
        elif arrival.what is What.OPENED:
            self.status.connections += 1
            self.status.conn_id = arrival.conn_id
            self._tell("info", "connected", f"WebSocket connected to {self.url}")
            if feed.conn_id != arrival.conn_id:
                self._do(feed.connect(arrival.conn_id, at))
            self._do(feed.opened(at))
        elif arrival.what is What.CLOSED:
            self._do(feed.closed(arrival.data.decode(), at))
            self._tell("warning", "disconnected", f"the connection ended: {arrival.data.decode()}")
        elif arrival.what is What.FAILED:
            self._do(feed.closed(arrival.data.decode(), at))
            self._tell(
                "warning",
                "unreachable",
                f"cannot reach {self.url}: {arrival.data.decode()}; offline? `richter demo`",
            )

    def _do(self, actions: list[Action]) -> None:
        records: dict[str, list[Record]] = {}
        for action in actions:
            if isinstance(action, Record):
                records.setdefault(action.product_id, []).append(action)
            elif isinstance(action, Send):
                self._socket.send(self.status.conn_id, action.data)
            elif isinstance(action, Dead):
                self._dead.add(action.reason, action.data, source=self.feed.conn_id or self.url)
            elif isinstance(action, Moved):
                self.status.state = action.state
                self._log.info("feed", state=action.state.value, text=action.text, conn_id=self.feed.conn_id)
            elif isinstance(action, Warn):
                self._tell("warning", action.kind, action.text)
            elif isinstance(action, Reconnect):
                self._tell(
                    "warning", "reconnect", f"giving the connection up ({action.cause.value}): {action.text}"
                )
                self._socket.drop(self.status.conn_id)
        for product, own in records.items():
            lines = [record.line for record in own]
            last = own[-1]
            position = self._recorder.append(
                product, lines, ts_recv=last.ts_recv, ts_event=last.ts_event, conn_id=self.feed.conn_id
            )
            if position is None:
                self.feed.not_recorded(product)
                continue
            self.status.recorded += len(lines)
            self.status.recorded_bytes += sum(map(len, lines))
            self._lines += lines

    def _hand_on(self) -> None:
        """Let the sink see what was recorded."""
        if self._lines:
            if self._sink is not None:
                self._sink.take(b"".join(self._lines), self.status.conn_id, self._monotonic())
            self._lines.clear()

    def _tell(self, level: str, event: str, text: str) -> None:
        getattr(self._log, level)(event, text=text, conn_id=self.status.conn_id)
        self.status.messages.append(text)
        if level != "info" and not text.endswith(STOPPED):
            self.status.trouble = text
