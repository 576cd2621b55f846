"""What people change of an alert: by whom, when, from what to what; and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from logweir.alerts import alert
from logweir.alerts.alert import ALERTS, HISTORY_MAX, NOTES_MAX, Reason
from logweir.errors import ALERT_AMBIGUOUS, ALERT_UNFIT, ALERT_UNKNOWN, PARAMETER_BAD, LogweirError
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
    assert (body["history"][5]["reason"], body["history"][5]["comment"]) == ("benign", "a scan")
    assert [alert.sentence(one) for one in body["history"]] == [
        "logweir opened it",
        "anna acknowledged it",
        "anna assigned it to bert instead of anna",
        "bert wrote a note",
        "bert snoozed it until 2026-01-31T13:00:00Z",
        "bert closed it as benign: a scan",
        "anna reopened it",
    ]
    assert body["notes"] == [{"time": "2026-01-31T12:00:00Z", "by": "bert", "text": "looked at it"}]
    assert {name: body[name] for name in ENGINES} == ENGINES


def test_a_snooze_ends_and_the_alert_is_what_it_was_before(documents: Any) -> None:
    """Open, or acknowledged with its assignee, also when it was snoozed twice; not before its time."""
    until_us = NOW_US + 60_000_000
    alert.change(documents, "abc1-1", alert.snooze("bert", NOW_US, until_us=until_us))
    alert.change(documents, "abc2-1", alert.acknowledge("anna", NOW_US))
    alert.change(documents, "abc2-1", alert.snooze("anna", NOW_US, until_us=until_us + 3_600_000_000))
    alert.change(documents, "abc2-1", alert.snooze("anna", NOW_US, until_us=until_us))

    def statuses_at(now_us: int) -> list[str]:
        alert.end_snoozes(documents, now_us)
        return [documents.get(ALERTS, [id])[id].body["status"] for id in ("abc1-1", "abc2-1")]

    assert statuses_at(until_us - 1_000_000) == ["snoozed", "snoozed"]
    assert statuses_at(until_us) == ["open", "acknowledged"]
    body = documents.get(ALERTS, ["abc2-1"])["abc2-1"].body
    assert (body["assignee"], body["snoozed_until"]) == ("anna", None)
    assert alert.sentence(body["history"][-1]) == "the snooze ended; it is acknowledged again"
    assert documents.search(ALERTS, alert.query_of("status:open", with_closed=False), size=9).total == 1
    alert.end_snoozes(documents, until_us)
    assert documents.get(ALERTS, ["abc2-1"])["abc2-1"].body == body


def test_snoozes_end_beyond_the_first_page(documents: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that have ended may stand behind many that have not."""
    monkeypatch.setattr(alert, "_AT_ONCE", 1)
    for number in range(5):
        body = {**alert.opened(f"many{number}", created_us=NOW_US), **ENGINES}
        documents.put(ALERTS, f"many{number}", body, version=None)
        end_us = NOW_US + (1 if number % 2 else 3600) * 1_000_000
        alert.change(documents, f"many{number}", alert.snooze("anna", NOW_US, until_us=end_us))
    alert.end_snoozes(documents, NOW_US + 1_000_000)
    found = documents.search(ALERTS, alert.query_of("status:snoozed", with_closed=False), size=9)

    assert sorted(one.id for one in found.documents) == ["many0", "many2", "many4"]


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


def test_notes_fill_no_document(documents: Any) -> None:
    """Whatever they hold: an alert whose document is full could not be changed any more."""
    body = documents.get(ALERTS, ["abc1-1"])["abc1-1"].body
    with pytest.raises(LogweirError, match="at most 262144 bytes"):
        for _ in range(NOTES_MAX):
            body = alert.note("anna", NOW_US, text="\x01€" * 2000)(body)

    assert 10 < len(body["notes"]) < NOTES_MAX


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


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"change": "kind", "before": "near_miss", "after": "alert"}, "logweir made an alert of the near miss"),
        (
            {"change": "kind", "before": "alert", "after": "shadow"},
            "logweir made a shadowed rule's finding of the alert",
        ),
        ({"change": "went quiet", "count": 1}, "it went quiet after 1 event"),
        ({"change": "goes on", "count": 1200}, "it goes on, with 1,200 events"),
        ({"change": "completeness", "before": "open", "after": "incomplete"}, "it is incomplete: events are missing"),
        ({"change": "completeness", "before": "incomplete", "after": "complete"}, "it is complete: nothing is missing"),
        (
            {"change": "completeness", "before": "incomplete", "after": "open"},
            "whether it is complete is not known yet",
        ),
        ({"change": "came after all", "before": 5, "after": 2}, "events came after all: 2 are missing, and not 5"),
        ({"change": "came after all", "before": 5, "after": 0}, "all 5 missing events came after all"),
        ({"change": "status", "after": "closed", "merged_into": "ab-1"}, "logweir closed it: it is a part of ab-1"),
    ],
)
def test_what_the_engine_changed_is_a_sentence_too(given: dict[str, Any], said: str) -> None:
    assert alert.sentence(alert.line(NOW_US, by="logweir", **given)) == said


def test_lines_of_any_history_are_sentences() -> None:
    """Of what was left out, and of what another version wrote."""
    assert alert.sentence({"change": "left out", "left_out": 12}) == "12 lines are left out"
    assert alert.sentence({"time": "t", "by": "bert", "change": "painted it"}) == "bert: painted it"
    assert alert.sentence(alert.line(NOW_US, by="anna", change="assignee", before="anna", after=None)) == (
        "anna assigned it to nobody instead of anna"
    )


def test_an_alert_is_found_by_the_beginning_of_its_id(documents: Any) -> None:
    """If only one begins so."""
    assert alert.find(documents, "abc1").id == "abc1-1"
    assert alert.find(documents, "abc2-1").id == "abc2-1"
    for id, problem in (("abc", ALERT_AMBIGUOUS), ("abd", ALERT_UNKNOWN), ("", ALERT_UNKNOWN)):
        with pytest.raises(LogweirError) as error:
            alert.find(documents, id)
        assert error.value.problem is problem


@pytest.mark.parametrize(
    "query", ["severity:hgh", "rule:x AND (status:foo OR count:3)", "NOT reason:because", "kind:x"]
)
def test_a_value_that_no_alert_can_have_is_refused(query: str) -> None:
    """And not answered with nothing."""
    with pytest.raises(LogweirError) as error:
        alert.query_of(query, with_closed=False)

    assert error.value.problem is PARAMETER_BAD


def test_values_that_alerts_can_have_are_taken() -> None:
    """In any case, and with wildcards."""
    for query in ("severity:HIGH", "severity:h*", "status:snoozed", "completeness:open late:yes", "rule:anything"):
        alert.query_of(query, with_closed=True)
