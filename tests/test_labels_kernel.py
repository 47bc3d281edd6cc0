"""The label: against the oracle, against the engine's backward twin, and its window."""

from __future__ import annotations

import math

import numpy as np
import pytest

from richter.engine import kernel
from richter.engine.engine import Block
from richter.engine.labels import sigma_future
from richter.engine.table import FEATURE_NAMES
from tests.engine_tools import run
from tests.oracle import Oracle
from tests.streams import EVERYTHING, quiet_and_busy_stream

SECOND = 10**9
SIGMA = 1 + FEATURE_NAMES.index("realized_volatility_60s")


def labels(block: Block, stale: float = 10) -> np.ndarray:
    rows = block.accepted()
    meta = block.meta[rows]
    return sigma_future(
        meta[:, kernel.EFFECTIVE_T].copy(),
        block.values[rows, 0].copy(),
        meta[:, kernel.CAUSE].copy(),
        meta[:, kernel.GAP_FROM].copy(),
        stale,
    )


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


def test_prices_outside_the_window_change_no_label_and_inside_they_do() -> None:
    ticks = quiet_and_busy_stream(6, 900, 4.0)
    block = run(ticks)
    ts, mid = block.meta[:, kernel.EFFECTIVE_T].copy(), block.values[:, 0].copy()
    cause, since = block.meta[:, kernel.CAUSE].copy(), block.meta[:, kernel.GAP_FROM].copy()
    i = 1500
    start = -(-int(ts[i]) // SECOND)
    as_of_start = int(np.searchsorted(ts, start * SECOND, side="right")) - 1
    end = int(np.searchsorted(ts, (start + 60) * SECOND, side="right"))
    before = sigma_future(ts, mid, cause, since, 10)[i]

    outside, inside = mid.copy(), mid.copy()
    outside[:as_of_start] *= 1.5
    outside[end:] *= 0.5
    inside[end - 1] *= 1.0001

    assert sigma_future(ts, outside, cause, since, 10)[i] == before
    assert sigma_future(ts, inside, cause, since, 10)[i] != before


def test_labels_of_a_suffix_are_those_of_the_whole() -> None:
    block = run(quiet_and_busy_stream(7, 3000, 2.0, **EVERYTHING))
    rows = block.accepted()
    columns = (
        block.meta[rows, kernel.EFFECTIVE_T].copy(),
        block.values[rows, 0].copy(),
        block.meta[rows, kernel.CAUSE].copy(),
        block.meta[rows, kernel.GAP_FROM].copy(),
    )
    whole = sigma_future(*columns, 10)

    for start in (1, 100, 1234, 2500):
        suffix = sigma_future(*(column[start:].copy() for column in columns), 10)
        assert np.array_equal(suffix, whole[start:], equal_nan=True)


def test_the_last_minute_has_no_label() -> None:
    ticks = quiet_and_busy_stream(8, 600, 4.0)
    block = run(ticks)

    found = labels(block)

    times = block.meta[:, kernel.EFFECTIVE_T]
    last_minute = times > times[-1] - 60 * SECOND
    assert np.isnan(found[last_minute]).all()
    assert np.isfinite(found[~last_minute]).any()
