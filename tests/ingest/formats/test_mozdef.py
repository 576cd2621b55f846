"""MozDef's doors: the same events by the addresses that its senders have, with a key in the address, too."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

import pytest

from logweir.record import Batch, Kind
from logweir_workers.document import context_of
from logweir_workers.normalise.fields import normalise
from tests.ingest.helpers import Door, is_ready, of_kind, running
from tests.waiting import until

EVENT = (
    b'{"timestamp":"2026-01-31T12:00:00+00:00","hostname":"web-1.example.com","processname":"login","processid":3380,'
    b'"severity":"INFO","category":"authentication","source":"ldap","summary":"joe login failed","tags":["ldap"],'
    b'"mozdefhostname":"mozdef1.example.com","eventsource":"systemlogs","details":{"username":"joe","success":false}}'
)


@pytest.fixture(scope="module", params=["asgi", "wsgi"])
def door(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with running(Door(tmp_path_factory.mktemp("door"), interface=request.param)) as door:
        until(lambda: is_ready(door))
        yield door


def newest(door: Door) -> Batch:
    _, one = max(of_kind(door.records(), Kind.DATA), key=lambda found: found[1].batches[0].received_us)
    return one.batches[0]


@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize(
    ("path", "endpoint"),
    [("/events", None), ("/nxlog", "nxlog"), ("/cef", "cef"), ("/custom/vulnerabilities", "vulnerabilities")],
)
def test_its_addresses_take_events_and_say_where_they_came_in(
    door: Door, method: str, path: str, endpoint: str | None
) -> None:
    """The bytes as they were sent; where they came in is added like a key's stamp."""
    answer = door.request(method, path, EVENT, {"X-Log-Key": door.key})
    batch = newest(door)

    assert answer.status == (202 if (method, path) == ("POST", "/events") else 200)
    assert answer.json["accepted"] == 1
    assert (batch.events, (batch.stamp or {}).get("endpoint")) == ([EVENT], endpoint)


def test_its_fields_are_the_fields(door: Door) -> None:
    """What MozDef's rules and dashboards look for has the names that it had; its own marks are details."""
    door.request("POST", "/nxlog", EVENT, {"X-Log-Key": door.key})
    found = normalise(json.loads(EVENT), context_of(newest(door)))

    assert {name: found[name] for name in ("utctimestamp", "hostname", "processid", "severity", "category")} == {
        "utctimestamp": "2026-01-31T12:00:00.000000+00:00",
        "hostname": "web-1.example.com",
        "processid": "3380",
        "severity": "INFO",
        "category": "authentication",
    }
    assert (found["summary"], found["source"], found["tags"]) == ("joe login failed", "ldap", ["ldap"])
    assert (
        found["details"].items()
        >= {
            "endpoint": "nxlog",
            "eventsource": "systemlogs",
            "mozdefhostname": "mozdef1.example.com",
            "username": "joe",
            "success": False,
        }.items()
    )


def test_an_event_that_says_its_endpoint_keeps_it(door: Door) -> None:
    """As with any stamp."""
    door.request("POST", "/custom/app", b'{"endpoint":"own"}', {"X-Log-Key": door.key})

    assert normalise({"endpoint": "own"}, context_of(newest(door)))["details"] == {"endpoint": "own"}


@pytest.mark.parametrize("path", ["/events", "/nxlog", "/custom/app"])
def test_a_key_comes_in_the_address_too(door: Door, path: str) -> None:
    """https://any:KEY@door/…: clients make Basic of it. A key in a header goes before it."""
    known = {"Authorization": "Basic " + base64.b64encode(f"mozdef:{door.key}".encode()).decode()}
    unknown = {"Authorization": "Basic " + base64.b64encode(b"mozdef:lw_wrong").decode()}

    assert door.request("POST", path, EVENT, known).status in (200, 202)
    assert door.request("POST", path, EVENT, unknown).status == 401
    assert door.request("POST", path, EVENT, {**unknown, "X-Log-Key": door.key}).status in (200, 202)
    assert door.request("POST", path, EVENT).status == 401


def test_monitors_ask_without_a_key(door: Door) -> None:
    answer = door.request("GET", "/status")

    assert (answer.status, answer.json["status"]) == (200, "ok")


@pytest.mark.parametrize(("body", "code"), [(b"CEF:0|a|b|1|2|3|4|", "json_bad"), (b"", "body_empty")])
def test_what_is_no_json_is_refused_in_words(door: Door, body: bytes, code: str) -> None:
    answer = door.request("POST", "/cef", body, {"X-Log-Key": door.key})

    assert (answer.status, answer.json["code"]) == (400, code)
