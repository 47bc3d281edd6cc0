"""Compiles what a live run needs before it needs it: a first tick must not wait for the compiler."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from richter.config import Settings
from richter.engine.kernel import advance
from richter.runtime.pipeline import Pipeline
from richter.runtime.rule_alerts import RuleAlerts, policy_of

__all__ = ["warm_up"]

_LINE: Final = (
    b'{"timestamp":"2026-01-01T00:00:00.5","product_id":"BTC-USD","price":"1","volume_24h":"1","low_24h":"1",'
    b'"high_24h":"1","best_bid":"1","best_ask":"2","raw":{"type":"ticker"}}\n'
)


def warm_up(say: Callable[[str], None]) -> None:
    """Take two ticks through the pipeline and the alert machine; keeps nothing.

    Args:
        say: told when it will take a while.
    """
    # Without its compiler (NUMBA_DISABLE_JIT) numba leaves a plain function.
    cache = advance.stats.cache_path if hasattr(advance, "stats") else None
    if cache is None or not any(Path(cache).glob("kernel.advance-*.nbi")):
        say("compiling the kernel once (about 20 s)")
    settings = Settings()
    rows = Pipeline(settings).lines(2 * _LINE, "warm-up")
    RuleAlerts(policy_of(settings)).take(rows)
