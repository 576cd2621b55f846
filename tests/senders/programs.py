"""Real senders that are not Debian's packages: built once, into the cache that the servers are in, too."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.services.errors import MissingTool, ServiceError
from tests.services.fetch import _fetched, cache_directory

HERE = Path(__file__).parent


def collector() -> Path:
    """A Collector of OpenTelemetry, built from collector/: some minutes of the Go compiler. Raises MissingTool."""

    def build(target: Path) -> None:
        _run("go", "build", "-o", str(target / "collector"), ".", folder=HERE / "collector")

    return _built("otel-collector", HERE / "collector", build) / "collector"


def opentelemetry_js() -> Path:
    """The folder of opentelemetry_js/ with its packages beside it. Raises MissingTool."""

    def install(target: Path) -> None:
        shutil.copytree(HERE / "opentelemetry_js", target, dirs_exist_ok=True)
        _run("npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", folder=target)

    return _built("opentelemetry-js", HERE / "opentelemetry_js", install)


def _built(name: str, source: Path, build: Callable[[Path], None]) -> Path:
    digest = hashlib.sha256()
    for path in sorted(source.iterdir()):
        digest.update(path.name.encode() + path.read_bytes())
    return _fetched(cache_directory() / f"{name}-{digest.hexdigest()[:12]}", name, build, print)


def _run(command: str, *words: str, folder: Path) -> None:
    found = shutil.which(command)
    if found is None:
        raise MissingTool(f"{command} is needed to build what is in {folder}")
    environment = {**os.environ, "GOFLAGS": "-buildvcs=false"}
    done = subprocess.run([found, *words], cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise ServiceError(f"{command} {' '.join(words)} ended with {done.returncode}:\n{done.stderr[-4000:]}")
