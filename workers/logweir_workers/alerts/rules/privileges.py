"""Who tries to become somebody else: sudo and su that were refused."""

from __future__ import annotations

from typing import Any

from logweir.alerts import counted, event, rule


def _tried(action: str, outcome: str, at: float, *, user: str = "bob") -> dict[str, Any]:
    process = "sudo" if action == "run_command" else "su"
    details = {"action": action, "outcome": outcome, "username": user, "targetusername": "root"}
    return event(processname=process, hostname="web1", details=details, at=at)


@rule(
    where="processname:sudo AND details.action:run_command AND details.outcome:failure",
    group=["details.username", "hostname"],
    at_least=3,
    within="10m",
    severity="medium",
    category="authentication",
    tags=["attack.t1548.003"],
    runbook="refused-privileges.md",
)
def sudo_failures(found: Any) -> str:
    user, host = found.values["details.username"], found.values["hostname"]
    return f"sudo refused {user} on {host} {counted(found.count, 'time')}"


sudo_failures.example("three in two minutes", [_tried("run_command", "failure", at * 60) for at in range(3)], alerts=1)
sudo_failures.example("two", [_tried("run_command", "failure", at * 60) for at in range(2)], alerts=0)
sudo_failures.example("three that were let", [_tried("run_command", "success", at) for at in range(3)], alerts=0)


@rule(
    where="details.action:switch_user AND details.outcome:failure",
    group=["details.username", "hostname"],
    at_least=3,
    within="10m",
    severity="medium",
    category="authentication",
    tags=["attack.t1548"],
    runbook="refused-privileges.md",
)
def su_failures(found: Any) -> str:
    user, host = found.values["details.username"], found.values["hostname"]
    targets = ", ".join(found.some("details.targetusername"))
    return f"su refused {user} on {host} {counted(found.count, 'time')} (to {targets})"


su_failures.example("three in two minutes", [_tried("switch_user", "failure", at * 60) for at in range(3)], alerts=1)
su_failures.example(
    "one each of three", [_tried("switch_user", "failure", at, user=f"u{at}") for at in range(3)], alerts=0
)
