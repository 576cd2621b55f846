"""github_audit: what somebody did in an organisation or enterprise on GitHub."""

from __future__ import annotations

from logweir_workers.parsers import Event, Fields, event_parser
from logweir_workers.parsers._objects import text_at


@event_parser(
    marks=("_document_id", "actor_location"),
    adds=("username", "targetusername", "sourceipaddress", "country"),
    # GitHub's user is whom something was done to.
    replaces=("username",),
    # "Audit log events for your organization" and the streamed format in GitHub's documentation; action has its name
    # already.
    examples=(
        (
            {
                "@timestamp": 1769860800000,
                "_document_id": "x1",
                "action": "org.add_member",
                "actor": "alice",
                "actor_ip": "192.0.2.7",
                "actor_location": {"country_code": "DE"},
                "org": "example",
                "user": "mallory",
            },
            {"username": "alice", "targetusername": "mallory", "sourceipaddress": "192.0.2.7", "country": "DE"},
        ),
        (
            {"_document_id": "x2", "action": "repo.create", "actor": "alice", "repo": "example/shop"},
            {"username": "alice"},
        ),
        (
            {"actor_location": {"country_code": "DE"}, "actor": "bob", "action": "pull_request.merge"},
            {"username": "bob", "country": "DE"},
        ),
        ({"_document_id": "x3", "action": "save"}, {}),
        ({"_document_id": "x4", "action": "play", "actor": "Buster Keaton"}, {}),
    ),
)
def github_audit(event: Event) -> Fields | None:
    """The actor as the user, the user as whom it was done to."""
    details = event["details"]
    actor, action = text_at(details, "actor"), text_at(details, "action")
    if actor is None or action is None or "." not in action:
        return None
    return {
        "username": actor,
        "targetusername": text_at(details, "username"),
        "sourceipaddress": text_at(details, "actor_ip"),
        "country": text_at(details, "actor_location", "country_code"),
    }
