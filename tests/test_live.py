"""Live features: whatever cuts a run off, its logs become those of a replay of the recording."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from richter.adapters.alerts.log import AlertLog
from richter.adapters.recording.reader import expand
from richter.adapters.recording.recovery import recover
from richter.adapters.recording.writer import Recorder
from richter.adapters.tables.features import read_features
from richter.adapters.tables.parts import PartWriter
from richter.config import Settings
from richter.domain import ticks as tk
from richter.errors import DataFolderError
from richter.models.alert_log import Alert, decode_alert
from richter.runtime.alerting import AlertRun
from richter.runtime.catching_up import CaughtUp
from richter.runtime.live import LiveFeatures
from richter.runtime.pipeline import Letter, Pipeline
from richter.runtime.replay import replay
from richter.runtime.steady import SteadyFeatures
from tests.engine_tools import offsets
from tests.streams import EVERYTHING, quiet_and_busy_stream
from tests.test_parallel import line

PRODUCTS = ("BTC-USD", "ETH-USD")


Ticks = list[tuple[str, list[int], bytes]]
"""Product, columns and line of each tick."""


class Life:
    """A run on a data folder, from its start to whatever ends it."""

    def __init__(self, settings: Settings, on_letter: Callable[[Letter], None] = lambda letter: None) -> None:
        self.clock = 0
        raw = settings.data_dir / "raw"
        recover(raw, sync=lambda fd: None)
        self.recorder = Recorder(raw, rotate_s=900, min_free_bytes=0, sync=lambda fd: None)
        self.live = LiveFeatures(settings, sync_recording=self.recorder.sync, on_letter=on_letter)
        self.caught_up = self.live.catch_up()

    def record(self, ticks: Ticks) -> bytes:
        """Record some ticks."""
        for product, row, text in ticks:
            self.recorder.append(
                product,
                [text],
                ts_recv=row[tk.TS_RECV],
                ts_event=row[tk.TS_EVENT],
                conn_id=f"conn-{row[tk.CONN]}" if row[tk.CONN] >= 0 else f"late-{-1 - row[tk.CONN]}",
            )
        return b"".join(text for _, _, text in ticks)

    def take(self, ticks: Ticks) -> None:
        """Record some ticks and hand them on, as one batch."""
        self.clock += 40 * 10**9
        self.live.take(self.record(ticks), "test", self.clock)
        self.live.tick(self.clock)

    def end(self) -> CaughtUp:
        """End in order."""
        self.live.flush()
        self.live.alerts.close()
        self.recorder.close()
        return self.caught_up


def ticks_of(seed: int, seconds: float, rate: float) -> Ticks:
    """Ticks of two products, in the order of a feed; all with a receive time, none doubled."""
    odd = EVERYTHING | {"duplicate": 0.0, "no_recv": 0.0, "hole": 0.002, "far_backward": 0.0, "clock": 0.0002}
    merged = []
    for number, product in enumerate(PRODUCTS):
        stream = quiet_and_busy_stream(seed + number, seconds, rate, **odd, longest_hole_s=500)
        stream[:, tk.CONN] += 1000 * number
        offset = offsets(stream)
        # A stream's own order stays: it is that of its frames.
        for row, arrived in zip(stream.tolist(), np.maximum.accumulate(stream[:, tk.TS_RECV]), strict=True):
            record = json.loads(line(row, product)) | {"conn_offset": offset[row[tk.CONN]]}
            merged.append((int(arrived), (product, row, json.dumps(record).encode() + b"\n")))
    return [tick for _, tick in sorted(merged, key=lambda pair: pair[0])]


def settings_of(folder: Path) -> Settings:
    return Settings(data_dir=folder, alert_cooldown_s=20, alert_budget_per_hour=2)


def check(folder: Path, settings: Settings) -> int:
    """The logs are those of an uninterrupted replay of the recording; returns the number of alerts."""
    alerting = AlertRun(settings)
    again = folder / "again.parquet"
    done = replay(
        [str(folder / "raw")],
        again,
        settings,
        compare=folder / "processed" / "features.parquet",
        on_rows=alerting.take,
    )
    assert done.comparison is not None
    assert done.comparison.same, done.comparison.difference
    for product in done.comparison.products.values():
        outside = (product.live_before, product.live_after, product.replayed_before, product.replayed_after)
        assert outside == (0, 0, 0, 0)
        assert product.warm_up == 0
    alerting.finish(folder / "alerts" / "expected.ndjson")

    def by_product(name: str) -> dict[str, list[bytes]]:
        lines = (folder / "alerts" / name).read_bytes().splitlines()
        return {p: [text for text in lines if decode_alert(text).product_id == p] for p in PRODUCTS}

    assert by_product("alerts.ndjson") == by_product("expected.ndjson")
    return sum(map(len, by_product("alerts.ndjson").values()))


def test_a_run_and_its_replay_are_the_same(tmp_path: Path) -> None:
    ticks = ticks_of(60, 6000, 0.6)
    settings = settings_of(tmp_path / "data")
    life = Life(settings)

    for at in range(0, len(ticks), 37):
        life.take(ticks[at : at + 37])
    life.end()

    assert check(tmp_path / "data", settings) > 4


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_run_killed_at_random_moments_goes_on_without_a_lost_or_doubled_row(
    tmp_path: Path, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    ticks = ticks_of(60 + 10 * seed, 7000, 0.5)
    folder = tmp_path / "0"
    life = Life(settings_of(folder))
    kills = set(rng.choice(len(ticks) // 23, 12, replace=False).tolist())
    looked_back = added = 0
    for number, at in enumerate(range(0, len(ticks), 23)):
        batch = ticks[at : at + 23]
        if number in kills:
            # What is on disk at this moment is what a killed process leaves: some lines of the batch are recorded,
            # and nothing of it was handed on.
            done = int(rng.integers(0, 23))
            life.record(batch[:done])
            batch = batch[done:]
            left = folder
            folder = tmp_path / str(number + 1)
            shutil.copytree(left, folder)
            if rng.random() < 0.5:
                torn = max((folder / "raw").glob("*.ndjson"))
                torn.write_bytes(torn.read_bytes() + b'{"timestamp": "20')
            if rng.random() < 0.5 and (folder / "alerts" / "alerts.ndjson").exists():
                with (folder / "alerts" / "alerts.ndjson").open("ab") as log:
                    log.write(b'{"alert_id": "x')
            life.end()
            life = Life(settings_of(folder))
            assert not life.caught_up.warnings
            looked_back += life.caught_up.looked_back
            added += life.caught_up.added
        life.take(batch)
    life.end()

    assert check(folder, settings_of(folder)) > 4
    assert looked_back > 100
    assert added > 100


def test_forgetting_where_the_log_ends_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = ticks_of(60, 6000, 0.6)
    settings = settings_of(tmp_path / "data")
    life = Life(settings)
    life.take(ticks[:2000])
    life.end()
    monkeypatch.setattr("richter.runtime.catching_up.LOOK_BACK_NS", 600 * 10**9)

    life = Life(settings)
    life.take(ticks[2000:])
    life.end()

    with pytest.raises(AssertionError):
        check(tmp_path / "data", settings)


def test_a_new_folder_starts_with_nothing(tmp_path: Path) -> None:
    life = Life(settings_of(tmp_path))

    assert life.end() == CaughtUp()
    assert list(read_features(tmp_path / "processed" / "features.parquet")) == []


@pytest.mark.parametrize("same", [True, False])
def test_a_run_whose_recording_was_archived_begins_a_new_one(tmp_path: Path, same: bool) -> None:
    settings = settings_of(tmp_path)
    ticks = ticks_of(60, 4000, 0.6)
    life = Life(settings)
    life.take(ticks[:1500])
    life.end()
    archive = tmp_path / "archive"
    archive.mkdir()
    # The manifests stay, as with the globs of the course.
    for path in (tmp_path / "raw").glob("*.ndjson"):
        path.rename(archive / path.name)
    if not same:
        rename = [(product, row, text.replace(b'"conn-', b'"late-')) for product, row, text in ticks]
        ticks = [
            (product, [*row[: tk.CONN], -1 - row[tk.CONN], *row[tk.CONN + 1 :]], t)
            for product, row, t in rename
        ]
    life = Life(settings)
    life.record(ticks[1500:3000])  # Recorded and not handed on: then it was killed.
    life.live.abandon()
    life.recorder.close()

    life = Life(settings)
    life.take(ticks[3000:])
    done = life.end()

    assert done.added >= 1400
    # Where the same connection goes on, the place is found all the same.
    assert len(done.warnings) == (0 if same else 2)
    assert all("is not in the recording any more" in warning for warning in done.warnings)
    rows = sum(map(len, read_features(tmp_path / "processed" / "features.parquet")))
    assert rows > 0.98 * len(ticks)


def test_a_clock_set_back_hides_nothing_that_was_recorded(tmp_path: Path) -> None:
    settings = settings_of(tmp_path / "data")
    ticks = ticks_of(60, 6000, 0.6)
    earlier = [
        (product, [*row[: tk.CONN], row[tk.CONN] + 5000, *row[tk.CONN + 1 :]], text)
        for product, row, text in ticks_of(160, 5000, 0.6)
    ]
    shift = 8 * 3600 * 10**9
    moved = []
    for product, row, text in earlier:
        record = json.loads(text)
        record["ts_event"] -= shift
        record["ts_recv"] -= shift
        record["conn_id"] = f"conn-{row[tk.CONN]}"
        row[tk.TS_EVENT], row[tk.TS_RECV] = record["ts_event"], record["ts_recv"]
        moved.append((product, row, json.dumps(record).encode() + b"\n"))
    life = Life(settings)
    life.take(ticks[:3000])
    life.end()
    life = Life(settings)
    life.record(moved[:2000])
    life.live.abandon()
    life.recorder.close()

    life = Life(settings)
    life.take(moved[2000:])
    life.end()

    assert life.caught_up.warnings == []
    assert life.caught_up.added > 1900
    check(tmp_path / "data", settings)


def test_alerts_that_the_disk_refuses_come_from_the_recording_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(tmp_path / "data")
    ticks = ticks_of(60, 6000, 0.6)
    full = [False]
    append, finish = AlertLog.append, PartWriter.finish

    def refusing(log: AlertLog, alert: Alert) -> None:
        if full[0]:
            raise DataFolderError("no room", "alerts")
        append(log, alert)

    def refused(part: PartWriter) -> None:
        if full[0]:
            raise DataFolderError("no room", "features")
        finish(part)

    monkeypatch.setattr(AlertLog, "append", refusing)
    monkeypatch.setattr(PartWriter, "finish", refused)
    life = Life(settings)
    life.live.abandon()
    steady = SteadyFeatures(lambda: LiveFeatures(settings, sync_recording=life.recorder.sync))
    steady.start()
    clock, paused = 0, 0
    for number, at in enumerate(range(0, len(ticks), 40)):
        full[0] = 20 <= number < 60 or 90 <= number < 100
        clock += 12 * 10**9
        steady.take(life.record(ticks[at : at + 40]), "test", clock)
        steady.tick(clock)
        paused += bool(steady.trouble)
    with steady:
        assert steady.trouble == ""
    assert steady.rows == sum(map(len, read_features(tmp_path / "data" / "processed" / "features.parquet")))
    life.recorder.close()

    assert paused > 30
    assert check(tmp_path / "data", settings) > 4


def test_a_start_tells_of_no_letter_twice(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    ticks = ticks_of(60, 3000, 0.6)
    letters: list[Letter] = []
    life = Life(settings, letters.append)
    life.take(ticks[:1500])
    life.end()
    first = len(letters)
    life = Life(settings, letters.append)
    again = len(letters)
    life.record(ticks[1500:])
    life.live.abandon()
    life.recorder.close()

    Life(settings, letters.append).end()

    assert first == again > 3
    replayed: list[Letter] = []
    for _ in Pipeline(settings, on_letter=replayed.append).run(expand([str(tmp_path / "raw")])):
        pass
    assert sorted(letter.data for letter in letters) == sorted(letter.data for letter in replayed)


def test_a_run_goes_on_when_its_recording_is_gone(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    ticks = ticks_of(60, 2000, 0.6)
    life = Life(settings)
    life.take(ticks[:500])
    life.end()
    shutil.rmtree(tmp_path / "raw")

    life = Life(settings)
    life.take(ticks[500:])
    life.end()

    rows = sum(map(len, read_features(tmp_path / "processed" / "features.parquet")))
    assert rows > 0.95 * len(ticks)
