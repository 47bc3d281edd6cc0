"""The law of the simulated market.

Every second, three Ornstein-Uhlenbeck factors of log volatility, self-exciting bursts and a diurnal pattern give the
log volatility h; four slots of 250 ms are active or not, and an active one moves the log mid by N(0, exp(2h)/4).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Final

import msgspec
import numpy as np
from numba import njit
from numpy.typing import NDArray

from richter.errors import ArgumentsError

__all__ = ["PRESETS", "Market", "MarketParameters", "endless_market", "simulate_market"]

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

SLOTS: Final = 4
SLOT_NS: Final = 250_000_000
SECOND: Final = 1_000_000_000


class MarketParameters(msgspec.Struct, frozen=True):
    """Parameters of the law.

    Attributes:
        mu: mean of the log of the one-second volatility.
        t: relaxation times of the three factors, s.
        s: their standard deviations.
        lam0: base rate of bursts, 1/s.
        eta: how much a burst raises that rate.
        b: mean size of a burst, in log volatility.
        tb: its decay time, s.
        diurnal: amplitude of the daily pattern.
        a: intensity of a slot.
        c: how the intensity grows with volatility.
    """

    mu: float
    t: tuple[float, float, float]
    s: tuple[float, float, float]
    lam0: float
    eta: float
    b: float
    tb: float
    diurnal: float
    a: float
    c: float


PRESETS: Final = {
    "calm": MarketParameters(-10.4, (2, 100, 3600), (0.70, 0.12, 0.10), 1e-4, 0, 0.5, 45, 0.10, 0.18, 0.30),
    "realistic": MarketParameters(
        -8.8, (1.5, 300, 7200), (0.60, 0.30, 0.14), 1.5e-4, 1, 0.5, 45, 0.15, 0.50, 0.75
    ),
    "predictable": MarketParameters(
        -9.5, (5, 220, 3600), (0.15, 1.0, 0.10), 1e-5, 0, 0.5, 45, 0.10, 1.5, 0.20
    ),
    "flat": MarketParameters(-9.5, (5, 220, 3600), (0.0, 0.0, 0.0), 0.0, 0, 0.5, 45, 0.0, 1.5, 0.20),
}


class Market(msgspec.Struct, frozen=True):
    """A stretch of the simulated market: a row for each active slot, and the truth of each second.

    Attributes:
        ts: (n,) event times, ns.
        bid: (n,) best bid in multiples of the price step.
        ask: (n,) best ask, likewise.
        price: (n,) last trade, likewise.
        size: (n,) traded in the slot, in 1e-8.
        bid_size: (n,) at the bid, in 1e-8.
        ask_size: (n,) at the ask, in 1e-8.
        log_volatility: (seconds,) h, constant within its second.
        factors: (seconds, 3) x1, x2, x3.
        burst: (seconds,) B.
        log_mid: log of the mid at the end, before it is rounded to quotes.
    """

    ts: Int64
    bid: Int64
    ask: Int64
    price: Int64
    size: Int64
    bid_size: Int64
    ask_size: Int64
    log_volatility: Float64
    factors: Float64
    burst: Float64
    log_mid: float


def simulate_market(
    parameters: MarketParameters,
    *,
    seed: int,
    seconds: int,
    start_ns: int,
    price: float = 90_000.0,
    step: float = 0.01,
) -> Market:
    """Draw `seconds` of the market from `start_ns` on; the same seed gives the same market.

    The factors begin in their stationary law, the burst at 0.

    Args:
        parameters: the law, usually one of `PRESETS`.
        seed: of the random numbers.
        seconds: length.
        start_ns: Unix time of the first second.
        price: the mid it begins with.
        step: the price step; prices are multiples of it.

    Raises:
        ArgumentsError: `seconds` is not positive.
    """
    if seconds <= 0:
        raise ArgumentsError("a simulated market needs a positive length", seconds, "give seconds above 0")
    rng = np.random.Generator(np.random.PCG64(seed))
    return _draw(parameters, rng, seconds, start_ns, price, step, None)


def endless_market(
    parameters: MarketParameters,
    *,
    seed: int,
    start_ns: int,
    seconds: int = 3600,
    price: float = 90_000.0,
    step: float = 0.01,
) -> Iterator[Market]:
    """Draw stretches of one market that join without a seam, for ever; each is drawn when it is asked for.

    Args:
        parameters: the law.
        seed: of the random numbers; the first stretch is that of `simulate_market`.
        start_ns: Unix time of the first second.
        seconds: length of a stretch. Another length gives another market.
        price: the mid it begins with.
        step: the price step.

    Raises:
        ArgumentsError: `seconds` is not positive.
    """
    market = simulate_market(
        parameters, seed=seed, seconds=seconds, start_ns=start_ns, price=price, step=step
    )
    # Its own stream: `simulate_market` does not hand its generator on.
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, 1))))
    while True:
        yield market
        start_ns += seconds * SECOND
        market = _draw(parameters, rng, seconds, start_ns, price, step, market)


def _draw(
    parameters: MarketParameters,
    rng: np.random.Generator,
    seconds: int,
    start_ns: int,
    price: float,
    step: float,
    before: Market | None,
) -> Market:
    factors, burst = np.empty((seconds, 3)), np.empty(seconds)
    was = np.zeros(4) if before is None else np.append(before.factors[-1], before.burst[-1])
    g = _volatility_path(
        np.array(parameters.t),
        np.array(parameters.s),
        parameters.lam0,
        parameters.eta,
        parameters.b,
        parameters.tb,
        parameters.diurnal,
        float(start_ns // SECOND % 86_400),
        rng.normal(size=(seconds, 3)),
        rng.random(seconds),
        rng.exponential(size=seconds),
        was,
        before is not None,
        factors,
        burst,
    )
    h = parameters.mu + g
    active = (
        rng.random((seconds, SLOTS))
        < (1 - np.exp(-parameters.a * np.exp(parameters.c * np.minimum(g, 3))))[:, None]
    )
    if before is None:
        active[0, 0] = True  # The first quote.
    moves = rng.normal(size=(seconds, SLOTS)) * (np.exp(h) / 2)[:, None] * active
    log_mid = (math.log(price) if before is None else before.log_mid) + np.cumsum(moves.ravel())
    at = np.flatnonzero(active.ravel())
    n = len(at)
    mid = np.exp(log_mid[at])
    half = np.maximum(
        step / 2, price * 1e-5 * np.exp(0.6 * np.repeat(g, SLOTS)[at] + 0.25 * rng.normal(size=n))
    )
    bid = np.floor((mid - half) / step).astype(np.int64)
    ask = np.maximum(np.ceil((mid + half) / step).astype(np.int64), bid + 1)
    return Market(
        ts=start_ns + at * SLOT_NS + rng.integers(0, SLOT_NS // 2, n),
        bid=bid,
        ask=ask,
        price=np.where(rng.random(n) < 0.5, bid, ask),
        size=_sizes(rng, n) * (rng.random(n) < 0.6),
        bid_size=_sizes(rng, n),
        ask_size=_sizes(rng, n),
        log_volatility=h,
        factors=factors,
        burst=burst,
        log_mid=float(log_mid[-1]),
    )


def _sizes(rng: np.random.Generator, n: int) -> Any:
    return (rng.exponential(0.05, n) * 1e8).astype(np.int64) + 1


@njit(cache=True, nogil=True)
def _volatility_path(
    times: Float64,
    deviations: Float64,
    lam0: float,
    eta: float,
    mean_burst: float,
    decay_s: float,
    diurnal: float,
    second_of_day: float,
    normal: Float64,
    uniform: Float64,
    exponential: Float64,
    was: Float64,
    continued: bool,
    factors: Float64,
    bursts: Float64,
) -> Float64:
    """The log volatility less mu, second by second; fills `factors` and `bursts`, its parts.

    `was` is x1, x2, x3 and B of the second before, where there is one.
    """
    n = uniform.shape[0]
    g = np.empty(n)
    burst = was[3]
    kept = math.exp(-1.0 / decay_s)
    for f in range(3):
        phi = math.exp(-1.0 / times[f])
        noise = deviations[f] * math.sqrt(1 - phi * phi)
        factors[0, f] = deviations[f] * normal[0, f]
        if continued:
            factors[0, f] = phi * was[f] + noise * normal[0, f]
        for second in range(1, n):
            factors[second, f] = phi * factors[second - 1, f] + noise * normal[second, f]
    for second in range(n):
        rate = lam0 * (1 + eta * burst)
        burst *= kept
        if uniform[second] < 1 - math.exp(-rate):
            burst += mean_burst * exponential[second]
        bursts[second] = burst
        phase = (second_of_day + second) / 86_400.0 - 0.625
        total = factors[second, 0] + factors[second, 1] + factors[second, 2]
        g[second] = total + burst + diurnal * math.cos(2 * math.pi * phase)
    return g
