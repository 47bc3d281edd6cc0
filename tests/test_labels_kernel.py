"""The label: against the oracle, against the engine's backward twin, and its window."""

from __future__ import annotations

import math

import numpy as np
import pytest

from richter.domain import ticks as tk
from richter.engine import kernel
from richter.engine.engine import Block
from richter.engine.labels import sigma_future, volatility_spike
from richter.engine.table import FEATURE_NAMES
from tests.engine_tools import run
from tests.oracle import Oracle
from tests.streams import EVERYTHING, START_NS, quiet_and_busy_stream

SECOND = 10**9
SIGMA = 1 + FEATURE_NAMES.index("realized_volatility_60s")


def columns(block: Block) -> tuple[np.ndarray, ...]:
    """Times, mids, causes and beginnings of gaps of the rows."""
    meta = block.meta[block.accepted()]
    return (
        meta[:, kernel.EFFECTIVE_T].copy(),
        block.values[block.accepted(), 0].copy(),
        meta[:, kernel.CAUSE].copy(),
        meta[:, kernel.GAP_FROM].copy(),
    )


def labels(block: Block, stale: float = 10) -> np.ndarray:
    return sigma_future(*columns(block), stale)


@pytest.mark.parametrize(("seed", "stale"), [(1, 10), (2, 60), (3, 3)])
def test_labels_are_the_oracles(seed: int, stale: int) -> None:
    ticks = quiet_and_busy_stream(seed, 4000, 3.0, **EVERYTHING)
    oracle = Oracle(ticks, stale_after_s=stale)

    found = labels(run(ticks, stale_after_s=stale), stale)

    for position in range(0, len(found), 53):
        expected = oracle.sigma_future_at(oracle.accepted[position])
        assert found[position] == pytest.approx(expected, rel=1e-9, abs=2e-13, nan_ok=True)
    assert 0.2 < np.isfinite(found).mean() < 1.0


def test_the_label_is_the_volatility_feature_a_minute_later_to_the_bit() -> None:
    ticks = quiet_and_busy_stream(5, 2000, 4.0)
    block = run(ticks)
    times = block.meta[:, kernel.EFFECTIVE_T]
    later = {
        int(t // SECOND): value for t, value in zip(times, block.values[:, SIGMA], strict=True) if t % SECOND
    }

    found = labels(block)

    pairs = [
        (value, later[-(-int(t) // SECOND) + 60])
        for t, value in zip(times, found, strict=True)
        if -(-int(t) // SECOND) + 60 in later
    ]
    assert len(pairs) > 5000
    assert all(a == b or (math.isnan(a) and math.isnan(b)) for a, b in pairs)


@pytest.mark.parametrize("i", [900, 1400, 1500, 1501, 1502])
def test_prices_outside_the_window_change_no_label_and_inside_they_do(i: int) -> None:
    ts, mid, cause, since = columns(run(quiet_and_busy_stream(6, 900, 4.0, whole_second=0.2)))
    start = -(-int(ts[i]) // SECOND)
    as_of_start = int(np.searchsorted(ts, start * SECOND, side="right")) - 1
    end = int(np.searchsorted(ts, (start + 60) * SECOND, side="right"))
    before = sigma_future(ts, mid, cause, since, 10)[i]

    outside, first, last = mid.copy(), mid.copy(), mid.copy()
    outside[:as_of_start] *= 1.5
    outside[end:] *= 0.5
    outside[end:][::3] = np.nan
    first[as_of_start] *= 1.0001
    last[end - 1] *= 1.0001

    assert sigma_future(ts, outside, cause, since, 10)[i] == before
    assert sigma_future(ts, first, cause, since, 10)[i] != before
    assert sigma_future(ts, last, cause, since, 10)[i] != before


def test_a_tick_on_a_whole_second_counts_that_second_as_its_start() -> None:
    ts = (START_NS // SECOND + np.arange(200)) * SECOND
    mid = 100.0 + np.random.default_rng(1).random(200)
    nothing = np.zeros(200, np.int64)
    expected = np.std(np.diff(np.log(mid[20:81])), ddof=1)

    on_it = sigma_future(ts, mid, nothing, nothing, 10)[20]
    before_it = sigma_future(ts - 1, mid, nothing, nothing, 10)[20]

    assert on_it == pytest.approx(expected, rel=1e-9)
    assert before_it == on_it


def test_a_gap_and_a_stale_mid_make_exactly_the_windows_over_them_unknown() -> None:
    ts = START_NS + np.arange(400) * SECOND + SECOND // 2
    mid = 100.0 + np.random.default_rng(2).random(400)
    cause, since = np.zeros(400, np.int64), np.full(400, tk.NO_TIME)
    whole = sigma_future(ts, mid, cause, since, 10)
    windows_with_200 = np.isin(np.arange(400), range(139, 200))  # c = i + 1, so second 200 is in c .. c + 60.

    gap, gap_without_a_second = cause.copy(), cause.copy()
    gap[200] = gap_without_a_second[200] = tk.GapCause.SEQUENCE
    late = since.copy()
    late[200] = ts[200] - SECOND // 4
    unknown_mid = mid.copy()
    unknown_mid[199] = np.nan
    stale = np.delete(np.arange(400), slice(190, 200))

    with_gap = sigma_future(ts, mid, gap, since, 10)
    assert np.isnan(with_gap[:339]).tolist() == windows_with_200[:339].tolist()
    assert np.array_equal(sigma_future(ts, unknown_mid, cause, since, 10), with_gap, equal_nan=True)
    assert np.array_equal(sigma_future(ts, mid, gap_without_a_second, late, 10), whole, equal_nan=True)
    # Without rows 190 to 199 second 200 is 10.5 s younger than its mid.
    with_hole = sigma_future(ts[stale], mid[stale], cause[stale], since[stale], 10)
    assert np.isnan(with_hole[:329]).tolist() == windows_with_200[stale][:329].tolist()
    patient = sigma_future(ts[stale], mid[stale], cause[stale], since[stale], 10.5)
    assert np.isfinite(patient[:329]).all()


def test_no_window_reaches_over_a_reset_of_the_clock() -> None:
    ts = START_NS + np.arange(400) * SECOND + SECOND // 2
    ts[200:] -= 50 * SECOND
    mid = 100.0 + np.random.default_rng(3).random(400)
    cause, since = np.zeros(400, np.int64), np.full(400, tk.NO_TIME)
    cause[200] = tk.GapCause.CLOCK

    both = sigma_future(ts, mid, cause, since, 10)

    first = sigma_future(ts[:200], mid[:200], cause[:200], since[:200], 10)
    second = sigma_future(ts[200:], mid[200:], cause[200:], since[200:], 10)
    assert np.array_equal(both, np.concatenate([first, second]), equal_nan=True)
    assert np.isfinite(first).any()
    assert np.isfinite(second).any()


def test_a_label_waits_for_a_tick_later_than_its_last_second() -> None:
    ts = START_NS + np.arange(61) * SECOND
    mid = 100.0 + np.random.default_rng(4).random(61)
    nothing = np.zeros(62, np.int64)

    on_the_second = sigma_future(ts, mid, nothing[:61], nothing[:61], 10)
    past_it = sigma_future(np.append(ts, ts[-1] + 1), np.append(mid, 5.0), nothing, nothing, 10)

    assert np.isnan(on_the_second).all()
    assert np.isfinite(past_it[0])
    assert np.isnan(past_it[1:]).all()


def test_a_spike_is_a_volatility_that_reaches_the_threshold() -> None:
    tau = 2e-5
    future = np.array([np.nextafter(tau, 0), tau, np.nextafter(tau, 1), np.nan, tau, np.nan])
    thresholds = np.array([tau, tau, tau, tau, np.nan, np.nan])

    spikes = volatility_spike(future, thresholds)

    assert spikes.tolist() == [0, 1, 1, -1, -1, -1]


def test_spikes_are_the_oracles() -> None:
    ticks = quiet_and_busy_stream(9, 2400, 2.0, gap=0.001)
    oracle = Oracle(ticks)
    block = run(ticks)

    spikes = volatility_spike(labels(block), block.values[:, 1 + FEATURE_NAMES.index("tau_rolling")])

    names = {True: 1, False: 0, None: -1}
    rows = range(0, len(ticks), 61)
    assert spikes[rows].tolist() == [names[oracle.spike_at(i)] for i in rows]
    assert set(spikes[rows].tolist()) == {-1, 0, 1}


def test_labels_of_a_suffix_are_those_of_the_whole() -> None:
    oddities = EVERYTHING | {"whole_second": 0.1, "gap": 0.003, "far_backward": 0.001}
    whole_columns = columns(run(quiet_and_busy_stream(7, 3000, 2.0, **oddities)))
    whole = sigma_future(*whole_columns, 10)
    after_gaps = np.flatnonzero(whole_columns[2])

    starts = [1, *np.random.default_rng(7).integers(1, len(whole), 100).tolist(), *after_gaps.tolist()]

    for start in starts:
        suffix = sigma_future(*(column[start:] for column in whole_columns), 10)
        assert np.array_equal(suffix, whole[start:], equal_nan=True), start


def test_the_last_minute_has_no_label() -> None:
    ticks = quiet_and_busy_stream(8, 600, 4.0)
    block = run(ticks)

    found = labels(block)

    times = block.meta[:, kernel.EFFECTIVE_T]
    last_minute = times > times[-1] - 60 * SECOND
    assert np.isnan(found[last_minute]).all()
    assert np.isfinite(found[~last_minute]).any()
