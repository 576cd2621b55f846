"""`logweir send`: its key and its default address; sending itself is tested over the whole product."""

from __future__ import annotations

from pathlib import Path

import pytest

from logweir import cli
from tests.tools.product import free_port


@pytest.fixture
def events(tmp_path: Path) -> str:
    path = tmp_path / "events.ndjson"
    path.write_text("{}\n")
    return str(path)


@pytest.mark.parametrize(
    ("listening", "reached"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("::1", "[::1]"),
        ("0.0.0.0", "127.0.0.1"),
        ("::", "[::1]"),
        ("door.test", "door.test"),
    ],
)
def test_the_default_address_is_where_the_door_is_reached(
    listening: str, reached: str, events: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """IPv6 gets its brackets, and what stands for all networks is this machine."""
    port = free_port()
    monkeypatch.setenv("LOGWEIR_INGEST_ADDRESS", listening)
    monkeypatch.setenv("LOGWEIR_INGEST_PORT", str(port))

    assert cli.main(["send", events, "--key", "lw_x", "--retry", "0"]) == 2
    error = capsys.readouterr().err
    assert f"http://{reached}:{port}/events did not accept" in error
    assert "Failed to parse" not in error


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("lw_x\r\nX-Evil: 1", "at place 5 of 15"),
        ("lw_ü", "at place 4 of 4"),
        ("lw x", "at place 3 of 4"),
        (" \n", "No key was given"),
    ],
)
def test_a_key_that_no_header_can_carry_is_said(
    key: str, said: str, events: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line with the place, and nothing of the key itself."""
    assert cli.main(["send", events, "--key", key]) == 2

    error = capsys.readouterr().err
    assert said in error
    assert key not in error
    assert error.count("\n") == 1


def test_white_space_around_a_key_is_left_out(
    events: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As from a file that ends with a new line."""
    monkeypatch.setenv("LOGWEIR_KEY", " lw_x\r\n")

    assert cli.main(["send", events, "--retry", "0", "--url", f"http://127.0.0.1:{free_port()}/events"]) == 2
    assert "did not accept" in capsys.readouterr().err
