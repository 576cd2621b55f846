"""systemd_logind: sessions that began and ended, and who turned the machine off."""

from __future__ import annotations

from logweir_workers.parsers import Fields, line_parser

_SYSTEM = {
    "System is powering down": "shutdown",
    "System is powering off": "shutdown",
    "System is rebooting": "reboot",
    "System is halting": "shutdown",
    "System is suspending": "suspend",
}


@line_parser(
    processes=("systemd-logind", "elogind"),
    adds=("action", "username", "sessionid"),
    # Forms of systemd's src/login/; since version 256 names stand in quotes.
    examples=(
        ("New session 12 of user alice.", {"action": "session_open", "username": "alice", "sessionid": "12"}),
        ("New session c3 of user gdm.", {"action": "session_open", "username": "gdm", "sessionid": "c3"}),
        (
            "New session '12' of user 'alice' with class 'user' and type 'tty'.",
            {"action": "session_open", "username": "alice", "sessionid": "12"},
        ),
        ("Session 12 logged out. Waiting for processes to exit.", {"action": "logout", "sessionid": "12"}),
        ("Removed session 12.", {"action": "session_close", "sessionid": "12"}),
        ("Removed session '12'.", {"action": "session_close", "sessionid": "12"}),
        ("System is rebooting.", {"action": "reboot"}),
        ("System is powering down (kernel update).", {"action": "shutdown"}),
        ("New seat seat0.", {}),
        ("Watching system buttons on /dev/input/event0 (Power Button)", {}),
        ("New session of talks", {}),
    ),
)
def systemd_logind(line: str) -> Fields | None:
    """By the first words; a line has at most nine."""
    match line.split(" ", 12):
        case ["New", "session", session, "of", "user", user, *_]:
            return {"action": "session_open", "username": user.rstrip(".").strip("'"), "sessionid": session.strip("'")}
        case ["Session", session, "logged", "out.", *_]:
            return {"action": "logout", "sessionid": session.strip("'")}
        case ["Removed", "session", session]:
            return {"action": "session_close", "sessionid": session.rstrip(".").strip("'")}
    action = _SYSTEM.get(line.partition(" (")[0].rstrip("."))
    return {"action": action} if action else None
