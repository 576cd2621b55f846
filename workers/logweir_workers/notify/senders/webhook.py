"""webhook: JSON to a URL of yours, signed as Standard Webhooks have it.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md: the headers webhook-id (of
the message, the same for each try), webhook-timestamp (of the try, in seconds) and webhook-signature, "v1," and the
base64 of HMAC-SHA256 over "id.timestamp.body". Secrets are base64 behind "whsec_".
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import time
from pathlib import Path
from typing import Any, ClassVar, Literal

import orjson
from pydantic import SecretStr, field_validator

from logweir.clock import iso_seconds
from logweir_workers.notify.notice import Notice
from logweir_workers.notify.senders.http import Http
from logweir_workers.notify.senders.port import ChannelSettings, Secret, Sender, web_address

SECRET_PREFIX = "whsec_"  # noqa: S105 - the prefix of every secret
SECRET_BYTES_MIN = 24


class WebhookSettings(ChannelSettings):
    """JSON to a URL of yours, signed as Standard Webhooks have it."""

    type: Literal["webhook"] = "webhook"
    url: Secret
    """Where it is posted to."""
    secret: Secret
    """What it is signed with: whsec_ and the base64 of 24 to 64 random bytes."""
    ca_file: Path | None = None
    """Certificates of the authorities to trust; by default the system's."""

    has_digest: ClassVar[bool] = False
    delivery: ClassVar[str] = "once, where the receiver looks at webhook-id"

    @field_validator("url")
    @classmethod
    def _url(cls, url: SecretStr) -> SecretStr:
        web_address(url.get_secret_value())
        return url

    @field_validator("secret")
    @classmethod
    def _secret(cls, secret: SecretStr) -> SecretStr:
        signing_key(secret.get_secret_value())
        return secret

    def sender(self) -> Sender:
        return _Webhook(self)


def signing_key(secret: str) -> bytes:
    """The bytes of a secret. Raises ValueError."""
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(SECRET_PREFIX) or not SECRET_BYTES_MIN <= len(key) <= 64:
        raise ValueError(f"it is not {SECRET_PREFIX} and the base64 of 24 to 64 bytes")
    return key


def signature(key: bytes, *, id: str, timestamp: int, body: bytes) -> str:
    """The value of webhook-signature."""
    digest = hmac.digest(key, f"{id}.{timestamp}.".encode() + body, hashlib.sha256)
    return f"v1,{base64.b64encode(digest).decode()}"


class _Webhook:
    def __init__(self, settings: WebhookSettings) -> None:
        self._url = settings.url.get_secret_value()
        self._key = signing_key(settings.secret.get_secret_value())
        self._http = Http(timeout_s=settings.timeout_s, ca_file=settings.ca_file)

    def send(self, notice: Notice) -> dict[str, Any]:
        body = orjson.dumps(
            {
                "type": "alert.test" if notice.is_test else f"alert.{notice.state}",
                "timestamp": iso_seconds(notice.time_us),
                "data": {
                    "thread": notice.thread,
                    "number": notice.number,
                    "state": notice.state.value,
                    "severity": notice.severity,
                    "title": notice.title,
                    "is_repeat": notice.is_repeat,
                    "alerts": [one.as_dict() for one in notice.alerts],
                },
            }
        )
        timestamp = int(time.time())
        headers = {
            "webhook-id": notice.key,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature(self._key, id=notice.key, timestamp=timestamp, body=body),
        }
        self._http.post(self._url, body, headers)
        return {}

    def close(self) -> None:
        self._http.close()
