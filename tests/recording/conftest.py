import itertools
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from richter.adapters.recording.events import EventKind, RecordingEvent
from richter.adapters.recording.writer import Recorder

SECOND = 1_000_000_000
START = 1_770_000_000 * SECOND  # 2026-02-02 02:40:00 UTC


class World:
    """A clock, a disk with some room, and everything the recording told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = START
        self.free = 10**12
        self.events: list[RecordingEvent] = []
        self.opened: list[Recorder] = []
        self._numbers = itertools.count()

    def recorder(self, **settings: object) -> Recorder:
        defaults = {
            "clock": lambda: self.now,
            "free_bytes": lambda: self.free,
            "on_event": self.events.append,
        }
        self.opened.append(Recorder(self.folder, **(defaults | settings)))  # type: ignore[arg-type]
        return self.opened[-1]

    def line(self, product_id: str = "BTC-USD", **fields: object) -> bytes:
        tick = {"n": next(self._numbers), "product_id": product_id, "ts_recv": self.now, "conn_id": "c1"}
        return msgspec.json.encode(tick | fields)

    def told(self, kind: EventKind) -> list[RecordingEvent]:
        return [event for event in self.events if event.kind is kind]

    def files(self, pattern: str = "*.ndjson") -> list[Path]:
        return sorted(self.folder.glob(pattern))

    def lines(self) -> list[bytes]:
        return [line for path in self.files() for line in path.read_bytes().splitlines()]


@pytest.fixture
def world(tmp_path: Path) -> World:
    folder = tmp_path / "data" / "raw"
    world = World(folder)
    yield world
    world.now += 3600 * SECOND
    world.free = 10**12
    for recorder in world.opened:
        recorder.close()


@pytest.fixture
def segment(tmp_path: Path) -> Callable[..., Path]:
    """Make an unsealed segment file as a killed run leaves it."""

    def make(content: bytes, start: str = "20260202_024000", symbol: str = "BTCUSD") -> Path:
        path = tmp_path / "data" / "raw" / f"ticks_{symbol}_{start}.ndjson"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    return make
