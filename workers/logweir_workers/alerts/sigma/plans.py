"""What becomes of a Sigma document before it is a rule: plain JSON, so it can be kept in a file and read by anybody.

A condition is a tree of lists: ``["and", [...]]``, ``["or", [...]]``, ``["not", tree]``, or a *leaf*, which is a kind,
a field (None: anywhere in the event) and values of which one has to fit. Texts are in lower case but for ``cased``
kinds.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import orjson

from logweir.process.files import fingerprint_of, locked, make_folder, write_whole

log = logging.getLogger(__name__)

FORM = 2
"""Of plans as they are here. Raise it whenever other plans are made of the same documents."""
FILE_NAME = "sigma-plans.json"
"""Of the cache, in the folder of rules as they were read last."""
_LOCK_S_MAX = 10.0

Plan = dict[str, Any]
"""One document. ``kind`` is ``rule``, ``correlation`` or ``filter``."""
Tree = list[Any]


def content_hash(source: bytes) -> str:
    """What a file's plans are kept by."""
    return hashlib.blake2b(source, digest_size=16).hexdigest()


def digest_of(value: object) -> str:
    """A short hash of something that is JSON."""
    return hashlib.blake2b(orjson.dumps(value, option=orjson.OPT_SORT_KEYS), digest_size=6).hexdigest()


class PlanCache:
    """The plans of files, by a hash of what is in them. ``path``: where they outlive a restart; None: nowhere.

    It holds JSON and nothing that runs. One that cannot be read, or is of another form, is as good as none.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._plans: dict[str, list[Plan]] | None = None
        self._used: set[str] = set()
        self._has_news = False
        self._version: object = None

    def get(self, digest: str) -> list[Plan] | None:
        """The plans of a file with that in it; None where they are not known."""
        self._used.add(digest)
        return self._all.get(digest)

    def put(self, digest: str, plans: list[Plan]) -> None:
        self._used.add(digest)
        self._all[digest] = plans
        self._has_news = True

    def refresh(self) -> None:
        """Know what another process, such as an import, has written down since."""
        if self._path is not None and self._plans is not None and fingerprint_of(self._path) != self._version:
            self._version = fingerprint_of(self._path)
            self._plans = {**_read(self._path)[0], **self._plans}

    def as_read_last(self, path: Path) -> tuple[list[Plan], str] | None:
        """The plans of a file as ``keep`` was told of it last, and their hash; None where they are not known."""
        digest = self._last.get(str(path), "")
        plans = self.get(digest) if digest else None
        return None if plans is None else (plans, digest)

    def keep(self, last: Mapping[Path, str] | None = None) -> None:
        """Write down what is new. ``last``: by file what was read of it last; whatever else there is, is left out then.

        What cannot be written is said in the log.
        """
        names = None if last is None else {str(path): digest for path, digest in last.items()}
        if self._path is None or not (self._has_news or (names is not None and names != self._last)):
            return
        try:
            make_folder(self._path.parent)
            with locked(self._path.with_suffix(".lock"), wait_s_max=_LOCK_S_MAX):
                if names is None:
                    # Another process may have written since.
                    plans = {**_read(self._path)[0], **self._all}
                    names = self._last
                else:
                    plans = {digest: one for digest, one in self._all.items() if digest in self._used}
                body = {"form": _form(), "last": names, "plans": plans}
                write_whole(self._path, orjson.dumps(body).decode())
                self._version = fingerprint_of(self._path)
        except (OSError, TimeoutError) as error:
            log.warning("Compiled Sigma rules are not kept for a restart, in %s: %s", self._path, error)
            return
        self._last, self._has_news = names, False

    @property
    def _all(self) -> dict[str, list[Plan]]:
        if self._plans is None:
            self._version = fingerprint_of(self._path) if self._path is not None else None
            self._plans, self._last = _read(self._path) if self._path is not None else ({}, {})
        return self._plans

    @property
    def _last(self) -> dict[str, str]:
        self._all  # noqa: B018 - reads both
        return self._names

    @_last.setter
    def _last(self, names: dict[str, str]) -> None:
        self._names = names


def _form() -> str:
    """Of the cache: another pySigma may read the same document otherwise."""
    try:
        return f"{FORM}, pySigma {version('pysigma')}"
    except PackageNotFoundError:
        return str(FORM)


def _read(path: Path) -> tuple[dict[str, list[Plan]], dict[str, str]]:
    try:
        body = orjson.loads(path.read_bytes())
        if body["form"] == _form() and isinstance(body["plans"], dict) and isinstance(body["last"], dict):
            return body["plans"], body["last"]
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("Compiled Sigma rules are compiled again, as %s cannot be read: %s", path, error)
    return {}, {}
