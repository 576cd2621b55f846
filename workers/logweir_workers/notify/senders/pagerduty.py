"""pagerduty: an incident for an alert, acknowledged and resolved with it.

https://developer.pagerduty.com/docs/events-api-v2-overview and .../send-alert-event: 202 when it is taken, 400 when it
never will be, 429 and 5xx to be tried again. Events with one dedup_key (255 characters at most) are one alert.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import orjson
from pydantic import field_validator

from logweir_workers.notify.notice import ALERTS_NAMED_MAX, Notice, State
from logweir_workers.notify.senders.http import Http
from logweir_workers.notify.senders.port import ChannelSettings, Secret, Sender, web_address

SUMMARY_LENGTH_MAX = 1024
_ACTIONS = {State.FIRING: "trigger", State.ACKNOWLEDGED: "acknowledge", State.RESOLVED: "resolve"}
_SEVERITIES = {"critical": "critical", "high": "error", "medium": "warning", "low": "warning", "info": "info"}


class PagerDutySettings(ChannelSettings):
    """An incident for an alert, acknowledged and resolved with it."""

    type: Literal["pagerduty"] = "pagerduty"
    routing_key: Secret
    """The integration key of a service, Events API v2."""
    url: str = "https://events.pagerduty.com/v2/enqueue"
    """Where events go; https://events.eu.pagerduty.com/v2/enqueue in the EU."""

    has_digest: ClassVar[bool] = False
    delivery: ClassVar[str] = "once: it knows an alert by dedup_key"

    @field_validator("url")
    @classmethod
    def _url(cls, url: str) -> str:
        return web_address(url)

    def sender(self) -> Sender:
        return _PagerDuty(self)


class _PagerDuty:
    def __init__(self, settings: PagerDutySettings) -> None:
        self._url = settings.url
        self._key = settings.routing_key.get_secret_value()
        self._http = Http(timeout_s=settings.timeout_s)

    def send(self, notice: Notice) -> dict[str, Any]:
        first = notice.alerts[0]
        event: dict[str, Any] = {
            "routing_key": self._key,
            "event_action": _ACTIONS[notice.state],
            "dedup_key": notice.thread,
        }
        if notice.state is State.FIRING:
            event["client"] = "logweir"
            event["payload"] = {
                "summary": notice.title[:SUMMARY_LENGTH_MAX],
                "source": ", ".join(first.group.values())[:SUMMARY_LENGTH_MAX] or "logweir",
                "severity": _SEVERITIES[notice.severity],
                "timestamp": first.last,
                "component": first.rule,
                "class": first.category or first.rule,
                "custom_details": {"alerts": [one.as_dict() for one in notice.alerts[:ALERTS_NAMED_MAX]]},
            }
            links = [(one.url, one.summary) for one in notice.alerts[:ALERTS_NAMED_MAX] if one.url]
            links += [(first.runbook, "runbook")] if first.runbook.startswith(("https://", "http://")) else []
            event["links"] = [{"href": href, "text": text[:SUMMARY_LENGTH_MAX]} for href, text in links]
        self._http.post(self._url, orjson.dumps(event), {})
        return {}

    def close(self) -> None:
        self._http.close()
