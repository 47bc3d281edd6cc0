"""What `richter inspect` says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from richter.cli.main import main
from richter.domain import ticks as tk
from richter.runtime import inspecting
from tests.streams import quiet_and_busy_stream
from tests.test_parallel import line


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    ticks = quiet_and_busy_stream(81, 2_000, 1.0)
    ticks[1000:, [tk.TS_EVENT, tk.TS_RECV]] += 100 * 10**9
    ticks[1500, tk.GAP_CAUSE] = tk.GapCause.RECONNECT
    ticks[300, tk.BID] = 0
    lines = [line(row, "BTC-USD") for row in ticks.tolist()]
    path = tmp_path / "a.ndjson"
    path.write_bytes(b"".join([*lines, lines[7], b"garbage\n"]))
    return path


def test_it_counts_what_is_there(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["inspect", str(recording), "--json"])

    found = json.loads(capsys.readouterr().out)["inspection"]
    product = found["products"]["BTC-USD"]
    assert code == 0
    assert product["ticks"] == found["account"]["rows"]
    assert found["account"]["duplicates"] == 1
    assert found["account"]["dead"] == {"not JSON": 1}
    assert product["gaps"] == {"reconnect": 1}
    assert product["silences"][0]["seconds"] > 100
    assert product["duplicates"] == 1
    quotes = product["quotes"]
    assert quotes["zero"] == 1
    assert quotes["good"] + quotes["zero"] == product["ticks"]
    assert [letter["reason"] for letter in found["unreadable"]] == ["not JSON"]
    assert product["known"]["hour_of_day_phase"] == 1.0
    assert 0.3 < product["known"]["tau_rolling"] < 0.9
    assert len(product["mid"]) == len(product["tau"])
    assert np.isclose(product["median_spacing_s"], 0.7, atol=0.5)


def test_people_read_the_same(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["inspect", str(recording)])

    out = capsys.readouterr().out
    assert code == 0
    assert "1  duplicate ticks dropped" in out
    assert "1 reconnect; 1 silence over 10 s" in out
    assert "1 zero" in out
    assert f"{recording}:2109: not JSON: 'garbage'" in out
    assert "tau_rolling" in out


def test_a_file_without_ticks_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "b.ndjson").write_bytes(b'{"a": 1}\n')

    code = main(["inspect", str(tmp_path / "b.ndjson")])

    assert code == 1
    assert "no readable tick in 1 lines" in capsys.readouterr().err


@pytest.mark.parametrize("size", [1, 7, 500])
def test_a_plots_points_are_the_last_and_largest_of_equal_runs(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspecting, "_POINTS", 16)
    values = np.random.default_rng(0).random(331)
    last, largest = inspecting._Series(inspecting._last), inspecting._Series(inspecting._largest)

    for at in range(0, len(values), size):
        last.add(values[at : at + size])
        largest.add(values[at : at + size])

    runs = [values[at : at + 32] for at in range(0, len(values), 32)]
    assert last.points() == [run[-1] for run in runs]
    assert largest.points() == [run.max() for run in runs]


def test_the_states_of_a_quote_are_told_apart() -> None:
    ticks = np.ones((6, tk.TICK_COLUMNS), np.int64)
    ticks[:, [tk.BID, tk.ASK, tk.PRICE]] = [
        (5, 6, 5),
        (5, 6, 7),
        (tk.UNKNOWN, 6, 5),
        (0, 6, 5),
        (7, 6, 5),
        (5, 5, tk.UNKNOWN),
    ]
    quotes = inspecting.Quotes()

    quotes.add(ticks)

    assert quotes == inspecting.Quotes(good=3, empty=1, zero=1, crossed=1, price_outside=1)
