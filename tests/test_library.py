"""richter.features, richter.labels and richter.replay, as a notebook uses them."""

from __future__ import annotations

import json
import math
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from richter import features, labels, replay
from richter.adapters.tables.features import feature_schema
from richter.cli.main import main
from richter.errors import ConfigError, ExtraMissingError, InputFileError, SchemaMismatchError

SECOND = 10**9
START = datetime(2026, 1, 1)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """1,200 s of two products, two ticks a second each, in the course's record form."""
    random = np.random.default_rng(7)
    lines = []
    cents = {"BTC-USD": 9_000_000, "ETH-USD": 300_000}
    for i in range(2_400):
        for product in cents:
            cents[product] += int(random.integers(-50, 51))
            bid = cents[product] / 100
            record = {
                "timestamp": (START + timedelta(seconds=0.5 * i + 0.1)).isoformat(),
                "product_id": product,
                "price": f"{bid:.2f}",
                "volume_24h": f"{1000 + i}",
                "low_24h": "1",
                "high_24h": "100000",
                "best_bid": f"{bid:.2f}",
                "best_ask": f"{bid + 0.01:.2f}",
                "raw": {"type": "ticker", "product_id": product},
            }
            lines.append(json.dumps(record))
    path = tmp_path / "ticks.ndjson"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_frame_has_the_columns_and_the_bits_of_the_feature_log(recording: Path, tmp_path: Path) -> None:
    replay.replay(recording, tmp_path / "f.parquet", data_dir=tmp_path)

    computed = features.from_files(recording)
    read = features.read(tmp_path / "f.parquet")

    assert computed.columns == feature_schema().names
    assert len(computed) == 4_800
    for name in ("ts_event", "mid", *features.FEATURE_NAMES):
        assert computed[name].to_numpy().tobytes() == read[name].to_numpy().tobytes()


def test_labels_are_what_the_next_minute_brings(recording: Path) -> None:
    frame = features.from_files(recording)

    found = labels.from_features(frame)

    assert found["volatility_spike"].dtype == pl.Int8
    for product in ("BTC-USD", "ETH-USD"):
        rows = pl.col("product_id").cast(pl.String) == product
        one, label = frame.filter(rows), found.filter(rows)
        sigma = dict(
            zip((one["ts_event"] // SECOND).to_list(), one["realized_volatility_60s"].to_list(), strict=True)
        )
        for t, future in zip(label["ts_event"].to_list(), label["sigma_future"].to_list(), strict=True):
            end = -(-t // SECOND) + 60
            if end in sigma:  # a tick 0.1 s later makes it final
                assert future == sigma[end]
            else:
                assert math.isnan(future)
    known = found.filter(pl.col("volatility_spike").is_not_null())
    assert 0 < len(known) < len(found)
    assert (known["volatility_spike"] == (known["sigma_future"] >= known["tau"]).cast(pl.Int8)).all()
    unknown = found.filter(pl.col("volatility_spike").is_null())
    assert (unknown["sigma_future"].is_nan() | unknown["tau"].is_nan()).all()


def test_labels_of_a_log_are_those_of_its_frame(recording: Path, tmp_path: Path) -> None:
    replay.replay([recording], tmp_path / "f.parquet", data_dir=tmp_path)

    from_log = labels.from_features(tmp_path / "f.parquet")

    expected = labels.from_features(features.from_files(recording))
    for name in ("sigma_future", "tau"):
        assert from_log[name].to_numpy().tobytes() == expected[name].to_numpy().tobytes()


def test_each_row_is_labelled_by_its_own_staleness(recording: Path) -> None:
    frame = features.from_files(recording).filter(pl.col("product_id").cast(pl.String) == "BTC-USD")
    holed = frame.filter((pl.col("frame_no") < 2_000) | (pl.col("frame_no") > 2_040))  # about 10 s
    half = len(holed) // 4
    limits = np.where(np.arange(len(holed)) < half, 60.0, 2.0)

    mixed = labels.from_features(holed.with_columns(stale_after_s=limits))

    strict = labels.from_features(holed.with_columns(stale_after_s=pl.lit(2.0)))
    loose = labels.from_features(holed.with_columns(stale_after_s=pl.lit(60.0)))
    assert strict["sigma_future"].is_nan().sum() > loose["sigma_future"].is_nan().sum()
    assert mixed["sigma_future"][:half].equals(loose["sigma_future"][:half])
    assert mixed["sigma_future"][half:].equals(strict["sigma_future"][half:])


def test_replays_compare_and_have_digests(recording: Path, tmp_path: Path) -> None:
    replay.replay(recording, tmp_path / "a.parquet", data_dir=tmp_path)

    done = replay.replay(
        recording, tmp_path / "b.parquet", compare=tmp_path / "a.parquet", data_dir=tmp_path, workers=2
    )

    assert done.comparison is not None
    assert done.comparison.same
    assert replay.compare(tmp_path / "b.parquet", tmp_path / "a.parquet").compared == 4_800
    assert replay.digest(tmp_path / "a.parquet") == done.digests
    assert set(done.digests) == {"BTC-USD", "ETH-USD"}


def test_settings_files_do_not_reach_the_library(recording: Path, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("stale_after_s: 3\n")

    frame = features.from_files(recording)

    assert frame["stale_after_s"].unique().to_list() == [10.0]


def test_what_cannot_be_is_told(recording: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="seconds from 1 to 60"):
        features.from_files(recording, stale_after_s=99)
    with pytest.raises(ConfigError, match="price_decimals"):
        replay.replay(recording, tmp_path / "f.parquet", price_decimals={"BTC-USD": 99})
    with pytest.raises(InputFileError):
        features.from_files(tmp_path / "none.ndjson")
    with pytest.raises(InputFileError):
        features.read(tmp_path / "none.parquet")
    with pytest.raises(SchemaMismatchError, match="mid"):
        labels.from_features(pl.DataFrame({"ts_event": [1]}))


def test_pandas_frames_hold_the_same_bits(recording: Path, tmp_path: Path) -> None:
    replay.replay(recording, tmp_path / "f.parquet", data_dir=tmp_path)

    computed = features.from_files(recording, frame="pandas")
    read = features.read(tmp_path / "f.parquet", frame="pandas")

    expected = features.from_files(recording)
    for frame in (computed, read):
        assert list(frame.columns) == expected.columns
        assert frame["product_id"].astype(str).tolist() == expected["product_id"].to_list()
        for name in ("ts_event", "mid", *features.FEATURE_NAMES):
            assert frame[name].to_numpy().tobytes() == expected[name].to_numpy().tobytes()


def test_a_pandas_frame_gets_the_same_labels_in_a_pandas_frame(recording: Path) -> None:
    expected = labels.from_features(features.from_files(recording))

    found = labels.from_features(features.from_files(recording, frame="pandas"))

    assert list(found.columns) == expected.columns
    for name in ("ts_event", "sigma_future", "tau"):
        assert found[name].to_numpy().tobytes() == expected[name].to_numpy().tobytes()
    spikes = expected["volatility_spike"]
    assert found["volatility_spike"].isna().tolist() == spikes.is_null().to_list()
    assert found["volatility_spike"].dropna().astype(int).tolist() == spikes.drop_nulls().to_list()


def test_a_recording_without_ticks_gives_no_rows(tmp_path: Path) -> None:
    (tmp_path / "none.ndjson").write_text('{"type": "subscriptions"}\n')

    frame = features.from_files(tmp_path / "none.ndjson")

    assert frame.columns == feature_schema().names
    assert len(frame) == 0


def test_pandas_is_asked_for_where_it_is_absent(recording: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "find_spec", lambda name: None)

    with pytest.raises(ExtraMissingError, match=r"richter\[pandas\]"):
        features.from_files(recording, frame="pandas")


def test_the_command_lists_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["features", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert main(["features"]) == 0
    out = capsys.readouterr().out

    assert told["schema_id"] == features.schema_id()
    assert [each["name"] for each in told["features"]] == list(features.FEATURE_NAMES)
    assert all(name in out for name in features.FEATURE_NAMES)
