"""The console's search: the same hits as JSON and as a page, problems said in place, nothing from a log executed."""

from __future__ import annotations

import html
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import orjson
import pytest
from flask.testing import FlaskClient

from logweir.config import ConsoleSettings, StoreSettings
from logweir.store import open_store
from logweir.store.port import Store
from logweir_console.app import make_app
from tests.contract.stores import NOON_US, document, iso

EVIL = "<script>alert(1)</script> \"quoted\" & 'more'"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(open_store(StoreSettings(url=f"sqlite:///{tmp_path}/store"))) as store:
        store.prepare()
        sources: list[dict[str, Any]] = [
            {"summary": EVIL, "hostname": "<b>h</b>", "category": "<i>c</i>", "details": {"<u>": "</pre>"}},
            {"summary": "Failed password", "hostname": "web1", "severity": "WARNING"},
            {"hostname": "web2"},
        ]
        sources += [{"summary": f"filler {number}"} for number in range(200)]
        store.index(
            [
                document(f"e{number}", source, number=number, received_us=NOON_US - number * 1_000_000)
                for number, source in enumerate(sources, start=1)
            ]
        )
        yield store


@pytest.fixture
def client(store: Store) -> FlaskClient:
    return make_app(ConsoleSettings(), store, clock=lambda: NOON_US + 1).test_client()


class Page(HTMLParser):
    """What a page has: tags with their attributes, and the text inside of each kind of tag."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "input"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and data.strip():
            self.text.setdefault(self._open[-1], []).append(data.strip())


def test_api_gives_the_stored_documents(client: FlaskClient, store: Store) -> None:
    """GET /api/search answers with the total, the documents as the store has them, and the time it took."""
    answer = client.get("/api/search?q=hostname:web*")
    body = answer.get_json()

    assert answer.status_code == 200
    assert body["total"] == 2
    assert [hit["_id"] for hit in body["hits"]] == ["e2", "e3"]
    assert body["hits"][0]["summary"] == "Failed password"
    assert body["hits"][0]["_index"] == "events-20260131"
    assert isinstance(body["took_ms"], int)
    assert body["after"] is None


def test_api_refuses_a_parameter_that_it_does_not_know(client: FlaskClient) -> None:
    """A misspelt q must not find everything."""
    answer = client.get("/api/search?query=Failed")

    assert answer.status_code == 400
    assert "The parameter query" in answer.json["detail"]
    assert "one of q, from" in answer.json["detail"]


def test_api_bounds_size_and_pages(client: FlaskClient) -> None:
    """from, to, size and after narrow the answer; without them, everything, 100 at a time."""
    assert len(client.get("/api/search").get_json()["hits"]) == 100
    assert client.get("/api/search?size=0").get_json()["hits"] == []
    assert client.get("/api/search?size=10000").get_json()["total"] == 203
    assert client.get(f"/api/search?from={iso(NOON_US - 3_000_000)}").get_json()["total"] == 3
    assert client.get(f"/api/search?to={iso(NOON_US - 3_000_000)}").get_json()["total"] == 200
    assert client.get("/api/search?from=10s&time_field=timestamp").get_json()["total"] == 10
    first = client.get("/api/search?size=2").get_json()
    second = client.get(
        "/api/search", query_string={"size": 2, "after": str(first["after"]).replace("'", '"')}
    ).get_json()
    assert [hit["_id"] for hit in first["hits"] + second["hits"]] == ["e1", "e2", "e3", "e4"]


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({"q": "(a"}, "query_bad"),
        ({"q": "hostnam:x"}, "query_field_unknown"),
        ({"q": "*x.y"}, "query_operator_unfit"),
        ({"from": "yesterday"}, "time_bad"),
        ({"to": "1y"}, "time_bad"),
        ({"from": "2026-02-01", "to": "2026-01-01"}, "parameter_bad"),
        ({"size": "10001"}, "parameter_bad"),
        ({"size": "-1"}, "parameter_bad"),
        ({"size": "9" * 5000}, "parameter_bad"),
        ({"size": "ten"}, "parameter_bad"),
        ({"time_field": "hostname"}, "parameter_bad"),
        ({"after": "[1]"}, "parameter_bad"),
        ({"after": '["1","s",2]'}, "parameter_bad"),
        ({"after": "x"}, "parameter_bad"),
        ({"after": "7"}, "parameter_bad"),
        ({"after": '[18446744073709551615,"s",1]'}, "parameter_bad"),
        ({"after": '[9223372036854775807,"s",1]'}, "parameter_bad"),
        ({"after": '[-9223372036854775809,"s",1]'}, "parameter_bad"),
        ({"after": '[1,"s",9223372036854775808]'}, "parameter_bad"),
        ({"after": '[1,"s",-1]'}, "parameter_bad"),
        ({"after": '[true,"s",1]'}, "parameter_bad"),
        ({"after": '[1,"' + "s" * 1000 + '",1]'}, "parameter_bad"),
        ({"after": "[1e400,1,1]"}, "parameter_bad"),
        ({"size": "0000000001000000"}, "parameter_bad"),
        ({"size": "١٠"}, "parameter_bad"),
        ({"from": "1h", "to": "1h"}, "parameter_bad"),
        ({"endpoint": "x"}, "parameter_bad"),
        ({"_external": "1"}, "parameter_bad"),
        ({"_scheme": "javascript"}, "parameter_bad"),
        ({"_anchor": "x"}, "parameter_bad"),
        ({"filename": "x"}, "parameter_bad"),
        ({"sourceaddress": "x"}, "parameter_bad"),
        ({"q": "hostname:127.0.0.0/8"}, "query_operator_unfit"),
    ],
)
def test_what_cannot_be_read_is_a_problem_answer(client: FlaskClient, parameters: dict[str, str], code: str) -> None:
    """Each bad parameter is 400 with a problem+json body that names it; the page says the same in place."""
    answer = client.get("/api/search", query_string=parameters)
    page = client.get("/", query_string=parameters)

    assert (answer.status_code, answer.mimetype) == (400, "application/problem+json")
    assert answer.get_json()["code"] == code
    assert page.status_code == 400
    assert 'role="alert"' in page.text
    assert "<table>" not in page.text


@pytest.mark.parametrize(
    ("query", "said"),
    [
        (b"q=a&q=b", "The parameter q, which reads 'b', is not one that may be given twice."),
        (b"size=1&size=1", "The parameter size"),
        (b"q=caf%E9", "is not UTF-8"),
        (b"q=caf\xe9", "is not UTF-8"),
        (b"q=%ED%A0%80", "is not UTF-8"),
        (b"caf%E9=1", "is not UTF-8"),
        (b"from=2026-11-30T05:00:00+01:00", "Is it 2026-11-30T05:00:00+01:00? In a URL, + is written %2B."),
        (b"time_field=hostname", "is not one of receivedtimestamp, timestamp, utctimestamp."),
        (b"since=1y", "'1y' is not a time"),
    ],
)
@pytest.mark.parametrize("path", ["/", "/api/search"])
def test_what_is_sent_is_taken_as_it_is_meant_or_refused(
    client: FlaskClient, path: str, query: bytes, said: str
) -> None:
    """Twice the same, bytes that are no text, a + that is a space: never hits for something else."""
    answer = client.get(path, environ_overrides={"QUERY_STRING": query.decode("latin-1")})

    assert answer.status_code == 400
    if (path, query) != ("/api/search", b"since=1y"):  # The page's own.
        assert said in html.unescape(answer.text)


def test_the_same_day_as_from_and_to_is_that_day(client: FlaskClient) -> None:
    """As the same time in a query is."""
    assert client.get("/api/search?from=2026-01-31&to=2026-01-31").get_json()["total"] == 203
    assert client.get("/api/search?from=2026-01-30&to=2026-01-30").get_json()["total"] == 0


def links(text: str) -> dict[str, str]:
    """Where the page's links lead, by their text."""
    found: dict[str, str] = {}

    class Links(HTMLParser):
        href = ""

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.href = str(dict(attrs).get("href", "")) if tag == "a" else ""

        def handle_data(self, data: str) -> None:
            if self.href:
                found[data.strip()] = self.href

    Links().feed(text)
    return found


@pytest.mark.parametrize(
    "query",
    [
        {"q": "*", "since": "15m", "time_field": "timestamp"},
        {"q": "filler", "since": "30s"},
        {"q": "filler", "from": "1m", "to": "10s"},
        {"from": "2026-01-31", "to": "2026-01-31", "size": "7"},
        {"since": ""},
        {"q": 'filler OR "a+b & c"', "from": "2026-01-31T12:00:00+01:00"},
        {},
    ],
)
def test_as_json_leads_to_the_events_of_the_page(store: Store, query: dict[str, str]) -> None:
    """Today's and, when it is opened later, still those; of the second page, those of the second page."""
    now_us = [NOON_US + 1]
    client = make_app(ConsoleSettings(), store, clock=lambda: now_us[0]).test_client()
    page = client.get("/", query_string=query).text
    now_us[0] += 5_000_000
    answer = client.get(links(page)["as JSON"]).get_json()

    assert page.count("<details>") == len(answer["hits"])
    assert f"{answer['total']:,} event" in page
    if "Older events" in links(page):
        now_us[0] -= 5_000_000
        second = client.get(links(page)["Older events"]).text
        hits = client.get(links(second)["as JSON"]).get_json()["hits"]
        assert [hit["_id"] for hit in hits] == re.findall(r"&#34;_id&#34;: &#34;(\w+)&#34;", second)
        assert hits != answer["hits"]


@pytest.mark.parametrize(
    ("query", "selected"),
    [
        ("", "24h"),
        ("since=3h", "3h"),
        ("since=90m&q=x", "90m"),
        ("since=", "any time"),
        ("since=24h&from=2026-01-31", "any time"),
        ("from=2026-01-31", "any time"),
    ],
)
def test_page_shows_the_time_that_counts(client: FlaskClient, query: str, selected: str) -> None:
    """Also one that is not on the list; and none when from counts instead."""
    text = client.get(f"/?{query}").text
    found = re.findall(r"<option[^>]*\bvalue=\"([^\"]*)\" selected", text)

    assert (found or ["any time"])[0] == selected


def test_large_events_end_the_page_which_says_so(tmp_path: Path) -> None:
    """At console.page_size_bytes_max; the next page goes on, until all are seen, and then none says that it is cut."""
    with closing(open_store(StoreSettings(url=f"sqlite:///{tmp_path}/large"))) as store:
        store.prepare()
        events = [document(f"e{n}", {"summary": "x" * 30_000}, number=n, received_us=NOON_US - n) for n in range(9)]
        store.index(events)
        client = make_app(ConsoleSettings(page_size_bytes_max=100_000), store).test_client()
        answers = [client.get("/api/search").get_json()]
        while answers[-1]["after"]:
            after = orjson.dumps(answers[-1]["after"]).decode()
            answers.append(client.get("/api/search", query_string={"after": after}).get_json())
        page = client.get("/?since=").text
        next_page = client.get(links(page)["Older events"]).text
        small = client.get("/api/search?size=2").get_json()

    assert [len(answer["hits"]) for answer in answers] == [3, 3, 3]
    assert [answer["cut"] for answer in answers] == [True, True, False]
    assert "9 events, 3 shown" in page
    assert "console.page_size_bytes_max" in page
    assert next_page.count("<details>") == 3
    assert (len(small["hits"]), small["cut"]) == (2, False)


FETCHES = (
    ({}, 200),
    ({"Sec-Fetch-Site": "none"}, 200),
    ({"Sec-Fetch-Site": "same-origin"}, 200),
    ({"Sec-Fetch-Site": "cross-site"}, 403),
    ({"Sec-Fetch-Site": "same-site"}, 403),
    ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}, 403),
    ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}, 403),
)


@pytest.mark.parametrize(("headers", "status"), FETCHES)
def test_no_other_site_has_the_console_search(client: FlaskClient, headers: dict[str, str], status: int) -> None:
    """Neither by an image nor in a frame; by hand, by curl and by its own pages, it is searched."""
    assert client.get("/api/search", headers=headers).status_code == status
    assert client.get("/", headers=headers).status_code == status


def test_a_link_to_a_page_may_be_followed_from_anywhere(client: FlaskClient) -> None:
    """From a runbook or a mail; to the page, not to the API."""
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}

    assert client.get("/?q=x", headers=headers).status_code == 200
    assert client.get("/rules", headers=headers).status_code == 200
    assert client.get("/api/search?q=x", headers=headers).status_code == 403
    assert client.post("/", headers=headers).status_code == 403


def test_json_moves_no_cursor(client: FlaskClient, store: Store) -> None:
    """Whoever calls it with curl in a terminal."""
    source = {"summary": "evil \x1b[31m\x7f\x9b31m\u202e"}
    store.index([document("evil", source, number=999, received_us=NOON_US)])
    answer = client.get("/api/search?q=evil")

    assert not [character for character in answer.text if not character.isprintable()]
    assert answer.get_json()["hits"][0]["summary"] == source["summary"]


def test_store_that_is_away_is_503_in_place(tmp_path: Path) -> None:
    """When the store does not answer, API and page say so with 503, and healthz still answers."""
    store = open_store(StoreSettings(url="http://127.0.0.1:9"))
    client = make_app(ConsoleSettings(), store).test_client()

    assert client.get("/api/search").status_code == 503
    assert client.get("/api/search").get_json()["code"] == "store_down"
    assert "does not answer" in client.get("/").text
    assert client.get("/healthz").text == "ok\n"


def test_page_shows_box_range_and_hits(client: FlaskClient) -> None:
    """The page has the search as typed, the number of hits, a line for each and all of it to open."""
    page = Page(client.get('/?q=hostname:web1+OR+"no+\\"such"&since=7d').text)
    inputs = {attributes["name"]: attributes for tag, attributes in page.tags if tag in ("input", "select")}

    assert inputs["q"]["value"] == 'hostname:web1 OR "no \\"such"'
    assert ("option", {"value": "7d", "selected": None}) in page.tags
    assert "1 event" in page.text["p"]
    assert {"web1", "WARNING"} <= set(page.text["td"])
    assert page.text["summary"] == ["Failed password"]
    assert '"_id": "e2"' in page.text["pre"][0]


def test_page_leads_to_older_events(client: FlaskClient) -> None:
    """A link leads to the next page, with the same search, until there are no more."""
    seen, url = [], "/?q=filler&since="
    while url:
        page = Page(client.get(url).text)
        seen += page.text["summary"]
        links = [attributes for tag, attributes in page.tags if tag == "a" and attributes.get("rel") == "next"]
        url = str(links[0]["href"]) if links else ""

    assert seen == [f"filler {number}" for number in range(200)]


def test_first_page_shows_the_last_day(client: FlaskClient, store: Store) -> None:
    """Without parameters the page shows the newest events of the last 24 hours."""
    store.index([document("old", {"summary": "old"}, number=999, received_us=NOON_US - 90_000_000_000)])

    assert "203 events, 100 shown" in client.get("/").text
    assert "204 events, 100 shown" in client.get("/?since=").text


def test_nothing_from_a_log_becomes_markup(client: FlaskClient) -> None:
    """Whatever an event or a query holds is text on the page, and the page may load and run nothing foreign."""
    answer = client.get("/", query_string={"q": f'hostname:"<b>h</b>" OR "{EVIL}"'.replace('"quoted"', "quoted")})
    page = Page(answer.text)

    assert answer.status_code == 200
    assert page.text["summary"] == [EVIL]
    assert {"<b>h</b>", "<i>c</i>"} <= set(page.text["td"])
    assert not {"script", "b", "i", "u", "style", "img"} & {tag for tag, _ in page.tags}
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'; style-src 'self';")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    for _, attributes in page.tags:
        assert not any(name.startswith("on") or name == "style" for name in attributes)
        for name in ("href", "src", "action"):
            assert str(attributes.get(name, "/")).startswith("/")
    assert client.get("/static/console.css").status_code == 200


def test_loopback_console_answers_to_its_own_names_only(client: FlaskClient, store: Store) -> None:
    """A foreign host name that resolves to this machine gets nothing, and no other one where console.hosts is empty."""
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 400
    assert client.get("/", headers={"Host": "[::1"}).status_code == 400
    for own in ("127.0.0.1:8081", "LOCALHOST", "[::1]:8081"):
        assert client.get("/api/search", headers={"Host": own}).status_code == 200
    open_client = make_app(ConsoleSettings(address="0.0.0.0"), store).test_client()
    assert open_client.get("/", headers={"Host": "logs.example.org"}).status_code == 400


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("127.0.0.1:80", 200),
        ("[::1]:80", 200),
        ("a.example.org", 200),
        ("evil.example", 400),
        ("192.0.2.1", 400),
    ],
)
def test_hosts_bound_the_names_answered_to_wherever_it_listens(store: Store, host: str, status: int) -> None:
    """In a container it listens on all networks, and still answers no foreign page's name."""
    settings = ConsoleSettings(address="0.0.0.0", hosts="localhost,127.0.0.1,[::1],.example.org")  # type: ignore[arg-type]

    assert make_app(settings, store).test_client().get("/healthz", headers={"Host": host}).status_code == status


def test_metrics_are_answered_to_any_host_name(client: FlaskClient) -> None:
    """Prometheus asks by the address that it found; there are no logs in the answer."""
    assert client.get("/metrics", headers={"Host": "10.0.0.7:8081"}).status_code == 200


def test_unknown_page_and_method_are_problems(client: FlaskClient) -> None:
    """What there is not, and what cannot be done, is said in JSON."""
    assert client.get("/nope").status_code == 404
    assert client.post("/api/search").status_code == 405
    assert client.post("/api/search").mimetype == "application/problem+json"


# --- the process --------------------------------------------------------------------------------------------------
def start(tmp_path: Path, port: int) -> subprocess.Popen[str]:
    words = ["console", "--data-dir", str(tmp_path), "--port", str(port)]
    return subprocess.Popen([sys.executable, "-m", "logweir.cli", *words], stderr=subprocess.PIPE, text=True)


def test_console_says_where_it_listens_and_stops_cleanly(tmp_path: Path) -> None:
    """`logweir console` prints its address, answers there, and ends within seconds of SIGTERM with status 0."""
    with start(tmp_path, 0) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert "INFO console: Listening on http://127.0.0.1:" in line
        url = line.split()[-1]
        with urllib.request.urlopen(f"{url}/healthz", timeout=10) as answer:
            assert answer.read() == b"ok\n"
        with pytest.raises(urllib.error.HTTPError) as absent:
            urllib.request.urlopen(f"{url}/api/search", timeout=10)
        taken = subprocess.run(
            [sys.executable, "-m", "logweir.cli", "console", "--port", url.rpartition(":")[2]],
            stderr=subprocess.PIPE,
            text=True,
            timeout=20,
        )
        stopped_at = time.monotonic()
        process.terminate()
        rest = process.communicate(timeout=15)[1]

    assert absent.value.code == 503
    assert b'"code":"store_absent"' in absent.value.read()
    assert taken.returncode == 2
    assert "Address already in use" in taken.stderr
    assert taken.stderr.count("\n") == 1
    assert process.returncode == 0
    assert rest == ""
    assert time.monotonic() - stopped_at < 8
    assert list(tmp_path.iterdir()) == []


def test_killed_console_takes_its_child_along(tmp_path: Path) -> None:
    """kill -9 of the console leaves no process that holds the port."""
    with start(tmp_path, 0) as process:
        assert process.stderr is not None
        url = process.stderr.readline().split()[-1]
        process.kill()

    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"{url}/healthz", timeout=1).close()
        except OSError:
            return
        time.sleep(0.05)
    pytest.fail("somebody still answers")
