"""Kills at random moments of the distributed form: what `make chaos` runs a hundred of, and the suite a few."""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from richter.adapters.broker.cluster import Cluster
from richter.runtime.compare import Comparison
from tests.kafka.pipeline import Pipeline, check, end, kill
from tests.live_tools import exchange

PAIRS = ("BTC-USD", "ETH-USD", "SOL-USD")


def kill_again_and_again(
    folder: Path,
    servers: str,
    prefix: str,
    kills: int,
    seed: int,
    *,
    cluster: Cluster | None = None,
    most: int = 4_000,
    history: str = "24h",
    tell: Callable[[str], object] = lambda text: None,
) -> tuple[Comparison, Counter[str]]:
    """Kill ingest, featurizers and brokers (SIGKILL) while ticks flow, start them again, and compare at the end.

    A second featurizer joins at the first third and leaves in order at the second.

    Args:
        folder: of the data.
        servers: of Kafka.
        prefix: of topics and groups.
        kills: how many.
        seed: of the moments and the victims.
        cluster: whose brokers may be killed too; None spares them.
        most: ticks between two kills.
        history: of the exchange, served as fast as it is read.
        tell: told of each kill.

    Returns:
        The comparison of what is committed with an uninterrupted replay, and how often each was killed.
    """
    rng = np.random.default_rng(seed)
    products = [argument for name in PAIRS for argument in ("--product", name)]
    killed: Counter[str] = Counter()
    with exchange("--history", history, *products, "--seed", str(seed), "--no-limits") as url:
        pipeline = Pipeline(folder, servers, prefix, url, PAIRS)
        ingest, first = pipeline.ingest(), pipeline.featurize()
        second: subprocess.Popen[str] | None = None
        names = [
            "ingest",
            "featurizer",
            "ingest",
            "featurizer",
            "broker" if cluster is not None else "featurizer",
        ]
        for number in range(kills):
            if number == kills // 3:
                second = pipeline.featurize()
            if number == 2 * kills // 3 and second is not None:
                pipeline.wait_for_word('"assigned"', second)
                end(second)
                second = None
            pipeline.wait_for(pipeline.recorded, pipeline.recorded() + int(rng.integers(1, most)), ingest)
            time.sleep(float(rng.uniform(0, 2)))  # A moment of a transaction, of a rebalance, of a rebuild.
            victim = names[int(rng.integers(len(names)))]
            killed[victim] += 1
            tell(f"kill {number + 1} of {kills}: {victim}")
            if victim == "ingest":
                kill(ingest)
                ingest = pipeline.ingest()
            elif victim == "broker":
                assert cluster is not None
                node = 1 + int(rng.integers(len(cluster.status().nodes)))
                cluster.kill_node(node)
                time.sleep(float(rng.uniform(0, 3)))
                cluster.start_node(node)
            elif second is not None and rng.integers(2):
                kill(second)
                second = pipeline.featurize()
            else:
                kill(first)
                first = pipeline.featurize()
        pipeline.wait_for(pipeline.recorded, pipeline.recorded() + 50, ingest)
        ran = end(ingest)
        assert ran["published"]["left"] == 0
        pipeline.wait_for(pipeline.committed, pipeline.recorded(), first)
        if second is not None:
            end(second)
        end(first)
    return check(pipeline), killed
