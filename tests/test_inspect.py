"""What `richter inspect` says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from richter.cli.main import main
from richter.domain import ticks as tk
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
    assert product["bad_quotes"] == 1
    assert product["known"]["hour_of_day_phase"] == 1.0
    assert 0.3 < product["known"]["tau_rolling"] < 0.9
    assert len(product["mid"]) == len(product["tau"])
    assert np.isclose(product["median_spacing_s"], 0.7, atol=0.5)


def test_people_read_the_same(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["inspect", str(recording)])

    out = capsys.readouterr().out
    assert code == 0
    assert "1  duplicate ticks dropped" in out
    assert "1 reconnect; 1 silences" in out
    assert "tau_rolling" in out


def test_a_file_without_ticks_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "b.ndjson").write_bytes(b'{"a": 1}\n')

    code = main(["inspect", str(tmp_path / "b.ndjson")])

    assert code == 1
    assert "no readable tick in 1 lines" in capsys.readouterr().err
