"""`make chaos`: a hundred kills of a live run, and a million broken frames; the suite does a few of each."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.kills import kill_again_and_again
from tests.protocol.chaos import chaos


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write the tables as Markdown")
    chosen = parser.parse_args()
    start = time.monotonic()
    print(f"{chosen.frames:,} broken frames …", flush=True)
    found = chaos(chosen.frames, chosen.seed)
    print(f"{chosen.kills} kills …", flush=True)
    with TemporaryDirectory(prefix="richter-chaos-") as folder:
        comparison, looked_back = kill_again_and_again(
            Path(folder) / "data", chosen.kills, chosen.seed, most=4_000, history="400h"
        )
    frames = "\n".join(f"| {name} | {number:,} |" for name, number in sorted(found.items()))
    products = "\n".join(
        f"| {name} | {product.compared:,} | `{product.digest_live[:16]}…` |"
        for name, product in sorted(comparison.products.items())
    )
    text = (
        f"# Chaos\n\nWritten by `make chaos` (seed {chosen.seed}, {(time.monotonic() - start) / 60:.0f} minutes).\n\n"
        f"## {chosen.kills} kills\n\n`richter run` was killed (SIGKILL) {chosen.kills} times at random moments and "
        "started again on the same folder, with an alert budget of two an hour. Afterwards its feature log and its "
        "alert log equal an uninterrupted replay of its recording, bit for bit; no row is missing or doubled. The last "
        f"start computed {looked_back:,} rows again to go on.\n\n| product | rows compared | digest of both |\n"
        f"|---|---:|---|\n{products}\n\n## {chosen.frames:,} broken frames\n\nMutated frames of both protocols among "
        "good ones: no exception, every frame counted as exactly one thing, every recorded line readable, and the feed "
        f"works again after each hundred.\n\n| what became of the frames | number |\n|---|---:|\n{frames}\n"
    )
    print(text)
    if chosen.out:
        chosen.out.write_text(text)


if __name__ == "__main__":
    main()
