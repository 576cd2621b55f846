"""apprise: the hundred other services, by https://github.com/caronc/apprise (``pip install 'logweir[notify]'``).

At least once, no resolve: apprise knows neither a key for a message nor a change of one.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field, SecretStr, field_validator

from logweir.errors import SETTING_NEEDS_EXTRA, LogweirError
from logweir_workers.notify.notice import Notice, State
from logweir_workers.notify.senders.port import ChannelSettings, Secret, Sender, SendFailed

URLS_MAX = 20


class AppriseSettings(ChannelSettings):
    """The hundred other services, at least once, no resolve."""

    type: Literal["apprise"] = "apprise"
    urls: tuple[Secret, ...] = Field(min_length=1, max_length=URLS_MAX)
    """Apprise's URLs: ntfys://topic, tgram://…"""
    resolved: bool = False
    """Whether a second message says when alerts are over."""

    has_resolve: ClassVar[bool] = False
    delivery: ClassVar[str] = "at least once, no resolve"

    @field_validator("urls")
    @classmethod
    def _urls(cls, urls: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        _of_urls(urls)
        return urls

    def sender(self) -> Sender:
        return _Apprise(self)


def _of_urls(urls: Sequence[SecretStr]) -> Any:
    """Raises ValueError, and LogweirError(SETTING_NEEDS_EXTRA) where apprise is not installed."""
    try:
        library: Any = importlib.import_module("apprise")
    except ModuleNotFoundError as error:
        raise LogweirError(
            SETTING_NEEDS_EXTRA, name="A channel of type apprise", module="apprise", extra="notify"
        ) from error
    made = library.Apprise()
    for number, url in enumerate(urls, 1):
        if not made.add(url.get_secret_value()):
            raise ValueError(f"number {number} is no URL that apprise knows")
    return made


class _Apprise:
    def __init__(self, settings: AppriseSettings) -> None:
        self._apprise = _of_urls(settings.urls)
        self._types = {"critical": "failure", "high": "failure", "medium": "warning", "low": "warning", "info": "info"}

    def send(self, notice: Notice) -> dict[str, Any]:
        kind = "success" if notice.state is State.RESOLVED else self._types[notice.severity]
        body = "\n".join(notice.lines[1:]).strip() or notice.title
        if not self._apprise.notify(title=notice.title, body=body, notify_type=kind):
            raise SendFailed("apprise could not deliver it")
        return {}

    def close(self) -> None:
        """Apprise connects for each message."""
