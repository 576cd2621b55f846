"""Events as logweir has them, under the names of fields and of log sources that Sigma's rules have."""

from __future__ import annotations

from typing import Any

import pytest

from logweir_workers.alerts.sigma.view import fits
from tests.workers.alerts.sigma.helpers import seen

NXLOG = {"Hostname": "pc1.example.org", "SourceName": "x"}
SYSMON = {**NXLOG, "Channel": "Microsoft-Windows-Sysmon/Operational"}
PROCESS = {**SYSMON, "EventID": 1, "Image": r"C:\a\cmd.exe", "CommandLine": "cmd /c x", "ParentImage": r"C:\b.exe"}
LOGIN: dict[str, Any] = {
    "winlog": {
        "event_id": 4625,
        "channel": "Security",
        "provider_name": "Microsoft-Windows-Security-Auditing",
        "event_data": {"TargetUserName": "bob", "SubjectUserName": "SYSTEM", "LogonType": "3"},
    },
    "message": "An account failed to log on.",
}
NEW_PROCESS: dict[str, Any] = {
    "winlog": {
        "event_id": "4688",
        "channel": "Security",
        "provider_name": "x",
        "event_data": {"NewProcessName": r"C:\a\cmd.exe", "ParentProcessName": r"C:\b.exe", "CommandLine": "cmd /c x"},
    }
}
ADDED: dict[str, Any] = {
    "winlog": {
        "event_id": 4732,
        "channel": "Security",
        "provider_name": "x",
        "event_data": {"TargetUserName": "Administrators", "MemberName": "CN=mallory"},
    }
}
SSHD = {"processname": "sshd", "hostname": "a", "summary": "Failed password for root from 192.0.2.7 port 22 ssh2"}
EXECVE = {"summary": 'type=EXECVE msg=audit(1700000000.123:424): argc=3 a0="cat" a1="-n" a2=2F746D702F6120622E747874'}
SYSCALL = {
    "summary": "type=SYSCALL msg=audit(1700000000.123:423): arch=c000003e syscall=257 success=no "
    'comm="cat" exe="/usr/bin/cat" key="shadow"\x1dARCH=x86_64 SYSCALL=openat'
}
AUDISP = {
    "category": "EXECVE",
    "processname": "audisp-json",
    "summary": "Execve: nc -e sh",
    "details": {"process": "/bin/nc"},
}
SUDO = {"processname": "sudo", "summary": "ann : TTY=pts/0 ; PWD=/home/ann ; USER=root ; COMMAND=/bin/cat /etc/shadow"}
WEB = {
    "processname": "nginx",
    "summary": '192.0.2.7 - - [31/Jan/2026:12:00:00 +0000] "GET /a.php?x=1 HTTP/1.1" 404 12 "-" "sqlmap/1.0"',
}
SQUID = {
    "processname": "squid",
    "summary": "1769860800.123    87 192.0.2.7 TCP_MISS/200 1234 GET http://example.org/x.hta?y=1 ann "
    "HIER_DIRECT/198.51.100.1 -",
}
NAMED = {
    "processname": "named",
    "summary": "client 192.0.2.7#53124 (example.org): query: example.org IN TXT + (198.51.100.53)",
}
CLOUDTRAIL = {
    "eventVersion": "1.08",
    "eventSource": "cloudtrail.amazonaws.com",
    "eventName": "StopLogging",
    "userIdentity": {"type": "Root"},
    "sourceIPAddress": "192.0.2.7",
}
OKTA = {
    "eventType": "user.session.start",
    "legacyEventType": "core.login",
    "debugContext": {},
    "actor": {"alternateId": "ann"},
    "outcome": {"result": "FAILURE"},
}
KUBERNETES = {
    "kind": "Event",
    "auditID": "1",
    "verb": "create",
    "requestURI": "/api",
    "objectRef": {"resource": "pods", "subresource": "exec"},
    "user": {"username": "ann"},
}
GITHUB = {"_document_id": "x", "action": "repo.create", "actor": "ann"}
AZURE = {"operationName": "Add user", "category": "AuditLogs", "properties": {"message": "x"}}
GOOGLE = {"protoPayload": {"methodName": "v1.compute.instances.delete", "serviceName": "compute.googleapis.com"}}
CISCO = {"details": {"devicevendor": "Cisco", "msg": "x"}}


@pytest.mark.parametrize(
    ("event", "logsource"),
    [
        (PROCESS, ("process_creation", "windows", "")),
        (PROCESS, ("", "windows", "sysmon")),
        (NEW_PROCESS, ("process_creation", "windows", "")),
        (LOGIN, ("", "windows", "security")),
        ({**SYSMON, "EventID": 13, "EventType": "SetValue"}, ("registry_set", "windows", "")),
        ({**SYSMON, "EventID": 12, "EventType": "DeleteKey"}, ("registry_delete", "windows", "")),
        (
            {**NXLOG, "EventID": 4104, "Channel": "Microsoft-Windows-PowerShell/Operational"},
            ("ps_script", "windows", ""),
        ),
        (
            {**NXLOG, "EventID": 1116, "Channel": "Microsoft-Windows-Windows Defender/Operational"},
            ("", "windows", "windefend"),
        ),
        (SSHD, ("", "linux", "sshd")),
        (SSHD, ("", "linux", "auth")),
        (SSHD, ("", "linux", "")),
        (EXECVE, ("", "linux", "auditd")),
        (AUDISP, ("process_creation", "linux", "")),
        (SUDO, ("process_creation", "linux", "")),
        (SUDO, ("", "linux", "sudo")),
        ({"processname": "crond", "summary": "x"}, ("", "linux", "cron")),
        ({**AUDISP, "details": {"process": "/bin/nc", "os": "macos"}}, ("process_creation", "macos", "")),
        (WEB, ("webserver", "", "")),
        (WEB, ("", "", "nginx")),
        (SQUID, ("proxy", "", "")),
        (NAMED, ("dns", "", "")),
        (CLOUDTRAIL, ("", "aws", "cloudtrail")),
        (OKTA, ("", "okta", "okta")),
        (KUBERNETES, ("application", "kubernetes", "audit")),
        (GITHUB, ("", "github", "audit")),
        (AZURE, ("", "azure", "auditlogs")),
        (GOOGLE, ("", "gcp", "gcp.audit")),
        (CISCO, ("", "cisco", "aaa")),
        ({"processname": "java", "summary": "x"}, ("application", "jvm", "")),
        ({"source": "django.request", "summary": "x"}, ("application", "django", "")),
        ({"summary": "x", "details": {"logsource": {"product": "Zeek", "service": "RDP"}}}, ("", "zeek", "rdp")),
    ],
)
def test_an_event_is_of_the_log_source(event: dict[str, Any], logsource: tuple[str, str, str]) -> None:
    """Whoever sent it, as far as the parsers go; what they do not know, the sender can say."""
    assert fits(seen(event).sigma.sources, logsource)


@pytest.mark.parametrize(
    ("event", "logsource"),
    [
        (PROCESS, ("image_load", "windows", "")),
        (PROCESS, ("process_creation", "linux", "")),
        (LOGIN, ("process_creation", "windows", "")),
        ({**SYSMON, "EventID": 12, "EventType": "DeleteKey"}, ("registry_add", "windows", "")),
        ({**NXLOG, "EventID": 1, "Channel": "System"}, ("process_creation", "windows", "")),
        (SSHD, ("", "linux", "cron")),
        (SSHD, ("process_creation", "linux", "")),
        (SSHD, ("", "zeek", "rdp")),
        (WEB, ("proxy", "", "")),
        (SQUID, ("webserver", "", "")),
        (CLOUDTRAIL, ("", "linux", "")),
        (AZURE, ("", "aws", "cloudtrail")),
        ({"summary": "x"}, ("", "linux", "")),
        ({"EventID": 4625, "summary": "of another product"}, ("", "windows", "")),
    ],
)
def test_an_event_is_not_of_the_log_source(event: dict[str, Any], logsource: tuple[str, str, str]) -> None:
    """Rules for another log source must not see it."""
    assert not fits(seen(event).sigma.sources, logsource)


@pytest.mark.parametrize(
    ("event", "field", "values"),
    [
        (PROCESS, "Image", [r"C:\a\cmd.exe"]),
        (PROCESS, "image", [r"C:\a\cmd.exe"]),
        (PROCESS, "CommandLine", ["cmd /c x"]),
        (PROCESS, "ParentImage", [r"C:\b.exe"]),
        (PROCESS, "EventID", ["1"]),
        (PROCESS, "Computer", ["pc1"]),
        (PROCESS, "Provider_Name", ["x"]),
        (NEW_PROCESS, "Image", [r"C:\a\cmd.exe"]),
        (NEW_PROCESS, "ParentImage", [r"C:\b.exe"]),
        (NEW_PROCESS, "EventID", ["4688"]),
        (LOGIN, "TargetUserName", ["bob"]),
        (LOGIN, "SubjectUserName", ["SYSTEM"]),
        (LOGIN, "Message", ["An account failed to log on."]),
        (ADDED, "TargetUserName", ["Administrators"]),
        (ADDED, "MemberName", ["CN=mallory"]),
        (EXECVE, "type", ["EXECVE"]),
        (EXECVE, "a0", ["cat"]),
        (EXECVE, "a2", ["/tmp/a b.txt"]),
        (EXECVE, "a9", []),
        (SYSCALL, "SYSCALL", ["openat"]),
        (SYSCALL, "comm", ["cat"]),
        (SYSCALL, "exe", ["/usr/bin/cat"]),
        (SYSCALL, "key", ["shadow"]),
        (AUDISP, "Image", ["/bin/nc"]),
        (AUDISP, "CommandLine", ["nc -e sh"]),
        ({"processname": "nc", "summary": "x"}, "Image", ["/nc"]),
        (SUDO, "Image", ["/bin/cat"]),
        (SUDO, "User", ["ann"]),
        (WEB, "cs-method", ["GET"]),
        (WEB, "cs-uri-query", ["/a.php?x=1"]),
        (WEB, "cs-uri-stem", ["/a.php"]),
        (WEB, "c-uri-extension", ["php"]),
        (WEB, "sc-status", ["404"]),
        (WEB, "cs-user-agent", ["sqlmap/1.0"]),
        (SQUID, "c-uri", ["http://example.org/x.hta?y=1"]),
        (SQUID, "cs-host", ["example.org"]),
        (NAMED, "query", ["example.org"]),
        (NAMED, "record_type", ["TXT"]),
        (CLOUDTRAIL, "eventName", ["StopLogging"]),
        (CLOUDTRAIL, "userIdentity.type", ["Root"]),
        (CLOUDTRAIL, "sourceIPAddress", ["192.0.2.7"]),
        (OKTA, "outcome.result", ["FAILURE"]),
        (KUBERNETES, "objectRef.subresource", ["exec"]),
        (AZURE, "properties.message", ["x"]),
        (AZURE, "Category", ["AuditLogs"]),
        (GOOGLE, "gcp.audit.method_name", ["v1.compute.instances.delete"]),
        (SSHD, "nothing", []),
    ],
)
def test_a_field_is_found_under_its_name_in_sigma(event: dict[str, Any], field: str, values: list[str]) -> None:
    """What logweir or a parser calls otherwise, too."""
    assert seen(event).sigma.raw[field] == values


def test_long_values_are_looked_at_whole() -> None:
    """Searches leave out what is longer than 8,000 characters; a PowerShell script may well be."""
    assert (
        seen({"details": {"ScriptBlockText": "x" * 20_000 + "evil"}}).sigma.low["ScriptBlockText"][0].endswith("evil")
    )


def test_words_are_looked_for_in_what_the_sender_said_and_not_in_what_we_add() -> None:
    """A rule for the word error must not be for all that has that severity."""
    words = seen({"summary": "Said so", "severity": "ERROR", "details": {"a": ["One", {"b": "Two"}]}}).sigma.all_low

    assert [word in words for word in ("said so", "one", "two", "error")] == [True, True, True, False]
