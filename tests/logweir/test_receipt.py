"""Receipts: made by one installation, readable there, and nowhere made up."""

from __future__ import annotations

import stat
import string
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logweir import receipt
from logweir.errors import RECEIPT_BAD, LogweirError
from logweir.receipt import Receipt

_SECRET = b"s" * 32
_ONE = Receipt(bytes(range(16)), partition=3, first=1000, count=500, window=29_833_333)


def _encoded(one: Receipt, secret: bytes = _SECRET) -> str:
    return receipt.encode(secret, **asdict(one)).decode()


@given(
    st.builds(
        Receipt,
        st.binary(min_size=16, max_size=16),
        st.integers(0, 2**32 - 1),
        st.integers(0, 2**64 - 1),
        st.integers(0, 2**32 - 1),
        st.integers(0, 2**32 - 1),
    )
)
def test_a_receipt_is_read_as_it_was_written(one: Receipt) -> None:
    """Any receipt comes back, from a token that a URL carries as it is."""
    token = _encoded(one)

    assert receipt.decode(token, _SECRET) == one
    assert set(token) <= set(string.ascii_letters + string.digits + "-_")


def test_a_token_changed_anywhere_is_refused() -> None:
    """No letter of a token can be changed: a sender cannot ask about what it did not send."""
    token = _encoded(_ONE)
    for position, letter in enumerate(token):
        changed = token[:position] + ("A" if letter != "A" else "B") + token[position + 1 :]

        with pytest.raises(LogweirError) as caught:
            receipt.decode(changed, _SECRET)
        assert caught.value.problem is RECEIPT_BAD


@pytest.mark.parametrize("token", ["", "x", "é", "AAAA", _encoded(_ONE, b"o" * 32), "=" * 71, "A" * 5000])
def test_a_foreign_token_is_refused(token: str) -> None:
    """Tokens of another installation and of no installation are one and the same problem."""
    with pytest.raises(LogweirError) as caught:
        receipt.decode(token, _SECRET)
    assert caught.value.problem is RECEIPT_BAD


def test_processes_that_start_together_agree_on_one_secret(tmp_path: Path) -> None:
    """The secret is made once, whoever comes first, and only its owner may read it."""
    with ThreadPoolExecutor(8) as pool:
        made = set(pool.map(lambda _: receipt.secret_of(tmp_path / "data"), range(32)))

    files = list((tmp_path / "data").iterdir())
    assert len(made) == 1
    assert [file.name for file in files] == ["receipt.secret"]
    assert stat.S_IMODE(files[0].stat().st_mode) == 0o600


def test_a_damaged_secret_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    """Half a secret would sign receipts that no other process can read."""
    (tmp_path / "receipt.secret").write_bytes(b"short")

    with pytest.raises(OSError, match=r"receipt\.secret"):
        receipt.secret_of(tmp_path)
