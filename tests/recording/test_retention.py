from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from richter.adapters.recording.events import EventKind
from richter.adapters.recording.retention import apply, plan
from richter.adapters.recording.sealing import scan, seal
from richter.adapters.recording.segments import (
    Manifest,
    Position,
    Segment,
    SegmentName,
    list_segments,
    manifest_path,
)
from richter.engine.table import LOOK_BACK_S

SECOND = 1_000_000_000
HOUR = 3600 * SECOND
DAY = 24 * HOUR
NOW = 1_770_000_000 * SECOND


def segment(last_event, *, product_id="BTC-USD", size=10**9, is_sealed=True, last_recv=None):
    name = SegmentName(product_id.replace("-", ""), last_event // SECOND - 3600)
    manifest = Manifest(
        product_id=product_id,
        count=1,
        size=size,
        sha256="",
        first_recv=last_event - HOUR,
        last_recv=last_event if last_recv is None else last_recv,
        first_event=last_event - HOUR,
        last_event=last_event,
        connections=(),
        sealed_at=last_event,
    )
    return Segment(
        name=name,
        path=Path(str(name)),
        product_id=product_id,
        size_on_disk=size,
        manifest=manifest if is_sealed else None,
    )


def hourly(hours, **kwargs):
    return [segment(NOW - (hours - 1 - n) * HOUR, **kwargs) for n in range(hours)]


def test_without_a_rule_nothing_is_deleted():
    chosen = plan(hourly(1000), now=NOW)

    assert chosen == []


def test_segments_go_when_their_last_line_is_too_old():
    segments = hourly(72)

    chosen = plan(segments, now=NOW, retention_days=1)

    assert chosen == [s for s in segments if s.manifest.last_event < NOW - DAY]
    assert len(chosen) == 47


def test_the_oldest_go_until_the_rest_is_small_enough():
    btc, eth = hourly(10), hourly(10, product_id="ETH-USD")

    chosen = plan([*btc, *eth], now=NOW, max_gb=14)

    assert chosen == [btc[0], eth[0], btc[1], eth[1], btc[2], eth[2]]


def test_open_segments_count_for_the_size_and_are_never_chosen():
    sealed, unsealed = hourly(10), segment(NOW + HOUR, is_sealed=False, size=5 * 10**9)

    chosen = plan([*sealed, unsealed], now=NOW + 100 * DAY, max_gb=10)

    assert chosen == sealed[:5]
    assert unsealed not in plan([*sealed, unsealed], now=NOW + 100 * DAY, retention_days=0, max_gb=0)


@pytest.mark.parametrize(("ago_s", "is_chosen"), [(LOOK_BACK_S, False), (LOOK_BACK_S + 1, True)])
def test_the_look_back_of_each_products_newest_event_stays(ago_s, is_chosen):
    newest = segment(NOW)
    older = segment(NOW - ago_s * SECOND)

    chosen = plan([older, newest], now=NOW + 100 * DAY, retention_days=0, max_gb=0)

    assert chosen == [older] * is_chosen


def test_the_look_back_is_of_event_time_and_per_product():
    silent = [
        segment(NOW - 30 * DAY - HOUR, product_id="ETH-USD"),
        segment(NOW - 30 * DAY, product_id="ETH-USD"),
    ]
    busy = hourly(5)

    chosen = plan([*silent, *busy], now=NOW, retention_days=1)

    assert chosen == []


def test_a_newer_event_that_only_the_caller_knows_frees_more():
    segments = [segment(NOW - 2 * HOUR), segment(NOW)]

    chosen = plan(segments, now=NOW + DAY, retention_days=0, newest_event={"BTC-USD": NOW + 2 * HOUR})

    assert chosen == segments


def test_protected_segments_stay_and_the_next_oldest_go():
    segments = hourly(10)

    chosen = plan(segments, now=NOW, max_gb=8, protected={str(segments[0].name)})

    assert chosen == segments[1:3]


@pytest.mark.parametrize(("offset", "expected"), [(10**9, 4), (10**9 - 1, 3)])
def test_lines_that_are_not_acknowledged_stay(offset, expected):
    segments = hourly(10)

    chosen = plan(
        segments,
        now=NOW + DAY,
        retention_days=0,
        unacknowledged={"BTC-USD": Position(str(segments[3].name), offset)},
    )

    assert chosen == segments[:expected]


def test_unknown_times_are_never_old():
    unknown = segment(NOW - 100 * DAY)
    manifest = Manifest(
        **{f: getattr(unknown.manifest, f) for f in Manifest.__struct_fields__} | {"last_event": None}
    )
    unknown = Segment(
        name=unknown.name, path=unknown.path, product_id="BTC-USD", size_on_disk=1, manifest=manifest
    )

    chosen = plan([unknown, *hourly(3)], now=NOW, retention_days=1, max_gb=0)

    assert unknown not in chosen


def test_a_segment_captured_late_is_as_old_as_its_capture():
    replayed = segment(NOW - 100 * DAY, last_recv=NOW - HOUR)

    chosen = plan([replayed, segment(NOW)], now=NOW, retention_days=1)

    assert chosen == []


@given(
    ages=st.lists(st.integers(0, 400), min_size=1, max_size=30, unique=True),
    days=st.none() | st.floats(0, 20),
    gb=st.none() | st.floats(0, 40),
    shielded=st.sets(st.integers(0, 29)),
)
def test_no_rule_reaches_what_is_needed(ages, days, gb, shielded):
    segments = [segment(NOW - age * HOUR) for age in sorted(ages, reverse=True)]
    protected = {str(segments[n].name) for n in shielded if n < len(segments)}

    chosen = plan(segments, now=NOW, retention_days=days, max_gb=gb, protected=protected)

    newest = max(s.manifest.last_event for s in segments)
    assert all(s.manifest.last_event < newest - LOOK_BACK_S * SECOND for s in chosen)
    assert not protected & {str(s.name) for s in chosen}
    assert chosen == [s for s in segments if s in chosen]
    assert (
        plan(
            [s for s in segments if s not in chosen],
            now=NOW,
            retention_days=days,
            max_gb=gb,
            protected=protected,
        )
        == []
    )


def test_apply_deletes_segments_with_their_manifests_and_tells(tmp_path):
    for start in ("20260202_024000", "20260202_034000"):
        path = tmp_path / f"ticks_BTCUSD_{start}.ndjson"
        path.write_bytes(b'{"product_id":"BTC-USD","ts_recv":1}\n')
        seal(path, scan(path)[0].manifest("BTC-USD", 0))
    first, second = list_segments(tmp_path)
    events = []

    deleted = apply([first], on_event=events.append)

    assert deleted.segments == [first.path]
    assert deleted.size == first.size_on_disk
    assert sorted(tmp_path.iterdir()) == sorted([second.path, manifest_path(second.path)])
    assert [event.kind for event in events] == [EventKind.DELETED]


def test_what_cannot_be_deleted_is_told_and_the_rest_goes_on(tmp_path):
    path = tmp_path / "ticks_BTCUSD_20260202_034000.ndjson"
    path.write_bytes(b"{}\n")
    in_the_way = tmp_path / "ticks_BTCUSD_20260202_024000.ndjson"
    in_the_way.mkdir()
    segments = list_segments(tmp_path)
    events = []

    deleted = apply(segments, on_event=events.append)

    assert deleted.segments == [path]
    assert [refused for refused, _ in deleted.refused] == [in_the_way]
    assert [event.kind for event in events] == [EventKind.PROBLEM, EventKind.DELETED]
