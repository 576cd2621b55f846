"""What a rule has looked at in a time, of how many accepted events, and what it has found: signed as receipts are."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any, NamedTuple

import orjson

from logweir.alerts.alert import ALERTS
from logweir.alerts.beginnings import read_beginnings
from logweir.alerts.catalogue import RULES
from logweir.alerts.rules import Rule
from logweir.audit.books import Books, read_books_and_store
from logweir.audit.span import Span
from logweir.clock import WINDOW_US, iso_seconds
from logweir.config import Settings
from logweir.errors import CERTIFICATE_BAD, RULE_BAD, LogweirError
from logweir.query.match import time_us_of
from logweir.query.tree import All, Term
from logweir.store.port import Store
from logweir_workers.alerts.backtest import backtest

VERSION = 2
ALERTS_MAX = 10_000
"""Alerts that a certificate names; of a rule with more in the time, none is made."""
_SIGNATURE_SIZE_BYTES = 16


def certify(
    store: Store, rule: Rule, settings: Settings, *, from_us: int, to_us: int, secret: bytes, now_us: int
) -> dict[str, Any]:
    """A certificate of the whole minutes from ``from_us`` to ``to_us``.

    Events count by the minute of their receipt. The rule is held against what the store has now, once more; whether it
    was asked of that time as it is now, by alerter or backfill, it says, too. Raises LogweirError: RULE_BAD,
    PARAMETER_BAD, STORE_DOWN, SEARCH_TOO_SLOW.
    """
    if not rule.is_about_events:
        raise LogweirError(RULE_BAD, rule=rule.name, reason="certificates are of rules about events")
    from_us, to_us = from_us // WINDOW_US * WINDOW_US, -(-to_us // WINDOW_US) * WINDOW_US
    span, accounting = Span(from_us, to_us), settings.accounting
    books = read_books_and_store(
        store, group=settings.worker.group, late_us=accounting.late_us, now_us=now_us, span=span
    )
    stored = store.count(All(), from_us=from_us, to_us=to_us).number
    found = backtest(store, rule, settings, from_us=from_us, to_us=to_us)
    row, asked = books.row, _asked(store, rule, settings, Span(from_us, to_us))
    said = {
        "version": VERSION,
        "rule": rule.name,
        "revision": rule.revision,
        "where": rule.where,
        "from": iso_seconds(from_us),
        "to": iso_seconds(to_us),
        "made": iso_seconds(now_us),
        "accepted": row.accepted,
        **{name: row.outcomes[name] for name in ("indexed", "filtered", "dead_lettered", "duplicate")},
        "in_flight": row.in_flight,
        "lost": books.lost_now,
        "missing": books.total("missing") or 0,
        "balanced": books.balanced,
        "complete": books.complete,
        "looked_at": stored,
        "revision_since": asked.since,
        "other_revision": asked.others,
        "whole": _is_whole(books, stored) and not asked.others,
        "matches": found.matches,
        "excepted": found.excepted,
        "unevaluated": found.unevaluated,
        "would_be_alerts": found.alerts_count,
        "alerts": _alerts(store, rule, from_us, to_us),
    }
    return {**said, "signature": _signature(said, secret)}


class _Asked(NamedTuple):
    """Of which times a rule was asked as it is now."""

    since: str | None
    """Since when alerters ask it; None where none does."""
    others: list[tuple[str, str]]
    """The parts of the time of which another revision was asked, or none; from and to."""


def _asked(store: Store, rule: Rule, settings: Settings, span: Span) -> _Asked:
    """Raises LogweirError(STORE_DOWN)."""
    begun = read_beginnings(store, settings.worker.group).get(rule.name)
    since_us = begun.at.since_us if begun is not None and begun.revision == rule.revision else None
    stored = store.documents.get(RULES, [rule.name]).get(rule.name)
    backfills = [
        (time_us_of(one["from"]), time_us_of(one["to"]))
        for one in (stored.body.get("backfills", ()) if stored is not None else ())
        if one["revision"] == rule.revision and not one["stopped"]
    ]
    at_us, end_us, others = span.from_us or 0, span.to_us or 0, []
    for first_us, last_us in sorted([*backfills, *([] if since_us is None else [(since_us, end_us)])]):
        if at_us < min(first_us, end_us):
            others.append((iso_seconds(at_us), iso_seconds(min(first_us, end_us))))
        at_us = max(at_us, last_us)
    if at_us < end_us:
        others.append((iso_seconds(at_us), iso_seconds(end_us)))
    return _Asked(None if since_us is None else iso_seconds(since_us), others)


def _is_whole(books: Books, stored: int) -> bool:
    """Whether the rule has looked at every accepted event that was to be stored, and none was lost before."""
    is_all_there = books.complete is True and not books.total("missing") and books.row.in_flight == 0
    return is_all_there and stored >= books.row.outcomes["indexed"]


def _alerts(store: Store, rule: Rule, from_us: int, to_us: int) -> list[dict[str, Any]]:
    """The rule's alerts with events of the time."""
    page = store.documents.search(ALERTS, Term("rule", rule.name), size=ALERTS_MAX, from_us=from_us)
    if page.after is not None:
        reason = f"it has more than {ALERTS_MAX:,} alerts since then: certify a shorter time"
        raise LogweirError(RULE_BAD, rule=rule.name, reason=reason)
    bodies = (one.body for one in page.documents)
    return sorted(
        (
            {name: body[name] for name in ("id", "revision", "kind", "group", "first", "last", "count", "status")}
            for body in bodies
            if time_us_of(body["first"]) < to_us and time_us_of(body["last"]) >= from_us
        ),
        key=lambda one: (one["first"], one["id"]),
    )


def require_genuine(certificate: dict[str, Any], secret: bytes) -> None:
    """Raises LogweirError(CERTIFICATE_BAD) for one that this installation did not make, or that was changed since."""
    said = {name: value for name, value in certificate.items() if name != "signature"}
    signature = certificate.get("signature")
    if not isinstance(signature, str) or not hmac.compare_digest(signature.encode(), _signature(said, secret).encode()):
        raise LogweirError(CERTIFICATE_BAD)


def _signature(said: dict[str, Any], secret: bytes) -> str:
    written = orjson.dumps(said, option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(written, digest_size=_SIGNATURE_SIZE_BYTES, key=secret, person=b"certificate").hexdigest()
