"""Requests to web servers: guessed passwords, scanners, attacks, and errors."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote_plus

from logweir.alerts import counted, event, rule
from logweir.alerts.rules import View

_ATTACKS = (
    "../..",
    "..\\..",
    "/etc/passwd",
    "union select",
    "union all select",
    "' or '1'='1",
    "' or 1=1",
    "information_schema",
    "sleep(",
    "<script",
    "${jndi:",
    "() { :;}",
    ";wget ",
    "|wget ",
    "$(curl",
    "php://input",
    "/proc/self/environ",
)
_AGENTS = (
    "sqlmap",
    "nikto",
    "nuclei",
    "masscan",
    "zgrab",
    "wpscan",
    "dirbuster",
    "gobuster",
    "feroxbuster",
    "nessus",
    "openvas",
)


def _request(path: str, status: int, at: float = 0.0, **more: Any) -> dict[str, Any]:
    details = {"method": "GET", "path": path, "status": status, "sourceipaddress": "203.0.113.9", **more}
    return event(processname="nginx", hostname="web1", details=details, at=at)


@rule(
    where="category:web AND details.method:POST AND details.status:(401 OR 403)",
    group=["details.sourceipaddress"],
    at_least=20,
    within="5m",
    severity="medium",
    category="web",
    tags=["attack.t1110"],
    runbook="web-login-brute-force.md",
)
def web_login_brute_force(found: Any) -> str:
    return f"{found.count} refused posts from {found.group} (to {', '.join(found.some('details.path'))})"


web_login_brute_force.example("twenty", [_request("/login", 401, at * 5, method="POST") for at in range(20)], alerts=1)
web_login_brute_force.example(
    "nineteen", [_request("/login", 401, at * 5, method="POST") for at in range(19)], alerts=0
)
web_login_brute_force.example("looked at", [_request("/private", 403, at) for at in range(30)], alerts=0)


@rule(
    where="category:web AND details.status:5*",
    group=["hostname"],
    at_least=100,
    within="1m",
    severity="medium",
    category="web",
    runbook="web-errors.md",
)
def web_error_spike(found: Any) -> str:
    return (
        f"{counted(found.count, 'request')} failed on {found.group} (status {', '.join(found.some('details.status'))})"
    )


web_error_spike.example("a hundred", [_request("/", 502, at / 2) for at in range(100)], alerts=1)
web_error_spike.example("not found", [_request("/", 404, at / 2) for at in range(100)], alerts=0)
web_error_spike.example("slowly", [_request("/", 502, at * 2) for at in range(100)], alerts=0)


def _is_scanner(seen: View) -> bool:
    agent = seen.get("details.useragent")
    return isinstance(agent, str) and any(name in agent.lower() for name in _AGENTS)


@rule(
    where=_is_scanner,
    group=["details.sourceipaddress"],
    quiet="1h",
    severity="low",
    category="web",
    tags=["attack.t1595"],
    runbook="web-scanner.md",
)
def web_scanner(found: Any) -> str:
    agents = ", ".join(found.some("details.useragent"))
    return f"{counted(found.count, 'request')} of a scanner from {found.group} ({agents})"


web_scanner.example("sqlmap", [_request("/", 200, useragent="sqlmap/1.7#stable (https://sqlmap.org)")], alerts=1)
web_scanner.example("a browser", [_request("/", 200, useragent="Mozilla/5.0 (X11; Linux x86_64)")], alerts=0)
web_scanner.example("without one", [_request("/", 200)], alerts=0)


def _is_attack(seen: View) -> bool:
    asked = " ".join(text for name in ("path", "query") if isinstance(text := seen.get(f"details.{name}"), str))
    if not asked:
        return False
    # Twice: what is written as %252e is a dot to whoever decodes it twice.
    plain = unquote_plus(unquote_plus(asked[:4000])).lower()
    return any(part in plain for part in _ATTACKS)


@rule(
    where=_is_attack,
    group=["details.sourceipaddress"],
    at_least=3,
    within="10m",
    quiet="1h",
    severity="medium",
    category="web",
    tags=["attack.t1190"],
    runbook="web-attack.md",
)
def web_attack(found: Any) -> str:
    paths = ", ".join(found.some("details.path"))
    tries = "tries" if found.count == 1 else "try"
    return f"{counted(found.count, 'request')} from {found.group} {tries} injection or traversal (of {paths})"


web_attack.example(
    "three kinds",
    [
        _request("/item", 200, 0, query="id=1%27%20or%201=1--"),
        _request("/..%2f..%2fetc/passwd", 404, 5),
        _request("/search", 200, 9, query="q=%253Cscript%253E"),
    ],
    alerts=1,
)
web_attack.example(
    "a search for words", [_request("/search", 200, at, query="q=union+square") for at in range(5)], alerts=0
)
web_attack.example("one", [_request("/item", 200, 0, query="id=1' or 1=1")], alerts=0)


@rule(
    where='category:web AND details.status:200 AND details.path:("/.env" OR "/.git/config" OR "/.git/HEAD"'
    ' OR "/.aws/credentials" OR "/.ssh/id_rsa" OR "/wp-config.php.bak" OR "/backup.sql" OR "/dump.sql"'
    ' OR "/actuator/env" OR "/server-status" OR "/.DS_Store" OR "/phpinfo.php" OR "/.htpasswd")',
    group=["details.sourceipaddress"],
    severity="high",
    category="web",
    tags=["attack.t1595.003"],
    runbook="web-sensitive-path.md",
)
def web_sensitive_path(found: Any) -> str:
    return f"{found.group} was given {', '.join(found.some('details.path'))}"


web_sensitive_path.example("given", [_request("/.env", 200)], alerts=1)
web_sensitive_path.example("not there", [_request("/.env", 404)], alerts=0)
web_sensitive_path.example("a page", [_request("/index.html", 200)], alerts=0)
