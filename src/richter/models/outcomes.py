"""What followed an alert: did a spike come, how soon, and which spikes had no alert.

Computed from the feature rows of one product and their labels, in log order. A step back of the event time
starts a new segment; nothing is measured across its edge.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from richter.errors import ContractError

__all__ = ["HORIZON_S", "LEAD_WORTH_S", "AlertSummary", "Outcome", "alert_outcomes", "summarise_alerts"]

HORIZON_S: Final = 60
"""Seconds that the label looks ahead; also what parts two episodes, and how early an alert may be."""

LEAD_WORTH_S: Final = 30.0
"""A lead that leaves time to act: quoted beside every recall."""

_SECOND: Final = 1_000_000_000

Floats = NDArray[np.float64]
Times = NDArray[np.int64]


class Outcome(msgspec.Struct, frozen=True):
    """What followed one onset.

    Attributes:
        index: row of the onset.
        hit: the label of its row: σ_future ≥ τ; None when that is unknown.
        lead_s: seconds from the onset to the first later whole second, within the label's horizon, at which
            the volatility of the last 60 s reached the onset's τ; 0.0 when it was there at the onset
            already; None when it reached it at no known second.
    """

    index: int
    hit: bool | None
    lead_s: float | None


class AlertSummary(msgspec.Struct, frozen=True):
    """Outcomes of the onsets of one product, counted.

    Attributes:
        onsets: all of them.
        unknown: those without a known label; they do not count in the precision.
        hits: those that a spike followed.
        precision: hits / known; None without any known.
        episodes: spikes: maximal runs of rows with label 1 less than 60 s apart.
        caught: episodes with an onset in them or at most 60 s before.
        caught_early: those with such an onset of a lead of at least `LEAD_WORTH_S`.
        recall: caught / episodes; None without an episode.
        recall_early: caught_early / episodes, likewise.
        median_lead_s: over the onsets with a lead; None without one.
    """

    onsets: int
    unknown: int
    hits: int
    precision: float | None
    episodes: int
    caught: int
    caught_early: int
    recall: float | None
    recall_early: float | None
    median_lead_s: float | None


def alert_outcomes(
    ts: Times, sigma: Floats, tau: Floats, sigma_future: Floats, onsets: NDArray[np.int64]
) -> list[Outcome]:
    """Say what followed each onset.

    The volatility at a whole second s is that of the last row in [s, s + 1), else of a label that ends at
    s, else unknown. It is not final, and so unknown, while the data end with a tick exactly on s.

    Args:
        ts: Effective event times of one product's rows in log order, (n,) int64 ns.
        sigma: Volatility of the last 60 s, (n,) float64, NaN where unknown.
        tau: Threshold of a spike, likewise.
        sigma_future: Volatility from ⌈t⌉ to ⌈t⌉ + 60, likewise.
        onsets: Rows of the onsets, ascending.

    Returns:
        One outcome an onset, in the same order.

    Raises:
        ContractError: the columns differ in length, or an onset is no row, or they do not ascend.

    >>> ts = np.arange(100, 104) * 1_000_000_000 + 500_000_000
    >>> sigma, tau = np.array([1.0, 1.0, 1.0, 2.0]), np.full(4, 2.0)
    >>> sigma_future = np.array([3.0, 1.0, np.nan, np.nan])
    >>> for outcome in alert_outcomes(ts, sigma, tau, sigma_future, np.array([0, 1, 3])):
    ...     print(outcome.index, outcome.hit, outcome.lead_s)
    0 True 2.5
    1 False 1.5
    3 None 0.0
    """
    _check(ts, sigma, tau, sigma_future, onsets)
    labels = _labels(sigma_future, tau)
    edges = _segment_edges(ts)
    outcomes: list[Outcome] = []
    for first, end in pairwise(edges):
        rows = onsets[np.searchsorted(onsets, first) : np.searchsorted(onsets, end)]
        if not rows.size:
            continue
        seconds, realised = _realised(ts[first:end], sigma[first:end], sigma_future[first:end])
        for row in rows:
            known, hit = labels[row] >= 0, bool(labels[row] == 1)
            lead = _lead(int(ts[row]), float(sigma[row]), float(tau[row]), seconds, realised)
            outcomes.append(Outcome(int(row), hit if known else None, lead))
    return outcomes


def summarise_alerts(ts: Times, tau: Floats, sigma_future: Floats, outcomes: list[Outcome]) -> AlertSummary:
    """Count outcomes and the spikes that they caught.

    Args:
        ts: Effective event times, as `alert_outcomes` had them, and so the next two.
        tau: Threshold of a spike.
        sigma_future: Volatility from ⌈t⌉ to ⌈t⌉ + 60.
        outcomes: What `alert_outcomes` returned.

    Raises:
        ContractError: as `alert_outcomes`.
    """
    onsets = np.array([outcome.index for outcome in outcomes], dtype=np.int64)
    early = np.array([o.index for o in outcomes if (o.lead_s or 0.0) >= LEAD_WORTH_S], dtype=np.int64)
    _check(ts, tau, tau, sigma_future, onsets)
    labels = _labels(sigma_future, tau)
    edges = _segment_edges(ts)
    episodes = caught = caught_early = 0
    for first, end in pairwise(edges):
        starts, ends = _episodes(ts[first:end], labels[first:end])
        episodes += starts.size
        caught += _caught(starts, ends, _times(ts, onsets, first, end))
        caught_early += _caught(starts, ends, _times(ts, early, first, end))
    known = [outcome.hit for outcome in outcomes if outcome.hit is not None]
    leads = [outcome.lead_s for outcome in outcomes if outcome.lead_s is not None]
    return AlertSummary(
        onsets=len(outcomes),
        unknown=len(outcomes) - len(known),
        hits=sum(known),
        precision=_share(sum(known), len(known)),
        episodes=episodes,
        caught=caught,
        caught_early=caught_early,
        recall=_share(caught, episodes),
        recall_early=_share(caught_early, episodes),
        median_lead_s=float(np.median(leads)) if leads else None,
    )


def _check(ts: Times, sigma: Floats, tau: Floats, sigma_future: Floats, onsets: NDArray[np.int64]) -> None:
    shapes = (ts.shape, sigma.shape, tau.shape, sigma_future.shape)
    if ts.ndim != 1 or len(set(shapes)) != 1:
        raise ContractError("times, volatilities and thresholds are not columns of one table", shapes)
    if onsets.size and (onsets[0] < 0 or onsets[-1] >= ts.size or np.any(np.diff(onsets) <= 0)):
        raise ContractError("onsets are not ascending rows of the table", onsets.tolist())


def _labels(sigma_future: Floats, tau: Floats) -> NDArray[np.int8]:
    # 1, 0, or −1 where unknown.
    unknown = np.isnan(sigma_future) | np.isnan(tau)
    return np.where(unknown, -1, sigma_future >= tau).astype(np.int8)


def _segment_edges(ts: Times) -> list[int]:
    # Effective times never step back within a segment.
    return [0, *(np.flatnonzero(np.diff(ts) < 0) + 1).tolist(), ts.size]


def _realised(ts: Times, sigma: Floats, sigma_future: Floats) -> tuple[Times, Floats]:
    # Whole seconds of one segment, ascending, and the known volatility that ended at each.
    rows_final = ~((ts == ts[-1]) & (ts % _SECOND == 0))
    label_ends = -(-ts // _SECOND) + HORIZON_S
    seconds = np.concatenate((label_ends, (ts // _SECOND)[rows_final]))
    values = np.concatenate((sigma_future, sigma[rows_final]))
    # The last of equal seconds wins: a row over a label, a later row over an earlier one.
    known = ~np.isnan(values)
    seconds, values = seconds[known], values[known]
    order = np.argsort(seconds, kind="stable")
    seconds, values = seconds[order], values[order]
    last = np.append(seconds[1:] != seconds[:-1], True)[: seconds.size]
    return seconds[last], values[last]


def _lead(t: int, sigma: float, tau: float, seconds: Times, realised: Floats) -> float | None:
    if sigma >= tau:
        return 0.0
    begin = np.searchsorted(seconds, t // _SECOND, side="right")
    end = np.searchsorted(seconds, -(-t // _SECOND) + HORIZON_S, side="right")
    reached = np.flatnonzero(realised[begin:end] >= tau)
    if not reached.size:
        return None
    return (int(seconds[begin + reached[0]]) * _SECOND - t) / _SECOND


def _episodes(ts: Times, labels: NDArray[np.int8]) -> tuple[Times, Times]:
    # First and last time of each.
    times = ts[labels == 1]
    if not times.size:
        return times, times
    breaks = np.flatnonzero(np.diff(times) >= HORIZON_S * _SECOND)
    return times[np.append(0, breaks + 1)], times[np.append(breaks, times.size - 1)]


def _times(ts: Times, rows: NDArray[np.int64], first: int, end: int) -> Times:
    return ts[rows[(rows >= first) & (rows < end)]]


def _caught(starts: Times, ends: Times, onsets: Times) -> int:
    from_ = np.searchsorted(onsets, starts - HORIZON_S * _SECOND, side="left")
    to = np.searchsorted(onsets, ends, side="right")
    return int(np.count_nonzero(to > from_))


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
