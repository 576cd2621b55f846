"""Real senders that are not Debian's packages: built once, into the cache that the servers are in, too."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from tests.services.errors import MissingTool
from tests.services.fetch import cache_directory, fetched, run

HERE = Path(__file__).parent


def collector() -> Path:
    """A Collector of OpenTelemetry. Raises MissingTool, ServiceError."""
    return _of_go("collector", "a Collector of OpenTelemetry (some minutes of a processor)")


def opentelemetry_js() -> Path:
    """The folder of opentelemetry_js/ with its packages beside it. Raises MissingTool, ServiceError."""
    return _of_javascript("opentelemetry_js", "OpenTelemetry's SDK for JavaScript")


def elasticsearch_js(url: str, key: str) -> list[str]:
    """The command that sends by @elastic/elasticsearch. Raises MissingTool, ServiceError."""
    node, home = _tool("node"), _of_javascript("js", "the Elasticsearch client for JavaScript")
    return [node, str(home / "send.js"), url, key]


def elasticsearch_go(url: str, key: str) -> list[str]:
    """The command that sends by go-elasticsearch. Raises MissingTool, ServiceError."""
    return [str(_of_go("go", "the Elasticsearch client for Go (2 minutes of a processor)")), url, key]


def _of_go(folder: str, what: str) -> Path:
    def build(target: Path) -> None:
        command = [_tool("go"), "build", "-C", str(HERE / folder), "-o", str(target / "sender"), "."]
        run(command, GOFLAGS="-mod=readonly -buildvcs=false")

    return _built(folder, what, build) / "sender"


def _of_javascript(folder: str, what: str) -> Path:
    def install(target: Path) -> None:
        shutil.copytree(HERE / folder, target, dirs_exist_ok=True)
        run([_tool("npm"), "ci", "--prefix", str(target), "--ignore-scripts", "--no-audit", "--no-fund"])

    return _built(folder, what, install)


def _built(folder: str, what: str, build: Callable[[Path], None]) -> Path:
    """Named by what it is made of, so that no old copy in a cache is used."""
    made_of = b"".join(path.read_bytes() for path in sorted((HERE / folder).iterdir()) if path.is_file())
    home = cache_directory() / f"sender-{folder}-{hashlib.sha256(made_of).hexdigest()[:12]}"
    return fetched(home, what, build)


def _tool(command: str) -> str:
    found = shutil.which(command, path=f"{os.environ['PATH']}:/usr/local/go/bin")
    if found is None:
        raise MissingTool(f"{command} is needed for `make proof` (Go 1.23 or newer; Node.js 18 or newer, with npm)")
    return found
