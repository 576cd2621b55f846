"""The API's table: what it serves is what its description says; rules are listed, shown and changed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from jsonschema import Draft202012Validator

from logweir.alerts import exceptions, rule
from logweir.alerts.catalogue import RULES, RuleState, change_state, describe, note_backfill
from logweir.alerts.rules import EXAMPLE_TIME_US
from logweir.clock import now_us
from logweir.config import ConsoleSettings, StoreSettings
from logweir.ledger.documents import ALERTER, ALERTER_RULES, RulesId, ShardId
from logweir.store import open_store
from logweir.store.port import Store
from logweir_console.app import make_app
from tests.logweir.commands.test_alerts import stored

GIVEN = ("by", "reason", "query", "until", "rule", "alert", "fields")


@rule(where="category:web", severity="high", tags=["web"], runbook="web.md")
def web_attack(found: Any) -> str:
    """Somebody attacks."""
    return "x"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(open_store(StoreSettings(url=f"sqlite:///{tmp_path}/store"))) as store:
        store.prepare()
        stored(store, "aa11-1")
        describe(store.documents, "web_attack", web_attack, now_us=1)
        describe(store.documents, "web_scanner", web_attack, now_us=1)
        describe(store.documents, "old", web_attack, now_us=1)
        describe(store.documents, "old", None, now_us=2)
        change_state(store.documents, "web_scanner", RuleState.SHADOW, by="anna", why="new", now_us=3)
        shard = ShardId("1of1")
        claimed = ALERTER.claim(store.ledger, "logweir", shard, "me")
        row = {"revision": "", "since": "2026-01-31T12:00:00Z", "counts": {"matches": 7}, "parked": None}
        body = {"rules": {"web_attack": row}, "written_us": 1, "rules_slot": 1}
        begun = {"points": [[EXAMPLE_TIME_US, "t", {"0": 1700, "1": 12}]], "rules": {"web_attack": ["ab12", 0, "cd34"]}}
        beginnings = ALERTER_RULES.document("logweir", RulesId("1of1", 1), claimed.generation, begun, owner="me")
        store.ledger.write([beginnings, ALERTER.document("logweir", shard, claimed.generation, body, owner="me")])
        backfill = {"by": "anna", "from": "2026-01-24T12:00:00Z", "to": "2026-01-31T12:00:00Z", "made": 12, "there": 3}
        note_backfill(store.documents, "web_attack", backfill, now_us=4)
        yield store


@pytest.fixture
def client(store: Store) -> FlaskClient:
    return make_app(ConsoleSettings(), store, clock=now_us).test_client()


@pytest.fixture
def description(client: FlaskClient) -> dict[str, Any]:
    found = client.get("/api/openapi.json").json
    assert isinstance(found, dict)
    return found


# --- the description ------------------------------------------------------------------------------------------------
def test_every_route_of_alerts_and_rules_is_described_and_no_other(
    client: FlaskClient, description: dict[str, Any]
) -> None:
    served = {
        (re.sub(r"<(?:[^:>]*:)?([^>]*)>", r"{\1}", one.rule), method.lower())
        for one in client.application.url_map.iter_rules()
        for method in (one.methods or set()) - {"HEAD", "OPTIONS"}
        if one.rule.startswith(("/api/alerts", "/api/rules", "/api/exceptions"))
    }
    described = {(path, method) for path, methods in description["paths"].items() for method in methods}

    assert described == served
    assert len(described) == 16


def test_the_description_is_whole(description: dict[str, Any]) -> None:
    """Names of operations differ, paths name their parameters, references lead somewhere, schemas are schemas."""
    operations = [one for methods in description["paths"].values() for one in methods.values()]
    names = [one["operationId"] for one in operations]

    assert description["openapi"].startswith("3.1.")
    assert {"title", "version"} <= description["info"].keys()
    assert len(set(names)) == len(names)
    for path, methods in description["paths"].items():
        for method, one in methods.items():
            in_path = {given["name"] for given in one["parameters"] if given["in"] == "path"}
            assert in_path == set(re.findall(r"{(\w+)}", path))
            assert all(given["required"] for given in one["parameters"] if given["in"] == "path")
            assert ("requestBody" in one) == ("security" in one) == (method == "post")
            assert {"200", "400", "503"} <= one["responses"].keys()
            for schema in _schemas_in(one):
                Draft202012Validator.check_schema(schema)
                if "$ref" in schema:
                    assert schema["$ref"].removeprefix("#/components/schemas/") in description["components"]["schemas"]
    Draft202012Validator.check_schema(description["components"]["schemas"]["Problem"])


def _schemas_in(one: Any) -> Iterator[dict[str, Any]]:
    if isinstance(one, dict):
        if isinstance(one.get("schema"), dict):
            yield one["schema"]
        for value in one.values():
            yield from _schemas_in(value)
    elif isinstance(one, list):
        for value in one:
            yield from _schemas_in(value)


CHANGES = {
    "/api/alerts/{id}/ack": {},
    "/api/alerts/{id}/assign": {"to": "bert"},
    "/api/alerts/{id}/note": {"text": "seen"},
    "/api/alerts/{id}/snooze": {"until": "2h"},
    "/api/alerts/{id}/close": {"reason": "benign"},
    "/api/alerts/{id}/reopen": {},
    "/api/rules/{name}/shadow": {"why": "loud"},
    "/api/rules/{name}/disable": {},
    "/api/rules/{name}/enable": {},
    "/api/exceptions": {"rule": "web_attack", "query": "details.path:health", "reason": "ours"},
    "/api/exceptions/{id}/end": {},
}


def test_what_is_answered_is_what_is_described(store: Store, client: FlaskClient, description: dict[str, Any]) -> None:
    """Of every route: its answer, what has to be sent, and a problem."""
    until_us = now_us() + 1_000_000_000
    given = {"query": "details.path:x", "reason": "x", "by": "anna", "until_us": until_us, "now_us": now_us()}
    excepted = exceptions.add(store.documents, rule="web_attack", **given).id
    done = 0
    for path, methods in description["paths"].items():
        id = excepted if path.startswith("/api/exceptions") else "aa11-1"
        url = path.replace("{id}", id).replace("{name}", "web_attack")
        nowhere = path.replace("{id}", "zz").replace("{name}", "zz")
        for method, one in methods.items():
            sent: dict[str, Any] = {} if method == "get" else {"json": {"by": "anna", **CHANGES[path]}}
            answer = getattr(client, method)(url, **sent)
            ask = one["responses"]["200"]["content"]["application/json"]["schema"]
            assert answer.status_code == 200, answer.text
            Draft202012Validator(ask).validate(answer.json)
            if method == "post":
                body = one["requestBody"]["content"]["application/json"]["schema"]
                Draft202012Validator(body).validate(sent["json"])
                assert client.post(url, json={}).status_code == 400
            if nowhere != url:
                problem = getattr(client, method)(nowhere, **sent)
                Draft202012Validator(description["components"]["schemas"]["Problem"]).validate(problem.json)
                assert str(problem.status_code) in one["responses"]
                assert (problem.json or {})["code"] in one["responses"][str(problem.status_code)]["description"]
            done += 1

    assert done == len(CHANGES) + 5


# --- rules ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("", ["web_attack", "web_scanner"]),
        ("?state=shadow", ["web_scanner"]),
        ("?gone=yes", ["old", "web_attack", "web_scanner"]),
        ("?after=web_attack", ["web_scanner"]),
    ],
)
def test_rules_are_listed_by_name(client: FlaskClient, query: str, names: list[str]) -> None:
    found = client.get(f"/api/rules{query}").json or {}

    assert [one["name"] for one in found["rules"]] == names
    assert found["after"] is None


def test_the_page_of_rules_shows_how_each_does(store: Store, client: FlaskClient) -> None:
    """State, matches, open alerts, the share of false positives among those closed with a verdict; what is wrong."""
    verdicts = ("false_positive", "benign", "true_positive", "false_positive", "duplicate")
    for number, reason in enumerate(verdicts):
        closed = {"reason": reason, "time_us": 1}
        stored(store, f"ee{number}-1", rule="web_attack", status="closed", closed=closed, evidence=[])
    stored(store, "ff11-1", rule="web_attack", evidence=[])
    page = client.get("/rules").text
    shadowed = client.get("/rules?state=shadow").text
    bad = client.get("/rules?state=nonsense")

    assert "2 rules" in page and "50% of 4" in page
    assert "2026-01-31T12:00:00Z, as revision ab12 instead of cd34; first offset by partition 0: 1,700, 1: 12" in page
    assert "2026-01-24T12:00:00Z to 2026-01-31T12:00:00Z, by anna, 1970-01-01T00:00:00Z: 12 alerts made, 3" in page
    assert '<a href="/alerts?q=rule:web_attack">1</a>' in page
    assert "web_scanner" in shadowed and "web_attack" not in re.sub(r"<dd.*?</dd>", "", shadowed)
    assert (bad.status_code, "one of enabled" in bad.text) == (400, True)


def test_an_exception_is_made_and_ended_by_a_program(client: FlaskClient) -> None:
    """By rule and query; what is wrong with it is said."""

    def post(path: str, **members: str) -> Any:
        return client.post(path, json={"by": "anna", "reason": "ours", **members})

    made = post("/api/exceptions", rule="web_attack", query="details.path:health").json
    wrong = [
        post("/api/exceptions", rule="none", query="details.path:health"),
        post("/api/exceptions", rule="web_attack", query="*"),
        post("/api/exceptions", rule="web_attack", query="nofield:x"),
        client.post("/api/exceptions/none/end", json={"by": "anna"}),
    ]
    listed = client.get("/api/exceptions?rule=web_attack").json or {}
    ended = client.post(f"/api/exceptions/{made['id']}/end", json={"by": "bert"}).json or {}
    now, past = client.get("/api/exceptions").json or {}, client.get("/api/exceptions?past=yes").json or {}

    assert (made["state"], made["by"], made["alert"]) == ("wanted", "anna", None)
    assert [answer.status_code for answer in wrong] == [404, 400, 400, 404]
    assert [one["id"] for one in listed["exceptions"]] == [made["id"]]
    assert (ended["ended_by"], now["exceptions"], len(past["exceptions"])) == ("bert", [], 1)


def test_pages_of_rules_follow_each_other(client: FlaskClient) -> None:
    first = client.get("/api/rules?size=1").json or {}
    second = client.get(f"/api/rules?size=1&after={first['after']}").json or {}

    assert (first["total"], [one["name"] for one in first["rules"]]) == (2, ["web_attack"])
    assert ([one["name"] for one in second["rules"]], second["after"]) == (["web_scanner"], None)


def test_a_rule_is_shown_with_what_it_has_found(client: FlaskClient) -> None:
    one = client.get("/api/rules/web_attack").json or {}
    other = client.get("/api/rules/web_scanner").json or {}

    assert (one["severity"], one["where"], one["counts"], one["state"]) == (
        "high",
        "category:web",
        {"matches": 7},
        "enabled",
    )
    assert (other["state"], other["said"]["by"], other["said"]["why"]) == ("shadow", "anna", "new")
    assert (one["since"], one["begun"]["revision"], one["begun"]["before"]) == ("2026-01-31T12:00:00Z", "ab12", "cd34")
    assert one["begun"]["offsets"] == {"0": 1700, "1": 12}
    assert one["backfills"][0]["made"] == 12


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("get", "/api/rules?state=bad", 400),
        ("get", "/api/rules?size=0", 400),
        ("get", "/api/rules?nonsense=1", 400),
        ("get", "/api/rules/none", 404),
        ("post", "/api/rules/none/shadow", 404),
        ("post", "/api/rules/web_attack/explode", 404),
        ("get", "/api/rules/web_attack/shadow", 405),
    ],
)
def test_what_cannot_be_asked_of_rules_is_said(client: FlaskClient, method: str, path: str, status: int) -> None:
    sent = {"json": {"by": "anna"}} if method == "post" else {}
    answer = getattr(client, method)(path, **sent)

    assert answer.status_code == status, answer.text


def test_the_state_of_rules_is_changed_with_the_token_alone_beyond_this_machine(store: Store) -> None:
    settings = ConsoleSettings(address="0.0.0.0", hosts=("logs.example.org",), api_token="t0ken-of-ours")  # type: ignore[arg-type]
    client = make_app(settings, store, clock=now_us).test_client()

    def tried(**headers: str) -> int:
        named = {"Host": "logs.example.org", **headers}
        path = "/api/rules/web_attack/disable"
        return client.post(path, json={"by": "bot", "why": "a test"}, headers=named).status_code

    assert [tried(), tried(Authorization="Bearer wrong")] == [403, 403]
    assert store.documents.get(RULES, ["web_attack"])["web_attack"].body["state"] == "enabled"
    assert tried(Authorization="Bearer t0ken-of-ours") == 200
    body = store.documents.get(RULES, ["web_attack"])["web_attack"].body
    assert (body["state"], body["said"]["by"], body["said"]["why"]) == ("disabled", "bot", "a test")


@pytest.mark.parametrize(
    "body",
    [
        *(f'{{"by":"anna","reason":"x","rule":"web_attack","query":"a","{name}":"\\ud800"}}' for name in GIVEN),
        '{"\\ud800":"x"}',
        '{"by":["\\ud800"]}',
        '{"by":"\\ud800',
        "[" * 60_000,
    ],
    ids=lambda body: body[:90],
)
@pytest.mark.parametrize("path", ["/api/exceptions", "/api/rules/web_attack/disable", "/api/alerts/aa11-1/note"])
def test_what_no_store_takes_is_refused_in_words(client: FlaskClient, path: str, body: str) -> None:
    """Half of a surrogate pair, which JSON may have; and what is nested without an end."""
    answer = client.post(path, data=body, content_type="application/json")

    assert (answer.status_code, (answer.json or {})["code"]) == (400, "parameter_bad")


def test_what_became_of_rules_alerts_is_read_in_pages(
    store: Store, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has its evidence with it: thousands at once are gigabytes."""
    monkeypatch.setattr("logweir_console.rules._ALERTS_AT_ONCE", 2)
    for number in range(5):
        stored(store, f"bb22-{number}", rule="web_attack")
    whole = client.get("/rules").get_data(as_text=True)
    monkeypatch.setattr("logweir_console.rules._ALERTS_MAX", 4)
    cut = client.get("/rules").get_data(as_text=True)

    assert "are not counted here" not in whole and ">5</a>" in whole
    assert "Alerts beyond the newest 4 are not counted here" in cut and ">4</a>" in cut
