"""A line as a syslog daemon writes it, taken apart: RFC 3164 and RFC 5424.

The expressions know at each character which part it belongs to, and every part but the message has a greatest length: a
line costs its length once, whatever stands in it.
"""

from __future__ import annotations

import re
from typing import NamedTuple

# RFC 3164 section 4.1 as /var/log has it, and with ISO 8601 times: "<PRI>TIME HOST TAG[PID]: MESSAGE".
_RFC_3164 = re.compile(
    r"(?:<([0-9]{1,3})>)?([A-Z][a-z]{2} [ 0-9]?[0-9] [0-9:]{8}|[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}[^ ]{0,20}) "
    r"([^ \[]{1,255}) ([^ \[:]{1,128})(?:\[([0-9]{1,10})\])?: (.*)",
    re.DOTALL,
)

# RFC 5424 section 6: "<PRI>1 TIME HOST APP PROCID MSGID STRUCTURED-DATA MESSAGE".
_RFC_5424 = re.compile(
    r"<([0-9]{1,3})>1 ([^ ]{1,40}) ([^ ]{1,255}) ([^ ]{1,48}) ([^ ]{1,128}) [^ ]{1,32} "
    r"(?:-|(?:\[(?:[^\]\\]|\\.)*+\])++)(?: (?:\ufeff)?(.*)|)",
    re.DOTALL,
)


class Line(NamedTuple):
    """The parts of a line, each as it was written."""

    pri: str | None
    """Of a line that begins with one, its digits."""
    time: str
    host: str
    process: str
    process_id: str | None
    message: str


def line_of(text: str) -> Line | None:
    """The parts of a whole line, with or without its PRI; None when it is no line of syslog."""
    found = _RFC_3164.fullmatch(text) or _RFC_5424.fullmatch(text)
    if found is None:
        return None
    pri, time, host, process, process_id, message = found.groups()
    return Line(pri, time, host, process, process_id, message or "")
