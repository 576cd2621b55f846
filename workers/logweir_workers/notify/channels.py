"""The channels by which people are told of alerts: a TOML file of the operator's, read again when it changes.

[pager]
type = "pagerduty"
routing_key = "env:PAGERDUTY_KEY"
severities = ["critical", "high"]
"""

from __future__ import annotations

import difflib
import fnmatch
import logging
import re
import ssl
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from logweir.errors import CHANNEL_UNKNOWN, CHANNELS_BAD, LogweirError
from logweir.metrics import registry
from logweir.process.files import fingerprint_of
from logweir.text import counted
from logweir_workers.notify.notice import Told
from logweir_workers.notify.senders import SENDERS
from logweir_workers.notify.senders.port import ChannelSettings

log = logging.getLogger(__name__)

CHANNELS_MAX = 32
SIZE_BYTES_MAX = 1024 * 1024
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")

_REASONS = {
    "missing": "it is needed",
    "int_type": "it is not a whole number",
    "float_type": "it is not a number",
    "bool_type": "it is neither true nor false",
    "string_type": "it is not text",
    "tuple_type": "it is not a list",
    "dict_type": "it is not a table",
    "greater_than": "it must be more than {gt:g}",
    "greater_than_equal": "it must be at least {ge:g}",
    "less_than_equal": "it must be at most {le:g}",
    "literal_error": "it must be {expected}",
    "too_short": "it needs one at least",
    "too_long": "it may have {max_length} at most",
}
"""pydantic's words, in ours."""


@dataclass(frozen=True, slots=True)
class Channel:
    """One channel."""

    name: str
    settings: ChannelSettings

    def wants(self, alert: Told) -> bool:
        """Whether the alert goes there."""
        asked = self.settings
        return (
            (not asked.severities or alert.severity in asked.severities)
            and (not asked.rules or any(fnmatch.fnmatchcase(alert.rule, one) for one in asked.rules))
            and (not asked.tags or any(fnmatch.fnmatchcase(tag, one) for tag in alert.tags for one in asked.tags))
        )

    def group_of(self, alert: Told) -> tuple[str, ...] | None:
        """The values that alerts told together have in common; None where each is told by itself."""
        if not self.settings.group_by:
            return None
        own = {"rule": alert.rule, "severity": alert.severity, "category": alert.category}
        return tuple(own.get(name) or alert.group.get(name, "") for name in self.settings.group_by)


class ChannelFile:
    """The channels in force: those of a file, as it is now or as it was when it could last be read."""

    def __init__(self, path: Path) -> None:
        """A file that is not there has no channels."""
        self._path = path
        self._versions: dict[Path, tuple[int, int, int] | None] = {}
        self.channels: dict[str, Channel] = {}
        """By name."""
        self.problem: str | None = None
        """Why the file, as it is now, is not in force."""

    def reload(self) -> bool:
        """Read the file again if it, or a file with a secret, has changed; whether the channels have.

        While it cannot be understood, they stay as they are, which is said in the log.
        """
        known = {path: fingerprint_of(path) for path in self._versions}
        if self._versions and known == self._versions:
            return False
        # Looked at first: a change in between is read again, rather than missed.
        self._versions = {path: fingerprint_of(path) for path in (self._path, *_secret_files(self._path))}
        try:
            channels = read_channels(self._path)
        except LogweirError as error:
            registry.get("logweir_alerter_channels_stale").set(1)
            self.problem = error.detail
            log.error("%s Until then, the channels stay as they were.", error)
            return False
        registry.get("logweir_alerter_channels_stale").set(0)
        self.problem = None
        if channels == self.channels:
            return False
        self.channels = channels
        log.info("Alerts are told by %s.", counted(len(channels), "channel"))
        return True


def read_channels(path: Path) -> dict[str, Channel]:
    """The channels in the file, by name; none where it is not there.

    Raises LogweirError: CHANNELS_BAD, which names channel and key and shows no value; SETTING_NEEDS_EXTRA.
    """
    channels: dict[str, Channel] = {}
    for name, table in _document(path).items():
        if not _NAME.fullmatch(name):
            raise _bad(path, name, "its name is not of a to z, digits, _ and -, beginning with a letter, 32 at most")
        if not isinstance(table, dict):
            raise _bad(path, name, "a channel is a table: [name]")
        channels[name] = Channel(name, _settings(path, name, table))
    if len(channels) > CHANNELS_MAX:
        raise _bad(path, "the file", f"there are {len(channels)} channels; there may be at most {CHANNELS_MAX}")
    return channels


def find(channels: dict[str, Channel], name: str) -> Channel:
    """The channel of that name. Raises LogweirError(CHANNEL_UNKNOWN) with the nearest."""
    if name not in channels:
        raise LogweirError(CHANNEL_UNKNOWN, name=name, nearest=_nearest(name, list(channels)))
    return channels[name]


def _document(path: Path) -> dict[str, Any]:
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise _bad(path, "the file", error.strerror or str(error)) from error
    if len(raw) > SIZE_BYTES_MAX:
        raise _bad(path, "the file", f"it has more than {SIZE_BYTES_MAX} bytes")
    try:
        return tomllib.loads(raw.decode())
    except ValueError as error:
        # The reader's words may hold a piece of the file, and that may be a secret.
        place = re.search(r"\(at .*\)", str(error))
        raise _bad(path, "the file", f"it is not TOML {place[0] if place else ''}".rstrip()) from None


def _settings(path: Path, name: str, table: dict[str, Any]) -> ChannelSettings:
    kind = table.get("type")
    if not isinstance(kind, str) or kind not in SENDERS:
        nearest = _nearest(kind, list(SENDERS)) if isinstance(kind, str) else ""
        raise _bad(path, name, f"type must be one of {', '.join(SENDERS)}{nearest.rstrip('?')}")
    model = SENDERS[kind]
    for key in table:
        if key not in model.model_fields:
            nearest = _nearest(key, list(model.model_fields))
            known = ", ".join(one for one in model.model_fields if one not in ChannelSettings.model_fields)
            hint = nearest.rstrip("?") or f" {kind} knows {known}, and what every channel may say"
            raise _bad(path, name, f"{key} means nothing here.{hint}")
    try:
        settings = model.model_validate(table)
        settings.sender().close()
    except OSError as error:
        reason = "it holds no certificates" if isinstance(error, ssl.SSLError) else error.strerror or str(error)
        raise _bad(path, name, f"ca_file: {reason}") from None
    except ValidationError as error:
        # Not shown: what was given. It may be a secret.
        first = error.errors(include_url=False, include_input=False)[0]
        if template := _REASONS.get(first["type"]):
            reason = template.format(**first.get("ctx", {}))
        else:
            reason = first["msg"].removeprefix("Value error, ")
        where = f"{first['loc'][0]}: " if first["loc"] else ""
        raise _bad(path, name, f"{where}{reason}") from None
    return settings


def _secret_files(path: Path) -> set[Path]:
    """The files that the file names as file:PATH; none where it cannot be read."""
    try:
        tables = [table for table in _document(path).values() if isinstance(table, dict)]
    except LogweirError:
        return set()
    values = [
        one for table in tables for value in table.values() for one in (value if type(value) is list else [value])
    ]
    return {Path(one.removeprefix("file:")) for one in values if isinstance(one, str) and one.startswith("file:")}


def _nearest(name: str, known: list[str]) -> str:
    nearest = difflib.get_close_matches(name, known, n=1)
    return f" Did you mean {nearest[0]!r}?" if nearest else ""


def _bad(path: Path, place: str, reason: str) -> LogweirError:
    return LogweirError(CHANNELS_BAD, path=path, place=place, reason=reason.rstrip("."))
