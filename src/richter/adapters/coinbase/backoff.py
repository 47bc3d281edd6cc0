"""How long to wait before the next attempt to connect."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

__all__ = ["Backoff"]

BASE_S: Final = 0.25
CAP_S: Final = 30.0
TOO_MANY_S: Final = 16.0
"""After HTTP 429 without a Retry-After."""
LEAST_S: Final = 0.125
"""Between any two attempts: the exchange allows eight a second."""


class Backoff:
    """Full jitter, doubling up to half a minute, without end; the first retry comes at once.

    Args:
        uniform: a random number in [0, 1).
    """

    def __init__(self, uniform: Callable[[], float]) -> None:
        self._uniform = uniform
        self._failures = 0

    def reset(self) -> None:
        """Forget the failures: live data came for long enough."""
        self._failures = 0

    def delay(self, *, too_many: bool = False, retry_after_s: float | None = None) -> float:
        """Seconds until the next attempt, after one more failure.

        Args:
            too_many: the server answered 429.
            retry_after_s: what it asked for, honoured up to an hour.

        >>> backoff = Backoff(lambda: 0.5)
        >>> [backoff.delay() for _ in range(4)]
        [0.125, 0.125, 0.25, 0.5]
        """
        failures, self._failures = self._failures, self._failures + 1
        if too_many or retry_after_s is not None:
            asked = TOO_MANY_S if retry_after_s is None else min(max(retry_after_s, LEAST_S), 3600.0)
            return asked * (1.0 + 0.1 * self._uniform())
        if failures == 0:
            return LEAST_S
        longest = min(CAP_S, BASE_S * 2.0 ** min(failures - 1, 30))
        return max(LEAST_S, longest * self._uniform())
