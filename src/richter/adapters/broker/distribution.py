"""Apache Kafka's jars: fetched once from Maven Central into the user's cache, and the Java that runs them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from richter.adapters.broker.properties import VERSION, pom
from richter.errors import DataFolderError, ExtraMissingError, TransportError

__all__ = ["Distribution", "obtain"]

LEAST_JAVA: Final = 17
_LIST: Final = "jars.json"
_MAVEN_S: Final = 900
_INSTEAD: Final = (
    "or set KAFKA_BOOTSTRAP_SERVERS to a broker that runs, or run docker compose up -d in the folder docker"
)


class Distribution(NamedTuple):
    """What a broker is started with: the java program and the folder of jars."""

    java: str
    jars: Path

    def command(self, main_class: str, *arguments: str, options: tuple[str, ...] = ()) -> list[str]:
        """The command line that runs one of Kafka's classes."""
        return [self.java, *options, "-cp", f"{self.jars}/*", main_class, *arguments]


def obtain(tell: Callable[[str], object], environ: Mapping[str, str] | None = None) -> Distribution:
    """Find Java and the jars; fetch the jars where the cache has none.

    Args:
        tell: Called with a line when this is going to take a while.
        environ: The environment's variables; None is those of the process.

    Raises:
        ExtraMissingError: There is no Java or one that is too old, or no Maven to fetch with.
        TransportError: Maven could not fetch the jars.
        DataFolderError: The cache cannot be written to.
    """
    environ = os.environ if environ is None else environ
    java = _java(environ)
    folder = _cache(environ) / f"kafka-{VERSION}"
    if not _is_whole(folder):
        try:
            _fetch(folder, environ, tell)
        except OSError as error:
            raise DataFolderError(
                f"the cache of Kafka cannot be written to ({error.strerror})",
                str(folder.parent),
                "name another folder in XDG_CACHE_HOME",
            ) from error
    return Distribution(java, folder)


def _cache(environ: Mapping[str, str]) -> Path:
    # A relative XDG_CACHE_HOME is invalid and to be ignored, says the XDG Base Directory Specification.
    named = Path(environ.get("XDG_CACHE_HOME") or ".")
    return (named if named.is_absolute() else Path.home() / ".cache") / "richter"


def _is_whole(folder: Path) -> bool:
    """Whether every jar is there in its full size: a cache is swept by others, and by power cuts."""
    try:
        sizes = msgspec.json.decode((folder / _LIST).read_bytes(), type=dict[str, int])
        return bool(sizes) and all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, msgspec.MsgspecError):
        return False


def _fetch(folder: Path, environ: Mapping[str, str], tell: Callable[[str], object]) -> None:
    maven = shutil.which("mvn", path=environ.get("PATH"))
    if maven is None:
        raise ExtraMissingError(
            f"fetching Apache Kafka {VERSION} needs Maven, and there is no mvn",
            fix=f"install maven, {_INSTEAD}",
        )
    tell(f"Fetching Apache Kafka {VERSION} into {folder} (45 MB, about half a minute) …")
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Made beside its place and renamed into it whole, as another process may be doing the same.
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as work:
        new, old = Path(work, "new"), Path(work, "old")
        new.mkdir()
        _run_maven(maven, Path(work), new, environ)
        sizes = {jar.name: jar.stat().st_size for jar in sorted(new.glob("*.jar"))}
        (new / _LIST).write_bytes(msgspec.json.format(msgspec.json.encode(sizes)))
        if folder.exists() and not _is_whole(folder):
            folder.rename(old)
        try:
            new.rename(folder)
        except OSError:
            if not _is_whole(folder):  # Else another process was faster.
                raise


def _run_maven(maven: str, work: Path, jars: Path, environ: Mapping[str, str]) -> None:
    (work / "pom.xml").write_text(pom())
    command = [maven, "-q", "-B", "--strict-checksums", "-f", str(work / "pom.xml")]
    command += ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={jars}"]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_MAVEN_S,
            env=dict(environ),
            cwd=work,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise _not_fetched(f"it took longer than {_MAVEN_S / 60:.0f} minutes") from error
    if done.returncode != 0:
        raise _not_fetched(_last_words(done.stdout.decode(errors="replace")))
    if not any(jars.glob("kafka_*.jar")):
        raise _not_fetched("it left no jars")


def _not_fetched(reason: str) -> TransportError:
    return TransportError(
        f"Apache Kafka {VERSION} could not be fetched, Maven says: {reason}",
        fix=f"see to the network or to Maven's settings.xml, {_INSTEAD}",
    )


def _last_words(output: str) -> str:
    r"""The end of Maven's output without its colours and without its advice on how to run Maven.

    >>> _last_words("[ERROR] No route to host -> [Help 1]\n[ERROR] \n[ERROR] Re-run Maven with -X")
    'No route to host'
    """
    plain = re.sub(r"\x1b\[[0-9;]*m", "", output)
    said = re.split(r"^\[ERROR\] *$", plain, maxsplit=1, flags=re.MULTILINE)[0]
    lines = [re.sub(r"^\[[A-Z]+\] *|( -> )?\[Help 1\]", "", line).strip() for line in said.splitlines()]
    return " / ".join([line for line in lines if line][-3:])[-1000:] or "nothing"


def _java(environ: Mapping[str, str]) -> str:
    wanted = f"Apache Kafka {VERSION} needs Java {LEAST_JAVA} or newer"
    fix = f"install openjdk-{LEAST_JAVA}-jre-headless and maven, {_INSTEAD}"
    home = environ.get("JAVA_HOME")
    java = (home and shutil.which("java", path=f"{home}/bin")) or shutil.which(
        "java", path=environ.get("PATH")
    )
    if not java:
        raise ExtraMissingError(f"{wanted}, and there is no java", fix=fix)
    try:
        done = subprocess.run(
            [java, "-version"], capture_output=True, text=True, timeout=60, env=dict(environ), check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ExtraMissingError(f"{wanted}, and this java does not run", java, fix) from error
    version = _java_version(done.stderr + done.stdout)
    if version is None:  # So does the placeholder of macOS, which asks for an installation.
        raise ExtraMissingError(f"{wanted}, and this java does not tell its version", java, fix)
    if version < LEAST_JAVA:
        raise ExtraMissingError(f"{wanted}, and {java} is Java {version}", fix=fix)
    return java


def _java_version(output: str) -> int | None:
    """The feature release in the output of `java -version`.

    >>> _java_version('openjdk version "17.0.15" 2025-04-15')
    17
    >>> _java_version('java version "1.8.0_202"')
    8
    """
    match = re.search(r'version "(?:1\.)?([0-9]+)', output)
    return int(match[1]) if match else None
