"""Structured data that stand in JSON with bare quotes are mended, and nothing else is."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logweir.mend import mended

NAMES = st.text(st.characters(codec="ascii", min_codepoint=33, max_codepoint=126, exclude_characters='="]'), min_size=1)
VALUES = st.text(st.characters(min_codepoint=32, exclude_categories=["Cs", "Cc"]))


def element(id: str, parameters: list[tuple[str, str]]) -> str:
    """As RFC 5424 section 6.3 has it."""
    told = "".join(f' {name[:32]}="{escaped(value)}"' for name, value in parameters)
    return f"[{id[:32]}{told}]"


def escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("]", "\\]")


def common(data: str, *, name: str = "structured data", message: str = "it is so") -> bytes:
    """What the template makes that is found in many configurations."""
    return f'{{"hostname":"web1","{name}":"{data}","message":{json.dumps(message)}}}'.encode()


@given(st.lists(st.tuples(NAMES, st.lists(st.tuples(NAMES, VALUES), max_size=4)), min_size=1, max_size=4), VALUES)
def test_any_structured_data_come_back_as_they_were(
    elements: list[tuple[str, list[tuple[str, str]]]], text: str
) -> None:
    """Whatever the message beside them says."""
    data = "".join(element(id, parameters) for id, parameters in elements)
    result = mended(common(data, message=text))

    assert result is not None
    assert json.loads(result) == {"hostname": "web1", "structured data": data, "message": text}


@pytest.mark.parametrize("name", ["structured_data", "structured-data", "STRUCTURED-DATA", "syslog.structureddata"])
def test_other_spellings_of_the_name_are_known(name: str) -> None:
    """As templates have them."""
    result = mended(common('[a b="c"]', name=name))

    assert result is not None and json.loads(result)[name] == '[a b="c"]'


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"text",
        common("-"),
        common('[a b="c"'),
        common('[a b="c"] and more'),
        common('[a b="c]"]'),
        common('[a b="c\nd"]'),
        common('[a b=c"]'),
        common('[a="c"]'),
        common('[a b="c"]', name="data"),
        common('[a b="c"]', name='x\\"structured data'),
        common('[a b="\xff"]').replace("\xff".encode(), b"\xff"),
        b'{"structured data":"[a b="c"]","structured data":"[a b="c"]"}',
        b'{"structured data":"[a b="c"]","structured_data":"-"}',
    ],
)
def test_what_could_be_meant_otherwise_is_left(raw: bytes) -> None:
    """Data without their end, with what RFC 5424 does not allow, under another name, or at more than one place."""
    assert mended(raw) is None


@pytest.mark.parametrize(
    "raw", [common('[a b="c"]', message="x").replace(b'"x"', b'"say "x""'), common('[a b="c"]')[:-1] + b",}"]
)
def test_another_fault_stays(raw: bytes) -> None:
    """The result is no JSON: whoever reads it says so."""
    result = mended(raw)

    assert result is not None
    with pytest.raises(json.JSONDecodeError):
        json.loads(result)
