from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from richter.adapters.recording.segments import (
    Manifest,
    SegmentName,
    create_segment,
    list_segments,
    manifest_path,
    parse_name,
    symbol_of,
)

SECOND = 1_000_000_000


@given(st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", min_size=1), st.integers(0, 4_102_444_800))
def test_a_name_is_read_as_it_was_written(symbol, started_s):
    name = SegmentName(symbol, started_s)

    parsed = parse_name(str(name))

    assert parsed == name
    assert parse_name(f"{name}.zst") == name


@pytest.mark.parametrize(
    "name",
    [
        "ticks_BTCUSD_20260202_024000.ndjson.manifest.json",
        "ticks_BTCUSD_20260202_024000.json",
        "ticks_BTCUSD_20261302_024000.ndjson",
        "ticks_BTC-USD_20260202_024000.ndjson",
        ".ticks_BTCUSD_20260202_024000.ndjson.zst.tmp",
        "ticks_BTCUSD.ndjson",
    ],
)
def test_other_names_are_no_segments(name):
    parsed = parse_name(name)

    assert parsed is None


def test_a_segment_is_named_by_the_utc_second_of_its_first_capture(tmp_path):
    _, path = create_segment(tmp_path, "BTC-USD", 1_770_000_000 * SECOND + 999)

    assert path.name == "ticks_BTCUSD_20260202_024000.ndjson"


def test_a_taken_name_gives_the_next_free_second(tmp_path):
    paths = [create_segment(tmp_path, "BTC-USD", 1_770_000_000 * SECOND)[1] for _ in range(3)]

    assert [path.name[-11:-7] for path in paths] == ["4000", "4001", "4002"]


@pytest.mark.parametrize("left", ["", ".zst", ".manifest.json"])
def test_names_follow_the_log_when_the_clock_was_set_back(tmp_path, left):
    (tmp_path / f"ticks_BTCUSD_20260202_024000.ndjson{left}").touch()

    _, path = create_segment(tmp_path, "BTC-USD", 1_700_000_000 * SECOND)

    assert path.name == "ticks_BTCUSD_20260202_024001.ndjson"


def test_another_product_keeps_its_own_time(tmp_path):
    create_segment(tmp_path, "ETH-USD", 1_770_000_000 * SECOND)

    _, path = create_segment(tmp_path, "BTC-USD", 1_700_000_000 * SECOND)

    assert path.name == "ticks_BTCUSD_20231114_221320.ndjson"


def test_the_globs_of_users_find_only_data(tmp_path):
    _, path = create_segment(tmp_path, "BTC-USD", 0)
    manifest_path(path).write_text("{}")

    found = list(tmp_path.glob("*.ndjson"))

    assert found == [path]


def test_segments_are_listed_product_by_product_in_order(tmp_path):
    for product_id, second in [("ETH-USD", 5), ("BTC-USD", 7), ("BTC-USD", 9), ("ETH-USD", 6)]:
        _, path = create_segment(tmp_path, product_id, second * SECOND)
        path.write_bytes(msgspec.json.encode({"product_id": product_id}) + b"\n")

    listed = list_segments(tmp_path)

    assert [(s.product_id, s.name.started_s) for s in listed] == [
        ("BTC-USD", 7),
        ("BTC-USD", 9),
        ("ETH-USD", 5),
        ("ETH-USD", 6),
    ]
    assert [s.name.started_s for s in list_segments(tmp_path, "BTC-USD")] == [7, 9]


def test_products_with_one_symbol_are_told_apart(tmp_path):
    assert symbol_of("A-BUSD") == symbol_of("AB-USD")
    for second, product_id in enumerate(["A-BUSD", "AB-USD"]):
        _, path = create_segment(tmp_path, product_id, second * SECOND)
        path.write_bytes(msgspec.json.encode({"product_id": product_id}) + b"\n")

    listed = list_segments(tmp_path, "AB-USD")

    assert [segment.name.started_s for segment in listed] == [1]


def test_the_plain_form_wins_and_is_listed_once(tmp_path):
    _, path = create_segment(tmp_path, "BTC-USD", 0)
    Path(f"{path}.zst").touch()

    listed = list_segments(tmp_path)

    assert [segment.path for segment in listed] == [path]


def test_an_unreadable_manifest_seals_all_the_same(tmp_path):
    _, path = create_segment(tmp_path, "BTC-USD", 0)
    manifest_path(path).write_text("{")

    (segment,) = list_segments(tmp_path)

    assert segment.is_sealed
    assert segment.manifest is None
    assert segment.manifest_fault


def test_a_manifest_of_a_later_version_is_read():
    manifest = dict.fromkeys(("first_recv", "last_recv", "first_event", "last_event"))
    manifest |= {"product_id": "P", "count": 1, "size": 2, "sha256": "", "connections": [], "sealed_at": 0}

    read = msgspec.convert(manifest | {"v": 2, "more": 1}, Manifest)

    assert read.v == 2


def test_an_absent_folder_has_no_segments(tmp_path):
    listed = list_segments(tmp_path / "absent")

    assert listed == []
