"""`richter simulate` as a user meets it."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from richter.cli.main import main
from richter.simulate.market import PRESETS, simulate_market
from richter.simulate.recording import write_recording
from tests.simulate.exchanges import NOON, connected, numbers, run, subscribe, take, take_all


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "richter", "simulate", "--port", "0", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def talk(url: str, number: int) -> list[dict[str, Any]]:
    async def first() -> list[dict[str, Any]]:
        async with connected(url) as client:
            await subscribe(client, "BTC-USD", heartbeats=True)
            return await take(client, number)

    return asyncio.run(first())


def test_a_termination_is_a_clean_end_that_says_what_was_served() -> None:
    with started("--json", "--history", "2m", "--fault", "duplicate@5") as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        frames = talk(told["url"], 20)
        process.send_signal(signal.SIGTERM)
        rest, log = process.communicate(timeout=30)

    assert process.returncode == 0
    assert rest == ""
    assert told["simulated"] is True
    assert told["url"] == f"ws://127.0.0.1:{told['port']}"
    assert told["exchange_url"] == told["url"] + "/exchange"
    assert (told["products"], told["faults"]) == (["BTC-USD"], ["duplicate"])
    assert numbers(frames)[:7] == [0, 1, 2, 3, 4, 4, 5]
    last = json.loads(log.splitlines()[-1])
    assert (last["event"], last["connections"], last["faults"]) == ("stopped", 1, {"duplicate": 1})
    assert last["frames"] >= 20


def test_an_interrupt_with_a_client_still_there_is_a_clean_end_too() -> None:
    async def test() -> None:
        with started("--product", "BTC-USD", "--product", "ETH-USD") as process:
            assert process.stdout is not None
            told = ""
            while "Stop with" not in told:
                told += await asyncio.to_thread(process.stdout.readline)
            url = next(line.split()[-1] for line in told.splitlines() if line.startswith("Advanced Trade"))
            async with connected(url) as client:
                await subscribe(client, "ETH-USD")
                await take(client, 2)
                process.send_signal(signal.SIGINT)
                await take_all(client)
                assert client.close_code == 1001
            rest, _ = await asyncio.to_thread(process.communicate, timeout=30)

        assert process.returncode == 0
        assert told.startswith(
            "SIMULATED exchange (market realistic, seed 7): nothing here is quoted or paid."
        )
        assert f"richter run --url {url}" in told
        assert f"COINBASE_WS_URL={url}" in told
        assert "BTC-USD, ETH-USD" in told
        assert rest.startswith("Stopped: served ")
        assert rest.endswith(" on 1 connection.\n")

    run(test)


def test_a_recording_is_served_and_closed_at_its_end(tmp_path: Path) -> None:
    market = simulate_market(PRESETS["calm"], seed=7, seconds=300, start_ns=NOON)
    write_recording(market, tmp_path / "raw", "BTC-USD", "sim-7")
    (tmp_path / "faults.yaml").write_text("- kind: sequence_gap\n  after: 3\n- drop@4,connection=9\n")

    async def read(url: str) -> list[dict[str, Any]]:
        async with connected(url) as client:
            await subscribe(client, "BTC-USD")
            return await take_all(client)

    arguments = ("--replay", "raw", "--speed", "max", "--end", "close", "--faults", "faults.yaml")
    with started("--json", *arguments) as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        frames = asyncio.run(read(told["url"]))
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)

    assert process.returncode == 0
    assert told["ticks"] == len(market.ts)
    assert told["source"] == "recording of 1 file"
    assert numbers(frames) == [0, 1, *range(3, len(market.ts) + 1)]


def test_a_port_in_use_is_one_sentence_and_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        code = main(["simulate", "--port", str(port)])

    told = capsys.readouterr()
    assert code == 1
    assert told.out == ""
    assert told.err == (
        f"richter: the port is in use: {port}; stop the program that has it, or choose another with --port "
        "(0 takes a free one)\n"
    )


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--preset", "wild"], 2, "no such preset of the market: 'wild'; choose one of calm, realistic"),
        (["--history", "8x"], 2, "'8x' is no length of time; write 8h, 90m or 30s"),
        (["--speed", "0", "--replay", "x"], 2, "'0' is no speed; write a number above 0 such as 10, or max"),
        (["--speed", "2"], 2, "--speed does not go with a market: only recordings have a speed and an end"),
        (["--end", "close"], 2, "--end does not go with a market"),
        (["--replay", "x", "--seed", "3"], 2, "--seed does not go with --replay: a recording has its own"),
        (["--replay", "x", "--history", "8h"], 2, "--history does not go with --replay"),
        (["--replay", "nothing"], 1, "no file matches: 'nothing'"),
        (["--product", "bitcoin"], 2, "products (from flag --product) is wrong: ['bitcoin']"),
        (["--fault", "dorp@3"], 2, "--fault has an unknown kind: 'dorp'; did you mean drop?"),
        (["--faults", "absent.yaml"], 1, "the file of faults cannot be read: 'absent.yaml'; No such file"),
        (["--faults", "bad.yaml"], 1, "the file of faults is not YAML: 'bad.yaml'; see line 2"),
        (["--faults", "kind.yaml"], 2, "kind.yaml, fault 1 (drop) has an unknown field: 'frames'"),
    ],
)
def test_what_cannot_be_served_is_one_clear_error(
    arguments: list[str], code: int, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.yaml").write_text("- kind: drop\n  - : [\n")
    (tmp_path / "kind.yaml").write_text("- {kind: drop, frames: 3}\n")

    assert main(["simulate", "--port", "0", *arguments]) == code

    told_all = capsys.readouterr()
    assert told_all.out == ""
    assert told in told_all.err
    assert "Traceback" not in told_all.err


def test_help_names_every_kind_of_fault_and_its_fields(capsys: pytest.CaptureFixture[str]) -> None:
    from richter.simulate.faults import KINDS

    assert main(["simulate", "--help"]) == 0

    told = " ".join(capsys.readouterr().out.split())
    assert f"Kinds: {', '.join(KINDS)}." in told
    fields = told.partition("of some kinds")[2].partition("--no-limits")[0]
    assert all(name in fields for kind in KINDS.values() for name in kind.fields)
