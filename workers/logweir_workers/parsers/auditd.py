"""auditd: the records of Linux' audit: logins, commands, accounts, files, by the type of the record."""

from __future__ import annotations

import re
from collections.abc import Mapping

from logweir_workers.parsers import VALUE_LENGTH_MAX, Fields, line_parser

_ACTIONS = {
    "ACCT_LOCK": "lock_user",
    "ACCT_UNLOCK": "unlock_user",
    "ADD_GROUP": "add_group",
    "ADD_USER": "add_user",
    "CONFIG_CHANGE": "change_audit_config",
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

_OF_ACCOUNTS = {"ACCT_LOCK", "ACCT_UNLOCK", "ADD_USER", "DEL_USER", "USER_CHAUTHTOK", "USER_MGMT"}
_OF_GROUPS = {"ADD_GROUP", "DEL_GROUP", "GRP_MGMT"}

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

_TYPES = frozenset((*_ACTIONS, *_NUMBERS.values(), "CRED_ACQ", "CRED_DISP", "CRED_REFR", "SOCKADDR"))
"""What journald's text begins with; other records have a head that says that they are records."""

_NO_USERS = frozenset(("(invalid user)", "(unknown user)"))
"""What OpenSSH says of a user that there is not."""

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
        "group",
        "sourceipaddress",
        "destinationipaddress",
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
        (
            "type=USER_LOGIN msg=audit(1700000000.123:430): pid=1 uid=0 auid=1000 ses=5 msg='op=login id=1000 "
            'exe="/usr/sbin/sshd" hostname=h addr=192.0.2.7 terminal=ssh res=success\'\x1dUID="root" AUID="alice" ID="alice"',
            {
                "action": "login",
                "outcome": "success",
                "username": "alice",
                "originaluser": "alice",
                "sourceipaddress": "192.0.2.7",
                "executable": "/usr/sbin/sshd",
                "tty": "ssh",
                "pid": "1",
                "uid": "0",
                "auid": "1000",
                "auditserial": "430",
                "recordtype": "USER_LOGIN",
            },
        ),
        (
            "type=USER_LOGIN msg=audit(1700000000.123:431): pid=1 uid=0 msg='op=login acct=28696E76616C6964207573657229 "
            "addr=192.0.2.7 terminal=ssh res=failed'",
            {
                "action": "login",
                "outcome": "failure",
                "sourceipaddress": "192.0.2.7",
                "tty": "ssh",
                "reason": "invalid user",
                "pid": "1",
                "uid": "0",
                "auditserial": "431",
                "recordtype": "USER_LOGIN",
            },
        ),
        (
            "type=ADD_GROUP msg=audit(1700000000.123:432): pid=1 uid=0 auid=1000 msg='op=add-group acct=\"devs\" res=success'",
            {
                "action": "add_group",
                "outcome": "success",
                "group": "devs",
                "pid": "1",
                "uid": "0",
                "auid": "1000",
                "auditserial": "432",
                "recordtype": "ADD_GROUP",
            },
        ),
        (
            "type=USER_AUTH msg=audit(1700000000.123:433): user pid=3280 uid=0 auid=4294967295 msg='PAM: authentication "
            'acct="root" : exe="/usr/sbin/sshd" (hostname=h, addr=192.0.2.7, terminal=ssh res=failed)\'',
            {
                "action": "authenticate",
                "outcome": "failure",
                "username": "root",
                "sourceipaddress": "192.0.2.7",
                "executable": "/usr/sbin/sshd",
                "tty": "ssh",
                "pid": "3280",
                "uid": "0",
                "auditserial": "433",
                "recordtype": "USER_AUTH",
            },
        ),
        (
            'type=EXECVE msg=audit(1700000000.123:434): argc=2 a0="sh" a1_len=8 a1[0]=61622063 a1[1]="d"',
            {"action": "execute", "command": "sh ab cd", "auditserial": "434", "recordtype": "EXECVE"},
        ),
        (
            "type=NETFILTER_PKT msg=audit(1700000000.123:435): mark=0x1 saddr=192.0.2.7 daddr=192.0.2.1 proto=6",
            {
                "action": "netfilter_pkt",
                "sourceipaddress": "192.0.2.7",
                "destinationipaddress": "192.0.2.1",
                "auditserial": "435",
                "recordtype": "NETFILTER_PKT",
            },
        ),
        # Quotes are looked at: what is inside of them names nothing.
        (
            'type=SYSCALL msg=audit(1700000000.123:436): success=yes pid=1 comm="a exe=b" exe="/bin/a" key=(null)',
            {
                "action": "syscall",
                "outcome": "success",
                "executable": "/bin/a",
                "pid": "1",
                "auditserial": "436",
                "recordtype": "SYSCALL",
            },
        ),
        ("type=EOE msg=audit(1700000000.123:424):", {"action": "eoe", "auditserial": "424", "recordtype": "EOE"}),
        (
            "SYSCALL arch=c000003e syscall=59 success=yes",
            {"action": "syscall", "outcome": "success", "syscall": "59", "recordtype": "SYSCALL"},
        ),
        ("LOGIN failed for alice", {}),
        ("Audit daemon is low on disk space for logging", {}),
        ("Init complete, auditd 3.0.7 listening for events (startup state enable)", {}),
    ),
)
def auditd(line: str) -> Fields | None:
    """``type=TYPE msg=audit(TIME:SERIAL): key=value …``, as auditd, its plugins, the kernel and journald write it."""
    head, found, body = line.partition("):")
    if found and "audit(" in head:
        kind, serial = _kind(head), head.rpartition(":")[2]
    else:
        kind, _, body = line.partition(" ")
        serial = ""
        if kind not in _TYPES:
            return None
    name = kind.partition("[")[0]  # UNKNOWN[1334]: newer than auditd
    if not name.replace("_", "").isalnum() or not (serial.isdigit() or serial == ""):
        return None
    # What stands behind \x1d is auditd's own, with names in place of numbers (log_format = ENRICHED).
    said = dict(_PAIR.findall(f" {body}".replace(" msg='", " ").replace("\x1d", " "))[::-1])
    if not serial and not said:
        return None
    fields: Fields = {"action": _ACTIONS.get(name) or name.lower(), "recordtype": kind}
    if serial:
        fields["auditserial"] = serial
    for key, detail in _NAMES:
        if (value := said.get(key)) is not None and (value := _text(key, value)) is not None:
            fields[detail] = value
    _mend(name, body, said, fields)
    return fields


# A value that has blanks or quotes in it stands in hexadecimal digits, without quotes. The first of a name counts.
_PAIR = re.compile(r""" ([A-Za-z][A-Za-z0-9_[\]-]{0,40}+)=("[^"]*+"|[^ ]*+)""")

Said = Mapping[str, str]


def _value(said: Said, key: str) -> str | None:
    """What the record says of ``key``, as text; None where it is nothing or nobody."""
    value = said.get(key)
    return None if value is None else _text(key, value)


def _text(key: str, value: str) -> str | None:
    if value[:1] == '"':
        return value[1:].rstrip('"') or None
    # Older programs put parentheses around, and commas between.
    if value[-1:] in _ENDS and value[:1] != "(":
        value = value.rstrip("',)")
    if value in _NOBODY:
        return None
    return _decoded(value) if key in _ENCODED else value


_ENDS = frozenset("',)")

_NAMES = (
    ("acct", "username"),
    ("addr", "sourceipaddress"),
    ("AUID", "originaluser"),
    ("exe", "executable"),
    ("cmd", "command"),
    ("proctitle", "command"),
    ("key", "auditkey"),
    ("terminal", "tty"),
    ("SYSCALL", "syscall"),
    ("pid", "pid"),
    ("ppid", "ppid"),
    ("uid", "uid"),
    ("auid", "auid"),
    ("tty", "tty"),
    ("cwd", "cwd"),
    ("unit", "unit"),
    ("reason", "reason"),
)
"""The fields of audit that are kept, and what they are called here."""


def _mend(kind: str, body: str, said: Said, fields: Fields) -> None:
    """Add what depends on the type of the record."""
    if outcome := _outcome(kind, body, said):
        fields["outcome"] = outcome
    if fields.get("username") in _NO_USERS:
        fields["reason"] = fields.pop("username").strip("()")
    added: Fields = {}
    if kind in _OF_GROUPS:
        account = fields.pop("username", None)
        added["group"] = _value(said, "grp") or account
        added["targetusername"] = account if account != added["group"] else None
        added["username"] = _value(said, "UID")
    elif kind in _OF_ACCOUNTS:
        added["targetusername"] = fields.pop("username", None) or _value(said, "ID")
        added["username"], added["group"] = _value(said, "UID"), _value(said, "grp")
    elif kind == "LOGIN":
        added["username"] = _value(said, "AUID")
    elif kind.startswith(("USER_", "CRED_")) and kind != "USER_CMD":
        # Of a program that lets somebody in, UID is the program's own user, and ID the other's.
        added["username"] = fields.get("username") or _value(said, "ID")
    elif "username" not in fields:
        added["username"] = _value(said, "UID")
    if kind == "EXECVE":
        added["command"] = _arguments(said)
    elif kind == "PATH" or (kind == "AVC" and said.get("apparmor") != '"STATUS"'):
        added["filepath"] = _value(said, "name") or _value(said, "path")
    elif kind == "SYSCALL" and "syscall" not in fields:
        added["syscall"] = _value(said, "syscall")
    elif kind == "NETFILTER_PKT":
        added["sourceipaddress"], added["destinationipaddress"] = _value(said, "saddr"), _value(said, "daddr")
    fields.update({name: value for name, value in added.items() if value})


def _outcome(kind: str, body: str, said: Said) -> str | None:
    if kind.endswith("AVC"):
        is_denied = "avc:  denied " in body or said.get("apparmor") == '"DENIED"'
        return "failure" if is_denied and said.get("permissive") != "1" else None
    if kind.startswith("ANOM_"):
        return None
    return _OUTCOMES.get(_value(said, "res") or _value(said, "success") or "")


def _kind(head: str) -> str:
    kind = head.partition("type=")[2].partition(" ")[0]
    return _NUMBERS.get(kind, kind)


_ENCODED = frozenset(("acct", "cmd", "cwd", "exe", "key", "name", "path", "proctitle"))
"""What stands in hexadecimal digits, without quotes, where it has blanks, quotes or control characters."""


def _decoded(value: str) -> str | None:
    if len(value) % 2 or not _HEXADECIMAL.issuperset(value):
        return value
    # A command's arguments have a NUL between them, several keys of rules have \x01.
    text = bytes.fromhex(value).decode(errors="replace").rstrip("\0")
    return text.replace("\0", " ").replace("\x01", " ") or None


def _arguments(said: Said) -> str | None:
    """The arguments behind argc=, in their order, as far as there is room; a long one stands in pieces."""
    arguments: list[str] = []
    size = 0
    while size <= VALUE_LENGTH_MAX and (argument := _argument(said, f"a{len(arguments)}")) is not None:
        arguments.append(argument)
        size += len(argument) + 1
    return " ".join(arguments)[:VALUE_LENGTH_MAX] or None


def _argument(said: Said, name: str) -> str | None:
    if name in said:
        value = said[name].rstrip("'")
        return value.strip('"') if value[:1] == '"' else _decoded(value) or ""
    pieces: list[str] = []
    while (piece := said.get(f"{name}[{len(pieces)}]")) is not None and len(pieces) < VALUE_LENGTH_MAX:
        pieces.append(piece.strip('"') if piece[:1] == '"' else _decoded(piece) or "")
    return "".join(pieces) if pieces else None
