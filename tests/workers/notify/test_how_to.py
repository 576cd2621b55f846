"""Every channel that docs/how-to/notifications.md shows can be read as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from logweir_workers.notify.channels import read_channels
from logweir_workers.notify.senders import SENDERS
from logweir_workers.notify.senders.port import ChannelSettings

PAGE = (Path(__file__).resolve().parents[3] / "docs/how-to/notifications.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```toml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("text", EXAMPLES)
def test_an_example_is_a_channel(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With secrets where it says that they are."""
    secrets = {"HOOK_SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "APPRISE_URL": "json://localhost"}
    for name in re.findall(r"env:(\w+)", text):
        monkeypatch.setenv(name, secrets.get(name, "https://example.org/x"))
    (tmp_path / "slack-token").write_text("xoxb-1")
    path = tmp_path / "channels.toml"
    path.write_text(text.replace("/etc/logweir", str(tmp_path)))

    assert read_channels(path)


def test_every_kind_of_channel_has_its_example_and_every_common_key_its_row() -> None:
    kinds = set(re.findall(r'^type = "(\w+)"', "\n".join(EXAMPLES), re.MULTILINE))
    rows = set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE))

    assert kinds == set(SENDERS)
    assert rows == set(ChannelSettings.model_fields) - {"type"}
