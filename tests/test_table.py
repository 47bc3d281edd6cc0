"""The feature table, and the kernel that was made for it."""

from __future__ import annotations

import importlib.util

import msgspec
import numpy as np
import pytest

from richter.engine import kernel, table
from richter.engine.table import EWMA_BOXES_S, EWMA_WEIGHTS, FEATURE_NAMES, FEATURES, LOOK_BACK_S
from richter.errors import ContractError


def best_weights(half_life: int) -> np.ndarray:
    """Non-negative least squares by active sets, the sum fixed to 1."""
    k = np.arange(3600)
    decay = 2.0 ** (-1 / half_life)
    target = (1 - decay) * decay**k
    boxes = np.array([(k < span) / span for span in EWMA_BOXES_S]).T
    active = np.ones(len(EWMA_BOXES_S), bool)
    while True:
        used = boxes[:, active]
        size = used.shape[1]
        system = np.zeros((size + 1, size + 1))
        system[:size, :size] = used.T @ used
        system[:size, size] = system[size, :size] = 1.0
        solution = np.linalg.solve(system, np.append(used.T @ target, 1.0))[:size]
        if (solution >= 0).all():
            weights = np.zeros(len(EWMA_BOXES_S))
            weights[active] = solution
            return weights
        active[np.flatnonzero(active)[np.argmin(solution)]] = False


@pytest.mark.parametrize("half_life", list(EWMA_WEIGHTS))
def test_the_weights_of_the_averages_are_the_best_fit_to_the_exponential(half_life: int) -> None:
    weights = EWMA_WEIGHTS[half_life]

    assert sum(weights) == 10_000
    assert min(weights) >= 0
    assert np.abs(np.array(weights) / 10_000 - best_weights(half_life)).max() < 1.5e-4


def test_the_best_fit_is_none_of_its_neighbours() -> None:
    # Negative control: weights fitted to another half-life are far outside the tolerance.
    weights = np.array(EWMA_WEIGHTS[60]) / 10_000

    assert np.abs(weights - best_weights(65)).max() > 10e-4


def test_the_courses_names_stand() -> None:
    course = {
        "price_return_1min",
        "price_return_5min",
        "price_volatility_5min",
        "bid_ask_spread",
        "bid_ask_spread_bps",
        "volume_24h_pct_change",
        "trade_intensity",
    }

    assert course <= set(FEATURE_NAMES)
    assert len(set(FEATURE_NAMES)) == len(FEATURES)


def test_look_back_covers_every_span_with_sigma_and_staleness() -> None:
    longest_staleness, sigma = 60, 60

    assert all(feature.span_s + sigma + longest_staleness <= LOOK_BACK_S for feature in FEATURES)
    assert all(box <= 3600 for box in EWMA_BOXES_S)


def load_the_kernel_again() -> None:
    """Run kernel.py's text as another module; nothing is compiled before it is called."""
    spec = importlib.util.spec_from_file_location("kernel_again", kernel.__file__)
    assert spec is not None
    assert spec.loader is not None
    spec.loader.exec_module(importlib.util.module_from_spec(spec))


def test_the_kernel_names_the_table_it_was_made_for() -> None:
    load_the_kernel_again()

    assert table.table_fingerprint() == kernel.TABLE_FINGERPRINT


@pytest.mark.parametrize("field", ["name", "unit", "span_s", "formula", "known_when", "source"])
def test_another_table_is_refused_at_import(field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    value = 61 if field == "span_s" else "something else"
    changed = msgspec.structs.replace(FEATURES[5], **{field: value})
    monkeypatch.setattr(table, "FEATURES", (*FEATURES[:5], changed, *FEATURES[6:]))

    with pytest.raises(ContractError, match=f"{table.table_fingerprint()}.*TABLE_FINGERPRINT"):
        load_the_kernel_again()


def test_another_order_is_another_table(monkeypatch: pytest.MonkeyPatch) -> None:
    before = table.table_fingerprint()

    monkeypatch.setattr(table, "FEATURES", (FEATURES[1], FEATURES[0], *FEATURES[2:]))

    assert table.table_fingerprint() != before
