"""audisp_json: the events of audisp-json, which sends Linux' audit to MozDef and to us as objects."""

from __future__ import annotations

from logweir_workers.parsers import Event, Fields, event_parser

_ACTIONS = {"execve": "execute"}


@event_parser(
    processes=("audisp-json",),
    adds=("action", "outcome", "command", "executable", "originaluser"),
    # Its messages_format.md: the category is the kind of call, process the file of the program.
    examples=(
        (
            {
                "category": "EXECVE",
                "processname": "audisp-json",
                "summary": "Execve: sudo cat /etc/passwd",
                "details": {
                    "auditserial": "2939394",
                    "username": "root",
                    "auditedusername": "alice",
                    "process": "/bin/cat",
                    "parentprocess": "sudo",
                    "success": "yes",
                },
            },
            {
                "action": "execute",
                "outcome": "success",
                "command": "sudo cat /etc/passwd",
                "executable": "/bin/cat",
                "originaluser": "alice",
            },
        ),
        (
            {
                "category": "CHMOD",
                "processname": "audisp-json",
                "summary": "Chmod: /etc/shadow",
                "details": {"process": "/bin/chmod", "originaluser": "bob", "success": "no"},
            },
            {"action": "chmod", "outcome": "failure", "executable": "/bin/chmod"},
        ),
        ({"processname": "audisp-json", "summary": "could not connect"}, {}),
        ({"processname": "audisp-json", "category": "audit", "summary": "x", "details": {"a": 1}}, {}),
    ),
)
def audisp_json(event: Event) -> Fields | None:
    """What the category, the summary and the details say, under the names of known details."""
    details = event.get("details", {})
    category = event.get("category", "").lower()
    executable = details.get("process")
    if not category or type(executable) is not str:
        return None
    what, colon, command = event.get("summary", "").partition(": ")
    return {
        "action": _ACTIONS.get(category, category),
        "outcome": {"yes": "success", "no": "failure"}.get(str(details.get("success"))),
        "command": command if colon and what.lower() == "execve" else None,
        "executable": executable,
        "originaluser": details.get("auditedusername"),
    }
