"""The alerts' pages and API: what is listed and shown, what people change, and whom a change is refused."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from logweir.alerts.alert import ALERTS
from logweir.clock import now_us
from logweir.config import ConsoleSettings, StoreSettings
from logweir.store import open_store
from logweir.store.port import Store
from logweir_console.app import make_app
from tests.logweir.commands.test_alerts import stored

EVIL = "<script>alert(1)</script>"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(open_store(StoreSettings(url=f"sqlite:///{tmp_path}/store"))) as store:
        store.prepare()
        event = {"id": "e1", "day": "20260131", "ingest_stream": "ab-0", "ingest_number": 7, "event": {"summary": EVIL}}
        stored(store, "aa11-1", summary=f"12 failures {EVIL}", evidence=[event], runbook="javascript:alert(1)")
        stored(store, "bb22-1", severity="critical", summary="root got in", evidence=[], previous="aa11-1")
        stored(store, "cc33-1", status="closed", closed={"reason": "benign", "time_us": 1}, evidence=[])
        stored(store, "dd44-1", kind="near_miss", severity="low", evidence=[])
        yield store


def client_of(store: Store, **settings: Any) -> FlaskClient:
    return make_app(ConsoleSettings(**settings), store, clock=now_us).test_client()


@pytest.fixture
def client(store: Store) -> FlaskClient:
    return client_of(store)


def body_of(store: Store, id: str = "aa11-1") -> dict[str, Any]:
    return store.documents.get(ALERTS, [id])[id].body


def form_token(client: FlaskClient) -> str:
    found = re.search(r'name="token" value="([^"]+)"', client.get("/alerts/aa11-1").text)
    assert found
    return found[1]


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("", ["bb22-1", "aa11-1"]),
        ("?severity=critical", ["bb22-1"]),
        ("?status=closed", ["cc33-1"]),
        ("?status=all", ["cc33-1", "bb22-1", "aa11-1"]),
        ("?near_misses=yes", ["dd44-1"]),
        ("?q=failures&since=1h", ["aa11-1"]),
        ("?size=1", ["bb22-1"]),
    ],
)
def test_the_list_and_its_api_have_the_same_alerts(client: FlaskClient, query: str, ids: list[str]) -> None:
    answer = client.get(f"/api/alerts{query}").json
    page = client.get(f"/alerts{query}").text

    assert answer is not None
    assert [one["id"] for one in answer["alerts"]] == ids
    assert re.findall(r'href="/alerts/([^"]+)"', page) == ids


def test_pages_of_alerts_follow_each_other(client: FlaskClient) -> None:
    first = client.get("/api/alerts?size=1").json
    assert first is not None
    second = client.get("/api/alerts", query_string={"size": "1", "after": first["after"]}).json

    assert second is not None
    assert [first["total"], second["alerts"][0]["id"], second["after"]] == [2, "aa11-1", None]


def test_the_page_of_a_sigma_rules_alert_names_its_author_and_what_he_says(client: FlaskClient, store: Store) -> None:
    """It is text that others wrote: no markup, and links only to where a browser may go."""
    origin = {
        "title": f"Odd {EVIL}",
        "id": "5f3c",
        "author": "Ada",
        "license": "DRL-1.1",
        "references": ["https://example.org/odd", "javascript:alert(1)"],
        "falsepositives": ["Administrators"],
    }
    stored(store, "ee55-1", summary="x", evidence=[], origin=origin)
    page = client.get("/alerts/ee55-1").text

    for said in ("5f3c", "by Ada", "DRL-1.1", "Administrators", '<a href="https://example.org/odd" rel="noreferrer">'):
        assert said in page
    assert "<script" not in page
    assert 'href="javascript' not in page
    assert "Sigma rule" not in client.get("/alerts/aa11-1").text


def test_pages_execute_nothing_and_show_what_an_alert_says(client: FlaskClient) -> None:
    """What an event carries is text; a runbook is a link only if it is one; a shape and a word beside each colour."""
    listed = client.get("/alerts").text
    page = client.get("/alerts/aa11-1").text

    for text in (listed, page):
        assert "<script" not in text and "&lt;script&gt;" in text
        assert "style=" not in text
    assert 'href="javascript' not in page
    for said in ("5 missing", "app/web-17", "number 7 of ab-0", "details.ip", "10.0.0.9", "some_rule", "opened"):
        assert said in page
    assert '<a href="/alerts/aa11-1">' in client.get("/alerts/bb22-1").text
    assert "<rect class=" in listed


def test_an_exception_is_made_of_an_alert_by_a_form(store: Store, client: FlaskClient) -> None:
    """What is ticked must hold; it is shown on the alert's page, wanted until the alerter has tried it."""
    page = client.get("/alerts/aa11-1").text
    given = {"token": form_token(client), "by": "anna", "reason": "ours", "until": "30d", "field": ["details.ip"]}
    answer = client.post("/alerts/aa11-1/except", data=given)
    after = client.get("/alerts/aa11-1").text
    (made,) = client.get("/api/exceptions").json["exceptions"]  # type: ignore[index]
    refused = [
        client.post("/alerts/aa11-1/except", data={**given, **wrong}).status_code
        for wrong in ({"token": "x"}, {"reason": " "}, {"field": ["details.none"]}, {"until": "900d"}, {"by": ""})
    ]

    assert 'name="field" value="details.ip" checked' in page
    assert (answer.status_code, answer.location) == (303, "/alerts/aa11-1#exceptions")
    assert (made["query"], made["rule"], made["alert"], made["state"]) == (
        *('details.ip:"10.0.0.9"', "some_rule", "aa11-1", "wanted"),
    )
    assert "not yet in force" in after and "anna: ours" in after
    assert refused == [403, 400, 400, 400, 400]
    assert len(client.get("/api/exceptions").json["exceptions"]) == 1  # type: ignore[index]


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/alerts?q=hostname:x", 400, "is not a field"),
        ("/alerts?severity=bad", 400, "critical, high"),
        ("/alerts?nonsense=1", 400, "one of q, since"),
        ("/alerts/zz", 404, "There is no alert"),
        ("/api/alerts?after=x", 400, "what an answer gave"),
        ("/api/alerts?size=1000", 400, "from 1 to 200"),
        ("/api/alerts/zz", 404, "There is no alert"),
        ("/api/alerts?q=severity:hgh", 400, "one of critical, high"),
        ("/alerts?q=NOT%20status:foo", 400, "one of open, acknowledged"),
        ("/api/nowhere", 404, "/api/openapi.json describes the API"),
        ("/api/alerts/aa11-1/ack", 405, "Use OPTIONS, POST"),
    ],
)
def test_what_cannot_be_shown_is_said_in_place(client: FlaskClient, path: str, status: int, said: str) -> None:
    answer = client.get(path)

    assert answer.status_code == status
    assert said in answer.text


def test_a_person_changes_an_alert_by_forms(client: FlaskClient, store: Store) -> None:
    """Each answers with a way back to the alert."""
    token = form_token(client)
    for change, given in (
        ("ack", {}),
        ("assign", {"to": "anna"}),
        ("note", {"text": "looked at it"}),
        ("snooze", {"until": "2h"}),
        ("close", {"reason": "benign", "comment": "a scan"}),
        ("reopen", {}),
    ):
        answer = client.post(f"/alerts/aa11-1/{change}", data={"token": token, "by": "anna", **given})
        assert (answer.status_code, answer.headers["Location"]) == (303, "/alerts/aa11-1"), answer.text
    body = body_of(store)

    assert (body["status"], body["assignee"], body["notes"][0]["text"]) == ("open", "anna", "looked at it")
    assert [line["by"] for line in body["history"]] == ["logweir", *["anna"] * 6]


def forms_of(page: str) -> dict[str, str]:
    """Each form that changes something: its words by where it leads."""
    return dict(
        re.findall(r'<form class="change" method="post" action="/alerts/[^/]+/(\w+)"(.*?)</form>', page, re.DOTALL)
    )


def test_every_change_is_a_form_of_its_own(client: FlaskClient, store: Store) -> None:
    """Enter in a field does what the one button of its form says; nothing that cannot be done is offered."""
    forms = forms_of(client.get("/alerts/aa11-1").text)
    closed = forms_of(client.get("/alerts/cc33-1").text)
    client.post("/alerts/bb22-1/ack", data={"token": form_token(client), "by": "anna"})
    acknowledged = forms_of(client.get("/alerts/bb22-1").text)

    assert list(forms) == ["note", "ack", "assign", "snooze", "close", "except"]
    assert all(form.count("<button>") == 1 and 'name="by"' in form for form in forms.values())
    assert [name for name, form in forms.items() if 'name="text"' in form] == ["note"]
    assert list(closed) == ["note", "reopen", "except"]
    assert list(acknowledged) == ["note", "assign", "snooze", "reopen", "close", "except"]


def test_who_changed_something_need_not_type_the_name_again(client: FlaskClient) -> None:
    client.post("/alerts/aa11-1/note", data={"token": form_token(client), "by": 'anna "x"', "text": "seen"})

    page = client.get("/alerts/bb22-1").text
    assert page.count('name="by" value="anna &#34;x&#34;"') == 6


def test_the_page_says_until_when_and_why(client: FlaskClient) -> None:
    """The end of a snooze and the comment of a close stay in the history."""
    token = form_token(client)
    for change, given in (
        ("snooze", {"until": "2999-01-01"}),
        ("close", {"reason": "true_positive", "comment": "stolen card"}),
    ):
        client.post(f"/alerts/aa11-1/{change}", data={"token": token, "by": "anna", **given})
    closed = client.get("/alerts/aa11-1").text
    client.post("/alerts/aa11-1/reopen", data={"token": token, "by": "anna"})
    reopened = client.get("/alerts/aa11-1").text

    assert "true_positive, “stolen card”, by anna" in closed
    for said in ("anna snoozed it until 2999-01-01T00:00:00Z", "anna closed it as true_positive: stolen card"):
        assert said in reopened


def test_a_page_with_a_problem_leads_back(client: FlaskClient) -> None:
    """To the alert that was to be changed; to the list where there is none."""
    token = form_token(client)
    refused = client.post("/alerts/aa11-1/snooze", data={"token": token, "by": "anna", "until": "soon"})
    unknown = client.get("/alerts/zz")

    assert (refused.status_code, unknown.status_code) == (400, 404)
    assert '<a href="/alerts/aa11-1">Back to the alert</a>' in refused.text
    assert '<a href="/alerts">All alerts</a>' in unknown.text


@pytest.mark.parametrize(
    ("headers", "given", "status"),
    [
        ({}, {"token": "guessed"}, 403),
        ({}, {"by": ""}, 400),
        ({}, {"reason": "because"}, 400),
        ({"Origin": "https://evil.example"}, {}, 403),
        ({"Origin": "http://localhost:81"}, {}, 403),
        ({"Origin": "null"}, {}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, {}, 403),
        ({"Sec-Fetch-Site": "same-site"}, {}, 403),
    ],
)
def test_a_form_that_is_not_the_pages_own_changes_nothing(
    client: FlaskClient, store: Store, headers: dict[str, str], given: dict[str, str], status: int
) -> None:
    data = {"token": form_token(client), "by": "anna", "reason": "benign", **given}
    answer = client.post("/alerts/aa11-1/close", data=data, headers=headers)

    assert answer.status_code == status
    assert body_of(store)["status"] == "open"


def test_beyond_this_machine_only_a_token_changes_alerts(store: Store) -> None:
    """Pages show no forms there; a wrong token is refused, also on this machine once there is one."""
    public = client_of(store, address="0.0.0.0", hosts=("logs.example.org",), api_token="t0ken-of-ours")
    proxied = client_of(store, hosts=("logs.example.org", "localhost"))
    at = {"headers": {"Host": "logs.example.org"}}

    def tried(client: FlaskClient, authorization: str = "", host: str = "logs.example.org") -> int:
        headers = {"Host": host, **({"Authorization": authorization} if authorization else {})}
        return client.post("/api/alerts/aa11-1/ack", json={"by": "bot"}, headers=headers).status_code

    assert 'method="post"' not in public.get("/alerts/aa11-1", **at).text
    assert 'method="post"' not in proxied.get("/alerts/aa11-1", **at).text
    assert [tried(public), tried(public, "Bearer wrong"), tried(public, "Basic t0ken-of-ours")] == [403] * 3
    assert tried(proxied) == 403
    assert body_of(store)["status"] == "open"
    assert tried(public, "Bearer t0ken-of-ours") == 200
    assert body_of(store)["assignee"] == "bot"


def test_programs_of_this_machine_change_alerts_by_json_alone(client: FlaskClient, store: Store) -> None:
    """Not by what a form of another site could send."""
    for kind, data in (("text/plain", '{"by": "bot"}'), ("application/x-www-form-urlencoded", "by=bot")):
        assert client.post("/api/alerts/aa11-1/ack", data=data, content_type=kind).status_code == 403
    assert client.post("/api/alerts/aa11-1/ack", json=["x"]).status_code == 400
    assert client.post("/api/alerts/aa11-1/ack", json={"by": "x" * 70_000}).status_code in (400, 413)
    exploded = client.post("/api/alerts/aa11-1/explode", json={"by": "bot"})
    assert (exploded.status_code, (exploded.json or {})["code"]) == (404, "not_found")
    answer = client.post("/api/alerts/aa11/close", json={"by": "bot", "reason": "test"})

    assert (answer.status_code, (answer.json or {})["closed"]["reason"]) == (200, "test")
    assert body_of(store)["closed"]["by"] == "bot"


@pytest.mark.parametrize(
    ("change", "sent", "said"),
    [
        ("note", {"by": "bot"}, "The parameter text, which reads '', is not there"),
        ("note", {"by": "bot", "text": " "}, "The parameter text, which reads ' ', is not 1 to 4000 characters"),
        ("snooze", {"by": "bot"}, "The parameter until, which reads '', is not there"),
        ("snooze", {"by": "bot", "untill": "2h"}, "The parameter untill, which reads '2h', is not one of by, until"),
        ("close", {"by": "bot", "reason": 5}, "The parameter reason, which reads '5', is not a text"),
        ("ack", {}, "The parameter by, which reads '', is not there"),
        ("ack", ["bot"], "The parameter body, which reads '[\"bot\"]', is not a JSON object"),
    ],
)
def test_what_is_wrong_with_a_change_is_said_by_its_name(
    client: FlaskClient, change: str, sent: Any, said: str
) -> None:
    answer = client.post(f"/api/alerts/aa11-1/{change}", json=sent)

    assert answer.status_code == 400
    assert said in (answer.json or {})["detail"]


def test_a_change_that_is_no_json_is_told_so(store: Store) -> None:
    """With a token and without."""
    headers = {"Authorization": "Bearer t0ken-of-ours"}
    by_token = client_of(store, api_token="t0ken-of-ours").post("/api/alerts/aa11-1/ack", data="by=x", headers=headers)
    local = client_of(store).post("/api/alerts/aa11-1/ack", data="by=x")

    assert (by_token.status_code, local.status_code) == (400, 403)
    assert "The parameter Content-Type" in (by_token.json or {})["detail"]
    assert "its Content-Type is missing" in (local.json or {})["detail"]
    assert "Content-Type: application/json" in (local.json or {})["advice"]


def test_an_id_that_several_alerts_begin_with_is_told_from_an_unknown_one(client: FlaskClient, store: Store) -> None:
    stored(store, "aa12-1", evidence=[])
    several = client.get("/api/alerts/aa1")
    unknown = client.get("/api/alerts/zz")

    assert (several.status_code, (several.json or {})["code"], (several.json or {})["count"]) == (
        409,
        "alert_ambiguous",
        2,
    )
    assert (unknown.status_code, "count" in (unknown.json or {})) == (404, False)
