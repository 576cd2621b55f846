"""What Sigma's detections, modifiers and conditions mean, each by an event that is one and by one that is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from logweir.query import lists
from logweir_workers.alerts.sigma.parsing import Unfit, parse
from tests.workers.alerts.sigma.helpers import condition_in, of_test, sigma_rule


def one(selection: str) -> str:
    """A detection of one selection: ``field: value``."""
    return f"selection:\n    {selection}\ncondition: selection"


HOLDS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    # values
    (one("f: abc"), {"f": "ABC"}, {"f": "abcd"}),
    (one("f: [abc, def]"), {"f": "Def"}, {"f": "ghi"}),
    (one("f: 'a*c'"), {"f": "Abbc"}, {"f": "abbcd"}),
    (one("f: 'a?c'"), {"f": "abc"}, {"f": "abbc"}),
    (one(r"f: 'a\*c'"), {"f": "a*c"}, {"f": "abc"}),
    (one(r"f: 'C:\\Windows\\*'"), {"f": r"c:\windows\x"}, {"f": r"d:\windows\x"}),
    (one("f: 7"), {"f": 7}, {"f": 8}),
    (one("f: 7"), {"f": "7"}, {"f": "77"}),
    (one("f: true"), {"f": True}, {"f": False}),
    (one("f: null"), {"g": 1}, {"f": "x"}),
    (one("f: ''"), {"f": ""}, {"f": "x"}),
    (one("f: '*'"), {"f": "x"}, {"g": "x"}),
    (one("f: x"), {"f": ["y", "x"]}, {"f": ["y", "z"]}),
    (one("f.g: x"), {"f": {"g": "x"}}, {"f": {"h": "x"}}),
    # modifiers
    (one("f|contains: b"), {"f": "aBc"}, {"f": "ac"}),
    (one("f|contains|all: [a, b]"), {"f": "b a"}, {"f": "a"}),
    (one("f|startswith: ab"), {"f": "Abc"}, {"f": "cab"}),
    (one("f|endswith: bc"), {"f": "aBC"}, {"f": "bca"}),
    (one("f|cased: Abc"), {"f": "Abc"}, {"f": "abc"}),
    (one("f|contains|cased: bC"), {"f": "abCd"}, {"f": "abcd"}),
    (one("f|startswith|cased: 'A?c'"), {"f": "Abcd"}, {"f": "abcd"}),
    (one("f|re: 'a.c'"), {"f": "xabcx"}, {"f": "xABCx"}),
    (one("f|re|i: 'a.c'"), {"f": "xABCx"}, {"f": "ac"}),
    (one("f|re|m: '^b$'"), {"f": "a\nb\nc"}, {"f": "ab"}),
    (one("f|re|s: 'a.b'"), {"f": "a\nb"}, {"f": "ab"}),
    (one("f|re: ['^a', 'z$']"), {"f": "xz"}, {"f": "xay"}),
    (one("f|cidr: 192.0.2.0/24"), {"f": "192.0.2.7"}, {"f": "192.0.3.7"}),
    (one("f|cidr: ['2001:db8::/32', '10.0.0.0/8']"), {"f": "2001:DB8::1"}, {"f": "no address"}),
    (one("f|base64: foobar"), {"f": "zm9vymfy"}, {"f": "foobar"}),
    (one("f|base64offset|contains: foobar"), {"f": "xxxmb29iYXxxx"}, {"f": "foobar"}),
    (one("f|wide|base64offset|contains: ping"), {"f": "xxcABpAG4AZwxx"}, {"f": "ping"}),
    (one("f|utf16|base64|contains: hi"), {"f": "//5oAGkA"}, {"f": "hi"}),
    (one("f|windash|contains: ' -x'"), {"f": "a /X"}, {"f": "a x"}),
    (one("f|gt: 7"), {"f": 8}, {"f": 7}),
    (one("f|gte: 7"), {"f": "7"}, {"f": 6.9}),
    (one("f|lt: 7"), {"f": 6.5}, {"f": "seven"}),
    (one("f|lte: 7"), {"f": 7}, {"g": 7}),
    (one("f|exists: true"), {"f": "x"}, {"g": "x"}),
    (one("f|exists: false"), {"g": "x"}, {"f": "x"}),
    (one("f|fieldref: g"), {"f": "A", "g": "a"}, {"f": "a", "g": "b"}),
    (one("f|fieldref|startswith: g"), {"f": "abc", "g": "AB"}, {"f": "abc"}),
    (one("f|neq: abc"), {"f": "x"}, {"f": "abc"}),
    (one("f|minute: 5"), {"f": "2026-01-31T12:05:00Z"}, {"f": "2026-01-31T12:06:00Z"}),
    (one("f|hour: [22, 23]"), {"f": "2026-01-31T23:05:00+00:00"}, {"f": "2026-01-31T12:06:00Z"}),
    (one("f|day: 31"), {"f": "2026-01-31T12:05:00Z"}, {"f": "no time"}),
    (one("f|week: 5"), {"f": "2026-01-31T12:05:00Z"}, {"f": "2026-02-05T12:05:00Z"}),
    (one("f|month: 1"), {"f": "2026-01-31T12:05:00Z"}, {"f": "2026-02-01T12:05:00Z"}),
    (one("f|year: 2026"), {"f": "2026-01-31T12:05:00Z"}, {"f": "2025-01-31T12:05:00Z"}),
    # words
    ("keywords: [evil word, other]\ncondition: keywords", {"f": "an EVIL word"}, {"f": "evil"}),
    ("keywords: ['a*z']\ncondition: keywords", {"f": "-abcz-"}, {"f": "a", "g": "z"}),
    ("keywords:\n    '|all': [a1, b2]\ncondition: keywords", {"f": "a1", "g": "b2"}, {"f": "a1"}),
    ("keywords:\n    '|re': ['a[0-9]z']\ncondition: keywords", {"f": "xa5z"}, {"f": "A5Z"}),
    # detections
    ("s: {f: a, g: b}\ncondition: s", {"f": "a", "g": "b"}, {"f": "a"}),
    ("s: [{f: a}, {g: b}]\ncondition: s", {"g": "b"}, {"f": "b"}),
    # conditions
    ("a: {f: a}\nb: {g: b}\ncondition: a and not b", {"f": "a"}, {"f": "a", "g": "b"}),
    ("a: {f: a}\nb: {g: b}\nc: {h: c}\ncondition: a and (b or c)", {"f": "a", "h": "c"}, {"h": "c", "g": "b"}),
    ("a: {f: a}\nb: {g: b}\ncondition: 1 of them", {"g": "b"}, {"f": "b"}),
    ("a: {f: a}\nb: {g: b}\ncondition: all of them", {"f": "a", "g": "b"}, {"f": "a"}),
    ("sel_a: {f: a}\nsel_b: {g: b}\nx: {h: c}\ncondition: all of sel*", {"f": "a", "g": "b"}, {"g": "b", "h": "c"}),
    ("s: {f: a}\nno_a: {g: b}\nno_b: {h: c}\ncondition: s and not 1 of no_*", {"f": "a"}, {"f": "a", "h": "c"}),
    ("a: {f: a}\nb: {g: b}\ncondition: [a, b]", {"g": "b"}, {"g": "a"}),
]


@pytest.mark.parametrize(("detection", "is_one", "is_none"), HOLDS, ids=[row[0].replace("\n", " ") for row in HOLDS])
def test_a_detection_holds_for_one_event_and_not_for_the_other(
    detection: str, is_one: dict[str, Any], is_none: dict[str, Any]
) -> None:
    """Without regard to case, but where a rule says so."""
    condition = condition_in(sigma_rule(detection))

    assert condition(of_test(**is_one))
    assert not condition(of_test(**is_none))
    assert condition.explained(of_test(**is_one))["holds"]
    assert not condition.explained(of_test(**is_none))["holds"]


def test_nothing_holds_for_an_event_of_another_log_source() -> None:
    """Else a rule that only says what must not be there would be for everything."""
    condition = condition_in(sigma_rule("s: {f: a}\ncondition: not s", logsource="product: zeek\nservice: rdp"))

    assert not condition(of_test(g="b"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "there is nothing in it"),
        ("a: [", "it is no YAML"),
        ("- a", "a document of it is no mapping"),
        ("a: b", "it has neither detection nor correlation nor filter"),
        (b"\xff\xfe\x00", "it is not UTF-8"),
        (sigma_rule("s: {f: a}\ncondition: t"), "Detection 't' not defined"),
        (sigma_rule("s: {f: a}\ncondition: s | count() > 5"), "pipe syntax"),
        (sigma_rule("s: {'f|contians': a}\ncondition: s"), "Unknown modifier 'contians'"),
        (sigma_rule("s: {'f|re': '(a'}\ncondition: s"), "Regular expression '(a' is invalid"),
        (sigma_rule("s: {'f|re': '(?=a)'}\ncondition: s"), "Regular expression '(?=a)' is invalid"),
        (sigma_rule("s: {'f|expand': 'a%hosts%'}\ncondition: s"), "placeholder %hosts%"),
        (sigma_rule("s: {'f|expand': '%1%'}\ncondition: s"), "placeholder %1%"),
        (sigma_rule("s: {f: a}\ncondition: s").replace("status: test", "status: deprecated"), "status is deprecated"),
        (sigma_rule("s: {f: a}"), "condition"),
        (sigma_rule("s: {f: {g: a}}\ncondition: s"), ""),
    ],
)
def test_what_cannot_be_a_rule_is_left_with_the_reason(text: str | bytes, reason: str) -> None:
    """Whoever wrote it can go by it."""
    with pytest.raises(Unfit) as error:
        parse(text if isinstance(text, bytes) else text.encode())

    assert reason in str(error.value)


def test_a_placeholder_is_a_list_of_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is when the event comes, in any case; networks, too. One that is not there has nothing."""
    monkeypatch.setattr(lists, "_in_use", lists.Lists(tmp_path))
    (tmp_path / "known_dcs.txt").write_text("DC1\n10.0.0.0/8\n")
    found = [
        [
            condition_in(sigma_rule(f"s: {{'f{how}|expand': '%{name}%'}}\ncondition: s"))(of_test(f=value))
            for value in ("dc1", "10.1.2.3", "dc2", "cdc:dc1", "dc1:x")
        ]
        for how, name in (
            ("", "Known-DCs"),
            ("|contains", "known_dcs"),
            ("|startswith", "known_dcs"),
            ("|endswith", "known_dcs"),
            ("", "none"),
        )
    ]

    assert found == [
        [True, True, False, False, False],
        [True, False, False, True, True],
        [True, False, False, False, True],
        [True, False, False, True, False],
        [False] * 5,
    ]


def test_explain_says_each_part_and_the_value_that_was_looked_at() -> None:
    """Why it holds, and why not."""
    condition = condition_in(sigma_rule("a: {'f|endswith': [.exe, .dll]}\nb: {g: b}\ncondition: a and not b"))
    source, detection = condition.explained(of_test(f="x.EXE", g="c"))["parts"]

    assert source == {"condition": "log source product test", "holds": True, "value": "called test"}
    assert detection["condition"] == "all of"
    assert detection["parts"] == [
        {"holds": True, "condition": "f ends with .exe or .dll", "value": "x.EXE"},
        {
            "condition": "not",
            "holds": True,
            "parts": [{"holds": False, "condition": "g is b", "value": "c"}],
        },
    ]
