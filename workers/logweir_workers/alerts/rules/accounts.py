"""Accounts that come about, and those that get more rights."""

from __future__ import annotations

from typing import Any

from logweir.alerts import event, rule


def _changed(action: str, *, group: str | None = None, outcome: str = "success") -> dict[str, Any]:
    details = {"action": action, "outcome": outcome, "targetusername": "mallory"}
    return event(
        processname="useradd", hostname="web1", details=details if group is None else {**details, "group": group}
    )


@rule(
    where="details.action:add_user AND details.outcome:success",
    group=["hostname"],
    severity="medium",
    category="accounts",
    tags=["attack.t1136.001"],
    runbook="account-added.md",
)
def user_added(found: Any) -> str:
    return f"User {', '.join(found.some('details.targetusername'))} was added on {found.group}"


user_added.example("a user", [_changed("add_user")], alerts=1)
user_added.example("one that could not be", [_changed("add_user", outcome="failure")], alerts=0)
user_added.example("a group", [_changed("add_group", group="devs")], alerts=0)


@rule(
    where="details.action:add_to_group AND details.outcome:success AND "
    "details.group:(sudo OR wheel OR admin OR root OR adm OR docker OR lxd OR disk OR shadow)",
    group=["hostname"],
    severity="high",
    category="accounts",
    tags=["attack.t1098"],
    runbook="account-added.md",
)
def added_to_admin_group(found: Any) -> str:
    users, groups = (", ".join(found.some(f"details.{name}")) for name in ("targetusername", "group"))
    return f"{users} got into the group {groups} on {found.group}"


added_to_admin_group.example("into sudo", [_changed("add_to_group", group="sudo")], alerts=1)
added_to_admin_group.example("into another one", [_changed("add_to_group", group="games")], alerts=0)
added_to_admin_group.example("out of it", [_changed("remove_from_group", group="sudo")], alerts=0)
