"""cloudtrail: what somebody did in AWS, as CloudTrail records it, alone or inside of an EventBridge event."""

from __future__ import annotations

from typing import Any

from logweir_workers.parsers import Event, Fields, event_parser
from logweir_workers.parsers._objects import at, text_at

_RECORD = {
    "eventVersion": "1.08",
    "userIdentity": {"type": "IAMUser", "userName": "alice", "accountId": "111122223333"},
    "eventTime": "2026-01-31T12:00:00Z",
    "eventSource": "iam.amazonaws.com",
    "eventName": "CreateUser",
    "awsRegion": "us-east-1",
    "sourceIPAddress": "192.0.2.7",
    "userAgent": "aws-cli/2.15.0",
    "requestParameters": {"userName": "mallory"},
    "responseElements": {"user": {"userName": "mallory"}},
}
_ROLE = {
    "type": "AssumedRole",
    "arn": "arn:aws:sts::111122223333:assumed-role/deploy/ci-77",
    "sessionContext": {"sessionIssuer": {"type": "Role", "userName": "deploy"}},
}


@event_parser(
    marks=("eventSource", "detail-type"),
    adds=("action", "outcome", "username", "targetusername", "sourceipaddress", "useragent", "reason"),
    # Fields as in "CloudTrail record contents" of AWS' documentation. sourceIPAddress and userAgent have their names
    # already, where the record itself is the event.
    examples=(
        (_RECORD, {"action": "CreateUser", "outcome": "success", "username": "alice", "targetusername": "mallory"}),
        (
            {**_RECORD, "eventName": "DeleteTrail", "errorCode": "AccessDenied", "requestParameters": None},
            {"action": "DeleteTrail", "outcome": "failure", "username": "alice", "reason": "AccessDenied"},
        ),
        (
            {
                **_RECORD,
                "eventSource": "signin.amazonaws.com",
                "eventName": "ConsoleLogin",
                "userIdentity": {"type": "Root", "userName": "our-account", "accountId": "111122223333"},
                "requestParameters": None,
                "responseElements": {"ConsoleLogin": "Failure"},
                "errorMessage": "Failed authentication",
            },
            {"action": "ConsoleLogin", "outcome": "failure", "username": "root", "reason": "Failed authentication"},
        ),
        (
            {
                **_RECORD,
                "eventName": "RunInstances",
                "userIdentity": _ROLE,
                "requestParameters": {"instanceType": "m7i"},
            },
            {"action": "RunInstances", "outcome": "success", "username": "deploy"},
        ),
        (
            {
                **_RECORD,
                "eventName": "AssumeRole",
                "userIdentity": {"type": "AWSService", "invokedBy": "lambda.amazonaws.com"},
                "sourceIPAddress": "lambda.amazonaws.com",
                "requestParameters": {"roleArn": "arn:aws:iam::111122223333:role/x"},
            },
            {"action": "AssumeRole", "outcome": "success", "username": "lambda.amazonaws.com"},
        ),
        (
            {
                **_RECORD,
                "eventSource": "signin.amazonaws.com",
                "eventName": "ConsoleLogin",
                "userIdentity": {"type": "IAMUser", "userName": "HIDDEN_DUE_TO_SECURITY_REASONS"},
                "requestParameters": None,
                "responseElements": {"ConsoleLogin": "Failure"},
            },
            {"action": "ConsoleLogin", "outcome": "failure"},
        ),
        ({"eventSource": "aws:s3", "eventName": "ObjectCreated:Put", "eventVersion": "2.1"}, {}),
        (
            {"detail-type": "AWS API Call via CloudTrail", "source": "aws.iam", "detail": _RECORD},
            {
                "action": "CreateUser",
                "outcome": "success",
                "username": "alice",
                "targetusername": "mallory",
                "sourceipaddress": "192.0.2.7",
                "useragent": "aws-cli/2.15.0",
            },
        ),
        ({"eventSource": "calendar", "eventName": "standup"}, {}),
        ({"eventSource": 7, "eventName": ["x"], "eventVersion": {}}, {}),
        ({"detail-type": "EC2 Instance State-change Notification", "detail": {"state": "running"}}, {}),
    ),
)
def cloudtrail(event: Event) -> Fields | None:
    """Who, what, and how it ended; everything else is in the record under its own names."""
    details = event["details"]
    record = details.get("detail") if "detail-type" in details else details
    if type(record) is not dict:
        return None
    action, source, version = record.get("eventName"), record.get("eventSource"), record.get("eventVersion")
    if type(action) is not str or type(source) is not str or type(version) is not str:
        return None
    # Notifications of S3 ("aws:s3") and other programs' events have such members, too.
    if ".amazonaws.com" not in source:
        return None
    reason = text_at(record, "errorCode") or text_at(record, "errorMessage")
    failed = reason is not None or at(record, "responseElements", "ConsoleLogin") == "Failure"
    return {
        "action": action,
        "outcome": "failure" if failed else "success",
        "username": _who(record.get("userIdentity")),
        "targetusername": text_at(record, "requestParameters", "userName"),
        "sourceipaddress": text_at(record, "sourceIPAddress"),
        "useragent": text_at(record, "userAgent"),
        "reason": reason,
    }


_HIDDEN = "HIDDEN_DUE_TO_SECURITY_REASONS"
"""What stands in place of a name that there is not: it may be a password."""


def _who(identity: Any) -> str | None:
    """A user's name, a role's, a service's, or root."""
    if at(identity, "type") == "Root":  # its userName is the alias of the account
        return "root"
    if name := text_at(identity, "userName"):
        return None if name == _HIDDEN else name
    return text_at(identity, "sessionContext", "sessionIssuer", "userName") or text_at(identity, "invokedBy")
