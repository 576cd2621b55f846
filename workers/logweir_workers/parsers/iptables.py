"""iptables: packets that a rule of iptables or nftables logged."""

from __future__ import annotations

from logweir_workers.normalise.details import address_of
from logweir_workers.parsers import Fields, line_parser
from logweir_workers.parsers._text import value_of

_ACTIONS = {"block": "deny", "drop": "deny", "deny": "deny", "reject": "deny", "allow": "allow", "accept": "allow"}


@line_parser(
    processes=("kernel", "ulogd"),
    categories=("firewall", "iptables", "kernel"),
    adds=(
        "action",
        "rule",
        "sourceipaddress",
        "sourceport",
        "destinationipaddress",
        "destinationport",
        "protocol",
        "bytes",
        "interfacein",
        "interfaceout",
    ),
    # The form of the kernel's nf_log_ipv4 and nf_log_ipv6; what stands before IN= is the rule's own prefix.
    examples=(
        (
            "[UFW BLOCK] IN=eth0 OUT= MAC=00:11:22:33:44:55:66:77:88:99:aa:bb:08:00 SRC=192.0.2.7 DST=198.51.100.2 LEN=52 "
            "TOS=0x00 PREC=0x00 TTL=115 ID=15743 DF PROTO=TCP SPT=17805 DPT=445 WINDOW=8192 RES=0x00 SYN URGP=0",
            {
                "action": "deny",
                "rule": "UFW BLOCK",
                "sourceipaddress": "192.0.2.7",
                "sourceport": 17805,
                "destinationipaddress": "198.51.100.2",
                "destinationport": 445,
                "protocol": "TCP",
                "bytes": 52,
                "interfacein": "eth0",
            },
        ),
        (
            "[12345.678901] fw-accept: IN=eth0 OUT=eth2 SRC=192.0.2.7 DST=198.51.100.2 LEN=265 TTL=63 ID=51768 DF PROTO=UDP "
            "SPT=43189 DPT=53 LEN=245",
            {
                "action": "allow",
                "rule": "fw-accept",
                "sourceipaddress": "192.0.2.7",
                "sourceport": 43189,
                "destinationipaddress": "198.51.100.2",
                "destinationport": 53,
                "protocol": "UDP",
                "bytes": 265,
                "interfacein": "eth0",
                "interfaceout": "eth2",
            },
        ),
        (
            "IN= OUT=lo SRC=2001:0db8:0000:0000:0000:0000:0000:0007 DST=2001:0db8:0000:0000:0000:0000:0000:0008 LEN=104 TC=0 "
            "HOPLIMIT=64 FLOWLBL=868225 PROTO=ICMPv6 TYPE=128 CODE=0 ID=3427 SEQ=1",
            {
                "sourceipaddress": "2001:db8::7",
                "destinationipaddress": "2001:db8::8",
                "protocol": "ICMPv6",
                "bytes": 104,
                "interfaceout": "lo",
            },
        ),
        # A packet inside of a packet is not taken for the outer one.
        (
            "DENY: IN=eth0 OUT= SRC=192.0.2.7 DST=198.51.100.2 LEN=88 PROTO=ICMP TYPE=3 CODE=3 [SRC=198.51.100.2 "
            "DST=203.0.113.9 LEN=60 PROTO=UDP SPT=21458 DPT=62936 LEN=40 ]",
            {
                "action": "deny",
                "rule": "DENY",
                "sourceipaddress": "192.0.2.7",
                "destinationipaddress": "198.51.100.2",
                "protocol": "ICMP",
                "bytes": 88,
                "interfacein": "eth0",
            },
        ),
        ("not accepted: IN=x SRC=1 DST=2 PROTO=3", {}),
        ("usb 1-1: new high-speed USB device number 5 using xhci_hcd", {}),
        ("IN=eth0 and OUT=eth1 are interfaces", {}),
        ("a SRC=192.0.2.7 without the rest", {}),
    ),
)
def iptables(line: str) -> Fields | None:
    """``PREFIX IN=… OUT=… SRC=… DST=… LEN=… PROTO=… SPT=… DPT=…``"""
    place = line.find(" SRC=")
    begin = line.find("IN=", 0, place) if place > 0 else -1
    if begin < 0 or " DST=" not in line or " PROTO=" not in line:
        return None
    rule = line[:begin].strip(" ")
    if (rule.startswith("[") and rule[1:2].isdigit()) or rule.startswith("[ "):
        rule = rule.partition("]")[2].strip(" ")
    rule = rule.strip("[]: ")
    packet = " " + line[begin:].partition(" [")[0]
    if address_of(source := value_of(packet, " SRC=")) is None:
        return None
    return {
        "action": _action_of(rule),
        "rule": rule,
        "sourceipaddress": source,
        "sourceport": value_of(packet, " SPT="),
        "destinationipaddress": value_of(packet, " DST="),
        "destinationport": value_of(packet, " DPT="),
        "protocol": value_of(packet, " PROTO="),
        "bytes": value_of(packet, " LEN="),
        "interfacein": value_of(packet, " IN="),
        "interfaceout": value_of(packet, " OUT="),
    }


def _action_of(rule: str) -> str | None:
    """The action that a word of the prefix names, if one does: the kernel itself does not say it."""
    words = rule[:200].lower().replace("-", " ").replace("_", " ").replace(":", " ").split(" ")
    return next((_ACTIONS[word] for word in words if word in _ACTIONS), None)
