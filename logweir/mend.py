"""JSON that one well-known template of syslog daemons breaks, mended where it can be meant in one way only.

    {"structured data":"[origin software="x"]","message":"…"}

RFC 5424's structured data have quotes of their own, and stand there unescaped. Workers mend such events; doors judge by
the same function what becomes of an event that they cannot read. So what is mended must be mended alike for good, and
what doors have let in as unreadable must not become readable by a later change: nobody has judged its category.
"""

from __future__ import annotations

import json
import re

# RFC 5424 section 6.3: in a value '"', '\' and ']' are escaped, so where each element ends is beyond doubt.
_NAME = rb"[!#-<>-\\^-~]{1,32}"
_ELEMENT = rb'\[%b(?: %b="(?:[^"\\\]\x00-\x1f]|\\[^\x00-\x1f])*+")*+\]' % (_NAME, _NAME)
_NAMED = rb'(?<=[{, \t\r\n])"[\w .@-]{0,32}structured[ ._-]?data"[ \t]*:[ \t]*'
_MEMBER = re.compile(rb'%b"(?P<data>(?:%b)++)"(?=[ \t\r\n]*[,}])' % (_NAMED, _ELEMENT), re.IGNORECASE)
_MEMBER_NAME = re.compile(_NAMED, re.IGNORECASE)


def mended(raw: bytes) -> bytes | None:
    """The bytes with the quotes of their structured data escaped; None unless there is just one such place.

    Whether the result is JSON remains to be seen: anything else that is wrong with it is wrong still.
    """
    member = _MEMBER.search(raw)
    if member is None or len(_MEMBER_NAME.findall(raw)) != 1:
        return None
    try:
        data = member["data"].decode()
    except UnicodeDecodeError:
        return None
    start, end = member.span("data")
    return raw[: start - 1] + json.dumps(data, ensure_ascii=False).encode() + raw[end + 1 :]
