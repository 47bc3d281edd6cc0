"""`make compose-test`: the course's commands, word for word, on a real engine, against a simulated exchange.

It works in a copy of the project, under a project name of its own, and takes its containers and volumes away at the
end. The images stay: they are what makes the next time quick.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

import click

from tests.compose.shell import Shell, StepFailed
from tests.compose.steps import CONTAINERS, FLOOD, FULL, NETWORK, PROJECT, SHORT, down, take_leftovers

ROOT = Path(__file__).parents[2]
PORTS = {"Kafka": 9092, "MLflow": 5001}


@click.command()
@click.option("--short", is_flag=True, help="The first milestone only: no pipeline, no broker killed.")
@click.option("--flood", is_flag=True, help="Kill the broker while hours pour in; not with --short.")
def main(short: bool, flood: bool) -> None:
    """Type the course's commands against a real stack."""
    start = time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with (
        _only_one(),
        TemporaryDirectory(prefix="richter-compose-", ignore_cleanup_errors=True) as folder,
    ):
        shell = Shell(Path(folder), _environment(Path(folder)))
        _need_engine(shell)
        _copy(shell.root)
        take_leftovers(shell)
        _need_room(shell)
        failed = False
        try:
            for step in SHORT if short else FLOOD if flood else FULL:
                click.echo(f"\n# {(step.__doc__ or '').splitlines()[0]}")
                step(shell)
        except StepFailed as error:
            failed = True
            click.echo(error.output)
            click.echo(shell.ask("cd docker && docker compose --profile pipeline ps -a"))
            click.echo(shell.ask("cd docker && docker compose --profile pipeline logs --tail 40"))
            click.echo(f"FAILED: {error}")
        finally:
            click.echo("")
            for each in (signal.SIGINT, signal.SIGTERM):
                signal.signal(each, signal.SIG_IGN)
            try:
                down(shell)
            except StepFailed as error:
                failed = True
                click.echo(f"{error.output}\nFAILED: {error}")
    click.echo(f"\n{'Failed' if failed else 'All done'} after {time.monotonic() - start:.0f} s.")
    sys.exit(failed)


@contextmanager
def _only_one() -> Iterator[None]:
    with (Path(gettempdir()) / f"{PROJECT}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit("Another compose-test is at work on this machine.")
        yield


def _environment(folder: Path) -> dict[str, str]:
    """This one's, without settings, and with the copy's code before the installed one."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("COINBASE_", "COMPOSE_", "KAFKA_", "MLFLOW_", "RICHTER_"))
    }
    return {
        **kept,
        "COMPOSE_PROJECT_NAME": PROJECT,  # Volumes of its own.
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(folder / "src"),
    }


def _need_engine(shell: Shell) -> None:
    if shutil.which("docker") is None:
        sys.exit("compose-test needs a Docker engine, and there is no docker command.")
    for command in ("docker version --format '{{.Server.Version}}'", "docker compose version --short"):
        try:
            shell.step(command, str.strip)
        except StepFailed as error:
            told = error.output.strip().splitlines()
            sys.exit(f"compose-test needs a Docker engine with Compose: {told[-1] if told else error}")


def _need_room(shell: Shell) -> None:
    there = {"kafka", "mlflow", *CONTAINERS}.intersection(
        shell.ask("docker ps -a --format '{{.Names}}'").split()
    )
    if there:
        sys.exit(f"There are containers called {', '.join(sorted(there))} already: take them away first.")
    if shell.ask(f"docker network ls -q --filter name=^{NETWORK}$"):
        sys.exit(f"There is a network {NETWORK} already: another stack's. Take it down first.")
    for name, port in PORTS.items():
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind(("127.0.0.1", port))
            except OSError:
                sys.exit(f"Port {port} is taken, and {name} needs it.")


def _copy(folder: Path) -> None:
    """What git knows and what it would take, as it is now: no data, no settings of this machine."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)


if __name__ == "__main__":
    main()
