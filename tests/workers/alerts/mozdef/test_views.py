"""Events as scripts know them: MozDef's names, those of senders, brackets and dots."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from logweir_workers.alerts.mozdef.views import DotDict, event_of

STORED = {
    "_id": "a",
    "_index": "logweir-events-20260131",
    "hostname": "web1",
    "fqdn": "web1.example.com",
    "processname": "sshd",
    "summary": "x",
    "details": {
        "sourceipaddress": "192.0.2.7",
        "destinationport": 443,
        "username": "anna",
        "eventsource": "cloud",
        "deep": {"a.b": 1, "list": [{"c": 2}]},
    },
}


@pytest.fixture
def source() -> Any:
    return event_of(STORED)["_source"]


def test_fields_are_found_by_every_name(source: Any) -> None:
    assert source["hostname"] == source.hostname == source["host"] == source.get("host.name", source["host"])
    assert (source["hostname"], source["program"], source.tags) == ("web1.example.com", "sshd", [])
    assert (source["eventsource"], "eventsource" in source, source.get("nothing"), "nothing" in source) == (
        "cloud",
        True,
        None,
        False,
    )
    assert source["details.src_ip"] == "192.0.2.7"
    assert source["mozdefhostname"]


def test_details_are_found_by_the_names_that_senders_give_them(source: Any) -> None:
    details = source["details"]

    assert {details[name] for name in ("src_ip", "clientip", "sourceipaddress", "SRC")} == {"192.0.2.7"}
    assert (details.get("user"), details.dst_port, getattr(details, "dpt", None)) == ("anna", 443, 443)
    assert ("user" in details, "src" in details, "dst_ip" in details) == (True, True, False)
    assert (details["source"]["ip"], details["id"]["orig_h"], "client" in details) == ("192.0.2.7", "192.0.2.7", True)
    assert (details.deep["a.b"], details["deep.list"][0]["c"]) == (1, 2)
    assert sorted(details) == ["deep", "destinationport", "eventsource", "sourceipaddress", "username"]
    assert (getattr(details, "nothing", "none"), hasattr(details, "user")) == ("none", True)
    with pytest.raises(KeyError, match="nothing"):
        details["nothing"]


def test_copies_know_the_names_too(source: Any) -> None:
    for one in (DotDict(source), copy.deepcopy(source), copy.copy(source)):
        assert (one.details.src_ip, one["host"]) == ("192.0.2.7", "web1.example.com")
    assert json.loads(json.dumps(source))["details"]["deep"] == {"a.b": 1, "list": [{"c": 2}]}


def test_a_dictionary_of_a_scripts_own() -> None:
    """It finds no names but its own."""
    own = DotDict({"a": {"b": 1}}, c=2)
    own.d = {"e": 3}
    own["a"].f = 4
    del own.c

    assert (own.a.b, own["a.b"], own.get("a.x", 5), own.d.e, own.a.f, dict(own)) == (
        1,
        1,
        5,
        3,
        4,
        {"a": {"b": 1, "f": 4}, "d": {"e": 3}},
    )
    assert "user" not in DotDict({"username": "anna"})
