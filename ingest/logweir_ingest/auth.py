"""Who is let in: the key of a request, looked up among the hashed keys of a file that may change at any time."""

from __future__ import annotations

import hmac
import logging
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from logweir.errors import KEY_MISSING, KEY_UNKNOWN, LogweirError
from logweir.keys import hash_of, read_keys

log = logging.getLogger(__name__)

_CHECK_EVERY_S = 1.0
_BEARER = b"bearer "


class Keys:
    """The live keys of the file; a change of the file counts within two seconds. Safe to use from several threads.

    A file that cannot be read leaves the keys as they were, and says so in the log.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._names: dict[str, tuple[str, str]] = {}
        self._lock = threading.Lock()
        self._fingerprint: tuple[int, int, int] | None = None
        self._check_s = time.monotonic() + _CHECK_EVERY_S
        self._load()
        if not self._names:
            log.info("%s holds no live key: every event is refused; `logweir keys add NAME` makes one.", path)

    def name_of(self, key: bytes) -> str | None:
        """The name of a live key, or None."""
        if time.monotonic() >= self._check_s:
            self._load_if_changed()
        # What is looked up and compared is a hash: how long that takes says nothing about any key.
        hashed = hash_of(key)
        found = self._names.get(hashed)
        return found[1] if found is not None and hmac.compare_digest(found[0], hashed) else None

    def _load_if_changed(self) -> None:
        with self._lock:
            self._check_s = time.monotonic() + _CHECK_EVERY_S
            if _fingerprint_of(self._path) != self._fingerprint:
                self._load()

    def _load(self) -> None:
        # The fingerprint first: a change between the two is seen at the next check.
        self._fingerprint = _fingerprint_of(self._path)
        try:
            self._names = {key.hash: (key.hash, key.name) for key in read_keys(self._path) if not key.revoked}
        except LogweirError as error:
            log.error("%s The keys stay as they were.", error)


def _fingerprint_of(path: Path) -> tuple[int, int, int] | None:
    try:
        stat = os.stat(path)  # noqa: PTH116  (called for every second's first request)
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_ino, stat.st_size


class KeyReader:
    """Finds the key among a request's headers, and the name that it stands for."""

    def __init__(self, keys: Keys, headers: tuple[str, ...]) -> None:
        self._keys = keys
        self._headers = tuple(header.lower().encode() for header in headers)

    def authenticated(self, headers: Mapping[bytes, bytes]) -> str:
        """The key's name. Raises LogweirError: KEY_MISSING, KEY_UNKNOWN."""
        key = self._key_in(headers)
        if not key:
            raise LogweirError(KEY_MISSING)
        name = self._keys.name_of(key)
        if name is None:
            raise LogweirError(KEY_UNKNOWN)
        return name

    def _key_in(self, headers: Mapping[bytes, bytes]) -> bytes:
        for header in self._headers:
            value = headers.get(header)
            if value:
                return value.strip()
        authorization = headers.get(b"authorization", b"")
        return authorization[len(_BEARER) :].strip() if authorization[: len(_BEARER)].lower() == _BEARER else b""
