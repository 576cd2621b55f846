"""Whether the events of a batch have categories that their key may send. Only keys with such terms cost this.

An event's category is what a worker would store, under one of the names that it takes for it. Which one of several
counts is the worker's rule, so here all have to be allowed; what is no text, or a list of one, cannot be judged and is
refused, and so is a text that is too long to be stored as the category: the event would be without one. Two texts are
the same category if a search takes them for the same. An event that cannot be read is judged by what a
worker mends it to; one that no worker can read becomes a dead letter, which has no category.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from logweir import mend
from logweir.errors import CATEGORY_MISSING, CATEGORY_REFUSED, LogweirError
from logweir.event import CATEGORY_NAMES, KEYWORD_LENGTH_MAX
from logweir.query.tree import lower

_SHOWN_MAX = 100


class _Event(msgspec.Struct):
    category: str | None = None


_decoder = msgspec.json.Decoder(_Event)


def check_categories(events: Sequence[bytes], allowed: frozenset[str], *, stamped: bool) -> None:
    """Raises LogweirError: CATEGORY_REFUSED, or CATEGORY_MISSING unless one is ``stamped`` where there is none.

    ``allowed``: each as ``folded``.
    """
    for index, event in enumerate(events):
        try:
            category = _decoder.decode(event).category
        except (msgspec.DecodeError, RecursionError):
            category = None
        if category is None or len(category) > KEYWORD_LENGTH_MAX or folded(category) not in allowed:
            _check_closely(event, index, allowed, stamped=stamped)


def folded(category: str) -> str:
    """The category as searches compare it, without the white space that a worker takes away from around it."""
    return lower(category.strip())


def _check_closely(event: bytes, index: int, allowed: frozenset[str], *, stamped: bool) -> None:
    """Refuse whatever might become the category and is not allowed: one is stored, which one is the worker's rule."""
    sent = _object_in(event)
    if sent is None:
        sent = _object_in(mend.mended(event) or b"")
    if sent is None:
        return
    found = False
    for value in _categories_in(sent):
        if not isinstance(value, str) or len(value) > KEYWORD_LENGTH_MAX or folded(value) not in allowed:
            shown = value if isinstance(value, str) else json.dumps(value)
            raise LogweirError(CATEGORY_REFUSED, event_index=index, category=shown[:_SHOWN_MAX])
        found = True
    if not found and not stamped:
        raise LogweirError(CATEGORY_MISSING, event_index=index)


def _categories_in(sent: dict[str, Any]) -> Iterator[Any]:
    for name, value in sent.items():
        if name.lower() in CATEGORY_NAMES and not _says_nothing(value):
            yield _one(value)
        # Beside the dotted name, even one that says nothing, a worker leaves the object as it is.
        elif name == "event" and isinstance(value, dict) and "event.category" not in sent:
            inner = value.get("category")
            yield from () if _says_nothing(inner) else (_one(inner),)


def _object_in(event: bytes) -> dict[str, Any] | None:
    """The event; None for bytes that no worker reads: it takes no more than this does."""
    try:
        # A very long number as an int would cost more to convert than it is worth.
        sent = json.loads(event, parse_int=float)
    except (ValueError, RecursionError):
        return None
    return sent if isinstance(sent, dict) else None


def _one(value: Any) -> Any:
    """The element of a list of one, as a worker takes it: ECS defines event.category as a list."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _says_nothing(value: object) -> bool:
    return value is None or value == [] or value == {} or (isinstance(value, str) and not value.strip())
