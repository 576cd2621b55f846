"""On what terms a key is good: networks, categories, quotas, what its events get stamped, what may be unreadable."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from logweir.errors import KEY_TERM_BAD, LogweirError
from logweir.query.tree import lower

NETWORKS_MAX = 256
CATEGORIES_MAX = 256
CATEGORY_LENGTH_MAX = 200
PER_SECOND_MAX = 10**12
STAMP_FIELDS_MAX = 16
STAMP_SIZE_BYTES_MAX = 1024
"""Names and texts together: each batch carries them into the queue."""

KEEP, REFUSE = "keep", "refuse"
"""What the door does with what cannot be read: keep it as dead letters, or refuse the request."""

_STAMP_NAME = re.compile(r"[A-Za-z0-9_@.-]{1,64}")
_NOT_STAMPED = frozenset(
    (
        "timestamp",
        "utctimestamp",
        "receivedtimestamp",
        "key",
        "emitter",
        "sourceaddress",
        "details",
        "ingest_stream",
        "ingest_number",
        "content_hash",
    )
)


@dataclass(frozen=True, slots=True)
class Terms:
    """Empty or None where nothing is set: any network, any category, no quota, nothing stamped.

    A quota is that of all keys of one name together. ``stamp`` are texts by field for events that do not say it.
    ``unreadable`` is KEEP or REFUSE; None: kept of senders that a refusal would stop for good, refused to all others.
    """

    networks: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    events_per_second: int | None = None
    bytes_per_second: int | None = None
    stamp: Mapping[str, str] = field(default_factory=dict)
    unreadable: str | None = None

    @classmethod
    def of(cls, values: Mapping[str, object]) -> Terms:
        """From what a file or a command line says, by field. Raises LogweirError(KEY_TERM_BAD) that names the term."""
        terms = cls(**{name: _READERS[name](name, value) for name, value in values.items()})  # type: ignore[arg-type]
        category = terms.stamp.get("category")
        if category is not None and terms.categories and not terms.allows(category):
            raise _bad("stamp", f"category={category}", f"categories has only {', '.join(terms.categories)}")
        return terms

    def allows(self, category: str) -> bool:
        """Whether events of the category may be sent; case does not count, as it does not in searches."""
        return not self.categories or lower(category) in map(lower, self.categories)

    def as_dict(self) -> dict[str, Any]:
        """By field; what ``of`` takes."""
        return {
            "networks": self.networks,
            "categories": self.categories,
            "events_per_second": self.events_per_second,
            "bytes_per_second": self.bytes_per_second,
            "stamp": dict(self.stamp),
            "unreadable": self.unreadable,
        }


NO_TERMS = Terms()


def _networks(term: str, value: object) -> tuple[str, ...]:
    return tuple(_network(term, text) for text in _texts(term, value, count_max=NETWORKS_MAX))


def _network(term: str, text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError:
        pass
    try:
        meant = ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        reason = "it is neither a network, such as 10.0.0.0/8 or 2001:db8::/32, nor an address"
        raise _bad(term, text, reason) from error
    raise _bad(term, text, f"its address has bits behind the prefix; write {meant}")


def _categories(term: str, value: object) -> tuple[str, ...]:
    categories = _texts(term, value, count_max=CATEGORIES_MAX)
    for category in categories:
        if not 0 < len(category) <= CATEGORY_LENGTH_MAX or not category.isprintable() or category != category.strip():
            reason = f"a category is 1 to {CATEGORY_LENGTH_MAX} visible characters, without spaces around them"
            raise _bad(term, category, reason)
    return categories


def _per_second(term: str, value: object) -> int:
    if type(value) is not int or not 1 <= value <= PER_SECOND_MAX:
        raise _bad(term, value, f"it is not a whole number from 1 to {PER_SECOND_MAX}")
    return value


def _stamp(term: str, value: object) -> dict[str, str]:
    if not isinstance(value, Mapping) or not all(isinstance(text, str) for text in value.values()):
        raise _bad(term, value, 'it is not texts by field, such as { site = "north" }')
    for name, text in value.items():
        if not _STAMP_NAME.fullmatch(name):
            raise _bad(term, name, "a field's name is 1 to 64 letters, digits, '_', '@', '.' or '-'")
        if name in _NOT_STAMPED:
            raise _bad(term, name, "this field is not a key's to say; what has no field of its own goes under details")
        if not text.strip() or not text.isprintable():
            raise _bad(term, f"{name}={text}", "the text is empty or has characters that cannot be seen")
    size_bytes = sum(len(name) + len(text.encode()) for name, text in value.items())
    if len(value) > STAMP_FIELDS_MAX or size_bytes > STAMP_SIZE_BYTES_MAX:
        most = f"at most {STAMP_FIELDS_MAX} fields and {STAMP_SIZE_BYTES_MAX} bytes"
        raise _bad(term, f"{len(value)} fields of {size_bytes} bytes", f"each batch carries them: {most}")
    return dict(value)


def _unreadable(term: str, value: object) -> str:
    if value not in (KEEP, REFUSE):
        raise _bad(term, value, f"it is neither {KEEP!r} nor {REFUSE!r}")
    return str(value)


def _texts(term: str, value: object, *, count_max: int) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(text, str) for text in value):
        raise _bad(term, value, "it is not a list of texts")
    if len(value) > count_max:
        raise _bad(term, f"{len(value)} of them", f"a key has at most {count_max}")
    return tuple(dict.fromkeys(value))


def _bad(term: str, value: object, reason: str) -> LogweirError:
    shown = str(value)
    return LogweirError(KEY_TERM_BAD, term=term, value=shown if len(shown) <= 200 else shown[:200] + "…", reason=reason)


_READERS = {
    "networks": _networks,
    "categories": _categories,
    "events_per_second": _per_second,
    "bytes_per_second": _per_second,
    "stamp": _stamp,
    "unreadable": _unreadable,
}
