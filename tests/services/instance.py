"""What every server here has: a folder with its ports and passwords; start(), stop(), kill() and remove()."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from tests.services.process import ServerProcess


class Instance:
    """A server, or a cluster of them, in a folder. Not started when made; as context manager: started, then stopped."""

    def __init__(self, directory: Path | str, *, dies_with_parent: bool = True) -> None:
        self.directory = Path(directory).resolve()
        self.directory.mkdir(parents=True, exist_ok=True)
        self.dies_with_parent = dies_with_parent
        self.processes: list[ServerProcess] = []

    def start(self) -> None:
        raise NotImplementedError

    def stop(self) -> None:
        """Ask it to end and wait until it has. Data and ports stay."""
        for process in self.processes:
            process.stop()

    def kill(self) -> None:
        """SIGKILL. Data and ports stay."""
        for process in self.processes:
            process.kill()

    def running(self) -> bool:
        return all(process.running() for process in self.processes)

    def remove(self) -> None:
        """End it and remove its folder."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _remembered(self, choose: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return what was chosen when the folder was first used: ports, ids and passwords stay for ever."""
        file = self.directory / "instance.json"
        if not file.is_file():
            file.write_text(json.dumps(choose(), indent=2) + "\n")
            file.chmod(0o600)
        chosen: dict[str, Any] = json.loads(file.read_text())
        return chosen
