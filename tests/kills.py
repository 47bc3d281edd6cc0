"""Kills at random moments: what `make chaos` runs a hundred of, and the suite a few."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from richter.runtime.compare import Comparison
from tests.live_tools import check_run, end_run, exchange, recorded_lines, start_run, wait_for_lines

PAIRS = ("BTC-USD", "ETH-USD")


def kill_again_and_again(
    folder: Path, kills: int, seed: int, *, most: int = 6_000, history: str = "6h"
) -> tuple[Comparison, int]:
    """Kill a run (SIGKILL) again and again, each time after a random number of new lines, and let the last one end.

    Returns:
        The comparison of its logs with an uninterrupted replay, and the rows that starts had to bring in.
    """
    rng = np.random.default_rng(seed)
    products = [argument for name in PAIRS for argument in ("--product", name)]
    pairs = [argument for name in PAIRS for argument in ("--pair", name)]
    with exchange("--history", history, *products, "--seed", str(seed), "--no-limits") as url:
        for _ in range(kills):
            process = start_run(folder, url, *pairs)
            wait_for_lines(folder, recorded_lines(folder) + int(rng.integers(1, most)), process)
            process.kill()
            process.communicate()
        process = start_run(folder, url, *pairs)
        wait_for_lines(folder, recorded_lines(folder) + 50, process)
        ran = end_run(process)
    return check_run(folder), int(ran["caught_up"]["looked_back"])
