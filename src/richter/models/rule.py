"""The baseline rule: the volatility of the last 60 s, measured by the spike threshold τ.

One score, in two units, and one threshold:

- ``ratio = σ60 / τ``, at or above `RULE_THRESHOLD_RATIO` = 1;
- ``z = (σ60 − τ) / (τ / √118) = √118 · (ratio − 1)``, at or above 0: how many standard errors σ60 lies
  above τ.

The standard error of a standard deviation over n normal values is about ``σ / √(2(n − 1))`` [1]_ [2]_,
hence √118 for the 60 one-second returns. Those are neither normal nor independent: z is a scale, not a
significance.

The rule says "spike" exactly where σ60 ≥ τ, in either unit and to the last bit: a float64 quotient rounds
to 1 or more only there, and ``ratio − 1`` keeps its sign. It is persistence: the rival that a model has to
beat, and what serves when none does.

References:
.. [1] Kenney, J. F. & Keeping, E. S. (1951). Mathematics of Statistics, Part Two, 2nd ed., Van Nostrand.
.. [2] Ahn, S. & Fessler, J. A. (2003). Standard Errors of Mean, Variance, and Standard Deviation Estimators.
       EECS Department, University of Michigan.
"""

from __future__ import annotations

import math
from typing import Final, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["RULE_NAME", "RULE_RETURNS", "RULE_THRESHOLD_RATIO", "RULE_VERSION", "rule_ratio", "rule_z"]

RULE_NAME: Final = "baseline"

RULE_VERSION: Final = "1"
"""Changes with the formula or the threshold."""

RULE_RETURNS: Final = 60
"""One-second returns in the volatility that the rule looks at."""

RULE_THRESHOLD_RATIO: Final = 1.0
"""A spike at or above it, as in the label (σ_future ≥ τ); the same as z ≥ 0."""

_ERRORS_PER_RATIO: Final = math.sqrt(2 * (RULE_RETURNS - 1))


@overload
def rule_ratio(sigma: float, tau: float) -> float: ...
@overload
def rule_ratio(sigma: NDArray[np.float64], tau: NDArray[np.float64] | float) -> NDArray[np.float64]: ...
@overload
def rule_ratio(sigma: float, tau: NDArray[np.float64]) -> NDArray[np.float64]: ...
def rule_ratio(sigma: ArrayLike, tau: ArrayLike) -> float | NDArray[np.float64]:
    """σ60 as a multiple of τ.

    Args:
        sigma: Volatility of the last 60 s, per √s; NaN where unknown.
        tau: Threshold, in the same unit; NaN where unknown.

    Returns: The ratio, 0 or more and finite; a float for two floats, else float64 in the broadcast shape.
    Canonical NaN where either is not a finite number, τ ≤ 0 or σ < 0.

    >>> rule_ratio(3.0e-5, 2.0e-5)
    1.5
    >>> rule_ratio(np.array([2.0e-5, 1.0e-5, np.nan]), 2.0e-5)
    array([1. , 0.5, nan])
    >>> rule_ratio(1.0e-5, 0.0)
    nan
    """
    sigmas = np.asarray(sigma, dtype=np.float64)
    taus = np.asarray(tau, dtype=np.float64)
    with np.errstate(all="ignore"):
        ratio = sigmas / taus
    known = np.isfinite(ratio) & np.isfinite(taus) & (taus > 0.0) & (sigmas >= 0.0)
    # abs: a σ of −0.0 must not reach the log as such.
    return _plain(np.where(known, np.abs(ratio), np.nan))


@overload
def rule_z(ratio: float) -> float: ...
@overload
def rule_z(ratio: NDArray[np.float64]) -> NDArray[np.float64]: ...
def rule_z(ratio: ArrayLike) -> float | NDArray[np.float64]:
    """The ratio as a z-score: how many standard errors σ60 lies above τ.

    Args:
        ratio: What `rule_ratio` gives.

    Returns:
        √118 · (ratio − 1), in the shape of `ratio`; canonical NaN where that is NaN.

    >>> rule_z(1.0)
    0.0
    >>> round(rule_z(1.5), 3)  # √118 = 10.863
    5.431
    >>> rule_z(np.array([0.0, np.nan])).round(3)
    array([-10.863,     nan])
    """
    # min: a τ of almost nothing would make z infinite, which no JSON can hold.
    ratios = np.minimum(np.asarray(ratio, dtype=np.float64), 1e300)
    return _plain(np.where(np.isnan(ratios), np.nan, _ERRORS_PER_RATIO * (ratios - 1.0)))


def _plain(values: NDArray[np.float64]) -> float | NDArray[np.float64]:
    return values if values.ndim else float(values)
