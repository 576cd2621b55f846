"""The parameters of a search as they are sent. What is not understood is refused: else it would find something else."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes, urlencode

import orjson

from logweir.clock import duration_us, iso_seconds
from logweir.errors import PARAMETER_BAD, LogweirError
from logweir.query.parse import parse
from logweir.query.times import END_US, time_bounds, time_of
from logweir.query.tree import PAGE_MAX, TIME_FIELDS
from logweir.store.port import COUNT_TIMEOUT_S, Cancellation, Count, Hits, Store

SIZE_DEFAULT = 100
NAMES = ("q", "from", "to", "size", "time_field", "after")
NAME_LENGTH_MAX = 64
"""Characters of the name of who changes something."""
_VALUE_SHOWN = 100
_NUMBER_MAX = 2**63 - 1
_NO_TIME = -(2**63)
_STREAM_LENGTH_MAX = 200
_YEAR_1_MS = -62_135_596_800_000


def read(query: bytes, names: Collection[str] = NAMES) -> dict[str, str]:
    """The parameters in a URL's query, without white space around them. Raises LogweirError(PARAMETER_BAD)."""
    found: dict[str, str] = {}
    for part in query.split(b"&"):
        name, value = (_text(piece) for piece in part.partition(b"=")[::2])
        if not part:
            continue
        if name not in names:
            raise _bad(name, value, f"one of {', '.join(names)}")
        if name in found:
            raise _bad(name, value, "one that may be given twice")
        found[name] = value.strip()
    return found


def name_of(given: Mapping[str, str]) -> str:
    """Who says that something is to be changed, in what was sent. Raises LogweirError(PARAMETER_BAD)."""
    by = given.get("by", "").strip()
    if not 0 < len(by) <= NAME_LENGTH_MAX:
        raise _bad("by", by, f"your name, of up to {NAME_LENGTH_MAX} characters")
    return by


def _text(quoted: bytes) -> str:
    plain = unquote_to_bytes(quoted.replace(b"+", b" "))
    try:
        return plain.decode()
    except UnicodeDecodeError as error:
        value = plain.decode(errors="backslashreplace")
        raise _bad("in the URL", value, "UTF-8") from error


def _bad(name: str, value: str, expected: str) -> LogweirError:
    return LogweirError(PARAMETER_BAD, name=name, value=value[:_VALUE_SHOWN], expected=expected)


@dataclass(frozen=True, slots=True)
class Search:
    """The parameters of one search, as they were sent; ``run`` reads them."""

    q: str = "*"
    from_: str = ""
    to: str = ""
    size: str = str(SIZE_DEFAULT)
    time_field: str = TIME_FIELDS[0]
    after: str = ""

    @classmethod
    def of(cls, parameters: dict[str, str]) -> Search:
        """Of what ``read`` gives; an empty one counts as not given."""
        named = {"from_" if name == "from" else name: value for name, value in parameters.items() if value}
        return cls(**named)

    def run(
        self, store: Store, now_us: int, *, size_bytes_max: int, cancellation: Cancellation | None
    ) -> tuple[Hits, Count]:
        """A page, and how many events there are in all; at least so many where that takes long.

        Raises LogweirError for whatever cannot be read, and what the store raises.
        """
        from_us, to_us = time_bounds(self.from_, self.to, now_us)
        query, size, after = parse(self.q, now_us=now_us), self._size(), self._after()
        store.require_prepared()
        asked: dict[str, Any] = {
            "from_us": from_us,
            "to_us": to_us,
            "time_field": self.time_field,
            "cancellation": cancellation,
        }
        hits = store.search(query, size=size, after=after, size_bytes_max=size_bytes_max, **asked)
        if hits.after is None and after is None and size:
            return hits, Count(len(hits.events))
        return hits, store.count(query, timeout_s=COUNT_TIMEOUT_S, **asked)

    def is_cut(self, hits: Hits) -> bool:
        """Whether the page ends at its size in bytes."""
        return hits.after is not None and len(hits.events) < self._size()

    def as_query(self, now_us: int) -> str:
        """The search as the query of a URL that finds the same at any time: ages are written as times."""
        named = {
            "q": self.q,
            "from": _absolute(self.from_, now_us),
            "to": _absolute(self.to, now_us),
            "size": self.size,
            "time_field": self.time_field,
            "after": self.after,
        }
        return urlencode({name: value for name, value in named.items() if value})

    def _size(self) -> int:
        digits = self.size.lstrip("0") or "0"
        if not (self.size.isascii() and self.size.isdigit() and len(digits) <= 9 and int(digits) <= PAGE_MAX):
            raise _bad("size", self.size, f"a whole number from 0 to {PAGE_MAX}")
        return int(digits)

    def _after(self) -> tuple[int, str, int] | None:
        if not self.after:
            return None
        try:
            moment, stream, number = orjson.loads(self.after)
        except (ValueError, TypeError):
            moment = stream = number = None
        # No store looks beyond these bounds, and each has its own way to object.
        is_good = (
            type(moment) is int
            and type(stream) is str
            and type(number) is int
            and (moment == _NO_TIME or _YEAR_1_MS <= moment < END_US // 1000)
            and 0 <= number <= _NUMBER_MAX
            and len(stream) <= _STREAM_LENGTH_MAX
        )
        if not is_good:
            raise _bad("after", self.after, "what an answer gave as after")
        return moment, stream, number


def _absolute(text: str, now_us: int) -> str:
    if duration_us(text) is None:
        return text
    time_us = time_of(text, now_us)
    seconds = iso_seconds(time_us).removesuffix("Z")
    return f"{seconds}.{time_us % 1_000_000:06}Z"
