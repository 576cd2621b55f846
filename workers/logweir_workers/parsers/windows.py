"""windows: events of Windows' security log and of Sysmon, as NXLog and Winlogbeat send them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from logweir_workers.parsers import Event, Fields, event_parser
from logweir_workers.parsers._objects import at, text_at

_SECURITY = {
    1102: "clear_log",
    4624: "login",
    4625: "login",
    4634: "logout",
    4647: "logout",
    4648: "login_as",
    4657: "change_registry",
    4663: "access_object",
    4672: "assign_privileges",
    4688: "execute",
    4697: "install_service",
    4698: "create_task",
    4699: "delete_task",
    4702: "change_task",
    4719: "change_audit_rules",
    4720: "add_user",
    4722: "enable_user",
    4723: "change_password",
    4724: "reset_password",
    4725: "disable_user",
    4726: "delete_user",
    4728: "add_to_group",
    4729: "remove_from_group",
    4732: "add_to_group",
    4733: "remove_from_group",
    4738: "change_user",
    4740: "lock_user",
    4756: "add_to_group",
    4757: "remove_from_group",
    4767: "unlock_user",
    4768: "authenticate",
    4769: "request_ticket",
    4771: "authenticate",
    4776: "authenticate",
    5140: "access_share",
    5145: "access_share",
}
"""What the events of the channel Security say, by their number, as Microsoft's "Audit" pages describe them."""

_SYSMON = {
    1: "execute",
    2: "change_file_time",
    3: "connect",
    5: "exit",
    6: "load_driver",
    7: "load_image",
    8: "create_remote_thread",
    10: "access_process",
    11: "create_file",
    12: "change_registry",
    13: "change_registry",
    22: "dns_query",
    23: "delete_file",
}
"""Those of the channel Microsoft-Windows-Sysmon/Operational."""

_SERVICE_INSTALLED = 7045
"""Of the channel System, by the Service Control Manager; Security has it as 4697, if it is audited."""

_LOGINS = {4624, 4625, 4634, 4647, 4768, 4769, 4771, 4776}
"""Events whose target is the one who logs in."""

_FAILURES = {4625, 4771}
_RESULTS = {4768, 4769, 4776}
"""Events that say in Status whether it went well."""

_NXLOG = {
    "EventTime": "2026-01-31 12:00:00",
    "Hostname": "dc1.example.org",
    "EventType": "AUDIT_FAILURE",
    "EventID": 4625,
    "Channel": "Security",
    "SourceName": "Microsoft-Windows-Security-Auditing",
    "TargetUserName": "alice",
    "IpAddress": "192.0.2.7",
    "IpPort": "50022",
    "LogonType": "3",
    "Message": "An account failed to log on.",
}


def _winlogbeat(event_id: int | str, channel: str, **data: str) -> dict[str, Any]:
    return {"winlog": {"event_id": event_id, "channel": channel, "event_data": data}, "message": "…"}


@event_parser(
    marks=("winlog", "EventID"),
    adds=(
        "action",
        "outcome",
        "username",
        "targetusername",
        "sourceipaddress",
        "sourceport",
        "destinationipaddress",
        "destinationport",
        "protocol",
        "executable",
        "parentexecutable",
        "command",
        "filepath",
        "hash",
        "service",
        "group",
        "logontype",
        "dnsname",
    ),
    # Microsoft's documentation of the events; names of fields as in the events' XML. NXLog puts them at the top, where
    # some have the names of known details already; Winlogbeat under winlog.event_data.
    examples=(
        (
            _NXLOG,
            {
                "action": "login",
                "outcome": "failure",
                "username": "alice",
                "sourceipaddress": "192.0.2.7",
                "sourceport": 50022,
                "logontype": "3",
            },
        ),
        (
            {**_NXLOG, "EventID": 4720, "EventType": "AUDIT_SUCCESS", "SubjectUserName": "root", "IpAddress": "-"},
            {"action": "add_user", "outcome": "success", "username": "root", "sourceport": 50022, "logontype": "3"},
        ),
        (
            _winlogbeat(4624, "Security", TargetUserName="alice", IpAddress="::1", IpPort="0", LogonType="2"),
            {
                "action": "login",
                "outcome": "success",
                "username": "alice",
                "sourceipaddress": "::1",
                "logontype": "2",
            },
        ),
        (
            _winlogbeat(
                "4688",
                "Security",
                SubjectUserName="alice",
                TargetUserName="-",
                NewProcessName="C:\\Windows\\System32\\cmd.exe",
                ParentProcessName="C:\\Windows\\explorer.exe",
                CommandLine="cmd /c whoami",
            ),
            {
                "action": "execute",
                "outcome": "success",
                "username": "alice",
                "executable": "C:\\Windows\\System32\\cmd.exe",
                "parentexecutable": "C:\\Windows\\explorer.exe",
                "command": "cmd /c whoami",
            },
        ),
        (
            _winlogbeat(
                4732, "Security", SubjectUserName="root", MemberName="CN=mallory", TargetUserName="Administrators"
            ),
            {
                "action": "add_to_group",
                "outcome": "success",
                "username": "root",
                "targetusername": "CN=mallory",
                "group": "Administrators",
            },
        ),
        (
            _winlogbeat(4776, "Security", TargetUserName="bob", Status="0xc000006a"),
            {"action": "authenticate", "outcome": "failure", "username": "bob"},
        ),
        (
            _winlogbeat(4697, "Security", SubjectUserName="root", ServiceName="evil", ServiceFileName="C:\\evil.exe"),
            {
                "action": "install_service",
                "outcome": "success",
                "username": "root",
                "service": "evil",
                "executable": "C:\\evil.exe",
            },
        ),
        (
            _winlogbeat(
                3,
                "Microsoft-Windows-Sysmon/Operational",
                User="LAB\\alice",
                Image="C:\\app.exe",
                SourceIp="192.0.2.7",
                SourcePort="50022",
                DestinationIp="198.51.100.2",
                DestinationPort="443",
                Protocol="tcp",
            ),
            {
                "action": "connect",
                "username": "LAB\\alice",
                "executable": "C:\\app.exe",
                "sourceipaddress": "192.0.2.7",
                "sourceport": 50022,
                "destinationipaddress": "198.51.100.2",
                "destinationport": 443,
                "protocol": "tcp",
            },
        ),
        (
            _winlogbeat(
                11,
                "Microsoft-Windows-Sysmon/Operational",
                Image="C:\\app.exe",
                TargetFilename="C:\\x.dll",
                Hashes="MD5=11,SHA256=ABCDEF",
            ),
            {"action": "create_file", "executable": "C:\\app.exe", "filepath": "C:\\x.dll", "hash": "abcdef"},
        ),
        (
            _winlogbeat(22, "Microsoft-Windows-Sysmon/Operational", Image="C:\\app.exe", QueryName="example.org"),
            {"action": "dns_query", "executable": "C:\\app.exe", "dnsname": "example.org"},
        ),
        (
            {"winlog": {"channel": "Security", "event_id": 1102, "user_data": {"SubjectUserName": "bob"}}},
            {"action": "clear_log", "outcome": "success", "username": "bob"},
        ),
        (
            _winlogbeat(7045, "System", ServiceName="evil", ImagePath="C:\\evil.exe -k"),
            {"action": "install_service", "outcome": "success", "service": "evil", "command": "C:\\evil.exe -k"},
        ),
        (
            _winlogbeat(
                4624, "Security", TargetUserName="bob", IpAddress="::ffff:192.0.2.7", IpPort="0", LogonType="10"
            ),
            {
                "action": "login",
                "outcome": "success",
                "username": "bob",
                "sourceipaddress": "192.0.2.7",
                "logontype": "10",
            },
        ),
        (_winlogbeat(7036, "System", param1="Spooler"), {}),
        ({"EventID": 4625, "Message": "of another product"}, {}),
        ({"winlog": "none"}, {}),
    ),
)
def windows(event: Event) -> Fields | None:
    """By channel and number; numbers that are not in the tables are left alone."""
    details = event["details"]
    winlog = details.get("winlog")
    if winlog is None:
        number, channel, data = details.get("EventID"), text_at(details, "Channel"), details
    else:
        number, channel = at(winlog, "event_id"), text_at(winlog, "channel")
        # Of a few events, such as 1102, Windows itself calls the data otherwise.
        data = at(winlog, "event_data") or at(winlog, "user_data")
    if type(number) is str and number.isascii() and number.isdigit() and len(number) < 10:
        number = int(number)
    if type(number) is not int or type(data) is not dict or channel is None:
        return None
    if channel == "Security" and number in _SECURITY:
        return _security(number, data)
    if channel == "Microsoft-Windows-Sysmon/Operational" and number in _SYSMON:
        return _sysmon(number, data)
    if channel == "System" and number == _SERVICE_INSTALLED:
        # With its arguments.
        name, command = text_at(data, "ServiceName"), text_at(data, "ImagePath")
        return {"action": "install_service", "outcome": "success", "service": name, "command": command}
    return None


def _security(number: int, data: Mapping[str, Any]) -> Fields:
    failed = number in _FAILURES or data.get("EventType") == "AUDIT_FAILURE"
    if number in _RESULTS:
        failed = failed or str(data.get("Status", "0x0")).lower() not in ("0x0", "0")
    subject, target = (
        text_at(data, "SubjectUserName"),
        text_at(data, "TargetUserName") or text_at(data, "targetusername"),
    )
    fields: Fields = {
        "action": _SECURITY[number],
        "outcome": "failure" if failed else "success",
        "username": target if number in _LOGINS else subject,
        "targetusername": None if number in _LOGINS else target,
        "sourceipaddress": text_at(data, "IpAddress"),
        "sourceport": None if data.get("IpPort") in ("0", 0) else text_at(data, "IpPort"),
        "executable": text_at(data, "NewProcessName") or text_at(data, "ServiceFileName"),
        "parentexecutable": text_at(data, "ParentProcessName"),
        "command": text_at(data, "CommandLine"),
        "service": text_at(data, "ServiceName") if number == 4697 else None,
        "logontype": text_at(data, "LogonType"),
    }
    if fields["action"] in ("add_to_group", "remove_from_group"):
        fields["group"], fields["targetusername"] = target, text_at(data, "MemberName")
    return fields


def _sysmon(number: int, data: Mapping[str, Any]) -> Fields:
    hashes = dict(part.partition("=")[::2] for part in (text_at(data, "Hashes") or "").split(",")[:8])
    digest = hashes.get("SHA256") or hashes.get("SHA1") or hashes.get("MD5")
    return {
        "action": _SYSMON[number],
        "username": text_at(data, "User"),
        "sourceipaddress": text_at(data, "SourceIp"),
        "sourceport": text_at(data, "SourcePort"),
        "destinationipaddress": text_at(data, "DestinationIp"),
        "destinationport": text_at(data, "DestinationPort"),
        "protocol": text_at(data, "Protocol"),
        "executable": text_at(data, "Image"),
        "parentexecutable": text_at(data, "ParentImage"),
        "command": text_at(data, "CommandLine"),
        "filepath": text_at(data, "TargetFilename"),
        "hash": digest.lower() if digest else None,
        "dnsname": text_at(data, "QueryName"),
    }
