"""sudo: who ran what as whom, or was not allowed to."""

from __future__ import annotations

from logweir_workers.parsers import Fields, line_parser

_KEYS = {
    "HOST": "host",
    "TTY": "tty",
    "PWD": "cwd",
    "CWD": "cwd",
    "USER": "targetusername",
    "GROUP": "group",
    "CHROOT": "chroot",
    "TSID": "tsid",
    "ENV": "env",
    "COMMAND": "command",
}
"""The parts of a line in the order in which sudo writes them; of each, what it is called here."""

_KEPT = ("tty", "cwd", "targetusername", "group", "command", "executable")


@line_parser(
    processes=("sudo",),
    adds=("action", "outcome", "username", "targetusername", "command", "executable", "tty", "cwd", "group", "reason"),
    # Forms of sudo's lib/eventlog/eventlog.c.
    examples=(
        (
            "   alice : TTY=pts/0 ; PWD=/home/alice ; USER=root ; COMMAND=/usr/bin/ls -l /root",
            {
                "action": "run_command",
                "outcome": "success",
                "username": "alice",
                "targetusername": "root",
                "command": "/usr/bin/ls -l /root",
                "executable": "/usr/bin/ls",
                "tty": "pts/0",
                "cwd": "/home/alice",
            },
        ),
        (
            "deploy : PWD=/srv ; USER=app ; GROUP=www ; ENV=LANG=C ; COMMAND=/bin/systemctl restart app",
            {
                "action": "run_command",
                "outcome": "success",
                "username": "deploy",
                "targetusername": "app",
                "command": "/bin/systemctl restart app",
                "executable": "/bin/systemctl",
                "cwd": "/srv",
                "group": "www",
            },
        ),
        (
            "bob : user NOT in sudoers ; TTY=pts/1 ; PWD=/home/bob ; USER=root ; COMMAND=/bin/cat /etc/shadow",
            {
                "action": "run_command",
                "outcome": "failure",
                "username": "bob",
                "targetusername": "root",
                "command": "/bin/cat /etc/shadow",
                "executable": "/bin/cat",
                "tty": "pts/1",
                "cwd": "/home/bob",
                "reason": "user NOT in sudoers",
            },
        ),
        (
            "bob : 3 incorrect password attempts ; TTY=pts/1 ; PWD=/srv ; USER=root ; COMMAND=list",
            {
                "action": "run_command",
                "outcome": "failure",
                "username": "bob",
                "targetusername": "root",
                "command": "list",
                "tty": "pts/1",
                "cwd": "/srv",
                "reason": "3 incorrect password attempts",
            },
        ),
        (
            "bob : command not allowed ; TTY=pts/1 ; PWD=/srv ; USER=root ; COMMAND=/usr/sbin/visudo",
            {
                "action": "run_command",
                "outcome": "failure",
                "username": "bob",
                "targetusername": "root",
                "command": "/usr/sbin/visudo",
                "executable": "/usr/sbin/visudo",
                "tty": "pts/1",
                "cwd": "/srv",
                "reason": "command not allowed",
            },
        ),
        (
            "bob : TTY=pts/1 ; PWD=/srv ; USER=root ; COMMAND=/bin/sh -c A=1 ; USER=x make ; echo COMMAND=",
            {
                "action": "run_command",
                "outcome": "success",
                "username": "bob",
                "targetusername": "root",
                "command": "/bin/sh -c A=1 ; USER=x make ; echo COMMAND=",
                "executable": "/bin/sh",
                "tty": "pts/1",
                "cwd": "/srv",
            },
        ),
        # A folder's name may be anything: where a part stands twice, nobody can say which one is true.
        (
            "bob : TTY=pts/1 ; PWD=/tmp/x ; USER=nobody ; COMMAND=/bin/true ; USER=root ; COMMAND=/bin/sh",
            {"action": "run_command", "outcome": "success", "username": "bob", "tty": "pts/1"},
        ),
        ("alice : (command continued) --with --more=words", {}),
        ("unable to resolve host web1: Name or service not known", {}),
        ("alice : problem with defaults entries", {}),
    ),
)
def sudo(line: str) -> Fields | None:
    """``USER : [ERROR ; ]KEY=value ; … ; COMMAND=…``"""
    user, colon, rest = line.lstrip(" ").partition(" : ")
    if not colon or not user or len(user) > 256 or "COMMAND=" not in rest:
        return None
    parts = rest.split(" ; ", 64)
    fields: Fields = {"action": "run_command", "outcome": "success", "username": user}
    if parts[0].partition("=")[0] not in _KEYS:
        fields["outcome"], fields["reason"] = "failure", parts.pop(0)
        if fields["reason"].startswith("(command continued)"):
            return None
    said: Fields = {}
    is_clear = True
    for place, part in enumerate(parts):
        key, equals, value = part.partition("=")
        if not equals or key not in _KEYS:
            return None
        name = _KEYS[key]
        if name == "command":
            # Behind it everything is the command's own.
            rest = " ; ".join(parts[place + 1 :])
            is_clear = is_clear and " ; COMMAND=" not in f" ; {rest}"
            said["command"] = f"{value} ; {rest}" if rest else value
            said["executable"] = value.partition(" ")[0] if value.startswith("/") else None
            break
        is_clear = is_clear and name not in said
        said[name] = value
    for name in _KEPT if is_clear else ("tty",):
        fields[name] = said.get(name)
    return fields
