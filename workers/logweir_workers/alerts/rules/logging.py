"""Somebody who wants to leave no traces: what writes logs was stopped."""

from __future__ import annotations

from typing import Any

from logweir.alerts import event, rule


def _stopped(unit: str, action: str = "stop_service") -> dict[str, Any]:
    return event(processname="systemd", hostname="web1", action=action, outcome="success", unit=unit)


@rule(
    where="details.action:stop_service AND details.unit:("
    '"auditd.service" OR "rsyslog.service" OR "syslog-ng.service" OR "systemd-journald.service" OR "filebeat.service"'
    ' OR "fluent-bit.service" OR "vector.service" OR "osqueryd.service")',
    group=["hostname"],
    severity="high",
    category="logging",
    tags=["attack.t1562.001"],
    runbook="log-service-stopped.md",
)
def log_service_stopped(found: Any) -> str:
    return f"{', '.join(found.some('details.unit'))} was stopped on {found.group}"


log_service_stopped.example("auditd", [_stopped("auditd.service")], alerts=1)
log_service_stopped.example(
    "two on one host are one alert", [_stopped("auditd.service"), _stopped("rsyslog.service")], alerts=1
)
log_service_stopped.example("a web server", [_stopped("nginx.service")], alerts=0)
log_service_stopped.example("started", [_stopped("auditd.service", "start_service")], alerts=0)
