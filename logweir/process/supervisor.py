"""Child processes that are started, watched, started again when they die, and stopped in order."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from logweir.errors import PART_FAILED, LogweirError
from logweir.process.lifetime import die_with_parent

log = logging.getLogger(__name__)

GRACE_S = 4.0
_READY_S_MAX = 60.0
_RESTART_WAIT_S_MAX = 10.0
_HOUR_S = 3600.0
_TURN_S = 0.1


@dataclass(slots=True)
class Part:
    """One child process. ``is_ingest``: it takes events in, so it stops before those that work them off."""

    name: str
    command: list[str]
    environment: dict[str, str]
    is_ingest: bool = False
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    restart_at: float = 0.0
    restart_wait_s: float = field(default=0.5)

    def start(self) -> None:
        parent = os.getpid()
        # A process group of its own: Ctrl-C in the terminal reaches us alone, and we stop the parts in order.
        self.process = subprocess.Popen(  # noqa: S603
            self.command,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            process_group=0,
            preexec_fn=lambda: die_with_parent(parent=parent),
        )
        self.started = time.monotonic()

    def exit_status(self) -> int | None:
        return self.process.poll() if self.process else None


class Supervisor:
    """Starts parts, starts them again when they die, stops them."""

    def __init__(self) -> None:
        self._parts: list[Part] = []
        self._stopping = False
        self._is_reload_wanted = False

    def stop(self) -> None:
        """Have ``watch`` return; a second time, kill everything at once."""
        if self._stopping:
            self._signal(self._parts, signal.SIGKILL)
        self._stopping = True

    def reload(self) -> None:
        """Have ingest read its settings again, as soon as everything runs."""
        self._is_reload_wanted = True

    def start(self, part: Part) -> None:
        self._parts.append(part)
        part.start()

    def wait_until(self, ready: Mapping[str, Callable[[], bool]]) -> bool:
        """True once all parts that are named are ready; False when told to stop before.

        Raises LogweirError(PART_FAILED) when a part ends with a status of its own, or is not ready within a minute.
        """
        deadline = time.monotonic() + _READY_S_MAX
        waiting = dict(ready)
        while waiting and not self._stopping:
            for part in self._parts:
                if (part.exit_status() or 0) > 0:
                    raise LogweirError(PART_FAILED, part=part.name, status=part.exit_status())
                self._restart_if_dead(part)
            if time.monotonic() > deadline:
                raise LogweirError(
                    PART_FAILED, part=next(iter(waiting)), status=f"not ready after {_READY_S_MAX:.0f} s"
                )
            waiting = {name: is_ready for name, is_ready in waiting.items() if not is_ready()}
            time.sleep(_TURN_S)
        return not self._stopping

    def watch(self, *, every_hour: Callable[[], None]) -> None:
        """Start again what dies, with growing pauses, until told to stop."""
        hour_s = time.monotonic() + _HOUR_S
        while not self._stopping:
            for part in self._parts:
                self._restart_if_dead(part)
            if self._is_reload_wanted:
                self._is_reload_wanted = False
                self._signal([part for part in self._parts if part.is_ingest], signal.SIGHUP)
            if time.monotonic() > hour_s:
                hour_s = time.monotonic() + _HOUR_S
                every_hour()
            time.sleep(_TURN_S)

    def stop_all(self, *, ingest_grace_s: float) -> None:
        """Stop the parts in order, each within its grace; then kill what is left."""
        log.info("Stopping.")
        for group, grace_s in (
            ([part for part in self._parts if part.is_ingest], ingest_grace_s),
            ([part for part in self._parts if not part.is_ingest], GRACE_S),
        ):
            self._signal(group, signal.SIGTERM)
            deadline = time.monotonic() + grace_s
            while time.monotonic() < deadline and any(part.exit_status() is None for part in group):
                time.sleep(_TURN_S / 4)
            self._signal(group, signal.SIGKILL)
            for part in group:
                if part.process:
                    part.process.wait()

    def _restart_if_dead(self, part: Part) -> None:
        now, status = time.monotonic(), part.exit_status()
        if status is None:
            return
        if not part.restart_at:
            if now - part.started > _RESTART_WAIT_S_MAX:
                part.restart_wait_s = 0.5
            part.restart_at = now + part.restart_wait_s
            about = {"part": part.name, "status": status}
            log.warning("%s ended with status %s; starting it again.", part.name, status, extra=about)
        elif now >= part.restart_at:
            part.restart_at = 0.0
            part.restart_wait_s = min(part.restart_wait_s * 2, _RESTART_WAIT_S_MAX)
            part.start()

    def _signal(self, parts: list[Part], number: signal.Signals) -> None:
        for part in parts:
            if part.process and part.exit_status() is None:
                part.process.send_signal(number)
