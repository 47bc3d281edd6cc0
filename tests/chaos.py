"""`make chaos`: a hundred kills of each form, and a million broken frames; the suite does a few of each."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from richter.adapters.broker.cluster import Cluster
from richter.runtime.compare import Comparison
from tests.kafka.crash import kill_again_and_again as kill_distributed
from tests.kills import kill_again_and_again
from tests.protocol.chaos import chaos


def say(text: str) -> None:
    print(text, flush=True)


def embedded(kills: int, seed: int) -> str:
    """Kills of `richter run`."""
    with TemporaryDirectory(prefix="richter-chaos-") as folder:
        comparison, looked_back = kill_again_and_again(
            Path(folder) / "data", kills, seed, most=4_000, history="400h"
        )
    return (
        f"## {kills} kills of one process\n\n`richter run` was killed (SIGKILL) {kills} times at random moments and "
        "started again on the same folder, with an alert budget of two an hour. Afterwards its feature log and its "
        "alert log equal an uninterrupted replay of its recording, bit for bit; no row is missing or doubled. The last "
        f"start computed {looked_back:,} rows again to go on.\n\n{digests(comparison)}"
    )


def distributed(kills: int, seed: int) -> str:
    """Kills of the distributed form, brokers included."""
    with TemporaryDirectory(prefix="richter-chaos-") as place:
        cluster = Cluster(Path(place) / "kafka")
        cluster.start(3, 0)
        try:
            comparison, killed = kill_distributed(
                Path(place) / "data",
                cluster.addresses(),
                "chaos.",
                kills,
                seed,
                cluster=cluster,
                history="400h",
                tell=say,
            )
        finally:
            cluster.stop()
    parts = ", ".join(f"{what} {number} times" for what, number in sorted(killed.items()))
    return (
        f"## {kills} kills on Kafka\n\nWhile ticks went from a simulated exchange through `richter ingest`, a cluster "
        f"of three brokers and `richter featurize`, one of them was killed (SIGKILL) {kills} times at random moments: "
        f"{parts}; a broker came back after up to three seconds, the others at once. For a third of the time two "
        "featurizers shared the work. Afterwards `ticks.features`, as a reader of committed rows sees it, equals an "
        "uninterrupted replay of the recording: same rows, same order per product, same bits, none missing, none "
        f"twice.\n\n{digests(comparison)}"
    )


def frames(number: int, seed: int) -> str:
    """Broken frames."""
    found = chaos(number, seed)
    rows = "\n".join(f"| {name} | {count:,} |" for name, count in sorted(found.items()))
    return (
        f"## {number:,} broken frames\n\nMutated frames of both protocols among good ones: no exception, every frame "
        "counted as exactly one thing, every recorded line readable, and the feed works again after each hundred.\n\n"
        f"| what became of the frames | number |\n|---|---:|\n{rows}\n"
    )


def digests(comparison: Comparison) -> str:
    """The rows compared and their digests."""
    rows = "\n".join(
        f"| {name} | {product.compared:,} | `{product.digest_live[:16]}…` |"
        for name, product in sorted(comparison.products.items())
    )
    return f"| product | rows compared | digest of both |\n|---|---:|---|\n{rows}\n"


PARTS: dict[str, tuple[Callable[[int, int], str], int]] = {
    "frames": (frames, 1_000_000),
    "embedded": (embedded, 100),
    "distributed": (distributed, 100),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, (_, number) in PARTS.items():
        parser.add_argument(
            f"--{name}", type=int, default=number, help=f"how many [{number:,}]; 0 leaves it out"
        )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write the tables as Markdown")
    chosen = parser.parse_args()
    start = time.monotonic()
    texts = []
    for name, (part, _) in PARTS.items():
        number = getattr(chosen, name)
        if number:
            say(f"{name}: {number:,} …")
            texts.append(part(number, chosen.seed))
            say(texts[-1])
    minutes = (time.monotonic() - start) / 60
    head = f"# Chaos\n\nWritten by `make chaos` (seed {chosen.seed}, {minutes:.0f} minutes).\n\n"
    if chosen.out:
        chosen.out.write_text(head + "\n".join(reversed(texts)))


if __name__ == "__main__":
    main()
