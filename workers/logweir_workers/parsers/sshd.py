"""sshd: who logged in or tried to, from where, and how it ended."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from logweir_workers.parsers import Fields, line_parser
from logweir_workers.parsers._text import peer_of


@line_parser(
    processes=("sshd", "sshd-session", "sshd-auth"),
    adds=(
        "action",
        "outcome",
        "username",
        "sourceipaddress",
        "sourceport",
        "destinationipaddress",
        "destinationport",
        "protocol",
        "authmethod",
        "fingerprint",
        "reason",
    ),
    # The forms are those of OpenSSH's auth.c, session.c and packet.c, 5.3 to 10.0.
    examples=(
        (
            "Failed password for root from 192.0.2.7 port 4242 ssh2",
            {
                "action": "login",
                "outcome": "failure",
                "username": "root",
                "sourceipaddress": "192.0.2.7",
                "sourceport": 4242,
                "protocol": "ssh2",
                "authmethod": "password",
            },
        ),
        (
            "Failed password for invalid user admin from 2001:db8::7 port 50022 ssh2",
            {
                "action": "login",
                "outcome": "failure",
                "username": "admin",
                "sourceipaddress": "2001:db8::7",
                "sourceport": 50022,
                "protocol": "ssh2",
                "authmethod": "password",
                "reason": "invalid user",
            },
        ),
        (
            "Accepted publickey for alice from 192.0.2.7 port 50022 ssh2: ED25519 SHA256:k3Yx0q5lq8mJc1ZqW1u7",
            {
                "action": "login",
                "outcome": "success",
                "username": "alice",
                "sourceipaddress": "192.0.2.7",
                "sourceport": 50022,
                "protocol": "ssh2",
                "authmethod": "publickey",
                "fingerprint": "SHA256:k3Yx0q5lq8mJc1ZqW1u7",
            },
        ),
        (
            "Accepted publickey for alice from 192.0.2.7 port 50022 ssh2: RSA 39:33:99:e9:a0:dc:f2:33:a3:e5:72:3b:7c:3a:56:84",
            {
                "action": "login",
                "outcome": "success",
                "username": "alice",
                "sourceipaddress": "192.0.2.7",
                "sourceport": 50022,
                "protocol": "ssh2",
                "authmethod": "publickey",
                "fingerprint": "39:33:99:e9:a0:dc:f2:33:a3:e5:72:3b:7c:3a:56:84",
            },
        ),
        (
            "Accepted keyboard-interactive/pam for bob from ::ffff:192.0.2.9 port 1 ssh2",
            {
                "action": "login",
                "outcome": "success",
                "username": "bob",
                "sourceipaddress": "192.0.2.9",
                "sourceport": 1,
                "protocol": "ssh2",
                "authmethod": "keyboard-interactive/pam",
            },
        ),
        (
            "Accepted password for alice from client.example.org port 50022 ssh2",  # UseDNS yes
            {
                "action": "login",
                "outcome": "success",
                "username": "alice",
                "sourceport": 50022,
                "protocol": "ssh2",
                "authmethod": "password",
            },
        ),
        (
            "Postponed publickey for alice from 192.0.2.7 port 50022 ssh2 [preauth]",
            {
                "action": "login",
                "username": "alice",
                "sourceipaddress": "192.0.2.7",
                "sourceport": 50022,
                "protocol": "ssh2",
                "authmethod": "publickey",
            },
        ),
        # A client chooses the name: what it writes there is never taken for the address.
        (
            "Failed password for invalid user root from 198.51.100.1 port 22 ssh2 from 192.0.2.7 port 4242 ssh2",
            {
                "action": "login",
                "outcome": "failure",
                "username": "root from 198.51.100.1 port 22 ssh2",
                "sourceipaddress": "192.0.2.7",
                "sourceport": 4242,
                "protocol": "ssh2",
                "authmethod": "password",
                "reason": "invalid user",
            },
        ),
        (
            "Invalid user admin from 192.0.2.7 port 4242",
            {
                "action": "invalid_user",
                "outcome": "failure",
                "username": "admin",
                "sourceipaddress": "192.0.2.7",
                "sourceport": 4242,
            },
        ),
        (
            "Invalid user test from 192.0.2.7",
            {"action": "invalid_user", "outcome": "failure", "username": "test", "sourceipaddress": "192.0.2.7"},
        ),
        (
            "Invalid user  from 192.0.2.7 port 4242",
            {"action": "invalid_user", "outcome": "failure", "sourceipaddress": "192.0.2.7", "sourceport": 4242},
        ),
        (
            "error: maximum authentication attempts exceeded for invalid user oracle from 192.0.2.7 port 4242 ssh2 [preauth]",
            {
                "action": "too_many_attempts",
                "outcome": "failure",
                "username": "oracle",
                "sourceipaddress": "192.0.2.7",
                "sourceport": 4242,
                "reason": "invalid user",
            },
        ),
        (
            "User root from 192.0.2.7 not allowed because not listed in AllowUsers",
            {
                "action": "user_not_allowed",
                "outcome": "failure",
                "username": "root",
                "sourceipaddress": "192.0.2.7",
                "reason": "not listed in AllowUsers",
            },
        ),
        (
            "ROOT LOGIN REFUSED FROM 192.0.2.7 port 4242",
            {
                "action": "user_not_allowed",
                "outcome": "failure",
                "username": "root",
                "sourceipaddress": "192.0.2.7",
                "sourceport": 4242,
            },
        ),
        (
            "Connection closed by authenticating user root 192.0.2.7 port 4242 [preauth]",
            {"action": "disconnect", "username": "root", "sourceipaddress": "192.0.2.7", "sourceport": 4242},
        ),
        (
            "Connection reset by invalid user admin 192.0.2.7 port 4242 [preauth]",
            {
                "action": "disconnect",
                "username": "admin",
                "sourceipaddress": "192.0.2.7",
                "sourceport": 4242,
                "reason": "invalid user",
            },
        ),
        (
            "Connection closed by 192.0.2.7 port 4242 [preauth]",
            {"action": "disconnect", "sourceipaddress": "192.0.2.7", "sourceport": 4242},
        ),
        (
            'Connection from 192.0.2.7 port 4242 on 192.0.2.1 port 22 rdomain ""',
            {
                "action": "connect",
                "sourceipaddress": "192.0.2.7",
                "sourceport": 4242,
                "destinationipaddress": "192.0.2.1",
                "destinationport": 22,
            },
        ),
        (
            "Disconnected from user alice 192.0.2.7 port 50022",
            {"action": "disconnect", "username": "alice", "sourceipaddress": "192.0.2.7", "sourceport": 50022},
        ),
        (
            "Disconnected from 192.0.2.7 port 50022",
            {"action": "disconnect", "sourceipaddress": "192.0.2.7", "sourceport": 50022},
        ),
        (
            "Disconnecting authenticating user root 192.0.2.7 port 4242: Too many authentication failures [preauth]",
            {
                "action": "disconnect",
                "username": "root",
                "sourceipaddress": "192.0.2.7",
                "sourceport": 4242,
                "reason": "Too many authentication failures",
            },
        ),
        (
            "Received disconnect from 192.0.2.7 port 50022:11: disconnected by user",
            {
                "action": "disconnect",
                "sourceipaddress": "192.0.2.7",
                "sourceport": 50022,
                "reason": "disconnected by user",
            },
        ),
        (
            "Received disconnect from 192.0.2.7: 11: Bye Bye [preauth]",
            {"action": "disconnect", "sourceipaddress": "192.0.2.7", "reason": "Bye Bye"},
        ),
        (
            "Did not receive identification string from 192.0.2.7 port 4242",
            {"action": "connect", "outcome": "failure", "sourceipaddress": "192.0.2.7", "sourceport": 4242},
        ),
        (
            "banner exchange: Connection from 192.0.2.7 port 4242: invalid format",
            {
                "action": "connect",
                "outcome": "failure",
                "sourceipaddress": "192.0.2.7",
                "sourceport": 4242,
                "reason": "invalid format",
            },
        ),
        (
            "Unable to negotiate with 192.0.2.7 port 4242: no matching host key type found. Their offer: ssh-rsa [preauth]",
            {
                "action": "connect",
                "outcome": "failure",
                "sourceipaddress": "192.0.2.7",
                "sourceport": 4242,
                "reason": "no matching host key type found. Their offer: ssh-rsa",
            },
        ),
        (
            "Starting session: shell on pts/0 for alice from 192.0.2.7 port 50022 id 0",
            {"action": "session_open", "username": "alice", "sourceipaddress": "192.0.2.7", "sourceport": 50022},
        ),
        (
            "Close session: user alice from 192.0.2.7 port 50022 id 0",
            {"action": "session_close", "username": "alice", "sourceipaddress": "192.0.2.7", "sourceport": 50022},
        ),
        (
            "error: PAM: Authentication failure for illegal user admin from 192.0.2.7",
            {
                "action": "authenticate",
                "outcome": "failure",
                "username": "admin",
                "sourceipaddress": "192.0.2.7",
                "reason": "Authentication failure",
            },
        ),
        (
            "fatal: Timeout before authentication for 192.0.2.7 port 4242",
            {
                "action": "connect",
                "outcome": "failure",
                "sourceipaddress": "192.0.2.7",
                "sourceport": 4242,
                "reason": "timeout",
            },
        ),
        (
            'Accepted hostbased for alice from 192.0.2.7 port 50022 ssh2: RSA SHA256:k3Yx, client user "al", client host "h"',
            {
                "action": "login",
                "outcome": "success",
                "username": "alice",
                "sourceipaddress": "192.0.2.7",
                "sourceport": 50022,
                "protocol": "ssh2",
                "authmethod": "hostbased",
                "fingerprint": "SHA256:k3Yx",
            },
        ),
        # What a client chooses stands on both sides of the address: nobody can say which one is true.
        (
            "Failed publickey for root from 192.0.2.7 port 4242 ssh2: RSA-CERT SHA256:k3Yx ID x from 198.51.100.1 port 22 ssh2",
            {},
        ),
        (
            'Failed hostbased for a from 192.0.2.7 port 4242 ssh2: RSA SHA256:k3, client user "x from 198.51.100.1 port 22 ssh2: "',
            {},
        ),
        (
            "Disconnecting invalid user x 198.51.100.1 port 5: y 192.0.2.7 port 4242: Packet corrupt [preauth]",
            {},
        ),
        ("Connection closed by UNKNOWN port 65535 [preauth]", {"action": "disconnect"}),
        (
            "User bob not allowed because account is locked",
            {
                "action": "user_not_allowed",
                "outcome": "failure",
                "username": "bob",
                "reason": "account is locked",
            },
        ),
        (
            "fatal: Access denied for user bob by PAM account configuration [preauth]",
            {
                "action": "user_not_allowed",
                "outcome": "failure",
                "username": "bob",
                "reason": "PAM account configuration",
            },
        ),
        (
            "Authentication tried for root with correct key but not from a permitted host (host=h.example.org, ip=192.0.2.7, required=10.0.0.0/8).",
            {
                "action": "user_not_allowed",
                "outcome": "failure",
                "username": "root",
                "sourceipaddress": "192.0.2.7",
                "reason": "not from a permitted host",
            },
        ),
        (
            "Bad protocol version identification 'x from 198.51.100.1 port 1' from 192.0.2.7 port 4242",
            {
                "action": "connect",
                "outcome": "failure",
                "sourceipaddress": "192.0.2.7",
                "sourceport": 4242,
                "reason": "bad protocol version identification",
            },
        ),
        (
            "refused connect from host.example.org (192.0.2.7)",
            {"action": "connect", "outcome": "failure", "sourceipaddress": "192.0.2.7", "reason": "refused"},
        ),
        (
            "drop connection #10 from [192.0.2.7]:4242 on [192.0.2.1]:22 past MaxStartups",
            {
                "action": "connect",
                "outcome": "failure",
                "sourceipaddress": "192.0.2.7",
                "sourceport": 4242,
                "destinationipaddress": "192.0.2.1",
                "destinationport": 22,
                "reason": "past MaxStartups",
            },
        ),
        (
            "Timeout, client not responding from user alice 192.0.2.7 port 4242",
            {
                "action": "disconnect",
                "username": "alice",
                "sourceipaddress": "192.0.2.7",
                "sourceport": 4242,
                "reason": "client not responding",
            },
        ),
        (
            "Starting session: forced-command (key-option) 'run for x from 198.51.100.1 port 1' for alice from 192.0.2.7 port 50022 id 0",
            {"action": "session_open", "username": "alice", "sourceipaddress": "192.0.2.7", "sourceport": 50022},
        ),
        ("Failed password for root from 192.0.2.7 port 99999 ssh2", {}),
        ("Server listening on 0.0.0.0 port 22.", {}),
        ("Failed to allocate internet-domain X11 display socket.", {}),
        ("Accepted", {}),
        ("Failed password for root from 192.0.2.7", {}),
        ("error: kex_exchange_identification: Connection closed by remote host", {}),
    ),
)
def sshd(line: str) -> Fields | None:
    """By the first word, what OpenSSH's server writes at its usual level and at VERBOSE."""
    word, _, rest = line.partition(" ")
    if word in ("error:", "fatal:"):
        word, _, rest = rest.partition(" ")
    handler = _BY_WORD.get(word)
    return handler(word, rest.removesuffix(" [preauth]")) if handler else None


_OUTCOMES = {"Accepted": "success", "Failed": "failure", "Postponed": None, "Partial": None}


def _attempt(word: str, rest: str) -> Fields | None:
    """``publickey for alice from 192.0.2.7 port 50022 ssh2: ED25519 SHA256:…``"""
    method, found, rest = rest.partition(" for ")
    if not found or " " in method:
        return None
    name, found, place = _divided(method, rest)
    peer = peer_of(place)
    if not found or peer is None:
        return None
    protocol, _, extra = place.split(" ", 3)[3].partition(": ") if place.count(" ") > 2 else ("", "", "")
    if not protocol.startswith("ssh"):
        return None
    fields: Fields = {"action": "login", **peer, "protocol": protocol, "authmethod": method}
    if outcome := _OUTCOMES[word]:
        fields["outcome"] = outcome
    user, reason = _user(name)
    if user not in ("", "-"):
        fields["username"] = user
    if reason:
        fields["reason"] = reason
    if extra and ":" in (fingerprint := extra.partition(" ")[2].partition(" ")[0].strip('",')):
        fields["fingerprint"] = fingerprint
    return fields


def _divided(method: str, rest: str) -> tuple[str, str, str]:
    """Name and place on both sides of `` from ``; nothing where nobody can say which one it is.

    A client chooses the name in front. Behind the place there may be more that it chooses: the name in a certificate, the
    user of the other host. Behind a password there is nothing, so the last one is true.
    """
    if rest.count(" from ") == 1 or method in ("password", "none") or method.startswith("keyboard-interactive"):
        return rest.rpartition(" from ")
    places = [found.start() for found in _PLACE.finditer(rest)]
    return (rest[: places[0]], " from ", rest[places[0] + 6 :]) if len(places) == 1 else ("", "", "")


_PLACE = re.compile(r" from [^ ]++ port [0-9]{1,5}+ ssh[0-9]++(?=: |\Z)")


def _user(name: str) -> tuple[str, str | None]:
    for prefix in ("invalid user ", "illegal user "):
        if name.startswith(prefix):
            return name[len(prefix) :], "invalid user"
    return name, None


def _invalid(_word: str, rest: str) -> Fields | None:
    if not rest.startswith("user "):
        return None
    user, found, place = rest[5:].rpartition(" from ")
    peer = _place(place)
    return (
        {"action": "invalid_user", "outcome": "failure", "username": user, **peer}
        if found and peer is not None
        else None
    )


def _place(place: str) -> Fields | None:
    """Address and port, or an address alone, as versions before 7.4 wrote."""
    if " " in place:
        return peer_of(place)
    return {"sourceipaddress": place} if place else None


def _maximum(_word: str, rest: str) -> Fields | None:
    rest = rest.removeprefix("authentication attempts exceeded for ")
    name, found, place = rest.rpartition(" from ")
    peer = peer_of(place)
    if not found or peer is None:
        return None
    user, reason = _user(name)
    return {"action": "too_many_attempts", "outcome": "failure", "username": user, **peer, "reason": reason}


def _not_allowed(_word: str, rest: str) -> Fields | None:
    before, found, reason = rest.rpartition(" not allowed because ")
    # Of an account that is locked or has no shell, sshd does not say from where somebody came.
    user, _, address = before.rpartition(" from ") if " from " in before else (before, "", None)
    return _refused_user(user, sourceipaddress=address, reason=reason) if found else None


def _root_refused(_word: str, rest: str) -> Fields | None:
    peer = _place(rest.removeprefix("LOGIN REFUSED FROM ")) if rest.startswith("LOGIN REFUSED FROM ") else None
    return _refused_user("root", **peer) if peer is not None else None


def _refused_user(user: str, **more: Any) -> Fields:
    return {"action": "user_not_allowed", "outcome": "failure", "username": user, **more}


def _access(_word: str, rest: str) -> Fields | None:
    user, found, reason = rest.removeprefix("denied for user ").rpartition(" by ")
    return _refused_user(user, reason=reason) if found and rest.startswith("denied for user ") else None


def _authentication(_word: str, rest: str) -> Fields | None:
    """``tried for root with correct key but not from a permitted host (host=h, ip=192.0.2.7, required=…).``"""
    user, found, hosts = rest.removeprefix("tried for ").partition(" with correct key but not from a permitted host ")
    address = hosts.partition(" ip=")[2].partition(",")[0]
    return _refused_user(user, sourceipaddress=address, reason="not from a permitted host") if found else None


def _connection(_word: str, rest: str) -> Fields | None:
    if rest.startswith("from "):
        place, _, other = rest[5:].partition(" on ")
        peer = peer_of(place)
        if peer is None:
            return None
        target = peer_of(other) or {}
        return {
            "action": "connect",
            **peer,
            "destinationipaddress": target.get("sourceipaddress"),
            "destinationport": target.get("sourceport"),
        }
    for begin in ("closed by ", "reset by "):
        if rest.startswith(begin):
            return _end(rest[len(begin) :])
    return None


def _disconnected(_word: str, rest: str) -> Fields | None:
    return _end(rest[5:]) if rest.startswith("from ") else None


def _disconnecting(_word: str, rest: str) -> Fields | None:
    # The name in front and the reason behind may hold anything: of two places, nobody can say which one is true.
    ends = [found.end() for found in _END.finditer(rest)]
    if len(ends) != 1:
        return None
    ended = _end(rest[: ends[0] - 2])
    return {**ended, "reason": rest[ends[0] :]} if ended else None


_END = re.compile(r" port [0-9]{1,5}+: ")


def _end(rest: str) -> Fields | None:
    """``[authenticating user |invalid user |user NAME ]192.0.2.7 port 4242``; versions before 7.4 wrote no port."""
    before, port, digits = rest.rpartition(" port ")
    name, _, address = (before if port else rest).rpartition(" ")
    peer = peer_of(f"{address} port {digits}") if port else _place(address)
    if peer is None or (not port and name):
        return None
    for begin, reason in (("authenticating user ", None), ("invalid user ", "invalid user"), ("user ", None)):
        if name.startswith(begin):
            return {"action": "disconnect", "username": name[len(begin) :], **peer, "reason": reason}
    return None if name else {"action": "disconnect", **peer}


def _received(_word: str, rest: str) -> Fields | None:
    if not rest.startswith("disconnect from "):
        return None
    place, _, reason = rest[16:].partition(": ")
    # Newer: "192.0.2.7 port 50022:11: reason". Older: "192.0.2.7: 11: reason".
    if " port " not in place:
        reason = reason.partition(": ")[2]
    peer = _place(place)
    return {"action": "disconnect", **peer, "reason": reason} if peer is not None else None


def _no_identification(_word: str, rest: str) -> Fields | None:
    begin = "not receive identification string from "
    peer = _place(rest[len(begin) :]) if rest.startswith(begin) else None
    return {"action": "connect", "outcome": "failure", **peer} if peer is not None else None


def _bad_protocol(_word: str, rest: str) -> Fields | None:
    """``protocol version identification 'GET / HTTP/1.1' from 192.0.2.7 port 4242``; a client chooses the text."""
    peer = _place(rest.rpartition("' from ")[2]) if rest.startswith("protocol version identification '") else None
    reason = "bad protocol version identification"
    return {"action": "connect", "outcome": "failure", **peer, "reason": reason} if peer is not None else None


def _refused_connect(_word: str, rest: str) -> Fields | None:
    """``connect from host.example.org (192.0.2.7)``, as libwrap writes."""
    address = rest.rpartition(" (")[2].removesuffix(")")
    if not rest.startswith("connect from ") or not rest.endswith(")"):
        return None
    return {"action": "connect", "outcome": "failure", "sourceipaddress": address, "reason": "refused"}


def _dropped(_word: str, rest: str) -> Fields | None:
    """``connection #10 from [192.0.2.7]:4242 on [192.0.2.1]:22 past MaxStartups``"""
    match = _DROPPED.fullmatch(rest)
    if match is None:
        return None
    names = ("sourceipaddress", "sourceport", "destinationipaddress", "destinationport", "reason")
    return {"action": "connect", "outcome": "failure", **dict(zip(names, match.groups(), strict=True))}


_DROPPED = re.compile(r"connection #[0-9]++ from \[([^]]++)\]:([0-9]++) on \[([^]]++)\]:([0-9]++) (.++)")


def _no_answer(_word: str, rest: str) -> Fields | None:
    begin = "client not responding from "
    ended = _end(rest[len(begin) :]) if rest.startswith(begin) else None
    return {**ended, "reason": "client not responding"} if ended else None


def _refused(_word: str, rest: str) -> Fields | None:
    for begin in ("exchange: Connection from ", "to negotiate with "):
        if rest.startswith(begin):
            place, found, reason = rest[len(begin) :].partition(": ")
            peer = _place(place)
            if found and peer is not None:
                return {"action": "connect", "outcome": "failure", **peer, "reason": reason}
    return None


def _session(word: str, rest: str) -> Fields | None:
    if not rest.startswith("session: "):
        return None
    user, found, place = rest.rpartition(" from ")
    if word == "Starting":
        # A command stands in front of it, which may hold anything.
        user = user.rpartition(" for ")[2]
    elif user.startswith("session: user "):
        user = user[14:]
    else:
        return None
    peer = peer_of(place)
    action = "session_open" if word == "Starting" else "session_close"
    return {"action": action, "username": user, **peer} if found and peer is not None else None


def _pam(_word: str, rest: str) -> Fields | None:
    reason, found, rest = rest.partition(" for ")
    name, also_found, place = rest.rpartition(" from ")
    peer = _place(place)
    if not found or not also_found or peer is None:
        return None
    return {"action": "authenticate", "outcome": "failure", "username": _user(name)[0], **peer, "reason": reason}


def _timeout(_word: str, rest: str) -> Fields | None:
    begin = "before authentication for "
    if not rest.startswith(begin):
        return None
    place = rest[len(begin) :]
    if place.startswith("connection from "):
        place = place[16:].partition(" to ")[0]
    peer = _place(place)
    return {"action": "connect", "outcome": "failure", **peer, "reason": "timeout"} if peer is not None else None


_BY_WORD: dict[str, Callable[[str, str], Fields | None]] = {
    "Accepted": _attempt,
    "Failed": _attempt,
    "Postponed": _attempt,
    "Partial": _attempt,
    "Invalid": _invalid,
    "Illegal": _invalid,
    "maximum": _maximum,
    "User": _not_allowed,
    "ROOT": _root_refused,
    "Access": _access,
    "Authentication": _authentication,
    "Bad": _bad_protocol,
    "refused": _refused_connect,
    "drop": _dropped,
    "Timeout,": _no_answer,
    "Connection": _connection,
    "Disconnected": _disconnected,
    "Disconnecting": _disconnecting,
    "Received": _received,
    "Did": _no_identification,
    "banner": _refused,
    "Unable": _refused,
    "Starting": _session,
    "Close": _session,
    "PAM:": _pam,
    "Timeout": _timeout,
}
