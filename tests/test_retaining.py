"""What is deleted by the settings, and what a run needs afterwards."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from richter.adapters.tables.features import parts_of
from richter.domain import ticks as tk
from richter.runtime.compare import compare_logs
from richter.runtime.replay import replay
from richter.runtime.retaining import retain
from tests.test_live import Life, settings_of, ticks_of

HOUR = 3600 * 10**9


@pytest.mark.parametrize("limit", [{"retention_days": 2 / 24}, {"max_gb": 0.004}])
def test_old_recordings_go_with_their_features_and_a_run_goes_on(
    tmp_path: Path, limit: dict[str, float]
) -> None:
    settings = settings_of(tmp_path)
    ticks = ticks_of(90, 20_000, 0.4)
    half = len(ticks) * 3 // 4
    life = Life(settings)
    for at in range(0, half, 50):
        life.take(ticks[at : min(at + 50, half)])
    life.end()
    segments = len(list((tmp_path / "raw").glob("*.ndjson")))
    parts = len(parts_of(tmp_path / "processed" / "features.parquet"))

    retain(msgspec.structs.replace(settings, **limit), ticks[half - 1][1][tk.TS_EVENT])
    life = Life(settings)
    life.take(ticks[half:])
    life.end()

    assert 4 < len(list((tmp_path / "raw").glob("*.ndjson"))) < segments
    left = parts_of(tmp_path / "processed" / "features.parquet")
    assert left[0].name == "part-000000.parquet"
    assert len(left) < parts
    assert not life.caught_up.warnings
    replay([str(tmp_path / "raw")], tmp_path / "again.parquet", settings)
    comparison = compare_logs(tmp_path / "again.parquet", tmp_path / "processed" / "features.parquet")
    assert comparison.same, comparison.difference
    assert comparison.compared > 1_000


def test_nothing_goes_without_a_limit(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    life = Life(settings)
    life.take(ticks_of(90, 2_000, 0.4))
    life.end()
    before = sorted(tmp_path.rglob("*"))

    retain(settings, 10**19)

    assert sorted(tmp_path.rglob("*")) == before
