"""One event as it was sent -> the event as it is stored: MozDef's field names, one meaning each, nothing lost.

Whatever does not fit its field, and whatever has no field, moves under ``details`` under the name it was sent with.
docs/reference/event.md says the rules in words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import orjson

from logweir.words import BOUNDARY, WORD_LENGTH_MAX, words_of
from logweir_workers.decode import free_name, name_hash
from logweir_workers.severities import severity_of, severity_of_pri
from logweir_workers.times import is_finer, iso_of, utc_of

KEYWORD_LENGTH_MAX = 1000
"""Longest text of a field other than summary, in characters. Longer texts move under details."""

TAGS_MAX = 100
"""Most tags. Further ones move under details."""

NAME_SIZE_BYTES_MAX = 200
"""Longest name under details. Elasticsearch refuses an event when a leaf's names and value are longer than 32,766
bytes together: 40 names of this and 8,000 characters (``ignore_above``) of 3 bytes stay below."""

LEVELS_MAX = 39
"""Deepest nesting under details, the event itself counted; what is deeper is kept as JSON text."""

WORDS_MAX = 10_000
"""Most words of one event that can be searched for; the first count."""

TIME_UNREADABLE = "time_unreadable"
"""The tag of an event that was sent with a time which could not be read."""

SYNONYMS: dict[str, tuple[str, ...]] = {
    "timestamp": (
        "timestamp", "utctimestamp", "@timestamp", "eventtime", "event_time", "time", "ts", "datetime", "date",
        "__realtime_timestamp",
    ),
    "category": ("category", "event.category"),
    "hostname": ("hostname", "host", "host.name", "host.hostname", "_hostname"),
    "fqdn": ("fqdn",),
    "processid": ("processid", "pid", "process_id", "procid", "process.pid", "_pid"),
    "processname": (
        "processname", "program", "programname", "process_name", "appname", "app_name", "process", "process.name",
        "ident", "syslog_identifier",
    ),
    "severity": ("severity", "level", "loglevel", "log_level", "levelname", "lvl", "log.level", "PRIORITY"),
    "source": ("source", "logger", "log.logger"),
    "summary": ("summary", "message", "msg", "short_message", "event", "log"),
    "tags": ("tags", "tag"),
    "type": ("type",),
    "version": ("version",),
    "details": ("details",),
}  # fmt: skip
"""By field, the names that mean it, the strongest first. Case does not count, but for names in upper case here."""


@dataclass(slots=True)
class Context:
    """What is known of a batch's events beside their bytes. Make one per batch.

    ``stamp`` is what the door adds to events that do not say it themselves.
    """

    received_us: int
    key: str
    emitter: str | None = None
    source_address: str = ""
    format: str = "json"
    stamp: Mapping[str, str] | None = None
    received: str = field(init=False)
    """The receipt time as it is stored."""

    def __post_init__(self) -> None:
        self.received = iso_of(self.received_us)


def normalise(event: dict[str, Any], context: Context) -> dict[str, Any]:
    """The event as it is stored, without provenance; ``event`` is left as it is.

    A pure function, which never raises for what ``decode.event_of`` gives. The result has fields of ``event.FIELDS``
    only; fields about which nothing was said are absent, but for timestamp, utctimestamp, receivedtimestamp and key.
    """
    names: dict[str, str] = {}
    rivals: dict[str, list[str]] = {}
    left: dict[str, Any] = {}
    for name, value in event.items():
        known = _FIELD_OF.get(name) or _FIELD_OF.get(name.lower())
        if type(value) is dict and _holds_known(name, value, event):
            return normalise(_unfolded(event), context)
        if known is None:
            left[name] = value
        elif known in names:
            rivals.setdefault(known, [names[known]]).append(name)
        else:
            names[known] = name
    stored = {"receivedtimestamp": context.received, "key": context.key}
    if context.emitter is not None:
        stored["emitter"] = context.emitter
    if context.source_address:
        stored["sourceaddress"] = context.source_address
    return _filled(stored, event, names, rivals, left, context)


def _filled(
    stored: dict[str, Any],
    event: dict[str, Any],
    names: dict[str, str],
    rivals: dict[str, list[str]],
    left: dict[str, Any],
    context: Context,
) -> dict[str, Any]:
    """``stored`` with all fields. ``names``: field -> the name that was sent; ``left``: what goes under details."""
    for known, name in names.items():
        if known in rivals:
            value = _strongest(known, rivals[known], event, left, context)
        else:
            value, unfit = _FITS[known](event[name], context)
            if unfit is not None:
                left[name] = unfit
        if value is not None:
            stored[known] = value
    if "severity" not in stored:
        _severity_from_pri(stored, left)
    if context.stamp:
        _stamp(stored, left, context)
    if "timestamp" not in stored:
        stored["timestamp"] = context.received
        if any(name in left for name in [names.get("timestamp"), *rivals.get("timestamp", ())]):
            stored["tags"] = [*stored.get("tags", ()), TIME_UNREADABLE]
    stored["utctimestamp"] = stored["timestamp"]
    _fill_details(stored, left)
    return stored


def words_for(event: Mapping[str, Any]) -> tuple[str, str]:
    """The words of the summary, and of the whole event: each joined with single spaces, as ``words.words_of`` cuts.

    The summary's come first in the whole event's; ``words.BOUNDARY`` stands between two values. Times and provenance
    have no words here. At most WORDS_MAX words, the first ones.
    """
    summary = event.get("summary")
    values: list[str] = [] if summary is None else [summary]
    _collect_values(event, values)
    words = _words_of_values(values)
    if summary is None:
        return "", words
    return words.partition(BOUNDARY)[0].rstrip(" "), words


# --- which field ---------------------------------------------------------------------------------------------------

_FIELD_OF = {name: known for known, names in SYNONYMS.items() for name in names}
_RANK_OF = {name: rank for names in SYNONYMS.values() for rank, name in enumerate(names)}
_OBJECTS = {name.partition(".")[0] for name in _FIELD_OF if "." in name}


def _holds_known(name: str, value: dict[str, Any], event: dict[str, Any]) -> bool:
    """Whether ``value`` is an object of the Elastic Common Schema with a member that has a field here."""
    return name in _OBJECTS and any(_lifted(f"{name}.{inner}", event) for inner in value)


def _lifted(dotted: str, event: dict[str, Any]) -> bool:
    return dotted in _FIELD_OF and dotted not in event


def _unfolded(event: dict[str, Any]) -> dict[str, Any]:
    """``event`` with ``{"host": {"name": …}}`` as ``{"host.name": …}``; other members stay where they are."""
    unfolded: dict[str, Any] = {}
    for name, value in event.items():
        if type(value) is not dict or name not in _OBJECTS:
            unfolded[name] = value
            continue
        rest = {}
        for inner, inner_value in value.items():
            if _lifted(f"{name}.{inner}", event):
                unfolded[f"{name}.{inner}"] = inner_value
            else:
                rest[inner] = inner_value
        if rest:
            unfolded[name] = rest
    return unfolded


def _strongest(known: str, names: list[str], event: dict[str, Any], left: dict[str, Any], context: Context) -> Any:
    """The value of the strongest name that fits the field; the others go to ``left`` unless they say the same."""
    chosen = None
    for name in sorted(names, key=_weakness):
        value, unfit = _FITS[known](event[name], context)
        if unfit is not None:
            left[name] = unfit
        if chosen is None:
            chosen = value
        elif value is not None and value != chosen:
            left[name] = event[name]
    return chosen


def _weakness(name: str) -> tuple[int, bool]:
    # Spelled as in the table is stronger than the same name in other case.
    if name in _RANK_OF:
        return _RANK_OF[name], False
    return _RANK_OF[name.lower()], True


# --- what fits which field: (value or None, what has to move under details or None) ---------------------------------

_Fit = tuple[Any, Any]
_SCALARS = (str, int, float, bool)


def _text(value: Any, _context: Context) -> _Fit:
    if type(value) is str:
        if len(value) > KEYWORD_LENGTH_MAX:
            return None, value
        return value.strip() or None, None
    if type(value) in _SCALARS:
        return _spelled(value), None
    return None, value or None


def _text_or_nil(value: Any, context: Context) -> _Fit:
    # RFC 5424 section 6: "-" is how syslog says that a header field is not known.
    return (None, None) if value == "-" else _text(value, context)


def _summary(value: Any, _context: Context) -> _Fit:
    if type(value) is str:
        return value.strip() or None, None
    if type(value) in _SCALARS:
        return _spelled(value), None
    return (_json(value) if value else None), None


def _severity(value: Any, _context: Context) -> _Fit:
    severity = severity_of(value)
    if severity is None:
        return None, None if _says_nothing(value) else value
    kept = type(value) is str and (value == severity or value.strip().upper() == severity)
    return severity, None if kept else value


def _time(value: Any, context: Context) -> _Fit:
    utc = utc_of(value, context.received_us)
    if utc is None:
        return None, None if _says_nothing(value) else value
    return utc, value if is_finer(value) else None


def _tags(value: Any, context: Context) -> _Fit:
    tags: list[str] = []
    unfit: list[Any] = []
    for item in value if type(value) is list else (value,):
        tag, left = _text(item, context) if len(tags) < TAGS_MAX else (None, item)
        if tag is not None:
            tags.append(tag)
        elif left is not None:
            unfit.append(left)
    return tags or None, (unfit if type(value) is list else value) if unfit else None


def _details(value: Any, _context: Context) -> _Fit:
    return (value or None, None) if type(value) is dict else (None, None if _says_nothing(value) else value)


_FITS: dict[str, Callable[[Any, Context], _Fit]] = {
    "timestamp": _time,
    "category": _text,
    "hostname": _text_or_nil,
    "fqdn": _text_or_nil,
    "processid": _text_or_nil,
    "processname": _text_or_nil,
    "severity": _severity,
    "source": _text,
    "summary": _summary,
    "tags": _tags,
    "type": _text,
    "version": _text,
    "details": _details,
}


def _says_nothing(value: Any) -> bool:
    return value is None or (type(value) is str and not value.strip()) or value == [] or value == {}


def _spelled(value: Any) -> str:
    """A scalar as text: true and false as in JSON, whole floats without their fraction."""
    if type(value) is bool:
        return "true" if value else "false"
    if type(value) is float and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value)


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


def _severity_from_pri(stored: dict[str, Any], left: Mapping[str, Any]) -> None:
    """PRI stays under details, too: it also says the facility."""
    for name in ("PRI", "pri"):
        if name in left and (severity := severity_of_pri(left[name])) is not None:
            stored["severity"] = severity
            return


def _stamp(stored: dict[str, Any], left: dict[str, Any], context: Context) -> None:
    """What the door knows fills fields about which the event says nothing."""
    for name, text in (context.stamp or {}).items():
        if name != "details" and name in _FITS and name not in stored:
            stored[name], unfit = _FITS[name](text, context)
            if stored[name] is None:
                del stored[name]
        else:
            unfit = text
        if unfit is not None:
            left[free_name(name, left, sent=name)] = unfit


# --- details -------------------------------------------------------------------------------------------------------

RENAMED = "renamed_names"
"""Under details: names that had to be cut -> as they were sent."""


def _fill_details(stored: dict[str, Any], left: Mapping[str, Any]) -> None:
    """``stored`` with its details as both stores take them, and with all that is ``left`` under details."""
    renamed: dict[str, Any] = {}
    details = _clean_object(stored["details"], 2, renamed) if "details" in stored else {}
    for name, value in left.items():
        safe = _safe_name(name, renamed)
        details[free_name(safe, details, sent=name)] = _clean(value, 2, renamed)
    if renamed:
        details[free_name(RENAMED, details, sent=RENAMED)] = renamed
    if details:
        stored["details"] = details


def _clean(value: Any, level: int, renamed: dict[str, Any]) -> Any:
    """``value`` with names and depth that Elasticsearch takes; ``level`` is its own nesting, the event's being 1."""
    if type(value) is dict:
        return _clean_object(value, level, renamed) if level <= LEVELS_MAX else _json(value)
    if type(value) is list:
        return [_clean(item, level + 1, renamed) for item in value] if level <= LEVELS_MAX else _json(value)
    return value


def _clean_object(value: dict[str, Any], level: int, renamed: dict[str, Any]) -> dict[str, Any]:
    clean: dict[str, Any] = {}
    for name, item in value.items():
        safe = _safe_name(name, renamed)
        if safe in clean:
            safe = free_name(safe, clean, sent=name)
        clean[safe] = _clean(item, level + 1, renamed) if type(item) is dict or type(item) is list else item
    return clean


def _safe_name(name: str, renamed: dict[str, Any]) -> str:
    safe = _safe_short_name(name) if len(name) <= NAME_SIZE_BYTES_MAX else _cut_name(name)
    if "~" in safe and safe != name:
        renamed[safe] = name
    return safe


@lru_cache(maxsize=4096)
def _safe_short_name(name: str) -> str:
    """As _safe_name; senders use few names, and the cache is bounded as the names' lengths are."""
    safe = name.replace("\0", "\N{SYMBOL FOR NULL}")
    return safe if len(safe.encode()) <= NAME_SIZE_BYTES_MAX else _cut_name(name)


def _cut_name(name: str) -> str:
    """The beginning of a name and a hash of the whole, at most NAME_SIZE_BYTES_MAX bytes together."""
    digest = "~" + name_hash(name)
    safe = name[:NAME_SIZE_BYTES_MAX].replace("\0", "\N{SYMBOL FOR NULL}").encode()
    return safe[: NAME_SIZE_BYTES_MAX - len(digest)].decode(errors="ignore") + digest


# --- words ---------------------------------------------------------------------------------------------------------

_WITHOUT_WORDS = frozenset((
    "summary", "timestamp", "utctimestamp", "receivedtimestamp", "ingest_stream", "ingest_number", "content_hash",
))  # fmt: skip
_SEPARATOR = f" {BOUNDARY} "
_BOUNDARY_EXTRA_BYTES = len(BOUNDARY.encode()) - 1
_ASCII_WORDS = bytes(
    ord(chr(byte).lower()) if chr(byte).isalnum() or byte in b"_" or byte > 127 else ord(" ") for byte in range(256)
)
"""For bytes.translate: what words_of does to ASCII, except for the cutting at WORD_LENGTH_MAX."""


def _collect_values(event: Mapping[str, Any], values: list[str]) -> None:
    for name, value in event.items():
        if type(value) is str:
            if name not in _WITHOUT_WORDS:
                values.append(value)
        elif name not in _WITHOUT_WORDS:
            _collect_value(value, values)


def _collect_value(value: Any, values: list[str]) -> None:
    """The leaves of ``value``, as text, without names."""
    kind = type(value)
    if kind is str:
        values.append(value)
    elif kind is dict or kind is list:
        for item in value.values() if kind is dict else value:
            if type(item) is str:
                values.append(item)
            else:
                _collect_value(item, values)
    elif value is not None:
        values.append(_spelled(value) if kind is bool else str(value))


def _words_of_values(values: list[str]) -> str:
    text = _SEPARATOR.join(values)
    encoded = text.encode()
    # Only the boundaries between the values may take more bytes than characters for the quick way.
    ascii_only = len(encoded) - len(text) == _BOUNDARY_EXTRA_BYTES * max(0, len(values) - 1)
    if not ascii_only or len(text) > WORDS_MAX or max(map(len, values), default=0) > WORD_LENGTH_MAX:
        return _words_of_odd_values(values)
    spaced = encoded.translate(_ASCII_WORDS)
    while b"  " in spaced:
        spaced = spaced.replace(b"  ", b" ")
    return spaced.strip().decode()


def _words_of_odd_values(values: list[str]) -> str:
    """As _words_of_values for any values; several times slower."""
    words: list[str] = []
    for value in values:
        if len(words) >= WORDS_MAX:
            break
        words += words_of(value)
        words.append(BOUNDARY)
    return " ".join(words[:-1][:WORDS_MAX])
