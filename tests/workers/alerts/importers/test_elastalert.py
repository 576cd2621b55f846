"""Rules of ElastAlert 2: what they fire for here, what is left and why."""

from __future__ import annotations

import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from tests.workers.alerts.importers.helpers import alerts_of, at, imported

ANY = "type: any\n"


def a_rule(text: str, *, name: str = "A test") -> str:
    return f"name: {name}\n{textwrap.dedent(text).strip()}\n"


def filtered(text: str) -> str:
    return a_rule(f"type: any\nfilter:\n{textwrap.indent(textwrap.dedent(text).strip(), '  ')}")


def of_query(text: str) -> str:
    return a_rule(f"type: any\nfilter:\n- query: {{query_string: {{query: '{text}'}}}}")


def web(**details: Any) -> dict[str, Any]:
    return at(0, summary="upstream timed out (110)", details=details)


FILTERS = (
    # The filter; an event that it is for; one that it is not for.
    (filtered("- term: {user.name: root}"), web(username="root"), web(username="roots")),
    (filtered("- term: {user.name: root}"), web(user="ROOT"), web(targetusername="root")),
    (filtered("- term: {user.name.keyword: root}"), web(username="root"), web(username="Root")),
    (filtered("- term: {shop.paid: true}"), web(shop={"paid": True}), web(shop={"paid": False})),
    (filtered("- terms: {http.response.status_code: [500, 502]}"), web(status=502), web(status=503)),
    (filtered("- range: {http.response.status_code: {gte: 500, lt: 600}}"), web(status="500"), web(status=600)),
    (filtered("- term: {host.name.keyword: WEB1}"), at(0, hostname="Web1"), at(0, hostname="web2")),
    (filtered("- term: {winlog.event_id: 4625}"), web(winlog={"event_id": 4625}), web(winlog={"event_id": 4624})),
    (filtered("- exists: {field: labels.test}"), web(labels={"test": "x"}), web(labels={"other": "x"})),
    (filtered("- wildcard: {url.path: '/a*z'}"), web(path="/abcz"), web(path="/abcd")),
    (filtered("- prefix: {url.path.keyword: '/a*'}"), web(path="/a*b"), web(path="/ab")),
    (filtered("- regexp: {url.path: '/[0-9]+/x'}"), web(path="/12/x"), web(path="/12/x/y")),
    (filtered("- term: {source.ip: 10.0.0.0/8}"), web(src_ip="10.1.2.3"), web(src_ip="11.1.2.3")),
    (filtered("- match_phrase: {message: timed out}"), web(), at(0, summary="it was out, timed")),
    (filtered("- match: {message: refused out}"), web(), at(0, summary="without")),
    (filtered("- term: {log.level: warn}"), at(0, severity="warn"), at(0, severity="error")),
    (
        filtered("- term: {host.name: web1.example.com}"),
        at(0, hostname="web1.example.com"),
        at(0, hostname="web1.example.org"),
    ),
    (
        filtered("- not: {term: {user.name: root}}\n- term: {event.action: login}"),
        web(action="login"),
        web(action="login", username="root"),
    ),
    (
        filtered("""
            - bool:
                must: [{term: {event.action: login}}]
                should: [{term: {user.name: a}}, {term: {user.name: b}}]
                minimum_should_match: 1
                must_not: {term: {event.outcome: failed}}
        """),
        web(action="login", username="b", outcome="success"),
        web(action="login", username="b", outcome="failure"),
    ),
    (
        filtered("- bool: {must: [{term: {event.action: login}}], should: [{term: {user.name: a}}]}"),
        web(action="login", username="x"),
        web(action="logout", username="a"),
    ),
    (filtered("- bool: {should: [{term: {user.name: a}}, {term: {user.name: b}}]}"), web(user="b"), web(user="c")),
    # Lucene's syntax.
    (of_query("message: timed"), web(), at(0, summary="untimed")),
    (of_query("message:timed"), web(), at(0, summary="untimed")),
    (of_query("message:tim*"), web(), at(0, summary="sometimes untimed")),
    (of_query("message:*stream"), web(), at(0, summary="streams")),
    (
        of_query('"timed out"'),
        at(0, summary="x", details={"error": "Timed  OUT!"}),
        at(0, details={"error": "timed well out"}),
    ),
    (
        of_query("user.name:(root OR admin) AND NOT url.path:\\/health"),
        web(user="admin"),
        web(user="admin", path="/health"),
    ),
    (of_query("status:[500 TO 599]"), web(status=599), web(status=600)),
    (of_query("status:{500 TO *}"), web(status=501), web(status=500)),
    (of_query("status:>=500 AND _exists_:user.name"), web(status=500, user="a"), web(status=500)),
    (of_query("user_agent.original:curl\\/8*"), web(useragent="curl/8.5"), web(useragent="curl/7")),
    (of_query("url.path:/\\/[a-c]+/"), web(path="/abc"), web(path="/abd")),
    # One is enough of words side by side; with an AND, Lucene asks for both its sides, and an OR beside it for nothing.
    (of_query("user.name:a user.name:b"), web(user="b"), web(user="c")),
    (of_query("user.name:a OR user.name:b AND status:500"), web(user="b", status=500), web(user="a", status=200)),
    (of_query("+user.name:a status:500"), web(user="a"), web(status=500)),
    (of_query("status:500 AND -user.name:a"), web(status=500), web(status=500, user="a")),
    # Values that would mean something else in a detection.
    (filtered("- term: {user.name: 'a*b\\c?'}"), web(user="a*b\\c?"), web(user="axb\\cd")),
)


@pytest.mark.parametrize(("text", "fires", "does_not"), FILTERS)
def test_a_filter_is_for_the_same_events(tmp_path: Path, text: str, fires: Any, does_not: Any) -> None:
    """Held against events as the engine does it, through decoding, names and types."""
    made, rules = imported(tmp_path, {"a.yaml": text})

    assert made.left == {}
    assert alerts_of(rules["elastalert_a_test"], [fires]) == ["A test"]
    assert alerts_of(rules["elastalert_a_test"], [does_not]) == []


METRIC = "type: metric_aggregation\nmetric_agg_key: took\nbuffer_time: {minutes: 5}\n"
LOGINS = "filter: [{term: {event.action: login}}]\n"


def logins(count: int, *, every: float = 1, **details: Any) -> list[dict[str, Any]]:
    return [at(n * every, hostname="web1", details={"action": "login", **details}) for n in range(count)]


TYPES = (
    # The rule; events that it fires for; events that it does not; until when nothing else comes.
    (
        "type: frequency\nnum_events: 3\ntimeframe: {minutes: 1}\nquery_key: source.ip\n" + LOGINS,
        logins(3, src_ip="192.0.2.1"),
        logins(2, src_ip="192.0.2.1") + logins(2, src_ip="192.0.2.2"),
        0,
    ),
    ("type: frequency\nnum_events: 3\ntimeframe: {minutes: 1}\n" + LOGINS, logins(3), logins(3, every=40), 0),
    (
        "type: cardinality\ncardinality_field: user.name\nmax_cardinality: 2\ntimeframe: {hours: 1}\n" + LOGINS,
        [*logins(1, user="a"), *logins(1, user="b"), *logins(1, user="c")],
        [*logins(5, user="a"), *logins(1, user="b")],
        0,
    ),
    (
        "type: flatline\nthreshold: 1\ntimeframe: {minutes: 10}\nquery_key: hostname\n" + LOGINS,
        logins(1),
        logins(20, every=60),
        1200,
    ),
    (
        "type: blacklist\ncompare_key: source.ip\nblacklist: [192.0.2.1, 192.0.2.2]\n" + LOGINS,
        logins(1, src_ip="192.0.2.2"),
        logins(1, src_ip="192.0.2.3"),
        0,
    ),
    (
        "type: whitelist\ncompare_key: user.name\nignore_null: true\nwhitelist: [root]\n" + LOGINS,
        logins(1, user="eve"),
        [*logins(1, user="root"), *logins(1)],
        0,
    ),
    (
        "type: whitelist\ncompare_key: user.name\nignore_null: false\nwhitelist: [root]\n" + LOGINS,
        logins(1),
        logins(1, user="root"),
        0,
    ),
    (
        METRIC + "metric_agg_type: avg\nmax_threshold: 10\n" + LOGINS,
        [*logins(1, took=8), *logins(1, took=13)],
        logins(9, took=10),
        0,
    ),
    (
        METRIC + "metric_agg_type: max\nmax_threshold: 10\n" + LOGINS,
        logins(1, took=10.5),
        logins(9, took=10),
        0,
    ),
    (
        METRIC + "metric_agg_type: cardinality\nmax_threshold: 1\n" + LOGINS,
        [*logins(1, took=1), *logins(1, took=2)],
        logins(9, took=1),
        0,
    ),
)


@pytest.mark.parametrize(("text", "fires", "does_not", "until"), TYPES)
def test_a_type_counts_the_same(tmp_path: Path, text: str, fires: Any, does_not: Any, until: float) -> None:
    """As windows, lists and absences here."""
    made, rules = imported(tmp_path, {"a.yaml": a_rule(text)})
    (rule,) = rules.values()

    assert made.left == {}
    assert len(alerts_of(rule, fires, until=until)) == 1
    assert alerts_of(rule, does_not, until=until) == []


def test_new_terms_become_a_rule_for_each_field(tmp_path: Path) -> None:
    """New is what comes once its time of learning is over."""
    text = "type: new_term\nfields: [user.name, process.name]\nterms_window_size: {minutes: 5}\n" + LOGINS
    _, rules = imported(tmp_path, {"a.yaml": a_rule(text)})
    known, late = logins(1, user="a"), [at(400, details={"action": "login", "user": name}) for name in ("a", "b")]

    assert sorted(rules) == ["elastalert_a_test_process_name", "elastalert_a_test_user_name"]
    assert alerts_of(rules["elastalert_a_test_user_name"], [*known, *late]) == ["A test: b"]
    assert alerts_of(rules["elastalert_a_test_user_name"], [*known, late[0]]) == []


def test_what_is_different_is_said_in_the_file_and_in_the_report(tmp_path: Path) -> None:
    """Index, channels, severity, realert: whatever a rule says that is another thing here."""
    text = a_rule("""
        type: frequency
        num_events: 3
        timeframe: {minutes: 5}
        index: nginx-*
        query_key: [source.ip, host.name]
        realert: {minutes: 30}
        alert: [slack, {email: {email: a@example.com}}]
        aggregation: {minutes: 5}
        pagerduty_v2_payload_severity: error
        owner: Ada
        filter: [{term: {event.action: login}}]
    """)
    made, rules = imported(tmp_path, {"sub/shop.yaml": text})
    (rule,) = rules.values()
    (changes,) = made.changes.values()
    written = (tmp_path / "to/elastalert_shop.py").read_text()
    remarks = " ".join(line.lstrip("# ") for line in written.splitlines() if line.startswith("#"))

    assert made.taken == {"sub/shop.yaml": "added"}
    assert (rule.severity, rule.group) == ("high", ("details.sourceipaddress", "hostname"))
    assert rule.quiet_us == 30 * 60_000_000
    for said in (
        "the index nginx-*",
        "less than 30m apart",
        "told by slack, email",
        "aggregation",
        "without details.so",
    ):
        assert any(said in one for one in changes), said
    assert all(one in remarks for one in changes)
    assert "From sub/shop.yaml, a rule of ElastAlert 2." in written
    assert "# Owner: Ada" in written


def test_a_list_in_a_file_becomes_a_list_here_and_that_is_said(tmp_path: Path) -> None:
    """The file itself is not read: a rule of others must not say which files of this machine are."""
    text = "type: blacklist\ncompare_key: source.ip\nblacklist: ['!file /etc/passwd']\n" + LOGINS
    made, rules = imported(tmp_path, {"a.yaml": a_rule(text)})
    (rule,) = rules.values()

    assert rule.conditions[0].lists == {"passwd"}  # type: ignore[union-attr]
    assert any("/etc/passwd have to become the list passwd" in one for one in made.changes[rule.name])


LEFT = (
    ("type: spike\n" + LOGINS, "its type is spike: how much more there is than before is no count of matches"),
    ("type: change\n" + LOGINS, "its type is change"),
    ("type: percentage_match\n" + LOGINS, "a share of all events is no count of matches"),
    ("type: my_module.MyRule\n" + LOGINS, "its type 'my_module.MyRule' is none of ElastAlert's own"),
    ("type: any\nindex: elastalert_status\n" + LOGINS, "alerts that ElastAlert has made"),
    ("type: any\nfilter: [{term: {_type: log}}]", "its field _type is Elasticsearch's own"),
    ("type: any\nis_enabled: false\n" + LOGINS, "it is switched off"),
    ("type: any\nimport: other.yaml\n" + LOGINS, "it imports another file"),
    ("type: any\nmatch_enhancements: [a.B]\n" + LOGINS, "match_enhancements are Python code"),
    ("type: any\nlimit_execution: '* 8 * * *'\n" + LOGINS, "limit_execution"),
    ("type: any", "its condition would hold for every event"),
    ("type: any\nfilter: [{term: {a: b, c: d}}]", "'term' of several fields"),
    ("type: any\nfilter: [{script: {source: x}}]", "asks with 'script'"),
    ("type: any\nfilter: [{regexp: {a: 'x~y'}}]", "an operator that only Lucene's have"),
    ("type: any\nfilter: [{range: {'@timestamp': {gte: now-1h}}}]", "here ranges are of numbers"),
    ("type: any\nfilter: [{term: {message: two words}}]", "which Elasticsearch finds in no text"),
    ("type: any\nfilter: [{match: {a: {query: x, fuzziness: 2}}}]", "fuzziness"),
    ("type: any\nfilter: [{term: {log.level: loud}}]", "no severity that is known here"),
    ("type: any\nfilter: [{bool: {should: [{term: {a: b}}], minimum_should_match: 2}}]", "minimum_should_match"),
    ("type: any\nfilter: [{query_string: {query: 'a:(b'}}]", "cannot be read"),
    ("type: any\nfilter: [{query_string: {query: 'a:b~'}}]", "what is only like it"),
    ("type: any\nfilter: [{term: {'a|re': b}}]", "cannot be written in a rule"),
    ("type: frequency\nnum_events: 3\n" + LOGINS, "its timeframe is 'None', which is no time"),
    ("type: frequency\nnum_events: x\ntimeframe: {minutes: 1}\n" + LOGINS, "its num_events is 'x'"),
    ("type: frequency\nnum_events: 3\ntimeframe: {weeks: 2}\n" + LOGINS, "within is longer than 7d"),
    ("type: flatline\nthreshold: 5\ntimeframe: {minutes: 5}\n" + LOGINS, "it is for fewer than 5 events"),
    (
        "type: cardinality\ncardinality_field: a\nmin_cardinality: 5\ntimeframe: {minutes: 5}\n" + LOGINS,
        "min_cardinality",
    ),
    ("type: new_term\nfields: [[a, b]]\n" + LOGINS, "new pairs of several fields"),
    (
        "type: metric_aggregation\nmetric_agg_type: avg\nmetric_agg_key: a\nmax_threshold: 1\n" + LOGINS,
        "buffer_time of",
    ),
    (
        "type: metric_aggregation\nmetric_agg_type: min\nmetric_agg_key: a\nmax_threshold: 1\n" + LOGINS,
        "that the min of",
    ),
    ("type: any\nquery_key: a\nfilter: [{term: {b: [1, {c: d}]}}]", "a value that is none"),
)


@pytest.mark.parametrize(("text", "said"), LEFT)
def test_what_would_mean_something_else_is_left_with_its_reason(tmp_path: Path, text: str, said: str) -> None:
    """And nothing is written for it."""
    made, _ = imported(tmp_path, {"a.yaml": a_rule(text)})

    assert said in " ".join(made.left.values())
    assert made.taken == {}
    assert not (tmp_path / "to").exists()


HOSTILE = {
    "aliases": "name: x\ntype: any\na: &a [1, 1]\n" + "".join(f"b{n}: &b{n} [*a, *a]\n" for n in range(20)),
    "merges": "name: x\ntype: any\na: &a0 {k: v}\n"
    + "".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 40)),
    "doubling": "name: x\ntype: any\nf0: &f0 "
    + str(["x"] * 2000)
    + "\n"
    + "".join(f"f{n}: &f{n} [*f{n - 1}, *f{n - 1}]\n" for n in range(1, 9)),
    "itself": "type: any\nfilter: &a [*a]\n",
    "deep": "type: any\nfilter: " + "[" * 50_000 + "]" * 50_000,
    "deep filter": "type: any\nfilter: [" + "{not: " * 60 + "{term: {a: b}}" + "}" * 60 + "]",
    "deep aliases": "type: any\na0: &a0 "
    + "[" * 90
    + "x"
    + "]" * 90
    + "\n"
    + "".join(f"a{n}: &a{n} {'[' * 90}*a{n - 1}{']' * 90}\n" for n in range(1, 20))
    + "filter: *a19\n",
    "long query": "type: any\nfilter: [{query_string: {query: '" + "a " * 100_000 + "'}}]",
    "long expression": "type: any\nfilter: [{regexp: {a: '" + "(a|b)+" * 30_000 + "'}}]",
    "half a character": '{"name": "' + "x" * 80 + '\\ud800", "type": "any", "filter": [{"term": {"a": "b"}}]}',
    "object": "type: !!python/object/apply:os.system ['touch /tmp/logweir_hostile']\n",
    "many values": "type: any\nfilter: [{terms: {a: " + str([f"v{n}" for n in range(3000)]) + "}}]",
    "no mapping": "- type: any\n",
    "bytes": "type: any\nfilter: \x00\n",
    "number": "type: frequency\nnum_events: .inf\ntimeframe: {minutes: 1}\n" + LOGINS,
    "endless time": "type: frequency\nnum_events: 2\ntimeframe: {weeks: 1.0e+300}\n" + LOGINS,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_left_and_keeps_nobody_waiting(tmp_path: Path, name: str) -> None:
    """Nor does it keep the others from being taken."""
    began_s = time.monotonic()
    files = {"bad.yaml": HOSTILE[name], "good.yaml": a_rule(ANY + LOGINS)}
    made, rules = imported(tmp_path, files, format="elastalert")

    assert list(made.left) == ["bad.yaml"] or all(one.startswith("bad.yaml: ") for one in made.left)
    assert list(rules) == ["elastalert_a_test"]
    assert time.monotonic() - began_s < 20


NAMES = (
    '"""\nimport os\nos.abort()\n"""',
    "'); raise SystemExit #",
    "{found.__class__}",
    "a\u2028b\rc\x0bd\\",
    "coding: utf-7",
    "\u202eevil",
    "../../../etc/passwd",
    "class",
    "ü" * 200,
)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_of_whatever_kind_is_a_text_and_nothing_else(tmp_path: Path, name: str) -> None:
    """Neither code, nor a path, nor the encoding of the file."""
    import json

    text = json.dumps(
        {
            "name": name,
            "owner": name,
            "description": name,
            "index": name,
            "type": "any",
            "alert": [name],
            "filter": [{"term": {"user.name": name}}, {"term": {"a": "b"}}],
        },
        indent=1,
    )
    made, rules = imported(tmp_path, {"a.yaml": text}, format="elastalert")
    (rule,) = rules.values()
    found = alerts_of(rule, [at(0, details={"username": name.strip(), "a": "b"})]) or alerts_of(
        rule, [at(0, details={"username": name, "a": "b"})]
    )

    assert made.left == {}
    assert found == [name]
    assert [one.name for one in (tmp_path / "to").iterdir()] == ["elastalert_a.py"]
