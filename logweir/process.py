"""What a process of ours owes the processes around it: to die with its parent, and to say where it listens."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys

from logweir.errors import PORT_TAKEN, LogweirError

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with_parent(sent: signal.Signals = signal.SIGKILL, *, parent: int | None = None) -> None:
    """Have the kernel send us ``sent`` when our parent dies, however it dies. Call first thing in the child.

    ``parent``: the process number that the caller believes to be our parent. When it has died before this call, the
    kernel's promise came too late, and the signal is raised at once. Elsewhere than on Linux this does nothing.
    SIGKILL is safe for all of ours (what they owe is on disk before they say so), and frees their ports at once.
    """
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(sent), 0, 0, 0)
    if parent is not None and os.getppid() != parent:
        os.kill(os.getpid(), sent)


def require_free_port(what: str, address: str, port: int) -> None:
    """Raises LogweirError(PORT_TAKEN) when ``address``:``port`` cannot be bound."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            raise LogweirError(PORT_TAKEN, what=what, address=f"{address}:{port}", reason=error.strerror) from error
