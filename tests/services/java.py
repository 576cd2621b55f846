"""Which Java runtimes this machine has. Read from their `release` files: starting each to ask it takes seconds."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, order=True)
class Java:
    """One runtime: its major version and its folder, the one that holds bin/java."""

    major: int
    home: Path

    @property
    def command(self) -> str:
        return str(self.home / "bin" / "java")


def extra_options() -> list[str]:
    """What is given to the servers' Java besides, in LOGWEIR_TEST_JAVA_OPTIONS.

    Tests set -XX:TieredStopAtLevel=1: servers that live for minutes start with half the processor time without the
    second compiler. Benchmarks do not.
    """
    return os.environ.get("LOGWEIR_TEST_JAVA_OPTIONS", "").split()


def find_java(at_least: int) -> Java | None:
    """Return the oldest runtime here of at least that major version, or None.

    The oldest, because a server is tested longest on the Java it was released for.
    """
    found = sorted(java for home in _homes() if (java := _read(home)) and java.major >= at_least)
    return found[0] if found else None


def _homes() -> list[Path]:
    homes = [Path("/usr/lib/jvm"), Path("/opt/java"), Path.home() / ".sdkman/candidates/java"]
    candidates = [home for folder in homes if folder.is_dir() for home in folder.iterdir()]
    if given := os.environ.get("JAVA_HOME"):
        candidates.append(Path(given))
    if on_path := shutil.which("java"):
        candidates.append(Path(on_path).resolve().parent.parent)
    return candidates


def _read(home: Path) -> Java | None:
    release = home / "release"
    if not release.is_file() or not (home / "bin" / "java").is_file():
        return None
    lines = release.read_text(errors="replace").splitlines()
    said = {key: value.strip('"') for key, _, value in (line.partition("=") for line in lines)}
    # A runtime cut down by jlink lacks this module, and Elasticsearch does not start without it.
    if "jdk.incubator.vector" not in said.get("MODULES", "jdk.incubator.vector").split():
        return None
    major = said.get("JAVA_VERSION", "0").split(".")[0]
    return Java(int(major), home.resolve()) if major.isdigit() else None
