"""Whatever a sender makes of an event, real Elasticsearch takes the document that the rules make of it."""

import json
import urllib.request
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logweir.event import KEYWORD_LENGTH_MAX
from logweir_workers.decode import event_of
from logweir_workers.normalise.fields import LEVELS_MAX, Context, normalise, words_for
from tests.contract.stores import ELASTICSEARCH
from tests.proof import size

IGNORE_ABOVE = 8000
MAPPINGS = {
    "dynamic": False,
    "properties": {
        **{name: {"type": "date"} for name in ("timestamp", "utctimestamp", "receivedtimestamp")},
        **{
            name: {"type": "keyword", "ignore_above": IGNORE_ABOVE}
            for name in ("category", "hostname", "processid", "processname", "severity", "source", "tags", "type")
        },
        "details": {"type": "flattened", "depth_limit": 40, "ignore_above": IGNORE_ABOVE},
        "all_words": {"type": "text"},
    },
}


def _nested(levels: int, name: str, leaf: Any) -> Any:
    for _ in range(levels):
        leaf = {name: leaf}
    return leaf


HOSTILE: dict[str, dict[str, Any]] = {
    "NUL in names and values": {"a\0b": "x\0y", "details": {"\0": {"\0\0": "\0"}}, "hostname": "\0", "summary": "a\0b"},
    "odd names": {
        "": 1,
        " ": 2,
        ".": 3,
        "..": 4,
        "a.": 5,
        ".a": 6,
        "a..b": 7,
        "_id": 8,
        "*": 9,
        "\x7f\x01": 1,
        "\uffff": 1,
    },
    "one path twice": {"details": {"a.b": 1, "a": {"b": {"c": 2}}}, "a": [1, {"b": 2}, [3, [None, {"c": 4}]]]},
    "long names": {"n" * 40_000: 1, "漢" * 30_000: {"m" * 60_000: "x" * 300_000}},
    "long names and values, as deep as it goes": {"x": _nested(LEVELS_MAX - 1, "漢" * 5000, "漢" * IGNORE_ABOVE)},
    "deeper than it goes": {"x": _nested(240, "a", 1), "details": _nested(240, "a", {"b": [[[{"c": 1}]]]})},
    "numbers": {
        "details": {"a": 2**64 - 1, "b": -(2**63), "c": 1.7976931348623157e308, "d": 5e-324, "e": -0.0, "f": True}
    },
    "long values": dict.fromkeys(("hostname", "tags", "timestamp", "severity", "summary", "x"), "漢" * 60_000),
    "longest keyword": {"hostname": "😀" * KEYWORD_LENGTH_MAX, "tags": ["漢" * KEYWORD_LENGTH_MAX] * 200},
    "many names": {f"name{number}": number for number in range(20_000)},
    "many values": {"details": {"a": list(range(20_000))}},
    "times at the bounds": {"timestamp": "1973-03-03T09:46:40Z"},
}


def _refused(server: Any, events: list[dict[str, Any]]) -> list[Any]:
    """Send the events as documents in one bulk; give the errors."""
    lines = []
    for event in events:
        document = normalise(event_of(orjson.dumps(event)), Context(1_767_614_400_000_000, "web"))
        lines += [b'{"create":{}}', orjson.dumps({**document, "all_words": words_for(document)[1]})]
    body = b"\n".join(lines) + b"\n"
    headers = {"Content-Type": "application/x-ndjson"}
    request = urllib.request.Request(f"{server.url}/hostile-normalise/_bulk", body, headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        items = json.loads(answer.read())["items"]
    return [item["create"]["error"] for item in items if "error" in item["create"]]


@pytest.fixture(params=ELASTICSEARCH)
def server(request: pytest.FixtureRequest) -> Any:
    """Each version with an index as the events' own, but for what does not matter here."""
    server = request.getfixturevalue(request.param)
    server.request("PUT", "/hostile-normalise", {"mappings": MAPPINGS})
    yield server
    server.request("DELETE", "/hostile-normalise")


_leaf = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
_name = st.text() | st.sampled_from(
    ["\0", "", ".", "n" * 300, "漢" * 300, "details", "timestamp", "hostname", "tags", "host"]
)
_value = st.recursive(
    _leaf, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_name, inner, max_size=3), max_leaves=5
)


@pytest.mark.sized
def test_elasticsearch_takes_whatever_was_sent(server: Any) -> None:
    """First the forms that it is known to refuse raw, then any JSON."""
    for what, event in HOSTILE.items():
        assert _refused(server, [event]) == [], what

    @settings(max_examples=size(40, 1000), deadline=None)
    @given(st.lists(st.dictionaries(_name, _value, max_size=4), min_size=5, max_size=10))
    def takes_any(events: list[dict[str, Any]]) -> None:
        assert _refused(server, events) == []

    takes_any()


def test_elasticsearch_finds_an_event_by_its_changed_names(server: Any) -> None:
    """A cut or mended name is searched for like any other, by the name that the stored event shows."""
    event = {"a\0b": "needle", "marker": "one"}

    assert _refused(server, [event]) == []

    server.request("POST", "/hostile-normalise/_refresh")
    query = {"query": {"term": {"details.a␀b": "needle"}}}
    hits = server.request("POST", "/hostile-normalise/_search", query)["hits"]["hits"]
    assert [hit["_source"]["details"]["marker"] for hit in hits] == ["one"]
