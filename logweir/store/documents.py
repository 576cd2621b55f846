"""Documents of our own: alerts, lists, and whatever else people and programs both change. No events, no ledger.

A set says what of its documents can be searched. Each document has a version; who writes names the version that
was read, so no change is ever written over another one unseen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from logweir.errors import DOCUMENT_TOO_LARGE, LogweirError
from logweir.event import Document, Field, Kind, Provenance
from logweir.query.match import milliseconds_of, text_of
from logweir.query.words import BOUNDARY, words_of

SIZE_BYTES_MAX = 1024 * 1024
"""Largest body of one document, as JSON."""
_NOT_STORED = Provenance("", 0, "")


@dataclass(frozen=True, slots=True)
class DocumentSet:
    """Documents of one kind."""

    name: str
    """In the names of its index and rows; of a to z and dashes."""
    fields: tuple[Field, ...]
    """What a search can ask for; of the kinds KEYWORD, TEXT, DATE and NUMBER."""
    time_field: str
    """The DATE by which searches are sorted and bounded."""
    view: Callable[[dict[str, Any]], dict[str, Any]]
    """The values of ``fields`` in a body; absent ones are left out."""
    by_name: Mapping[str, Field] = field(init=False)
    """``fields`` by their names."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_name", {one.name: one for one in self.fields})


@dataclass(frozen=True, slots=True)
class OwnDocument:
    """One document as it was read."""

    id: str
    version: str
    """Of this body; opaque, and another one after each write."""
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a search."""

    total: int
    """How many the search finds, exactly."""
    documents: list[OwnDocument]
    after: tuple[Any, ...] | None
    """Continues behind the last one; None when there are no more."""


def encoded(id: str, body: dict[str, Any]) -> bytes:
    """The body as JSON, for adapters. Raises LogweirError(DOCUMENT_TOO_LARGE)."""
    text = orjson.dumps(body)
    if len(text) > SIZE_BYTES_MAX:
        raise LogweirError(DOCUMENT_TOO_LARGE, id=id, size_bytes=len(text), size_bytes_max=SIZE_BYTES_MAX)
    return text


def time_ms(among: DocumentSet, view: Mapping[str, Any]) -> int:
    """What a search sorts by, for adapters; 0 for a document without the time."""
    return milliseconds_of(view.get(among.time_field)) or 0


def searched(among: DocumentSet, view: dict[str, Any]) -> Document:
    """What a search looks at, as ``query/match.py`` wants it, for adapters: the view with its words."""
    of_field = {
        one.name: [" ".join(words_of(text_of(value))) for value in _values(view.get(one.name))]
        for one in among.fields
        if one.kind in (Kind.TEXT, Kind.KEYWORD)
    }
    summary = " ".join(of_field.get("summary", ()))
    every = [words for several in of_field.values() for words in several if words]
    return Document("", "", view, _NOT_STORED, summary, f" {BOUNDARY} ".join(every))


def _values(value: object) -> list[object]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]
