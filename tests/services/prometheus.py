"""A real Prometheus, from Debian's package, that scrapes what it is told every second."""

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.services.errors import ServiceError
from tests.services.process import ServerProcess, choose_ports

Sample = tuple[dict[str, str], float]
"""The labels of a series, and its value."""


class Prometheus:
    """``targets``: addresses by job. ``schemes``: of the jobs that are not plain HTTP; no certificate is checked."""

    def __init__(
        self, directory: Path, *, targets: Mapping[str, str], rules: Path, schemes: Mapping[str, str] | None = None
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        (self._port,) = choose_ports(1)
        self._process = ServerProcess("prometheus", directory)
        self._file = directory / "prometheus.yml"
        jobs = [
            {
                "job_name": job,
                "scheme": (schemes or {}).get(job, "http"),
                "tls_config": {"insecure_skip_verify": True},
                "static_configs": [{"targets": [address]}],
            }
            for job, address in targets.items()
        ]
        configuration = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(rules / "*.yml")],
            "scrape_configs": jobs,
        }
        self._file.write_text(yaml.safe_dump(configuration))

    def start(self) -> None:
        data = self._file.with_name("data")
        self._process.launch(
            [
                "prometheus",
                f"--config.file={self._file}",
                f"--storage.tsdb.path={data}",
                "--log.level=warn",
                f"--web.listen-address=127.0.0.1:{self._port}",
            ]
        )
        self._process.wait_until(self._is_ready, wait_s_max=30)

    def stop(self) -> None:
        self._process.stop(wait_s_max=10)

    def query(self, expression: str) -> list[Sample]:
        """The series that the expression gives now. Raises ServiceError with what Prometheus says is wrong with it."""
        data = self.get("query", query=expression)
        return [(series["metric"], float(series["value"][1])) for series in data["result"]]

    def rules(self) -> list[dict[str, Any]]:
        """Every rule with its health, its state and its alerts."""
        return [rule for group in self.get("rules")["groups"] for rule in group["rules"]]

    def get(self, what: str, **parameters: str) -> Any:
        url = f"http://127.0.0.1:{self._port}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise ServiceError(f"{parameters}: {error.read().decode(errors='replace')}") from error

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/-/ready", timeout=2):
                return True
        except OSError:
            return False


def total(samples: Sequence[Sample], **labels: str) -> float:
    """The sum of those that have the labels."""
    return sum(value for found, value in samples if labels.items() <= found.items())
