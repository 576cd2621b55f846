"""One event as it was sent -> the event as it is stored: MozDef's field names, one meaning each, nothing lost.

Whatever does not fit its field, and whatever has no field, moves under ``details`` under the name it was sent with.
docs/reference/event.md says the rules in words.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from logweir.event import CATEGORY_NAMES, KEYWORD_LENGTH_MAX
from logweir.query.words import BOUNDARY, WORD_LENGTH_MAX, words_of
from logweir_workers.decode import free_name, name_hash
from logweir_workers.normalise.details import name_known
from logweir_workers.normalise.severities import severity_of, severity_of_pri
from logweir_workers.normalise.syslog import line_of
from logweir_workers.normalise.times import iso_of, time_of

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

PARTLY_SEARCHABLE = "partly_searchable"
"""The tag of an event of WORDS_MAX words or more: not all of it may be found."""

ORIGINAL = "original"
"""Under details: the line of syslog that was sent as the summary, or the text of an event that had to be mended."""

SYNONYMS: dict[str, tuple[str, ...]] = {
    "timestamp": (
        "timestamp",
        "utctimestamp",
        "@timestamp",
        "eventtime",
        "event_time",
        "time",
        "ts",
        "datetime",
        "date",
        "__realtime_timestamp",
    ),
    "category": CATEGORY_NAMES,
    "hostname": ("hostname", "host", "host.name", "host.hostname", "_hostname"),
    "fqdn": ("fqdn",),
    "processid": ("processid", "pid", "process_id", "procid", "process.pid", "_pid"),
    "processname": (
        "processname",
        "program",
        "programname",
        "process_name",
        "appname",
        "app_name",
        "process",
        "process.name",
        "ident",
        "syslog_identifier",
        # What OpenTelemetry makes of a syslog APP-NAME, and what it knows of a process that says no service.
        "service.name",
        "process.executable.name",
    ),
    "severity": ("severity", "level", "loglevel", "log_level", "levelname", "lvl", "log.level", "PRIORITY"),
    "source": ("source", "logger", "log.logger", "log.file.path", "log.file.name", "otel.scope.name"),
    "summary": ("summary", "message", "msg", "short_message", "full_message", "event", "log"),
    "tags": ("tags", "tag"),
    "type": ("type",),
    "version": ("version",),
    "details": ("details",),
}
"""By field, the names that mean it, the strongest first. Case does not count, but for names in upper case here."""


@dataclass(slots=True)
class Context:
    """What is known of a batch's events beside their bytes. Make one per batch.

    ``stamp`` is what the door adds to events that do not say it themselves: name -> text.
    """

    received_us: int
    key: str
    emitter: str | None = None
    source_address: str = ""
    format: str = "json"
    stamp: Mapping[str, str] | None = None
    base: dict[str, Any] = field(init=False)
    """The fields that all events of the batch have, whatever they say themselves."""

    def __post_init__(self) -> None:
        self.base = {"receivedtimestamp": iso_of(self.received_us), "key": self.key}
        if self.emitter is not None:
            self.base["emitter"] = self.emitter
        if self.source_address:
            self.base["sourceaddress"] = self.source_address


def normalise(event: dict[str, Any], context: Context) -> dict[str, Any]:
    """The event as it is stored, without provenance; ``event`` is left as it is.

    A pure function, which never raises for what ``decode.event_of`` gives. The result has fields of ``event.FIELDS``
    only; fields about which nothing was said are absent, but for timestamp, utctimestamp, receivedtimestamp and key.
    """
    event = _in_common_form(event)
    stored = context.base.copy()
    left: dict[str, Any] = {}
    if not _fill_fields(stored, event, left, context):
        # Rare: two names mean one field and say different things, or there are objects of the Elastic Common Schema.
        stored, left = context.base.copy(), {}
        event = dict(sorted(_unfolded(event).items(), key=_weakness))
        _fill_fields(stored, event, left, context, sorted_by_strength=True)
    if stored.get("summary", "")[:1] == "<" and "hostname" not in stored and "processname" not in stored:
        _read_syslog(stored, left, context, event)
    if "severity" not in stored:
        _severity_from_pri(stored, left)
    _stamp(stored, left, context, event)
    if "timestamp" not in stored:
        _time_from_receipt(stored, left)
    stored["utctimestamp"] = stored["timestamp"]
    if left or "details" in stored:
        _fill_details(stored, left)
    return stored


def words_for(event: Mapping[str, Any]) -> tuple[str, str]:
    """The words of the summary, and of the whole event: each joined with single spaces, as ``words.words_of`` cuts.

    The summary's come first in the whole event's; ``words.BOUNDARY`` stands between two values. Times and provenance
    have no words here. At most WORDS_MAX words, the first ones.
    """
    values: list[str] = [value for value in map(event.get, _FIELDS_OF_ONE_TEXT) if value is not None]
    values += event.get("tags", ())
    if "details" in event:
        _collect(event["details"], values)
    words = _words_of_values(values)
    if "summary" not in event:
        return "", words
    end = words.find(BOUNDARY)
    return words if end < 0 else words[: max(0, end - 1)], words


# --- forms that some senders have for whole events ------------------------------------------------------------------

_JOURNALD = frozenset(
    ("__CURSOR", "__REALTIME_TIMESTAMP", "_BOOT_ID", "_HOSTNAME", "_MACHINE_ID", "_TRANSPORT", "SYSLOG_IDENTIFIER")
)
_TIME_OF_DAY = re.compile("[0-9]{1,2}:[0-9]{2}(?::[0-9]{2}.{0,20})?")


def _in_common_form(event: dict[str, Any]) -> dict[str, Any]:
    if "date" in event and "time" in event:
        event = _with_one_time(event)
    if ("MESSAGE" in event or "__CURSOR" in event) and not _JOURNALD.isdisjoint(event):
        # systemd, Journal JSON Format: what is not printable UTF-8 is an array of the bytes.
        return {name: _text_of_bytes(value) if type(value) is list else value for name, value in event.items()}
    return event


def _with_one_time(event: dict[str, Any]) -> dict[str, Any]:
    """W3C's extended log format (IIS, CloudFront) and Fortinet say the day and the time of day under two names.

    Of the day alone, midnight would be read. Fortinet says its zone beside them.
    """
    day, clock, zone = event["date"], event["time"], event.get("tz")
    if type(day) is not str or type(clock) is not str or not _TIME_OF_DAY.fullmatch(clock.strip()):
        return event
    time = f"{day} {clock} {zone}" if type(zone) is str else f"{day} {clock}"
    return {name: time if name == "time" else value for name, value in event.items() if name != "date"}


def _text_of_bytes(value: list[Any]) -> Any:
    """The text in an array of bytes, ``\\xff`` for what is not UTF-8; several values of one name stay an array."""
    if value and type(value[0]) is list:
        return [_text_of_bytes(item) if type(item) is list else item for item in value]
    try:
        return bytes(value).decode(errors="backslashreplace") if value else value
    except (TypeError, ValueError):  # no numbers, or none of a byte
        return value


# --- which field ---------------------------------------------------------------------------------------------------

_FIELD_OF = {name: known for known, names in SYNONYMS.items() for name in names}
_RANK_OF = {name: rank for names in SYNONYMS.values() for rank, name in enumerate(names)}
_OBJECTS = {name.partition(".")[0] for name in _FIELD_OF if "." in name}


def _fill_fields(
    stored: dict[str, Any],
    event: Mapping[str, Any],
    left: dict[str, Any],
    context: Context,
    *,
    sorted_by_strength: bool = False,
) -> bool:
    """Sort ``event`` into ``stored`` by field, and into ``left``; False when it has to be done in order of strength."""
    for name, value in event.items():
        known = _FIELD_OF.get(name) or _FIELD_OF.get(name.lower())
        if known is None:
            left[name] = value
            continue
        # Most values are short texts in a field for text, and settled here.
        if type(value) is str and known in _TEXT_FIELDS and len(value) <= KEYWORD_LENGTH_MAX and known not in stored:
            text = value.strip()
            if text and text != "-":
                stored[known] = text
                continue
        elif type(value) is dict and name.lower() in _OBJECTS:
            if not sorted_by_strength:
                return False
            if value:
                left[name] = value
            continue
        fitting, unfit = _fit(known, value, context, event)
        if unfit is not None:
            left[name] = unfit
        if fitting is None:
            continue
        if known not in stored or stored[known] == fitting:
            stored[known] = fitting
        elif sorted_by_strength:
            left[name] = value
        else:
            return False
    return True


def _unfolded(event: dict[str, Any]) -> dict[str, Any]:
    """``event`` with ``{"host": {"name": …}}`` as ``{"host.name": …}``; members without a field stay where they are."""
    unfolded: dict[str, Any] = {}
    for name, value in event.items():
        if type(value) is not dict or name not in _OBJECTS:
            unfolded[name] = value
            continue
        rest = {}
        for inner, inner_value in value.items():
            dotted = f"{name}.{inner}"
            if dotted in _FIELD_OF and dotted not in event:
                unfolded[dotted] = inner_value
            else:
                rest[inner] = inner_value
        if rest or not value:
            unfolded[name] = rest
    return unfolded


def _weakness(item: tuple[str, Any]) -> tuple[int, bool]:
    """Sorts names of one field: the strongest first, and before the same name in other case."""
    name = item[0]
    if name in _RANK_OF:
        return _RANK_OF[name], False
    return _RANK_OF.get(name.lower(), 0), True


# --- what fits which field: (value or None, what has to move under details or None) ---------------------------------

_Fit = tuple[Any, Any]
_SCALARS = (str, int, float, bool)


def _fit(known: str, value: Any, context: Context, event: Mapping[str, Any]) -> _Fit:
    # ECS defines some fields as lists (event.category), and some senders make a list of everything.
    if type(value) is list and len(value) == 1 and known != "tags" and type(value[0]) in _SCALARS:
        fitting, unfit = _FITS[known](value[0], context, event)
        return fitting, None if unfit is None else value
    return _FITS[known](value, context, event)


def _text(value: Any, _context: Context, _event: Mapping[str, Any]) -> _Fit:
    if type(value) is str:
        if len(value) > KEYWORD_LENGTH_MAX:
            return None, value
        return value.strip() or None, None
    if type(value) in _SCALARS:
        return _spelled(value), None
    return None, value or None


def _text_or_nil(value: Any, context: Context, event: Mapping[str, Any]) -> _Fit:
    return (None, None) if _is_nil(value) else _text(value, context, event)


def _process_id(value: Any, context: Context, event: Mapping[str, Any]) -> _Fit:
    # A column with gaps makes floats of whole numbers.
    whole = int(value) if type(value) is float and value.is_integer() and abs(value) < 1e15 else value
    return _text_or_nil(whole, context, event)


def _summary(value: Any, _context: Context, _event: Mapping[str, Any]) -> _Fit:
    if type(value) is str:
        return value.strip() or None, None
    if type(value) in _SCALARS:
        return _spelled(value), None
    return (_json(value) if value else None), None


def _severity(value: Any, _context: Context, event: Mapping[str, Any]) -> _Fit:
    inner = event.get("details")
    severity = severity_of(value, itertools.chain(event, inner) if type(inner) is dict else event)
    if severity is None:
        return None, None if _says_nothing(value) else value
    kept = type(value) is str and (value == severity or value.strip().upper() == severity)
    return severity, None if kept else value


def _time(value: Any, context: Context, _event: Mapping[str, Any]) -> _Fit:
    time = time_of(value, context.received_us)
    if time is None:
        return None, None if _says_nothing(value) or _is_nil(value) else value
    time_us, is_whole = time
    return iso_of(time_us), None if is_whole else value


def _tags(value: Any, context: Context, event: Mapping[str, Any]) -> _Fit:
    tags: list[str] = []
    unfit: list[Any] = []
    for item in value if type(value) is list else (value,):
        tag, left = _text(item, context, event) if len(tags) < TAGS_MAX else (None, item)
        if tag is not None:
            tags.append(tag)
        elif left is not None:
            unfit.append(left)
    return tags or None, (unfit if type(value) is list else value) if unfit else None


def _details(value: Any, _context: Context, _event: Mapping[str, Any]) -> _Fit:
    return (value or None, None) if type(value) is dict else (None, None if _says_nothing(value) else value)


_FITS: dict[str, Callable[[Any, Context, Mapping[str, Any]], _Fit]] = {
    "timestamp": _time,
    "category": _text,
    "hostname": _text_or_nil,
    "fqdn": _text_or_nil,
    "processid": _process_id,
    "processname": _text_or_nil,
    "severity": _severity,
    "source": _text,
    "summary": _summary,
    "tags": _tags,
    "type": _text,
    "version": _text,
    "details": _details,
}


_TEXT_FIELDS = frozenset(known for known, fit in _FITS.items() if fit in (_text, _text_or_nil, _process_id, _summary))


def _says_nothing(value: Any) -> bool:
    return value is None or (type(value) is str and not value.strip()) or value == [] or value == {}


def _is_nil(value: Any) -> bool:
    # RFC 5424 section 6: "-" is how syslog says that a header field is not known.
    return type(value) is str and value.strip() == "-"


def _spelled(value: Any) -> str:
    """A scalar as text: a string itself, anything else as in JSON."""
    return value if type(value) is str else orjson.dumps(value).decode()


def _json(value: Any) -> str:
    try:
        return orjson.dumps(value).decode()
    except TypeError:  # a lone surrogate in a name
        return _sent_name(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def _severity_from_pri(stored: dict[str, Any], left: Mapping[str, Any]) -> None:
    """PRI stays under details, too: it also says the facility."""
    for name in ("PRI", "pri"):
        if name in left and (severity := severity_of_pri(left[name])) is not None:
            stored["severity"] = severity
            return


def _read_syslog(stored: dict[str, Any], left: dict[str, Any], context: Context, event: Mapping[str, Any]) -> None:
    """Of a summary that is a line of syslog with its PRI, fill the fields that the event itself does not say.

    The summary is then the line's message; the whole line is kept under details.
    """
    text = stored["summary"]
    line = line_of(text)
    severity = severity_of_pri(line.pri) if line is not None else None
    if line is None or severity is None:
        return
    said: dict[str, Any] = {"hostname": line.host, "processname": line.process, "processid": line.process_id}
    if "timestamp" not in stored and not _says_time(left):
        said["timestamp"] = line.time
    for name, value in said.items():
        fitting, unfit = _FITS[name](value, context, event)
        if fitting is not None and name not in stored:
            stored[name] = fitting
        if unfit is not None and name not in left:
            left[name] = unfit
    stored.setdefault("severity", severity)
    left[free_name(ORIGINAL, left, sent=ORIGINAL)] = text
    del stored["summary"]
    if message := line.message.strip():
        stored["summary"] = message


def _time_from_receipt(stored: dict[str, Any], left: Mapping[str, Any]) -> None:
    stored["timestamp"] = stored["receivedtimestamp"]
    if _says_time(left):
        stored["tags"] = [*stored.get("tags", ()), TIME_UNREADABLE]


def _says_time(left: Mapping[str, Any]) -> bool:
    """Whether there is a time that could not be read, or not all of it."""
    return any(_FIELD_OF.get(name.lower()) == "timestamp" for name in left)


def _stamp(stored: dict[str, Any], left: dict[str, Any], context: Context, event: Mapping[str, Any]) -> None:
    """Fill fields about which the event says nothing; names without a field go under details, if none is there."""
    for name, text in (context.stamp or {}).items():
        unfit: Any = text
        if name in _FITS and name != "details":
            if name in stored:
                continue
            fitting, unfit = _FITS[name](text, context, event)
            if fitting is not None:
                stored[name] = fitting
        if unfit is None or not _says_nothing(left.get(name)):
            continue
        details = stored.get("details", {})
        if name not in details:
            left[name] = unfit
        elif _says_nothing(details[name]):
            stored["details"] = {**details, name: unfit}
            left.pop(name, None)


# --- details -------------------------------------------------------------------------------------------------------

RENAMED = "renamed_names"
"""Under details: the names that had to change -> as they were sent."""


def _fill_details(stored: dict[str, Any], left: Mapping[str, Any]) -> None:
    """Give ``stored`` its details as both stores take them, with all that is ``left`` in them."""
    renamed: dict[str, Any] = {}
    details: dict[str, Any] = {}
    if "details" in stored:
        _put_all(details, stored["details"], 3, renamed)
    _put_all(details, left, 2, renamed)
    if renamed:
        details[free_name(RENAMED, details, sent=RENAMED)] = renamed
    name_known(details)
    stored["details"] = details


def details_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` as details: names and depth that both stores take, what is known under its name and of its type."""
    stored: dict[str, Any] = {}
    _fill_details(stored, values)
    details: dict[str, Any] = stored["details"]
    return details


def _put_all(target: dict[str, Any], values: Mapping[str, Any], level: int, renamed: dict[str, Any]) -> None:
    """Put ``values`` into ``target``, cleaned; ``level`` is their nesting in the event, whose own is 1."""
    for name, value in values.items():
        if type(value) is dict or type(value) is list:
            value = _clean(value, level, renamed)
        if name not in target and _is_safe(name):
            target[name] = value
        else:
            _put(target, name, value, renamed)


def _clean(value: Any, level: int, renamed: dict[str, Any]) -> Any:
    """``value`` with names and depth that Elasticsearch takes."""
    if level > LEVELS_MAX and (type(value) is dict or type(value) is list):
        return _json(value)
    if type(value) is list:
        return [_clean(item, level + 1, renamed) for item in value]
    if type(value) is not dict:
        return value
    clean: dict[str, Any] = {}
    _put_all(clean, value, level + 1, renamed)
    return clean


def _is_safe(name: str) -> bool:
    """Whether both stores certainly take ``name``; a quick look that is right for what senders commonly use."""
    # NUL is not printable, and a character takes at most 4 bytes.
    return len(name) <= NAME_SIZE_BYTES_MAX // 4 and name.isprintable()


def _put(target: dict[str, Any], name: str, value: Any, renamed: dict[str, Any]) -> None:
    """Put ``value`` into ``target`` under a name that is free and that both stores take."""
    # A lone surrogate, which UTF-8 cannot spell, comes from an escape such as \ud800.
    safe = _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", name.replace("\0", "\N{SYMBOL FOR NULL}"))
    if len(safe.encode()) > NAME_SIZE_BYTES_MAX:
        safe = _cut_name(safe, name_hash(name))
    if safe in target:
        safe = free_name(safe, target, sent=name)
    if safe != name:
        renamed[safe] = _sent_name(name)
    target[safe] = value


_SURROGATE = re.compile("[\ud800-\udfff]")


def _sent_name(name: str) -> str:
    """``name`` with its lone surrogates as the escapes that they were sent as."""
    return _SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", name)


def _cut_name(name: str, digest: str) -> str:
    """The beginning of ``name`` and a hash of the whole, at most NAME_SIZE_BYTES_MAX bytes together."""
    beginning = name[:NAME_SIZE_BYTES_MAX].encode()[: NAME_SIZE_BYTES_MAX - len(digest) - 1]
    return f"{beginning.decode(errors='ignore')}~{digest}"


# --- words ---------------------------------------------------------------------------------------------------------

_FIELDS_OF_ONE_TEXT = (
    "summary",
    "category",
    "hostname",
    "fqdn",
    "processid",
    "processname",
    "severity",
    "source",
    "type",
    "version",
    "key",
    "emitter",
    "sourceaddress",
)
_NO_WORD = "\0"
_BOUNDARY_BETWEEN = f" {BOUNDARY} ".encode()
_ASCII_WORDS = bytes(
    ord(chr(byte).lower()) if chr(byte).isalnum() or byte in b"_\0" else ord(" ") for byte in range(128)
)
_ASCII_WORDS += b" " * 128
"""For bytes.translate: what words_of does to ASCII, except for the cutting at WORD_LENGTH_MAX; NUL stays."""
_ASCII_RUNS = bytes(ord(" ") if byte in b" \0" else ord("x") for byte in range(256))
_LONG_WORD = b"x" * (WORD_LENGTH_MAX + 1)


def _collect(value: Any, values: list[str]) -> None:
    """Append the leaves of ``value`` as text, without names, to ``values``."""
    for item in value.values() if type(value) is dict else value:
        kind = type(item)
        if kind is str:
            values.append(item)
        elif kind is dict or kind is list:
            _collect(item, values)
        elif kind is int:
            values.append(str(item))
        elif item is not None:
            values.append(_spelled(item))


def _words_of_values(values: list[str]) -> str:
    text = _NO_WORD.join(values)
    # NUL stands between the values only if no value has one.
    if not text.isascii() or len(text) > WORDS_MAX or "\x1b" in text or text.count(_NO_WORD) >= max(1, len(values)):
        return _words_of_odd_values(values)
    words = text.encode().translate(_ASCII_WORDS)
    if _LONG_WORD in words.translate(_ASCII_RUNS):
        return _words_of_odd_values(values)
    words = words.replace(b"\0", _BOUNDARY_BETWEEN)
    size = 0
    while size != len(words):
        size, words = len(words), words.replace(b"  ", b" ")
    return words.strip().decode()


def _words_of_odd_values(values: list[str]) -> str:
    """As _words_of_values for any values; several times slower."""
    words: list[str] = []
    for value in values:
        words += words_of(value)
        words.append(BOUNDARY)
        if len(words) > WORDS_MAX:
            break
    return " ".join(words[:-1][:WORDS_MAX])
