"""Dead letters and refused bodies, as people and other programs read them."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import orjson

from logweir.clock import iso_seconds
from logweir.config import StoreSettings
from logweir.errors import DEAD_LETTERS_FULL, LogweirError
from logweir.outcomes import DeadLetterReason
from logweir.store.port import DeadLetter, Held, LetterFilter, Store
from logweir.text import printable, safe_json

REFUSED = DeadLetterReason.BODY_REFUSED.value
"""The reason of refused bodies: they are no dead letters, as they were never accepted, but are kept beside them."""
OF_EVENTS = tuple(reason.value for reason in DeadLetterReason if reason is not DeadLetterReason.BODY_REFUSED)
"""The reasons of dead letters."""

_PAGE = 200


def divided(counts: Mapping[str, Held]) -> tuple[Held, Held]:
    """Of what the store counts by reason: the dead letters, and the refused bodies."""
    refused = counts.get(REFUSED, Held(0, 0))
    letters = sum(held.letters for held in counts.values()) - refused.letters
    size_bytes = sum(held.size_bytes for held in counts.values()) - refused.size_bytes
    return Held(letters, size_bytes), refused


def full(held: Held, settings: StoreSettings) -> LogweirError:
    """The problem of a store without room for another dead letter."""
    return LogweirError(
        DEAD_LETTERS_FULL,
        letters=held.letters,
        letters_max=settings.dead_letters_max,
        size_bytes=held.size_bytes,
        size_bytes_max=settings.dead_letters_size_bytes_max,
    )


def pages(store: Store, wanted: LetterFilter, *, size: int | None = None) -> Iterator[list[DeadLetter]]:
    """Pages of together at most ``size`` letters, newest first; those that are deleted meanwhile are passed over."""
    behind: DeadLetter | None = None
    left = size
    while left is None or left > 0:
        page = store.dead_letters.page(size=_PAGE if left is None else min(left, _PAGE), wanted=wanted, behind=behind)
        if not page:
            return
        yield page
        behind = replace(page[-1], raw=b"")
        left = None if left is None else left - len(page)


def as_json(letter: DeadLetter) -> dict[str, Any]:
    """All of the letter. ``raw`` is base64; ``text`` is there too when the bytes are UTF-8."""
    document = {"id": letter.id, "time": received(letter), **letter.body, "raw": base64.b64encode(letter.raw).decode()}
    try:
        return {**document, "text": letter.raw.decode()}
    except UnicodeDecodeError:
        return document


def as_text(letter: DeadLetter) -> str:
    """A line on what and why, one on where it came from, and its bytes on one line, safe for a terminal."""
    body = letter.body
    what = f"{received(letter)}  {letter.reason}  {printable(body.get('stage'))}  {printable(body.get('error'))}"
    sender = f"key {printable(body.get('key'))}, from {printable(body.get('source_address'))}"
    place = f"partition {printable(body.get('partition'))}, offset {printable(body.get('offset'))}"
    raw = printable(letter.raw.decode(errors="backslashreplace"))
    return f"{what}\n    id {printable(letter.id)}, {sender}, {place}\n    {raw}"


def as_page(letter: DeadLetter) -> str:
    """Everything that is known of the letter, a line each, and its bytes, safe for a terminal."""
    rows = {"id": letter.id, "received": received(letter), **letter.body}
    width = max(map(len, rows))
    lines = [f"{name:<{width}}  {printable(value)}" for name, value in rows.items()]
    text = letter.raw.decode(errors="backslashreplace").splitlines()
    return "\n".join([*lines, "", *(f"    {printable(line)}" for line in text)])


def as_event(letter: DeadLetter) -> bytes:
    """The letter as one line of JSON that a door takes: the event as it was sent, where that is a JSON object.

    Anything else becomes an event that carries it: its text as the summary, or its bytes as base64 under details.
    """
    try:
        if isinstance(orjson.loads(letter.raw), dict):
            # Only white space between the tokens of valid JSON can be a line break.
            line = letter.raw.replace(b"\r", b" ").replace(b"\n", b" ").strip() + b"\n"
            return safe_json(line.decode()).encode()
    except orjson.JSONDecodeError:
        pass
    known = {"id": letter.id, "reason": letter.reason, "error": str(letter.body.get("error"))}
    event: dict[str, Any] = {"tags": ["dead_letter"], "details": {"dead_letter": known}}
    try:
        event["summary"] = letter.raw.decode()
    except UnicodeDecodeError:
        known["raw"] = base64.b64encode(letter.raw).decode()
    return safe_json(orjson.dumps(event, option=orjson.OPT_APPEND_NEWLINE).decode()).encode()


def received(letter: DeadLetter) -> str:
    """When it was received: ISO 8601 in UTC."""
    return iso_seconds(letter.received_us)
