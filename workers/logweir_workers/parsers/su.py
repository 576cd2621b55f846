"""su: who became whom, or tried to."""

from __future__ import annotations

from logweir_workers.parsers import Fields, line_parser


@line_parser(
    processes=("su", "su-l", "runuser"),
    adds=("action", "outcome", "username", "targetusername", "tty"),
    # Forms of util-linux (login-utils/su-common.c), of shadow-utils (src/su.c) and of the BSDs.
    examples=(
        (
            "(to root) alice on pts/0",
            {
                "action": "switch_user",
                "outcome": "success",
                "username": "alice",
                "targetusername": "root",
                "tty": "pts/0",
            },
        ),
        (
            "FAILED SU (to root) alice on pts/0",
            {
                "action": "switch_user",
                "outcome": "failure",
                "username": "alice",
                "targetusername": "root",
                "tty": "pts/0",
            },
        ),
        (
            "(to postgres) root on none",
            {"action": "switch_user", "outcome": "success", "username": "root", "targetusername": "postgres"},
        ),
        (
            "Successful su for root by alice",
            {"action": "switch_user", "outcome": "success", "username": "alice", "targetusername": "root"},
        ),
        (
            "FAILED su for root by alice",
            {"action": "switch_user", "outcome": "failure", "username": "alice", "targetusername": "root"},
        ),
        (
            "+ /dev/pts/0 alice:root",
            {
                "action": "switch_user",
                "outcome": "success",
                "username": "alice",
                "targetusername": "root",
                "tty": "/dev/pts/0",
            },
        ),
        (
            "- /dev/pts/0 alice:root",
            {
                "action": "switch_user",
                "outcome": "failure",
                "username": "alice",
                "targetusername": "root",
                "tty": "/dev/pts/0",
            },
        ),
        (
            "alice to root on /dev/pts/0",
            {
                "action": "switch_user",
                "outcome": "success",
                "username": "alice",
                "targetusername": "root",
                "tty": "/dev/pts/0",
            },
        ),
        (
            "BAD SU alice to root on /dev/pts/0",
            {
                "action": "switch_user",
                "outcome": "failure",
                "username": "alice",
                "targetusername": "root",
                "tty": "/dev/pts/0",
            },
        ),
        ("+ time 12:30", {}),
        ("pam_limits(su:session): unknown limit type", {}),
        ("cannot open session: Permission denied", {}),
        ("We went to town on monday", {}),
    ),
)
def su(line: str) -> Fields | None:
    """Names of users have no blanks here: a line of other words is none of these."""
    words = line.split(" ", 8)
    match words:
        case ["(to", target, user, "on", tty] if target.endswith(")"):
            return _switch("success", user, target[:-1], tty)
        case ["FAILED", "SU", "(to", target, user, "on", tty] if target.endswith(")"):
            return _switch("failure", user, target[:-1], tty)
        case ["Successful", "su", "for", target, "by", user]:
            return _switch("success", user, target)
        case ["FAILED", "su", "for", target, "by", user]:
            return _switch("failure", user, target)
        case [("+" | "-") as sign, tty, users] if ":" in users and tty.startswith(_TTYS):
            user, _, target = users.partition(":")
            return _switch("success" if sign == "+" else "failure", user, target, tty)
        case [user, "to", target, "on", tty] if tty.startswith("/dev/"):
            return _switch("success", user, target, tty)
        case ["BAD", "SU", user, "to", target, "on", tty]:
            return _switch("failure", user, target, tty)
    return None


_TTYS = ("/dev/", "pts/", "tty", "console", "none", "???")
"""How the name of a terminal begins, and what stands for none."""


def _switch(outcome: str, user: str, target: str, tty: str | None = None) -> Fields:
    tty = None if tty in ("none", "???", "(null)") else tty
    return {"action": "switch_user", "outcome": outcome, "username": user, "targetusername": target, "tty": tty}
