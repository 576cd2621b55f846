"""AWS: what an attacker does first, and what nobody should do."""

from __future__ import annotations

from typing import Any

from logweir.alerts import event, rule


def _call(action: str, *, outcome: str = "success", user: str = "alice") -> dict[str, Any]:
    return event(category="cloudtrail", action=action, outcome=outcome, username=user, sourceipaddress="203.0.113.9")


@rule(
    where="details.action:(StopLogging OR DeleteTrail OR DeleteFlowLogs OR DeleteDetector OR StopConfigurationRecorder)"
    " AND details.outcome:success",
    group=["details.username"],
    severity="critical",
    category="cloud",
    tags=["attack.t1562.008"],
    runbook="cloud-trail-stopped.md",
)
def cloud_logging_stopped(found: Any) -> str:
    return f"{found.group} switched logging off in the cloud: {', '.join(found.some('details.action'))}"


cloud_logging_stopped.example("a trail", [_call("StopLogging")], alerts=1)
cloud_logging_stopped.example("not allowed", [_call("StopLogging", outcome="failure")], alerts=0)
cloud_logging_stopped.example("looked at", [_call("DescribeTrails")], alerts=0)


@rule(
    where="details.action:ConsoleLogin AND details.username:root AND details.outcome:success",
    group=["details.sourceipaddress"],
    severity="high",
    category="cloud",
    tags=["attack.t1078.004"],
    runbook="cloud-root-login.md",
)
def cloud_console_login_of_root(found: Any) -> str:
    return f"The root user of the cloud account logged in from {found.group}"


cloud_console_login_of_root.example("root", [_call("ConsoleLogin", user="root")], alerts=1)
cloud_console_login_of_root.example("root, wrongly", [_call("ConsoleLogin", user="root", outcome="failure")], alerts=0)
cloud_console_login_of_root.example("somebody else", [_call("ConsoleLogin")], alerts=0)
