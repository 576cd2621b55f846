"""Lines in which a client wrote CHOSEN where it may choose the text, so that it looks like what the program says.

By the process that writes the line, or the category that it comes with. Forms of each program's own source and manual.
"""

from __future__ import annotations

CHOSEN = "198.51.100.1"

LINES: tuple[tuple[str, str], ...] = (
    ("sshd", f"Failed password for invalid user root from {CHOSEN} port 22 ssh2 from 192.0.2.7 port 4242 ssh2"),
    ("sshd", f"Failed none for invalid user root from {CHOSEN} port 22 ssh2: RSA x from 192.0.2.7 port 4242 ssh2"),
    (
        "sshd",
        f"Failed publickey for invalid user a from {CHOSEN} port 1 ssh2: RSA SHA256:x from 192.0.2.7 port 2 ssh2: RSA y",
    ),
    (
        "sshd",
        f"Failed publickey for a from 192.0.2.7 port 2 ssh2: RSA-CERT SHA256:x ID b from {CHOSEN} port 1 ssh2 (serial 1)",
    ),
    (
        "sshd",
        f"Failed publickey for a from 192.0.2.7 port 2 ssh2: RSA-CERT SHA256:x ID b from {CHOSEN} port 1 ssh2: c (serial 1)",
    ),
    (
        "sshd",
        f'Failed hostbased for a from 192.0.2.7 port 2 ssh2: RSA x, client user "a from {CHOSEN} port 1 ssh2", client host "b"',
    ),
    ("sshd", f"Invalid user a from {CHOSEN} port 22 from 192.0.2.7 port 4242"),
    ("sshd", f"Invalid user a from {CHOSEN} from 192.0.2.7"),
    ("sshd", f"Connection closed by invalid user a {CHOSEN} port 22 192.0.2.7 port 4242 [preauth]"),
    (
        "sshd",
        f"Disconnecting invalid user a {CHOSEN} port 22: b 192.0.2.7 port 4242: Too many authentication failures [preauth]",
    ),
    (
        "sshd",
        f"Disconnecting invalid user a 192.0.2.7 port 2: Change of username or service not allowed: (a {CHOSEN} port 1: ,s) -> (b,s)",
    ),
    (
        "sshd",
        f"error: maximum authentication attempts exceeded for invalid user a from {CHOSEN} port 1 ssh2 from 192.0.2.7 port 2 ssh2",
    ),
    ("sshd", f"error: PAM: Authentication failure for illegal user a from {CHOSEN} from 192.0.2.7"),
    ("sshd", f"Bad protocol version identification 'a' from {CHOSEN} port 1' from 192.0.2.7 port 4242"),
    (
        "dovecot",
        f"pam_unix(dovecot:auth): authentication failure; logname= uid=0 ruser=a rhost={CHOSEN} rhost=192.0.2.7",
    ),
    (
        "dovecot",
        f"pam_unix(dovecot:auth): authentication failure; logname= uid=0 ruser=a rhost={CHOSEN}  user=b rhost=192.0.2.7  user=c",
    ),
    ("sudo", f"bob : TTY=pts/1 ; PWD=/tmp/x ; USER={CHOSEN} ; COMMAND=/bin/{CHOSEN} ; USER=root ; COMMAND=/bin/sh"),
    (
        "audit",
        f"type=USER_LOGIN msg=audit(1.1:1): pid=1 uid=0 msg='op=login acct=\"a addr={CHOSEN}\" addr=192.0.2.7 res=failed'",
    ),
    ("nginx", f'{CHOSEN}, 192.0.2.7 - - [31/Jan/2026:12:00:00 +0000] "GET / HTTP/1.1" 200 5 "-" "-"'),
    (
        "nginx",
        f'2026/01/31 12:00:00 [error] 7#7: *1 open() "/srv/a, client: {CHOSEN}, server: b" failed (2: No such file), client: 192.0.2.7, server: _',
    ),
    (
        "nginx",
        f'2026/01/31 12:00:00 [error] 7#7: *1 open() failed, client: 192.0.2.7, server: _, request: "GET /, client: {CHOSEN}, server: a"',
    ),
    (
        "postfix/smtpd",
        f"NOQUEUE: reject: RCPT from h[192.0.2.7]: 554 5.7.1 <x>: Denied; from=<a> to=<b> proto=ESMTP helo=<c; from=<{CHOSEN}> to=<{CHOSEN}>",
    ),
    (
        "postfix/smtpd",
        f"warning: h[192.0.2.7]: SASL LOGIN authentication failed: x, sasl_username=a, sasl_username={CHOSEN}",
    ),
    (
        "postgres",
        f"2026-01-31 12:00:00 UTC [7] a LOG:  connection received: host={CHOSEN} port=1 @b LOG:  connection received: host=192.0.2.7 port=2",
    ),
    (
        "postgres",
        f'[7] a LOG:  connection authorized: user={CHOSEN} database=x@b FATAL:  password authentication failed for user "a"',
    ),
    (
        "mysqld",
        f"2026-01-31 [Note] Aborted connection 7 to db: 'a' user: '{CHOSEN}' host: 'b' user: 'c' host: '192.0.2.7' (Got an error)",
    ),
    ("cef", f"CEF:0|v|p|1|7|n|5|src=192.0.2.7 request=/a src={CHOSEN}"),
    ("app", f"user=alice msg=hello src_ip=192.0.2.7 agent=x src_ip={CHOSEN}"),
)
