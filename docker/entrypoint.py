"""Run a command as the owner of the data folder, whoever that is on the host.

A bind mount keeps the host's owners. Files that a fixed user wrote there would belong to a stranger, or could not be
written at all. So the container starts as root and steps down at once; with `docker run --user` there is nothing to do.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

DATA = Path("/app/data")
USER = 1000  # The image's own, and the first user of most machines.


def take_over(folder: Path) -> tuple[int, int]:
    """The user and group to run as, who own the folder and what root left in it."""
    found = os.lstat(folder)
    if is_namespace():
        return found.st_uid, found.st_gid
    # Docker makes a missing folder, and makes it root's.
    user, group = (found.st_uid, found.st_gid) if found.st_uid else (USER, USER)
    for path in (folder, *inside(folder)):
        # It may be gone meanwhile, or mounted to be read only: who has to write there will say so.
        with suppress(OSError):
            if os.lstat(path).st_uid == 0:
                os.chown(path, user, group, follow_symlinks=False)
    return user, group


def inside(folder: Path) -> Iterator[Path]:
    """All that is in a folder; a link counts as itself."""
    for place, folders, files in os.walk(folder):
        yield from (Path(place, name) for name in (*folders, *files))


def is_namespace() -> bool:
    """Whether root in here is an ordinary user out there, as with a rootless engine: then root's files are theirs."""
    return Path("/proc/self/uid_map").read_text().split()[:2] != ["0", "0"]


def main(command: list[str]) -> None:
    """Become the owner, then become the command."""
    if os.getuid() == 0:
        user, group = take_over(DATA)
        try:
            os.setgroups([])
            os.setgid(group)
            os.setuid(user)
        except OSError as error:
            sys.exit(f"cannot become user {user} ({error.strerror}): give --user {user}:{group}")
        os.environ["HOME"] = "/home/richter" if user == USER else "/tmp"
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.exit(f"{command[0]} cannot be run: {error.strerror}")


if __name__ == "__main__":
    main(sys.argv[1:])
