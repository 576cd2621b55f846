"""Make, list and revoke the keys that emitters send.

Keys are kept hashed in one TOML file, a table ``[[key]]`` each: name, hash, created, and revoked once it is. A key is
256 random bits, so a plain SHA-256 of it cannot be searched through; a slow password hash would only slow the door.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import difflib
import fcntl
import hashlib
import json
import os
import re
import secrets
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import tomlkit
import tomlkit.exceptions

from logweir.clock import Clock, now_us
from logweir.errors import KEY_NAME_BAD, KEY_NAME_TAKEN, KEY_NAME_UNKNOWN, KEYS_FILE_BAD, LogweirError
from logweir.files import make_folder, sync_folder

if TYPE_CHECKING:
    from logweir.config import Settings

KEY_PREFIX = "lw_"
_KEY_SIZE_BYTES = 32
_HASH_PREFIX = "sha256:"
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HASH = re.compile(r"sha256:[0-9a-f]{64}")
_HEADING = """\
# The keys of logweir's door, hashed: `logweir keys add NAME`, `logweir keys list`, `logweir keys revoke NAME`.
# The door reads changes within two seconds.
"""


@dataclass(frozen=True, slots=True)
class Key:
    """One key as the file has it. Times are ISO 8601 in UTC; ``revoked`` is None while the key is live."""

    name: str
    hash: str
    created: str
    revoked: str | None = None

    @property
    def state(self) -> str:
        return "revoked" if self.revoked else "live"


def hash_of(key: bytes) -> str:
    """What the file keeps of a key."""
    return _HASH_PREFIX + hashlib.sha256(key).hexdigest()


def read_keys(path: Path) -> list[Key]:
    """The keys in the file, in its order; none when there is no file. Raises LogweirError(KEYS_FILE_BAD)."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
        return [_checked(table) for table in document.get("key", [])]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise LogweirError(KEYS_FILE_BAD, path=path, reason=error) from error


def _checked(table: dict[str, object]) -> Key:
    for field in ("name", "hash", "created"):
        if not isinstance(table.get(field), str):
            raise ValueError(f"a key lacks the text {field!r}")
    key = Key(**{field: str(value) for field, value in table.items() if field in Key.__slots__})
    if not _NAME.fullmatch(key.name):
        raise ValueError(f"{key.name!r} cannot be a key's name")
    if not _HASH.fullmatch(key.hash):
        raise ValueError(f"the hash of {key.name!r} is not sha256: and 64 hexadecimal digits")
    return key


class KeysFile:
    """The file as it is changed: under a lock beside it, and in one step, so that readers see the old or the new."""

    def __init__(self, path: Path, *, clock: Clock = now_us) -> None:
        self._path = path
        self._clock = clock

    def add(self, name: str) -> str:
        """Make a key and give it; from now on nobody can read it from anywhere.

        Raises LogweirError: KEY_NAME_BAD, KEY_NAME_TAKEN (while a key of that name is live), KEYS_FILE_BAD.
        """
        if not _NAME.fullmatch(name):
            raise LogweirError(KEY_NAME_BAD, name=name)
        key = KEY_PREFIX + base64.urlsafe_b64encode(secrets.token_bytes(_KEY_SIZE_BYTES)).decode().rstrip("=")
        with self._changing() as document:
            if any(known.name == name and not known.revoked for known in read_keys(self._path)):
                raise LogweirError(KEY_NAME_TAKEN, name=name)
            table = tomlkit.table()
            table.update({"name": name, "hash": hash_of(key.encode()), "created": self._now()})
            if "key" not in document:
                document.append("key", tomlkit.aot())
            document["key"].append(table)
        return key

    def revoke(self, name: str) -> None:
        """End the live key of that name; its line stays, with the time. Raises LogweirError(KEY_NAME_UNKNOWN)."""
        with self._changing() as document:
            live = [key.name for key in read_keys(self._path) if not key.revoked]
            if name not in live:
                nearest = difflib.get_close_matches(name, live, n=1)
                raise LogweirError(
                    KEY_NAME_UNKNOWN, name=name, nearest=f" Did you mean {nearest[0]!r}?" if nearest else ""
                )
            for table in document["key"]:
                if table["name"] == name and "revoked" not in table:
                    table["revoked"] = self._now()

    def _now(self) -> str:
        return datetime.fromtimestamp(self._clock() // 1_000_000, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    @contextlib.contextmanager
    def _changing(self) -> Iterator[tomlkit.TOMLDocument]:
        """The parsed file to change; written back when the block ends well."""
        try:
            make_folder(self._path.parent)
            with _locked(self._path.with_name(self._path.name + ".lock")):
                read_keys(self._path)  # An unreadable file is an error, never overwritten.
                text = self._path.read_text(encoding="utf-8") if self._path.exists() else _HEADING
                document = tomlkit.parse(text)
                yield document
                _write_whole(self._path, tomlkit.dumps(document))
        except (OSError, tomlkit.exceptions.TOMLKitError) as error:
            raise LogweirError(KEYS_FILE_BAD, path=self._path, reason=error) from error


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Alone among all processes of this machine."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write_whole(path: Path, text: str) -> None:
    """Replace the file in one step, readable by its owner only, safe against a power cut."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mkstemp makes it 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


# --- logweir keys -------------------------------------------------------------------------------------------------
def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    add = actions.add_parser("add", help="make a key, and print it once, alone, on standard output")
    add.add_argument("name", metavar="NAME", help="1 to 64 letters, digits, '.', '_' or '-'")
    listing = actions.add_parser("list", help="name every key")
    listing.add_argument("--json", action="store_true", help="as a JSON array")
    revoke = actions.add_parser("revoke", help="end a key, within two seconds")
    revoke.add_argument("name", metavar="NAME")


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    path = settings.keys_path
    if arguments.action == "add":
        print(KeysFile(path).add(arguments.name))
        print(f"The key {arguments.name!r} is live within 2 seconds. It is shown only now.", file=sys.stderr)
    elif arguments.action == "revoke":
        KeysFile(path).revoke(arguments.name)
        print(f"The key {arguments.name!r} is refused within 2 seconds.", file=sys.stderr)
    elif arguments.json:
        rows = [{**asdict(key), "state": key.state} for key in read_keys(path)]
        print(json.dumps([{name: row[name] for name in ("name", "created", "revoked", "state")} for row in rows]))
    else:
        _print_table(read_keys(path), path)
    return 0


def _print_table(keys: list[Key], path: Path) -> None:
    if not keys:
        print(f"{path} holds no key; make one: logweir keys add NAME", file=sys.stderr)
        return
    width = max(len("NAME"), *(len(key.name) for key in keys))
    print(f"{'NAME':<{width}}  {'CREATED':<20}  STATE")
    for key in keys:
        print(f"{key.name:<{width}}  {key.created:<20}  {key.state}{' ' + key.revoked if key.revoked else ''}")
