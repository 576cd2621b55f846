"""postgres: who connected to PostgreSQL, who was refused, and who left."""

from __future__ import annotations

import re

from logweir_workers.parsers import Fields, line_parser


@line_parser(
    processes=("postgres", "postgresql"),
    categories=("postgres", "postgresql", "database"),
    adds=(
        "action",
        "outcome",
        "username",
        "database",
        "sourceipaddress",
        "sourceport",
        "authmethod",
        "application",
        "duration",
        "reason",
    ),
    # Forms of PostgreSQL's src/backend (postmaster, postinit.c, auth.c, postgres.c), versions 9.6 to 18.
    examples=(
        (
            "2026-01-31 12:00:00.123 UTC [77] LOG:  connection received: host=192.0.2.7 port=50022",
            {"action": "connect", "sourceipaddress": "192.0.2.7", "sourceport": 50022},
        ),
        (
            "[2-1] 2026-01-31 12:00:00 UTC [77]: user=alice,db=shop LOG:  connection authorized: user=alice database=shop "
            "application_name=psql SSL enabled (protocol=TLSv1.3, cipher=TLS_AES_256_GCM_SHA384, bits=256)",
            {"action": "login", "outcome": "success", "username": "alice", "database": "shop", "application": "psql"},
        ),
        (
            'LOG:  connection authenticated: identity="alice" method=scram-sha-256 (/etc/postgresql/18/main/pg_hba.conf:120)',
            {"action": "authenticate", "outcome": "success", "username": "alice", "authmethod": "scram-sha-256"},
        ),
        (
            "LOG:  disconnection: session time: 1:02:03.500 user=alice database=shop host=192.0.2.7 port=50022",
            {
                "action": "disconnect",
                "username": "alice",
                "database": "shop",
                "sourceipaddress": "192.0.2.7",
                "sourceport": 50022,
                "duration": 3723.5,
            },
        ),
        (
            '2026-01-31 12:00:00.123 UTC [77] root@postgres FATAL:  password authentication failed for user "root"',
            {
                "action": "login",
                "outcome": "failure",
                "username": "root",
                "authmethod": "password",
                "reason": "authentication failed",
            },
        ),
        (
            'FATAL:  no pg_hba.conf entry for host "192.0.2.7", user "alice", database "shop", no encryption',
            {
                "action": "login",
                "outcome": "failure",
                "username": "alice",
                "database": "shop",
                "sourceipaddress": "192.0.2.7",
                "reason": "no pg_hba.conf entry",
            },
        ),
        (
            'FATAL:  role "mallory" does not exist',
            {"action": "login", "outcome": "failure", "username": "mallory", "reason": "role does not exist"},
        ),
        (
            'FATAL:  Peer authentication failed for user "postgres"',
            {
                "action": "login",
                "outcome": "failure",
                "username": "postgres",
                "authmethod": "peer",
                "reason": "authentication failed",
            },
        ),
        ("LOG:  checkpoint starting: time", {}),
        ("LOG:  statement: SELECT 'connection authorized: user=x database=y'", {}),
        ('ERROR:  role "mallory" does not exist', {}),
        ("STATEMENT:  select 1", {}),
    ),
)
def postgres(line: str) -> Fields | None:
    """``[PREFIX ]LOG:  MESSAGE`` or ``[PREFIX ]FATAL:  MESSAGE``; the prefix is the operator's own (log_line_prefix)."""
    place = line.find(":  ", 0, 500)
    if place < 0:
        return None
    message = line[place + 3 :]
    # The prefix may have names in it that a client chooses: what looks like another prefix may be one of these.
    if ":  " in message:
        return None
    if line.endswith("LOG", 0, place):
        for begin, read in _OF_LOG:
            if message.startswith(begin):
                return read(message[len(begin) :])
    elif line.endswith("FATAL", 0, place):
        return _refused(message)
    return None


def _received(rest: str) -> Fields:
    host, _, port = rest.partition(" port=")
    return {"action": "connect", "sourceipaddress": host, "sourceport": port}


# Names may have blanks: each ends where the next key begins.
_WHO = re.compile(
    r"user=(.{1,128}?) database=(.{1,128}?)(?: application_name=(.{1,128}?))?(?: host=([^ ]{1,255})(?: port=([0-9]{1,5}))?| SSL enabled.*| GSS .*|)\Z"
)


def _authorized(rest: str) -> Fields | None:
    match = _WHO.match(rest)
    if match is None:
        return None
    return {
        "action": "login",
        "outcome": "success",
        "username": match[1],
        "database": match[2],
        "application": match[3],
    }


def _authenticated(rest: str) -> Fields | None:
    identity, found, method = rest.partition('" method=')
    if not found:
        return None
    method = method.partition(" ")[0]
    return {"action": "authenticate", "outcome": "success", "username": identity, "authmethod": method}


def _ended(rest: str) -> Fields | None:
    time_text, _, rest = rest.partition(" ")
    match = _WHO.match(rest)
    if match is None:
        return None
    return {
        "action": "disconnect",
        "username": match[1],
        "database": match[2],
        "sourceipaddress": match[4],
        "sourceport": match[5],
        "duration": _seconds(time_text),
    }


def _seconds(text: str) -> float | None:
    parts = text.split(":")
    if len(parts) != 3 or not all(part.replace(".", "", 1).isdigit() and len(part) < 12 for part in parts):
        return None
    hours, minutes, seconds = map(float, parts)
    return hours * 3600 + minutes * 60 + seconds


_FAILED = re.compile(r'([A-Za-z0-9-]{1,20}) authentication failed for user "(.{1,128})"')
_NO_ENTRY = re.compile(
    r'no pg_hba.conf entry for host "([^"]{1,255})", user "(.{1,128}?)", database "(.{1,128}?)".{0,100}'
)
_NO_ROLE = re.compile(r'role "(.{1,128})" does not exist')


def _refused(message: str) -> Fields | None:
    refused: Fields = {"action": "login", "outcome": "failure"}
    if (match := _FAILED.fullmatch(message)) is not None:
        return {**refused, "username": match[2], "authmethod": match[1].lower(), "reason": "authentication failed"}
    if (match := _NO_ENTRY.fullmatch(message)) is not None:
        address, user, database = match.groups()
        reason = "no pg_hba.conf entry"
        return {**refused, "username": user, "database": database, "sourceipaddress": address, "reason": reason}
    if (match := _NO_ROLE.fullmatch(message)) is not None:
        return {**refused, "username": match[1], "reason": "role does not exist"}
    return None


_OF_LOG = (
    ("connection received: host=", _received),
    ("connection authorized: ", _authorized),
    ('connection authenticated: identity="', _authenticated),
    ("disconnection: session time: ", _ended),
)
