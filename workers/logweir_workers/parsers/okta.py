"""okta: events of Okta's system log."""

from __future__ import annotations

from logweir_workers.parsers import Event, Fields, event_parser
from logweir_workers.parsers._objects import at, text_at

_OUTCOMES = {"SUCCESS": "success", "ALLOW": "success", "FAILURE": "failure", "DENY": "failure"}
_EVENT = {
    "actor": {"id": "00u1", "type": "User", "alternateId": "alice@example.org", "displayName": "Alice"},
    "client": {"userAgent": {"rawUserAgent": "Mozilla/5.0"}, "ipAddress": "192.0.2.7", "zone": "null"},
    "displayMessage": "User login to Okta",
    "eventType": "user.session.start",
    "outcome": {"result": "FAILURE", "reason": "INVALID_CREDENTIALS"},
    "published": "2026-01-31T12:00:00.000Z",
    "severity": "INFO",
    "debugContext": {"debugData": {}},
    "legacyEventType": "core.user_auth.login_failed",
    "target": None,
}
_FIELDS = {
    "action": "user.session.start",
    "outcome": "failure",
    "outcome_2": {"result": "FAILURE", "reason": "INVALID_CREDENTIALS"},
    "username": "alice@example.org",
    "sourceipaddress": "192.0.2.7",
    "useragent": "Mozilla/5.0",
    "reason": "INVALID_CREDENTIALS",
}


@event_parser(
    marks=("legacyEventType", "debugContext"),
    adds=("action", "outcome", "username", "targetusername", "sourceipaddress", "useragent", "reason", "outcome_2"),
    # Okta's outcome is an object; it stays, under the next name.
    replaces=("outcome",),
    # LogEvent in the reference of Okta's System Log API.
    examples=(
        (_EVENT, _FIELDS),
        (
            {
                **_EVENT,
                "eventType": "user.account.update_password",
                "outcome": {"result": "SUCCESS"},
                "target": [{"type": "AppInstance"}, {"type": "User", "alternateId": "bob@example.org"}],
            },
            {
                "action": "user.account.update_password",
                "outcome": "success",
                "outcome_2": {"result": "SUCCESS"},
                "username": "alice@example.org",
                "targetusername": "bob@example.org",
                "sourceipaddress": "192.0.2.7",
                "useragent": "Mozilla/5.0",
            },
        ),
        ({"debugContext": {"x": 1}, "eventType": "click"}, {}),
        ({"legacyEventType": "x", "eventType": 7, "actor": "alice"}, {}),
    ),
)
def okta(event: Event) -> Fields | None:
    """Who did what to whom, from where, and how it ended."""
    details = event["details"]
    kind, actor = text_at(details, "eventType"), text_at(details, "actor", "alternateId")
    if kind is None or actor is None:
        return None
    return {
        "action": kind,
        "outcome": _OUTCOMES.get(text_at(details, "outcome", "result") or ""),
        "username": actor,
        "targetusername": _target(at(details, "target")),
        "sourceipaddress": text_at(details, "client", "ipAddress"),
        "useragent": text_at(details, "client", "userAgent", "rawUserAgent"),
        "reason": text_at(details, "outcome", "reason"),
    }


def _target(targets: object) -> str | None:
    """The first user among those that it was done to."""
    for target in targets if isinstance(targets, list) else ():
        if text_at(target, "type") == "User":
            return text_at(target, "alternateId")
    return None
