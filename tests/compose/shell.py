"""Types commands as a person would, and says of each what came of it."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import click

_POLL_S = 0.5


class StepFailed(Exception):
    """A command or a condition was not as it should be.

    Args:
        fact: what was wrong, in a sentence.
        output: of the command.
    """

    def __init__(self, fact: str, output: str = "") -> None:
        super().__init__(fact)
        self.output = output


def says(text: str) -> Callable[[str], str]:
    """A judge of output that must contain a text."""

    def judge(output: str) -> str:
        if text not in output:
            raise StepFailed(f"the output lacks {text!r}")
        return text

    return judge


class Shell:
    """Runs commands in a folder.

    Args:
        root: the folder.
        environment: all that the commands see of one.
    """

    def __init__(self, root: Path, environment: Mapping[str, str]) -> None:
        self.root = root
        self.environment = dict(environment)

    def step(
        self,
        command: str,
        judge: Callable[[str], str] = lambda output: "done",
        *,
        within_s: float = 120,
        more: Mapping[str, str] | None = None,
    ) -> str:
        """Type a command, and say what `judge` makes of its output.

        It gets a terminal when it asks for one (`-it`), and no input otherwise.

        Args:
            command: as typed, over several lines or not.
            judge: raises `StepFailed`, or says in a few words what was found.
            within_s: it must have ended.
            more: variables of this command alone.

        Returns:
            The output.

        Raises:
            StepFailed: it exits with another code than 0, takes too long, or the judge says so.
        """
        typed = "; ".join(re.sub(r"\s*\\\n\s*", " ", command).splitlines())
        click.echo(" ".join(["$", *(f"{name}={value}" for name, value in (more or {}).items()), typed]))
        start = time.monotonic()
        code, output = self._run(command, within_s, more or {}, terminal=" -it " in command)
        try:
            if code:
                raise StepFailed(f"exit code {code}")
            found = judge(output)
        except StepFailed as error:
            raise StepFailed(str(error), output) from None
        click.echo(f"  {time.monotonic() - start:.1f} s  {found}")
        return output

    def ask(self, command: str, within_s: float = 60) -> str:
        """Run a command on the quiet and return its output, whatever its exit code."""
        return self._run(command, within_s, {}, terminal=False)[1].strip()

    def wait(self, what: str, true: Callable[[], bool], *, within_s: float) -> None:
        """Wait until a condition holds.

        Raises:
            StepFailed: it does not in time.
        """
        start = time.monotonic()
        while not true():
            if time.monotonic() - start > within_s:
                raise StepFailed(f"not within {within_s:g} s: {what}")
            time.sleep(_POLL_S)
        click.echo(f"  {time.monotonic() - start:.1f} s  {what}")

    def _run(
        self, command: str, within_s: float, more: Mapping[str, str], *, terminal: bool
    ) -> tuple[int, str]:
        read, write = os.openpty() if terminal else os.pipe()
        try:
            process = subprocess.Popen(
                ["bash", "-o", "pipefail", "-e", "-c", command],
                cwd=self.root,
                env={**self.environment, **more},
                stdin=write if terminal else subprocess.DEVNULL,
                stdout=write,
                stderr=write,
                start_new_session=True,
            )
        finally:
            os.close(write)
        deadline = time.monotonic() + within_s
        output = b""
        try:
            while select.select([read], [], [], max(0.0, deadline - time.monotonic()))[0]:
                try:
                    block = os.read(read, 65_536)
                except OSError:  # A terminal ends so on Linux.
                    block = b""
                if not block:
                    return process.wait(), _text(output)
                output += block
            raise StepFailed(f"not done within {within_s:g} s", _text(output))
        finally:
            os.close(read)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _text(output: bytes) -> str:
    return output.decode(errors="replace").replace("\r\n", "\n")
