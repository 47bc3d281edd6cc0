"""How the project's kernels are compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

from numba import njit

__all__ = ["kernel"]

_Function = TypeVar("_Function", bound=Callable[..., Any])

# No reference counting: these functions make no arrays, and counting references to those that they are given would
# cost a quarter of their time. No `fastmath`: it changes bits.
_OPTIONS: Final[dict[str, Any]] = {"nogil": True, "error_model": "numpy", "_nrt": False}


def kernel(*, cache: bool = False) -> Callable[[_Function], _Function]:
    """Compile a function of numbers and arrays that makes no arrays itself; it runs without the GIL.

    numba's cache looks at the time stamp of one file: a cached function must be touched when the functions that it
    calls change. Each file that holds one names its sources' fingerprint, and a test checks it.

    Args:
        cache: keep the machine code beside the source.
    """
    compiled: Callable[[_Function], _Function] = njit(cache=cache, **_OPTIONS)
    return compiled
