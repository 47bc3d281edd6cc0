"""From recorded files to feature logs, by the commands that people type."""

from __future__ import annotations

import gzip
import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from richter import features, labels
from richter.cli.docs import main as docs
from richter.cli.main import COMMANDS, main
from richter.models.alerts import decode_alert
from tests.streams import quiet_and_busy_stream
from tests.test_parallel import line

CHECKS = "✓ Features match between live and replay\n✓ Row counts identical\n✓ Reproducibility verified\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    raw = tmp_path / "data" / "raw"
    raw.mkdir(parents=True)
    ticks = quiet_and_busy_stream(71, 4_000, 1.0).tolist()
    (raw / "ticks_BTCUSD_1.ndjson").write_bytes(b"".join(line(row, "BTC-USD") for row in ticks))
    return tmp_path


def script(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["replay.py", *arguments])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(Path(__file__).parents[1] / "scripts" / "replay.py"), run_name="__main__")
    return int(end.value.code or 0)


def test_the_script_without_a_live_log_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = script(
        monkeypatch, "--raw", "data/raw/*.ndjson", "--out", "data/processed/features_replay.parquet"
    )

    out = capsys.readouterr().out
    assert code == 0
    assert "Nothing to compare with" in out
    assert "✓" not in out
    assert (folder / "data/processed/features_replay.parquet").is_dir()


def test_the_script_compares_with_the_live_log(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["replay", "--raw", "data/raw", "--out", "data/processed/features.parquet"]) == 0

    code = script(monkeypatch, "--raw", "data/raw/*.ndjson")

    assert code == 0
    assert capsys.readouterr().out.endswith(CHECKS)


def test_a_tampered_live_log_fails_and_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    live = folder / "data/processed/features.parquet"
    assert main(["replay", "--raw", "data/raw", "--out", str(live)]) == 0
    part = live / "part-000001.parquet"
    table = pq.read_table(part)
    spread = table["bid_ask_spread"].to_numpy().copy()
    spread[1234] = np.nextafter(spread[1234], 1)
    at = table.schema.get_field_index("bid_ask_spread")
    pq.write_table(table.set_column(at, table.schema.field(at), pa.array(spread)), part)

    code = script(monkeypatch, "--raw", "data/raw/*.ndjson")

    out = capsys.readouterr().out
    assert code == 1
    assert "✗ BTC-USD differs" in out
    assert "bid_ask_spread" in out
    assert "✓" not in out


def test_every_line_is_accounted_for(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = folder / "data/raw/ticks_BTCUSD_1.ndjson"
    lines = raw.read_bytes().splitlines(keepends=True)
    heartbeat = b'{"channel":"heartbeats","timestamp":"2026-01-01T00:00:00Z","sequence_num":4,"events":[]}\n'
    torn = lines[-1][:-30]
    raw.write_bytes(b"".join([*lines[:50], b"not json\n", heartbeat, lines[10], *lines[50:-1], torn]))

    code = main(["replay", "--raw", str(raw), "--out", "f.parquet", "--json"])

    account = json.loads(capsys.readouterr().out)["replay"]["account"]
    assert code == 0
    assert account["rows"] == len(lines) - 1
    assert account["duplicates"] == 1
    assert account["ignored"] == {"heartbeats": 1}
    assert account["dead"] == {"not JSON": 1, "torn": 1}
    assert account["lines"] == len(lines) + 2
    assert len((folder / "data/dead/replay.ndjson").read_text().splitlines()) == 2


def test_the_same_recording_twice_doubles_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = folder / "data/raw/ticks_BTCUSD_1.ndjson"
    (folder / "copy.ndjson").write_bytes(raw.read_bytes())

    main(["replay", "--raw", str(raw), "--raw", "copy.ndjson", "--out", "f.parquet", "--json"])

    account = json.loads(capsys.readouterr().out)["replay"]["account"]
    assert account["duplicates"] == account["rows"] == account["lines"] // 2


def test_alerts_are_written_and_judged(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ticks = quiet_and_busy_stream(72, 12_000, 1.0).tolist()
    (folder / "long.ndjson").write_bytes(b"".join(line(row, "BTC-USD") for row in ticks))

    code = main(["replay", "--raw", "long.ndjson", "--out", "f.parquet", "--alerts", "--json"])

    answer = json.loads(capsys.readouterr().out)["alerts"]
    log = [decode_alert(text) for text in Path("data/alerts/replay_alerts.ndjson").read_bytes().splitlines()]
    assert code == 0
    assert len(log) == len(answer["alerts"]) > 0
    assert {alert["followed"] for alert in answer["alerts"]} <= {"hit", "miss", "unknown", ""}
    assert [str(alert.kind) for alert in log[:2]] == ["onset", "clear"]


def empty(path: Path) -> str:
    path.write_bytes(b"")
    return str(path)


def binary(path: Path) -> str:
    path.write_bytes(bytes(range(256)) * 32)
    return str(path)


def gzipped(path: Path) -> str:
    path.write_bytes(gzip.compress(b"{}\n"))
    return str(path)


def parquet(path: Path) -> str:
    pq.write_table(pa.table({"a": [1]}), path)
    return str(path)


def of_no_use(path: Path) -> str:
    path.write_bytes(b'{"hello": "world"}\n')
    return str(path)


def absent(path: Path) -> str:
    return str(path)


def glob_of_nothing(path: Path) -> str:
    return str(path.parent / "*.nothing")


@pytest.mark.parametrize("make", [empty, binary, gzipped, parquet, of_no_use, absent, glob_of_nothing])
def test_bad_input_is_one_clear_sentence_and_touches_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str], make: object
) -> None:
    assert main(["replay", "--raw", "data/raw", "--out", "f.parquet"]) == 0
    before = features.read("f.parquet")
    bad = make(folder / "bad.ndjson")  # type: ignore[operator]  # one of the functions above
    capsys.readouterr()

    code = main(["replay", "--raw", bad, "--out", "f.parquet"])

    said = capsys.readouterr()
    assert code == 1
    assert "Traceback" not in said.err
    assert len([text for text in said.err.splitlines() if text.strip()]) == 1
    assert features.read("f.parquet").equals(before)
    assert not list(folder.glob(".f.parquet*"))


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--raw", "data/raw", "--out", "f.parquet", "--compare", "f.parquet"], 2),
        (["--raw", "data/raw", "--out", "f.parquet", "--compare", "missing.parquet"], 1),
        (["--raw", "data/raw", "--out", "f.parquet", "--stale-after", "61"], 2),
        (["--raw", "data/raw", "--out", "f.parquet", "--wrong"], 2),
    ],
)
def test_bad_arguments_are_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int
) -> None:
    assert main(["replay", *arguments]) == code
    assert "Traceback" not in capsys.readouterr().err


def test_a_log_of_another_schema_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", "--raw", "data/raw", "--out", "f.parquet"]) == 0
    part = folder / "f.parquet/part-000001.parquet"
    table = pq.read_table(part)
    pq.write_table(table.replace_schema_metadata({b"richter.schema_id": b"older"}), part)

    code = main(["replay", "--raw", "data/raw", "--out", "g.parquet", "--compare", "f.parquet"])

    assert code == 1
    assert "schema_id older" in capsys.readouterr().err


def test_the_library_gives_the_log_and_its_labels(folder: Path) -> None:
    main(["replay", "--raw", "data/raw", "--out", "f.parquet"])

    computed = features.from_files("data/raw/*.ndjson")
    labelled = labels.from_features("f.parquet")

    assert computed.equals(features.read("f.parquet"))
    assert len(labelled) == len(computed)
    known = labelled.drop_nulls("volatility_spike")
    assert ((known["sigma_future"] >= known["tau"]).cast(int) == known["volatility_spike"]).all()


def test_the_demo_runs_twice_and_gives_the_same(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    digests = []
    for _ in range(2):
        assert main(["demo", "--hours", "0.4", "--json"]) == 0
        answer = json.loads(capsys.readouterr().out)["demo"]
        digests.append(answer["replayed"]["digests"])

    assert digests[0] == digests[1]
    assert answer["simulated"]
    assert main(["demo", "--hours", "0.4"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("SIMULATED")
    assert CHECKS in out


def test_generated_pages_are_what_the_code_says() -> None:
    assert docs(["--check"]) == 0
    text = (Path(__file__).parents[1] / "docs" / "cli.md").read_text()
    assert all(f"## richter {name}\n" in text for name in COMMANDS)
