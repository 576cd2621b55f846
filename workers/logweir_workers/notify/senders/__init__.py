"""Senders, one file each: a new one is a file here and a row in SENDERS. README.md says how."""

from __future__ import annotations

from logweir_workers.notify.senders import alertmanager, apprise, pagerduty, slack, smtp, webhook
from logweir_workers.notify.senders.port import ChannelSettings

SENDERS: dict[str, type[ChannelSettings]] = {
    "alertmanager": alertmanager.AlertmanagerSettings,
    "apprise": apprise.AppriseSettings,
    "pagerduty": pagerduty.PagerDutySettings,
    "slack": slack.SlackSettings,
    "smtp": smtp.SmtpSettings,
    "webhook": webhook.WebhookSettings,
}
"""By the ``type`` of a channel, its settings, which make its sender."""
