"""The feature table and what hangs on it."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest

from richter.domain import ticks as tk
from richter.engine import fixed_point, grid, kernel, labels, state, table
from richter.engine.digest import Digest, schema_id
from richter.engine.rows import FeatureRows
from richter.engine.table import EWMA_BOXES_S, EWMA_WEIGHTS, FEATURE_NAMES, FEATURES, LOOK_BACK_S
from tests.engine_tools import run
from tests.streams import EVERYTHING, quiet_and_busy_stream


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
    assert np.abs(np.array(weights) / 10_000 - best_weights(half_life)).max() < 2.5e-4


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
    assert all(feature.span_s + 60 + 60 < LOOK_BACK_S for feature in FEATURES)


def test_the_kernel_names_the_table_it_was_made_for() -> None:
    assert table.table_fingerprint() == kernel.TABLE_FINGERPRINT


@pytest.mark.parametrize(
    ("module", "parts"),
    [(kernel, (fixed_point, state, grid)), (labels, (fixed_point,))],
    ids=["kernel.py", "labels.py"],
)
def test_compiled_modules_name_the_sources_they_were_compiled_from(
    module: object, parts: tuple[object, ...]
) -> None:
    # numba's cache does not see changes in other files: who changes them must touch the one that holds it.
    text = b"".join(Path(part.__file__).read_bytes() for part in parts)  # type: ignore[attr-defined]

    assert hashlib.sha256(text).hexdigest()[:16] == module.SOURCES_FINGERPRINT, (  # type: ignore[attr-defined]
        "set SOURCES_FINGERPRINT to the value on the left"
    )


def rows_of(seed: int) -> FeatureRows:
    ticks = quiet_and_busy_stream(seed, 500, 2.0, **EVERYTHING)
    ticks[:, tk.CONN] = 0
    return FeatureRows.of(ticks, run(ticks), ["P0"], ["conn"], 10.0)


def digest(rows: FeatureRows) -> str:
    made = Digest()
    made.update(rows.conn_ids, rows.conn, rows.identity, rows.ts_event, rows.values, rows.cause, rows.reasons)
    return made.hexdigest()


def test_the_digest_is_that_of_the_rows_written_out() -> None:
    rows = rows_of(1)
    expected = hashlib.sha256()
    for i in range(len(rows)):
        expected.update(struct.pack("<I", 4) + b"conn")
        expected.update(struct.pack("<4q", *rows.identity[i].tolist(), int(rows.ts_event[i])))
        expected.update(struct.pack(f"<{1 + len(FEATURES)}d", *rows.values[i].tolist()))
        reasons = int(rows.reasons[i])
        expected.update(struct.pack("<BBI", int(rows.cause[i]), int(reasons == 0), reasons))

    assert digest(rows) == expected.hexdigest()


def test_the_digest_does_not_depend_on_batches() -> None:
    rows = rows_of(2)
    made = Digest()

    for start in range(0, len(rows), 37):
        part = rows.take(slice(start, start + 37))
        made.update(
            part.conn_ids, part.conn, part.identity, part.ts_event, part.values, part.cause, part.reasons
        )

    assert made.hexdigest() == digest(rows)


@pytest.mark.parametrize("column", ["identity", "ts_event", "values", "cause", "reasons"])
def test_one_flipped_bit_changes_the_digest(column: str) -> None:
    rows = rows_of(3)
    flipped = rows.take(np.arange(len(rows)))
    flipped_column = np.ascontiguousarray(getattr(flipped, column))
    bits = flipped_column.view(np.int64).reshape(len(rows), -1)
    bits[100, 0] ^= 1
    getattr(flipped, column)[:] = flipped_column

    assert digest(flipped) != digest(rows)


def test_the_schema_id_follows_the_formulas_version(monkeypatch: pytest.MonkeyPatch) -> None:
    before = schema_id()

    monkeypatch.setattr("richter.engine.digest.FORMULAS_VERSION", 2)

    assert schema_id() != before
