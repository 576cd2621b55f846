"""wireguard: handshakes of WireGuard's peers, as the kernel logs them where that is switched on."""

from __future__ import annotations

import re

from logweir_workers.parsers import Fields, line_parser


@line_parser(
    begins=("wireguard: ",),
    adds=("action", "outcome", "sourceipaddress", "sourceport", "interfacein", "peer", "reason"),
    # Forms of the kernel's drivers/net/wireguard (dynamic debug).
    examples=(
        (
            "wireguard: wg0: Receiving handshake initiation from peer 3 (192.0.2.7:51820)",
            {
                "action": "handshake",
                "sourceipaddress": "192.0.2.7",
                "sourceport": 51820,
                "interfacein": "wg0",
                "peer": "3",
            },
        ),
        (
            "wireguard: wg0: Receiving handshake response from peer 3 ([2001:db8::7]:51820)",
            {
                "action": "handshake",
                "outcome": "success",
                "sourceipaddress": "2001:db8::7",
                "sourceport": 51820,
                "interfacein": "wg0",
                "peer": "3",
            },
        ),
        (
            "wireguard: wg0: Handshake for peer 3 (192.0.2.7:51820) did not complete after 5 seconds, retrying (try 2)",
            {
                "action": "handshake",
                "outcome": "failure",
                "sourceipaddress": "192.0.2.7",
                "sourceport": 51820,
                "interfacein": "wg0",
                "peer": "3",
                "reason": "did not complete",
            },
        ),
        (
            "wireguard: wg0: Invalid handshake initiation from 192.0.2.7:51820",
            {
                "action": "handshake",
                "outcome": "failure",
                "sourceipaddress": "192.0.2.7",
                "sourceport": 51820,
                "interfacein": "wg0",
                "reason": "invalid",
            },
        ),
        ("wireguard: wg0: Keypair 7 created for peer 3", {}),
        ("wireguard: WireGuard 1.0.0 loaded. See www.wireguard.com for information.", {}),
    ),
)
def wireguard(line: str) -> Fields | None:
    """``wireguard: INTERFACE: MESSAGE``"""
    match = _LINE.match(line)
    if match is None:
        return None
    interface, message, peer, six, four, port = match.groups()
    outcome, reason = _OUTCOMES[message]
    return {
        "action": "handshake",
        "outcome": outcome,
        "sourceipaddress": six or four,
        "sourceport": port,
        "interfacein": interface,
        "peer": peer,
        "reason": reason,
    }


_OUTCOMES: dict[str, tuple[str | None, str | None]] = {
    "Receiving handshake initiation from": (None, None),
    "Receiving handshake response from": ("success", None),
    "Handshake for": ("failure", "did not complete"),
    "Invalid handshake initiation from": ("failure", "invalid"),
}
_LINE = re.compile(
    rf"wireguard: ([A-Za-z0-9_.=+-]{{1,15}}): ({'|'.join(_OUTCOMES)}) "
    r"(?:peer ([0-9]{1,20}) \()?(?:\[([0-9A-Fa-f:]{2,45})\]|([0-9.]{7,15})):([0-9]{1,5})\b"
)
