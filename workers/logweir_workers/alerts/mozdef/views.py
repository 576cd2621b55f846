"""Stored events as MozDef's scripts know them: found by the names that they were sent with, with dots or brackets."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from logweir.event import FIELD_BY_NAME
from logweir.query.hints import SENT_AS
from logweir_workers.normalise.details import SYNONYMS

KNOWN: dict[str, str] = {name: known for known, names in SYNONYMS.items() for name in names}
"""By the name of a detail as senders have it, in lower case, what it is stored as."""
_TOP = {name: field for name, field in SENT_AS.items() if not field.startswith("details.")}
_RAW = (".raw", ".keyword")
"""What the name of a field ended in where MozDef's index kept its text whole, too."""


class DotDict(dict[str, Any]):
    """A dictionary whose values are attributes, too, and are found by a path: ``one.a.b``, ``one["a.b"]``.

    One that ``event_of`` has made finds known details and fields by every name that senders call them.
    """

    __slots__ = ("_kind",)
    _kind: str

    def __init__(self, *values: Any, **more: Any) -> None:
        super().__init__()
        kind = getattr(values[0], "_kind", "") if values and isinstance(values[0], DotDict) else ""
        object.__setattr__(self, "_kind", kind)
        for name, value in dict(*values, **more).items():
            self[name] = value

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(name, _with_dots(value))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(name) from error

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "_kind":
            object.__setattr__(self, name, value)
        else:
            self[name] = value

    def __delattr__(self, name: str) -> None:
        del self[name]

    def __missing__(self, name: str) -> Any:
        if not isinstance(name, str):
            raise KeyError(name)
        if self._kind == "event":
            return self._of_event(name)
        if self._kind == "details":
            return self._of_details(name)
        return self._below(name)

    def __contains__(self, name: object) -> bool:
        if super().__contains__(name):
            return True
        try:
            self.__missing__(name)  # type: ignore[arg-type]
        except KeyError:
            return False
        return True

    def get(self, name: str, default: Any = None) -> Any:
        try:
            return self[name]
        except KeyError:
            return default

    def _below(self, path: str) -> Any:
        first, dot, rest = path.partition(".")
        inner = super().get(first) if dot else None
        if not isinstance(inner, dict) or rest not in inner:
            raise KeyError(path)
        return inner[rest]

    def _of_event(self, name: str) -> Any:
        for other in (_TOP.get(name.lower()), {"_type": "type"}.get(name)):
            if other is not None and (found := super().get(other)) is not None:
                return found
        details = super().get("details")
        if "." not in name:
            if isinstance(details, dict) and name in details:
                return details[name]
            if name == "mozdefhostname":
                return socket.gethostname()
        return self._below(name)

    def _of_details(self, name: str) -> Any:
        known = KNOWN.get(name.lower())
        if known is not None and (found := super().get(known)) is not None:
            return found
        # {"client": {"ip": …}} is kept as one known detail.
        nested = DotDict()
        for sent, known in _NESTED.get(name.lower(), ()):
            if (value := super().get(known)) is not None:
                nested[sent] = value
        if nested:
            return nested
        return self._below(name)


def _with_dots(value: Any) -> Any:
    if type(value) is dict:
        return DotDict(value)
    if type(value) is list:
        return [_with_dots(one) for one in value]
    return value


def _nested() -> dict[str, list[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = {}
    for name, known in KNOWN.items():
        first, dot, rest = name.partition(".")
        if dot and "." not in rest:
            found.setdefault(first, []).append((rest, known))
    return found


_NESTED = _nested()


def event_of(stored: Mapping[str, Any]) -> dict[str, Any]:
    """A stored event as a search of MozDef's gave it: ``_index``, ``_id``, ``_source``."""
    source = DotDict({name: value for name, value in stored.items() if name not in ("_id", "_index")})
    if "fqdn" in stored:
        source["hostname"] = stored["fqdn"]
    for name, nothing in (("details", {}), ("tags", [])):
        if name not in stored:
            source[name] = nothing
    source["details"]._kind = "details"
    source._kind = "event"
    return {"_index": stored["_index"], "_type": "doc", "_id": stored["_id"], "_score": 1.0, "_source": source}


# --- fields by their paths ------------------------------------------------------------------------------------------
@lru_cache(maxsize=4096)
def paths_of(field: str) -> tuple[str, ...]:
    """Where a stored event may have what a script calls ``field``, the likeliest first."""
    for end in _RAW:
        field = field.removesuffix(end)
    if field == "hostname":
        return ("fqdn", "hostname", "details.hostname")
    if field == "_type":
        return ("type", "details._type")
    if field.startswith("details."):
        known = KNOWN.get(field.removeprefix("details.").lower())
        return tuple(dict.fromkeys((field, *([f"details.{known}"] if known else []))))
    if field in FIELD_BY_NAME:
        return (field, f"details.{field}")
    top = _TOP.get(field.lower())
    known = KNOWN.get(field.lower())
    return (*([top] if top else []), f"details.{field}", *([f"details.{known}"] if known else []))


def values_of(event: Mapping[str, Any], field: str) -> Iterator[Any]:
    """Each value of the field in a stored event, of lists each of theirs."""
    for path in paths_of(field):
        yield from _walk(event, path)


def value_of(event: Mapping[str, Any], field: str) -> Iterator[Any]:
    """The values at the first place where the event has any."""
    for path in paths_of(field):
        found = list(_walk(event, path))
        if found:
            yield from found
            return


def has(event: Mapping[str, Any], field: str) -> bool:
    """Whether the event has a value there, or below it."""
    return any(True for path in paths_of(field) for _ in _walk(event, path, below=True))


def all_values_of(event: Mapping[str, Any]) -> Iterator[Any]:
    """Every value that a stored event has, of any field."""
    for name, value in event.items():
        if name not in ("_id", "_index"):
            yield from _walk(value, "", below=True)


def _walk(value: Any, path: str, *, below: bool = False) -> Iterator[Any]:
    if isinstance(value, list):
        for one in value:
            yield from _walk(one, path, below=below)
    elif not path:
        if isinstance(value, Mapping):
            for one in value.values() if below else ():
                yield from _walk(one, "", below=True)
        elif value is not None:
            yield value
    elif isinstance(value, Mapping):
        # A name may have dots itself.
        at = path.find(".")
        while True:
            name = path if at < 0 else path[:at]
            if name in value:
                yield from _walk(value[name], "" if at < 0 else path[at + 1 :], below=below)
            if at < 0:
                return
            at = path.find(".", at + 1)


def at_path(value: Any, path: str) -> Any:
    """What a script's own path leads to in what it was handed, such as ``_source.details.uri``; None for nothing."""
    for name in path.split("."):
        if not isinstance(value, Mapping) or name not in value:
            return None
        value = value[name]
    return value
