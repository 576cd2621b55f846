"""kubernetes_audit: requests to the API server of Kubernetes, as its audit log records them."""

from __future__ import annotations

from typing import Any

from logweir_workers.parsers import Event, Fields, event_parser
from logweir_workers.parsers._objects import at, text_at

_EVENT = {
    "kind": "Event",
    "apiVersion": "audit.k8s.io/v1",
    "level": "Metadata",
    "auditID": "1b2c",
    "stage": "ResponseComplete",
    "requestURI": "/api/v1/namespaces/shop/secrets/db?timeout=5s",
    "verb": "get",
    "user": {"username": "alice", "groups": ["system:authenticated"]},
    "sourceIPs": ["192.0.2.7"],
    "userAgent": "kubectl/v1.35.0",
    "objectRef": {"resource": "secrets", "namespace": "shop", "name": "db"},
    "responseStatus": {"metadata": {}, "code": 200},
}
_FIELDS = {
    "action": "get",
    "username": "alice",
    "sourceipaddress": "192.0.2.7",
    "path": "/api/v1/namespaces/shop/secrets/db",
    "query": "timeout=5s",
    "resource": "secrets",
    "namespace": "shop",
}


@event_parser(
    marks=("auditID",),
    adds=(
        "action",
        "outcome",
        "username",
        "targetusername",
        "sourceipaddress",
        "status",
        "path",
        "query",
        "resource",
        "namespace",
        "reason",
    ),
    # Package audit.k8s.io/v1 in the API reference of Kubernetes.
    examples=(
        # All but the last address are a client's own words.
        (
            {**_EVENT, "sourceIPs": ["198.51.100.1", "192.0.2.7"]},
            {
                name: value
                for name, value in (_FIELDS | {"outcome": "success", "status": 200}).items()
                if name != "sourceipaddress"
            },
        ),
        (_EVENT, {**_FIELDS, "outcome": "success", "status": 200}),
        (
            {**_EVENT, "responseStatus": {"status": "Failure", "reason": "Forbidden", "code": 403}},
            {**_FIELDS, "outcome": "failure", "status": 403, "reason": "Forbidden"},
        ),
        (
            {
                **_EVENT,
                "impersonatedUser": {"username": "system:admin"},
                "stage": "RequestReceived",
                "responseStatus": None,
            },
            {**_FIELDS, "targetusername": "system:admin"},
        ),
        (
            {
                **_EVENT,
                "verb": "create",
                "requestURI": "/api/v1/namespaces/shop/pods/web-1/exec",
                "objectRef": {"resource": "pods", "namespace": "shop", "name": "web-1", "subresource": "exec"},
                "responseStatus": {"code": 101},
            },
            {
                "action": "create",
                "outcome": "success",
                "username": "alice",
                "sourceipaddress": "192.0.2.7",
                "status": 101,
                "path": "/api/v1/namespaces/shop/pods/web-1/exec",
                "resource": "pods/exec",
                "namespace": "shop",
            },
        ),
        ({"auditID": "1b2c", "verb": "get"}, {}),
        ({"auditID": 7, "apiVersion": "audit.k8s.io/v1", "verb": ["get"]}, {}),
    ),
)
def kubernetes_audit(event: Event) -> Fields | None:
    """Who asked what of which resource, from where, and whether it was allowed."""
    details = event["details"]
    version, verb = text_at(details, "apiVersion"), text_at(details, "verb")
    if version is None or not version.startswith("audit.k8s.io/") or verb is None:
        return None
    path, _, query = (text_at(details, "requestURI") or "").partition("?")
    status = at(details, "responseStatus", "code")
    outcome = None if type(status) is not int else "failure" if status >= 400 else "success"
    resource, subresource = text_at(details, "objectRef", "resource"), text_at(details, "objectRef", "subresource")
    return {
        "action": verb,
        "outcome": outcome,
        "username": text_at(details, "user", "username"),
        "targetusername": text_at(details, "impersonatedUser", "username"),
        "sourceipaddress": _source(at(details, "sourceIPs")),
        "status": status if outcome else None,
        "path": path,
        "query": query,
        "resource": f"{resource}/{subresource}" if resource and subresource else resource,
        "namespace": text_at(details, "objectRef", "namespace"),
        "reason": text_at(details, "responseStatus", "reason"),
    }


def _source(addresses: Any) -> str | None:
    """The address, if it is the only one: all but the last are what a client wrote into X-Forwarded-For."""
    return text_at(addresses, 0) if type(addresses) is list and len(addresses) == 1 else None
