"""Processes that outlive the one that starts them, found again by their id and their command line."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

__all__ = ["call", "command_line", "resident_mib", "send", "spawn", "until"]

_POLL_S: Final = 0.05


def spawn(command: Sequence[str], output: Path) -> int:
    """Start a process in a session of its own, so that Ctrl+C in a terminal does not reach it.

    Args:
        command: The program and its arguments.
        output: The file that its standard output and standard error are added to.

    Returns:
        Its process id. It is not our child: init reaps it, whichever of us ends first.
    """
    script = f"{shlex.join(command)} </dev/null >>{shlex.quote(str(output))} 2>&1 & echo $!"
    done = subprocess.run(
        ["/bin/sh", "-c", script],
        start_new_session=True,
        stdout=subprocess.PIPE,
        check=True,
        cwd=output.parent,
    )
    return int(done.stdout)


def call(command: Sequence[str], output: Path, deadline_s: float) -> int:
    """Run a process to its end, its output added to a file.

    Returns:
        Its exit code; 124, as `timeout` has it, when it was killed for taking too long.
    """
    with output.open("ab") as file:
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, timeout=deadline_s, check=False
            )
        except subprocess.TimeoutExpired:
            return 124
    return done.returncode


def command_line(pid: int) -> str:
    """The arguments of a process with spaces between; empty when there is none, or only its remains."""
    if Path("/proc/self/cmdline").exists():
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            return ""
    return _ps("command", pid)


def resident_mib(pid: int) -> float | None:
    """The memory that a process holds, in MiB."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_bytes().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    except (OSError, IndexError):
        kib = _ps("rss", pid)
        return int(kib) / 1024 if kib.isdigit() else None


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal, to nobody if the process is gone."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def until(condition: Callable[[], bool], deadline_s: float) -> bool:
    """Wait for a condition; False when it does not come true in time."""
    end = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() >= end:
            return False
        time.sleep(_POLL_S)
    return True


def _ps(column: str, pid: int) -> str:
    try:
        done = subprocess.run(
            ["ps", "-ww", "-o", f"{column}=", "-p", str(pid)], capture_output=True, text=True, check=False
        )
    except OSError:
        return ""
    return done.stdout.strip()
