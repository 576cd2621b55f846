"""auditd: the records of Linux' audit: logins, commands, accounts, files, by the type of the record."""

from __future__ import annotations

import re

from logweir_workers.parsers import VALUE_LENGTH_MAX, Fields, line_parser

_ACTIONS = {
    "ACCT_LOCK": "lock_user",
    "ACCT_UNLOCK": "unlock_user",
    "ADD_GROUP": "add_group",
    "ADD_USER": "add_user",
    "CONFIG_CHANGE": "change_audit_rules",
    "DEL_GROUP": "delete_group",
    "DEL_USER": "delete_user",
    "EXECVE": "execute",
    "GRP_MGMT": "change_group",
    "LOGIN": "set_loginuid",  # also of a job that the clock starts
    "SERVICE_START": "start_service",
    "SERVICE_STOP": "stop_service",
    "USER_ACCT": "authorize",
    "USER_AUTH": "authenticate",
    "USER_CHAUTHTOK": "change_password",
    "USER_CMD": "run_command",
    "USER_END": "session_close",
    "USER_LOGIN": "login",
    "USER_LOGOUT": "logout",
    "USER_MGMT": "change_user",
    "USER_START": "session_open",
}
"""By record type; the action of another type is its own name in lower case."""

_OF_ACCOUNTS = {"ACCT_LOCK", "ACCT_UNLOCK", "ADD_USER", "DEL_USER", "USER_CHAUTHTOK", "USER_MGMT", "GRP_MGMT"}

_NUMBERS = {
    "1100": "USER_AUTH",
    "1101": "USER_ACCT",
    "1105": "USER_START",
    "1106": "USER_END",
    "1112": "USER_LOGIN",
    "1130": "SERVICE_START",
    "1131": "SERVICE_STOP",
    "1300": "SYSCALL",
    "1302": "PATH",
    "1305": "CONFIG_CHANGE",
    "1307": "CWD",
    "1309": "EXECVE",
    "1326": "SECCOMP",
    "1327": "PROCTITLE",
    "1400": "AVC",
    "1701": "ANOM_ABEND",
}
"""The numbers that the kernel's own log has in place of a type (linux/audit.h)."""

_OUTCOMES = {
    "success": "success",
    "yes": "success",
    "1": "success",
    "failed": "failure",
    "no": "failure",
    "0": "failure",
}
_HEXADECIMAL = frozenset("0123456789ABCDEF")
_NOBODY = frozenset(("4294967295", "-1", "unset", "(null)", "(none)", "(unknown)", "?", ""))


@line_parser(
    processes=("audit", "auditd", "audispd", "kauditd", "audisp-syslog"),
    begins=("type=", "node=", "audit: type="),
    adds=(
        "action",
        "outcome",
        "username",
        "originaluser",
        "targetusername",
        "sourceipaddress",
        "executable",
        "command",
        "filepath",
        "auditkey",
        "auditserial",
        "recordtype",
        "pid",
        "ppid",
        "uid",
        "auid",
        "tty",
        "cwd",
        "unit",
        "reason",
        "syscall",
    ),
    # Forms of the kernel's and audit-userspace's records; the names of fields are those of its field dictionary.
    examples=(
        (
            "type=USER_LOGIN msg=audit(1700000000.123:421): pid=1298 uid=0 auid=4294967295 ses=4294967295 msg='op=login "
            'acct="root" exe="/usr/sbin/sshd" hostname=? addr=192.0.2.7 terminal=ssh res=failed\'',
            {
                "action": "login",
                "outcome": "failure",
                "username": "root",
                "sourceipaddress": "192.0.2.7",
                "executable": "/usr/sbin/sshd",
                "tty": "ssh",
                "pid": "1298",
                "uid": "0",
                "auditserial": "421",
                "recordtype": "USER_LOGIN",
            },
        ),
        (
            'type=USER_CMD msg=audit(1700000000.123:422): pid=4151 uid=1000 auid=1000 ses=3 msg=\'cwd="/home/alice" '
            'cmd=6C73202D6C202F726F6F74 exe="/usr/bin/sudo" terminal=pts/0 res=success\'\x1dUID="alice" AUID="alice"',
            {
                "action": "run_command",
                "outcome": "success",
                "username": "alice",
                "originaluser": "alice",
                "command": "ls -l /root",
                "executable": "/usr/bin/sudo",
                "cwd": "/home/alice",
                "tty": "pts/0",
                "pid": "4151",
                "uid": "1000",
                "auid": "1000",
                "auditserial": "422",
                "recordtype": "USER_CMD",
            },
        ),
        (
            "type=SYSCALL msg=audit(1700000000.123:423): arch=c000003e syscall=257 success=no exit=-13 a0=ffffff9c items=1 "
            'ppid=2686 pid=3538 auid=1000 uid=1001 gid=1001 tty=pts0 ses=1 comm="cat" exe="/usr/bin/cat" key="shadow"'
            '\x1dARCH=x86_64 SYSCALL=openat AUID="alice" UID="bob" GID="bob"',
            {
                "action": "syscall",
                "outcome": "failure",
                "username": "bob",
                "originaluser": "alice",
                "executable": "/usr/bin/cat",
                "auditkey": "shadow",
                "syscall": "openat",
                "tty": "pts0",
                "pid": "3538",
                "ppid": "2686",
                "uid": "1001",
                "auid": "1000",
                "auditserial": "423",
                "recordtype": "SYSCALL",
            },
        ),
        (
            'type=EXECVE msg=audit(1700000000.123:424): argc=3 a0="cat" a1="-n" a2=2F746D702F6120622E747874',
            {"action": "execute", "command": "cat -n /tmp/a b.txt", "auditserial": "424", "recordtype": "EXECVE"},
        ),
        (
            'type=PATH msg=audit(1700000000.123:424): item=0 name="/etc/shadow" inode=17 dev=08:01 mode=0100640 nametype=NORMAL',
            {"action": "path", "filepath": "/etc/shadow", "auditserial": "424", "recordtype": "PATH"},
        ),
        (
            "type=PROCTITLE msg=audit(1700000000.123:424): proctitle=636174002D6E002F746D702F61",
            {"action": "proctitle", "command": "cat -n /tmp/a", "auditserial": "424", "recordtype": "PROCTITLE"},
        ),
        (
            "node=web1 type=ADD_USER msg=audit(1700000000.123:425): pid=1264 uid=0 auid=1000 ses=3 "
            'msg=\'op=add-user acct="mallory" exe="/usr/sbin/useradd" hostname=? addr=? terminal=pts/0 res=success\'',
            {
                "action": "add_user",
                "outcome": "success",
                "targetusername": "mallory",
                "executable": "/usr/sbin/useradd",
                "tty": "pts/0",
                "pid": "1264",
                "uid": "0",
                "auid": "1000",
                "auditserial": "425",
                "recordtype": "ADD_USER",
            },
        ),
        (
            'audit: type=1400 audit(1700000000.123:426): apparmor="DENIED" operation="open" profile="/usr/sbin/cupsd" '
            'name="/etc/shadow" pid=77 comm="cupsd" requested_mask="r" denied_mask="r"',
            {
                "action": "avc",
                "outcome": "failure",
                "filepath": "/etc/shadow",
                "pid": "77",
                "auditserial": "426",
                "recordtype": "AVC",
            },
        ),
        (
            'type=AVC msg=audit(1700000000.123:427): avc:  denied  { read } for  pid=77 comm="httpd" name="shadow" '
            'dev="sda1" ino=17 scontext=system_u:system_r:httpd_t:s0 tclass=file permissive=0',
            {
                "action": "avc",
                "outcome": "failure",
                "filepath": "shadow",
                "pid": "77",
                "auditserial": "427",
                "recordtype": "AVC",
            },
        ),
        (
            "type=SERVICE_STOP msg=audit(1700000000.123:428): pid=1 uid=0 auid=4294967295 ses=4294967295 msg='unit=auditd "
            'comm="systemd" exe="/usr/lib/systemd/systemd" hostname=? addr=? terminal=? res=success\'',
            {
                "action": "stop_service",
                "outcome": "success",
                "executable": "/usr/lib/systemd/systemd",
                "unit": "auditd",
                "pid": "1",
                "uid": "0",
                "auditserial": "428",
                "recordtype": "SERVICE_STOP",
            },
        ),
        (
            "type=ANOM_ABEND msg=audit(1700000000.123:429): auid=1000 uid=1000 gid=1000 ses=3 pid=77 "
            'comm="app" exe="/srv/app" reason="memory violation" sig=11 res=1',
            {
                "action": "anom_abend",
                "executable": "/srv/app",
                "reason": "memory violation",
                "pid": "77",
                "uid": "1000",
                "auid": "1000",
                "auditserial": "429",
                "recordtype": "ANOM_ABEND",
            },
        ),
        # As journald keeps them: without the head.
        (
            'USER_AUTH pid=28281 uid=0 auid=700 ses=6793 msg=\'op=PAM:authentication acct="alice" exe="/usr/bin/su" '
            "hostname=? addr=? terminal=pts/0 res=success'",
            {
                "action": "authenticate",
                "outcome": "success",
                "username": "alice",
                "executable": "/usr/bin/su",
                "tty": "pts/0",
                "pid": "28281",
                "uid": "0",
                "auid": "700",
                "recordtype": "USER_AUTH",
            },
        ),
        ("Audit daemon is low on disk space for logging", {}),
        ("Init complete, auditd 3.0.7 listening for events (startup state enable)", {}),
    ),
)
def auditd(line: str) -> Fields | None:
    """``type=TYPE msg=audit(TIME:SERIAL): key=value …``, as auditd, its plugins, the kernel and journald write it."""
    head, found, body = line.partition("): ")
    if found and "audit(" in head:
        kind, serial = _kind(head), head.rpartition(":")[2]
    elif line.partition(" ")[0].isupper() and " msg='" in line:
        kind, _, body = line.partition(" ")
        serial = ""
    else:
        return None
    if kind is None or not kind.replace("_", "").isalnum() or not (serial.isdigit() or serial == ""):
        return None
    # What stands behind \x1d is auditd's own, with names in place of numbers (log_format = ENRICHED).
    body = f" {body}".replace(" msg='", " ").replace("\x1d", " ")
    fields: Fields = {"action": _ACTIONS.get(kind) or kind.lower(), "recordtype": kind}
    if serial:
        fields["auditserial"] = serial
    for key, name in _NAMES:
        if key in body and (value := _value(body, key)) is not None:
            fields[name] = value
    _mend(kind, body, fields)
    return fields


def _value(body: str, key: str) -> str | None:
    """What stands behind the first ``key``, as text; None where it is nothing or nobody."""
    begin = body.find(key)
    if begin < 0:
        return None
    begin += len(key)
    if body.startswith('"', begin):
        # What has blanks or quotes in it stands in hexadecimal digits: no value has a quote inside.
        return body[begin + 1 :].partition('"')[0] or None
    end = body.find(" ", begin)
    value = (body[begin:] if end < 0 else body[begin:end]).rstrip("'")
    if value in _NOBODY:
        return None
    return _decoded(value) if key in _ENCODED else value


_NAMES = (
    (" acct=", "username"),
    (" addr=", "sourceipaddress"),
    (" AUID=", "originaluser"),
    (" exe=", "executable"),
    (" cmd=", "command"),
    (" proctitle=", "command"),
    (" key=", "auditkey"),
    (" terminal=", "tty"),
    (" SYSCALL=", "syscall"),
    (" pid=", "pid"),
    (" ppid=", "ppid"),
    (" uid=", "uid"),
    (" auid=", "auid"),
    (" tty=", "tty"),
    (" cwd=", "cwd"),
    (" unit=", "unit"),
    (" reason=", "reason"),
)
"""The fields of audit that are kept, and what they are called here."""


def _mend(kind: str, body: str, fields: Fields) -> None:
    """Add what depends on the type of the record."""
    if kind == "AVC":
        outcome = "failure" if _is_denied(body) else None
    elif kind.startswith("ANOM_"):
        outcome = None
    else:
        outcome = _OUTCOMES.get(_value(body, " res=") or _value(body, " success=") or "")
    if outcome is not None:
        fields["outcome"] = outcome
    if kind in _OF_ACCOUNTS and "username" in fields:
        fields["targetusername"] = fields.pop("username")
    added: Fields = {}
    if "username" not in fields:
        added["username"] = _value(body, " UID=")
    if kind == "EXECVE":
        added["command"] = _arguments(body)
    elif kind in ("PATH", "AVC"):
        added["filepath"] = _value(body, " name=")
    elif kind == "SYSCALL" and "syscall" not in fields:
        added["syscall"] = _value(body, " syscall=")
    fields.update({name: value for name, value in added.items() if value})


def _is_denied(body: str) -> bool:
    return " permissive=1" not in body and ("denied" in body[:40] or ' apparmor="DENIED"' in body)


def _kind(head: str) -> str | None:
    kind = head.partition("type=")[2].partition(" ")[0]
    return _NUMBERS.get(kind) if kind.isdigit() else kind


_ENCODED = frozenset((" acct=", " cmd=", " cwd=", " exe=", " key=", " name=", " proctitle="))
"""What stands in hexadecimal digits, without quotes, where it has blanks, quotes or control characters."""


def _decoded(value: str) -> str | None:
    if len(value) % 2 or not _HEXADECIMAL.issuperset(value):
        return value
    # A command's arguments have a NUL between them.
    return bytes.fromhex(value).decode(errors="replace").rstrip("\0").replace("\0", " ") or None


def _arguments(body: str) -> str | None:
    """The arguments behind argc=, in their order, as far as there is room."""
    arguments: list[str] = []
    size = 0
    for name, value in _ARGUMENT.findall(body, body.find(" argc=") + 1):
        if name != str(len(arguments)) or size > VALUE_LENGTH_MAX:
            break
        arguments.append(value[1:-1] if value[0] == '"' else _decoded(value) or "")
        size += len(value) + 1
    return " ".join(arguments)[:VALUE_LENGTH_MAX] or None


_ARGUMENT = re.compile(r"""(?<= )a([0-9]{1,5}+)=("[^"]*+"|[^\s']++)""")
