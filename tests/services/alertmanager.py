"""A real Alertmanager, from Debian's package, which groups nothing and tells a webhook at once."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

import yaml

from tests.services.process import ServerProcess, choose_ports


class Alertmanager:
    """``webhook``: the URL that it tells."""

    def __init__(self, directory: Path, *, webhook: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        (self._port,) = choose_ports(1)
        self.url = f"http://127.0.0.1:{self._port}"
        self._process = ServerProcess("alertmanager", directory)
        self._file = directory / "alertmanager.yml"
        route = {"receiver": "all", "group_by": ["..."], "group_wait": "0s", "group_interval": "1s"}
        receivers = [{"name": "all", "webhook_configs": [{"url": webhook}]}]
        self._file.write_text(yaml.safe_dump({"route": route, "receivers": receivers}))

    def start(self) -> None:
        self._process.launch(
            [
                "prometheus-alertmanager",
                f"--config.file={self._file}",
                f"--storage.path={self._file.with_name('data')}",
                "--cluster.listen-address=",
                "--log.level=warn",
                f"--web.listen-address=127.0.0.1:{self._port}",
            ]
        )
        self._process.wait_until(self._is_ready, wait_s_max=30)

    def stop(self) -> None:
        self._process.stop(wait_s_max=10)

    def alerts(self) -> list[dict[str, Any]]:
        """Those that are active."""
        with urllib.request.urlopen(f"{self.url}/api/v2/alerts", timeout=10) as answer:
            found: list[dict[str, Any]] = json.load(answer)
        return found

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=2):
                return True
        except OSError:
            return False
