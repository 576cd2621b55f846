"""systemd: units that were started, stopped, restarted or failed."""

from __future__ import annotations

from logweir_workers.parsers import Fields, line_parser

_SUFFIXES = (".service", ".socket", ".timer", ".mount", ".scope", ".slice", ".target", ".path", ".swap", ".automount")
_JOBS = {
    "Started": ("start_service", "success"),
    "Finished": ("start_service", "success"),
    "Failed to start": ("start_service", "failure"),
    "Stopped": ("stop_service", "success"),
    "Reloaded": ("reload_service", "success"),
    "Failed to reload": ("reload_service", "failure"),
}


@line_parser(
    processes=("systemd", "init"),
    adds=("action", "outcome", "unit", "reason", "exitcode", "restarts"),
    # Forms of systemd's src/core/; since version 249 jobs name the unit in front of its description.
    examples=(
        (
            "Started nginx.service - A high performance web server.",
            {"action": "start_service", "outcome": "success", "unit": "nginx.service"},
        ),
        (
            "Failed to start app.service - The shop.",
            {"action": "start_service", "outcome": "failure", "unit": "app.service"},
        ),
        ("Stopped app.service - The shop.", {"action": "stop_service", "outcome": "success", "unit": "app.service"}),
        (
            "Finished logrotate.service - Rotate log files.",
            {"action": "start_service", "outcome": "success", "unit": "logrotate.service"},
        ),
        (
            "app.service: Main process exited, code=exited, status=1/FAILURE",
            {
                "action": "exit_service",
                "outcome": "failure",
                "unit": "app.service",
                "reason": "exited",
                "exitcode": "1/FAILURE",
            },
        ),
        (
            "app.service: Main process exited, code=killed, status=9/KILL",
            {
                "action": "exit_service",
                "outcome": "failure",
                "unit": "app.service",
                "reason": "killed",
                "exitcode": "9/KILL",
            },
        ),
        (
            "app.service: Failed with result 'exit-code'.",
            {"action": "exit_service", "outcome": "failure", "unit": "app.service", "reason": "exit-code"},
        ),
        (
            "app.service: Scheduled restart job, restart counter is at 3.",
            {"action": "restart_service", "unit": "app.service", "restarts": "3"},
        ),
        (
            "user@1000.service: Deactivated successfully.",
            {"action": "exit_service", "outcome": "success", "unit": "user@1000.service"},
        ),
        (
            "app.service: A process of this unit has been killed by the OOM killer.",
            {"action": "kill_process", "unit": "app.service", "reason": "out of memory"},
        ),
        ("Started Daily apt download activities.", {}),
        ("Starting nginx.service - A high performance web server...", {}),
        ("app.service: Consumed 1.234s CPU time.", {}),
        ("Reached target timers.target - Timer Units.", {}),
        ("Reloading.", {}),
    ),
)
def systemd(line: str) -> Fields | None:
    """``VERB UNIT - DESCRIPTION.`` or ``UNIT: MESSAGE``; where a line names no unit, it is left alone."""
    verb, _, rest = line.partition(" ")
    if verb == "Failed" and rest.startswith("to "):
        verb, _, rest = rest[3:].partition(" ")
        verb = f"Failed to {verb}"
    if verb in _JOBS:
        action, outcome = _JOBS[verb]
        unit = rest.partition(" - ")[0].rstrip(".")
        return {"action": action, "outcome": outcome, "unit": unit} if _is_unit(unit) else None
    unit, colon, message = line.partition(": ")
    fields = _of_unit(message) if colon and _is_unit(unit) else None
    return {**fields, "unit": unit} if fields else None


def _is_unit(name: str) -> bool:
    return name.endswith(_SUFFIXES) and " " not in name


def _of_unit(message: str) -> Fields | None:
    if message.startswith("Main process exited, code="):
        reason, _, status = message[26:].partition(", status=")
        failed = status != "0/SUCCESS"
        outcome = "failure" if failed else "success"
        return {"action": "exit_service", "outcome": outcome, "reason": reason, "exitcode": status}
    if message.startswith("Failed with result '"):
        return {"action": "exit_service", "outcome": "failure", "reason": message[20:].rstrip(".'")}
    if message == "Deactivated successfully.":
        return {"action": "exit_service", "outcome": "success"}
    if message.startswith("Scheduled restart job, restart counter is at "):
        return {"action": "restart_service", "restarts": message[45:].rstrip(".")}
    if "killed by the OOM killer" in message:
        return {"action": "kill_process", "reason": "out of memory"}
    return None
