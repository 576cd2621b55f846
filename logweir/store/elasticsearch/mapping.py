"""What an installation's indices are called, and how their documents are indexed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from logweir.config import StoreSettings
from logweir.event import DETAILS, FIELDS, Kind
from logweir.query import known
from logweir.query.tree import (
    IGNORE_ABOVE,
    PAGE_MAX,
)
from logweir.store.documents import DocumentSet

_DETAILS_DEPTH_LIMIT = 40
_TEMPLATE_PRIORITY = 500
TEMPLATE_VERSION = 2
"""Of all index templates. A program of before does not put its own over a higher one."""


@dataclass(frozen=True, slots=True)
class IndexNames:
    """What one installation's indices, alias and templates are called: all begin with ``store.index_prefix``."""

    prefix: str = ""

    @property
    def events(self) -> str:
        """The alias of all daily indices, for people and Kibana."""
        return f"{self.prefix}events"

    @property
    def days(self) -> str:
        """The pattern of all daily indices."""
        return f"{self.prefix}events-*"

    def of_day(self, day: str) -> str:
        """The daily index of the UTC day YYYYMMDD."""
        return f"{self.prefix}events-{day}"

    def day_of(self, index: str) -> str | None:
        """The day of a daily index; None for another name that fits the pattern."""
        found = re.fullmatch(r"events-(\d{8})", index.removeprefix(self.prefix))
        return found[1] if found else None

    @property
    def templates(self) -> str:
        """The pattern of all index templates."""
        return f"{self.prefix}logweir-*"

    @property
    def ledger(self) -> str:
        return f"{self.prefix}logweir-ledger"

    @property
    def dead_letters(self) -> str:
        return f"{self.prefix}logweir-dead-letters"

    def of_documents(self, among: DocumentSet) -> str:
        return f"{self.prefix}logweir-{among.name}"


_FIELD_MAPPINGS: dict[Kind, dict[str, Any]] = {
    # The longest value that ignore_above lets through is 24,000 bytes of UTF-8; Lucene refuses terms above 32,766.
    Kind.KEYWORD: {"type": "keyword", "normalizer": "lowercase", "ignore_above": IGNORE_ABOVE},
    # For Kibana; our own searches look at summary_words.
    Kind.TEXT: {"type": "text", "norms": False},
    # A time that Elasticsearch cannot read (year 10000) stays in the event and is not searchable.
    Kind.DATE: {"type": "date", "format": "strict_date_optional_time", "ignore_malformed": True},
    Kind.NUMBER: {"type": "long"},
    Kind.FLOAT: {"type": "double"},
    Kind.IP: {"type": "ip"},
    Kind.FLATTENED: {"type": "flattened", "depth_limit": _DETAILS_DEPTH_LIMIT, "ignore_above": IGNORE_ABOVE},
}
LAYOUT = 2
"""The version of the events' mapping, in the index template and in each index's ``_meta``. It has only ever grown: what
is new is added to the indices of days before, too, and events that are written there from then on have it.
"""
KNOWN_KINDS = {**dict.fromkeys(known.KEYWORDS, Kind.KEYWORD), **known.ORDERED}
_WORDS_MAPPING = {"type": "text", "analyzer": "whitespace", "norms": False}
_OWN_MAPPINGS = {
    "ingest_stream": {"type": "keyword"},
    "content_hash": {"type": "keyword", "index": False, "doc_values": True},
    "summary_words": _WORDS_MAPPING,
    "all_words": _WORDS_MAPPING,
    # flattened knows neither objects nor values beyond ignore_above when it is asked what exists.
    "details_paths": {"type": "keyword"},
    # What details are known, by their kinds; flattened compares text alone.
    "known": {
        "dynamic": False,
        "properties": {known.short(name): _FIELD_MAPPINGS[kind] for name, kind in sorted(KNOWN_KINDS.items())},
    },
}


def event_mappings() -> dict[str, Any]:
    """How events are indexed."""
    fields = {field.name: _FIELD_MAPPINGS[field.kind] for field in FIELDS}
    aliases = {
        **{field.ecs: {"type": "alias", "path": field.name} for field in FIELDS if field.ecs},
        **{field.ecs: {"type": "alias", "path": f"known.{known.short(field.name)}"} for field in DETAILS if field.ecs},
    }
    return {
        "_meta": {"layout": LAYOUT},
        "dynamic": False,
        "date_detection": False,
        "_source": {"excludes": ["summary_words", "all_words", "details_paths", "known"]},
        "properties": {**fields, **_OWN_MAPPINGS, **aliases},
    }


def added_mappings() -> dict[str, Any]:
    """What an index of an older layout lacks of ``event_mappings``."""
    mappings = event_mappings()
    added = {name for name, mapping in mappings["properties"].items() if mapping.get("path", "").startswith("known.")}
    properties = {name: mappings["properties"][name] for name in ("known", *sorted(added))}
    return {"meta": mappings["_meta"], "properties": properties}


def templates(settings: StoreSettings, names: IndexNames) -> dict[str, dict[str, Any]]:
    """The index templates by name."""
    common = {
        "number_of_replicas": settings.replicas,
        "refresh_interval": f"{int(settings.refresh_interval_s * 1000)}ms",
    }
    events = {
        **common,
        "number_of_shards": settings.shards,
        "max_result_window": PAGE_MAX + 1,
        "query.default_field": ["all_words"],
    }
    letters = {
        "id": {"type": "keyword"},
        "received_us": {"type": "long"},
        "reason": {"type": "keyword"},
        "stage": {"type": "keyword"},
        "key": {"type": "keyword"},
        "emitter": {"type": "keyword"},
        "size_bytes": {"type": "long"},
        "body": {"type": "object", "enabled": False},
        "raw": {"type": "binary"},
    }
    ledger = {"id": {"type": "keyword"}, "body": {"type": "object", "enabled": False}}
    return {
        f"{names.prefix}logweir-events": _template(names.days, events, event_mappings(), aliases={names.events: {}}),
        names.ledger: _template(names.ledger, common, {"dynamic": False, "properties": ledger}),
        names.dead_letters: _template(names.dead_letters, common, {"dynamic": False, "properties": letters}),
    }


def documents_template(settings: StoreSettings, names: IndexNames, among: DocumentSet) -> dict[str, Any]:
    """The template of the index of documents of our own; it has the name of the index."""
    index = {"number_of_replicas": settings.replicas, "refresh_interval": "1s", "max_result_window": PAGE_MAX + 1}
    properties = {
        **{field.name: _FIELD_MAPPINGS[field.kind] for field in among.fields},
        "id": {"type": "keyword"},
        "time_ms": {"type": "long"},
        "summary_words": _WORDS_MAPPING,
        "all_words": _WORDS_MAPPING,
        "body": {"type": "object", "enabled": False},
    }
    mappings = {
        "dynamic": False,
        "date_detection": False,
        "_source": {"excludes": ["summary_words", "all_words"]},
        "properties": properties,
    }
    return _template(names.of_documents(among), index, mappings)


def _template(
    pattern: str, settings: dict[str, Any], mappings: dict[str, Any], aliases: dict[str, Any] | None = None
) -> dict[str, Any]:
    template = {"settings": {"index": settings}, "mappings": mappings, "aliases": aliases or {}}
    return {
        "index_patterns": [pattern],
        "priority": _TEMPLATE_PRIORITY,
        "version": TEMPLATE_VERSION,
        "template": template,
    }
