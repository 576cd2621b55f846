"""The Elasticsearch face of a door: what senders ask first, what they send, and how each of them reads the answer."""

from __future__ import annotations

import base64
import contextlib
import gzip
import http.client
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logweir.errors import LogweirError
from logweir.http.reader import Head
from logweir.keys.file import KeysFile
from logweir.record import Batch, Kind, Refused
from logweir_ingest.asgi import AsgiApp
from logweir_ingest.formats.elasticsearch import ElasticsearchFormat
from logweir_ingest.formats.port import Accepted
from logweir_ingest.request.message import Request
from tests.ingest.formats.test_json import LIMITS, _bodies
from tests.ingest.helpers import Answer, Door, is_ready, of_kind, running
from tests.waiting import until

FORMAT = ElasticsearchFormat()
DOOR_LIMITS = {
    "LOGWEIR_INGEST_FAILED_ATTEMPTS_PER_MINUTE_MAX": "1000000",
    "LOGWEIR_INGEST_EVENTS_PER_REQUEST_MAX": "3000",
    "LOGWEIR_INGEST_BODY_SIZE_BYTES_MAX": "500000",
    "LOGWEIR_INGEST_EVENT_SIZE_BYTES_MAX": "2000",
}


@pytest.fixture(scope="module", params=["asgi", "wsgi"])
def door(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    folder = tmp_path_factory.mktemp("door")
    with running(Door(folder, interface=request.param, environment=DOOR_LIMITS)) as door:
        until(lambda: is_ready(door))
        yield door


def basic(key: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"logs:{key}".encode()).decode()}


def api_key(key: str) -> dict[str, str]:
    return {"Authorization": "ApiKey " + base64.b64encode(f"id:{key}".encode()).decode()}


def bulk(*documents: bytes, action: bytes = b'{"create":{"_index":"logs"}}') -> bytes:
    return b"".join(action + b"\n" + document + b"\n" for document in documents)


def send(door: Door, body: Any, path: str = "/_bulk", method: str = "POST", **headers: str) -> Answer:
    return door.request(method, path, body, {**basic(door.key), **headers})


def newest(door: Door) -> list[Batch]:
    """The batches of the newest record."""
    _, one = max(of_kind(door.records(), Kind.DATA), key=lambda found: found[1].batches[0].received_us)
    return one.batches


# --- what is taken ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("documents", [1, 40, 3000])
@pytest.mark.parametrize("encoding", ["", "gzip"])
def test_each_document_is_an_event_and_has_its_item(door: Door, documents: int, encoding: str) -> None:
    """The bytes as they were sent, in order; one record, whatever the size."""
    sent = [b'{"message": "zw\xc3\xb6lf %d"}' % n for n in range(documents)]
    body = bulk(*sent)
    headers = {"Content-Encoding": encoding} if encoding else {}
    answer = send(door, gzip.compress(body) if encoding else body, **headers)

    assert (answer.status, answer.headers["x-elastic-product"]) == (200, "Elasticsearch")
    assert [batch.format for batch in newest(door)] == ["elasticsearch"]
    assert newest(door)[0].events == sent
    assert len(answer.json["items"]) == documents
    assert all(item["create"]["status"] == 201 for item in answer.json["items"])


def test_an_answer_is_compact_and_in_the_order_in_which_it_is_read_as_text(door: Door) -> None:
    """Vector and Fluent Bit look for parts of the text."""
    answer = send(door, bulk(b'{"n":1}'))
    id = answer.json["items"][0]["create"]["_id"]

    item = f'{{"create":{{"_index":"logs","_id":"{id}","_version":1,"result":"created","status":201}}}}'
    assert answer.body.decode() == f'{{"took":0,"errors":false,"items":[{item}]}}'
    assert id == f"b{newest(door)[0].id.hex()}.0"


@pytest.mark.parametrize(
    ("path", "method", "index"),
    [("/_bulk", "PUT", "logweir"), ("/app/_bulk", "POST", "app"), ("/app/_bulk?pipeline=x", "PUT", "app")],
)
def test_the_index_is_the_actions_or_the_paths(door: Door, path: str, method: str, index: str) -> None:
    """syslog-ng sends PUT to a data stream's path, with actions that name nothing."""
    body = b'{"create":{ }}\n{"n":1}\n{"index":{"_index":"own"}}\n{"n":2}\n'
    items = send(door, body, path, method).json["items"]

    assert [(name, said["_index"]) for item in items for name, said in item.items()] == [
        ("create", index),
        ("index", "own"),
    ]


def test_an_id_is_what_an_event_is_known_by(door: Door) -> None:
    """Whichever request brings it, with whatever beside it; in one index, of one key."""
    named = b'{"create":{"_index":"a","_id":"one"}}\n{"n":1}\n'
    first = send(door, named + bulk(b'{"n":2}') + b'{"create":{"_index":"b","_id":"one"}}\n{"n":3}\n')
    before = newest(door)
    send(door, bulk(b'{"n":0}') + named)
    again = newest(door)

    assert [item["create"]["_id"] for item in first.json["items"]][::2] == ["one", "one"]
    assert [(batch.index_first, batch.events) for batch in before] == [
        (0, [b'{"n":1}']),
        (1, [b'{"n":2}']),
        (0, [b'{"n":3}']),
    ]
    assert before[0].id == again[1].id
    assert len({batch.id for batch in (*before, *again)}) == 4
    assert first.json["items"][1]["create"]["_id"] == f"b{before[1].id.hex()}.1"


def test_an_id_is_its_keys_own(door: Door) -> None:
    """Nobody makes a duplicate of another's event by guessing its id."""
    other = KeysFile(door.data_dir / "keys.toml").add("other")
    named = b'{"create":{"_index":"a","_id":"shared"}}\n{"n":1}\n'
    send(door, named)
    mine = newest(door)[0].id
    headers = {**basic(other), "User-Agent": "curl/8"}
    until(lambda: door.request("POST", "/_bulk", named, headers).status == 200)

    assert newest(door)[0].key == "other"
    assert newest(door)[0].id != mine


def test_a_document_that_cannot_be_read_is_kept_and_said_so(door: Door) -> None:
    """201 and errors:false: nobody drops it, nobody sends it again, and what is beside it is an event."""
    answer = send(door, bulk(b'{"n":1}', b'{"structured":"[a b="c"]"}', b'{"n":3}'))

    assert b'"errors":false,"items":[' in answer.body
    assert [item["create"].get("failure_store") for item in answer.json["items"]] == [None, "used", None]
    assert newest(door)[0].events == [b'{"n":1}', b'{"structured":"[a b="c"]"}', b'{"n":3}']


def test_a_document_beyond_a_limit_is_left_out_and_the_others_are_taken(door: Door) -> None:
    """400, which senders drop; its beginning is kept for the operator."""
    answer = send(door, bulk(b'{"n":1}', b'{"a":"%b"}' % (b"x" * 3000), b'{"n":3}'))

    assert answer.json["errors"] is True
    assert [item["create"]["status"] for item in answer.json["items"]] == [201, 400, 201]
    assert answer.json["items"][1]["create"]["error"]["type"] == "event_too_large"
    assert newest(door)[0].events == [b'{"n":1}', b'{"n":3}']

    def kept() -> list[tuple[str, str, int]]:
        bodies = [one.body for _, one in of_kind(door.records(), Kind.REFUSED)]
        return [(one.format, one.code, one.size_bytes) for one in bodies if isinstance(one, Refused)]

    until(lambda: ("elasticsearch", "event_too_large", 3008) in kept())


def test_of_numbered_events_none_is_left_out(door: Door) -> None:
    """Those behind it would get its number, and be another event than their sender means."""
    numbered = {"Log-Emitter": "web1", "Log-Epoch": "e1", "Log-Seq": "1"}
    answer = send(door, bulk(b'{"n":1}', b'{"a":"%b"}' % (b"x" * 3000), b'{"n":3}'), **numbered)

    assert (answer.status, answer.json["error"]["type"]) == (413, "event_too_large")


def test_what_would_change_events_is_answered_so(door: Door) -> None:
    """Item by item; a request of nothing else is no event, and no reason to come again."""
    answer = send(door, b'{"delete":{"_index":"a","_id":"1"}}\n{"update":{"_id":"2"}}\n{"doc":{}}\n')

    assert (answer.status, answer.json["errors"]) == (200, True)
    assert [(name, said["status"]) for item in answer.json["items"] for name, said in item.items()] == [
        ("delete", 400),
        ("update", 400),
    ]


@pytest.mark.parametrize(
    ("path", "method", "id"),
    [
        ("/app/_doc", "POST", None),
        ("/app/_doc/x1", "PUT", "x1"),
        ("/app/_doc/x2?op_type=create", "POST", "x2"),
        ("/app/_create/x3", "PUT", "x3"),
    ],
)
def test_a_single_document_is_answered_201(door: Door, path: str, method: str, id: str | None) -> None:
    """Without a status in it, which rsyslog takes for a failure."""
    answer = send(door, b'{"n":1}', path, method)

    assert (answer.status, answer.json["_index"], answer.json["result"]) == (201, "app", "created")
    assert "status" not in answer.json
    assert answer.json["_id"] == (id or f"b{newest(door)[0].id.hex()}.0")


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/_bulk", b"", 400, "body_empty"),
        ("/_bulk", b'{"message":"no action"}\n', 400, "bulk_action_bad"),
        ("/_bulk", bulk(*[b"{}"] * 3001), 413, "events_too_many"),
        ("/_bulk", b"x" * 500_001, 413, "body_too_large"),
        ("/app/_doc", b'{"n":', 400, "json_bad"),
        ("/app/_doc", b"{}{}", 413, "events_too_many"),
    ],
)
def test_a_refusal_has_the_shape_that_its_senders_read(
    door: Door, path: str, body: bytes, status: int, code: str
) -> None:
    """Of the whole request, and then nothing of it is accepted."""
    before = len(of_kind(door.records(), Kind.DATA))
    answer = send(door, body, path)

    assert (answer.status, answer.json["status"], answer.json["error"]["type"]) == (status, status, code)
    assert answer.json["error"]["root_cause"][0]["reason"] == answer.json["error"]["reason"]
    assert answer.headers["x-elastic-product"] == "Elasticsearch"
    assert len(of_kind(door.records(), Kind.DATA)) == before


# --- keys ---------------------------------------------------------------------------------------------------------
def test_the_key_comes_as_these_senders_carry_it(door: Door) -> None:
    """As a password, as an API key with its id or as it is, in Bearer, in the headers for all keys."""
    carried = [
        basic(door.key),
        api_key(door.key),
        {"Authorization": f"ApiKey {door.key}"},
        {"Authorization": f"Bearer {door.key}"},
        {"X-Log-Key": door.key, **basic("another")},
    ]

    assert [door.request("POST", "/_bulk", bulk(b"{}"), headers).status for headers in carried] == [200] * 5


@pytest.mark.parametrize(
    "headers",
    [
        {},
        basic("lw_wrong"),
        api_key("lw_wrong"),
        {"Authorization": "Basic !"},
        {"Authorization": "Basic bm9jb2xvbg=="},
        {"Authorization": "ApiKey"},
        {"Authorization": "ApiKey aWQ6"},
    ],
)
def test_without_a_good_key_nobody_is_told_anything(door: Door, headers: dict[str, str]) -> None:
    """Neither of the greeting nor of a bulk."""
    for method, path in (("GET", "/"), ("POST", "/_bulk"), ("PUT", "/_ilm/policy/x")):
        named = {"User-Agent": "curl/8", **headers}
        answer = door.request(method, path, b"{}" if method != "GET" else None, named)
        assert (answer.status, answer.json["status"]) == (401, 401)
        assert answer.headers["www-authenticate"].startswith("Basic ")


def test_a_sender_without_a_name_gets_no_whole_answer_that_it_would_take_for_final(door: Door) -> None:
    """rsyslog 8.2302 drops what is refused, whatever the status, and sends again what has no answer."""
    document = bulk(b"{}", b"{}")
    nameless = [basic("lw_wrong"), {**basic(door.key), "X-Log-Key": "lw_wrong"}]
    for headers in nameless if door.interface == "asgi" else ():
        with pytest.raises(http.client.IncompleteRead) as caught:
            door.request("POST", "/_bulk", document, headers)
        assert json.loads(caught.value.partial)["status"] == 401
        assert door.request("POST", "/_bulk", document, {**headers, "User-Agent": "curl/8"}).json["status"] == 401

    # What no waiting changes is said in full.
    assert door.request("POST", "/_bulk", b"no bulk", basic(door.key)).status == 400


def test_what_cannot_begin_gets_no_answer_only_from_a_nameless_sender_of_a_bulk() -> None:
    """A process that stops refuses before a format sees the request: it asks which format would have."""
    app = AsgiApp(lambda *_: None, lambda _: None, stop_timeout_s=1)  # type: ignore[arg-type, return-value]
    unheard = {}
    for url in (b"/_bulk", b"/a/_bulk?timeout=1m", b"/events", b"/metrics", b"/\xff"):
        for headers in ([], [(b"user-agent", b"curl/8")]):
            head = Head(b"POST", url, "1.1", headers, keep_alive=True, expects_100=False)
            unheard[url, bool(headers)] = app.hears_no_refusal(head)

    assert [asked for asked, is_unheard in unheard.items() if is_unheard] == [
        (b"/_bulk", False),
        (b"/a/_bulk?timeout=1m", False),
    ]


# --- what senders ask, row by row -----------------------------------------------------------------------------------
CLIENTS: dict[str, list[tuple[str, str, int]]] = {
    "rsyslog": [("GET", "/", 200), ("GET", "/_cat/health", 200)],
    "Beats": [
        ("GET", "/", 200),
        ("GET", "/_license?human=false", 200),
        ("GET", "/_ilm/policy/filebeat", 404),
        ("PUT", "/_ilm/policy/filebeat", 200),
        ("HEAD", "/_index_template/filebeat-8.17.0", 404),
        ("PUT", "/_index_template/filebeat-8.17.0", 200),
        ("GET", "/_data_stream/filebeat-8.17.0", 404),
        ("PUT", "/_data_stream/filebeat-8.17.0", 200),
        ("GET", "/_ingest/pipeline/filebeat-8.17.0-nginx", 404),
        ("PUT", "/_ingest/pipeline/filebeat-8.17.0-nginx", 200),
    ],
    "Logstash": [
        ("HEAD", "/", 200),
        ("GET", "/", 200),
        ("GET", "/_license", 200),
        ("GET", "/_index_template/ecs-logstash", 404),
        ("PUT", "/_index_template/ecs-logstash", 200),
        ("GET", "/_ilm/policy/logstash-policy", 404),
        ("PUT", "/_ilm/policy/logstash-policy", 200),
        ("GET", "/_nodes/http", 200),
    ],
    "Vector": [("GET", "/_cluster/health", 200), ("GET", "/", 200)],
}


@pytest.mark.parametrize("client", CLIENTS)
def test_what_a_sender_asks_first_is_answered_in_its_order(door: Door, client: str) -> None:
    """On one connection, with bodies that nobody reads; then it sends on it."""
    connection = door.connection()
    answers = []
    for method, path, status in CLIENTS[client]:
        body = json.dumps({"template": "x" * 20_000}).encode() if method == "PUT" else None
        answer = door.request(method, path, body, basic(door.key), connection=connection)
        assert (answer.status, answer.headers["x-elastic-product"]) == (status, "Elasticsearch"), path
        answers.append(answer)
    sent = door.request("POST", "/_bulk", bulk(b"{}"), basic(door.key), connection=connection)

    assert sent.status == 200
    for (method, path, _), answer in zip(CLIENTS[client], answers, strict=True):
        if method == "PUT":
            assert answer.json == {"acknowledged": True}
        elif method == "GET" and path == "/":
            major, minor, _ = map(int, answer.json["version"]["number"].split("."))
            assert (major, minor) >= (7, 14)
            assert answer.json["version"]["build_flavor"] == "default"
            assert answer.json["tagline"] == "You Know, for Search"
        elif path.startswith("/_license"):
            assert (answer.json["license"]["type"], answer.json["license"]["status"]) == ("basic", "active")


FILTER = "filter_path=errors,items.*.error,items.*.status"
GOOD, POISON, LARGE = b'{"n":1}', b'{"a":"b"c"}', b'{"a":"%b"}' % (b"x" * 3000)


def beats_verdicts(answer: Answer) -> list[str]:
    """As its sources have it: an item for each event, in order, or all of the batch is dropped."""
    found = []
    for item in answer.json["items"]:
        ((_, said),) = item.items()
        found.append("acked" if said["status"] < 300 else "retried" if said["status"] in (429, 503) else "dropped")
    return found


def test_beats_and_logstash_hear_of_each_event(door: Door) -> None:
    """Through their filter_path, which leaves no other fields."""
    answer = send(door, bulk(GOOD, POISON, LARGE), f"/_bulk?{FILTER}", **{"Content-Type": "application/json"})

    assert answer.json.keys() == {"errors", "items"}
    assert [set(item["create"]) for item in answer.json["items"]] == [{"status"}, {"status"}, {"status", "error"}]
    assert beats_verdicts(answer) == ["acked", "acked", "dropped"]


def test_vector_is_told_that_all_went_well_when_nothing_is_lost(door: Door) -> None:
    """It looks for one text, and takes the whole request for rejected when that is there."""
    fine = send(door, bulk(GOOD, POISON), "/_bulk?timeout=60s", **{"Content-Type": "application/x-ndjson"})
    lost = send(door, bulk(GOOD, LARGE), "/_bulk?timeout=60s")

    assert '"errors":true' not in fine.body.decode()
    assert '"errors":true' in lost.body.decode()


def test_fluent_bit_is_told_that_all_went_well_in_the_words_that_it_looks_for(door: Door) -> None:
    """Also where the answer is longer than what it keeps of it."""
    answer = send(door, gzip.compress(bulk(*[GOOD] * 2000, POISON)), **{"Content-Encoding": "gzip"})

    assert answer.status == 200
    assert '"errors":false,"items":[' in answer.body[:512].decode()
    assert all(len(item) == 1 for item in answer.json["items"])


def test_rsyslog_and_syslog_ng_are_told_what_keeps_them_going(door: Door) -> None:
    """rsyslog wants items, errors and whole numbers; syslog-ng looks at the status alone."""
    answer = send(door, bulk(GOOD, POISON), "/_bulk", **{"Content-Type": "application/json; charset=utf-8"})
    stream = send(door, bulk(GOOD, POISON, action=b'{"create":{ }}'), "/logs-app-default/_bulk", "PUT")

    assert all(type(item["create"]["status"]) is int for item in answer.json["items"])
    assert (answer.json["errors"], answer.status, stream.status) == (False, 200, 200)


@pytest.mark.parametrize(
    ("filter_path", "fields", "item"),
    [
        ("", {"took", "errors", "items"}, {"_index", "_id", "_version", "result", "status"}),
        ("took", {"took"}, None),
        ("items", {"items"}, {"_index", "_id", "_version", "result", "status"}),
        ("items.create.status", {"items"}, {"status"}),
        ("items.index.status", set(), None),
        ("items.*.error", set(), None),
        ("**.status,took", {"took", "errors", "items"}, {"_index", "_id", "_version", "result", "status"}),
        ("-took,-items.*._*", {"errors", "items"}, {"result", "status"}),
        ("items.*,-items.*.status", {"items"}, {"_index", "_id", "_version", "result"}),
        ("nothing", set(), None),
        ("it*s.c*e*.st*tus,*took", {"took", "items"}, {"status"}),
        ("itemss*,items.*.sta*atus,errors*s", set(), None),
        (",,%2C" + "a," * 1000, set(), None),
    ],
)
def test_filter_path_leaves_what_it_names(filter_path: str, fields: set[str], item: set[str] | None) -> None:
    """Names, ``*`` for any, a minus for all but that; behind ``**`` anything may be what was meant."""
    request = Request("POST", "/_bulk", {}, "", f"timeout=1m&filter_path={filter_path}".encode())
    parsed = FORMAT.split(request, bulk(b"{}"), LIMITS)
    answer = json.loads(FORMAT.accepted(request, Accepted(1, "queue", b"", parsed.about)).body)

    assert answer.keys() == fields
    assert (set(answer["items"][0]["create"]) if "items" in answer else None) == item


# --- any body -----------------------------------------------------------------------------------------------------
_lines = st.sampled_from(
    [
        b'{"create":{}}',
        b'{"index":{"_id":"a"}}',
        b'{"delete":{}}',
        b'{"update":{}}',
        b'{"n":1}',
        b'{"n":',
        b"}",
        b"",
        b"\xff",
    ]
)


@given(st.lists(st.one_of(_lines, _bodies), max_size=12), st.sampled_from([b"\n", b"\r\n", b"\n\n"]))
def test_any_body_has_an_item_for_each_action_or_is_refused(lines: list[bytes], between: bytes) -> None:
    """No body breaks it; events and items that took one are as many; what was kept is in the body as it stands."""
    request = Request("POST", "/_bulk", {}, "")
    body = between.join(lines)
    try:
        parsed = FORMAT.split(request, body, LIMITS)
    except LogweirError as error:
        assert error.problem.code in ("body_empty", "bulk_action_bad", "events_too_many")
        return
    items = json.loads(FORMAT.accepted(request, Accepted(len(parsed.events), "queue", b"", parsed.about)).body)["items"]
    taken = [item for item in items for said in item.values() if said["status"] == 201]
    kept = [item for item in items for said in item.values() if "failure_store" in said]

    assert (len(taken), len(kept)) == (len(parsed.events), parsed.kept)
    assert all(event in body for event in parsed.events)
    assert parsed.names is None or len(parsed.names) == len(parsed.events)


@pytest.mark.parametrize(
    "body",
    [
        b'{"create":{}}\n{"a":' + b"\n" * (8 << 20),
        b'{"create":{}}\n{"a":' + b"x\n" * (4 << 20),
        b'{"create":{}}\n' * (1 << 19),
        b'{"create":{}}\n{"a":"' + b"x" * (8 << 20),
        b"\n" * (8 << 20),
        b'{"create":{}}\n' + b"[" * (8 << 20),
    ],
    ids=["line feeds", "lines", "actions", "one line", "blank", "brackets"],
)
def test_hostile_bodies_cost_no_more_than_the_limits_allow(body: bytes) -> None:
    """8 MiB of each are through at once."""
    started_s = time.process_time()
    with contextlib.suppress(LogweirError):
        FORMAT.split(Request("POST", "/_bulk", {}, ""), body, LIMITS)

    assert time.process_time() - started_s < 2


def test_a_record_says_whose_events_they_are(door: Door) -> None:
    """Of a sender that says its name in a header of its own, as Beats can; with names of events and without."""
    for document in (bulk(GOOD), b'{"create":{"_id":"%b"}}\n{}\n' % (b"i" * 400)):
        assert send(door, document, **{"Log-Emitter": "web-1"}).status == 200
        assert newest(door)[0].emitter == "web-1"
