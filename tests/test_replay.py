"""From recorded files to feature logs, by the commands that people type."""

from __future__ import annotations

import gzip
import json
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from richter import features, labels
from richter.adapters.tables.features import read_features
from richter.cli.docs import main as docs
from richter.cli.main import COMMANDS, main
from richter.domain import ticks as tk
from richter.domain.times import format_time
from richter.engine.table import FEATURE_NAMES
from richter.models.alert_log import Alert, decode_alert, encode_alert
from richter.models.alerts import AlertMachine, AlertPolicy, AlertState
from richter.models.rule import RULE_NAME, RULE_VERSION, rule_ratio
from tests.streams import EVERYTHING, quiet_and_busy_stream
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


def folder_of_nothing(path: Path) -> str:
    path.mkdir()
    return str(path)


def link_to_nothing(path: Path) -> str:
    path.symlink_to("nowhere")
    return str(path)


def torn(path: Path) -> str:
    path.write_bytes(b'{"product_id": "BTC-USD", "pri')
    return str(path)


USELESS = [empty, binary, gzipped, parquet, of_no_use, absent, glob_of_nothing]


@pytest.mark.parametrize("make", [*USELESS, folder_of_nothing, link_to_nothing, torn])
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


def test_generated_pages_are_what_the_code_says() -> None:
    assert docs(["--check"]) == 0
    text = (Path(__file__).parents[1] / "docs" / "cli.md").read_text()
    assert all(f"## richter {name}\n" in text for name in COMMANDS)


def courses(row: list[int]) -> bytes:
    """The course's record of a tick."""
    record = json.loads(line(row, "BTC-USD"))
    kept = ("product_id", "price", "volume_24h", "low_24h", "high_24h", "best_bid", "best_ask", "raw")
    captured = format_time(row[tk.TS_EVENT]).removesuffix("Z")
    return json.dumps({"timestamp": captured, **{name: record[name] for name in kept}}).encode() + b"\n"


def account_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """Replay, and return where every line went."""
    capsys.readouterr()
    assert main(["replay", *arguments, "--out", "account.parquet", "--json"]) == 0
    account: dict[str, Any] = json.loads(capsys.readouterr().out)["replay"]["account"]
    return account


def lines_of(account: dict[str, Any]) -> int:
    """What the lines of one tick each add up to."""
    return sum(
        [
            account["rows"],
            account["duplicates"],
            *account["ignored"].values(),
            *account["dead"].values(),
        ]
    )


def test_the_courses_form_replays_like_ours(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ticks = quiet_and_busy_stream(73, 2_000, 1.0).tolist()
    (folder / "data/raw/ticks_BTCUSD_1.ndjson").write_bytes(b"".join(map(courses, ticks)))
    assert main(["replay", "--raw", "data/raw", "--out", "data/processed/features.parquet"]) == 0
    ours = b"".join(line(row, "BTC-USD") for row in ticks)
    (folder / "ours.ndjson").write_bytes(ours)
    assert main(["replay", "--raw", "ours.ndjson", "--out", "ours.parquet"]) == 0
    capsys.readouterr()

    code = script(monkeypatch, "--raw", "data/raw/*.ndjson")

    assert code == 0
    assert capsys.readouterr().out.endswith(CHECKS)
    values = ["mid", "trade_intensity", "bid_ask_spread", "realized_volatility_60s", "tau_rolling"]
    columns = [
        features.read(log)[values].to_numpy() for log in ("ours.parquet", "data/processed/features.parquet")
    ]
    assert np.array_equal(columns[0], columns[1], equal_nan=True)


def test_a_difference_in_json_says_so_and_exits_with_1(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["replay", "--raw", "data/raw", "--out", "a.parquet"]) == 0
    assert main(["replay", "--raw", "data/raw", "--out", "b.parquet", "--stale-after", "20"]) == 0
    capsys.readouterr()

    same = main(["replay", "--raw", "data/raw", "--out", "c.parquet", "--compare", "a.parquet", "--json"])
    told = json.loads(capsys.readouterr().out)
    other = main(["replay", "--raw", "data/raw", "--out", "c.parquet", "--compare", "b.parquet", "--json"])
    untold = json.loads(capsys.readouterr().out)

    assert (same, told["same"], told["replay"]["comparison"]["difference"]) == (0, True, None)
    assert (other, untold["same"]) == (1, False)
    assert untold["replay"]["comparison"]["difference"]["what"] == "stale_after_s"


@pytest.mark.parametrize("lost", ["live", "replay"])
def test_a_lost_line_is_told_in_words(folder: Path, capsys: pytest.CaptureFixture[str], lost: str) -> None:
    raw = folder / "data/raw/ticks_BTCUSD_1.ndjson"
    lines = raw.read_bytes().splitlines(keepends=True)
    (folder / "less.ndjson").write_bytes(b"".join([*lines[:2_000], *lines[2_001:]]))
    whole, less = str(raw), "less.ndjson"
    replayed, live = (whole, less) if lost == "live" else (less, whole)
    assert main(["replay", "--raw", live, "--out", "live.parquet"]) == 0
    capsys.readouterr()

    code = main(["replay", "--raw", replayed, "--out", "f.parquet", "--compare", "live.parquet"])

    out = capsys.readouterr().out
    frame = json.loads(lines[2_000])["frame_no"]
    assert code == 1
    assert f"frame {frame}, event" in out
    assert f"the row is missing in the {lost}" in out
    assert "✓" not in out


def test_logs_without_a_common_row_are_no_proof(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ticks = quiet_and_busy_stream(74, 500, 1.0).tolist()
    (folder / "other.ndjson").write_bytes(b"".join(map(courses, ticks)))
    assert main(["replay", "--raw", "other.ndjson", "--out", "live.parquet"]) == 0

    code = main(["replay", "--raw", "data/raw", "--out", "f.parquet", "--compare", "live.parquet"])

    out = capsys.readouterr().out
    assert code == 1
    assert "neither log holds the first row of the other" in out
    assert "✓" not in out


def test_every_line_of_an_odd_recording_is_somewhere(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    oddities = EVERYTHING | {"far_backward": 0.001, "clock": 0.001}
    rows = quiet_and_busy_stream(75, 3_000, 1.0, **oddities).tolist()
    lines = [line(row, "BTC-USD") for row in rows]
    lines[100:100] = [b"\n", b"\xff\n", b'{"a": 1}\n', b'{"type": "heartbeat"}\n', lines[3][:40] + b"\n"]
    (folder / "odd.ndjson").write_bytes(b"".join(lines))

    account = account_of(capsys, "--raw", "odd.ndjson")

    assert lines_of(account) == account["lines"] == len(lines)
    assert account["duplicates"] > 0
    assert account["dead"]["stamped more than 2 s ahead"] > 0
    assert set(account["dead"]) == {
        "stamped more than 2 s ahead",
        "not UTF-8",
        "not JSON",
        "no ticker in this record",
    }
    letters = (folder / "data/dead/replay.ndjson").read_text().splitlines()
    assert len(letters) == sum(account["dead"].values())


def test_overlapping_recordings_of_ours_double_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = folder / "data/raw/ticks_BTCUSD_1.ndjson"
    lines = raw.read_bytes().splitlines(keepends=True)
    (folder / "a.ndjson").write_bytes(b"".join(lines[:2_500]))
    (folder / "b.ndjson").write_bytes(b"".join(lines[1_800:]))
    assert main(["replay", "--raw", str(raw), "--out", "whole.parquet"]) == 0

    account = account_of(capsys, "--raw", "a.ndjson", "--raw", "b.ndjson", "--compare", "whole.parquet")

    assert (account["rows"], account["duplicates"]) == (len(lines), 700)


def test_two_products_in_one_file_are_like_each_alone(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = [
        (quiet_and_busy_stream(seed, 1_500, 1.0), f"conn-{seed}", product)
        for seed, product in ((76, "BTC-USD"), (77, "ETH-USD"))
    ]
    timed = sorted(
        (row[tk.TS_EVENT], line(row, product).replace(b"conn-0", conn.encode()))
        for ticks, conn, product in pairs
        for row in ticks.tolist()
    )
    Path("both.ndjson").write_bytes(b"".join(text for _, text in timed))
    Path("btc.ndjson").write_bytes(b"".join(text for _, text in timed if b"BTC-USD" in text))
    digests = []

    for name in ("both", "btc"):
        capsys.readouterr()
        assert main(["replay", "--raw", f"{name}.ndjson", "--out", f"{name}.parquet", "--json"]) == 0
        digests.append(json.loads(capsys.readouterr().out)["replay"]["digests"])

    assert sorted(digests[0]) == ["BTC-USD", "ETH-USD"]
    assert digests[0]["BTC-USD"] == digests[1]["BTC-USD"] != digests[0]["ETH-USD"]


@pytest.mark.parametrize(
    ("config", "named"), [("stale_after: 5\n", "stale_after"), ("stale_after_s: soon\n", "stale_after_s")]
)
def test_a_wrong_setting_is_named_before_anything_is_done(
    folder: Path, capsys: pytest.CaptureFixture[str], config: str, named: str
) -> None:
    (folder / "wrong.yaml").write_text(config)

    code = main(["replay", "--raw", "data/raw", "--out", "f.parquet", "--config", "wrong.yaml"])

    said = capsys.readouterr()
    assert code == 2
    assert named in said.err
    assert "Traceback" not in said.err
    assert len(said.err.strip().splitlines()) == 1
    assert not (folder / "f.parquet").exists()


def test_a_replay_that_fails_half_way_leaves_the_old_log(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["replay", "--raw", "data/raw", "--out", "f.parquet"]) == 0
    before = {path.name: path.read_bytes() for path in Path("f.parquet").iterdir()}
    (folder / "later.ndjson").write_bytes(bytes(range(256)) * 32)
    capsys.readouterr()

    code = main(["replay", "--raw", "data/raw", "--raw", "later.ndjson", "--out", "f.parquet"])

    assert code == 1
    assert "later.ndjson" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in Path("f.parquet").iterdir()} == before
    assert not list(folder.glob(".f.parquet*"))


def stepped(log: Path, policy: AlertPolicy, state: AlertState | None = None, start: int = 0) -> list[Alert]:
    """Alerts of one product's rows from `start` on, a step at a time, from a state."""
    machine = AlertMachine(policy, state)
    alerts = []
    i = -1
    for rows in read_features(log):
        sigma = rows.values[:, 1 + FEATURE_NAMES.index("realized_volatility_60s")].copy()
        tau = rows.values[:, 1 + FEATURE_NAMES.index("tau_rolling")].copy()
        scores = rule_ratio(sigma, tau)
        for at in range(len(rows)):
            i += 1
            moved = machine.step(int(rows.ts_event[at]), float(scores[at])) if i >= start else None
            if moved is not None:
                frame, event, ticker = rows.identity[at].tolist()
                alerts.append(
                    Alert.of(
                        moved,
                        policy,
                        product_id=rows.products[int(rows.product[at])],
                        identity=(rows.conn_ids[int(rows.conn[at])], frame, event, ticker),
                        rule=RULE_NAME,
                        rule_version=RULE_VERSION,
                        mid=float(rows.values[at, 0]),
                        sigma=float(sigma[at]),
                        tau=float(tau[at]),
                    )
                )
    return alerts


def test_the_alert_log_is_the_machines_and_its_own_checkpoint(folder: Path) -> None:
    ticks = quiet_and_busy_stream(78, 16_000, 0.7).tolist()
    Path("long.ndjson").write_bytes(b"".join(line(row, "BTC-USD") for row in ticks))
    Path("tight.yaml").write_text("alert_budget_per_hour: 2\nalert_cooldown_s: 20\n")
    command = ["replay", "--raw", "long.ndjson", "--out", "f.parquet", "--alerts"]
    policy = AlertPolicy(cooldown_s=20, budget_per_hour=2)

    assert main([*command, "--config", "tight.yaml"]) == 0
    written = Path("data/alerts/replay_alerts.ndjson").read_bytes().splitlines()

    log = Path("f.parquet")
    assert written == [encode_alert(alert) for alert in stepped(log, policy)]
    unbound = stepped(log, AlertPolicy(cooldown_s=20, budget_per_hour=1_000))
    assert 4 <= len(written) < len(unbound)
    times = np.concatenate([rows.ts_event for rows in read_features(log)])
    alerts = [decode_alert(text) for text in written]
    resumed_within = 0
    for position in np.random.default_rng(79).integers(1, len(times), 200).tolist():
        known = [alert for alert in alerts if alert.ts_event <= times[position - 1]]
        state = known[-1].state if known else None
        resumed_within += 0 < len(known) < len(alerts)
        again = stepped(log, policy, state, position)
        assert [encode_alert(alert) for alert in known + again] == written
    assert resumed_within > 50
    forgetful = stepped(log, policy, None, int(np.searchsorted(times, alerts[2].ts_event, "right")))
    assert [encode_alert(alert) for alert in alerts[:3] + forgetful] != written


def test_a_log_that_cannot_be_made_is_one_sentence(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "file").write_bytes(b"kept")

    code = main(["replay", "--raw", "data/raw", "--out", "file/f.parquet"])

    said = capsys.readouterr()
    assert code == 1
    assert said.out == ""
    assert "Traceback" not in said.err
    assert len(said.err.strip().splitlines()) == 1
    assert (folder / "file").read_bytes() == b"kept"
