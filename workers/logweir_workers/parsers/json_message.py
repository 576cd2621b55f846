"""json_message: an object of JSON that came as the text of a message, also behind syslog's ``@cee:``."""

from __future__ import annotations

from logweir_workers.decode import EventUnreadable, event_of
from logweir_workers.normalise.fields import details_of
from logweir_workers.parsers import ANY, FIELDS_MAX, Fields, line_parser

LENGTH_MAX = 65_536
"""A longer text stays text: what it says would be stored twice."""


@line_parser(
    is_exact=True,
    begins=("{", "@cee:"),
    adds=(ANY,),
    examples=(
        ('{"level": "error", "user": "alice", "took": 0.25}', {"level": "error", "username": "alice", "took": 0.25}),
        ('@cee: {"action": "login", "src_ip": "192.0.2.7"}', {"action": "login", "sourceipaddress": "192.0.2.7"}),
        ('@cee:{"a": {"b": [1, null]}}', {"a": {"b": [1, None]}}),
        (
            '{"status": "ok", "http": {"response": {"status_code": 200}}}',
            {"status": "ok", "http": {"response": {"status_code": 200}}},
        ),
        ('{"big": 123456789012345678901234567890}', {"big": "123456789012345678901234567890"}),
        ("{}", {}),
        ('{"a": 1} and more', {}),
        ('{"a": 1', {}),
        ('{"a": nan}', {}),
        ("{user} logged in", {}),
        ("{'a': 1}", {}),
        ("@cee: nothing", {}),
    ),
)
def json_message(line: str) -> Fields | None:
    """The members of the object; the message stays as it is."""
    if line.startswith("@cee:"):
        line = line[5:]
    line = line.strip()
    if line[:1] != "{" or line[-1:] != "}" or len(line) > LENGTH_MAX or line[1:].lstrip()[:1] != '"':
        return None
    try:
        members = event_of(line.encode())
    except EventUnreadable:
        return None
    return details_of(members) if len(members) <= FIELDS_MAX else None
