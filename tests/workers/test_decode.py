"""Bytes of one event -> dict: what both JSON readers agree on, what only the careful one takes, what neither does."""

import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from logweir_workers.decode import DEPTH_MAX, EventUnreadable, event_of, event_or_mended, free_name


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b'{"a": 18446744073709551615}', 18446744073709551615),
        (b'{"a": -9223372036854775808}', -9223372036854775808),
        (b'{"a": 18446744073709551616}', "18446744073709551616"),
        (b'{"a": -9223372036854775809}', "-9223372036854775809"),
        (b'{"a": ' + b"7" * 100_000 + b"}", "7" * 100_000),
        (b'{"a": 1e999}', "1e999"),
        (b'{"a": -1E+999}', "-1E+999"),
        (b'{"a": 0.1234567890123456789}', "0.1234567890123456789"),
        (b'{"a": 0.30000000000000004}', 0.30000000000000004),
        (b'{"a": 19.9}', 19.9),
        (b'{"a": 19.90}', "19.90"),
        (b'{"a": 5.0}', 5.0),
        (b'{"a": 5.00}', "5.00"),
        (b'{"a": 1e2}', "1e2"),
        (b'{"a": 1e-7}', 1e-7),
        (b'{"a": 0.0000001}', "0.0000001"),
        (b'{"a": -0.0}', -0.0),
        (b'{"a": [{"b": [1.50]}], "c": 1.5}', [{"b": ["1.50"]}]),
        (b'{"c": "19.90", "a": [[], {}, [{"b": 19.90}]]}', [[], {}, [{"b": "19.90"}]]),
        (b'{"a": "1234567890123456789012345"}', "1234567890123456789012345"),
    ],
)
def test_number_whose_digits_would_not_come_back_is_kept_as_its_text(raw: bytes, expected: object) -> None:
    """None is rounded or spelled anew: orjson would make floats of whole numbers beyond 64 bits, and refuse 1e999."""
    value = event_of(raw)["a"]

    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (rb'{"a": "x\ud800y"}', {"a": "x\ufffdy"}),
        (rb'{"a": "\udc00\ud800"}', {"a": "\ufffd\ufffd"}),
        (rb'{"a": "\ud83d\ude00", "b": ["\ud800"]}', {"a": "😀", "b": ["\ufffd"]}),
        (rb'{"\ud800": "\ud801"}', {"\ud800": "\ufffd"}),
        (rb'{"a": {"\udfff": null}}', {"a": {"\udfff": None}}),
    ],
)
def test_lone_surrogate_becomes_the_replacement_character(raw: bytes, expected: dict[str, object]) -> None:
    """UTF-8 cannot spell a lone surrogate, so no store could take it; names stay, to be changed and listed later."""
    assert event_of(raw) == expected


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b'{"a": 1, "a": 2}', {"a": 2}),
        (b' \r\n\t{"a": -0} ', {"a": 0}),
        (rb'{"a\u0000": "\u0000"}', {"a\0": "\0"}),
        (b"{}", {}),
    ],
)
def test_odd_but_valid_json_is_read(raw: bytes, expected: dict[str, object]) -> None:
    """Of a key that comes twice the last counts, NUL stays, minus zero is zero, blanks around do not count."""
    assert event_of(raw) == expected


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "not valid JSON"),
        (b'{"a": 1', "not valid JSON"),
        (b'{"a": NaN}', "NaN is not a JSON value"),
        (b'{"a": -Infinity}', "-Infinity is not a JSON value"),
        (b'{"a": "\x01"}', "not valid JSON"),
        (b'{"a": "\xff"}', "byte 7 is not UTF-8"),
        (b'{"a": "\xed\xa0\x80"}', "byte 7 is not UTF-8"),
        (b'\xef\xbb\xbf{"a": 1}', "not valid JSON"),
        (b'{"a": 1} {"b": 2}', "not valid JSON"),
        (b"[1]", "it is an array, not an object"),
        (b'"a"', "it is a string, not an object"),
        (b"12345678901234567890123", "it is a string, not an object"),
        (b"1", "it is a number, not an object"),
        (b"true", "it is a boolean, not an object"),
        (b"null", "it is null, not an object"),
    ],
)
def test_bytes_that_are_no_json_object_are_refused_with_the_reason(raw: bytes, reason: str) -> None:
    """The reason goes into the dead letter."""
    with pytest.raises(EventUnreadable, match=reason):
        event_of(raw)


@pytest.mark.parametrize("padding", [b"", b"7" * 19 + b", "], ids=["quick", "careful"])
def test_nesting_is_read_to_its_limit_and_refused_beyond(padding: bytes) -> None:
    """Both readers have the same limit, and neither falls over far beyond it."""

    def nested(levels: int) -> bytes:
        return b'{"n": [' + padding + b"[" * (levels - 2) + b"]" * (levels - 2) + b"]}"

    assert event_of(nested(DEPTH_MAX))
    for levels in (DEPTH_MAX + 1, 1_000, 5_000, 100_000):
        with pytest.raises(EventUnreadable, match=r"nested deeper than 250 levels|not valid JSON"):
            event_of(nested(levels))


def test_brackets_inside_text_are_no_nesting() -> None:
    """A log line about brackets is a log line."""
    text = "[{" * 10_000

    assert event_of(json.dumps({"a": text}).encode()) == {"a": text}


_plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), _plain))
def test_what_one_reader_takes_both_read_alike(event: dict[str, object]) -> None:
    """Whether a byte elsewhere in the event calls for the careful reader changes no value."""
    quick = event_of(orjson.dumps(event))
    careful = event_of(orjson.dumps({**event, "\x7fcareful": 0}).replace(b'\x7fcareful":0', b'\x7fcareful":1e999'))

    assert careful.pop("\x7fcareful") == "1e999"
    assert orjson.dumps(careful) == orjson.dumps(quick)


def test_thousands_of_names_that_become_one_stay_apart_and_cost_little() -> None:
    """Malice cannot make the search for a free name slow: each name takes a few steps."""
    taken: dict[str, int] = {}
    for number in range(20_000):
        taken[free_name("a", taken, sent=f"a{number}")] = number

    assert len(taken) == 20_000


def test_bare_quotes_of_structured_data_are_mended_and_nothing_else() -> None:
    """Whether they were is said with the event; what is readable as it is stays so."""
    assert event_or_mended(b'{"structured data":"[a b="c"]","n":19.90}') == (
        {"structured data": '[a b="c"]', "n": "19.90"},
        True,
    )
    assert event_or_mended(b'{"structured data":"[a]"}') == ({"structured data": "[a]"}, False)
    for raw in (b'{"structured data":"[a b="c"]","n":}', b'{"message":"say "x""}', b"", b"[]"):
        with pytest.raises(EventUnreadable) as caught:
            event_or_mended(raw)
        with pytest.raises(EventUnreadable) as strict:
            event_of(raw)
        assert str(caught.value) == str(strict.value)
