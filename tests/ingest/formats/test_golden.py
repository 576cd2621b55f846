"""Golden bodies of every wire format: which events each holds, to the byte, or with which problem it is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from logweir.errors import LogweirError
from logweir_ingest.formats import FORMATS
from logweir_ingest.formats.port import Format
from logweir_ingest.request.message import Request
from tests.ingest.formats.test_json import LIMITS

GOLDEN = Path(__file__).parents[2] / "golden" / "formats"
BODIES = [(form, path) for form in FORMATS for path in sorted((GOLDEN / form.name).glob("*.body"))]


@pytest.mark.parametrize(("form", "path"), BODIES, ids=[f"{form.name}-{path.stem}" for form, path in BODIES])
def test_golden_bodies(form: Format, path: Path) -> None:
    """Each stated rule has a body and what becomes of it; ``sent`` is what the request has beside its body."""
    expected = json.loads((path.parent / "expected.json").read_text(encoding="utf-8"))[path.stem]
    route = form.routes[0]
    sent = expected.pop("sent", {})
    headers = {name.encode(): value.encode() for name, value in sent.get("headers", {}).items()}
    query = sent.get("query", "").encode()
    try:
        request = Request(route.method, sent.get("path", route.path), headers, "", query)
        parsed = form.split(request, path.read_bytes(), LIMITS)
        found: dict[str, object] = {"events": [event.decode(errors="backslashreplace") for event in parsed.events]}
        if parsed.kept:
            found["kept"] = parsed.kept
        if parsed.left_out:
            found["left_out"] = [error.problem.code for error, _ in parsed.left_out]
    except LogweirError as error:
        found = {"problem": error.problem.code, "detail": error.detail}

    assert found == expected


def test_every_format_has_golden_bodies_and_none_is_left_over() -> None:
    folders = {path.name for path in GOLDEN.iterdir()}

    assert folders == {form.name for form in FORMATS}
    for folder in GOLDEN.iterdir():
        expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
        assert expected.keys() == {path.stem for path in folder.glob("*.body")} != set()
