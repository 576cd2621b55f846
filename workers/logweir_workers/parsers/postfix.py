"""postfix: who connected, who was refused, what was delivered and what was not."""

from __future__ import annotations

from logweir_workers.parsers import Fields, line_parser


@line_parser(
    processes=("postfix",),
    adds=(
        "action",
        "outcome",
        "queueid",
        "sourceipaddress",
        "username",
        "authmethod",
        "sender",
        "recipient",
        "destinationipaddress",
        "destinationport",
        "duration",
        "bytes",
        "dsn",
        "mailstatus",
        "messageid",
        "reason",
    ),
    # Forms of Postfix' smtpd, qmgr, cleanup, smtp and local.
    examples=(
        ("connect from mail.example.org[192.0.2.7]", {"action": "connect", "sourceipaddress": "192.0.2.7"}),
        (
            "disconnect from unknown[2001:db8::7] ehlo=1 auth=0/1 commands=1/2",
            {"action": "disconnect", "sourceipaddress": "2001:db8::7"},
        ),
        (
            "lost connection after AUTH from unknown[192.0.2.7]",
            {"action": "disconnect", "sourceipaddress": "192.0.2.7", "reason": "lost connection after AUTH"},
        ),
        (
            "warning: unknown[192.0.2.7]: SASL LOGIN authentication failed: UGFzc3dvcmQ6, sasl_username=alice@example.org",
            {
                "action": "login",
                "outcome": "failure",
                "sourceipaddress": "192.0.2.7",
                "username": "alice@example.org",
                "authmethod": "LOGIN",
            },
        ),
        (
            "4dG0hD2Kz9z1: client=unknown[192.0.2.7], sasl_method=PLAIN, sasl_username=alice",
            {
                "action": "login",
                "outcome": "success",
                "queueid": "4dG0hD2Kz9z1",
                "sourceipaddress": "192.0.2.7",
                "username": "alice",
                "authmethod": "PLAIN",
            },
        ),
        (
            "4dG0hD2Kz9z1: client=mail.example.org[192.0.2.7]",
            {"action": "accept_mail", "queueid": "4dG0hD2Kz9z1", "sourceipaddress": "192.0.2.7"},
        ),
        (
            "NOQUEUE: reject: RCPT from unknown[192.0.2.7]: 554 5.7.1 <bob@example.net>: Relay access denied; "
            "from=<eve@example.org> to=<bob@example.net> proto=ESMTP helo=<x>",
            {
                "action": "reject_mail",
                "outcome": "failure",
                "sourceipaddress": "192.0.2.7",
                "sender": "eve@example.org",
                "recipient": "bob@example.net",
                "reason": "554 5.7.1 <bob@example.net>: Relay access denied",
            },
        ),
        (
            "4DC1A2B3C4: from=<alice@example.org>, size=2345, nrcpt=1 (queue active)",
            {"action": "queue_mail", "queueid": "4DC1A2B3C4", "sender": "alice@example.org", "bytes": 2345},
        ),
        (
            "4DC1A2B3C4: message-id=<77@example.org>",
            {"action": "accept_mail", "queueid": "4DC1A2B3C4", "messageid": "77@example.org"},
        ),
        (
            "4DC1A2B3C4: to=<bob@example.net>, orig_to=<b@example.org>, relay=mx.example.net[198.51.100.2]:25, delay=1.2, "
            "delays=0.1/0/0.5/0.6, dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as 77)",
            {
                "action": "deliver_mail",
                "outcome": "success",
                "queueid": "4DC1A2B3C4",
                "recipient": "bob@example.net",
                "destinationipaddress": "198.51.100.2",
                "destinationport": 25,
                "duration": 1.2,
                "dsn": "2.0.0",
                "mailstatus": "sent",
                "reason": "250 2.0.0 Ok: queued as 77",
            },
        ),
        (
            "4DC1A2B3C4: to=<bob@example.net>, relay=none, delay=30, delays=0/0/30/0, dsn=4.4.1, status=deferred (connect to "
            "mx.example.net[198.51.100.2]:25: Connection timed out)",
            {
                "action": "deliver_mail",
                "outcome": "failure",
                "queueid": "4DC1A2B3C4",
                "recipient": "bob@example.net",
                "duration": 30,
                "dsn": "4.4.1",
                "mailstatus": "deferred",
                "reason": "connect to mx.example.net[198.51.100.2]:25: Connection timed out",
            },
        ),
        ("4DC1A2B3C4: removed", {"action": "remove_mail", "queueid": "4DC1A2B3C4"}),
        ("daemon started -- version 3.10.5, configuration /etc/postfix", {}),
        ("statistics: max connection rate 2/60s for (smtp:192.0.2.7) at Jan 31 12:00:00", {}),
        ("warning: hostname x.example.org does not resolve to address 192.0.2.7", {}),
        ("nothing: to see", {}),
    ),
)
def postfix(line: str) -> Fields | None:
    """By the first words; lines about a message begin with its queue's identifier."""
    for begin, action in (("connect from ", "connect"), ("disconnect from ", "disconnect")):
        if line.startswith(begin):
            return {"action": action, "sourceipaddress": _address(line[len(begin) :])}
    if line.startswith("lost connection after "):
        reason, _, client = line.rpartition(" from ")
        return {"action": "disconnect", "sourceipaddress": _address(client), "reason": reason}
    if line.startswith("warning: "):
        return _login_failed(line[9:])
    queue, colon, rest = line.partition(": ")
    if queue == "NOQUEUE":
        return _rejected(rest)
    if not colon or not queue.isalnum() or not queue.isascii() or len(queue) < 6 or not any(map(str.isdigit, queue)):
        return None
    for begin, read in _OF_MESSAGES:
        if rest.startswith(begin):
            fields = read(rest[len(begin) :])
            return {**fields, "queueid": queue} if fields else None
    return None


def _address(client: str) -> str:
    """What stands in brackets behind a host's name, which cannot have any."""
    return client.partition("[")[2].partition("]")[0]


def _login_failed(rest: str) -> Fields | None:
    client, found, said = rest.partition(": SASL ")
    method, also_found, reason = said.partition(" authentication failed")
    if not found or not also_found or " " in method:
        return None
    return {
        "action": "login",
        "outcome": "failure",
        "sourceipaddress": _address(client),
        "username": reason.partition(", sasl_username=")[2] or None,
        "authmethod": method,
    }


def _rejected(rest: str) -> Fields | None:
    what, found, rest = rest.partition(" from ")
    client, colon, rest = rest.partition("]: ")
    if not what.startswith("reject: ") or not found or not colon:
        return None
    fields: Fields = {"action": "reject_mail", "outcome": "failure", "sourceipaddress": _address(client + "]")}
    # A client chooses the addresses and, behind them, its name: where either has this in it, nobody can say which is which.
    if rest.count("; from=<") == 1 and rest.count("> to=<") == 1:
        reason, _, addresses = rest.partition("; from=<")
        sender, _, rest = addresses.partition("> to=<")
        fields |= {"sender": sender, "recipient": rest.partition(">")[0], "reason": reason}
    return fields


def _client(rest: str) -> Fields:
    client, *parts = rest.split(", ", 8)
    said = dict(part.partition("=")[::2] for part in parts)
    user = said.get("sasl_username")
    fields: Fields = {"action": "login" if user else "accept_mail", "sourceipaddress": _address(client)}
    if user:
        fields |= {"outcome": "success", "username": user, "authmethod": said.get("sasl_method")}
    return fields


def _queued(rest: str) -> Fields:
    sender, _, rest = rest.partition(">, ")
    size = rest.partition("size=")[2].partition(",")[0]
    return {"action": "queue_mail", "sender": sender, "bytes": size}


def _message(rest: str) -> Fields:
    return {"action": "accept_mail", "messageid": rest.strip("<>")}


def _delivered(rest: str) -> Fields | None:
    recipient, _, rest = rest.partition(">, ")
    head, found, reason = rest.partition(" (")
    said = dict(part.partition("=")[::2] for part in head.split(", ", 12))
    status = said.get("status")
    if not found or status is None:
        return None
    relay = said.get("relay", "")
    return {
        "action": "deliver_mail",
        "outcome": "success" if status == "sent" else "failure",
        "recipient": recipient,
        "destinationipaddress": _address(relay),
        "destinationport": relay.rpartition("]:")[2] if "]:" in relay else None,
        "duration": said.get("delay"),
        "dsn": said.get("dsn"),
        "mailstatus": status,
        "reason": reason.removesuffix(")"),
    }


def _removed(_rest: str) -> Fields:
    return {"action": "remove_mail"}


_OF_MESSAGES = (
    ("to=<", _delivered),
    ("from=<", _queued),
    ("client=", _client),
    ("message-id=", _message),
    ("removed", _removed),
)
