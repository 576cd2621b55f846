"""What cannot be read is kept, of senders that a refusal would stop for good and of keys that say so; else refused."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator

import pytest

from logweir import receipt
from logweir.keys.file import KeysFile
from logweir.keys.terms import Terms
from logweir.record import Kind
from tests.ingest.helpers import Answer, Door, events_of, is_ready, of_kind, running
from tests.waiting import until

OMHTTP = {"Accept": "*/*", "Content-Type": "application/json; charset=utf-8"}
OMHTTP_LINES = {"Accept": "*/*", "Content-Type": "text/plain"}
SYSLOG_NG = {"User-Agent": "syslog-ng 3.38.1/libcurl 7.88.1", "Accept": "*/*", "Content-Type": "application/json"}
BROKEN = b'{"summary":"say "hello""}'
TERMS = {
    "kept": Terms(unreadable="keep"),
    "refused": Terms(unreadable="refuse"),
    "some": Terms(categories=("web",)),
    "limited": Terms(events_per_second=1),
    "limited-too": Terms(events_per_second=1),
}
LIMITS = {"LOGWEIR_INGEST_EVENT_SIZE_BYTES_MAX": "2000", "LOGWEIR_INGEST_EVENTS_PER_REQUEST_MAX": "600"}


@pytest.fixture(scope="module", params=["asgi", "wsgi"])
def door(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with running(Door(tmp_path_factory.mktemp("door"), interface=request.param, environment=LIMITS)) as door:
        file = KeysFile(door.data_dir / "keys.toml")
        for name, terms in TERMS.items():
            KEYS[name] = file.add(name, terms=terms)
        until(lambda: is_ready(door))
        until(lambda: door.post(b"{}", {"X-Log-Key": KEYS["limited-too"]}).status != 401)
        yield door


KEYS: dict[str, str] = {}


def post(door: Door, body: bytes, headers: dict[str, str], key: str | None = None) -> Answer:
    return door.post(body, {**headers, "X-Log-Key": KEYS[key] if key else door.key})


def queued(door: Door, answer: Answer) -> list[bytes]:
    """The events of the batch that was answered so; its receipt covers all of them."""
    told = receipt.decode(answer.json["receipt"], receipt.secret_of(door.data_dir))
    (record,) = [
        one
        for partition, one in of_kind(door.records(), Kind.DATA)
        if (one.ingest_epoch, partition) == (told.ingest_epoch, told.partition) and one.first <= told.first <= one.last
    ]
    assert len(events_of([(0, record)])) == told.count
    return events_of([(0, record)])


@pytest.mark.parametrize("sender", [OMHTTP, OMHTTP_LINES, SYSLOG_NG], ids=["omhttp", "omhttp in lines", "syslog-ng"])
def test_a_sender_that_never_gets_over_a_refusal_is_not_refused(door: Door, sender: dict[str, str]) -> None:
    """It is answered 202 with how many events could be read and how many are kept, and all are in the queue."""
    before = door.metric('logweir_ingest_kept_events_total{format="json"}')
    lone = post(door, BROKEN, sender)
    lines = post(door, b'{"n":1}\n' + BROKEN + b'\nplain\n{"n":2}\n', sender)

    assert (lone.status, lone.json["accepted"], lone.json["kept"]) == (202, 0, 1)
    assert queued(door, lone) == [BROKEN]
    assert (lines.status, lines.json["accepted"], lines.json["kept"]) == (202, 2, 1)
    assert queued(door, lines) == [b'{"n":1}', BROKEN + b"\nplain", b'{"n":2}']
    assert door.metric('logweir_ingest_kept_events_total{format="json"}') == before + 2


def test_the_log_says_once_of_a_key_that_what_it_sends_is_kept(door: Door) -> None:
    """With the kind of the sender, and where it says what to do."""
    for _ in range(3):
        post(door, BROKEN, OMHTTP)
    lines = [line for line in door.log.splitlines() if "what cannot be read becomes a dead letter" in line]

    assert len(lines) == 1
    assert "'default'" in lines[0] and "docs/how-to/rsyslog.md" in lines[0]


def test_any_other_sender_is_refused(door: Door) -> None:
    """It is told what is wrong; nothing of the request is in the queue. A key may say otherwise, to both kinds."""
    almost = [{**OMHTTP, "User-Agent": "curl/8"}, {**OMHTTP, "Content-Type": "application/json"}, {}]
    for headers in almost:
        answer = post(door, BROKEN, headers)
        assert (answer.status, answer.json["code"]) == (400, "json_bad")
    kept, refused = post(door, BROKEN, {}, "kept"), post(door, BROKEN, OMHTTP, "refused")

    assert (kept.status, kept.json["kept"]) == (202, 1)
    assert (refused.status, refused.json["code"]) == (400, "json_bad")


def test_numbers_of_an_emitter_are_given_to_nothing_that_cannot_be_read(door: Door) -> None:
    """Which of its parts has which number, nobody can tell: an event behind it might be taken for sent before."""
    numbered = {**OMHTTP, "Log-Epoch": "run", "Log-Seq": "1"}

    assert post(door, BROKEN, numbered).status == 400
    assert post(door, BROKEN, numbered, "kept").status == 400
    assert post(door, BROKEN, {**OMHTTP, "Log-Emitter": "web1"}).status == 202


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b'{"category":"web","structured data":"[a b="c"]"}', 202, None),
        (b'{"category":"secret","structured data":"[a b="c"]"}', 403, "category_refused"),
        (b'{"structured data":"[a b="c"]"}', 403, "category_missing"),
        (b'{"category":"secret","x":"say "x""}', 202, None),
        (b'{"category":"web"}\n{"category":"secret"}\nx', 403, "category_refused"),
    ],
)
def test_a_key_for_some_categories_is_one_for_what_can_be_mended_too(
    door: Door, body: bytes, status: int, code: str | None
) -> None:
    """An event that a worker will mend is judged as it will be; what no worker can read has no category."""
    answer = post(door, body, OMHTTP, "some")

    assert answer.status == status, answer.body
    assert answer.json.get("code") == code


def test_a_quota_counts_what_is_kept_and_says_so_in_a_status_that_omhttp_gets_over(door: Door) -> None:
    """503 in place of 429, after which it would drop all that comes; Retry-After and the code are the same."""
    for key, headers, status in (("limited", OMHTTP, 503), ("limited-too", SYSLOG_NG, 429)):
        until(lambda key=key, headers=headers: post(door, BROKEN + b"\nx\ny\nz", headers, key).status == 202)  # type: ignore[misc]
        answers = [post(door, BROKEN, headers, key) for _ in range(5)]
        refused = next(answer for answer in answers if answer.status != 202)

        assert (refused.status, refused.json["status"], refused.json["code"]) == (status, status, "quota_exceeded")
        assert int(refused.headers["retry-after"]) >= 1


def test_the_limits_of_a_request_hold(door: Door) -> None:
    """An event that is too large is kept in pieces; more events than a request may have are refused."""
    long = b'{"summary":"%b"}' % (b"x" * 5000)
    pieces = post(door, long, OMHTTP)
    many = post(door, b"{\n" * 601, OMHTTP)

    assert (pieces.status, pieces.json["accepted"], pieces.json["kept"]) == (202, 0, 3)
    assert b"".join(queued(door, pieces)) == long and max(map(len, queued(door, pieces))) <= 2000
    assert (many.status, many.json["code"]) == (413, "events_too_many")


def test_a_body_that_takes_long_and_came_packed_is_kept_the_same(door: Door) -> None:
    """On another thread; packing that is broken is refused as ever."""
    body = b"\n".join([json.dumps({"n": n, "pad": "x" * 100}).encode() for n in range(500)] + [BROKEN])
    answer = post(door, gzip.compress(body), {**OMHTTP, "Content-Encoding": "gzip"})

    assert (answer.status, answer.json["accepted"], answer.json["kept"]) == (202, 500, 1)
    assert post(door, b"no gzip", {**OMHTTP, "Content-Encoding": "gzip"}).status == 400


@pytest.mark.parametrize("body", [b"", b"\n", b"[]", b"null", b"\xff\xfe"])
def test_nothing_that_can_be_sent_stops_it(door: Door, body: bytes) -> None:
    """A template without a text, white space, what is no object, no UTF-8."""
    answer = post(door, body, OMHTTP)

    assert (answer.status, answer.json["accepted"], answer.json["kept"]) == (202, 0, 1)
    assert queued(door, answer) == [body]
