"""When something that is done at intervals is due."""

from __future__ import annotations

from richter.domain.ticks import Ns

__all__ = ["is_due"]


def is_due(now: Ns, last: Ns | None, interval: Ns) -> bool:
    """Whether an interval has passed.

    Args:
        now: by the same clock as `last`.
        last: when it was done; None for never.
        interval: in ns.

    >>> is_due(14, 10, 5), is_due(15, 10, 5), is_due(9, 10, 5), is_due(0, None, 5)
    (False, True, True, True)
    """
    # A clock that was set back makes everything due, rather than nothing for as long.
    return last is None or not 0 <= now - last < interval
