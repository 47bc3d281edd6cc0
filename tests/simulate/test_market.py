"""The law of the simulated market, and the recordings made of it."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from richter.errors import ArgumentsError
from richter.protocol.forms import decode_line
from richter.protocol.records import TickRecord
from richter.simulate.market import PRESETS, SECOND, SLOT_NS, Market, simulate_market
from richter.simulate.recording import OUTAGE_S, recorded_lines, write_recording

START = 1_764_936_000 * SECOND
HOURS = 6 * 3600


def made(preset: str, seed: int = 7, seconds: int = HOURS) -> Market:
    return simulate_market(PRESETS[preset], seed=seed, seconds=seconds, start_ns=START)


def bytes_of(market: Market) -> bytes:
    return b"".join(recorded_lines(market, "BTC-USD", "sim-7"))


def one_second_returns(market: Market) -> np.ndarray[Any, Any]:
    ends = START + SECOND * (1 + np.arange(len(market.log_volatility)))
    mid = np.log((market.bid + market.ask) / 2)
    return np.diff(mid[np.searchsorted(market.ts, ends) - 1])


def median_sigma_60(returns: np.ndarray[Any, Any]) -> float:
    windows = np.lib.stride_tricks.sliding_window_view(returns, 60)
    return float(np.median(windows.std(axis=1, ddof=1)))


def test_the_same_seed_gives_the_same_bytes() -> None:
    assert bytes_of(made("realistic", seconds=1200)) == bytes_of(made("realistic", seconds=1200))


def test_another_seed_gives_another_market() -> None:
    first, second = made("realistic", 7, 1200), made("realistic", 8, 1200)

    assert not np.array_equal(first.log_volatility, second.log_volatility)
    assert bytes_of(first) != bytes_of(second)


# Means over seeds of the law's description; single runs of 6 h differ by as much as the bounds say.
@pytest.mark.parametrize(
    ("preset", "zeros", "sigma"),
    [("calm", 0.485, 2.0e-5), ("realistic", 0.167, 1.5e-4), ("predictable", 0.004, 7.4e-5)],
)
def test_zero_returns_and_volatility_are_those_of_the_law(preset: str, zeros: float, sigma: float) -> None:
    returns = [one_second_returns(made(preset, seed)) for seed in (11, 12, 13, 14)]

    share = np.mean([np.mean(each == 0) for each in returns])
    median = np.exp(np.mean([math.log(median_sigma_60(each)) for each in returns]))

    assert zeros == pytest.approx(share, rel=0.25, abs=0.004)
    assert sigma == pytest.approx(median, rel=0.4)


def test_flat_has_nothing_to_predict() -> None:
    market = made("flat")

    assert np.all(market.log_volatility == PRESETS["flat"].mu)
    assert np.all(market.factors == 0)
    assert np.all(market.burst == 0)


@pytest.mark.parametrize("preset", ["calm", "realistic", "predictable"])
def test_the_truth_adds_up(preset: str) -> None:
    market, law = made(preset), PRESETS[preset]
    day = (START // SECOND + np.arange(HOURS)) % 86_400 / 86_400
    diurnal = law.diurnal * np.cos(2 * np.pi * (day - 0.625))

    parts = law.mu + market.factors.sum(axis=1) + market.burst + diurnal

    np.testing.assert_allclose(market.log_volatility, parts, rtol=0, atol=1e-9)


def test_factors_relax_in_their_times() -> None:
    market, law = made("predictable", seconds=48 * 3600), PRESETS["predictable"]

    for k in (0, 1):
        x = market.factors[:, k]
        lag = round(law.t[k])
        assert x.std() == pytest.approx(law.s[k], rel=0.15)
        assert np.corrcoef(x[:-lag], x[lag:])[0, 1] == pytest.approx(math.exp(-lag / law.t[k]), abs=0.08)


def test_bursts_jump_up_and_decay() -> None:
    burst, law = made("realistic", seconds=48 * 3600).burst, PRESETS["realistic"]

    kept = burst[:-1] * math.exp(-1 / law.tb)
    jumps = burst[1:] - kept
    jumps = jumps[jumps > 1e-12]

    assert np.all(burst[1:] >= kept - 1e-12)
    assert 10 <= len(jumps) <= 60
    assert jumps.mean() == pytest.approx(law.b, rel=0.6)


@pytest.mark.parametrize("preset", ["calm", "realistic", "predictable"])
def test_slots_are_active_as_often_as_volatility_says(preset: str) -> None:
    market, law = made(preset, seconds=24 * 3600), PRESETS[preset]
    g = market.log_volatility - law.mu
    expected = 4 * (1 - np.exp(-law.a * np.exp(law.c * np.minimum(g, 3))))

    ticks = np.bincount((market.ts - START) // SECOND, minlength=len(g))

    # Binomial: a quarter holds 21,600 seconds, so its mean is known to 0.007 (one sd) at most.
    for quarter in np.array_split(np.argsort(g), 4):
        assert ticks[quarter].mean() == pytest.approx(expected[quarter].mean(), abs=0.03)


def test_ticks_lie_in_slots_of_their_own_and_quotes_do_not_cross() -> None:
    market = made("realistic")

    slots = (market.ts - START) // SLOT_NS
    assert np.all(np.diff(slots) > 0)
    assert slots[0] == 0
    assert slots[-1] < 4 * HOURS
    assert np.all(market.bid < market.ask)
    assert np.all((market.price == market.bid) | (market.price == market.ask))


def test_a_market_without_length_is_refused() -> None:
    with pytest.raises(ArgumentsError):
        made("calm", seconds=0)


def ticks_of(market: Market) -> list[TickRecord]:
    ticks: list[TickRecord] = []
    for number, line in enumerate(recorded_lines(market, "BTC-USD", "sim-7")):
        decoded = decode_line(line, lambda product: 8, number)
        assert isinstance(decoded, list)
        ticks += decoded
    return ticks


def test_a_recording_says_start_and_one_reconnect() -> None:
    ticks = ticks_of(made("realistic", seconds=1200))

    gaps = [(i, tick.gap.cause.name) for i, tick in enumerate(ticks) if tick.gap is not None]
    again = gaps[1][0]
    assert [cause for _, cause in gaps] == ["START", "RECONNECT"]
    assert [i for i, tick in enumerate(ticks) if tick.snapshot] == [0, again]
    gap = ticks[again].gap
    assert gap is not None
    assert gap.from_ns == ticks[again - 1].ts_event
    assert ticks[again].ts_event - ticks[again - 1].ts_event >= OUTAGE_S * SECOND
    assert ticks[again].frame_no == 0
    assert {tick.conn_id for tick in ticks} == {"sim-7", "sim-7-2"}


def test_heartbeats_and_acknowledgements_take_sequence_numbers() -> None:
    ticks = ticks_of(made("flat", seconds=240))

    # Fewer than 1,000 ticks: one connection. Two acknowledgements, a heartbeat at each turn of a second.
    turns = ticks[-1].ts_event // SECOND - ticks[0].ts_event // SECOND
    assert len({tick.conn_id for tick in ticks}) == 1
    assert ticks[-1].frame_no == len(ticks) - 1 + 2 + turns
    assert all(a.frame_no < b.frame_no for a, b in pairwise(ticks))


def test_raw_is_a_whole_envelope_with_the_same_numbers() -> None:
    for line in recorded_lines(made("realistic", seconds=60), "BTC-USD", "sim-7"):
        record = json.loads(line)
        raw = record["raw"]
        [event] = raw["events"]
        [ticker] = event["tickers"]

        assert (raw["channel"], raw["sequence_num"]) == ("ticker", record["frame_no"])
        assert event["type"] == record["event_type"]
        for ours, theirs in (
            ("price", "price"),
            ("best_bid", "best_bid"),
            ("best_ask", "best_ask"),
            ("volume_24h", "volume_24_h"),
            ("low_24h", "low_24_h"),
            ("high_24h", "high_24_h"),
        ):
            assert isinstance(record[ours], str)
            assert record[ours] == ticker[theirs]
        assert float(ticker["low_52_w"]) <= float(ticker["price"]) <= float(ticker["high_52_w"])


def test_segments_of_an_hour_hold_all_lines_in_order(tmp_path: Path) -> None:
    market = made("calm", seconds=2 * 3600 + 600)

    paths = write_recording(market, tmp_path, "BTC-USD", "sim-7")

    # Named by the time of their first tick.
    assert [path.name[:24] for path in paths] == [
        "ticks_BTCUSD_20251205_12",
        "ticks_BTCUSD_20251205_13",
        "ticks_BTCUSD_20251205_14",
    ]
    assert sorted(tmp_path.iterdir()) == paths
    assert b"".join(path.read_bytes() for path in paths) == bytes_of(market)
