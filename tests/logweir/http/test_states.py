"""The table of a connection's states."""

from __future__ import annotations

import pytest

from logweir.http.states import AFTER, CLOSED, NEW, OPEN, Event, State, StateError, after


def test_each_state_can_be_reached_and_ends() -> None:
    """None is dead, and a lost connection is lost in whatever state it is."""
    reached, left = {NEW}, [NEW]
    while left:
        new = set(AFTER[left.pop()].values()) - reached
        reached |= new
        left += new

    assert reached == set(State) == set(AFTER)
    assert all(after(state, Event.LOSE) is CLOSED for state in State if state is not CLOSED)


def test_nothing_is_read_in_a_state_that_is_not_open() -> None:
    """A message begins, goes on and ends in open states alone, and none of the others leads back to one."""
    for state in State:
        if state not in OPEN:
            assert not set(AFTER[state].values()) & OPEN
            assert not {Event.BEGIN, Event.HEADERS_END, Event.END} & AFTER[state].keys()


@pytest.mark.parametrize("state", State)
def test_what_is_not_in_the_table_cannot_happen(state: State) -> None:
    """It is a fault of ours, by name."""
    for event in set(Event) - AFTER[state].keys():
        with pytest.raises(StateError, match=f"^{event} in the state {state}$"):
            after(state, event)
