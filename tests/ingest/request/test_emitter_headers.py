"""docs/reference/headers.md says what the door reads in headers, in the words of its errors."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from logweir.config import IngestSettings
from logweir.errors import EMITTER_HEADER_BAD, LogweirError
from logweir_ingest.app import IDEMPOTENCY_KEY_SIZE_BYTES_MAX
from logweir_ingest.request import emitter_headers

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "headers.md").read_text(encoding="utf-8")
ROWS = dict(re.findall(r"^\| `([A-Za-z-]+)`[^|]* \| ([^|]*) \|", PAGE, re.MULTILINE))


def test_the_reference_has_every_header_with_its_form() -> None:
    """No other, and each in the words by which it is refused."""
    for _, label, _, expected in emitter_headers._READERS.values():
        assert expected in ROWS.pop(label).replace("`", "")
    assert f"1 to {IDEMPOTENCY_KEY_SIZE_BYTES_MAX} bytes" in ROWS.pop("Idempotency-Key")
    assert all(name in PAGE for name in IngestSettings().key_headers)
    assert list(ROWS) == [IngestSettings().key_headers[0]]


def test_the_examples_of_the_reference_are_taken() -> None:
    """The requests of its curl lines, and the values that it gives as examples."""
    requests = re.findall(r"^send (.*)$", PAGE, re.MULTILINE)
    read = []
    for line in requests:
        given = re.findall(r"-H '([^:']+): ([^']*)'", f"{line} -H 'Log-Emitter: shop/web-1' -H 'Log-Epoch: run-1'")
        read.append(emitter_headers.read({name.lower().encode(): value.encode() for name, value in given}))
    more = emitter_headers.read(
        {b"log-epoch": b"run-2", b"log-prev": b"run-1:5120", b"log-dropped": b"queue_overflow=12;disk_full=40"}
    )

    assert [(one.sequence_first, one.high, one.bye) for one in read] == [(1, 2, False), (3, 3, False), (None, 3, True)]
    assert (more.previous, more.dropped) == (("run-1", 5120), {"queue_overflow": 12, "disk_full": 40})
    assert "run-1:5120" in PAGE and "queue_overflow=12;disk_full=40" in PAGE


@pytest.mark.parametrize(
    ("headers", "name"),
    [
        ({b"log-seq": b"1"}, "Log-Epoch"),
        ({b"log-epoch": b"e", b"log-seq": b"0"}, "Log-Seq"),
        ({b"log-epoch": b"e", b"log-high": b"9007199254740992"}, "Log-High"),
        ({b"log-epoch": b"e" * 65}, "Log-Epoch"),
        ({b"log-emitter": b"x" * 257}, "Log-Emitter"),
        ({b"log-epoch": b"e", b"log-prev": b"run-1"}, "Log-Prev"),
        ({b"log-epoch": b"e", b"log-dropped": b"a=1;a=2"}, "Log-Dropped"),
        ({b"log-epoch": b"e", b"log-bye": b"yes"}, "Log-Bye"),
    ],
)
def test_what_has_another_form_is_refused_by_its_header(headers: dict[bytes, bytes], name: str) -> None:
    with pytest.raises(LogweirError) as error:
        emitter_headers.read(headers)

    assert error.value.problem is EMITTER_HEADER_BAD
    assert f"The header {name} reads" in error.value.detail
