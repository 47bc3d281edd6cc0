"""`richter demo`, on twenty minutes of history and two seconds of real time."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from richter.cli.main import main
from richter.cli.replay import CHECKS

SHORT = ("--hours", "0.3333", "--minutes", "0.03")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["demo", *SHORT, *arguments, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)["demo"]
    return found


def recording(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted((folder / "data/demo/raw").glob("*.ndjson")))


def test_it_says_what_it_did(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["demo", *SHORT])

    out, err = capsys.readouterr()
    assert code == 0
    assert out.startswith("SIMULATED market (0.3333 h of history, preset realistic, seed 7)")
    assert "SIMULATED" in err
    assert "\n".join(CHECKS) in out
    assert "BTC-USD: 60 s volatility (bars, peak " in out
    assert "tau_rolling               unknown" in out or "tau_rolling               0.0" in out
    assert "richter inspect data/demo/raw" in out


def test_the_commands_that_it_proposes_work(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["demo", *SHORT])
    (folder / "two files.ndjson").write_bytes(recording(folder))
    main(["demo", "--raw", "two files.ndjson", "--raw", "data/demo/raw/*.ndjson"])
    proposed = capsys.readouterr().out.rpartition("Next:\n")[2].splitlines()[:2]

    codes = [main(shlex.split(line)[1:]) for line in proposed]

    assert codes == [0, 0]
    assert "\n".join(CHECKS) in capsys.readouterr().out


def prices(folder: Path) -> list[tuple[str, str]]:
    """Quotes of the first thousand ticks."""
    records = [json.loads(line) for line in recording(folder).splitlines()[:1000]]
    return [(record["best_bid"], record["best_ask"]) for record in records]


def test_a_seed_is_a_market_and_another_one_another(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seen = []
    for seed in ("7", "7", "8"):
        demo = answer(capsys, "--seed", seed)
        assert demo["replayed"]["comparison"]["difference"] is None
        seen.append(prices(folder))

    # The clock's time at the start decides how much of the first second there is.
    assert len(set(seen[0]) & set(seen[1])) > 0.9 * len(set(seen[0]))
    assert len(set(seen[0]) & set(seen[2])) < 0.1 * len(set(seen[0]))


def test_the_live_run_is_what_was_replayed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    demo = answer(capsys)

    assert demo["ran"]["connections"] == 1
    assert demo["ran"]["rows"] == demo["ran"]["recorded"] == demo["replayed"]["account"]["rows"] > 1_000
    assert demo["ran"]["dead"] == {}
    assert demo["replayed"]["comparison"]["products"]["BTC-USD"]["compared"] == demo["ran"]["rows"]
    alerts = folder / "data/demo/alerts"
    assert (alerts / "alerts.ndjson").read_bytes() == (alerts / "replay_alerts.ndjson").read_bytes()


def test_json_is_one_object_of_modest_size(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    demo = answer(capsys, "--preset", "flat")

    assert demo["simulated"] is True
    assert demo["product"] == "BTC-USD"
    assert demo["replayed"]["account"]["rows"] == recording(folder).count(b"\n")
    assert demo["replayed"]["account"]["dead"] == {}
    assert len(demo["sigma"]) == len(demo["tau"]) == min(512, demo["ran"]["rows"])
    assert demo["sigma"][0] is None
    assert demo["seconds"] > 0


def test_it_keeps_to_its_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "bad.ndjson").write_bytes(b"garbage\n")
    answer(capsys)
    segment = next((folder / "data/demo/raw").glob("*.ndjson"))
    (folder / "mine.ndjson").write_bytes(segment.read_bytes())

    demo = answer(capsys, "--raw", "mine.ndjson", "--raw", "bad.ndjson")

    assert {path.name for path in folder.iterdir()} == {"bad.ndjson", "mine.ndjson", "data"}
    assert {path.name for path in (folder / "data").iterdir()} == {"demo"}
    assert {path.name for path in (folder / "data/demo").iterdir()} == {
        ".lock",
        "raw",
        "processed",
        "alerts",
        "dead",
    }
    assert demo["replayed"]["account"]["dead"] == {"not JSON": 1}


@pytest.mark.parametrize(("conn", "banner"), [(b"sim-7", True), (b"a1b2", False)])
def test_a_recording_is_called_simulated_for_its_connection_alone(
    conn: bytes, banner: bool, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer(capsys)
    name = json.loads(recording(folder).splitlines()[0])["conn_id"].encode()
    (folder / "mine.ndjson").write_bytes(recording(folder).replace(name, conn))

    code = main(["demo", "--raw", "mine.ndjson"])

    out, _ = capsys.readouterr()
    assert code == 0
    assert out.startswith("SIMULATED market (recorded)") is banner
    assert ("SIMULATED" in out) is banner


def test_an_unknown_preset_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["demo", "--preset", "wild"])

    assert code != 0
    assert "choose one of calm, realistic, predictable, flat" in capsys.readouterr().err
    assert not (folder / "data").exists()
