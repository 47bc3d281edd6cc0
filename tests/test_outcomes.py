import doctest
import math
from fractions import Fraction
from statistics import median

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from richter.errors import ContractError
from richter.models import outcomes
from richter.models.outcomes import AlertSummary, Outcome, alert_outcomes, summarise_alerts

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND
NAN = math.nan


def test_the_examples_in_the_docstrings_hold():
    assert doctest.testmod(outcomes).failed == 0


# A recording of one product whose volatility at each whole second is given: rows, labels, and an oracle.


class Recording:
    def __init__(self, offsets_ns, volatility, tau):
        # volatility: whole second after the start -> value, NaN where unknown.
        self.ts = START + np.array(offsets_ns, dtype=np.int64)
        self.volatility = volatility
        self.tau = np.full(self.ts.size, tau)
        floors = [int(t) // SECOND for t in offsets_ns]
        ceilings = [-(-int(t) // SECOND) for t in offsets_ns]
        end = offsets_ns[-1]
        self.sigma = np.array([volatility.get(s, NAN) for s in floors])
        self.sigma_future = np.array(
            [volatility.get(c + 60, NAN) if end > (c + 60) * SECOND else NAN for c in ceilings]
        )

    def outcomes(self, onsets):
        return alert_outcomes(
            self.ts, self.sigma, self.tau, self.sigma_future, np.array(onsets, dtype=np.int64)
        )

    def summary(self, onsets):
        return summarise_alerts(self.ts, self.tau, self.sigma_future, self.outcomes(onsets))


def naive_outcome(ts, sigma, tau, sigma_future, row):
    t, threshold = Fraction(int(ts[row]), SECOND), tau[row]
    hit = None
    if not math.isnan(sigma_future[row]) and not math.isnan(threshold):
        hit = bool(sigma_future[row] >= threshold)
    if sigma[row] >= threshold:
        return Outcome(row, hit, 0.0)
    first = row
    while first > 0 and ts[first - 1] <= ts[first]:
        first -= 1
    end = row + 1
    while end < len(ts) and ts[end] >= ts[end - 1]:
        end += 1
    for s in range(math.floor(t) + 1, math.ceil(t) + 61):
        value = NAN
        for i in range(first, end):
            if math.ceil(Fraction(int(ts[i]), SECOND)) + 60 == s and not math.isnan(sigma_future[i]):
                value = sigma_future[i]
        for i in range(first, end):
            final = ts[i] != s * SECOND or ts[end - 1] > s * SECOND
            if int(ts[i]) // SECOND == s and final and not math.isnan(sigma[i]):
                value = sigma[i]
        if value >= threshold:
            return Outcome(row, hit, float(s - t))
    return Outcome(row, hit, None)


def naive_episodes(ts, tau, sigma_future):
    episodes, segment = [], 0
    for i in range(len(ts)):
        segment += i > 0 and ts[i] < ts[i - 1]
        if sigma_future[i] >= tau[i]:
            t = int(ts[i])
            if episodes and episodes[-1][0] == segment and t - episodes[-1][2] < 60 * SECOND:
                episodes[-1][2] = t
            else:
                episodes.append([segment, t, t])
    return episodes


def naive_summary(ts, tau, sigma_future, found):
    segments = np.concatenate(([0], np.cumsum(np.diff(ts) < 0))) if len(ts) else []
    episodes = naive_episodes(ts, tau, sigma_future)

    def caught(chosen):
        return sum(
            any(
                segments[o.index] == segment and start - 60 * SECOND <= ts[o.index] <= end
                for o in found
                if chosen(o)
            )
            for segment, start, end in episodes
        )

    known = [o.hit for o in found if o.hit is not None]
    leads = [o.lead_s for o in found if o.lead_s is not None]
    any_, early = caught(lambda o: True), caught(lambda o: o.lead_s is not None and o.lead_s >= 30)
    return AlertSummary(
        onsets=len(found),
        unknown=sum(o.hit is None for o in found),
        hits=known.count(True),
        precision=known.count(True) / len(known) if known else None,
        episodes=len(episodes),
        caught=any_,
        caught_early=early,
        recall=any_ / len(episodes) if episodes else None,
        recall_early=early / len(episodes) if episodes else None,
        median_lead_s=median(leads) if leads else None,
    )


@st.composite
def tables(draw):
    steps = st.sampled_from(
        [0, 1, SECOND // 2, SECOND, SECOND, 3 * SECOND, 40 * SECOND, 70 * SECOND, -5 * SECOND]
    )
    n = draw(st.integers(0, 40))
    ts = START + np.cumsum([draw(steps) for _ in range(n)], dtype=np.int64)
    value = st.sampled_from([NAN, 0.5, 1.0, 1.5, 2.0])
    columns = [np.array([draw(value) for _ in range(n)], dtype=np.float64) for _ in range(3)]
    onsets = sorted(draw(st.sets(st.integers(0, n - 1)))) if n else []
    return (ts, *columns), np.array(onsets, dtype=np.int64)


@settings(max_examples=300)
@given(tables())
def test_outcomes_and_summary_are_those_of_a_naive_reading(table):
    (ts, sigma, tau, sigma_future), onsets = table

    found = alert_outcomes(ts, sigma, tau, sigma_future, onsets)

    assert found == [naive_outcome(ts, sigma, tau, sigma_future, row) for row in onsets.tolist()]
    assert summarise_alerts(ts, tau, sigma_future, found) == naive_summary(ts, tau, sigma_future, found)


def flat(seconds, spikes=(), level=1.0, high=3.0):
    values = dict.fromkeys(range(seconds), level)
    for spike in spikes:
        values[spike] = high
    return values


def half_seconds(seconds):
    return [s * SECOND + SECOND // 2 for s in range(seconds)]


def test_a_hit_is_the_label_of_the_onsets_row():
    # The label of 10.5 s ends at 71 s.
    recording = Recording(half_seconds(200), flat(200, spikes=[71]), tau=2.0)

    assert [outcome.hit for outcome in recording.outcomes([9, 10, 11])] == [False, True, False]


def test_a_volatility_of_exactly_tau_is_a_hit():
    recording = Recording(half_seconds(200), flat(200, spikes=[71], high=2.0), tau=2.0)

    assert recording.outcomes([10]) == [Outcome(10, True, 60.5)]


def test_a_hit_is_unknown_while_its_label_or_its_threshold_is():
    recording = Recording(half_seconds(100), flat(100), tau=2.0)
    assert [o.hit for o in recording.outcomes([38, 39])] == [False, None]

    recording.tau[:] = NAN
    assert recording.outcomes([10]) == [Outcome(10, None, None)]


def test_the_lead_ends_at_the_first_later_whole_second_that_reaches_tau():
    recording = Recording(half_seconds(200), flat(200, spikes=[10, 30, 31]), tau=2.0)

    leads = {o.index: o.lead_s for o in recording.outcomes([9, 10, 11, 29, 30, 31, 32])}

    assert leads == {9: 0.5, 10: 0.0, 11: 18.5, 29: 0.5, 30: 0.0, 31: 0.0, 32: None}


def test_on_a_whole_second_the_lead_looks_at_later_ones_only_and_as_far_as_the_label():
    offsets = [s * SECOND for s in range(200)]

    leads = [
        Recording(offsets, flat(200, spikes=[spike]), tau=2.0).outcomes([10])[0].lead_s
        for spike in (69, 70, 71)
    ]

    assert leads == [59.0, 60.0, None]


def test_a_second_without_a_row_is_known_from_the_label_that_ends_at_it():
    offsets = [t for t in half_seconds(200) if t // SECOND != 100]
    recording = Recording(offsets, flat(200, spikes=[100]), tau=2.0)

    assert recording.outcomes([80])[0].lead_s == 19.5


def test_the_volatility_of_the_last_tick_is_not_final_when_it_lies_on_the_second():
    values = flat(11, spikes=[10])

    on_the_second = Recording([5 * SECOND, 10 * SECOND], values, tau=2.0)
    past_it = Recording([5 * SECOND, 10 * SECOND + 1], values, tau=2.0)

    assert on_the_second.outcomes([0]) == [Outcome(0, None, None)]
    assert past_it.outcomes([0]) == [Outcome(0, None, 5.0)]


def test_nothing_is_measured_across_a_clock_that_steps_back():
    ts = START + SECOND * np.array([10, 11, 12, 5, 12, 14]) + 1
    sigma = np.array([1.0, 1.0, 1.0, 1.0, 3.0, 3.0])
    tau, sigma_future = np.full(6, 2.0), np.array([1.0, 1.0, 1.0, 3.0, 3.0, 3.0])

    found = alert_outcomes(ts, sigma, tau, sigma_future, np.array([0, 3]))

    assert [outcome.lead_s for outcome in found] == [None, pytest.approx(7, abs=1e-6)]
    assert summarise_alerts(ts, tau, sigma_future, found[:1]).caught == 0
    assert summarise_alerts(ts, tau, sigma_future, found[1:]).caught == 1
    # Negative control: in one segment the same rows have a lead.
    ts = START + SECOND * np.array([10, 11, 12, 12, 13, 14]) + 1
    assert alert_outcomes(ts, sigma, tau, sigma_future, np.array([0]))[0].lead_s is not None


def test_a_later_price_beyond_the_horizon_changes_no_outcome():
    early = Recording(half_seconds(200), flat(200, spikes=[50]), tau=2.0)
    late = Recording(half_seconds(200), flat(200, spikes=[50, *range(72, 200)]), tau=2.0)

    assert early.outcomes([5, 10]) == late.outcomes([5, 10])
    assert early.outcomes([5, 12]) != late.outcomes([5, 12])


def episodes_of(ones, n=400):
    ts = START + SECOND * np.arange(n)
    labels = np.zeros(n)
    labels[list(ones)] = 1.0
    return ts, np.full(n, 1.0), labels


def caught_by(ones, onset):
    summary = summarise_alerts(*episodes_of(ones), [Outcome(onset, None, None)])
    return summary.episodes, summary.caught


def test_label_ones_less_than_60_s_apart_are_one_episode():
    assert caught_by([100, 159], 0)[0] == 1
    assert caught_by([100, 160], 0)[0] == 2


def test_an_episode_is_caught_from_60_s_before_it_to_its_end():
    caught = [caught_by([100, 120], onset)[1] for onset in (39, 40, 100, 120, 121)]

    assert caught == [0, 1, 1, 1, 0]


def test_one_onset_can_catch_two_episodes_and_two_onsets_one():
    ts, tau, labels = episodes_of([100, 160])
    both = summarise_alerts(ts, tau, labels, [Outcome(100, True, 0.0)])
    once = summarise_alerts(ts, tau, labels, [Outcome(98, True, 0.0), Outcome(99, True, 1.0)])

    assert (both.episodes, both.caught) == (2, 2)
    assert (once.episodes, once.caught) == (2, 1)


def test_recall_is_quoted_with_leads_worth_having():
    ts, tau, labels = episodes_of([100, 300])
    found = [Outcome(90, True, 29.999), Outcome(290, True, 30.0), Outcome(380, False, None)]

    summary = summarise_alerts(ts, tau, labels, found)

    assert (summary.recall, summary.recall_early) == (1.0, 0.5)
    assert summary.precision == 2 / 3
    assert summary.median_lead_s == pytest.approx(29.9995)


def test_unknown_outcomes_do_not_count_in_the_precision():
    ts, tau, labels = episodes_of([100])
    found = [Outcome(90, True, 5.0), Outcome(399, None, None)]

    summary = summarise_alerts(ts, tau, labels, found)

    assert (summary.onsets, summary.unknown, summary.hits, summary.precision) == (2, 1, 1, 1.0)


def test_a_table_without_rows_onsets_or_spikes_has_no_shares():
    empty = np.empty(0)

    none = summarise_alerts(empty.astype(np.int64), empty, empty, [])
    quiet = summarise_alerts(*episodes_of([]), [])

    expected = AlertSummary(0, 0, 0, None, 0, 0, 0, None, None, None)
    assert (none, quiet) == (expected, expected)


@pytest.mark.parametrize("onsets", [[-1], [3], [1, 1], [2, 1]])
def test_onsets_that_are_no_ascending_rows_are_refused(onsets):
    column = np.ones(3)

    with pytest.raises(ContractError):
        alert_outcomes(START + np.arange(3), column, column, column, np.array(onsets))


def test_columns_of_different_length_are_refused():
    column = np.ones(3)

    with pytest.raises(ContractError):
        alert_outcomes(START + np.arange(3), column, column[:2], column, np.array([0]))
