"""pam: what PAM's modules say in the log of whichever program asked them: sessions, failures, changed passwords."""

from __future__ import annotations

from logweir_workers.parsers import Fields, line_parser


@line_parser(
    begins=("pam_", "PAM "),
    adds=("action", "outcome", "username", "targetusername", "sourceipaddress", "service", "reason"),
    # Forms of Linux-PAM's pam_unix, pam_faillock and pam_access, and of SSSD's pam_sss.
    examples=(
        (
            "pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost=192.0.2.7  user=root",
            {
                "action": "authenticate",
                "outcome": "failure",
                "username": "root",
                "sourceipaddress": "192.0.2.7",
                "service": "sshd",
            },
        ),
        (
            "pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost=192.0.2.7",
            {"action": "authenticate", "outcome": "failure", "sourceipaddress": "192.0.2.7", "service": "sshd"},
        ),
        (
            "pam_unix(su:auth): authentication failure; logname=alice uid=1000 euid=0 tty=pts/0 ruser=alice rhost=  user=root",
            {
                "action": "authenticate",
                "outcome": "failure",
                "username": "alice",
                "targetusername": "root",
                "service": "su",
            },
        ),
        (
            "pam_unix(sudo:auth): authentication failure; logname=bob uid=1001 euid=0 tty=/dev/pts/0 ruser=bob rhost=  user=bob",
            {"action": "authenticate", "outcome": "failure", "username": "bob", "service": "sudo"},
        ),
        (
            "pam_sss(sshd:auth): authentication success; logname= uid=0 euid=0 tty=ssh ruser= rhost=192.0.2.7 user=alice",
            {
                "action": "authenticate",
                "outcome": "success",
                "username": "alice",
                "sourceipaddress": "192.0.2.7",
                "service": "sshd",
            },
        ),
        (
            "pam_sss(sshd:auth): received for user alice: 17 (Failure setting user credentials)",
            {
                "action": "authenticate",
                "outcome": "failure",
                "username": "alice",
                "service": "sshd",
                "reason": "Failure setting user credentials",
            },
        ),
        (
            "pam_unix(sshd:auth): check pass; user unknown",
            {"action": "authenticate", "outcome": "failure", "service": "sshd", "reason": "user unknown"},
        ),
        (
            "pam_unix(sshd:session): session opened for user alice(uid=1000) by (uid=0)",
            {"action": "session_open", "username": "alice", "service": "sshd"},
        ),
        (
            "pam_unix(sudo:session): session opened for user root(uid=0) by alice(uid=1000)",
            {"action": "session_open", "username": "alice", "targetusername": "root", "service": "sudo"},
        ),
        (
            "pam_unix(su-l:session): session opened for user root by (uid=1000)",
            {"action": "session_open", "username": "root", "service": "su-l"},
        ),
        (
            "pam_unix(cron:session): session closed for user root",
            {"action": "session_close", "username": "root", "service": "cron"},
        ),
        (
            "pam_unix(passwd:chauthtok): password changed for alice",
            {"action": "change_password", "outcome": "success", "targetusername": "alice", "service": "passwd"},
        ),
        (
            "pam_faillock(sshd:auth): Consecutive login failures for user alice account temporarily locked",
            {
                "action": "lock_user",
                "outcome": "success",
                "targetusername": "alice",
                "service": "sshd",
                "reason": "consecutive login failures",
            },
        ),
        (
            "pam_unix(sshd:account): account bob has expired (account expired)",
            {
                "action": "authenticate",
                "outcome": "failure",
                "username": "bob",
                "service": "sshd",
                "reason": "account expired",
            },
        ),
        (
            "pam_access(sshd:account): access denied for user `bob' from `192.0.2.7'",
            {
                "action": "authenticate",
                "outcome": "failure",
                "username": "bob",
                "sourceipaddress": "192.0.2.7",
                "service": "sshd",
                "reason": "access denied",
            },
        ),
        (
            "pam_sss(sshd:account): Access denied for user bob: 6 (Permission denied)",
            {
                "action": "authenticate",
                "outcome": "failure",
                "username": "bob",
                "service": "sshd",
                "reason": "access denied",
            },
        ),
        (
            "PAM 2 more authentication failures; logname= uid=0 euid=0 tty=ssh ruser= rhost=192.0.2.7  user=root",
            {"action": "authenticate", "outcome": "failure", "username": "root", "sourceipaddress": "192.0.2.7"},
        ),
        ("PAM service(sshd) ignoring max retries; 6 > 3", {}),
        # A mail server's client chooses ruser: what it writes there is never taken for the address.
        (
            "pam_unix(dovecot:auth): authentication failure; logname= uid=0 euid=0 tty=dovecot ruser=x rhost=198.51.100.1 rhost=192.0.2.7",
            {"action": "authenticate", "outcome": "failure", "service": "dovecot"},
        ),
        (
            "pam_unix(dovecot:auth): authentication failure; logname= uid=0 euid=0 tty=dovecot ruser=alice user=root rhost=192.0.2.7",
            {
                "action": "authenticate",
                "outcome": "failure",
                "username": "alice user=root",
                "sourceipaddress": "192.0.2.7",
                "service": "dovecot",
            },
        ),
        ("pam_systemd(sshd:session): Failed to release session: Interrupted system call", {}),
        ("pam_env(sshd:session): deprecated reading of user environment enabled", {}),
        ("pam_unix", {}),
        ("pam_unix(sshd:auth)", {}),
    ),
)
def pam(line: str) -> Fields | None:
    """``MODULE(SERVICE:TYPE): MESSAGE``, by how the message begins; or what a program says of several failures at once."""
    if line.startswith("PAM "):
        _, found, rest = line.partition(" more authentication failure")
        return _failure(rest) if found and line[4:].split(" ", 1)[0].isdigit() else None
    head, found, message = line.partition("): ")
    service, colon, _ = head.partition("(")[2].partition(":")
    if not found or not colon or not service or " " in head:
        return None
    for begin, read in _MESSAGES:
        if message.startswith(begin):
            fields = read(message[len(begin) :])
            return {**fields, "service": service} if fields else None
    return None


def _failure(rest: str) -> Fields:
    return {**_who(rest), "action": "authenticate", "outcome": "failure"}


def _success(rest: str) -> Fields:
    return {**_who(rest), "action": "authenticate", "outcome": "success"}


def _who(rest: str) -> Fields:
    """``logname= uid=0 … ruser=alice rhost=192.0.2.7  user=root``.

    Of mail and FTP servers, clients choose ``ruser``, which may be any text: where a key stands twice, nobody can say
    which one is true. The user stands last, and may be any text, too.
    """
    said, _, behind = rest.partition(" rhost=")
    if said.count(" ruser=") != 1 or " ruser=" in behind or " rhost=" in behind:
        return {}
    asker, (address, _, user) = said.partition(" ruser=")[2], behind.partition(" user=")
    return {
        "username": asker or user,
        "targetusername": user if asker and user != asker else None,
        "sourceipaddress": address.strip(),
    }


def _opened(rest: str) -> Fields:
    user, _, by = rest.rpartition(" by ")
    user, by = _without_uid(user), _without_uid(by)
    # LOGIN is what utmp has before anybody has logged in.
    if by in ("", "LOGIN", user):
        return {"action": "session_open", "username": user}
    return {"action": "session_open", "username": by, "targetusername": user}


def _closed(rest: str) -> Fields:
    return {"action": "session_close", "username": rest}


def _without_uid(name: str) -> str:
    return name.rpartition("(uid=")[0] if name.endswith(")") else name


def _unknown(_rest: str) -> Fields:
    return {"action": "authenticate", "outcome": "failure", "reason": "user unknown"}


def _changed(rest: str) -> Fields:
    return {"action": "change_password", "outcome": "success", "targetusername": rest}


def _locked(rest: str) -> Fields | None:
    user, found, _ = rest.rpartition(" account temporarily locked")
    return {
        "action": "lock_user",
        "outcome": "success",
        "targetusername": user if found else None,
        "reason": "consecutive login failures",
    }


def _received(rest: str) -> Fields | None:
    user, found, reason = rest.rpartition(": ")
    code, _, words = reason.partition(" (")
    if not found or not code.isdigit():
        return None
    return {"action": "authenticate", "outcome": "failure", "username": user, "reason": words.rstrip(")")}


def _refused(rest: str) -> Fields | None:
    fields = _received(rest)
    return {**fields, "reason": "access denied"} if fields else None


def _expired(rest: str) -> Fields | None:
    user, found, _ = rest.rpartition(" has expired (")
    return (
        {"action": "authenticate", "outcome": "failure", "username": user, "reason": "account expired"}
        if found
        else None
    )


def _denied(rest: str) -> Fields | None:
    user, found, place = rest.rpartition("' from `")
    if not found:
        return None
    return {
        "action": "authenticate",
        "outcome": "failure",
        "username": user,
        "sourceipaddress": place.rstrip("'"),
        "reason": "access denied",
    }


_MESSAGES = (
    ("authentication failure;", _failure),
    ("session opened for user ", _opened),
    ("session closed for user ", _closed),
    ("authentication success;", _success),
    ("check pass; user unknown", _unknown),
    ("password changed for ", _changed),
    ("received for user ", _received),
    ("Access denied for user ", _refused),
    ("Consecutive login failures for user ", _locked),
    ("account ", _expired),
    ("access denied for user `", _denied),
)
