"""Real processes, killed with SIGKILL in the middle of their work."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from richter.adapters.recording.reader import expand, read_blocks
from richter.adapters.recording.recovery import recover, try_lock
from richter.adapters.recording.sealing import verify
from richter.adapters.recording.segments import list_segments

# One process forks a victim per scenario, since importing takes longer than all of a victim's work. A victim
# acknowledges each frame after `append` returned, as a tick of it may go on only then.
VICTIMS = textwrap.dedent(
    """
    import json, os, signal, sys
    from pathlib import Path
    from richter.adapters.recording.sealing import datasync
    from richter.adapters.recording.writer import Recorder

    def work(folder, die_in, countdown):
        acknowledge = os.open(f"{folder}.acknowledged", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        now = 1_770_000_000 * 10**9

        def die(what):
            nonlocal countdown
            if die_in == what:
                countdown -= 1
                if countdown == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        def write(fd, data):
            if die_in == "write" and countdown == 1:
                os.write(fd, data[: len(data) // 2])
            die("write")
            return os.write(fd, data)

        def sync(fd):
            die("before sync")
            datasync(fd)
            die("after sync")

        def dying(name):
            real = getattr(Path, name)
            def call(self, *args, **kwargs):
                die(f"before {name}")
                real(self, *args, **kwargs)
                die(f"after {name}")
            return call

        Path.rename, Path.unlink = dying("rename"), dying("unlink")
        recorder = Recorder(
            Path(folder), clock=lambda: now, write=write, sync=sync, rotate_bytes=20_000, compress=True,
            on_event=lambda _: None, min_free_bytes=0,
        )
        line = b'{"product_id":"BTC-USD","ts_recv":%d,"n":%d,"x":"%s"}'
        n = 0
        while True:
            lines = [line % (now, n + k, b"x" * 300) for k in range(3)]
            assert recorder.append("BTC-USD", lines, ts_recv=now)
            n += 3
            os.write(acknowledge, b"%d\\n" % n)
            now += 10**8
            recorder.tick(now)

    for scenario in json.load(sys.stdin):
        child = os.fork()
        if not child:
            try:
                work(*scenario)
            finally:
                os._exit(1)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    """
)


def kill_all(*scenarios):
    """Let a victim die for each (folder, where, how often it passes there)."""
    run = subprocess.run(
        [sys.executable, "-c", VICTIMS],
        input=msgspec.json.encode([(str(folder), *rest) for folder, *rest in scenarios]),
        stdout=subprocess.PIPE,
        check=True,
        timeout=120,
    )
    assert run.stdout.split() == [b"-%d" % signal.SIGKILL] * len(scenarios)


def acknowledged_by(folder):
    lines = Path(f"{folder}.acknowledged").read_bytes().split(b"\n")[:-1]
    return int(lines[-1]) if lines else 0


def check(folder, acknowledged, runs=1):
    """After a recovery: every acknowledged line is there, none is doubled, all is sealed and right."""
    recovery = recover(folder, on_event=lambda _: None)
    lines = [
        line
        for path in expand([folder / "*.ndjson"])
        for block in read_blocks(path, on_rejected=pytest.fail)
        for line in block.lines()
    ]
    numbers = [msgspec.json.decode(line)["n"] for line in lines]
    segments = list_segments(folder)
    assert recovery.problems == []
    assert all(segment.is_sealed for segment in segments)
    assert [verify(segment) for segment in segments] == [""] * len(segments)
    assert not list(folder.glob(".*"))
    if runs == 1:
        assert numbers == list(range(len(numbers)))
        # At most the one frame that was not acknowledged is there too, or a part of its lines.
        assert acknowledged <= len(numbers) <= acknowledged + 3
    else:
        counts = Counter(numbers)
        assert max(counts.values()) <= runs
    return recovery, numbers


STEPS = [
    *[("write", n) for n in (1, 2, 50)],
    *[(step, n) for step in ("before sync", "after sync") for n in range(1, 13)],
    *[(step, n) for step in ("before rename", "after rename") for n in (1, 2, 3)],
    *[(step, n) for step in ("before unlink", "after unlink") for n in (1, 2)],
]


@pytest.fixture(scope="module")
def killed_at(tmp_path_factory):
    folders = {step: tmp_path_factory.mktemp("data") / "raw" for step in STEPS}
    kill_all(*[(folder, *step) for step, folder in folders.items()])
    return folders


@pytest.mark.parametrize("step", STEPS, ids=lambda step: f"{step[0]} {step[1]}")
def test_kill_9_at_each_step_of_writing_rotating_sealing_and_compressing(killed_at, step):
    folder = killed_at[step]

    recovery, _ = check(folder, acknowledged_by(folder))

    assert len(recovery.cut) == (step[0] == "write")


@pytest.mark.parametrize("delay_s", [0.0, 0.01, 0.1])
def test_kill_9_from_outside_loses_no_line_and_doubles_none(tmp_path, delay_s):
    folder = tmp_path / "data" / "raw"
    folder.parent.mkdir()
    scenario = msgspec.json.encode([(str(folder), "never", 0)])
    process = subprocess.Popen([sys.executable, "-c", VICTIMS], stdin=subprocess.PIPE, start_new_session=True)
    process.stdin.write(scenario)
    process.stdin.close()

    deadline = time.monotonic() + 60
    while not acknowledged_by_now(folder) and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(delay_s)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=60)

    wait_until_unlocked(folder)
    check(folder, acknowledged_by(folder))


def test_run_after_run_that_is_killed_keeps_every_line(tmp_path):
    folder = tmp_path / "raw"
    totals, acknowledged = [], []

    for run, countdown in enumerate((5, 30, 60)):
        kill_all((folder, "write", countdown))
        acknowledged.append(acknowledged_by(folder))
        totals.append(len(check(folder, 0, runs=run + 2)[1]))

    # Of each run's last frame one line is whole and one is torn.
    assert totals == [sum(acknowledged[: run + 1]) + run + 1 for run in range(3)]


def test_without_a_recovery_the_torn_line_is_there(tmp_path):
    folder = tmp_path / "raw"
    rejected = []

    kill_all((folder, "write", 5))
    for path in expand([folder / "*.ndjson"]):
        list(read_blocks(path, on_rejected=rejected.append))

    assert [report.reason.value for report in rejected] == ["torn"]


def acknowledged_by_now(folder):
    try:
        return acknowledged_by(folder)
    except FileNotFoundError:
        return 0


def wait_until_unlocked(folder):
    # The forked victim is not our child: its end shows in its lock being gone.
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.ExitStack() as stack:
            files = [stack.enter_context(path.open("rb")) for path in folder.glob("*.ndjson")]
            if all(try_lock(file.fileno()) for file in files):
                return
        time.sleep(0.001)
