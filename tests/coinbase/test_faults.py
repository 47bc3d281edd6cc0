"""Every fault of the simulated exchange against the whole way in: socket, protocol, recording, engine."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from richter.adapters.coinbase.arrivals import Arrivals
from richter.adapters.coinbase.backoff import Backoff
from richter.adapters.coinbase.client import Client
from richter.adapters.recording.dead import DeadLetters
from richter.adapters.recording.writer import Recorder
from richter.config import Settings
from richter.protocol.advanced import AdvancedTrade
from richter.protocol.exchange import ExchangeFeed
from richter.protocol.feed import Deadlines, Feed
from richter.runtime.feeding import FeedWorker
from richter.runtime.live import LiveFeatures
from richter.runtime.warming import warm_up
from richter.simulate.faults import parse_fault
from richter.simulate.server import Limits, SimulatedExchange
from richter.simulate.sources import MarketSource
from tests.live_tools import check_run

LIMIT_S: Final = 40
SHORT = Deadlines(connect_s=2, ack_s=2, first_data_s=3, silence_s=2.5, mute_s=3.0, mute_spacings=5)
"""Heartbeats come each second: nothing can be judged much sooner."""


class Scene:
    """What a run against a faulty exchange left."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.counts: Any = None
        self.messages: list[str] = []
        self.account: Any = None
        self.served: Any = None

    @property
    def records(self) -> list[dict[str, Any]]:
        """Every recorded line."""
        paths = sorted((self.folder / "raw").glob("*.ndjson"))
        return [json.loads(line) for path in paths for line in path.read_bytes().splitlines()]

    @property
    def letters(self) -> list[dict[str, Any]]:
        """Every dead letter."""
        path = self.folder / "dead" / "live.ndjson"
        return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []

    @property
    def gaps(self) -> list[dict[str, Any]]:
        """The gaps recorded after the first."""
        return [record["gap_before"] for record in self.records[1:] if record["gap_before"]]

    @property
    def connections(self) -> list[str]:
        """Connections with a record, in order."""
        return list(dict.fromkeys(record["conn_id"] for record in self.records))


def play(
    folder: Path,
    *faults: str,
    until: Callable[[FeedWorker], bool],
    products: tuple[str, ...] = ("BTC-USD",),
    history_s: float = 120,
    exchange: bool = False,
) -> Scene:
    """Run against an exchange with these faults until something is reached."""
    scene = Scene(folder)
    settings = Settings(data_dir=folder, products=products, min_free_gib=0)

    async def act() -> None:
        source = MarketSource(("BTC-USD", "ETH-USD"), seed=5, preset="predictable", history_s=history_s)
        async with SimulatedExchange(
            source, faults=[parse_fault(text) for text in faults], limits=Limits(None, None)
        ) as server:
            arrivals = Arrivals()
            client = Client(server.exchange_url if exchange else server.url, arrivals, Backoff(lambda: 0.0))
            feed = Feed(ExchangeFeed() if exchange else AdvancedTrade(), products, SHORT)
            with (
                DeadLetters(folder / "dead" / "live.ndjson") as dead,
                Recorder(folder / "raw", min_free_bytes=0) as recorder,
                LiveFeatures(
                    settings, sync_recording=recorder.sync, on_letter=lambda letter: letter.to(dead)
                ) as live,
            ):
                worker = FeedWorker(server.url, arrivals, client, feed, recorder, dead, live)
                worker.status.messages = scene.messages  # type: ignore[assignment]  # it only appends
                thread = threading.Thread(target=worker.work)
                thread.start()
                running = asyncio.create_task(client.run())
                try:
                    async with asyncio.timeout(LIMIT_S):
                        while not until(worker):
                            await asyncio.sleep(0.02)
                finally:
                    client.stop()
                    await running
                    thread.join()
            scene.counts, scene.account, scene.served = feed.counts, live.pipeline.account, server.served

    asyncio.run(act())
    planned = Counter[str]()
    for text in faults:
        planned[parse_fault(text).kind] += parse_fault(text).times
    assert scene.served.faults == planned
    return scene


def connections(number: int, ticks: int = 3) -> Callable[[FeedWorker], bool]:
    """Until the n-th connection has brought ticks."""
    reached: list[int] = []

    def done(worker: FeedWorker) -> bool:
        if worker.status.connections >= number and not reached:
            reached.append(worker.status.recorded)
        return bool(reached) and worker.status.recorded >= reached[0] + ticks

    return done


def recorded(number: int) -> Callable[[FeedWorker], bool]:
    return lambda worker: worker.status.recorded >= number


def settled(scene: Scene) -> None:
    """What holds whatever goes wrong: the logs are the recording's, and gaps say where connections broke."""
    check_run(scene.folder, Settings(data_dir=scene.folder), dead=scene.account.dead)
    last: dict[str, int] = {}
    for record in scene.records:
        first = record["conn_id"] not in last
        if first and last:
            gap = record["gap_before"]
            assert gap["cause"] == "reconnect"
            assert gap["from"] is not None
            assert gap["from"] <= record["ts_event"]
        last[record["conn_id"]] = record["frame_no"]


@pytest.mark.parametrize(
    ("fault", "cause", "told"),
    [
        ("drop@20", None, "lost without a word"),
        ("close@20,code=1000", None, "closed with code 1000"),
        ("close@20,code=1013,reason=busy", None, "closed with code 1013: busy"),
        ("stall@20", "silence", "giving the connection up"),
        ("half_open@20", "silence", "giving the connection up"),
        ("mute@20", "mute", "giving the connection up (mute)"),
        ("huge@20", None, "1009"),
    ],
)
def test_a_connection_that_breaks_or_falls_silent_is_replaced_and_the_gap_recorded(
    tmp_path: Path, fault: str, cause: str | None, told: str
) -> None:
    scene = play(tmp_path, fault, until=connections(2), history_s=4)

    settled(scene)
    assert len(scene.connections) == 2
    assert [gap["cause"] for gap in scene.gaps] == ["reconnect"]
    assert scene.gaps[0]["missing"] is None
    assert any(told in message for message in scene.messages), scene.messages
    causes = [str(each) for each in scene.counts.reconnects.elements()]
    # The last heartbeat is older than the last byte: either may be missed first.
    assert ["silence" if each in ("no_bytes", "no_heartbeat") else each for each in causes] == (
        [cause] if cause else []
    )
    assert scene.counts.resubscribed == (cause == "mute")


@pytest.mark.parametrize(
    ("fault", "gaps", "counted"),
    [
        ("sequence_gap@50,frames=7", [7], {"gaps": 1, "missing": 7}),
        ("sequence_gap@50,times=3", [1, 1, 1], {"gaps": 3, "missing": 3}),
        ("reorder@50", [1], {"gaps": 1, "out_of_order": 1}),
        ("duplicate@50", [], {"duplicates": 1}),
        ("truncated@50", [1], {"dead": 1}),
        ("garbage@50", [], {"dead": 1}),
    ],
)
def test_a_frame_that_is_lost_late_doubled_or_broken_is_counted_and_the_connection_stays(
    tmp_path: Path, fault: str, gaps: list[int], counted: dict[str, int]
) -> None:
    scene = play(tmp_path, fault, until=recorded(200))

    settled(scene)
    assert len(scene.connections) == 1
    assert [gap["missing"] for gap in scene.gaps] == gaps
    assert {gap["cause"] for gap in scene.gaps} <= {"sequence"}
    assert {name: getattr(scene.counts, name) for name in counted} == counted
    assert len(scene.letters) == sum(counted.get(name, 0) for name in ("out_of_order", "duplicates", "dead"))


def test_a_clock_that_is_slow_is_no_fault_of_the_ticks(tmp_path: Path) -> None:
    scene = play(tmp_path, "clock@1,seconds=90", until=recorded(200))

    settled(scene)
    assert scene.letters == []
    assert scene.account.rows == len(scene.records)
    assert scene.account.segments == 0


def test_one_tick_ahead_of_its_time_is_recorded_and_makes_no_row(tmp_path: Path) -> None:
    # In real time: a served history has no clock to be ahead of.
    scene = play(tmp_path, "ahead@20,seconds=30", until=recorded(25), history_s=2)

    settled(scene)
    assert [letter["reason"] for letter in scene.letters] == ["stamped more than 2 s ahead"]
    assert scene.account.rows == len(scene.records) - 1


def test_refusals_are_waited_out(tmp_path: Path) -> None:
    scene = play(tmp_path, "too_many,connection=2", "drop@20", until=connections(2), history_s=4)

    settled(scene)
    assert any("429" in message for message in scene.messages)
    assert len(scene.connections) == 2


def test_an_exchange_that_is_away_is_tried_until_it_is_back(tmp_path: Path) -> None:
    scene = play(tmp_path, "refuse@20,seconds=1.5", until=connections(2), history_s=4)

    settled(scene)
    assert any("cannot reach" in message for message in scene.messages)
    assert [gap["cause"] for gap in scene.gaps] == ["reconnect"]


def test_a_product_left_out_of_the_acknowledgement_is_told_and_the_other_goes_on(tmp_path: Path) -> None:
    scene = play(tmp_path, "ack_without,product=ETH-USD", until=recorded(50), products=("BTC-USD", "ETH-USD"))

    settled(scene)
    assert any("ETH-USD" in message for message in scene.messages)
    assert {record["product_id"] for record in scene.records} == {"BTC-USD"}


def test_the_exchange_feed_is_recorded_as_well(tmp_path: Path) -> None:
    scene = play(tmp_path, "sequence_gap@80,frames=2", "drop@160", until=connections(2), exchange=True)

    settled(scene)
    assert [gap["cause"] for gap in scene.gaps] == ["sequence", "reconnect"]
    assert all(record["raw"]["type"] == "ticker" for record in scene.records)
    assert sum(record["event_type"] == "snapshot" for record in scene.records) == 2


def test_many_faults_at_once_lose_nothing_silently(tmp_path: Path) -> None:
    faults = [
        "sequence_gap@40,times=3",
        "duplicate@55,times=3",
        "reorder@70,times=2",
        "garbage@33,times=4",
        "drop@150",
        "close@150,connection=2",
        "drop@180,connection=3",
    ]

    scene = play(tmp_path, *faults, until=connections(4), products=("BTC-USD", "ETH-USD"), history_s=600)

    settled(scene)
    assert len(scene.connections) == 4


@pytest.fixture(autouse=True, scope="module")
def warm() -> None:
    """Compile first, as a run does: deadlines are short here."""
    warm_up(lambda text: None)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    import structlog

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    yield
    structlog.reset_defaults()
