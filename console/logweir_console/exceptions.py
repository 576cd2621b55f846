"""The API for exceptions: which there are, and new ones, by a query or from an alert."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from logweir.alerts import alert, exceptions
from logweir.alerts.catalogue import RULES
from logweir.alerts.ending import REASON_LENGTH_MAX
from logweir.alerts.exceptions import ExceptionState, RuleException
from logweir.clock import Clock
from logweir.errors import (
    ALERT_AMBIGUOUS,
    ALERT_UNKNOWN,
    EXCEPTION_UNKNOWN,
    EXCEPTIONS_FULL,
    QUERY_BAD,
    QUERY_FIELD_UNKNOWN,
    QUERY_OPERATOR_UNFIT,
    RULE_UNKNOWN,
    TIME_BAD,
    LogweirError,
)
from logweir.query.times import time_from_now
from logweir.store.port import Documents, Store
from logweir_console import parameters
from logweir_console.api import TEXT, Parameter, Route

_BY = Parameter("by", "Who says so.", {"type": "string", "minLength": 1, "maxLength": 64}, is_required=True)
_UNTIL = Parameter("until", "Until when: 30d, or ISO 8601 (90d).", TEXT)
_EXCEPTION = {
    "type": "object",
    "required": ["id", "rule", "query", "reason", "by", "begins", "ends", "state"],
    "properties": {
        **dict.fromkeys(("id", "rule", "query", "reason", "by"), TEXT),
        "begins": {"type": "string", "format": "date-time"},
        "ends": {"type": "string", "format": "date-time"},
        "alert": {"type": ["string", "null"], "description": "The alert that it was made from."},
        "ended_by": {"type": ["string", "null"]},
        "state": {
            "type": "string",
            "enum": [str(one) for one in ExceptionState],
            "description": "wanted: the alerter tries the rule's examples with it first.",
        },
        "refusal": {"type": ["string", "null"], "description": "Why it was refused."},
    },
}


def make(documents: Documents, given: Mapping[str, Any], *, now_us: int) -> RuleException:
    """A new one, that is wanted. ``given``: by, reason, until; and rule and query, or alert and fields.

    Raises LogweirError: RULE_UNKNOWN, ALERT_UNKNOWN, and those of ``exceptions.add``.
    """
    alert_id: str | None = None
    if given.get("alert"):
        body = alert.find(documents, given["alert"]).body
        alert_id, rule = body["id"], body["rule"]
        query = exceptions.query_of(body, _names(given.get("fields") or list(body.get("group", {}))))
    else:
        rule, query = given.get("rule", ""), given.get("query", "")
        if rule not in documents.get(RULES, [rule]):
            raise LogweirError(RULE_UNKNOWN, name=rule[:100], nearest="")
    return exceptions.add(
        documents,
        rule=rule,
        query=query,
        reason=given.get("reason", ""),
        by=parameters.name_of(given),
        until_us=time_from_now(given.get("until") or "90d", now_us),
        now_us=now_us,
        alert=alert_id,
    )


def _names(fields: str | Sequence[str]) -> list[str]:
    named = fields.split(",") if isinstance(fields, str) else fields
    return [name.strip() for name in named if name.strip()]


def routes(store: Store, *, clock: Clock) -> list[Route]:
    """The API's routes for exceptions."""

    def listed(_: Mapping[str, str], given: Mapping[str, str]) -> dict[str, Any]:
        documents = store.documents
        is_past = given.get("past") == "yes"
        found = exceptions.past_and_present(documents) if is_past else exceptions.active(documents, clock())
        rule = given.get("rule", "")
        return {"exceptions": [one.as_dict() for one in found if rule in ("", one.rule)]}

    def made(_: Mapping[str, str], given: Mapping[str, str]) -> dict[str, Any]:
        return make(store.documents, given, now_us=clock()).as_dict()

    def ended(named: Mapping[str, str], given: Mapping[str, str]) -> dict[str, Any]:
        by = parameters.name_of(given)
        return exceptions.end(store.documents, named["id"], by=by, now_us=clock()).as_dict()

    return [
        Route(
            "GET",
            "/api/exceptions",
            "exceptions",
            "The exceptions that have not ended, the one that ends last first.",
            {
                "type": "object",
                "required": ["exceptions"],
                "properties": {"exceptions": {"type": "array", "items": _EXCEPTION}},
            },
            listed,
            (
                Parameter("rule", "Only those from this rule.", TEXT),
                Parameter("past", "yes: those that have ended, too.", {"enum": ["yes"]}),
            ),
        ),
        Route(
            "POST",
            "/api/exceptions",
            "make_exception",
            "Keep events from counting for a rule: those that a query finds, or those like an alert's.",
            _EXCEPTION,
            made,
            (
                _BY,
                Parameter("reason", "Why.", {**TEXT, "maxLength": REASON_LENGTH_MAX}, is_required=True),
                _UNTIL,
                Parameter("rule", "The rule's name.", TEXT),
                Parameter("query", "Which events, in the search language.", TEXT),
                Parameter("alert", "Instead of rule and query: an alert's id.", TEXT),
                Parameter("fields", "Whose values are excepted, with commas between (those of its group).", TEXT),
            ),
            (
                RULE_UNKNOWN,
                ALERT_UNKNOWN,
                ALERT_AMBIGUOUS,
                EXCEPTIONS_FULL,
                QUERY_BAD,
                QUERY_FIELD_UNKNOWN,
                QUERY_OPERATOR_UNFIT,
                TIME_BAD,
            ),
        ),
        Route(
            "POST",
            "/api/exceptions/{id}/end",
            "end_exception",
            "End one now.",
            _EXCEPTION,
            ended,
            (_BY,),
            (EXCEPTION_UNKNOWN,),
        ),
    ]
