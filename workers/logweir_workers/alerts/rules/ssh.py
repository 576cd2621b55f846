"""Logins by ssh: guessed passwords, and whether one was right."""

from __future__ import annotations

from typing import Any

from logweir.alerts import counted, event, rule, step

_SSHD = 'processname:(sshd OR "sshd-session" OR "sshd-auth") AND details.action:login'
_FAILED = f"{_SSHD} AND details.outcome:failure"
_ACCEPTED = f"{_SSHD} AND details.outcome:success"


def _login(outcome: str, at: float, *, user: str = "root", address: str = "203.0.113.9") -> dict[str, Any]:
    return event(
        processname="sshd",
        hostname="web1",
        action="login",
        outcome=outcome,
        username=user,
        sourceipaddress=address,
        at=at,
    )


@rule(
    where=_FAILED,
    group=["details.sourceipaddress"],
    at_least=10,
    within="2m",
    severity="high",
    category="authentication",
    tags=["attack.t1110"],
    runbook="ssh-brute-force.md",
)
def ssh_brute_force(found: Any) -> str:
    logins, hosts = counted(found.count, "failed ssh login"), counted(found.distinct("hostname"), "host")
    return f"{logins} from {found.group} on {hosts}"


ssh_brute_force.example("ten in a minute", [_login("failure", at * 6) for at in range(10)], alerts=1)
ssh_brute_force.example("nine are few", [_login("failure", at * 6) for at in range(9)], alerts=0)
ssh_brute_force.example("ten in an hour are slow", [_login("failure", at * 360) for at in range(10)], alerts=0)
ssh_brute_force.example(
    "ten addresses with one each",
    [_login("failure", at, address=f"203.0.113.{at}") for at in range(10)],
    alerts=0,
)
ssh_brute_force.example("ten that are right", [_login("success", at) for at in range(10)], alerts=0)


@rule(
    where=_FAILED,
    group=["details.username"],
    distinct="details.sourceipaddress",
    at_least=10,
    within="10m",
    severity="high",
    category="authentication",
    tags=["attack.t1110"],
    runbook="ssh-brute-force.md",
)
def ssh_brute_force_of_a_user(found: Any) -> str:
    addresses = counted(found.distinct("details.sourceipaddress"), "address", plural="addresses")
    return f"{counted(found.count, 'failed ssh login')} as {found.group} from {addresses}"


ssh_brute_force_of_a_user.example(
    "ten addresses", [_login("failure", at * 30, address=f"203.0.113.{at}") for at in range(10)], alerts=1
)
ssh_brute_force_of_a_user.example("one address", [_login("failure", at * 5) for at in range(30)], alerts=0)


@rule(
    steps=[step(_FAILED, at_least=5), step(_ACCEPTED)],
    in_order=True,
    within="30m",
    group=["details.sourceipaddress"],
    severity="critical",
    category="authentication",
    tags=["attack.t1110", "attack.t1078"],
    runbook="ssh-login-after-failures.md",
)
def ssh_login_after_failures(found: Any) -> str:
    users = ", ".join(found.some("details.username"))
    return f"An ssh login from {found.group} succeeded after failures (users tried: {users})"


ssh_login_after_failures.example(
    "right at the sixth time", [*(_login("failure", at * 5) for at in range(5)), _login("success", 60)], alerts=1
)
ssh_login_after_failures.example(
    "two slips of the pen", [_login("failure", 0), _login("failure", 5), _login("success", 10)], alerts=0
)
ssh_login_after_failures.example(
    "first right, then wrong", [_login("success", 0), *(_login("failure", 10 + at) for at in range(5))], alerts=0
)
ssh_login_after_failures.example(
    "from another address",
    [*(_login("failure", at) for at in range(9)), _login("success", 20, address="198.51.100.1")],
    alerts=0,
)


@rule(
    where=f"{_ACCEPTED} AND details.username:root",
    new="details.sourceipaddress",
    group=["hostname"],
    learn="1d",
    severity="medium",
    category="authentication",
    tags=["attack.t1078"],
    runbook="ssh-login-of-root.md",
)
def ssh_login_of_root(found: Any) -> str:
    return (
        f"root logged in by ssh on {found.group} from {', '.join(found.some('details.sourceipaddress'))}, a new address"
    )


_DAY = 86_400
_USUAL = [_login("success", at * _DAY / 2, address="192.0.2.5") for at in range(4)]
ssh_login_of_root.example("a new address", [*_USUAL, _login("success", 3 * _DAY)], alerts=1)
ssh_login_of_root.example("the usual one", [*_USUAL, _login("success", 3 * _DAY, address="192.0.2.5")], alerts=0)
ssh_login_of_root.example("somebody else", [*_USUAL, _login("success", 3 * _DAY, user="alice")], alerts=0)
ssh_login_of_root.example("not yet learned", [_login("success", at * 60) for at in range(3)], alerts=0)
