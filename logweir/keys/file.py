"""The keys that emitters send, as one TOML file has them: hashed, a table ``[[key]]`` each.

A key is 256 random bits, so a plain SHA-256 of it cannot be searched through; a slow password hash would only slow the
door. Several keys may have one name: they are the same sender's, which is how a key is exchanged for another.
"""

from __future__ import annotations

import base64
import contextlib
import difflib
import hashlib
import re
import secrets
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import tomlkit
import tomlkit.exceptions

from logweir.clock import Clock, iso_seconds, now_us
from logweir.errors import (
    FILE_FAILED,
    KEY_ID_UNKNOWN,
    KEY_ID_WANTED,
    KEY_NAME_BAD,
    KEY_NAME_TAKEN,
    KEY_NAME_UNKNOWN,
    KEY_TERM_BAD,
    KEYS_FILE_BAD,
    LogweirError,
)
from logweir.keys.terms import NO_TERMS, Terms
from logweir.process.files import locked, make_folder, write_whole
from logweir.text import KEY_PREFIX, holds_key

AS_LONG = "as long"
"""For ``rotate``: the new key lives as long as its predecessor was to live."""
_KEY_SIZE_BYTES = 32
_HASH_PREFIX = "sha256:"
_ID_LENGTH = 8
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HASH = re.compile(r"sha256:[0-9a-f]{64}")
_HEADING = """\
# The keys of logweir's door, hashed. `logweir keys` changes them; so may you: docs/how-to/keys.md has the fields.
# The door reads changes within two seconds.
"""


@dataclass(frozen=True, slots=True)
class Key:
    """One key as the file has it. Times are ISO 8601 in UTC, to the second; None for what has not been set."""

    name: str
    hash: str
    created: str
    expires: str | None = None
    revoked: str | None = None
    terms: Terms = NO_TERMS

    @property
    def id(self) -> str:
        """What tells the keys of one name apart: the first digits of the hash, which no other key of the file has."""
        return self.hash[len(_HASH_PREFIX) :][:_ID_LENGTH]

    @property
    def digest(self) -> bytes:
        """As ``digest_of`` gives it for the key itself."""
        return bytes.fromhex(self.hash.removeprefix(_HASH_PREFIX))

    @property
    def expires_us(self) -> int | None:
        return None if self.expires is None else moment_us(self.expires)

    def state(self, time_us: int) -> str:
        """``live``, ``expired`` or ``revoked`` at that time."""
        if self.revoked:
            return "revoked"
        expires_us = self.expires_us
        return "live" if expires_us is None or time_us < expires_us else "expired"


def digest_of(key: bytes) -> bytes:
    """The hash of a key, as bytes."""
    return hashlib.sha256(key).digest()


def hash_of(key: bytes) -> str:
    """What the file keeps of a key."""
    return _HASH_PREFIX + digest_of(key).hex()


def moment(value: object) -> str:
    """A time of the file or the command line as ``Key`` has it: a day means its first moment, in UTC.

    Raises LogweirError(KEY_TERM_BAD) for what is no time, or has no zone.
    """
    try:
        time = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        time = None
    if isinstance(time, datetime) and time.tzinfo is None and (value == str(time.date())):
        time = time.date()
    if isinstance(time, date) and not isinstance(time, datetime):
        time = datetime(time.year, time.month, time.day, tzinfo=UTC)
    if not isinstance(time, datetime) or time.tzinfo is None:
        reason = "it is not a time with its zone, such as 2027-01-31T12:00:00Z, nor a day, such as 2027-01-31"
        raise LogweirError(KEY_TERM_BAD, term="time", value=str(value), reason=reason)
    return iso_seconds(int(time.timestamp()) * 1_000_000)


def moment_us(time: str) -> int:
    """Microseconds since 1970 of a time as ``moment`` gives it. Raises ValueError."""
    return int(datetime.fromisoformat(time).timestamp()) * 1_000_000


# --- reading ------------------------------------------------------------------------------------------------------
def read_keys(path: Path) -> list[Key]:
    """The keys in the file, in its order; none when there is no file. Raises LogweirError(KEYS_FILE_BAD)."""
    try:
        return _parsed(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise LogweirError(KEYS_FILE_BAD, path=path, reason=error) from error


def live_keys(path: Path) -> list[Key]:
    """Those of ``read_keys`` that are live now."""
    return [key for key in read_keys(path) if key.state(now_us()) == "live"]


def _parsed(text: str) -> list[Key]:
    """Raises ValueError that says what is wrong where."""
    document = tomllib.loads(text)
    _require_known(document, ("key",), where="its top level")
    tables = document.get("key", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ValueError("'key' must be tables that begin with [[key]]")
    keys = [_checked(table, f"key {number}") for number, table in enumerate(tables, start=1)]
    by_id: dict[str, int] = {}
    for number, key in enumerate(keys, start=1):
        if by_id.setdefault(key.id, number) != number:
            raise ValueError(f"keys {by_id[key.id]} and {number} have the same hash, or nearly so: each needs its own")
    return keys


_TERMS = tuple(field.name for field in fields(Terms))
_FIELDS = ("name", "hash", "created", "expires", "revoked", *_TERMS)


def _checked(table: dict[str, Any], where: str) -> Key:
    for field in ("name", "hash"):
        if not isinstance(table.get(field), str):
            raise ValueError(f"{where} lacks the text {field!r}")
    name = table["name"]
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} cannot be a key's name")
    where = f"{where}, {name!r},"
    if not _HASH.fullmatch(table["hash"]):
        raise ValueError(f"{where} has a hash that is not sha256: and 64 hexadecimal digits")
    if "created" not in table:
        raise ValueError(f"{where} lacks the time 'created'")
    _require_known(table, _FIELDS, where=where)
    times = {field: _time_in(table, field, where) for field in ("created", "expires", "revoked") if field in table}
    try:
        terms = Terms.of({field: value for field, value in table.items() if field in _TERMS})
    except LogweirError as error:
        raise ValueError(f"{where} cannot be so: {error.detail}") from error
    return Key(name=name, hash=table["hash"], terms=terms, **times)


def _time_in(table: dict[str, Any], field: str, where: str) -> str:
    try:
        return moment(table[field])
    except LogweirError as error:
        raise ValueError(f"{where} has as {field!r} {table[field]!s}: {error.numbers['reason']}") from error


def _require_known(table: Iterable[str], known: tuple[str, ...], *, where: str) -> None:
    for field in table:
        if field not in known:
            raise ValueError(f"{where} has {field!r}, which is no field.{_nearest(field, known)}")


def _nearest(text: str, known: Iterable[str]) -> str:
    nearest = difflib.get_close_matches(text, known, n=1)
    return f" Did you mean {nearest[0]!r}?" if nearest else ""


# --- changing -----------------------------------------------------------------------------------------------------
class KeysFile:
    """The file as it is changed: under a lock beside it, and in one step, so that readers see the old or the new.

    What a person wrote into it stays. All methods raise LogweirError, and leave the file as it is: KEYS_FILE_BAD where
    it cannot be understood, FILE_FAILED where it cannot be read or written.
    """

    def __init__(self, path: Path, *, clock: Clock = now_us) -> None:
        self._path = path
        self._clock = clock

    def add(self, name: str, *, terms: Terms = NO_TERMS, expires: str | None = None) -> str:
        """Make a key and give it; from now on nobody can read it from anywhere.

        Raises LogweirError: KEY_NAME_BAD, KEY_NAME_TAKEN (while a key of that name is live).
        """
        if not _NAME.fullmatch(name) or holds_key(name):
            raise LogweirError(KEY_NAME_BAD, name=name)
        with self._changing() as document:
            keys = self._keys(document)
            if any(known.name == name and known.state(self._clock()) == "live" for known in keys):
                raise LogweirError(KEY_NAME_TAKEN, name=name)
            return self._append(document, keys, name, terms, expires)

    def withdraw(self, key: str) -> None:
        """Take a key out again that was made and shown to nobody, as if it had never been made."""
        with self._changing() as document:
            made = hash_of(key.encode())
            for place, table in enumerate(document.get("key", [])):
                if table["hash"] == made:
                    del document["key"][place]
                    break
            if not document.get("key"):
                document.pop("key", None)

    def rotate(self, name: str, *, grace_us: int | None, expires: str | None = AS_LONG) -> tuple[str, list[Key]]:
        """Make a second key of that name, on the terms of its last one; give it, and the old ones that still live.

        These end ``grace_us`` from now, or when they would have ended before; with None they go on. With AS_LONG the
        new key lives as long from now as its predecessor was to live from when it was made.

        Raises LogweirError(KEY_NAME_UNKNOWN) when all keys of that name are revoked.
        """
        with self._changing() as document:
            keys = self._keys(document)
            chosen = self._chosen(keys, name)
            last = chosen[-1]
            key = self._append(document, keys, name, last.terms, self._as_long(last) if expires == AS_LONG else expires)
            old = {one.id for one in chosen if one.state(self._clock()) == "live"}
            if grace_us is not None:
                end_us = self._clock() + grace_us
                for table, one in zip(document["key"], keys, strict=False):
                    if one.id in old and (one.expires_us is None or one.expires_us > end_us):
                        table["expires"] = iso_seconds(end_us)
            return key, [one for one in self._keys(document) if one.id in old]

    def change(self, name: str, changes: dict[str, Any], *, id: str | None = None) -> list[Key]:
        """Set fields of the keys of that name, or of the one with that id, as ``Key`` and ``Terms`` call them.

        A value that is None or empty takes the field away. Gives the keys as they are then. The end is one key's own:
        of one that a rotation ends soon it would be put off with the other's.
        Raises LogweirError: KEY_NAME_UNKNOWN, KEY_ID_UNKNOWN, KEY_ID_WANTED, KEY_TERM_BAD.
        """
        with self._changing() as document:
            keys = self._keys(document)
            found = self._chosen(keys, name, id)
            chosen = {one.id for one in found}
            if "expires" in changes and len(chosen) > 1:
                ids = ", ".join(f"{one.id} ({one.expires or 'never'})" for one in found)
                raise LogweirError(KEY_ID_WANTED, name=name, ids=ids)
            for table, one in zip(document["key"], keys, strict=True):
                if one.id in chosen:
                    _put(table, changes)
                    Terms.of({field: value for field, value in table.unwrap().items() if field in _TERMS})
            return [one for one in self._keys(document) if one.id in chosen]

    def revoke(self, name: str, *, id: str | None = None) -> list[Key]:
        """End the keys of that name, or the one with that id; their lines stay, with the time. Gives them.

        Raises LogweirError: KEY_NAME_UNKNOWN, KEY_ID_UNKNOWN.
        """
        return self.change(name, {"revoked": iso_seconds(self._clock())}, id=id)

    def _chosen(self, keys: list[Key], name: str, id: str | None = None) -> list[Key]:
        """The keys that are not revoked, at least one."""
        usable = [key for key in keys if not key.revoked]
        chosen = [key for key in usable if key.name == name]
        if not chosen:
            raise name_unknown(name, usable)
        if id is not None and id not in [key.id for key in chosen]:
            raise LogweirError(KEY_ID_UNKNOWN, name=name, id=id, ids=", ".join(key.id for key in chosen))
        return [key for key in chosen if id in (None, key.id)]

    def _append(
        self, document: tomlkit.TOMLDocument, keys: list[Key], name: str, terms: Terms, expires: str | None
    ) -> str:
        taken = {known.id for known in keys}
        while True:
            key = KEY_PREFIX + base64.urlsafe_b64encode(secrets.token_bytes(_KEY_SIZE_BYTES)).decode().rstrip("=")
            made = Key(name, hash_of(key.encode()), iso_seconds(self._clock()), expires, terms=terms)
            if made.id not in taken:
                break
        table = tomlkit.table()
        _put(table, {"name": made.name, "hash": made.hash, "created": made.created, "expires": made.expires})
        _put(table, terms.as_dict())
        if "key" not in document:
            document.append("key", tomlkit.aot())
        document["key"].append(table)
        return key

    def _as_long(self, key: Key) -> str | None:
        if key.expires_us is None:
            return None
        return iso_seconds(self._clock() + max(0, key.expires_us - moment_us(key.created)))

    def _keys(self, document: tomlkit.TOMLDocument) -> list[Key]:
        try:
            return _parsed(tomlkit.dumps(document))
        except ValueError as error:
            raise LogweirError(KEYS_FILE_BAD, path=self._path, reason=error) from error

    @contextlib.contextmanager
    def _changing(self) -> Iterator[tomlkit.TOMLDocument]:
        """The parsed file to change; written back when the block ends well."""
        try:
            make_folder(self._path.parent)
            with locked(lock_path(self._path)):
                text = self._path.read_text(encoding="utf-8") if self._path.exists() else _HEADING
                _parsed(text)  # An unreadable file is an error, never overwritten.
                document = tomlkit.parse(text)
                yield document
                write_whole(self._path, tomlkit.dumps(document))
        except (ValueError, tomlkit.exceptions.TOMLKitError) as error:
            raise LogweirError(KEYS_FILE_BAD, path=self._path, reason=error) from error
        except OSError as error:
            raise LogweirError(FILE_FAILED, path=self._path, reason=error) from error


def lock_path(path: Path) -> Path:
    """The file that is locked while the keys file, or what is kept beside it, is changed."""
    return path.with_name(path.name + ".lock")


def name_unknown(name: str, keys: Iterable[Key]) -> LogweirError:
    """The problem of a name that none of these keys has."""
    return LogweirError(KEY_NAME_UNKNOWN, name=name, nearest=_nearest(name, sorted({key.name for key in keys})))


def _put(table: Any, values: dict[str, Any]) -> None:
    for field, value in values.items():
        if value is None or value in ((), {}):
            table.pop(field, None)
        elif isinstance(value, dict):
            inline = tomlkit.inline_table()
            inline.update(value)
            table[field] = inline
        else:
            table[field] = list(value) if isinstance(value, tuple) else value
