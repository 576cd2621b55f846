"""smtp: a mail for an alert, what becomes of it as replies to that mail.

Message-ID is the same for each try (RFC 5322 section 3.6.4); References and In-Reply-To name the first mail. Answers of
4xx are tried again, of 5xx not (RFC 5321 section 4.2.1), but for those to the login.
"""

from __future__ import annotations

import smtplib
import ssl
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, SecretStr, field_validator

from logweir_workers.notify.notice import Notice
from logweir_workers.notify.senders.port import ChannelSettings, NoticeRefused, Secret, Sender, SendFailed

SUBJECT_LENGTH_MAX = 200
RECIPIENTS_MAX = 50
_PORTS = {"starttls": 587, "tls": 465, "none": 25}


class SmtpSettings(ChannelSettings):
    """A mail for an alert, what becomes of it as replies to that mail."""

    type: Literal["smtp"] = "smtp"
    host: str
    """The server that takes mail for delivery."""
    port: int | None = Field(None, ge=1, le=65_535)
    """Its port: 587, 465 with tls, 25 without."""
    security: Literal["starttls", "tls", "none"] = "starttls"
    """How the connection is encrypted. starttls is demanded, not only tried."""
    username: str = ""
    """User, where the server asks for one."""
    password: Secret = SecretStr("")
    """Password."""
    sender_address: str
    """From whom: logweir@example.org."""
    to: tuple[str, ...] = Field(min_length=1, max_length=RECIPIENTS_MAX)
    """To whom."""
    ca_file: Path | None = None
    """Certificates of the authorities to trust; by default the system's."""

    delivery: ClassVar[str] = "at least once; twice only where nobody looks at Message-ID"

    @field_validator("sender_address", "to")
    @classmethod
    def _addresses(cls, value: Any) -> Any:
        for one in (value,) if isinstance(value, str) else value:
            _address(one)
        return value

    def sender(self) -> Sender:
        return _Smtp(self)


def _address(text: str) -> Address:
    """Raises ValueError."""
    try:
        address = Address(addr_spec=text)
    except Exception as error:
        raise ValueError(f"{text!r} is not an address such as ops@example.org") from error
    if not address.domain or not text.isprintable():
        raise ValueError(f"{text!r} is not an address such as ops@example.org")
    return address


class _Smtp:
    def __init__(self, settings: SmtpSettings) -> None:
        self._settings = settings
        self._domain = _address(settings.sender_address).domain
        self._trusted = ssl.create_default_context(cafile=settings.ca_file)

    def send(self, notice: Notice) -> dict[str, Any]:
        message = self.message(notice)
        try:
            with self._connected() as connection:
                refused = connection.send_message(message)
        except smtplib.SMTPAuthenticationError as error:
            raise SendFailed(_said(error)) from error
        except smtplib.SMTPRecipientsRefused as error:
            raise _of_code(error.recipients) from error
        except smtplib.SMTPResponseException as error:
            if 500 <= error.smtp_code < 600 and isinstance(error, smtplib.SMTPDataError | smtplib.SMTPSenderRefused):
                raise NoticeRefused(_said(error)) from error
            raise SendFailed(_said(error)) from error
        except (smtplib.SMTPException, OSError) as error:
            raise SendFailed(f"{type(error).__name__}: {error}") from error
        if refused:
            # Some have it: another try would tell them twice.
            raise NoticeRefused(f"not taken for {', '.join(sorted(refused))}")
        return {"message_id": notice.remembered.get("message_id") or str(message["Message-ID"])}

    def message(self, notice: Notice) -> EmailMessage:
        """The mail. Nothing from an event gets into a header as it is: one line, and encoded where it has to be."""
        message = EmailMessage(policy=SMTP)
        first = notice.remembered.get("message_id")
        message["Subject"] = ("Re: " if first else "") + " ".join(notice.title.split())[:SUBJECT_LENGTH_MAX]
        message["From"] = _address(self._settings.sender_address)
        message["To"] = [_address(one) for one in self._settings.to]
        message["Date"] = format_datetime(datetime.fromtimestamp(notice.time_us // 1_000_000, tz=UTC))
        message["Message-ID"] = f"<{notice.key}@{self._domain}>"
        if first:
            message["In-Reply-To"] = message["References"] = first
        message["Auto-Submitted"] = "auto-generated"
        message.set_content("\n".join(notice.lines) + "\n")
        return message

    def _connected(self) -> smtplib.SMTP:
        settings = self._settings
        port, timeout_s = settings.port or _PORTS[settings.security], settings.timeout_s
        if settings.security == "tls":
            connection: smtplib.SMTP = smtplib.SMTP_SSL(settings.host, port, timeout=timeout_s, context=self._trusted)
        else:
            connection = smtplib.SMTP(settings.host, port, timeout=timeout_s)
        try:
            if settings.security == "starttls":
                connection.starttls(context=self._trusted)
            if settings.username:
                connection.login(settings.username, settings.password.get_secret_value())
        except BaseException:
            connection.close()
            raise
        return connection

    def close(self) -> None:
        """Each mail has a connection of its own."""


def _said(error: smtplib.SMTPResponseException) -> str:
    text = error.smtp_error
    return f"it answered {error.smtp_code}: {text.decode(errors='replace') if isinstance(text, bytes) else text}"


def _of_code(recipients: dict[str, tuple[int, bytes]]) -> Exception:
    """Of recipients that were all refused: for now, when one of them was."""
    said = "; ".join(f"{one}: {code} {text.decode(errors='replace')}" for one, (code, text) in recipients.items())
    return SendFailed(said) if any(code < 500 for code, _ in recipients.values()) else NoticeRefused(said)
