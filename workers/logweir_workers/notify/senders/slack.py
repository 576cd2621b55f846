"""slack: one message for an alert, what becomes of it in the message's thread.

With a bot's token, https://docs.slack.dev/reference/methods/chat.postMessage: the answer is 200 with "ok", and "ts",
which names the message, or with "error"; 429 has Retry-After. With an incoming webhook's URL,
https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks, nothing names the message: no threads there.
Slack has no key by which it knows a message again.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

import orjson
from pydantic import SecretStr, field_validator, model_validator

from logweir_workers.notify.notice import Notice, State
from logweir_workers.notify.senders.http import Http
from logweir_workers.notify.senders.port import ChannelSettings, NoticeRefused, Secret, Sender, SendFailed, web_address

TEXT_LENGTH_MAX = 3_500
"""Slack recommends 4,000 characters at most; escapes make text longer."""
# What is wrong with this very message; anything else is the channel's, or Slack's.
_REFUSED = ("msg_too_long", "no_text", "invalid_blocks", "restricted_action_thread_locked")


class SlackSettings(ChannelSettings):
    """One message for an alert, what becomes of it in the message's thread."""

    type: Literal["slack"] = "slack"
    token: Secret = SecretStr("")
    """A bot's token (xoxb-…) with the scope chat:write; with it, channel."""
    channel: str = ""
    """The channel's id, such as C0123456789, where the bot is a member."""
    webhook_url: Secret = SecretStr("")
    """Instead of both, an incoming webhook; without threads."""
    api_url: str = "https://slack.com/api"
    """Where Slack's API is."""

    delivery: ClassVar[str] = "at least once; changes in the thread, with a token"

    @field_validator("api_url")
    @classmethod
    def _api_url(cls, url: str) -> str:
        return web_address(url).rstrip("/")

    @field_validator("webhook_url")
    @classmethod
    def _webhook_url(cls, url: SecretStr) -> SecretStr:
        if url.get_secret_value():
            web_address(url.get_secret_value())
        return url

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        by_token = bool(self.token.get_secret_value()), bool(self.channel)
        if any(by_token) == bool(self.webhook_url.get_secret_value()) or any(by_token) != all(by_token):
            raise ValueError("it needs token and channel, or webhook_url")
        return self

    def sender(self) -> Sender:
        return _Slack(self)


def escaped(text: str) -> str:
    """Text that stays text: https://docs.slack.dev/messaging/formatting-message-text#escaping."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


class _Slack:
    def __init__(self, settings: SlackSettings) -> None:
        self._token = settings.token.get_secret_value()
        self._channel = settings.channel
        self._url = settings.webhook_url.get_secret_value() or f"{settings.api_url}/chat.postMessage"
        self._http = Http(timeout_s=settings.timeout_s)

    def send(self, notice: Notice) -> dict[str, Any]:
        is_short = bool(notice.remembered) and (notice.is_repeat or notice.state is not State.FIRING)
        # Links are ours alone: what looks like one in an event stays text.
        urls = {one.url for one in notice.alerts}
        lines = [f"<{line}>" if line in urls else escaped(line) for line in notice.lines[: 1 if is_short else None]]
        message: dict[str, Any] = {"text": "\n".join(lines)[:TEXT_LENGTH_MAX], "parse": "none", "unfurl_links": False}
        if not self._token:
            self._http.post(self._url, orjson.dumps(message), {})
            return {}
        message["channel"] = self._channel
        if thread := notice.remembered.get("ts"):
            message["thread_ts"] = thread
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json; charset=utf-8"}
        answer = self._http.post(self._url, orjson.dumps(message), headers)
        try:
            said = orjson.loads(answer.body)
            if said["ok"]:
                return {"ts": thread or str(said["ts"])}
            error = str(said.get("error"))
        except (ValueError, TypeError, KeyError, AttributeError) as cause:
            raise SendFailed("its answer is not what chat.postMessage answers") from cause
        if error in _REFUSED:
            raise NoticeRefused(error)
        raise SendFailed(error)

    def close(self) -> None:
        self._http.close()
