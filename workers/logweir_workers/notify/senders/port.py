"""What every sender has: its settings, one method, and three ways to fail."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Protocol

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, field_validator

from logweir_workers.notify.notice import Notice

SECRET_SIZE_BYTES_MAX = 64 * 1024
ERROR_LENGTH_MAX = 300


class SendFailed(Exception):
    """Not delivered, or nobody knows: to be tried again. The channel rests meanwhile.

    ``after_s``: how long the receiver wants to be left alone, where it said so.
    """

    def __init__(self, reason: str, *, after_s: float | None = None) -> None:
        super().__init__(reason)
        self.after_s = after_s


class NoticeRefused(Exception):
    """The receiver will never take this notice. The channel is fine, and goes on with the next one."""


class Sender(Protocol):
    """Sends one notice after the other, from one thread."""

    def send(self, notice: Notice) -> dict[str, Any]:
        """Return when the receiver has the notice; what is to be ``remembered`` for others of its thread.

        Takes little more than the channel's ``timeout_s``. Raises SendFailed, NoticeRefused.
        """

    def close(self) -> None:
        """End connections."""


def _resolved(value: Any) -> Any:
    """The secret itself, of what the file says: env:NAME, file:PATH, or the secret."""
    if not isinstance(value, str):
        return value
    kind, _, where = value.partition(":")
    if kind == "env":
        if not os.environ.get(where):
            raise ValueError(f"the environment has no variable {where}")
        return os.environ[where]
    if kind == "file":
        try:
            with Path(where).open("rb") as file:
                text = file.read(SECRET_SIZE_BYTES_MAX).decode()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8"
            raise ValueError(f"{where} cannot be read: {reason}") from error
        if not text.strip():
            raise ValueError(f"{where} is empty")
        return text.strip()
    return value


Secret = Annotated[SecretStr, BeforeValidator(_resolved)]
"""``env:NAME``, ``file:PATH``, or the secret itself. Shown nowhere."""


class ChannelSettings(BaseModel):
    """What every channel may say. Which alerts go there, and when."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False, hide_input_in_errors=True
    )

    type: str
    severities: tuple[Literal["critical", "high", "medium", "low", "info"], ...] = ()
    """Only alerts of these; without, all."""
    rules: tuple[str, ...] = ()
    """Only alerts of rules with these names, * for anything: ssh_*."""
    tags: tuple[str, ...] = ()
    """Only alerts with one of these tags, * for anything: attack.*."""
    group_by: tuple[str, ...] = ()
    """rule, severity, category, or fields of alerts' groups: alerts with the same values are told together."""
    group_wait_s: float | None = Field(None, ge=0, le=3600)
    """How long the first alert of a group waits for others: 30, and 0 without group_by."""
    group_interval_s: float | None = Field(None, ge=0, le=86_400)
    """Shortest time between two notices of one group: 300; without group_by 0, and 60 for alertmanager."""
    repeat_s: float = Field(86_400, ge=0)
    """How often it is said again of alerts that go on and that nobody acknowledged; 0: never."""
    resolved: bool = True
    """Whether it is told when alerts are over."""
    digest_above: int = Field(20, ge=1, le=10_000)
    """When more new alerts are to be told at once, as after an outage, one notice tells them; not with group_by."""
    timeout_s: float = Field(10, gt=0, le=60)
    """How long the receiver may take to answer."""

    has_resolve: ClassVar[bool] = True
    """Whether the receiver can be told of changes of an alert that it knows."""
    has_digest: ClassVar[bool] = True
    """Whether many alerts at once become one notice: where people read it, not programs."""
    has_groups: ClassVar[bool] = True
    """Whether alerts may be told together."""
    interval_s_default: ClassVar[float] = 0
    """``group_interval_s``, of channels without group_by."""
    resend_s: ClassVar[float] = 0
    """Where the receiver forgets what it is not told again: how often that is done."""
    delivery: ClassVar[str] = ""
    """What is promised, in words."""

    @field_validator("group_by")
    @classmethod
    def _groups(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if names and not cls.has_groups:
            raise ValueError("this receiver groups alerts itself")
        return names

    @property
    def wait_s(self) -> float:
        """``group_wait_s``, with its default."""
        return self.group_wait_s if self.group_wait_s is not None else (30.0 if self.group_by else 0.0)

    @property
    def interval_s(self) -> float:
        """``group_interval_s``, with its default."""
        if self.group_interval_s is not None:
            return self.group_interval_s
        return 300.0 if self.group_by else self.interval_s_default

    def sender(self) -> Sender:
        """A sender for one thread. Raises LogweirError(SETTING_NEEDS_EXTRA)."""
        raise NotImplementedError

    def secrets(self) -> list[str]:
        """All secrets in it, so that they can be taken out of what is shown."""
        found: list[str] = []
        for name in type(self).model_fields:
            value = getattr(self, name)
            for one in value if isinstance(value, tuple) else (value,):
                if isinstance(one, SecretStr) and (text := one.get_secret_value()):
                    found.append(text)
                    # Of a URL, libraries say the path alone.
                    if (parts := re.match(r"\w+://[^/]+(/.{8,})", text)) is not None:
                        found.append(parts[1])
        return sorted(found, key=len, reverse=True)

    def scrubbed(self, text: str) -> str:
        """The text on one line, without the secrets, and not too long."""
        for secret in self.secrets():
            text = text.replace(secret, "***")
        return " ".join(text.split())[:ERROR_LENGTH_MAX]


def web_address(text: str) -> str:
    """For URLs that are given to HTTP. Raises ValueError."""
    if not re.fullmatch(r"https?://[^\s/]+(/\S*)?", text):
        raise ValueError("it is not a URL that begins with http:// or https://")
    if "@" in text.split("/")[2]:
        raise ValueError("a user or a password in a URL is not sent")
    return text
