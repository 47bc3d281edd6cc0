"""The engine: against an oracle, against itself in pieces, and against what must not matter."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from richter.domain import ticks as tk
from richter.engine import kernel, state, windows
from richter.engine.engine import Block, Engine
from richter.engine.rows import reason_text
from richter.engine.table import FEATURE_NAMES, LOOK_BACK_S
from richter.errors import InputFileError
from tests.engine_tools import bits, engine, offsets, run
from tests.oracle import Oracle
from tests.streams import EVERYTHING, quiet_and_busy_stream

SECOND = 10**9
PRICE_COLUMNS = [tk.PRICE, tk.BID, tk.ASK, tk.LOW_24H, tk.HIGH_24H]


# An imbalance is kept in multiples of 2**-42, so the mean of a window may be off by half of one.
ABSOLUTE = {f"book_imbalance_mean_{w}s": 2.0**-43 for w in (30, 60, 300)}
SHIB = 7_300_000_000
"""What the streams' prices are divided by to become some 0.00001234."""


def odd(seed: int, seconds: float = 5400, rate: float = 3.0) -> np.ndarray:
    return quiet_and_busy_stream(seed, seconds, rate, **EVERYTHING)


def near(expected: dict[str, float]) -> dict[str, object]:
    """Within 1e-9 of each value."""
    return {
        name: pytest.approx(value, rel=1e-9, abs=ABSOLUTE.get(name, 1e-14), nan_ok=True)
        for name, value in expected.items()
    }


def features(block: Block, row: int) -> dict[str, float]:
    return dict(zip(FEATURE_NAMES, block.values[row, 1:].tolist(), strict=True))


def telling_rows(block: Block, seed: int, n: int) -> list[int]:
    """Rows by chance, and rows where the rules bite: after gaps, clamped, on a whole second."""
    rng = np.random.default_rng(seed)
    accepted = block.accepted()
    t, outcome = block.meta[:, kernel.EFFECTIVE_T], block.meta[:, kernel.OUTCOME]
    gaps = np.flatnonzero(accepted & (block.meta[:, kernel.CAUSE] != 0))
    after_gaps = np.zeros(len(accepted), bool)
    for distance in (0, 1, 5, 30, 200):
        after_gaps[gaps[gaps + distance < len(accepted)] + distance] = True
    chosen: set[int] = set()
    for kind in (t > 0, after_gaps, (outcome & kernel.CLAMPED) != 0, t % SECOND == 0):
        rows = np.flatnonzero(accepted & kind)
        chosen |= set(rng.choice(rows, min(n, len(rows)), replace=False).tolist())
    return sorted(chosen)


@pytest.mark.parametrize(
    ("seed", "stale", "decimals", "divisor", "options"),
    [
        (1, 10, 8, 1, {}),
        (2, 10, 8, 1, EVERYTHING),
        (3, 60, 8, SHIB, EVERYTHING),
        (4, 3, 8, 1, EVERYTHING | {"far_backward": 0.0005}),
        (5, 10, 2, 1, EVERYTHING),
        (6, 10, 10, SHIB // 100, EVERYTHING),
    ],
    ids=["plain", "odd", "shib", "stale-3", "decimals-2", "decimals-10"],
)
def test_every_value_is_the_oracles(
    seed: int, stale: int, decimals: int, divisor: int, options: dict[str, float]
) -> None:
    ticks = quiet_and_busy_stream(seed, 5400, 3.0, **options)
    prices = ticks[:, PRICE_COLUMNS]
    ticks[:, PRICE_COLUMNS] = np.where(prices > 0, prices // divisor, prices)
    known_offsets = dict(enumerate(offsets(ticks)))
    oracle = Oracle(ticks, stale_after_s=stale, price_decimals=decimals, conn_offset=known_offsets)

    block = run(ticks, stale_after_s=stale, decimals=decimals)

    names = {kernel.ROW: "row", kernel.DUPLICATE: "duplicate", kernel.AHEAD: "ahead"}
    assert [names[code] for code in (block.meta[:, kernel.OUTCOME] & 3).tolist()] == oracle.outcome
    assert ((block.meta[:, kernel.OUTCOME] & kernel.CLAMPED) != 0).tolist() == oracle.clamped
    assert ((block.meta[:, kernel.OUTCOME] & kernel.SEGMENT) != 0).tolist() == oracle.clock
    known = set()
    for i in telling_rows(block, seed, 12 if options else 20):
        assert block.meta[i, kernel.EFFECTIVE_T] == oracle.time_at(i)
        assert block.meta[i, kernel.CAUSE] == oracle.cause_at(i)
        assert set(filter(None, reason_text(int(block.meta[i, kernel.REASONS])).split(","))) == (
            oracle.reasons_at(i)
        )
        assert block.values[i, 0] == pytest.approx(oracle.mid_at(i), rel=1e-15, nan_ok=True)
        assert features(block, i) == near(oracle.features_at(i)), i
        known |= {name for name, value in features(block, i).items() if not math.isnan(value)}
    assert known == set(FEATURE_NAMES)


@pytest.mark.parametrize(("seed", "stale", "rate"), [(8, 2, 1.2), (9, 10, 0.3)])
def test_values_at_the_very_edges_of_rules_are_the_oracles(seed: int, stale: int, rate: float) -> None:
    # On half seconds ticks lie exactly at the end of windows, mids are exactly as old as they may be, and gaps
    # begin on seconds.
    oddities = EVERYTHING | {"gap": 0.03, "hole": 0.0}
    ticks = quiet_and_busy_stream(seed, 1500, rate, **oddities)
    for column in (tk.TS_EVENT, tk.GAP_FROM):
        times = ticks[:, column]
        ticks[:, column] = np.where(times == tk.NO_TIME, times, times - times % (SECOND // 2))
    known_offsets = dict(enumerate(offsets(ticks)))
    oracle = Oracle(ticks, stale_after_s=stale, conn_offset=known_offsets)

    block = run(ticks, stale_after_s=stale)

    for i in oracle.accepted[::17]:
        assert features(block, i) == near(oracle.features_at(i)), i


def test_the_comparison_with_the_oracle_sees_one_cent() -> None:
    # Negative control: the oracle of another spread is not the engine's.
    ticks = quiet_and_busy_stream(7, 700, 1.0)
    ticks[:, tk.TS_RECV] = ticks[:, tk.TS_EVENT]
    oracle = Oracle(ticks)
    ticks[300, tk.ASK] += 10**6

    block = run(ticks)

    assert features(block, 299) == near(oracle.features_at(299))
    assert features(block, 300) != near(oracle.features_at(300))


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
    """Cells that differ in the 50 rows after restarts from `look_back_s` before each place.

    Half of the places are random. The others have the beginning of their look-back inside a silence of 200 s or
    more, recorded as a gap or not.
    """
    oddities = EVERYTHING | {
        "hole": 0.006,
        "gap": 0.003,
        "calm": 0.01,
        "no_price": 0.1,
        "far_backward": 0.0005,
    }
    ticks = quiet_and_busy_stream(seed, 25_000, 0.5, **oddities, longest_hole_s=3_600)
    whole = run(ticks, stale_after_s=stale)
    expected = bits(whole)
    accepted = whole.accepted()
    times = np.where(accepted, whole.meta[:, kernel.EFFECTIVE_T], tk.NO_TIME)
    rows = np.flatnonzero(accepted)
    reach = look_back_s * SECOND
    across = [
        row
        for row, following in pairwise(rows.tolist())
        if times[following] - times[row] > 200 * SECOND
        for row in rows[
            (rows > row) & (times[rows] > times[row] + reach) & (times[rows] <= times[following] + reach)
        ]
    ]
    rng = np.random.default_rng(seed)
    chosen = [*rng.choice(rows, places - places // 2), *rng.choice(across, places // 2)]
    differences = 0
    for place in chosen:
        first = int(np.flatnonzero(times >= times[place] - reach)[0])
        again = engine(ticks, stale_after_s=stale).process(ticks[first : place + 50])
        assert (again.accepted()[place - first :] == accepted[place : place + 50]).all()
        differences += int((bits(again)[place - first :] != expected[place : place + 50]).sum())
    return differences


@pytest.mark.parametrize(("stale", "seed"), [(10, 21), (60, 22), (1, 23), (60, 24)])
def test_a_restart_from_look_back_gives_the_same_bits(stale: int, seed: int) -> None:
    assert restart_differences(LOOK_BACK_S, stale, seed, 50) == 0


def test_a_restart_from_3000_seconds_does_not() -> None:
    assert restart_differences(3_000, 10, 21, 20) > 0


def test_an_engine_told_of_an_identity_drops_what_came_before_it() -> None:
    ticks = quiet_and_busy_stream(25, 60, 2.0)
    restarted = engine(ticks)

    restarted.remember(0, 0, tuple(ticks[9, tk.FRAME_NO : tk.TICKER_INDEX + 1].tolist()))

    assert restarted.process(ticks).accepted().tolist() == [i > 9 for i in range(len(ticks))]
    assert engine(ticks).process(ticks).accepted().all()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 999), st.integers(0, 2**32 - 1), st.integers(0, tk.TICK_COLUMNS))
def test_no_tick_changes_a_row_before_it(place: int, seed: int, column: int) -> None:
    ticks = odd(31, 600, 2.0)
    changed = ticks.copy()
    changed[place + 1 :] = other_ticks(changed[place + 1 :], np.random.default_rng(seed), column)

    before = bits(run(ticks), slice(0, place + 1))

    assert (bits(run(changed), slice(0, place + 1)) == before).all()


def other_ticks(ticks: np.ndarray, rng: np.random.Generator, column: int) -> np.ndarray:
    """The ticks with other values in a column; in all of them for TICK_COLUMNS."""
    other = ticks.copy()
    n = len(ticks)
    values = {
        tk.TS_EVENT: ticks[:, tk.TS_EVENT] + rng.integers(-10, 5000) * SECOND + rng.integers(0, SECOND, n),
        tk.TS_RECV: ticks[:, tk.TS_RECV] - rng.integers(0, 5 * SECOND),
        tk.CONN: np.zeros(n, np.int64),  # This and the product lead elsewhere; the row's own stays.
        tk.PRODUCT: ticks[:, tk.PRODUCT],
        tk.SNAPSHOT: rng.integers(0, 2, n),
        tk.GAP_CAUSE: rng.integers(0, 6, n),
        tk.GAP_FROM: ticks[:, tk.TS_EVENT] - rng.integers(0, 100 * SECOND, n),
    }
    for each in range(tk.TICK_COLUMNS) if column == tk.TICK_COLUMNS else [column]:
        other[:, each] = values.get(each, ticks[:, each] + rng.integers(-1, 10**8, n))
    return other


@pytest.mark.parametrize(
    ("column", "change"),
    [
        (tk.TS_EVENT, 1),
        (tk.TS_RECV, -(10**10)),
        (tk.FRAME_NO, -1000),
        (tk.SNAPSHOT, 1),
        (tk.GAP_CAUSE, 1),
        (tk.PRICE, 10**6),
        (tk.BID, -(10**6)),
        (tk.ASK, 10**6),
        (tk.LOW_24H, -(10**6)),
        (tk.HIGH_24H, 10**6),
        (tk.VOLUME_24H_U, 1),
        (tk.VOLUME_24H_F, 1),
        (tk.LAST_SIZE_U, 1),
        (tk.LAST_SIZE_F, 1),
        (tk.BID_QTY_U, 1),
        (tk.BID_QTY_F, 1),
        (tk.ASK_QTY_U, 1),
        (tk.ASK_QTY_F, 1),
    ],
)
def test_a_tick_changes_its_own_row(column: int, change: int) -> None:
    ticks = quiet_and_busy_stream(32, 1200, 2.0, last_size=1.0)
    changed = ticks.copy()
    changed[1500, column] += change

    before, after = bits(run(ticks)), bits(run(changed))

    assert (before[:1500] == after[:1500]).all()
    assert (before[1500] != after[1500]).any()


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


@pytest.mark.parametrize("step_ns", [0, 100_000])
def test_a_burst_grows_the_ring_and_keeps_the_values(step_ns: int) -> None:
    ticks = quiet_and_busy_stream(36, 400, 1.0)
    burst = np.repeat(ticks[200:201], 3000, axis=0)
    burst[:, tk.TS_EVENT] += np.arange(3000) * step_ns
    ticks = np.concatenate([ticks[:200], burst, ticks[201:]])
    ticks[:, tk.FRAME_NO] = np.arange(len(ticks))
    ticks[:, tk.TS_EVENT] = np.maximum.accumulate(ticks[:, tk.TS_EVENT])
    ticks[:, tk.TS_RECV] = ticks[:, tk.TS_EVENT]
    oracle = Oracle(ticks)

    block = run(ticks)

    for i in (400, 3100, 3250, len(ticks) - 1):
        assert features(block, i) == near(oracle.features_at(i))


def test_more_ticks_than_the_ring_may_hold_are_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "RING_LIMIT", 512)
    ticks = quiet_and_busy_stream(37, 200, 10.0)

    with pytest.raises(InputFileError, match="P0 has more ticks in 300 s"):
        run(ticks)


def test_two_hours_of_ten_ticks_a_second_take_less_than_two_megabytes() -> None:
    ticks = np.repeat(quiet_and_busy_stream(38, 10, 1.0)[:1], 72_000, axis=0)
    ticks[:, tk.FRAME_NO] = np.arange(len(ticks))
    ticks[:, tk.TS_EVENT] += np.arange(len(ticks)) * (SECOND // 10)
    ticks[:, tk.TS_RECV] = ticks[:, tk.TS_EVENT]
    runner = engine(ticks)
    runner.process(ticks[:100])
    at_first = runner.nbytes

    for start in range(100, len(ticks), 10_000):
        runner.process(ticks[start : start + 10_000])

    assert at_first < runner.nbytes <= 2_000_000


def test_the_largest_prices_and_quantities_do_not_overflow() -> None:
    ticks = quiet_and_busy_stream(39, 700, 2.0, last_size=1.0)
    top = tk.PRICE_LIMIT - 1
    ticks[::3, tk.BID], ticks[::3, tk.ASK], ticks[::3, tk.PRICE] = 1, top, top
    ticks[1::3, tk.BID], ticks[1::3, tk.ASK], ticks[1::3, tk.PRICE] = top, top, top
    ticks[:, tk.LOW_24H], ticks[:, tk.HIGH_24H] = 1, top
    for units in (tk.VOLUME_24H_U, tk.LAST_SIZE_U, tk.BID_QTY_U):
        ticks[:, units], ticks[:, units + 1] = tk.QUANTITY_LIMIT - 1, 99_999_999
    ticks[::2, tk.VOLUME_24H_U], ticks[::2, tk.VOLUME_24H_F] = 0, 1
    oracle = Oracle(ticks)

    block = run(ticks)

    for i in (700, 1000, 1001, 1002, len(ticks) - 1):
        assert features(block, i) == near(oracle.features_at(i))
    assert np.nanmax(block.values[:, 1 + FEATURE_NAMES.index("volume_300s")]) > 1e15


def test_a_window_of_the_largest_sums_stays_below_an_int64() -> None:
    largest = {
        "price by quantity, upper limb": (tk.PRICE_LIMIT >> 27) * (tk.QUANTITY_LIMIT >> 27),
        "spread in bps": int(20_000 * windows.BPS_ONE) >> 25,
        "imbalance": int(windows.IMBALANCE_ONE),
    }

    assert all(each * state.RING_LIMIT < 2**63 for each in largest.values())


def test_a_window_of_the_largest_quantities_stays_below_an_int64() -> None:
    assert tk.QUANTITY_LIMIT * state.RING_LIMIT < 2**63


def test_running_totals_may_wrap_around() -> None:
    # They are never reset: the lowest limb of the squares passes 2**63 within a day. A window is the difference
    # of two totals all the same. Counts are left out: at a tick a microsecond they would need 300,000 years.
    ticks = odd(41, 1500, 2.0)
    half = len(ticks) // 2
    expected = bits(run(ticks))[half:]
    runner = engine(ticks)
    runner.process(ticks[:half])
    product = runner._known[0].state
    counts = {state.R_TICKS, state.R_QUOTES, state.R_BOOKS}
    for array, columns in (
        (product.grid, range(state.G_SUM, state.G_PAIRS)),
        (product.ring, set(range(state.R_TICKS, state.RING_COLUMNS)) - counts),
    ):
        for column in columns:
            array[:, column] += np.int64(2**63 - 1) - max(array[:, column].max(), 0)

    block = runner.process(ticks[half:])

    assert (bits(block) == expected).all()
    assert product.grid[:, state.G_SQ_C].min() < -(2**62)
    assert product.ring[:, state.R_QTY_F].min() < -(2**62)


def test_a_gap_of_a_dropped_tick_lies_before_the_next_row() -> None:
    ticks = quiet_and_busy_stream(40, 100, 2.0)
    ticks[100, tk.TS_EVENT] += 30 * SECOND
    ticks[100, tk.GAP_CAUSE] = tk.GapCause.RECONNECT

    block = run(ticks)

    assert block.meta[100, kernel.OUTCOME] == kernel.AHEAD
    assert block.meta[101, kernel.CAUSE] == tk.GapCause.RECONNECT


@pytest.mark.parametrize("later", [tk.GapCause.SEQUENCE, tk.GapCause.NONE])
def test_a_clock_gap_of_a_dropped_tick_starts_a_segment_at_the_next_row_whatever_that_says(
    later: tk.GapCause,
) -> None:
    ticks = quiet_and_busy_stream(40, 2000, 2.0)
    dropped = len(ticks) - 200
    ticks[dropped : dropped + 2, tk.TS_EVENT] += 30 * SECOND
    ticks[dropped, tk.GAP_CAUSE] = tk.GapCause.CLOCK
    ticks[dropped + 1, tk.GAP_CAUSE] = later
    ticks[dropped + 2, tk.GAP_CAUSE] = later
    oracle = Oracle(ticks)

    block = run(ticks)

    row = dropped + 2
    assert block.meta[row, kernel.CAUSE] == tk.GapCause.CLOCK
    assert block.meta[row, kernel.OUTCOME] & kernel.SEGMENT
    assert block.meta[row, kernel.REASONS] & kernel.TAU_900S
    assert oracle.cause_at(row) == tk.GapCause.CLOCK
    assert features(block, row + 50) == near(oracle.features_at(row + 50))


@pytest.mark.parametrize("size", [1, 50, 600, None])
def test_an_offset_that_becomes_known_in_the_middle_counts_from_there_on(size: int | None) -> None:
    ticks = quiet_and_busy_stream(40, 600, 2.0)
    ticks[:600, tk.TS_RECV] = tk.NO_TIME
    ticks[600:, tk.TS_RECV] = ticks[600:, tk.TS_EVENT] - 3600 * SECOND
    known: list[int] = [0]
    runner = Engine(["P0"], conn_offsets=known)
    rows = 0

    for start in range(0, len(ticks), size or len(ticks)):
        block = ticks[start : start + (size or len(ticks))]
        if (
            block[:, tk.TS_RECV] != tk.NO_TIME
        ).any():  # As a decoder notes it: before the engine sees the block.
            known[0] = 3600 * SECOND
        rows += runner.process(block).counts().rows

    assert rows == len(ticks)
