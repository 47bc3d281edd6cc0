"""The oracle against numbers found by hand, and the generator that feeds it."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from richter.domain import ticks as col
from richter.domain.ticks import GapCause
from richter.engine.table import FEATURE_NAMES, LOOK_BACK_S
from tests.oracle import Oracle
from tests.streams import EVERYTHING, START_NS, quiet_and_busy_stream

SECOND = 10**9
STEP = math.log(101 / 100)


def ns(at: float) -> int:
    """Nanoseconds since the epoch of `at` seconds after the tests' midnight."""
    return START_NS + round(at * 1_000_000) * 1_000


def tick(
    at: float,
    mid: float | None = 100.0,
    *,
    nudge_ns: int = 0,
    spread: float = 0.02,
    price: float | None = 100.0,
    gap: GapCause = GapCause.NONE,
    gap_from: float | None = None,
    snapshot: bool = False,
    volume_24h: float | None = None,
    last_size: float | None = None,
    bid_qty: float | None = None,
    ask_qty: float | None = None,
    low: float | None = None,
    high: float | None = None,
    recv: float | None = None,
    identity: tuple[int, int, int] | None = None,
    conn: int = 0,
) -> list[int]:
    def scaled(value: float | None) -> int:
        return col.UNKNOWN if value is None else round(value * 10**8)

    def quantity(value: float | None) -> tuple[int, int]:
        return (-1, -1) if value is None else divmod(scaled(value), 10**8)

    row = [0] * col.TICK_COLUMNS
    row[col.TS_EVENT] = ns(at) + nudge_ns
    row[col.TS_RECV] = col.NO_TIME if recv is None else ns(recv)
    row[col.CONN] = conn
    row[col.FRAME_NO], row[col.EVENT_INDEX], row[col.TICKER_INDEX] = identity or (-1, 0, 0)
    row[col.SNAPSHOT] = int(snapshot)
    row[col.GAP_CAUSE] = gap
    row[col.GAP_FROM] = col.NO_TIME if gap_from is None else ns(gap_from)
    row[col.GAP_MISSING] = -1
    row[col.PRICE] = scaled(price)
    row[col.BID] = scaled(None if mid is None else mid - spread / 2)
    row[col.ASK] = scaled(None if mid is None else mid + spread / 2)
    row[col.LOW_24H], row[col.HIGH_24H] = scaled(low), scaled(high)
    row[col.VOLUME_24H_U], row[col.VOLUME_24H_F] = quantity(volume_24h)
    row[col.LAST_SIZE_U], row[col.LAST_SIZE_F] = quantity(last_size)
    row[col.BID_QTY_U], row[col.BID_QTY_F] = quantity(bid_qty)
    row[col.ASK_QTY_U], row[col.ASK_QTY_F] = quantity(ask_qty)
    return row


def watch(*rows: list[int], stale_after_s: int = 10, conn_offset: dict[int, int] | None = None) -> Oracle:
    matrix = np.array(rows, dtype=np.int64)
    unnumbered = matrix[:, col.FRAME_NO] < 0
    matrix[unnumbered, col.FRAME_NO] = np.flatnonzero(unnumbered) + 1
    return Oracle(matrix, stale_after_s=stale_after_s, conn_offset=conn_offset)


def last(*rows: list[int], stale_after_s: int = 10) -> dict[str, float]:
    """The features of the last tick."""
    return watch(*rows, stale_after_s=stale_after_s).features_at(len(rows) - 1)


def each_second(first: int, end: int, **also: object) -> list[list[int]]:
    """A tick on every second from `first` to `end`, its mid 100 on the even ones and 101 on the odd ones."""
    return [tick(s, 100.0 + s % 2, **also) for s in range(first, end + 1)]


def unknown(value: float) -> bool:
    return math.isnan(value)


# The gates.


def test_a_tick_whose_identity_is_not_above_its_connections_highest_is_a_duplicate():
    oracle = watch(
        tick(0, identity=(5, 1, 1)),
        tick(1, identity=(5, 1, 1)),
        tick(1, identity=(5, 0, 9)),
        tick(1, identity=(5, 1, 2)),
        tick(1, identity=(1, 0, 0), conn=1),
        tick(1, identity=(5, 1, 2)),
    )
    assert oracle.outcome == ["row", "duplicate", "duplicate", "row", "row", "duplicate"]
    assert oracle.accepted == [0, 3, 4]


def test_a_duplicate_stays_one_when_the_clock_was_reset():
    oracle = watch(tick(100, identity=(1, 0, 0)), tick(0, identity=(2, 0, 0)), tick(0, identity=(1, 0, 0)))
    assert oracle.outcome == ["row", "row", "duplicate"]


def test_a_tick_stamped_more_than_two_seconds_ahead_of_both_clocks_is_dropped():
    first = tick(0, recv=0)
    assert watch(first, tick(12, recv=10)).outcome[-1] == "row"
    assert watch(first, tick(12, nudge_ns=1, recv=10)).outcome[-1] == "ahead"
    assert watch(first, tick(40, recv=10), tick(11, recv=11)).outcome == ["row", "ahead", "row"]


def test_a_connection_whose_clock_is_off_by_a_constant_is_not_ahead():
    oracle = watch(tick(100, recv=0), tick(101, recv=1), tick(104, nudge_ns=1, recv=2))
    assert oracle.outcome == ["row", "row", "ahead"]
    given = {0: 0}
    assert watch(tick(100, recv=0), conn_offset=given).outcome == ["ahead"]


def test_a_connection_whose_clock_lags_is_compared_with_the_time_of_receipt_too():
    assert watch(tick(0, recv=100), tick(102, recv=100.5)).outcome == ["row", "row"]


def test_a_tick_without_a_receive_time_passes_as_not_ahead():
    assert watch(tick(0, recv=0), tick(5_000)).outcome == ["row", "row"]


def test_an_identity_of_a_tick_ahead_counts_as_seen():
    oracle = watch(tick(0, recv=0), tick(30, recv=1, identity=(7, 0, 0)), tick(1, recv=1, identity=(6, 0, 0)))
    assert oracle.outcome == ["row", "ahead", "duplicate"]


def test_a_tick_up_to_two_seconds_back_is_clamped_to_the_newest():
    oracle = watch(tick(10), tick(8), tick(9.5), tick(11))
    assert oracle.clamped == [False, True, True, False]
    assert [oracle.time_at(i) for i in range(4)] == [ns(10), ns(10), ns(10), ns(11)]
    assert oracle.clock == [False] * 4


def test_a_tick_further_back_begins_a_new_segment_that_knows_nothing():
    rows = [*each_second(0, 70), tick(68, nudge_ns=-1), *each_second(68, 90)]
    oracle = watch(*rows)
    assert oracle.clock[71] and not oracle.clamped[71]
    assert oracle.time_at(71) == ns(68) - 1
    assert oracle.cause_at(71) == GapCause.CLOCK
    assert oracle.cause_at(70) == oracle.cause_at(72) == GapCause.NONE
    assert not unknown(oracle.features_at(70)["realized_volatility_60s"])
    assert unknown(oracle.features_at(94)["realized_volatility_30s"])
    assert not unknown(oracle.features_at(94)["realized_volatility_10s"])
    assert unknown(oracle.features_at(94)["tick_intensity_30s"])


def test_a_record_that_tells_of_a_clock_reset_begins_a_new_segment():
    rows = each_second(0, 90)
    rows[70] = tick(70, 100.0, gap=GapCause.CLOCK, gap_from=69)
    oracle = watch(*rows)
    assert oracle.clock[70] and oracle.cause_at(70) == GapCause.CLOCK
    assert unknown(oracle.features_at(71)["price_return_1min"])
    assert not unknown(oracle.features_at(80)["realized_volatility_10s"])
    assert unknown(oracle.features_at(79)["realized_volatility_10s"])
    assert not unknown(oracle.sigma_future_at(5))
    assert unknown(oracle.sigma_future_at(15))


# The mid.


def test_the_mid_is_half_the_sum_of_bid_and_ask():
    assert watch(tick(0, 89_432.105, spread=0.01)).mid_at(0) == 89_432.105


@pytest.mark.parametrize(
    ("bid", "ask"),
    [(-1, 10), (10, -1), (-1, -1), (0, 10), (10, 0), (11, 10)],
    ids=["no bid", "no ask", "empty", "zero bid", "zero ask", "crossed"],
)
def test_a_bad_quote_makes_a_row_without_mid_spread_and_imbalance(bid: int, ask: int):
    row = tick(0, bid_qty=1.0, ask_qty=1.0)
    row[col.BID], row[col.ASK] = bid, ask
    oracle = watch(row)
    values = oracle.features_at(0)
    assert unknown(oracle.mid_at(0))
    assert unknown(values["bid_ask_spread"]) and unknown(values["bid_ask_spread_bps"])
    assert unknown(values["book_imbalance"])
    assert "no_mid" in oracle.reasons_at(0)


def test_a_locked_quote_is_good():
    values = last(tick(0, 100.0, spread=0.0))
    assert values["bid_ask_spread"] == 0.0
    assert math.copysign(1.0, values["bid_ask_spread"]) == 1.0


# As-of values.


def test_a_value_exactly_at_the_limit_is_fresh_and_a_nanosecond_later_stale():
    assert last(tick(0, 100.0), tick(70, 101.0))["price_return_1min"] == pytest.approx(0.01)
    assert unknown(last(tick(0, 100.0, nudge_ns=-1), tick(70, 101.0))["price_return_1min"])
    assert not unknown(
        last(tick(0, 100.0, nudge_ns=-1), tick(70, 101.0), stale_after_s=11)["price_return_1min"]
    )


def test_among_equal_times_the_last_in_the_log_speaks():
    assert last(tick(0, 100.0), tick(0, 125.0), tick(60, 150.0))["price_return_1min"] == pytest.approx(0.2)


def test_an_older_good_quote_does_not_stand_in_for_a_bad_one():
    assert unknown(last(tick(0, 100.0), tick(1, None), tick(62, 150.0))["price_return_1min"])


def test_a_value_as_of_a_time_inside_a_gap_is_unknown():
    def change(gap_from: float | None, back_at: float, now: float) -> float:
        back = tick(back_at, 110.0, gap=GapCause.SEQUENCE, gap_from=gap_from)
        return last(tick(0, 100.0), back, tick(now, 121.0))["price_return_1min"]

    assert unknown(change(None, 8, 67))
    assert unknown(change(5, 8, 67))
    assert unknown(change(-20, 8, 67))
    assert change(5, 8, 65) == pytest.approx(0.21)  # The gap is open at its beginning,
    assert change(5, 8, 68) == pytest.approx(0.1)  # and at its end.
    assert change(7.5, 8, 67) == pytest.approx(0.21)
    assert change(9, 8, 67) == pytest.approx(0.21)  # An empty gap.


def test_a_gap_that_holds_no_whole_second_voids_no_return():
    rows = each_second(0, 80)
    rows.insert(41, tick(40.9, 100.0, gap=GapCause.SEQUENCE, gap_from=40.1))
    oracle = watch(*rows)
    assert not unknown(oracle.features_at(81)["realized_volatility_60s"])
    assert unknown(oracle.features_at(81)["trade_intensity"])


def test_a_gap_that_holds_a_whole_second_voids_two_returns():
    rows = [*each_second(0, 40), tick(41.5, 101.0, gap=GapCause.RECONNECT), *each_second(42, 103)]
    oracle = watch(*rows)
    at = {int(oracle.time_at(i) - START_NS) // SECOND: i for i in oracle.accepted}
    assert unknown(
        oracle.features_at(at[52 - 1])["realized_volatility_10s"]
    )  # Needs r(42), that needs m(41).
    assert not unknown(oracle.features_at(at[52])["realized_volatility_10s"])


# The one-second grid.


def test_grid_features_of_alternating_mids_are_known_by_hand():
    values = last(*each_second(0, 300))
    for w in (10, 30, 60):
        assert values[f"realized_volatility_{w}s"] == pytest.approx(STEP * math.sqrt(w / (w - 1)), rel=1e-9)
    assert values["price_volatility_5min"] == pytest.approx(STEP * math.sqrt(300 / 299), rel=1e-9)
    assert values["max_abs_return_10s"] == pytest.approx(STEP, rel=1e-9)
    assert values["mid_range_300s"] == pytest.approx(STEP, rel=1e-12)
    assert values["bipower_volatility_300s"] == pytest.approx(STEP * math.sqrt(math.pi / 2), rel=1e-9)
    assert values["semivolatility_up_300s"] == pytest.approx(STEP * math.sqrt(0.5), rel=1e-9)
    assert values["semivolatility_down_300s"] == pytest.approx(STEP * math.sqrt(0.5), rel=1e-9)
    assert values["ewma_volatility_60s"] == pytest.approx(STEP, rel=1e-9)
    assert values["price_return_1min"] == 0.0
    assert values["price_return_5min"] == 0.0


def test_a_return_is_rounded_to_a_multiple_of_two_to_the_minus_44():
    largest = last(*each_second(0, 10))["max_abs_return_10s"]
    assert (largest * 2**44).is_integer()
    assert abs(largest - STEP) <= 2**-45
    # +STEP lies at 175 054 231 471.16 units, -STEP at the same below zero: both round to the nearest.
    assert largest * 2**44 == round(STEP * 2**44)


def test_the_ewma_weighs_the_mean_squares_of_its_boxes():
    # A single return of STEP, 25 s ago: the boxes of 30, 60 and 120 s hold it.
    rows = [tick(s, 100.0 if s <= 95 else 101.0) for s in range(121)]
    weights = {30: 1252, 60: 305, 120: 6}
    square = sum(weight / 10_000 * STEP**2 / box for box, weight in weights.items())
    assert last(*rows)["ewma_volatility_5s"] == pytest.approx(math.sqrt(square), rel=1e-9)


def test_the_ewma_is_known_when_every_box_with_a_weight_is():
    oracle = watch(*each_second(0, 271))
    # Half-life 5 reaches to 120 s, of which 108 suffice; half-life 15 to 300 s, of which 270 do.
    assert unknown(oracle.features_at(107)["ewma_volatility_5s"])
    assert oracle.features_at(108)["ewma_volatility_5s"] == pytest.approx(STEP, rel=1e-9)
    assert unknown(oracle.features_at(269)["ewma_volatility_15s"])
    assert oracle.features_at(270)["ewma_volatility_15s"] == pytest.approx(STEP, rel=1e-9)


def test_on_a_whole_second_the_newest_tick_gives_that_seconds_mid():
    rows = [tick(s, 100.0) for s in range(11)]
    assert last(*rows)["max_abs_return_10s"] == 0.0
    rows.append(tick(10, 101.0))
    assert last(*rows)["max_abs_return_10s"] == pytest.approx(STEP)
    rows.append(tick(10, 100.0))
    assert last(*rows)["max_abs_return_10s"] == 0.0
    oracle = watch(*rows)
    assert [oracle.features_at(i)["max_abs_return_10s"] > 0 for i in (10, 11, 12)] == [False, True, False]


def test_the_newest_ticks_mid_is_no_part_of_the_grid_between_two_seconds():
    rows = [tick(s, 100.0) for s in range(11)]
    assert last(*rows, tick(10.5, 150.0))["max_abs_return_10s"] == 0.0


def test_seconds_before_the_first_tick_are_unknown():
    assert unknown(last(*each_second(0, 9))["realized_volatility_10s"])
    assert not unknown(last(*each_second(0, 10))["realized_volatility_10s"])


def test_a_window_longer_than_a_minute_needs_nine_tenths_of_at_most_300_seconds():
    assert unknown(last(*each_second(0, 269))["price_volatility_5min"])
    values = last(*each_second(0, 270))
    assert values["price_volatility_5min"] == pytest.approx(STEP * math.sqrt(270 / 269), rel=1e-9)
    assert values["realized_volatility_3600s"] == values["price_volatility_5min"]
    assert values["semivolatility_up_300s"] == pytest.approx(STEP * math.sqrt(0.5), rel=1e-9)
    assert not unknown(values["mid_range_300s"])


def test_the_range_reaches_back_to_the_mid_before_the_first_return():
    rows = [tick(0, 101.0), *(tick(s, 100.0) for s in range(1, 11))]
    assert last(*rows)["mid_range_10s"] == pytest.approx(STEP, rel=1e-12)
    assert last(*rows, tick(11, 100.0))["mid_range_10s"] == 0.0


def test_bipower_leaves_out_pairs_with_an_unknown_return():
    # One void second takes two returns and three pairs; the single return of 2 STEP multiplies only zeros.
    rows = [tick(s, 100.0 + s % 2 if s <= 100 else 100.0) for s in range(301)]
    rows[50] = tick(50, None)
    values = last(*rows)
    pairs = 299 - 3
    # Returns 1..49 and 52..100 are +-STEP, 101 on are 0: 48 + 48 pairs of two steps.
    expected = math.sqrt(math.pi / 2 * 96 * STEP**2 / pairs)
    assert values["bipower_volatility_300s"] == pytest.approx(expected, rel=1e-9)


def test_stale_seconds_are_unknown_on_the_grid():
    rows = [*each_second(0, 60), tick(70, 100.0), *each_second(71, 71)]
    assert not unknown(last(*rows)["realized_volatility_60s"])
    rows = [*each_second(0, 60), tick(71, 100.0), tick(72, 100.0)]
    assert not unknown(last(*rows)["realized_volatility_10s"])  # m(70) is exactly 10 s old.
    rows = [*each_second(0, 60), tick(72, 100.0), tick(73, 100.0)]
    assert unknown(last(*rows)["realized_volatility_10s"])


def test_tau_needs_900_known_volatilities():
    rows = each_second(0, 959)
    oracle = watch(*rows)
    assert unknown(oracle.features_at(958)["tau_rolling"])
    assert oracle.features_at(959)["tau_rolling"] == pytest.approx(STEP * math.sqrt(60 / 59), rel=1e-9)
    assert oracle.reasons_at(958) == {"tau_900s"}
    assert oracle.reasons_at(959) == set()


@pytest.mark.parametrize(("calm_until", "expected"), [(869, 0.0), (868, STEP / math.sqrt(60))])
def test_tau_is_the_810th_smallest_of_900(calm_until: int, expected: float):
    rows = [tick(s, 100.0 if s <= calm_until else 100.0 + (s - calm_until) % 2) for s in range(960)]
    assert last(*rows)["tau_rolling"] == pytest.approx(expected, rel=1e-9)


def test_tau_looks_back_an_hour():
    # Alternating up to 1,000 s, then calm. Of the 3,600 volatilities that end in (t - 3600, t] those up to
    # 1,000 are loud, the 59 after them fade, the rest are 0. The 3,240th smallest is the 361st largest.
    rows = [tick(s, 100.0 + s % 2 if s <= 1_000 else 100.0) for s in range(4_300)]
    oracle = watch(*rows)
    loud = STEP * math.sqrt(60 / 59)
    assert oracle.features_at(4_239)["tau_rolling"] == pytest.approx(loud, rel=1e-9)
    assert 0.0 < oracle.features_at(4_240)["tau_rolling"] < loud * 0.9999
    assert oracle.features_at(4_298)["tau_rolling"] > 0.0
    assert oracle.features_at(4_299)["tau_rolling"] == 0.0


# Windows over ticks.


def test_counts_are_scaled_to_the_known_seconds():
    rows = [
        *(tick(s) for s in range(201)),
        tick(220.5, gap=GapCause.RECONNECT),
        *(tick(s) for s in range(221, 401)),
    ]
    # The gap (200, 220.5) overlaps 21 cells; 281 ticks lie in (100, 400].
    values = last(*rows)
    assert values["tick_intensity_300s"] == pytest.approx(281 * 300 / 279)
    assert values["trade_intensity"] == 60.0
    assert values["tick_intensity_30s"] == 30.0


@pytest.mark.parametrize(("back_at", "known"), [(129.5, True), (130.5, False)])
def test_a_long_count_window_stands_up_to_a_tenth_of_unknown_seconds(back_at: float, known: bool):
    rows = [*(tick(s) for s in range(101)), tick(back_at, gap=GapCause.RECONNECT), tick(310), tick(311)]
    values = last(*rows)
    assert unknown(values["tick_intensity_300s"]) is not known
    if known:
        # Cells 100..129 are unknown; of the ticks 12..100 lie in the window, and three more.
        assert values["tick_intensity_300s"] == pytest.approx(92 * 300 / 270)


def test_a_gap_touches_a_window_of_a_minute_until_its_last_cell_has_left():
    rows = [tick(0), tick(100.2), tick(100.5, gap=GapCause.SEQUENCE), tick(160.9), tick(161)]
    oracle = watch(*rows)
    assert unknown(oracle.features_at(2)["trade_intensity"])
    assert unknown(oracle.features_at(3)["trade_intensity"])
    assert oracle.features_at(4)["trade_intensity"] == 2.0
    assert oracle.features_at(3)["tick_intensity_30s"] == 1.0


def test_a_gap_without_length_touches_nothing():
    rows = [
        tick(0),
        tick(100.5),
        tick(100.5, gap=GapCause.SEQUENCE),
        tick(101, gap=GapCause.SEQUENCE, gap_from=101),
    ]
    assert last(*rows)["trade_intensity"] == 3.0


def test_a_silence_is_known_up_to_3400_seconds():
    assert last(tick(0), tick(3_400))["trade_intensity"] == 1.0
    assert last(tick(0), tick(3_400))["tick_intensity_300s"] == 1.0
    values = last(tick(0, nudge_ns=-1), tick(3_400))
    assert unknown(values["trade_intensity"])
    assert unknown(values["tick_intensity_300s"])


@pytest.mark.parametrize(("first", "known_from"), [(0.0, 60), (0.5, 61)])
def test_the_cell_of_the_first_tick_is_known_only_from_its_first_instant(first: float, known_from: int):
    assert unknown(last(tick(first), tick(known_from - 0.5))["trade_intensity"])
    assert not unknown(last(tick(first), tick(known_from))["trade_intensity"])


def test_a_window_leaves_out_its_beginning_and_holds_its_end():
    assert last(tick(0), tick(40), tick(40.5), tick(100), tick(100))["trade_intensity"] == 3.0


def test_a_snapshot_counts_in_no_intensity_and_no_volume_but_in_means():
    rows = [
        tick(0, spread=0.02, volume_24h=10),
        tick(90, spread=0.04, volume_24h=11, last_size=1, snapshot=True),
        tick(95, spread=0.02, volume_24h=13),
    ]
    values = last(*rows)
    assert values["trade_intensity"] == 1.0
    assert values["volume_60s"] == 2.0
    assert values["bid_ask_spread_mean_60s"] == pytest.approx(0.03)


def test_volume_is_the_last_size_else_the_increase_of_the_days_volume():
    rows = [
        tick(0, price=100, volume_24h=50),
        tick(50, price=100, volume_24h=10.0),  # The tick before is stale: none.
        tick(51, price=102, volume_24h=11.5),  # 1.5
        tick(52, price=104, volume_24h=14.0, last_size=0.5),  # 0.5, reported.
        tick(53, price=104, volume_24h=13.0),  # Not an increase: none.
        tick(54, price=104, volume_24h=None),  # Unknown: none.
        tick(55, price=104, volume_24h=20.0),  # The one before is unknown: none.
        tick(56, price=104, volume_24h=30.0, gap=GapCause.OVERFLOW, gap_from=56),  # After a gap: none.
        tick(57, price=None, volume_24h=32.0),  # 2, without a price.
        tick(67, mid=110, price=110, volume_24h=36.0),  # 4: exactly 10 s are fresh.
        tick(67, mid=110, price=109, volume_24h=40.0, last_size=0.0),  # A size of nothing is a size.
    ]
    values = last(*rows)
    assert values["volume_60s"] == pytest.approx(8.0)
    assert values["volume_30s"] == pytest.approx(8.0)
    vwap = (102 * 1.5 + 104 * 0.5 + 110 * 4) / 6
    assert values["vwap_60s"] == pytest.approx(vwap)
    assert values["vwap_deviation_60s"] == pytest.approx(110 / vwap - 1)
    assert unknown(values["volume_reported_share_300s"])  # Too few seconds known.
    late = [*rows, *(tick(s, volume_24h=40.0) for s in range(77, 300, 10))]
    assert last(*late)["volume_reported_share_300s"] == pytest.approx(0.5 / 8)


def test_without_volume_there_is_no_vwap_and_no_share():
    values = last(tick(0), tick(300))
    assert values["volume_300s"] == 0.0
    assert unknown(values["vwap_300s"]) and unknown(values["vwap_deviation_300s"])
    assert unknown(values["volume_reported_share_300s"])


def test_a_large_quantity_keeps_its_last_decimal():
    row, more = tick(0), tick(1)
    row[col.VOLUME_24H_U], row[col.VOLUME_24H_F] = 10**12, 99_999_999
    more[col.VOLUME_24H_U], more[col.VOLUME_24H_F] = 10**12 + 1, 0
    oracle = watch(row, more, tick(31, last_size=0.0))
    assert unknown(oracle.features_at(1)["volume_30s"])
    assert oracle.features_at(2)["volume_30s"] == 0.0
    assert watch(tick(-40), row, more).features_at(2)["volume_30s"] == 1e-8


def test_means_are_over_the_ticks_with_a_good_quote():
    rows = [
        tick(0),
        tick(100, 100.0, spread=0.02, bid_qty=3, ask_qty=1),
        tick(101, None, bid_qty=9, ask_qty=0),
        tick(102, 200.0, spread=0.08, bid_qty=0, ask_qty=0),
        tick(103, 200.0, spread=0.08, bid_qty=1, ask_qty=None),
        tick(104, 100.0, spread=0.06, bid_qty=1, ask_qty=3),
        tick(105, None),
    ]
    values = last(*rows)
    assert values["bid_ask_spread_mean_30s"] == pytest.approx(0.06)
    assert values["bid_ask_spread_bps_mean_30s"] == pytest.approx((2 + 4 + 4 + 6) / 4)
    assert values["book_imbalance_mean_30s"] == 0.0
    assert unknown(values["bid_ask_spread"])
    assert unknown(last(tick(0), tick(100, None))["bid_ask_spread_mean_30s"])


def test_changes_are_against_the_value_then():
    rows = [tick(0, spread=0.02), tick(31, spread=0.08, bid_qty=3, ask_qty=1)]
    values = last(*rows)
    assert values["bid_ask_spread_change_30s"] == pytest.approx(0.06)
    assert values["bid_ask_spread_bps_change_30s"] == pytest.approx(6.0)
    assert values["bid_ask_spread_bps"] == pytest.approx(8.0)
    assert values["book_imbalance"] == 0.5
    assert unknown(values["bid_ask_spread_change_60s"])


def test_the_days_volume_is_compared_with_five_minutes_ago():
    def change(before: float | None, after: float | None) -> float:
        return last(tick(0, volume_24h=before), tick(305, volume_24h=after))["volume_24h_pct_change"]

    assert change(80, 82) == pytest.approx(2.5)
    assert unknown(change(0, 82)) and unknown(change(None, 82)) and unknown(change(80, None))


# Others.


def test_the_price_age_counts_from_the_last_change():
    rows = [
        tick(0, price=100),
        tick(1, price=101),
        tick(4, price=None),
        tick(8, price=101),
        tick(9.5, price=101),
    ]
    oracle = watch(*rows)
    assert unknown(oracle.features_at(0)["seconds_since_price_change"])
    ages = [oracle.features_at(i)["seconds_since_price_change"] for i in range(1, 5)]
    assert ages == [0.0, 3.0, 7.0, 8.5]


def test_a_gap_or_a_stale_spell_forgets_the_last_price_change():
    rows = [tick(0, price=100), tick(1, price=101)]
    assert last(*rows, tick(11, price=101))["seconds_since_price_change"] == 10.0
    assert unknown(last(*rows, tick(11, price=101, nudge_ns=1))["seconds_since_price_change"])
    assert unknown(last(*rows, tick(2, price=101, gap=GapCause.SEQUENCE))["seconds_since_price_change"])


def test_the_first_tick_after_a_break_is_no_price_change():
    rows = [tick(0, price=100), tick(1, price=101), tick(30, price=150), tick(31, price=150)]
    oracle = watch(*rows)
    assert unknown(oracle.features_at(2)["seconds_since_price_change"])
    assert unknown(oracle.features_at(3)["seconds_since_price_change"])


def test_a_price_that_comes_back_different_has_changed_then():
    rows = [tick(0, price=100), tick(5, price=None), tick(10, price=101), tick(12, price=101)]
    assert last(*rows)["seconds_since_price_change"] == 2.0


def test_the_price_age_is_3600_after_an_hour_without_a_change():
    rows = [tick(s) for s in range(0, 3_700, 10)]
    oracle = watch(*rows)
    assert unknown(oracle.features_at(359)["seconds_since_price_change"])
    assert oracle.features_at(360)["seconds_since_price_change"] == 3_600.0
    assert oracle.features_at(365)["seconds_since_price_change"] == 3_600.0
    changed = [tick(0, price=99), *(tick(s) for s in range(10, 3_700, 10))]
    assert watch(*changed).features_at(359)["seconds_since_price_change"] == 3_580.0
    assert watch(*changed).features_at(369)["seconds_since_price_change"] == 3_600.0


def test_levels_and_clock_come_from_the_tick_alone():
    values = last(tick(45_900, 110.0, low=100, high=120))
    assert values["distance_low_24h"] == pytest.approx(0.1)
    assert values["distance_high_24h"] == pytest.approx(110 / 120 - 1)
    assert values["minute_of_hour_phase"] == 0.75
    assert values["hour_of_day_phase"] == 45_900 / 86_400


def test_reasons_name_what_a_row_lacks():
    oracle = watch(*each_second(0, 270), tick(271, None))
    assert oracle.reasons_at(0) == {"unknown_second_60s", "history_300s", "tau_900s"}
    assert oracle.reasons_at(60) == {"history_300s", "tau_900s"}
    assert oracle.reasons_at(270) == {"tau_900s"}
    assert oracle.reasons_at(271) == {"no_mid", "unknown_second_60s", "tau_900s"}


# The label.


def test_the_label_is_the_volatility_of_the_minute_after_the_next_whole_second():
    rows = [*(tick(s, 100.0) for s in range(0, 101)), *(tick(s, 101.0) for s in range(101, 170))]
    rows.insert(41, tick(40.5, 100.0))
    oracle = watch(*rows)
    at = {(oracle.time_at(i) - START_NS) / SECOND: i for i in oracle.accepted}
    one = STEP / math.sqrt(60)
    assert oracle.sigma_future_at(at[40]) == 0.0  # The 60 returns of 41..100.
    assert oracle.sigma_future_at(at[40.5]) == pytest.approx(one, rel=1e-9)  # 42..101.
    assert oracle.sigma_future_at(at[41]) == pytest.approx(one, rel=1e-9)
    assert oracle.sigma_future_at(at[100]) == pytest.approx(one, rel=1e-9)  # 101..160.
    assert oracle.sigma_future_at(at[101]) == 0.0


def test_the_label_is_unknown_until_a_later_tick_has_come():
    rows = each_second(0, 60)
    assert unknown(watch(*rows).sigma_future_at(0))
    assert unknown(watch(*rows, tick(60, 100.0)).sigma_future_at(0))
    known = watch(*rows, tick(60, 100.0, nudge_ns=1))
    assert known.sigma_future_at(0) == pytest.approx(STEP * math.sqrt(60 / 59), rel=1e-9)
    assert known.spike_at(0) is None  # tau is unknown.


def test_the_label_is_unknown_when_one_of_its_61_mids_is():
    rows = each_second(0, 65)
    for void, lost in ((0, True), (1, True), (60, True), (61, False)):
        holed = list(rows)
        holed[void] = tick(void, None)
        assert unknown(watch(*holed).sigma_future_at(0)) is lost


def test_the_label_is_unknown_when_its_minute_ends_inside_a_gap():
    rows = each_second(0, 59)
    assert unknown(watch(*rows, tick(60.5, gap=GapCause.SEQUENCE)).sigma_future_at(0))
    assert not unknown(watch(*rows, tick(60.5)).sigma_future_at(0))


def test_the_label_is_unknown_across_a_clock_reset():
    oracle = watch(*each_second(0, 50), *each_second(10, 120))
    assert unknown(oracle.sigma_future_at(0))
    assert not unknown(oracle.sigma_future_at(51))


def test_a_volatility_that_equals_tau_is_a_spike():
    oracle = watch(*each_second(0, 1_030))
    assert oracle.spike_at(959) is True
    calm = watch(*each_second(0, 960), *(tick(s, 100.0) for s in range(961, 1_030)))
    assert calm.spike_at(960) is False


# The whole.


def test_a_row_says_every_feature_in_the_tables_order():
    assert tuple(last(tick(0))) == FEATURE_NAMES


def test_no_value_depends_on_ticks_after_it():
    ticks = quiet_and_busy_stream(11, 2_500, 2.0, **EVERYTHING)
    whole = Oracle(ticks)
    for i in whole.accepted[50 :: len(whole.accepted) // 12]:
        until = Oracle(ticks[: i + 1])
        np.testing.assert_array_equal(
            list(whole.features_at(i).values()), list(until.features_at(i).values())
        )
        assert whole.reasons_at(i) == until.reasons_at(i)


@pytest.mark.parametrize("seed", range(3))
def test_no_value_depends_on_ticks_older_than_the_look_back(seed: int):
    odd = EVERYTHING | {"gap": 0.002, "hole": 0.002, "far_backward": 0.0, "clock": 0.0}
    ticks = quiet_and_busy_stream(seed, 6_000, 1.0, **odd)
    whole = Oracle(ticks)
    for i in whole.accepted[:: len(whole.accepted) // 15]:
        first = next(k for k in whole.accepted if whole.time_at(k) >= whole.time_at(i) - LOOK_BACK_S * SECOND)
        recent = Oracle(ticks[first : i + 1], conn_offset=whole.conn_offset)
        np.testing.assert_array_equal(
            list(whole.features_at(i).values()), list(recent.features_at(i - first).values())
        )


def test_a_stream_is_the_same_for_the_same_seed_only():
    first = quiet_and_busy_stream(3, 200, 3.0, **EVERYTHING)
    assert np.array_equal(first, quiet_and_busy_stream(3, 200, 3.0, **EVERYTHING))
    assert not np.array_equal(first[:100], quiet_and_busy_stream(4, 200, 3.0, **EVERYTHING)[:100])


def test_a_stream_without_oddities_has_none():
    ticks = quiet_and_busy_stream(5, 2_000, 3.0)
    oracle = Oracle(ticks)
    assert 2_000 < len(ticks) < 15_000
    assert oracle.accepted == list(range(len(ticks)))
    assert not any(oracle.clamped) and not any(oracle.clock)
    assert (ticks[:, col.GAP_CAUSE] == GapCause.NONE).all()
    assert (ticks[:, col.BID] > 0).all() and (ticks[:, col.BID] < ticks[:, col.ASK]).all()
    assert (ticks[:, col.BID : col.ASK + 1] % 10**6 == 0).all()
    assert (ticks[:, col.LAST_SIZE_U] == col.UNKNOWN).all()


def test_a_stream_with_all_oddities_has_every_one():
    ticks = quiet_and_busy_stream(
        6, 5_000, 3.0, **(EVERYTHING | {"gap": 0.005, "hole": 0.003, "far_backward": 0.001, "clock": 0.001})
    )
    oracle = Oracle(ticks)
    bid, ask = ticks[:, col.BID], ticks[:, col.ASK]
    seen = Counter(oracle.outcome)
    assert min(seen["row"], seen["duplicate"], seen["ahead"]) > 10
    assert any(oracle.clamped) and any(oracle.clock)
    assert set(ticks[:, col.GAP_CAUSE].tolist()) == set(GapCause)
    assert (bid == -1).any() and (bid == 0).any() and (ask == -1).any() and (bid > ask).any()
    for column in (col.PRICE, col.VOLUME_24H_U, col.LAST_SIZE_U, col.BID_QTY_U, col.LOW_24H):
        assert 0 < (ticks[:, column] == col.UNKNOWN).mean() < 1
    assert (ticks[:, col.TS_RECV] == col.NO_TIME).any()
    assert ticks[:, col.SNAPSHOT].any()
    assert len(set(ticks[:, col.CONN].tolist())) > 2
    times = np.array([oracle.time_at(i) for i in oracle.accepted])
    steps = np.diff(times)
    assert (steps == 0).any() and (times % SECOND == 0).any()
    assert (
        (steps == 10 * SECOND).any() and (steps == 10 * SECOND + 1).any() and (steps > 3_400 * SECOND).any()
    )
