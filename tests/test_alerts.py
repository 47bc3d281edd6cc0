import doctest
import json
import math
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise, product

import msgspec
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from richter.errors import ConfigError, ContractError
from richter.models import alerts
from richter.models.alert_kernel import TOKEN, TRANSITIONS, Edge, Move, Phase, Signal, advance
from richter.models.alert_log import Alert, alert_id, decode_alert, encode_alert
from richter.models.alerts import AlertKind, AlertMachine, AlertPolicy, AlertState, Transition
from richter.models.rule import rule_ratio, rule_z

SECOND = 1_000_000_000
HOUR = 3600 * SECOND
START = 1_700_000_000 * SECOND
NAN = math.nan


# An independent machine: Fractions of tokens, plain ifs, no table.
@dataclass
class Naive:
    policy: AlertPolicy

    def __post_init__(self):
        self.most = Fraction(self.policy.burst or self.policy.budget_per_hour)
        self.alerting, self.onset, self.tokens, self.time = False, None, self.most, None
        self.held = 0

    def step(self, t, score):
        if math.isnan(score) or math.isinf(score):
            return None
        new_segment = self.time is not None and self.time - t > 2 * SECOND
        tokens = self.tokens
        if self.time is not None and not new_segment:
            tokens += Fraction(max(t - self.time, 0) * self.policy.budget_per_hour, HOUR)
            tokens = min(tokens, self.most)
        kind = None
        if self.alerting and score < self.policy.off:
            kind, self.alerting = "clear", False
            if new_segment:
                self.onset = None
        elif not self.alerting and score >= self.policy.on:
            rested = self.onset is None or new_segment or t - self.onset >= self.policy.cooldown_s * SECOND
            if not rested or tokens < 1:
                self.held += 1
                return None
            kind, self.alerting, self.onset = "onset", True, t
            tokens -= 1
        if kind is None:
            return None
        self.tokens = tokens
        self.time = t if self.time is None or new_segment else max(self.time, t)
        return kind, self.alerting, self.onset, self.tokens, self.time


def told(kind, state):
    tokens = Fraction(state.bucket, TOKEN)
    return str(kind), state.phase is Phase.ALERTING, state.last_onset, tokens, state.ts_event


policies = st.builds(
    AlertPolicy,
    cooldown_s=st.sampled_from([0, 1, 60, 600]),
    budget_per_hour=st.sampled_from([1, 2, 6, 7, 360, 100_000]),
    burst=st.sampled_from([None, 1, 2, 3]),
)

FORWARDS = [0, 1, SECOND, 59 * SECOND, 60 * SECOND, 600 * SECOND, HOUR // 7, HOUR, 10 * HOUR]
BACKWARDS = [-1, -SECOND, -2 * SECOND, -2 * SECOND - 1, -60 * SECOND, -HOUR]

steps_ns = st.sampled_from(FORWARDS + BACKWARDS) | st.integers(-5 * SECOND, 300 * SECOND)

scores = st.sampled_from(
    [NAN, math.inf, -math.inf, 0.0, math.nextafter(0.8, 0), 0.8, 0.9, math.nextafter(1.0, 0), 1.0, 1.5]
)


@st.composite
def tick_streams(draw, steps=steps_ns, max_size=60):
    pairs = draw(st.lists(st.tuples(steps, scores), max_size=max_size))
    ts = START + np.cumsum([step for step, _ in pairs], dtype=np.int64)
    return ts, np.array([score for _, score in pairs], dtype=np.float64)


def seeded_stream(seed, n=400):
    # A wild one: binding cooldown and budget, unknown scores, clocks that step back a little and a lot.
    rng = np.random.default_rng(seed)
    pauses = rng.choice([0, 1800 * SECOND], n, p=[0.95, 0.05])
    ts = START + np.cumsum(rng.integers(0, 20 * SECOND, n) + pauses)
    for place in rng.integers(1, n, 8):
        ts[place:] -= rng.integers(0, 4 * SECOND) if place % 2 else rng.integers(0, HOUR)
    values = rng.choice([0.5, 0.9, 1.2, NAN], n, p=[0.4, 0.15, 0.4, 0.05])
    return ts, values


TIGHT = AlertPolicy(cooldown_s=60, budget_per_hour=4, burst=2)


def run(policy, ts, values, state=None):
    machine = AlertMachine(policy, state)
    return machine.run(ts, values), machine


def log_of(policy, ts, values):
    events, _ = run(policy, ts, values)
    return list(zip(events.indices.tolist(), events.kinds, events.states, strict=True))


def restarted_log(policy, ts, values, position, restore):
    before = [entry for entry in log_of(policy, ts, values) if entry[0] < position]
    state = restore(before[-1][2]) if before else None
    after, _ = run(policy, ts[position:], values[position:], state)
    return before + [
        (index + position, kind, state)
        for index, kind, state in zip(after.indices.tolist(), after.kinds, after.states, strict=True)
    ]


def sliding_most(times, window):
    return max((sum(t <= other <= t + window for other in times) for t in times), default=0)


def test_the_examples_in_the_docstrings_hold():
    assert doctest.testmod(alerts).failed == 0


# The table


def unlisted(table):
    return set(product(Phase, Signal)) - set(table)


def test_every_phase_and_signal_is_in_the_table():
    assert unlisted(TRANSITIONS) == set()
    assert len(TRANSITIONS) == 8


def test_a_table_with_a_missing_entry_is_noticed():
    key = (Phase.ALERTING, Signal.UNKNOWN)

    assert unlisted({k: edge for k, edge in TRANSITIONS.items() if k != key}) == {key}


def test_a_phase_changes_with_an_event_and_only_then():
    for (phase, _), edge in TRANSITIONS.items():
        assert (edge.move is not Move.STAY) == (edge.phase is not phase)


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize(
    ("score", "signal"),
    [
        (NAN, Signal.UNKNOWN),
        (math.inf, Signal.UNKNOWN),
        (-math.inf, Signal.UNKNOWN),
        (-1.0, Signal.BELOW),
        (math.nextafter(0.8, 0), Signal.BELOW),
        (0.8, Signal.BETWEEN),
        (math.nextafter(1.0, 0), Signal.BETWEEN),
        (1.0, Signal.ABOVE),
        (9.0, Signal.ABOVE),
    ],
)
def test_the_machine_does_what_the_table_says(phase, score, signal):
    edge = TRANSITIONS[phase, signal]
    machine = AlertMachine(AlertPolicy(), AlertState(phase, None, 6 * TOKEN, START))

    event = machine.step(START + SECOND, score)

    assert machine.state.phase is edge.phase
    assert (Move.STAY if event is None else Move[event.kind.name]) is edge.move


def test_the_table_is_closed_to_writers():
    with pytest.raises(TypeError):
        TRANSITIONS[Phase.QUIET, Signal.ABOVE] = Edge(Move.STAY, Phase.QUIET)


# Against the oracle, and batch against steps


@given(policies, tick_streams())
def test_events_are_those_of_a_naive_machine(policy, stream):
    ts, values = stream
    naive = Naive(policy)
    expected = [
        (row, *event)
        for row, tick in enumerate(zip(ts.tolist(), values.tolist(), strict=True))
        if (event := naive.step(*tick))
    ]

    events, machine = run(policy, ts, values)

    rows = zip(events.indices.tolist(), events.kinds, events.states, strict=True)
    assert [(row, *told(kind, state)) for row, kind, state in rows] == expected
    assert machine.held_by_cooldown + machine.held_by_budget == naive.held


@pytest.mark.parametrize("seed", range(20))
def test_events_of_a_long_wild_stream_are_those_of_a_naive_machine(seed):
    ts, values = seeded_stream(seed)
    naive = Naive(TIGHT)
    expected = [
        (row, *event)
        for row, tick in enumerate(zip(ts.tolist(), values.tolist(), strict=True))
        if (event := naive.step(*tick))
    ]

    events, machine = run(TIGHT, ts, values)

    rows = zip(events.indices.tolist(), events.kinds, events.states, strict=True)
    assert [(row, *told(kind, state)) for row, kind, state in rows] == expected
    assert machine.held_by_budget > 0
    assert machine.held_by_cooldown > 0


def test_the_oracle_notices_an_inexact_bucket():
    # Negative control: one unit of 3.6e12 less.
    ts, values = seeded_stream(0)
    events, _ = run(TIGHT, ts, values)
    naive = Naive(TIGHT)
    ticks = zip(ts.tolist(), values.tolist(), strict=True)
    expected = next(event for tick in ticks if (event := naive.step(*tick)))

    state = msgspec.structs.replace(events.states[0], bucket=events.states[0].bucket - 1)

    assert told(events.kinds[0], events.states[0]) == expected
    assert told(events.kinds[0], state) != expected


@given(policies, tick_streams(), st.lists(st.integers(0, 60), max_size=4))
def test_a_batch_equals_its_ticks_one_by_one_however_it_is_cut(policy, stream, cuts):
    ts, values = stream
    stepper = AlertMachine(policy)
    stepped = [
        (row, event.kind, event.state)
        for row in range(ts.size)
        if (event := stepper.step(int(ts[row]), float(values[row])))
    ]
    batcher = AlertMachine(policy)
    edges = [0, *sorted(min(cut, ts.size) for cut in cuts), ts.size]

    batched = []
    for first, end in pairwise(edges):
        events = batcher.run(ts[first:end], values[first:end])
        batched += zip((events.indices + first).tolist(), events.kinds, events.states, strict=True)

    assert batched == stepped
    assert batcher.state == stepper.state
    held = (batcher.held_by_cooldown, batcher.held_by_budget)
    assert held == (stepper.held_by_cooldown, stepper.held_by_budget)


def test_the_compiled_step_is_its_own_source():
    source = getattr(advance, "py_func", advance)
    rng = np.random.default_rng(5)
    rules = (1.0, 0.8, 60 * SECOND, 4, 2 * TOKEN)

    for _ in range(2000):
        ts_event = START if rng.random() < 0.9 else -1
        onset = START - int(rng.integers(0, 90 * SECOND)) if rng.random() < 0.8 else -1
        state = (int(rng.integers(2)), onset, int(rng.integers(0, 2 * TOKEN + 1)), ts_event)
        tick = (START + int(rng.integers(-4 * SECOND, HOUR)), float(rng.choice([0.5, 0.9, 1.1, NAN])))

        assert advance(*tick, state, rules) == source(*tick, state, rules)


def test_a_step_tells_the_tick_and_the_state_after_it():
    machine = AlertMachine(AlertPolicy(budget_per_hour=6))

    event = machine.step(START, 1.25)

    state = AlertState(phase=Phase.ALERTING, last_onset=START, bucket=5 * TOKEN, ts_event=START)
    assert event == Transition(AlertKind.ONSET, START, 1.25, state)
    assert machine.state == state


# The log is the checkpoint


@settings(max_examples=60)
@given(policies, tick_streams(max_size=40))
def test_a_restart_anywhere_from_the_log_so_far_gives_the_same_log(policy, stream):
    ts, values = stream
    whole = log_of(policy, ts, values)

    for position in range(ts.size + 1):
        assert restarted_log(policy, ts, values, position, lambda state: state) == whole


@pytest.mark.parametrize("seed", range(5))
def test_a_restart_in_a_wild_stream_with_a_binding_budget_gives_the_same_log(seed):
    ts, values = seeded_stream(seed)
    _, machine = run(TIGHT, ts, values)
    assert machine.held_by_budget > 0
    assert np.any(np.diff(ts) < -2 * SECOND)
    whole = log_of(TIGHT, ts, values)

    for position in range(ts.size + 1):
        through_json = lambda state: msgspec.json.decode(msgspec.json.encode(state), type=AlertState)  # noqa: E731
        assert restarted_log(TIGHT, ts, values, position, through_json) == whole


@pytest.mark.parametrize(
    "lost",
    [
        {"bucket": TIGHT.capacity},
        {"bucket": 0},
        {"last_onset": None},
        {"ts_event": None},
        {"phase": Phase.QUIET},
        {"phase": Phase.ALERTING},
    ],
    ids=str,
)
def test_a_restart_without_one_part_of_the_state_gives_another_log(lost):
    # Negative control: each part is needed.
    ts, values = seeded_stream(0)
    whole = log_of(TIGHT, ts, values)

    forget = lambda state: msgspec.structs.replace(state, **lost)  # noqa: E731

    assert any(restarted_log(TIGHT, ts, values, position, forget) != whole for position in range(ts.size + 1))


@given(policies, tick_streams())
def test_a_tick_without_an_event_leaves_the_state_as_it_was(policy, stream):
    machine = AlertMachine(policy)

    for t, score in zip(*(column.tolist() for column in stream), strict=True):
        before = machine.state
        event = machine.step(t, score)
        assert machine.state == (before if event is None else event.state)


def test_a_bucket_above_the_capacity_of_a_new_policy_is_cut():
    state = AlertPolicy(budget_per_hour=6).initial_state()

    machine = AlertMachine(AlertPolicy(budget_per_hour=6, burst=2), state)

    assert machine.state.bucket == 2 * TOKEN


# Hysteresis, cooldown, budget

OFTEN = {"cooldown_s": 0, "budget_per_hour": 100_000}


def kinds_of(policy, values, step=SECOND):
    ts = START + step * np.arange(len(values), dtype=np.int64)
    return [(int(row), str(kind)) for row, kind, _ in log_of(policy, ts, np.array(values))]


@given(st.lists(st.sampled_from([0.8, 0.9, 0.999, 1.0, 3.0, NAN]), min_size=1, max_size=50))
def test_nothing_flaps_while_no_score_lies_below_off(values):
    assume(any(score >= 1.0 for score in values))

    kinds = kinds_of(AlertPolicy(**OFTEN), values)

    assert [kind for _, kind in kinds] == ["onset"]


def test_without_the_band_between_off_and_on_the_same_scores_flap():
    # Negative control.
    values = [1.1, 0.9] * 5

    assert len(kinds_of(AlertPolicy(on=1.0, off=1.0, **OFTEN), values)) == 10
    assert kinds_of(AlertPolicy(**OFTEN), values) == [(0, "onset")]


def test_an_unknown_score_holds_the_phase():
    values = [NAN, 1.2, NAN, math.inf, 0.9, NAN, 0.7, NAN]

    assert kinds_of(AlertPolicy(), values) == [(1, "onset"), (6, "clear")]


@given(policies, tick_streams())
def test_onsets_and_all_clears_alternate(policy, stream):
    events, _ = run(policy, *stream)

    expected = [AlertKind.ONSET, AlertKind.CLEAR] * len(events.kinds)
    assert events.kinds == expected[: len(events.kinds)]


def test_a_held_back_episode_fires_as_soon_as_the_cooldown_has_passed():
    values = [1.2, 0.5] + [1.2] * 70

    assert kinds_of(AlertPolicy(cooldown_s=60), values) == [(0, "onset"), (1, "clear"), (60, "onset")]


def test_a_held_back_episode_fires_with_the_first_whole_token():
    # Six an hour, one kept: a token every 600 s, to the nanosecond.
    policy = AlertPolicy(cooldown_s=0, budget_per_hour=6, burst=1)
    machine = AlertMachine(policy)
    assert machine.step(START, 1.2)
    assert machine.step(START + 1, 0.5)

    assert machine.step(START + 600 * SECOND - 1, 1.2) is None
    assert machine.step(START + 600 * SECOND, 1.2) is not None
    assert (machine.held_by_cooldown, machine.held_by_budget) == (0, 1)


def test_nothing_is_rounded_away_over_many_events():
    # Seven an hour divide no second; an all-clear every 3 s would lose what rounding loses.
    policy = AlertPolicy(on=1.0, off=0.9, cooldown_s=0, budget_per_hour=7, burst=100)
    machine = AlertMachine(policy, AlertState(Phase.QUIET, None, 50 * TOKEN, START))
    for second in range(1, 21):
        machine.step(START + second * SECOND, 1.0 if second % 2 else 0.5)

    assert Fraction(machine.state.bucket, TOKEN) == 50 - 10 + Fraction(7 * 20, 3600)


@settings(max_examples=50)
@given(policies, st.integers(0, 10_000))
def test_no_hour_holds_more_onsets_than_burst_and_budget(policy, seed):
    rng = np.random.default_rng(seed)
    ts = START + np.cumsum(rng.integers(0, int(rng.choice([2, 60, 900])) * SECOND, 600))
    values = rng.choice([0.5, 1.5], 600)

    events, _ = run(policy, ts, values)

    onsets = [int(ts[row]) for row, kind in zip(events.indices, events.kinds, strict=True) if kind == "onset"]
    assert sliding_most(onsets, HOUR) <= policy.capacity // TOKEN + policy.budget_per_hour


def test_the_bound_of_an_hour_is_reached_and_a_larger_budget_breaks_it():
    # Negative control: the check above can fail.
    ts = START + SECOND * np.arange(3 * 3600)
    values = np.tile([1.5, 0.5], ts.size // 2)

    def most(policy):
        events, _ = run(policy, ts, values)
        return sliding_most([int(ts[row]) for row in events.indices[::2]], HOUR)

    assert most(AlertPolicy(cooldown_s=0, budget_per_hour=6)) == 12
    assert most(AlertPolicy(cooldown_s=0, budget_per_hour=6, burst=1)) == 7
    assert most(AlertPolicy(cooldown_s=0, budget_per_hour=7)) > 12


@given(policies, tick_streams())
def test_between_any_two_onsets_the_clock_has_paid_for_those_above_the_burst(policy, stream):
    # Also where clocks go back: time is credited once for each time that it runs between two events.
    events, _ = run(policy, *stream)
    kinds, states = events.kinds, events.states

    for first in range(len(states)):
        onsets, run_ns = 0, 0
        for last in range(first, len(states)):
            if last > first:
                run_ns += max(0, states[last].ts_event - states[last - 1].ts_event)
            onsets += kinds[last] is AlertKind.ONSET
            paid = Fraction(policy.capacity, TOKEN) + Fraction(run_ns * policy.budget_per_hour, HOUR)
            assert onsets <= paid


@pytest.mark.parametrize(("elapsed", "missing"), [(0, 10), (1, 3), (2, 0), (3, 0)])
def test_the_bucket_fills_to_its_brim_and_stops(elapsed, missing):
    policy = AlertPolicy(budget_per_hour=7)
    machine = AlertMachine(policy, AlertState(Phase.ALERTING, START, policy.capacity - 10, START))

    machine.step(START + elapsed, 0.5)

    assert policy.capacity - machine.state.bucket == missing


def test_years_of_silence_fill_the_bucket_and_no_more():
    policy = AlertPolicy(budget_per_hour=100_000, burst=100_000)
    machine = AlertMachine(policy, AlertState(Phase.QUIET, 0, 0, 0))

    event = machine.step(2**63 - 1, 1.5)

    assert event is not None
    assert event.state.bucket == policy.capacity - TOKEN


# Clocks that go back


def test_a_small_step_back_refills_nothing_and_counts_no_time_twice():
    policy = AlertPolicy(cooldown_s=0, budget_per_hour=3600, burst=100)
    machine = AlertMachine(policy, AlertState(Phase.QUIET, None, 50 * TOKEN, START))

    machine.step(START + 4 * SECOND, 1.5)
    machine.step(START + 2 * SECOND, 0.5)
    machine.step(START + 5 * SECOND, 1.5)

    # One token a second, over the five seconds that passed.
    assert machine.state.bucket == (50 + 5 - 2) * TOKEN


def test_a_new_segment_forgets_the_cooldown_and_keeps_the_bucket():
    policy = AlertPolicy(cooldown_s=60, budget_per_hour=6)
    machine = AlertMachine(policy)
    machine.step(START, 1.5)
    machine.step(START + SECOND, 0.5)
    bucket = machine.state.bucket

    assert machine.step(START - SECOND, 1.5) is None
    event = machine.step(START - SECOND - 1, 1.5)

    assert event is not None
    assert event.state.bucket == bucket - TOKEN
    assert machine.held_by_cooldown == 1


def test_an_all_clear_in_a_new_segment_forgets_the_last_onset():
    machine = AlertMachine(AlertPolicy(cooldown_s=60))
    machine.step(START, 1.5)

    clear = machine.step(START - HOUR, 0.5)

    assert clear is not None
    assert clear.state.last_onset is None
    assert clear.state.ts_event == START - HOUR
    assert machine.step(START - HOUR + SECOND, 1.5) is not None


# What is refused


@pytest.mark.parametrize(
    "wrong",
    [
        {"on": NAN},
        {"on": math.inf},
        {"off": NAN},
        {"on": 0.5, "off": 0.6},
        {"cooldown_s": -1},
        {"cooldown_s": 100_000},
        {"budget_per_hour": 0},
        {"budget_per_hour": 100_001},
        {"burst": 0},
        {"burst": 100_001},
    ],
    ids=str,
)
def test_a_policy_out_of_range_is_refused(wrong):
    with pytest.raises(ConfigError):
        AlertPolicy(**wrong)


def test_a_tick_without_a_time_is_refused():
    machine = AlertMachine(AlertPolicy())

    with pytest.raises(ContractError):
        machine.step(-(2**63), 1.0)
    with pytest.raises(ContractError):
        machine.run(np.array([START, -1]), np.array([1.0, 1.0]))


def test_columns_of_different_length_are_refused():
    with pytest.raises(ContractError):
        AlertMachine(AlertPolicy()).run(np.array([START]), np.array([1.0, 1.0]))


@pytest.mark.parametrize(
    "state", [AlertState(Phase.QUIET, None, -1, None), AlertState(Phase.QUIET, -5, 0, 5)], ids=str
)
def test_a_state_that_no_machine_can_have_left_is_refused(state):
    with pytest.raises(ContractError):
        AlertMachine(AlertPolicy(), state)


# The record

finite = st.floats(allow_nan=False, allow_infinity=False)
times = st.integers(0, 2**63 - 1)
states = st.builds(
    AlertState,
    phase=st.sampled_from(Phase),
    last_onset=st.none() | times,
    bucket=st.integers(0, 100_000 * TOKEN),
    ts_event=st.none() | times,
)
identities = st.tuples(st.text(max_size=8), times, st.integers(0, 9), st.integers(0, 9))


@st.composite
def records(draw):
    return Alert.of(
        Transition(draw(st.sampled_from(AlertKind)), draw(times), draw(finite), draw(states)),
        draw(policies),
        product_id=draw(st.text(max_size=8)),
        identity=draw(identities),
        rule=draw(st.text(max_size=8)),
        rule_version=draw(st.text(max_size=8)),
        mid=draw(st.floats()),
        sigma=draw(st.floats()),
        tau=draw(st.floats()),
    )


def float_bits(alert):
    values = (alert.score, alert.on, alert.off, alert.mid, alert.sigma, alert.tau, alert.ratio, alert.z)
    return [None if value is None else value.hex() for value in values]


@given(records())
def test_a_record_comes_back_from_json_to_the_bit(alert):
    line = encode_alert(alert)

    back = decode_alert(line)

    assert back == alert
    assert float_bits(back) == float_bits(alert)
    assert b"\n" not in line
    assert encode_alert(back) == line


def an_alert(**changes):
    event = AlertMachine(AlertPolicy()).step(START, 1.5)
    given = {
        "product_id": "BTC-USD",
        "identity": ("c1", 7, 0, 1),
        "rule": "baseline",
        "rule_version": "1",
        "mid": 60_000.5,
        "sigma": 3e-5,
        "tau": 2e-5,
    }
    return Alert.of(event, AlertPolicy(), **(given | changes))


def test_a_record_tells_the_tick_the_thresholds_and_the_state():
    line = json.loads(encode_alert(an_alert()))

    assert line == {
        "alert_id": alert_id("BTC-USD", ("c1", 7, 0, 1), AlertKind.ONSET, AlertPolicy().version),
        "kind": "onset",
        "product_id": "BTC-USD",
        "conn_id": "c1",
        "frame_no": 7,
        "event_index": 0,
        "ticker_index": 1,
        "ts_event": START,
        "score": 1.5,
        "on": 1.0,
        "off": 0.8,
        "policy": AlertPolicy().version,
        "rule": "baseline",
        "rule_version": "1",
        "mid": 60_000.5,
        "sigma": 3e-5,
        "tau": 2e-5,
        "ratio": rule_ratio(3e-5, 2e-5),
        "z": rule_z(rule_ratio(3e-5, 2e-5)),
        "state": {"phase": 1, "last_onset": START, "bucket": 5 * TOKEN, "ts_event": START},
        "v": 1,
    }


def test_unknown_values_are_null_in_the_record():
    line = json.loads(encode_alert(an_alert(mid=NAN, tau=NAN)))

    assert [line[name] for name in ("mid", "sigma", "tau", "ratio", "z")] == [None, 3e-5, None, None, None]


def test_a_record_that_is_none_is_refused():
    with pytest.raises(msgspec.DecodeError):
        decode_alert(b'{"kind":"onset"}')
    with pytest.raises(msgspec.DecodeError):
        decode_alert(encode_alert(an_alert())[:-9])


def test_keys_of_later_versions_are_passed_over():
    line = encode_alert(an_alert())

    assert decode_alert(line[:-1] + b',"later":1}') == an_alert()


def test_an_alert_keeps_its_name_in_every_run_and_shares_it_with_no_other():
    named = ("BTC-USD", ("c1", 7, 0, 1), AlertKind.ONSET, "p")
    others = [
        ("ETH-USD", ("c1", 7, 0, 1), AlertKind.ONSET, "p"),
        ("BTC-USD", ("c2", 7, 0, 1), AlertKind.ONSET, "p"),
        ("BTC-USD", ("c1", 70, 0, 1), AlertKind.ONSET, "p"),
        ("BTC-USD", ("c1", 7, 1, 0), AlertKind.ONSET, "p"),
        ("BTC-USD", ("c1", 7, 0, 1), AlertKind.CLEAR, "p"),
        ("BTC-USD", ("c1", 7, 0, 1), AlertKind.ONSET, "q"),
    ]

    # Pinned: consumers drop repeats by it.
    assert alert_id(*named) == "e1139e87e6d25e7951daf17fc33fe17f"
    assert len({alert_id(*named), *(alert_id(*other) for other in others)}) == 7


def test_a_policys_version_tells_policies_apart_and_not_spellings():
    policies = [
        AlertPolicy(),
        AlertPolicy(on=1.5),
        AlertPolicy(off=0.7),
        AlertPolicy(cooldown_s=61),
        AlertPolicy(budget_per_hour=7),
        AlertPolicy(burst=5),
    ]

    assert len({policy.version for policy in policies}) == len(policies)
    assert AlertPolicy(on=1, burst=6).version == AlertPolicy().version
