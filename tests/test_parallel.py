"""Replay in parts: whatever the cut, the bits are those of the whole."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from richter.adapters.recording.dead import DeadLetters
from richter.adapters.tables.parts import FeatureLogWriter
from richter.config import Settings
from richter.domain import ticks as tk
from richter.domain.ticks import GapCause
from richter.engine.digest import Digest
from richter.replay import digest
from richter.runtime import parallel
from richter.runtime.compare import compare_logs
from richter.runtime.pipeline import Account, Pipeline
from richter.runtime.replay import replay
from tests.streams import EVERYTHING, quiet_and_busy_stream


def line(row: list[int], product: str) -> bytes:
    """Our record of a tick."""

    def price(scaled: int) -> str:
        return "" if scaled < 0 else f"{scaled // 10**8}.{scaled % 10**8:08d}"

    def quantity(units: int, fraction: int) -> str:
        return "" if units < 0 else f"{units}.{fraction:08d}"

    gap = None
    if row[tk.GAP_CAUSE]:
        since = None if row[tk.GAP_FROM] == tk.NO_TIME else row[tk.GAP_FROM]
        gap = {"cause": GapCause(row[tk.GAP_CAUSE]).name.lower(), "from": since, "missing": None}
    ticker = {
        "product_id": product,
        "best_bid_quantity": quantity(row[tk.BID_QTY_U], row[tk.BID_QTY_F]),
        "best_ask_quantity": quantity(row[tk.ASK_QTY_U], row[tk.ASK_QTY_F]),
        "last_size": quantity(row[tk.LAST_SIZE_U], row[tk.LAST_SIZE_F]),
    }
    record = {
        "timestamp": "2026-01-01T00:00:00.000000Z",
        "product_id": product,
        "price": price(row[tk.PRICE]),
        "volume_24h": quantity(row[tk.VOLUME_24H_U], row[tk.VOLUME_24H_F]),
        "low_24h": price(row[tk.LOW_24H]),
        "high_24h": price(row[tk.HIGH_24H]),
        "best_bid": price(row[tk.BID]),
        "best_ask": price(row[tk.ASK]),
        "ts_event": row[tk.TS_EVENT],
        "ts_recv": None if row[tk.TS_RECV] == tk.NO_TIME else row[tk.TS_RECV],
        "conn_id": f"conn-{row[tk.CONN]}",
        "frame_no": row[tk.FRAME_NO],
        "event_index": row[tk.EVENT_INDEX],
        "ticker_index": row[tk.TICKER_INDEX],
        "event_type": "snapshot" if row[tk.SNAPSHOT] else "update",
        "gap_before": gap,
        "v": 1,
        "raw": ticker,
    }
    return json.dumps(record).encode() + b"\n"


def plain(files: list[Path], folder: Path, settings: Settings, dead: Path) -> Account:
    with DeadLetters(dead) as letters, FeatureLogWriter(folder, durable=False) as log:
        pipeline = Pipeline(settings, on_letter=lambda letter: letter.to(letters))
        for rows in pipeline.run(files):
            log.append(rows)
    return pipeline.account


@pytest.mark.parametrize(("workers", "part_bytes"), [(1, 300_000), (2, 300_000), (3, 170_000)])
def test_parts_of_a_history_give_the_bits_of_the_whole(tmp_path: Path, workers: int, part_bytes: int) -> None:
    options = EVERYTHING | {"hole": 0.003, "gap": 0.003}
    first = quiet_and_busy_stream(51, 30_000, 0.3, **options, longest_hole_s=3_600)
    second = quiet_and_busy_stream(52, 30_000, 0.3, **options, longest_hole_s=3_600)
    second[:, tk.CONN] += 1_000
    lines = [line(row, "BTC-USD") for row in first.tolist()]
    others = [line(row, "ETH-USD") for row in second.tolist()]
    order = np.random.default_rng(5).permutation(len(lines) + len(others)) < len(lines)
    one, two = iter(lines), iter(others)
    mixed = [next(one) if which else next(two) for which in order.tolist()]
    mixed[500:500] = [b"garbage\n"]
    cut = len(mixed) * 2 // 3
    files = [tmp_path / "a.ndjson", tmp_path / "b.ndjson"]
    files[0].write_bytes(b"".join(mixed[:cut]))
    # The second recorder was on for a while before the first one went off: the same identities again.
    files[1].write_bytes(b"".join(mixed[cut - 800 :]))
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    settings = Settings(data_dir=tmp_path)
    expected = plain(files, whole, settings, tmp_path / "whole.ndjson")

    digests: dict[str, Digest] = {}
    FeatureLogWriter(parts, durable=False)
    with DeadLetters(tmp_path / "parts.ndjson") as dead:
        account = parallel.replay_parts(
            files,
            parts,
            settings,
            workers,
            dead,
            digests,
            on_bytes=lambda size: None,
            part_bytes=part_bytes,
        )

    comparison = compare_logs(parts, whole)
    assert comparison.same
    assert all(
        (product.live_before, product.live_after, product.replayed_before, product.replayed_after)
        == (0, 0, 0, 0)
        for product in comparison.products.values()
    )
    assert {name: made.hexdigest() for name, made in digests.items()} == digest(whole)
    assert account == expected
    assert account.duplicates > 700
    letters = [
        sorted((tmp_path / name).read_text().splitlines()) for name in ("whole.ndjson", "parts.ndjson")
    ]
    assert letters[0] == letters[1]
    assert len(list(parts.glob("part-*.parquet"))) > 10


def test_a_shorter_look_back_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = quiet_and_busy_stream(53, 20_000, 0.5)
    recording = tmp_path / "a.ndjson"
    recording.write_bytes(b"".join(line(row, "BTC-USD") for row in ticks.tolist()))
    settings = Settings(data_dir=tmp_path)
    plain([recording], tmp_path / "whole", settings, tmp_path / "dead.ndjson")
    monkeypatch.setattr(parallel, "LOOK_BACK_NS", 600 * 10**9)

    FeatureLogWriter(tmp_path / "parts", durable=False)
    with DeadLetters(tmp_path / "d.ndjson") as dead:
        parallel.replay_parts(
            [recording],
            tmp_path / "parts",
            settings,
            1,
            dead,
            {},
            on_bytes=lambda size: None,
            part_bytes=300_000,
        )

    assert not compare_logs(tmp_path / "parts", tmp_path / "whole").same


def test_workers_find_the_files_after_a_change_of_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = quiet_and_busy_stream(54, 500, 1.0).tolist()
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / f"{name}.ndjson").write_bytes(b"".join(line(row, "BTC-USD") for row in ticks))

    rows = []
    for name in ("one", "two"):
        monkeypatch.chdir(tmp_path / name)
        done = replay([f"{name}.ndjson"], Path("f.parquet"), Settings(), workers=2)
        rows.append(done.account.rows)

    assert rows[0] == rows[1] > 0
