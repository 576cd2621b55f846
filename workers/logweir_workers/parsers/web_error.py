"""web_error: the error lines of nginx and Apache: whose request went wrong, and how."""

from __future__ import annotations

import re

from logweir_workers.parsers import Fields, line_parser

_DAYS = tuple(f"[{day}" for day in ("Mon ", "Tue ", "Wed ", "Thu ", "Fri ", "Sat ", "Sun "))


@line_parser(
    processes=("nginx", "apache", "apache2", "httpd", "httpd24"),
    categories=("web", "nginx", "apache", "error", "errorlog", "error_log"),
    begins=_DAYS,
    adds=(
        "errorlevel",
        "reason",
        "errorcode",
        "sourceipaddress",
        "sourceport",
        "method",
        "path",
        "query",
        "protocol",
        "referrer",
        "vhost",
        "upstream",
    ),
    # Forms of nginx' ngx_log.c and ngx_http_request.c, and of Apache's ErrorLogFormat in server/log.c.
    examples=(
        (
            '2026/01/31 12:00:00 [error] 77#77: *3 open() "/srv/www/x.html" failed (2: No such file or directory), '
            'client: 192.0.2.7, server: example.org, request: "GET /x.html?a=b HTTP/1.1", host: "www.example.org", '
            'referrer: "https://example.org/"',
            {
                "errorlevel": "error",
                "reason": 'open() "/srv/www/x.html" failed (2: No such file or directory)',
                "sourceipaddress": "192.0.2.7",
                "method": "GET",
                "path": "/x.html",
                "query": "a=b",
                "protocol": "HTTP/1.1",
                "referrer": "https://example.org/",
                "vhost": "www.example.org",
            },
        ),
        (
            "2026/01/31 12:00:00 [error] 77#77: *9 connect() failed (111: Connection refused) while connecting to upstream, "
            'client: 2001:db8::7, server: , request: "POST /api HTTP/2.0", upstream: "http://10.0.0.5:8080/api", host: "a"',
            {
                "errorlevel": "error",
                "reason": "connect() failed (111: Connection refused) while connecting to upstream",
                "sourceipaddress": "2001:db8::7",
                "method": "POST",
                "path": "/api",
                "protocol": "HTTP/2.0",
                "upstream": "http://10.0.0.5:8080/api",
                "vhost": "a",
            },
        ),
        (
            "2026/01/31 12:00:00 [notice] 1#1: signal process started",
            {"errorlevel": "notice", "reason": "signal process started"},
        ),
        (
            "[Sat Jan 31 12:00:00.123456 2026] [core:error] [pid 77:tid 140] [client 192.0.2.7:50022] AH00128: File does not "
            "exist: /srv/www/x, referer: https://example.org/",
            {
                "errorlevel": "error",
                "reason": "File does not exist: /srv/www/x",
                "errorcode": "AH00128",
                "sourceipaddress": "192.0.2.7",
                "sourceport": 50022,
                "referrer": "https://example.org/",
            },
        ),
        (
            "[Sat Jan 31 12:00:00 2026] [error] [client 192.0.2.7] client denied by server configuration: /srv/www/x",
            {
                "errorlevel": "error",
                "reason": "client denied by server configuration: /srv/www/x",
                "sourceipaddress": "192.0.2.7",
            },
        ),
        (
            "[Sat Jan 31 12:00:00.123456 2026] [auth_basic:error] [pid 77] [client 2001:db8::7:50022] AH01617: user alice: "
            'authentication failure for "/": Password Mismatch',
            {
                "errorlevel": "error",
                "reason": 'user alice: authentication failure for "/": Password Mismatch',
                "errorcode": "AH01617",
                "sourceipaddress": "2001:db8::7",
                "sourceport": 50022,
            },
        ),
        (
            "[Sat Jan 31 12:00:00.123456 2026] [mpm_event:notice] [pid 1:tid 1] AH00489: Apache/2.4.66 (Debian) configured",
            {"errorlevel": "notice", "reason": "Apache/2.4.66 (Debian) configured", "errorcode": "AH00489"},
        ),
        ("2026/01/31 12:00:00 something else", {}),
        ("[Sat Jan 31 12:00:00 2026] hello", {}),
        ("[Sat is a day]", {}),
        ("nginx: configuration file /etc/nginx/nginx.conf test is successful", {}),
    ),
)
def web_error(line: str) -> Fields | None:
    """What stands behind the level; a client's own words stand last, in quotes."""
    if line.startswith("["):
        return _apache(line)
    return _nginx(line)


_NGINX = re.compile(
    r"[0-9]{4}/[0-9]{2}/[0-9]{2} [0-9:]{8} \[(debug|info|notice|warn|error|crit|alert|emerg)\] [0-9]+#[0-9]+: (?:\*[0-9]+ )?"
)
_PARTS = {"request": "request", "upstream": "upstream", "host": "vhost", "referrer": "referrer"}


def _nginx(line: str) -> Fields | None:
    match = _NGINX.match(line)
    if match is None:
        return None
    said = line[match.end() :]
    if said.count(", client: ") > 1:
        # A client chooses the path in front and the request behind: nobody can say which one is its address.
        return {"errorlevel": match[1]}
    reason, _, rest = said.partition(", client: ")
    client, _, rest = rest.partition(", server: ")
    fields: Fields = {"errorlevel": match[1], "reason": reason, "sourceipaddress": client}
    _, *parts = rest.split(", ", 8)
    for part in parts:
        name, found, value = part.partition(': "')
        if found and name in _PARTS and value.endswith('"') and _PARTS[name] not in fields:
            fields[_PARTS[name]] = value[:-1]
    words = fields.pop("request", "").split(" ")
    if len(words) == 3 and words[2].startswith("HTTP/") and words[0].isalpha() and words[0].isupper():
        fields["method"], target, fields["protocol"] = words
        fields["path"], _, fields["query"] = target.partition("?")
    return fields


_APACHE = re.compile(
    r"\[[A-Z][a-z]{2} [A-Z][a-z]{2} [ 0-9]{2} [0-9:]{8}(?:\.[0-9]{1,6})? [0-9]{4}\] \[(?:[a-z0-9_]*:)?([a-z0-9]+)\] "
    r"(?:\[pid [0-9]+(?::tid [0-9]+)?\] )?(?:\[client ([^\]]+)\] )?(?:(AH[0-9]{5}): )?"
)


def _apache(line: str) -> Fields | None:
    match = _APACHE.match(line)
    if match is None:
        return None
    level, client, code = match.groups()
    reason, _, referrer = line[match.end() :].partition(", referer: ")
    fields: Fields = {"errorlevel": level, "reason": reason, "errorcode": code, "referrer": referrer}
    if client:
        address, colon, port = client.rpartition(":")
        # Since 2.4 the port follows the address, also one of IPv6, which has no brackets then.
        has_port = colon and port.isdigit() and ("." in address or address.count(":") > 6 or "::" in address)
        fields["sourceipaddress"], fields["sourceport"] = (address, port) if has_port else (client, None)
    return fields
