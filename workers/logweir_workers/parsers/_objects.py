"""What several parsers need to look into objects that may have any form."""

from __future__ import annotations

from typing import Any


def at(value: Any, *path: str | int) -> Any:
    """What is at ``path``, names of members and places in lists; None where something else is on the way."""
    for step in path:
        if type(step) is str and type(value) is dict:
            value = value.get(step)
        elif type(step) is int and type(value) is list and step < len(value):
            value = value[step]
        else:
            return None
    return value


def text_at(value: Any, *path: str | int) -> str | None:
    """The text at ``path``; None where there is none."""
    found = at(value, *path)
    return found if type(found) is str else None
