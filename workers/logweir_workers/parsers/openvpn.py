"""openvpn: clients of an OpenVPN server that came, were refused, and left."""

from __future__ import annotations

import re

from logweir_workers.parsers import Fields, line_parser


@line_parser(
    processes=("openvpn", "ovpn-server", "openvpn-server", "ovpn"),
    adds=("action", "outcome", "username", "sourceipaddress", "sourceport", "reason"),
    # Forms of OpenVPN's multi.c, ssl.c, ssl_verify.c and sig.c, versions 2.4 to 2.6.
    examples=(
        (
            "192.0.2.7:51820 [alice] Peer Connection Initiated with [AF_INET]192.0.2.7:51820",
            {
                "action": "login",
                "outcome": "success",
                "username": "alice",
                "sourceipaddress": "192.0.2.7",
                "sourceport": 51820,
            },
        ),
        (
            "192.0.2.7:51820 TLS: Initial packet from [AF_INET]192.0.2.7:51820, sid=12345678 9abcdef0",
            {"action": "connect", "sourceipaddress": "192.0.2.7", "sourceport": 51820},
        ),
        (
            "2001:db8::7:1194 TLS: Username/Password authentication succeeded for username 'alice' [CN SET]",
            {
                "action": "authenticate",
                "outcome": "success",
                "username": "alice",
                "sourceipaddress": "2001:db8::7",
                "sourceport": 1194,
            },
        ),
        (
            "192.0.2.7:51820 TLS Auth Error: Auth Username/Password verification failed for peer",
            {
                "action": "authenticate",
                "outcome": "failure",
                "sourceipaddress": "192.0.2.7",
                "sourceport": 51820,
                "reason": "Auth Username/Password verification failed for peer",
            },
        ),
        (
            "192.0.2.7:51820 VERIFY ERROR: depth=0, error=certificate has expired: CN=bob, serial=77",
            {
                "action": "authenticate",
                "outcome": "failure",
                "username": "bob",
                "sourceipaddress": "192.0.2.7",
                "sourceport": 51820,
                "reason": "certificate has expired",
            },
        ),
        (
            "192.0.2.7:51820 TLS Error: TLS handshake failed",
            {
                "action": "connect",
                "outcome": "failure",
                "sourceipaddress": "192.0.2.7",
                "sourceport": 51820,
                "reason": "TLS handshake failed",
            },
        ),
        (
            "alice/192.0.2.7:51820 SIGTERM[soft,remote-exit] received, client-instance exiting",
            {
                "action": "disconnect",
                "username": "alice",
                "sourceipaddress": "192.0.2.7",
                "sourceport": 51820,
                "reason": "remote-exit",
            },
        ),
        (
            "alice/192.0.2.7:51820 SIGUSR1[soft,ping-restart] received, client-instance restarting",
            {
                "action": "disconnect",
                "username": "alice",
                "sourceipaddress": "192.0.2.7",
                "sourceport": 51820,
                "reason": "ping-restart",
            },
        ),
        ("Initialization Sequence Completed", {}),
        ("192.0.2.7:51820 VERIFY OK: depth=0, CN=alice", {}),
        ("alice/192.0.2.7:51820 MULTI: primary virtual IP for alice/192.0.2.7:51820: 10.8.0.6", {}),
        ("MANAGEMENT: Client connected from /run/openvpn.sock", {}),
    ),
)
def openvpn(line: str) -> Fields | None:
    """``[NAME/]ADDRESS:PORT MESSAGE``"""
    match = _HEAD.match(line)
    if match is None:
        return None
    name, address, port = match.groups()
    fields = _said(line[match.end() :])
    if fields is None:
        return None
    fields |= {"sourceipaddress": address, "sourceport": port}
    fields.setdefault("username", name)
    return fields


_HEAD = re.compile(r"(?:([^ /]{1,256}+)/)?(?:udp4:|tcp4:|udp6:|tcp6:)?([0-9A-Fa-f:.]{2,45}):([0-9]{1,5}) ")


def _said(message: str) -> Fields | None:
    if message.startswith("[") and "] Peer Connection Initiated with [" in message:
        name = message[1:].partition("] Peer Connection Initiated with [")[0]
        return {"action": "login", "outcome": "success", "username": name}
    if message.startswith("TLS: Initial packet from "):
        return {"action": "connect"}
    if message.startswith("TLS: Username/Password authentication succeeded for username '"):
        return {"action": "authenticate", "outcome": "success", "username": message[62:].rpartition("'")[0]}
    if message.startswith("TLS Auth Error: "):
        return {"action": "authenticate", "outcome": "failure", "reason": message[16:]}
    if message.startswith("VERIFY ERROR: ") and (error := message.partition(", error=")[2]):
        reason, _, subject = error.partition(": ")
        # Deeper is the authority's certificate, which names nobody who comes.
        is_own = message.startswith("VERIFY ERROR: depth=0,")
        owner = subject.partition("CN=")[2].partition(",")[0].partition("/")[0] if is_own else None
        return {"action": "authenticate", "outcome": "failure", "username": owner, "reason": reason}
    if message.startswith("TLS Error: TLS handshake failed"):
        return {"action": "connect", "outcome": "failure", "reason": "TLS handshake failed"}
    if message.startswith(("SIGTERM[soft,", "SIGUSR1[soft,")) and ", client-instance " in message:
        return {"action": "disconnect", "reason": message[13:].partition("]")[0]}
    return None
