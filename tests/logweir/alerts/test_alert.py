"""What people change of an alert: by whom, when, from what to what; and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from logweir.alerts import alert
from logweir.alerts.alert import ALERTS, HISTORY_MAX, NOTES_MAX, Reason
from logweir.errors import ALERT_UNFIT, ALERT_UNKNOWN, PARAMETER_BAD, LogweirError
from logweir.store.port import Store

NOW_US = 1_769_860_800_000_000
ENGINES = {
    "kind": "alert",
    "rule": "some_rule",
    "severity": "high",
    "summary": "x",
    "group": {"hostname": "web1"},
    "count": 3,
    "updated": "2026-01-31T12:00:00Z",
    "completeness": {"state": "complete"},
}


@pytest.fixture
def documents(store: Store) -> Any:
    for id in ("abc1-1", "abc2-1"):
        body = {**alert.opened(id, created_us=NOW_US), **ENGINES}
        store.documents.put(ALERTS, id, body, version=None)
    return store.documents


def test_each_change_has_its_line_in_the_history(documents: Any) -> None:
    """Who acknowledges looks after it; assigning, notes, snoozing, closing and reopening follow."""
    changes = [
        alert.acknowledge("anna", NOW_US),
        alert.assign("anna", NOW_US, to="bert"),
        alert.note("bert", NOW_US, text="  looked at it "),
        alert.snooze("bert", NOW_US, until_us=NOW_US + 3_600_000_000),
        alert.close("bert", NOW_US + 1, reason=Reason.BENIGN, comment="a scan"),
        alert.reopen("anna", NOW_US + 2),
    ]
    for change in changes:
        body = alert.change(documents, "abc1-1", change).body

    assert (body["status"], body["assignee"], body["closed"], body["snoozed_until"]) == ("open", "bert", None, None)
    assert [(line["by"], line["change"]) for line in body["history"]] == [
        ("logweir", "opened"),
        ("anna", "status"),
        ("anna", "assignee"),
        ("bert", "note"),
        ("bert", "status"),
        ("bert", "status"),
        ("anna", "status"),
    ]
    assert [(line.get("before"), line.get("after")) for line in body["history"][4:]] == [
        ("acknowledged", "snoozed"),
        ("snoozed", "closed"),
        ("closed", "open"),
    ]
    assert body["history"][5]["reason"] == "benign"
    assert body["notes"] == [{"time": "2026-01-31T12:00:00Z", "by": "bert", "text": "looked at it"}]
    assert {name: body[name] for name in ENGINES} == ENGINES


@pytest.mark.parametrize("change", [alert.acknowledge("anna", NOW_US), alert.close("anna", NOW_US, reason=Reason.TEST)])
def test_what_is_closed_is_reopened_first(documents: Any, change: alert.Change) -> None:
    alert.change(documents, "abc1-1", alert.close("anna", NOW_US, reason=Reason.TEST))
    with pytest.raises(LogweirError) as error:
        alert.change(documents, "abc1-1", change)

    assert error.value.problem is ALERT_UNFIT
    assert "Reopen it" in str(error.value)


def test_changes_that_mean_nothing_are_refused(documents: Any) -> None:
    """An open alert is not reopened; notes have words, and an end; nobody snoozes until yesterday."""
    for problem, make in (
        (ALERT_UNFIT, lambda: alert.change(documents, "abc1-1", alert.reopen("anna", NOW_US))),
        (PARAMETER_BAD, lambda: alert.note("anna", NOW_US, text=" ")),
        (PARAMETER_BAD, lambda: alert.note("anna", NOW_US, text="x" * 4001)),
        (PARAMETER_BAD, lambda: alert.snooze("anna", NOW_US, until_us=NOW_US)),
        (ALERT_UNKNOWN, lambda: alert.change(documents, "abc9-1", alert.reopen("anna", NOW_US))),
    ):
        with pytest.raises(LogweirError) as error:
            make()
        assert error.value.problem is problem


def test_notes_and_history_have_an_end(documents: Any) -> None:
    """A note too many is refused; of too long a history the beginning and the latest lines stay, and how many went."""
    body = documents.get(ALERTS, ["abc1-1"])["abc1-1"].body
    for number in range(NOTES_MAX):
        body = alert.note("anna", NOW_US, text=str(number))(body)
    with pytest.raises(LogweirError):
        alert.note("anna", NOW_US, text="one more")(body)
    for _ in range(HISTORY_MAX):
        body = alert.with_line(body, {"change": "again"})

    assert len(body["history"]) == HISTORY_MAX
    assert body["history"][0]["change"] == "opened"
    assert body["history"][1] == {"change": "left out", "left_out": NOTES_MAX + 2}


def test_an_alert_is_found_by_the_beginning_of_its_id(documents: Any) -> None:
    """If only one begins so."""
    assert alert.find(documents, "abc1").id == "abc1-1"
    assert alert.find(documents, "abc2-1").id == "abc2-1"
    for id in ("abc", "abd", ""):
        with pytest.raises(LogweirError) as error:
            alert.find(documents, id)
        assert error.value.problem is ALERT_UNKNOWN
