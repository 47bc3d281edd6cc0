"""`make soak`: an hour of a live run against an exchange where much goes wrong; memory and queue must stay flat."""

from __future__ import annotations

import argparse
import json
import signal
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from richter.config import Settings
from tests.live_tools import LIMIT_S, check_run, exchange, log_of, recorded_lines, start_run

FAULTS = (
    "drop@900,times=1000",
    "close@1500,code=1012,connection=3,times=1000",
    "sequence_gap@211,times=100000",
    "duplicate@307,times=100000",
    "reorder@401,times=100000",
    "garbage@503,times=100000",
    "truncated@607,times=100000",
    "stall@1300,connection=5,times=1000",
)


def resident_mb(pid: int) -> float:
    """Resident memory of a process; 0 where the system does not tell."""
    status = Path(f"/proc/{pid}/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")), 0.0)


def soak(folder: Path, minutes: float, say: bool) -> dict[str, object]:
    """Run for so long; returns what was measured."""
    data = folder / "data"
    faults = [argument for fault in FAULTS for argument in ("--fault", fault)]
    products = [f"C{number:02d}-USD" for number in range(6)]
    served = [argument for name in products for argument in ("--product", name)]
    samples: list[float] = []
    with exchange(*served, *faults, "--no-limits", "--preset", "predictable", "--history", "30m") as url:
        process = start_run(data, url, *[argument for name in products for argument in ("--pair", name)])
        end = time.monotonic() + minutes * 60
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(10.0, left))
            assert process.poll() is None, log_of(data).read_text()[-2000:]
            samples.append(resident_mb(process.pid))
            if say:
                print(
                    f"{left / 60:6.1f} min left, {recorded_lines(data):>9,} lines, {samples[-1]:6.1f} MB",
                    flush=True,
                )
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=LIMIT_S)
        assert process.returncode == 0, log_of(data).read_text()[-2000:]
    ran = json.loads(out)["ran"]
    comparison = check_run(data, Settings(data_dir=data, alert_budget_per_hour=2))
    third = max(1, len(samples) // 3)
    return {
        "minutes": minutes,
        "lines recorded": ran["recorded"],
        "connections": ran["connections"],
        "gaps recorded, frames missing": (ran["feed"]["gaps"], ran["feed"]["missing"]),
        "duplicates, late frames, dead letters": (
            ran["feed"]["duplicates"],
            ran["feed"]["out_of_order"],
            ran["feed"]["dead"],
        ),
        "frames lost in the queue": ran["lost_frames"],
        "rows compared with the replay": comparison.compared,
        "memory after a third, at the end (MB)": (round(samples[third - 1]), round(samples[-1])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--out", type=Path, help="write the table as Markdown")
    chosen = parser.parse_args()
    with TemporaryDirectory(prefix="richter-soak-") as folder:
        measured = soak(Path(folder), chosen.minutes, say=True)
    rows = "\n".join(f"| {name} | {value} |" for name, value in measured.items())
    table = f"| what | measured |\n|---|---:|\n{rows}\n"
    print(table)
    if chosen.out:
        faults = ", ".join(f"`{fault}`" for fault in FAULTS)
        chosen.out.write_text(
            "# Soak\n\nWritten by `make soak`: `richter run` against `richter simulate`, six products, with these "
            f"faults again and again: {faults}. At the end the logs equal an uninterrupted replay of the recording, "
            f"bit for bit.\n\n{table}"
        )


if __name__ == "__main__":
    main()
