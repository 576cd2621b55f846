"""What a process of ours owes the processes around it: to end with its parent or terminal, to say where it listens."""

from __future__ import annotations

import ctypes
import os
import secrets
import signal
import socket
import sys
import threading
from contextlib import suppress
from pathlib import Path

from logweir.errors import PORT_TAKEN, LogweirError

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
# malloc.h
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8


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


class Terminal:
    """The terminal that this process was started from, if it was: make one at the start."""

    def __init__(self) -> None:
        self._descriptors = [descriptor for descriptor in (0, 1, 2) if os.isatty(descriptor)]

    def is_gone(self) -> bool:
        """Whether it has been closed.

        That tells the two meanings of SIGHUP apart: "the terminal is gone", and "read your settings again", which a
        person or a service manager asks for.
        """
        return any(not os.isatty(descriptor) for descriptor in self._descriptors)


def set_on_stop_signals() -> threading.Event:
    """An event that SIGTERM and SIGINT set from now on, in place of ending the process."""
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    return stopping


def give_large_memory_back() -> None:
    """Have the C library give what is larger than 4 MiB back to the system as soon as it is freed.

    Its own threshold rises to the largest piece that was ever freed, up to 32 MiB: after one large body the process
    would keep a multiple of it for good. What is smaller goes back when 8 MiB of it lie free in a row: with the 128 KiB
    that the library falls back to, every body and record of some 100 KiB is new memory from the system, which took a
    quarter of a door's CPU time. All threads share two of its arenas: with one for each, what one thread has freed is
    of no use to the others. Does nothing where the C library is another one.
    """
    with suppress(AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_THRESHOLD, 4 * 1024 * 1024)
        library.mallopt(_M_TRIM_THRESHOLD, 8 * 1024 * 1024)
        library.mallopt(_M_ARENA_MAX, 2)


def identity() -> str:
    """What tells this process from every other one on this machine, also from a later one with its number.

    Empty where that cannot be known.
    """
    return _identity_of(os.getpid())


def is_gone(identity: str) -> bool:
    """Whether the process of that identity has ended for certain; False where that cannot be known from here."""
    own = _identity_of(os.getpid())
    # A process of another boot or another container's number space cannot be judged.
    if not own or not identity or identity.split()[:2] != own.split()[:2]:
        return False
    return _identity_of(int(identity.split()[2])) != identity


def _identity_of(number: int) -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        namespace = Path("/proc/self/ns/pid").readlink()
        # proc(5): fields behind the name, which is in brackets and may hold anything; state is the 3rd, start the 22nd.
        fields = Path(f"/proc/{number}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except (OSError, UnicodeDecodeError):
        return ""
    state, started = fields[0], fields[19]
    return "" if state in "ZX" else f"{boot} {namespace} {number} {started}"


def listener(what: str, address: str, port: int, *, backlog: int) -> socket.socket:
    """A listening socket; port 0 takes any free one. Raises LogweirError(PORT_TAKEN).

    For gunicorn, which would try a taken port five times, a second apart, and then leave without a word of ours.
    """
    opened = socket.socket(family_of(address), socket.SOCK_STREAM)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        opened.bind((address, port))
        opened.listen(backlog)
    except OSError as error:
        opened.close()
        raise cannot_listen(what, address, port, error) from error
    return opened


def family_of(address: str) -> socket.AddressFamily:
    """Whether a socket for the address is one of IPv4 or IPv6; a name is taken for one of IPv4."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def cannot_listen(what: str, address: str, port: int, error: OSError) -> LogweirError:
    shown = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    return LogweirError(PORT_TAKEN, what=what, address=shown, reason=error.strerror or str(error))


def require_free_port(what: str, address: str, port: int) -> None:
    """Raises LogweirError(PORT_TAKEN) when nothing could listen there now."""
    listener(what, address, port, backlog=1).close()


def owner_new() -> str:
    """A name for what a process claims as its own: never given twice, and tells an operator where to look."""
    return f"{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(4)}"
