"""The engine: against an oracle, against itself in pieces, and against what must not matter."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from richter.domain import ticks as tk
from richter.engine import kernel, state
from richter.engine.rows import reason_text
from richter.engine.table import FEATURE_NAMES, LOOK_BACK_S
from richter.errors import InputFileError
from tests.engine_tools import bits, engine, run
from tests.oracle import Oracle
from tests.streams import EVERYTHING, quiet_and_busy_stream

SECOND = 10**9


def odd(seed: int, seconds: float = 5400, rate: float = 3.0) -> np.ndarray:
    return quiet_and_busy_stream(seed, seconds, rate, **EVERYTHING)


@pytest.mark.parametrize(
    ("seed", "stale", "decimals", "options"),
    [
        (1, 10, 8, {}),
        (2, 10, 8, EVERYTHING),
        (3, 60, 8, EVERYTHING),
        (4, 3, 8, EVERYTHING | {"far_backward": 0.0005}),
        (5, 10, 2, EVERYTHING),
        (6, 10, 10, EVERYTHING),
    ],
)
def test_every_value_is_the_oracles(seed: int, stale: int, decimals: int, options: dict[str, float]) -> None:
    ticks = quiet_and_busy_stream(seed, 5400, 3.0, **options)
    oracle = Oracle(ticks, stale_after_s=stale, price_decimals=decimals)

    block = run(ticks, stale_after_s=stale, decimals=decimals)

    names = {kernel.ROW: "row", kernel.DUPLICATE: "duplicate", kernel.AHEAD: "ahead"}
    assert [names[code] for code in (block.meta[:, kernel.OUTCOME] & 3).tolist()] == oracle.outcome
    assert ((block.meta[:, kernel.OUTCOME] & kernel.CLAMPED) != 0).tolist() == oracle.clamped
    known = set()
    sample = np.random.default_rng(seed).choice(oracle.accepted, 40, replace=False)
    for i in sorted(sample.tolist()):
        expected = oracle.features_at(i)
        assert block.meta[i, kernel.EFFECTIVE_T] == oracle.time_at(i)
        assert block.meta[i, kernel.CAUSE] == oracle.cause_at(i)
        assert set(filter(None, reason_text(int(block.meta[i, kernel.REASONS])).split(","))) == (
            oracle.reasons_at(i)
        )
        assert block.values[i, 0] == pytest.approx(oracle.mid_at(i), rel=1e-15, nan_ok=True)
        for column, name in enumerate(FEATURE_NAMES):
            value = block.values[i, 1 + column]
            assert value == pytest.approx(expected[name], rel=1e-9, abs=2e-13, nan_ok=True), (name, i)
            if not math.isnan(value):
                known.add(name)
    assert len(known) >= (len(FEATURE_NAMES) if not options else len(FEATURE_NAMES) - 4)


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_batches_of_any_size_give_the_same_bits(size: int) -> None:
    ticks = odd(11, 4000, 2.0)
    whole = bits(run(ticks))

    pieces = bits(run(ticks, size))

    assert (pieces == whole).all()


def test_products_do_not_touch_each_other() -> None:
    first, second = odd(12, 3000, 2.0), odd(13, 3000, 2.0)
    second[:, tk.PRODUCT] = 1
    second[:, tk.CONN] += first[:, tk.CONN].max() + 1
    order = np.random.default_rng(1).permutation(len(first) + len(second)) < len(first)
    both = np.empty((len(order), tk.TICK_COLUMNS), np.int64)
    both[order], both[~order] = first, second

    mixed = bits(run(both, 101, products=2))

    assert (mixed[order] == bits(run(first))).all()
    second[:, tk.CONN] -= first[:, tk.CONN].max() + 1
    second[:, tk.PRODUCT] = 0
    assert (mixed[~order] == bits(run(second))).all()


def restart_differences(look_back_s: int, stale: int, seed: int, places: int) -> int:
    """Cells that differ after restarts from `look_back_s` before random places."""
    ticks = quiet_and_busy_stream(
        seed, 40_000, 0.5, **(EVERYTHING | {"hole": 0.004, "gap": 0.004, "calm": 0.01}), longest_hole_s=3_600
    )
    whole = run(ticks, stale_after_s=stale)
    times = np.where(whole.accepted(), whole.meta[:, kernel.EFFECTIVE_T], -1)
    expected = bits(whole)
    differences = 0
    places_at = np.random.default_rng(seed).choice(np.flatnonzero(whole.accepted()), places)
    for place in places_at.tolist():
        first = place
        while first > 0 and (times[first - 1] < 0 or times[first - 1] >= times[place] - look_back_s * SECOND):
            first -= 1
            if whole.meta[first, kernel.OUTCOME] & kernel.SEGMENT:
                break
        again = engine(ticks, stale_after_s=stale).process(ticks[first : place + 40])
        fresh, old = bits(again)[place - first :], expected[place : place + 40]
        # Identities from before the restart are for whoever keeps them: compare where both made a row.
        both = again.accepted()[place - first :] & whole.accepted()[place : place + 40]
        differences += int((fresh[both] != old[both]).sum())
    return differences


@pytest.mark.parametrize(("stale", "seed"), [(10, 21), (60, 22), (1, 23), (60, 24)])
def test_a_restart_from_look_back_gives_the_same_bits(stale: int, seed: int) -> None:
    differences = restart_differences(LOOK_BACK_S, stale, seed, 50)

    assert differences == 0


def test_a_restart_from_3000_seconds_does_not() -> None:
    differences = restart_differences(3_000, 10, 21, 50)

    assert differences > 0


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1999), st.integers(0, 2**32 - 1))
def test_no_tick_changes_a_row_before_it(place: int, seed: int) -> None:
    ticks = odd(31, 1000, 2.0)
    place %= len(ticks) - 1
    changed = ticks.copy()
    rng = np.random.default_rng(seed)
    after = changed[place + 1 :]
    after[:, [tk.BID, tk.ASK, tk.PRICE]] += rng.integers(-(10**9), 10**9, (len(after), 3))
    after[:, tk.TS_EVENT] += rng.integers(0, 10**10)
    after[:, tk.SNAPSHOT] = rng.integers(0, 2, len(after))

    before = bits(run(ticks), slice(0, place + 1))

    assert (bits(run(changed), slice(0, place + 1)) == before).all()


def test_a_tick_changes_its_own_row() -> None:
    ticks = quiet_and_busy_stream(32, 600, 2.0)
    changed = ticks.copy()
    changed[500, tk.ASK] += 10**6

    before, after = bits(run(ticks)), bits(run(changed))

    assert (before[:500] == after[:500]).all()
    assert (before[500] != after[500]).any()


def test_every_prefix_is_the_beginning_of_the_whole() -> None:
    ticks = odd(33, 2500, 2.0)
    whole = bits(run(ticks))
    on_seconds = np.flatnonzero(ticks[:, tk.TS_EVENT] % SECOND == 0)
    lengths = [*np.random.default_rng(3).integers(1, len(ticks), 15), *(on_seconds[:15] + 1)]

    prefixes = [bits(run(ticks[:length])) for length in lengths]

    assert all((prefix == whole[: len(prefix)]).all() for prefix in prefixes)


def test_unknown_has_one_bit_pattern_and_zero_has_no_sign() -> None:
    block = run(odd(34, 4000, 3.0))

    values = block.values[block.accepted()]

    pattern = values.view(np.int64)
    assert set(pattern[np.isnan(values)].tolist()) == {0x7FF8000000000000}
    assert not (pattern == np.int64(-(2**63))).any()


def test_the_kernel_without_compilation_gives_the_same_bits(tmp_path: Path) -> None:
    ticks = odd(35, 1500, 1.0)
    np.save(tmp_path / "ticks.npy", ticks)
    code = (
        "import sys, numpy as np; sys.path.insert(0, sys.argv[2]);"
        "from tests.engine_tools import bits, run;"
        "np.save(sys.argv[1] + '/bits.npy', bits(run(np.load(sys.argv[1] + '/ticks.npy'))))"
    )

    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), str(Path(__file__).parent.parent)],
        env=os.environ | {"NUMBA_DISABLE_JIT": "1"},
        check=True,
    )

    assert (np.load(tmp_path / "bits.npy") == bits(run(ticks))).all()


def test_a_burst_grows_the_ring_and_keeps_the_values() -> None:
    ticks = quiet_and_busy_stream(36, 400, 1.0)
    burst = np.repeat(ticks[200:201], 3000, axis=0)
    burst[:, tk.TS_EVENT] += np.arange(3000) * 100_000
    ticks = np.concatenate([ticks[:200], burst, ticks[201:]])
    ticks[:, tk.FRAME_NO] = np.arange(len(ticks))
    ticks[:, tk.TS_EVENT] = np.maximum.accumulate(ticks[:, tk.TS_EVENT])
    ticks[:, tk.TS_RECV] = ticks[:, tk.TS_EVENT]
    oracle = Oracle(ticks)

    block = run(ticks)

    for i in (3100, 3250, len(ticks) - 1):
        expected = oracle.features_at(i)
        for column, name in enumerate(FEATURE_NAMES):
            assert block.values[i, 1 + column] == pytest.approx(
                expected[name], rel=1e-9, abs=2e-13, nan_ok=True
            )


def test_more_ticks_than_the_ring_may_hold_are_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "RING_LIMIT", 512)
    ticks = quiet_and_busy_stream(37, 200, 10.0)

    with pytest.raises(InputFileError, match="P0 has more ticks in 300 s"):
        run(ticks)


def test_a_product_at_ten_ticks_a_second_takes_less_than_two_megabytes() -> None:
    ticks = quiet_and_busy_stream(38, 1200, 10.0)
    ticks[:, tk.TS_EVENT] = ticks[0, tk.TS_EVENT] + np.arange(len(ticks)) * (SECOND // 10)
    ticks[:, tk.TS_RECV] = ticks[:, tk.TS_EVENT]
    runner = engine(ticks)

    runner.process(ticks)

    assert runner.nbytes <= 2_000_000


def test_the_largest_prices_and_quantities_do_not_overflow() -> None:
    ticks = quiet_and_busy_stream(39, 700, 2.0, last_size=1.0)
    top = tk.PRICE_LIMIT - 1
    ticks[::3, tk.BID], ticks[::3, tk.ASK], ticks[::3, tk.PRICE] = 1, top, top
    ticks[1::3, tk.BID], ticks[1::3, tk.ASK], ticks[1::3, tk.PRICE] = top, top, top
    ticks[:, tk.LAST_SIZE_U] = tk.QUANTITY_LIMIT - 1
    ticks[:, tk.LAST_SIZE_F] = 99_999_999
    oracle = Oracle(ticks)

    block = run(ticks)

    for i in (700, 1000, len(ticks) - 1):
        expected = oracle.features_at(i)
        for column, name in enumerate(FEATURE_NAMES):
            value = block.values[i, 1 + column]
            assert value == pytest.approx(expected[name], rel=1e-9, abs=2e-13, nan_ok=True), name


def test_a_gap_of_a_dropped_tick_lies_before_the_next_row() -> None:
    ticks = quiet_and_busy_stream(40, 100, 2.0)
    ticks[100, tk.TS_EVENT] += 30 * SECOND
    ticks[100, tk.GAP_CAUSE] = tk.GapCause.RECONNECT

    block = run(ticks)

    assert block.meta[100, kernel.OUTCOME] == kernel.AHEAD
    assert block.meta[101, kernel.CAUSE] == tk.GapCause.RECONNECT
