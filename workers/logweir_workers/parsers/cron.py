"""cron: commands that were run by the clock, and whose table was changed."""

from __future__ import annotations

from logweir_workers.parsers import Fields, line_parser

_ACTIONS = {
    "CMD": "run_command",
    "BEGIN EDIT": "edit_crontab",
    "REPLACE": "replace_crontab",
    "LIST": "list_crontab",
    "DELETE": "delete_crontab",
    "RELOAD": "reload_crontab",
    "CMDEND": "end_command",
    "AUTH": "user_not_allowed",
}


@line_parser(
    processes=("cron", "crond", "crontab", "cronie", "anacron", "fcron"),
    adds=("action", "outcome", "username", "command", "targetusername", "reason"),
    # Forms of Vixie's cron (misc.c, log_it), which Debian's and cronie share.
    examples=(
        (
            "(root) CMD (   cd / && run-parts --report /etc/cron.hourly)",
            {"action": "run_command", "username": "root", "command": "cd / && run-parts --report /etc/cron.hourly"},
        ),
        (
            "(alice) CMD (echo (nested) > /dev/null)",
            {"action": "run_command", "username": "alice", "command": "echo (nested) > /dev/null"},
        ),
        ("(alice) BEGIN EDIT (alice)", {"action": "edit_crontab", "username": "alice", "targetusername": "alice"}),
        ("(root) REPLACE (alice)", {"action": "replace_crontab", "username": "root", "targetusername": "alice"}),
        ("(alice) LIST (alice)", {"action": "list_crontab", "username": "alice", "targetusername": "alice"}),
        ("(alice) RELOAD (crontabs/alice)", {"action": "reload_crontab", "username": "alice"}),
        (
            "(bob) AUTH (crontab command not allowed)",
            {
                "action": "user_not_allowed",
                "outcome": "failure",
                "username": "bob",
                "reason": "crontab command not allowed",
            },
        ),
        ("(CRON) INFO (Running @reboot jobs)", {}),
        ("(CRON) error (grandchild #77 failed with exit status 1)", {}),
        ("Job `cron.daily' started", {}),
        ("(root) CMD", {}),
        ("(a) b (c)", {}),
    ),
)
def cron(line: str) -> Fields | None:
    """``(USER) WHAT (DETAIL)``"""
    user, found, rest = line.partition(") ")
    what, also_found, detail = rest.partition(" (")
    action = _ACTIONS.get(what)
    if not (found and also_found and action and user.startswith("(") and detail.endswith(")")):
        return None
    detail = detail[:-1].strip(" ")
    fields: Fields = {"action": action, "username": user[1:]}
    if what in ("CMD", "CMDEND"):
        fields["command"] = detail
    elif what == "AUTH":
        fields["outcome"], fields["reason"] = "failure", detail
    elif what != "RELOAD":
        fields["targetusername"] = detail
    return fields
