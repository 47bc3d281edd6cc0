"""`richter run` and `richter ingest` against a simulated exchange: real processes, real sockets, real kills."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from richter.cli.main import main
from richter.config import Settings
from richter.engine.table import FEATURE_NAMES
from richter.runtime.replay import replay
from tests.kills import kill_again_and_again
from tests.live_tools import (
    LIMIT_S,
    RICHTER,
    check_run,
    end_run,
    exchange,
    features,
    log_of,
    recorded_lines,
    recorded_ticks,
    start_run,
    wait_for_lines,
)

SHARED = Path(__file__).parents[2] / "shared" / "data"
ROOT = Path(__file__).parents[1]


def test_a_run_killed_again_and_again_leaves_the_logs_of_a_replay(tmp_path: Path) -> None:
    comparison, looked_back = kill_again_and_again(tmp_path / "data", 5, 1)

    assert looked_back > 0
    assert {product.compared > 500 for product in comparison.products.values()} == {True}
    assert (tmp_path / "data" / "alerts" / "alerts.ndjson").stat().st_size > 0


@pytest.mark.skipif(not SHARED.is_dir() and "CI" not in os.environ, reason="the recordings are not here")
def test_a_recording_served_over_a_socket_gives_the_features_of_its_files(tmp_path: Path) -> None:
    files = sorted((SHARED / "coinbase").glob("*_20251206_0[12]*.ndjson"))
    lines = sum(path.read_bytes().count(b"\n") for path in files)
    raw = [argument for path in files for argument in ("--replay", str(path))]
    folder = tmp_path / "data"
    with exchange(*raw, "--speed", "max") as url:
        process = start_run(folder, url)
        wait_for_lines(folder, lines, process)
        end_run(process)

    check_run(folder)

    direct = tmp_path / "direct.parquet"
    replay([str(path) for path in files], direct, Settings(data_dir=tmp_path))
    columns = ("ts_event", "mid", *FEATURE_NAMES)
    expected = features(direct, columns)
    found = features(folder / "processed" / "features.parquet", columns)
    assert len(found["mid"]) == lines
    assert (found["ts_event"] == expected["ts_event"]).all()
    # The first tick of a connection is a snapshot there: it counts in no intensity or volume while a window holds it.
    later = expected["ts_event"] > expected["ts_event"][0] + 301 * 10**9
    for name in columns:
        assert found[name][later].tobytes() == expected[name][later].tobytes(), name
    assert later.sum() > 10_000


def test_minutes_end_a_run_in_order_and_the_scripts_of_the_course_work(tmp_path: Path) -> None:
    with exchange("--history", "10m") as url:
        script = [
            sys.executable,
            str(ROOT / "scripts" / "ws_ingest.py"),
            "--pair",
            "BTC-USD",
            "--minutes",
            "0.05",
        ]
        ended = subprocess.run(
            [*script, "--save-disk", "--no-kafka"],
            cwd=tmp_path,
            env={**os.environ, "COINBASE_WS_URL": url},
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        assert "recorded " in ended.stdout
        assert f"WebSocket connected to {url}" in ended.stderr
        assert not (tmp_path / "data" / "raw" / "published.json").exists()
        lines = recorded_lines(tmp_path / "data")
        assert lines > 500
        assert not (tmp_path / "data" / "processed").exists()
        ran = main_run(tmp_path / "data", url, "--minutes", "0.05")

    assert ran["caught_up"]["added"] == lines
    check_run(tmp_path / "data", Settings(data_dir=tmp_path / "data"))
    ticks, _ = recorded_ticks(tmp_path / "data")
    assert len(ticks) == lines + ran["recorded"]


def main_run(folder: Path, url: str, *arguments: str) -> dict[str, object]:
    ended = subprocess.run(
        [*RICHTER, "run", "--data", str(folder), "--url", url, "--json", *arguments],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    ran: dict[str, object] = json.loads(ended.stdout)["ran"]
    return ran


def test_two_runs_on_one_folder_are_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "data"
    with exchange() as url:
        process = start_run(folder, url)
        wait_for_lines(folder, 1, process)

        code = main(["run", "--data", str(folder), "--url", url, "--minutes", "0.1"])

        said = capsys.readouterr().err
        end_run(process)
    assert code == 1
    assert f"in use by richter run, process {process.pid}" in said
    assert "Traceback" not in said


def test_a_second_signal_ends_at_once_and_the_next_run_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with exchange("--history", "30m") as url:
        process = start_run(folder, url)
        wait_for_lines(folder, 100, process)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=LIMIT_S)
        assert process.returncode in (0, 130)
        process = start_run(folder, url)
        wait_for_lines(folder, recorded_lines(folder) + 1, process)
        end_run(process)

    check_run(folder)


def test_no_exchange_is_said_again_and_again_and_ends_in_order(tmp_path: Path) -> None:
    process = start_run(tmp_path / "data", "ws://127.0.0.1:1", "--minutes", "0.03")
    out, _ = process.communicate(timeout=LIMIT_S)
    err = log_of(tmp_path / "data").read_text()

    assert process.returncode == 1
    assert json.loads(out)["ran"]["recorded"] == 0
    assert "richter: no tick was recorded in 0.03 minutes (cannot reach ws://127.0.0.1:1" in err
    assert "cannot reach ws://127.0.0.1:1: Connection refused; will retry in" in err
    assert "offline? `richter demo`" in err
    assert "Traceback" not in err


def test_a_product_that_the_exchange_does_not_have_is_said(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with exchange("--product", "BTC-USD") as url:
        process = start_run(folder, url, "--pair", "BTC-USD", "--pair", "NOPE-USD")
        wait_for_lines(folder, 3, process)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=LIMIT_S)

    assert "NOPE-USD" in log_of(folder).read_text()
    check_run(folder)


@pytest.mark.parametrize(
    "arguments", [("--url", "ws://127.0.0.1:99999"), ("--minutes", "nan"), ("--minutes", "0")]
)
def test_nonsense_is_refused_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    code = main(["run", "--data", str(tmp_path / "data"), *arguments])

    said = capsys.readouterr().err
    assert code == 2
    assert "Traceback" not in said
    assert arguments[1] in said
    assert not (tmp_path / "data").exists()


def test_a_folder_that_cannot_be_written_to_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").write_bytes(b"a file")

    code = main(["run", "--data", str(tmp_path / "data"), "--url", "ws://127.0.0.1:1"])

    said = capsys.readouterr().err
    assert code == 1
    assert "the data folder cannot be written to" in said
    assert len(said.strip().splitlines()) == 1
