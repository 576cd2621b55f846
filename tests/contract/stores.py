"""The stores that the contract suites run over, and events made for them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from logweir.config import StoreSettings
from logweir.event import Document, Provenance, day_of, stream_of
from logweir.query.words import BOUNDARY, words_of
from logweir.store import open_store
from logweir.store.port import Store
from tests.services.own import own_index_prefix

# The newest Elasticsearch in every `make test`, the one before it in `make proof`.
ELASTICSEARCH = ("elasticsearch", pytest.param("elasticsearch_8", marks=pytest.mark.proof))
STORES = ("sqlite", *ELASTICSEARCH)

DAY_US = 86_400_000_000
NOON_US = int(datetime(2026, 1, 31, 12, tzinfo=UTC).timestamp()) * 1_000_000


@contextmanager
def empty_store(kind: str, request: pytest.FixtureRequest, folder: Path, **settings: Any) -> Iterator[Store]:
    """An empty, prepared store of that kind."""
    store = open_store(settings_of(kind, request, folder, **settings))
    store.prepare()
    try:
        yield store
    finally:
        store.close()


def settings_of(kind: str, request: pytest.FixtureRequest, folder: Path, **settings: Any) -> StoreSettings:
    if kind == "sqlite":
        return StoreSettings(url=f"sqlite:///{folder}/store", **settings)
    server = request.getfixturevalue(kind)
    return StoreSettings(url=server.url, index_prefix=own_index_prefix(server, request), **settings)


def iso(time_us: int) -> str:
    time = datetime.fromtimestamp(time_us // 1_000_000, tz=UTC).replace(microsecond=time_us % 1_000_000)
    return time.isoformat(timespec="microseconds").replace("+00:00", "Z")


def document(id: str, source: dict[str, Any], *, number: int, received_us: int = NOON_US) -> Document:
    """A document as a worker makes it: its times, its words, its provenance."""
    source = {"timestamp": iso(received_us), "receivedtimestamp": iso(received_us), **source}
    values = [value for name, value in source.items() if name != "summary" and not name.endswith("timestamp")]
    summary = source.get("summary", "")
    texts = [summary, *(text for value in values for text in leaves(value))]
    words = [" ".join(words_of(text)) for text in texts]
    return Document(
        id=id,
        day=day_of(received_us),
        source=source,
        provenance=Provenance("ab" * 16 + "-0", number, hashlib.blake2b(id.encode(), digest_size=8).hexdigest()),
        summary_words=words[0],
        all_words=f" {BOUNDARY} ".join(words).strip(),
    )


def index_numbers(store: Store, epoch: bytes, partition: int, numbers: Iterable[int], *, received_us: int) -> None:
    """Have the store hold an event of each of these numbers, as if a worker had indexed them."""
    stream = stream_of(epoch, partition)
    plain = (document(f"{stream}-{n}", {"summary": "x"}, number=n, received_us=received_us) for n in numbers)
    store.index([replace(one, provenance=replace(one.provenance, stream=stream)) for one in plain])
    store.refresh()


def leaves(value: Any) -> Iterator[str]:
    """The texts of all leaves of ``value``."""
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from leaves(inner)
    elif isinstance(value, bool):
        yield str(value).lower()
    elif value is not None:
        yield str(value)
