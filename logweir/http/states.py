"""The states of a connection: what may happen in each, and what follows."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """Each has a time limit of its own, but for what the application is asked and what it waits for."""

    NEW = "new"
    """Nothing has come yet. It is closed after ``header_timeout_s``."""
    IDLE = "idle"
    """The last message has come whole. It is closed ``idle_timeout_s`` after the last answer."""
    HEADERS = "headers"
    """A message has begun. It is answered 408 after ``header_timeout_s``."""
    BODY = "body"
    """The headers of a message have ended. It is answered 408 after ``body_timeout_s``."""
    REFUSED = "refused"
    """Nothing is read any more. The last answer, a refusal, waits for those to earlier requests."""
    LINGERING = "lingering"
    """The last answer is written. What still comes is read for a while and thrown away: see protocol.py."""
    CLOSING = "closing"
    """What is written is being sent. The connection is cut after ``read_timeout_s``."""
    CLOSED = "closed"
    """The connection is lost."""


class Event(StrEnum):
    """What may happen to a connection."""

    BEGIN = "begin"
    """A message begins."""
    HEADERS_END = "headers end"
    """Its headers end."""
    END = "end"
    """Its body ends, if there is any."""
    REFUSE = "refuse"
    """It is refused, or what came is no message."""
    LINGER = "linger"
    """The refusal is written, and the client is to come back later."""
    CLOSE = "close"
    """The last answer is written, or none is due."""
    LOSE = "lose"
    """The connection is lost."""


class StateError(Exception):
    """What cannot happen in a state has happened: a fault of ours, which costs the connection."""


# By themselves, for Python 3.11 takes longer to look a member up than to compare it.
NEW, IDLE, HEADERS, BODY, REFUSED, LINGERING, CLOSING, CLOSED = State
BEGIN, HEADERS_END, END, REFUSE, LINGER, CLOSE, LOSE = Event

OPEN = frozenset({NEW, IDLE, HEADERS, BODY})
"""In which the connection reads what comes."""

_ENDS = {REFUSE: REFUSED, CLOSE: CLOSING, LOSE: CLOSED}
AFTER: dict[State, dict[Event, State]] = {
    NEW: {BEGIN: HEADERS, **_ENDS},
    IDLE: {BEGIN: HEADERS, **_ENDS},
    # It begins again when its wish for another protocol is not followed.
    HEADERS: {BEGIN: HEADERS, HEADERS_END: BODY, **_ENDS},
    BODY: {END: IDLE, **_ENDS},
    REFUSED: {LINGER: LINGERING, CLOSE: CLOSING, LOSE: CLOSED},
    LINGERING: {CLOSE: CLOSING, LOSE: CLOSED},
    CLOSING: {LOSE: CLOSED},
    CLOSED: {},
}


def after(state: State, event: Event) -> State:
    """The state that follows. Raises StateError when the event cannot happen in this one."""
    try:
        return AFTER[state][event]
    except KeyError:
        raise StateError(f"{event} in the state {state}") from None
