"""alertmanager: an alert of Prometheus' Alertmanager, which groups, silences and routes it.

https://github.com/prometheus/alertmanager/blob/main/api/v2/openapi.yaml, POST /api/v2/alerts: an alert is known by its
labels; one whose endsAt has come is resolved. It keeps them in memory: so they are sent again, long before endsAt.
"""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any, ClassVar, Literal

import orjson
from pydantic import Field, SecretStr, field_validator

from logweir.clock import iso_seconds, now_us
from logweir.text import counted
from logweir_workers.notify.notice import Notice, State, Told
from logweir_workers.notify.senders.http import Http
from logweir_workers.notify.senders.port import ChannelSettings, Secret, Sender, web_address

ENDS_AFTER_US = 900_000_000
"""So long after it was last sent, an alert counts as resolved there: fifteen times ``resend_s``."""


class AlertmanagerSettings(ChannelSettings):
    """An alert of Prometheus' Alertmanager, which groups, silences and routes it."""

    type: Literal["alertmanager"] = "alertmanager"
    url: str
    """Where it is: http://alertmanager:9093, with the path of its --web.route-prefix."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Labels that each alert has beside those of its own."""
    username: str = ""
    """User, where it asks for one."""
    password: Secret = SecretStr("")
    """Password."""
    ca_file: Path | None = None
    """Certificates of the authorities to trust; by default the system's."""

    has_digest: ClassVar[bool] = False
    has_groups: ClassVar[bool] = False
    resend_s: ClassVar[float] = 60
    # Of an alert that ends within its group_wait, it tells nobody.
    interval_s_default: ClassVar[float] = 60
    delivery: ClassVar[str] = "once: it knows an alert by its labels"

    @field_validator("url")
    @classmethod
    def _url(cls, url: str) -> str:
        return web_address(url).rstrip("/")

    def sender(self) -> Sender:
        return _Alertmanager(self)


def labels_of(alert: Told, more: dict[str, str]) -> dict[str, str]:
    """What it is known by: nothing that changes."""
    of_group = {f"group_{re.sub('[^a-zA-Z0-9_]', '_', name)}": value for name, value in alert.group.items()}
    labels = {
        "alertname": alert.rule,
        "severity": alert.severity,
        "category": alert.category,
        "alert_id": alert.id,
        **of_group,
        **more,
    }
    return {name: value for name, value in labels.items() if value}


class _Alertmanager:
    def __init__(self, settings: AlertmanagerSettings) -> None:
        self._url = f"{settings.url}/api/v2/alerts"
        self._labels = settings.labels
        self._headers: dict[str, str] = {}
        if settings.username:
            pair = f"{settings.username}:{settings.password.get_secret_value()}"
            self._headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        self._http = Http(timeout_s=settings.timeout_s, ca_file=settings.ca_file)

    def send(self, notice: Notice) -> dict[str, Any]:
        self._http.post(self._url, orjson.dumps([self._alert(one, notice) for one in notice.alerts]), self._headers)
        return {}

    def _alert(self, one: Told, notice: Notice) -> dict[str, Any]:
        # One that was over before it could be told is told as firing first: else nobody would ever hear of it.
        ends_us = now_us() if notice.state is State.RESOLVED else now_us() + ENDS_AFTER_US
        annotations = {
            "summary": one.summary,
            "description": f"{counted(one.count, 'event')} from {one.first} to {one.last}, {one.completeness}",
            "runbook_url": one.runbook,
        }
        return {
            "labels": labels_of(one, self._labels),
            "annotations": {name: value for name, value in annotations.items() if value},
            "startsAt": one.created,
            "endsAt": iso_seconds(ends_us),
            "generatorURL": one.url,
        }

    def close(self) -> None:
        self._http.close()
