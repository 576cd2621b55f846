"""A thousand lines of programs that no parser is for, and lines that look like those of a parser and are not."""

from __future__ import annotations

import random
from collections.abc import Iterator

_TEMPLATES = (
    # Kernel, systemd and other parts of a system.
    "[{n}.{m}] usb {d}-{d}: new high-speed USB device number {d} using xhci_hcd",
    "EXT4-fs (sda{d}): mounted filesystem with ordered data mode. Opts: (null). Quota mode: none.",
    "TCP: request_sock_TCP: Possible SYN flooding on port {n}. Sending cookies.  Check SNMP counters.",
    "Out of memory: Killed process {n} (java) total-vm:{n}kB, anon-rss:{n}kB, file-rss:0kB, shmem-rss:0kB",
    "Started Daily apt download activities.",
    "Finished Rotate log files.",
    "Reached target Timers.",
    "{w}: Main process exited, code=killed, status=9/KILL",
    "dhclient: DHCPACK of 10.0.0.{d} from 10.0.0.1",
    'rsyslogd: [origin software="rsyslogd" swVersion="8.2302.0" x-pid="{n}"] rsyslogd was HUPed',
    "NetworkManager: <info>  [{n}.{m}] dhcp4 (eth{d}): state changed new lease, address=10.0.0.{d}",
    "chronyd: Selected source 192.0.2.{d} (ntp{d}.example.org)",
    # Programs of one's own.
    "2026-01-31 12:00:0{d},{n} INFO  [worker-{d}] c.e.shop.OrderService - order {n} placed in {d} ms",
    "2026-01-31T12:00:0{d}.{n}Z WARN {w}: pool exhausted (active={d}, idle={d}, waiting={n})",
    "INFO:root:processed {n} items in {d}.{d} s",
    "E0131 12:00:0{d}.{n}  {n} reconciler.go:{n}] failed to sync {w}: timed out after {d}s",
    "request {n} answered in {d} ms by worker {d}",
    "user {w} opened the door with card {n}",
    "Accepted offer {n} for {w} at {d}.{d} per cent",
    "Failed job {n} for customer {w}: retry in {d} s",
    "Invalid input from form {w}: field {d} is empty",
    "Connection pool {w} closed by administrator after {d} errors",
    "Disconnected by peer while reading header {n}",
    "new order: number={n}, value={d}, currency=EUR",
    "delete 'tmp-{n}' from bucket {w}",
    "change user preferences of tenant {n}",
    "password policy reloaded for {w}",
    "session opened by scheduler for batch {n}",
    "authentication module loaded, {d} providers",
    "SELECT * FROM {w} WHERE id = {n} AND state = 'open' -- {d} rows",
    "GET /{w} took {d} ms and gave {n} bytes",
    '"GET /{w} HTTP/1.1" 200 {n}',
    '10.0.0.{d} "GET /{w} HTTP/1.1" 200 {n}',
    "10.0.0.{d} - - something else",
    "{n} of {n} {w} done, {d} % left",
    "{d}.{d}.{d} released: {w} and {w}",
    ": {w}: command not found",
    "{{{w}}} is not a template",
    "{{'{w}': {n}}}",
    '[{w}] {{"a": {n}}} was sent',
    "@{w} said hello to @{w}",
    "x = {n}; y = {d}",
    "{w} = {n}",
    "{w}={n}",
    "{w}={n} and so on",
    "call {w}(a={n}, b={d}) returned None",
    "type: {w}, message: nothing",
    "type={w}",
    "audit of {w} finished: {d} findings",
    "node {d} joined the cluster {w}",
    "pam is not a parser of {w}",
    "CEF is a format, and {w} is not",
    "LEEF: none",
    "message repeated {d} times",
    "message repeated many times: [ {w} ]",
    "Traceback (most recent call last):",
    '  File "/srv/{w}.py", line {n}, in <module>',
    "    raise ValueError({n!r})",
    "ValueError: {n}",
    "	at org.example.{w}.Main.run(Main.java:{n})",
    "Caused by: java.sql.SQLException: Connection to 10.0.0.{d} refused",
    "panic: runtime error: index out of range [{d}] with length {d}",
    "goroutine {n} [running]:",
    "thread 'main' panicked at src/{w}.rs:{n}:{d}:",
    "+++ b/{w}.py",
    "- {w} item",
    "+ {w} item",
    "------------------------------------------------------------",
    "",
    " ",
    "{n}",
    "{w}",
    "Größe der Datei {w}: {n} Bytes",
    "文件 {w} 已保存 {n}",
    "\x1b[32mINFO\x1b[0m {w} ready after {d} s",
)
_WORDS = (
    "alpha",
    "root",
    "admin",
    "cache",
    "ssh2",
    "password",
    "user",
    "from",
    "port",
    "sudo",
    "audit",
    "index",
    "mail",
)


def other_lines(count: int = 1000, seed: int = 1) -> Iterator[str]:
    rng = random.Random(seed)
    for number in range(count):
        template = _TEMPLATES[number % len(_TEMPLATES)]
        numbers = {"n": rng.randrange(100_000), "m": rng.randrange(1_000_000), "d": rng.randrange(10)}
        yield template.format(w=rng.choice(_WORDS), **numbers)
