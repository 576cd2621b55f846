"""The compose file's own services as processes of this machine: the command and environment that stand in the file.

Only what a container would give is put in place: host names, ports, and folders.
"""

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.deploy.compose import ROOT
from tests.services.process import ServerProcess, choose_ports

_PORTS = ("8080", "8081", "8082", "8090", "8091")
ENTRYPOINT = ["logweir"]  # deploy/Dockerfile's; test_compose_run.py compares


class Stack:
    """One composition: `service(...)` gives its own services, which share `folder` as the containers share volumes.

    servers   what stands in the file for Kafka and Elasticsearch, and what to use in its place
    ports     the port inside the container, and the one that stands for it here
    """

    def __init__(self, compose: Mapping[str, Any], folder: Path, servers: Mapping[str, str] | None = None) -> None:
        self.compose = compose
        self.folder = folder
        self.ports = dict(zip(_PORTS, choose_ports(len(_PORTS)), strict=True))
        self._servers = dict(servers or {})
        self.started: dict[str, Service] = {}

    def service(self, name: str) -> "Service":
        """Return the service, not started."""
        return Service(name, self.compose["services"][name], self)

    def start(self, name: str) -> None:
        """Start the service; return when its health check is content."""
        self.started[name] = self.service(name)
        self.started[name].start()

    def stop(self) -> None:
        for service in self.started.values():
            service.stop()

    def placed(self, text: str, *, service: str) -> str:
        """Return `text` with the places of this machine in place of the container's."""
        text = re.sub(rf"(?<!\d)({'|'.join(_PORTS)})(?!\d)", lambda match: str(self.ports[match[1]]), text)
        places = {
            **self._servers,
            "0.0.0.0": "127.0.0.1",
            "/var/lib/logweir": str(self.folder / service),
            "/etc/logweir": str(self.folder),
            "/opt/nginx": str(ROOT / "deploy/nginx"),
            "/opt/kibana": str(ROOT / "deploy/kibana"),
        }
        for written, meant in places.items():
            text = text.replace(written, meant)
        return text


class Service(ServerProcess):
    """One service of the file: run with its own command, or once with another, as `docker compose run` does."""

    def __init__(self, name: str, row: Mapping[str, Any], stack: Stack) -> None:
        self._row = row
        self._stack = stack
        directory = stack.folder / name
        for folder in (directory, stack.folder / "keys", stack.folder / "tls"):
            folder.mkdir(parents=True, exist_ok=True)
        super().__init__(name, directory)

    def environment(self) -> dict[str, str]:
        given = self._row.get("environment", {})
        return {key: self._stack.placed(str(value), service=self.name) for key, value in given.items()}

    def command(self, words: Sequence[str] | None = None) -> list[str]:
        """Return what would run: the service's own command, or `words` in its place."""
        entrypoint = self._row.get("entrypoint", ENTRYPOINT)
        return self._on_this_machine([*entrypoint, *(self._row.get("command", []) if words is None else words)])

    def start(self) -> None:
        """Start it and return when its health check is content."""
        self.launch(self.command(), environment=self._all_variables())
        self.wait_until(self.is_healthy, wait_s_max=100)

    def run(self, words: Sequence[str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run once to the end."""
        return self._run(self.command(words))

    def is_healthy(self) -> bool:
        """Run the file's health check, as Docker would."""
        kind, *words = self._row["healthcheck"]["test"]
        assert kind == "CMD"
        return self._run(self._on_this_machine(words)).returncode == 0

    def _on_this_machine(self, words: Sequence[str]) -> list[str]:
        programs = {"logweir": [sys.executable, "-m", "logweir.cli"], "python": [sys.executable]}
        first, *rest = (self._stack.placed(word, service=self.name) for word in words)
        return [*programs.get(first, [first]), *rest]

    def _all_variables(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("LOGWEIR_")}
        # A test that posts once is not to fail for a slow disk of the machine that runs it.
        return {**inherited, **self.environment(), "LOGWEIR_INGEST_QUEUE_TIMEOUT_S": "5"}

    def _run(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, env=self._all_variables(), cwd=self.directory, capture_output=True, text=True, timeout=60
        )
