"""guardduty: findings of Amazon GuardDuty, alone or inside of an EventBridge event."""

from __future__ import annotations

from typing import Any

from logweir_workers.parsers import Event, Fields, event_parser
from logweir_workers.parsers._objects import at, text_at

_REMOTE = {"ipAddressV4": "198.51.100.2", "country": {"countryName": "Nowhere"}}
_FINDING = {
    "schemaVersion": "2.0",
    "id": "77",
    "type": "UnauthorizedAccess:EC2/SSHBruteForce",
    "resource": {"resourceType": "Instance"},
    "service": {
        "serviceName": "guardduty",
        "action": {
            "actionType": "NETWORK_CONNECTION",
            "networkConnectionAction": {
                "connectionDirection": "INBOUND",
                "protocol": "TCP",
                "localPortDetails": {"port": 22},
                "localIpDetails": {"ipAddressV4": "192.0.2.7"},
                "remoteIpDetails": _REMOTE,
                "remotePortDetails": {"port": 50022},
            },
        },
    },
    "severity": 8,
    "title": "198.51.100.2 is performing SSH brute force attacks.",
}


@event_parser(
    marks=("schemaVersion", "detail-type"),
    adds=(
        "action",
        "username",
        "sourceipaddress",
        "sourceport",
        "destinationipaddress",
        "destinationport",
        "protocol",
        "apicall",
    ),
    # "GuardDuty finding format" and the schema of GetFindings in AWS' documentation.
    examples=(
        (
            _FINDING,
            {
                "action": "UnauthorizedAccess:EC2/SSHBruteForce",
                "sourceipaddress": "198.51.100.2",
                "sourceport": 50022,
                "destinationipaddress": "192.0.2.7",
                "destinationport": 22,
                "protocol": "TCP",
            },
        ),
        (
            {
                "detail-type": "GuardDuty Finding",
                "source": "aws.guardduty",
                "detail": {
                    **_FINDING,
                    "type": "CryptoCurrency:EC2/BitcoinTool.B",
                    "service": {
                        "serviceName": "guardduty",
                        "action": {
                            "networkConnectionAction": {
                                "connectionDirection": "OUTBOUND",
                                "localIpDetails": {"ipAddressV4": "192.0.2.7"},
                                "remoteIpDetails": _REMOTE,
                                "remotePortDetails": {"port": 8333},
                            }
                        },
                    },
                },
            },
            {
                "action": "CryptoCurrency:EC2/BitcoinTool.B",
                "sourceipaddress": "192.0.2.7",
                "destinationipaddress": "198.51.100.2",
                "destinationport": 8333,
            },
        ),
        (
            {
                **_FINDING,
                "type": "Stealth:IAMUser/CloudTrailLoggingDisabled",
                "resource": {"resourceType": "AccessKey", "accessKeyDetails": {"userName": "alice"}},
                "service": {
                    "serviceName": "guardduty",
                    "action": {"awsApiCallAction": {"api": "StopLogging", "remoteIpDetails": _REMOTE}},
                },
            },
            {
                "action": "Stealth:IAMUser/CloudTrailLoggingDisabled",
                "username": "alice",
                "sourceipaddress": "198.51.100.2",
                "apicall": "StopLogging",
            },
        ),
        ({"schemaVersion": "1", "service": {"serviceName": "shop"}, "type": "order"}, {}),
        ({"detail-type": "GuardDuty Finding", "detail": "none"}, {}),
    ),
)
def guardduty(event: Event) -> Fields | None:
    """The kind of the finding, and between whom it happened."""
    details = event["details"]
    finding = details
    kind = event.get("type")
    if details.get("detail-type") == "GuardDuty Finding":
        finding = details.get("detail")
        kind = text_at(finding, "type")
    if text_at(finding, "service", "serviceName") != "guardduty" or not kind:
        return None
    action = at(finding, "service", "action")
    return {
        "action": kind,
        "username": text_at(finding, "resource", "accessKeyDetails", "userName"),
        **_between(action),
        "apicall": text_at(action, "awsApiCallAction", "api"),
    }


def _between(action: Any) -> Fields:
    """Source and destination by the direction of a connection; else whoever was far away."""
    connection = at(action, "networkConnectionAction")
    if connection is None:
        calls = ("awsApiCallAction", "kubernetesApiCallAction", "rdsLoginAttemptAction")
        remotes = [text_at(action, call, "remoteIpDetails", "ipAddressV4") for call in calls]
        remotes.append(text_at(action, "portProbeAction", "portProbeDetails", 0, "remoteIpDetails", "ipAddressV4"))
        return {"sourceipaddress": next((remote for remote in remotes if remote), None)}
    local = (text_at(connection, "localIpDetails", "ipAddressV4"), at(connection, "localPortDetails", "port"))
    remote = (text_at(connection, "remoteIpDetails", "ipAddressV4"), at(connection, "remotePortDetails", "port"))
    source, destination = (remote, local) if at(connection, "connectionDirection") == "INBOUND" else (local, remote)
    return {
        "sourceipaddress": source[0],
        "sourceport": _number(source[1]),
        "destinationipaddress": destination[0],
        "destinationport": _number(destination[1]),
        "protocol": text_at(connection, "protocol"),
    }


def _number(value: Any) -> int | None:
    return value if type(value) is int else None
