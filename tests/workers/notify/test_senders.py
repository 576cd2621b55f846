"""Each sender against a receiver that answers as its documentation says, fails, is slow, or wants to be left alone."""

from __future__ import annotations

import base64
import hashlib
import hmac
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult

from logweir_workers.notify.notice import Notice, Standing, State
from logweir_workers.notify.senders import SENDERS
from logweir_workers.notify.senders.http import RETRY_AFTER_S_MAX, retry_after_s
from logweir_workers.notify.senders.port import NoticeRefused, Sender, SendFailed
from logweir_workers.notify.senders.webhook import signature, signing_key
from tests.services.alertmanager import Alertmanager
from tests.services.process import choose_ports
from tests.waiting import until
from tests.workers.notify.alerts import notice, told
from tests.workers.notify.receivers import Answer, Receiver, Request, receiving, slack

WHSEC = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def sender(kind: str, **settings: Any) -> Sender:
    return SENDERS[kind].model_validate({"type": kind, **settings}).sender()


def webhook(receiver: Receiver, **settings: Any) -> Sender:
    return sender("webhook", url=f"{receiver.url}/in", secret=WHSEC, **settings)


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Of this machine, signed by itself, and its key in one file."""
    path = tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", f"{path}.key", "-out", f"{path}.crt", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    path.write_text(Path(f"{path}.crt").read_text() + Path(f"{path}.key").read_text())
    return path


@pytest.fixture
def context(certificate: Path) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(certificate)
    return made


# --- over HTTP ----------------------------------------------------------------------------------------------------
def test_the_signature_is_that_of_the_specifications_example() -> None:
    """Which all libraries of Standard Webhooks test with."""
    body = b'{"test": 2432232314}'
    made = signature(signing_key(WHSEC), id="msg_p5jXN8AQM9LWM0D4loKWxJek", timestamp=1614265330, body=body)

    assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_webhook_is_signed_and_says_all_of_its_alerts() -> None:
    """Its id is the notice's key, whenever it is sent again."""
    with receiving() as receiver:
        hook = webhook(receiver)
        hook.send(notice(told("a-1"), told("b-1", severity="critical")))
        hook.send(notice(told("a-1"), told("b-1", severity="critical")))
        one, two = receiver.requests
    signed = f"{one.headers['webhook-id']}.{one.headers['webhook-timestamp']}.".encode() + one.body
    digest = hmac.new(base64.b64decode(WHSEC.removeprefix("whsec_")), signed, hashlib.sha256).digest()

    assert one.headers["webhook-signature"] == f"v1,{base64.b64encode(digest).decode()}"
    assert one.headers["webhook-id"] == two.headers["webhook-id"] == "chan.aa11-1-1-1-firing"
    assert one.json["type"] == "alert.firing"
    assert one.json["timestamp"] == "2026-01-31T12:00:00Z"
    assert one.json["data"]["severity"] == "critical"
    assert [alert["url"] for alert in one.json["data"]["alerts"]] == [
        "https://logs.example.org/alerts/a-1",
        "https://logs.example.org/alerts/b-1",
    ]


@pytest.mark.parametrize(
    ("status", "headers", "raised", "after_s"),
    [
        (429, {"Retry-After": "7"}, SendFailed, 7.0),
        (503, {"Retry-After": "1e9"}, SendFailed, RETRY_AFTER_S_MAX),
        (500, {"Retry-After": "soon"}, SendFailed, None),
        (302, {"Location": "http://127.0.0.1:1/"}, SendFailed, None),
        (401, {}, SendFailed, None),
        (404, {}, SendFailed, None),
        (400, {}, NoticeRefused, None),
        (413, {}, NoticeRefused, None),
    ],
)
def test_answers_say_whether_it_is_tried_again_and_when(
    status: int, headers: dict[str, str], raised: type[Exception], after_s: float | None
) -> None:
    with receiving(lambda request, number: Answer(status, headers, b"why not")) as receiver, pytest.raises(raised) as e:
        webhook(receiver).send(notice())

    assert f"it answered {status}: why not" in str(e.value)
    assert getattr(e.value, "after_s", None) == after_s
    assert len(receiver.requests) == 1


def test_retry_after_may_be_a_date() -> None:
    """RFC 9110; one that has passed, and one that is none."""
    assert retry_after_s("Fri, 31 Dec 1999 23:59:59 GMT") == 0
    assert retry_after_s("Fri, 31 Dec 2100 23:59:59 GMT") == RETRY_AFTER_S_MAX
    assert [retry_after_s(text) for text in ("nan", "", "-5", "x")] == [None, None, 0.0, None]


def test_a_receiver_that_hangs_or_is_not_there_is_given_up() -> None:
    """And one whose answer has no end."""
    over = threading.Event()
    endless = b"x" * 1_000_000
    with receiving(lambda request, number: Answer(hangs=over)) as receiver:
        with pytest.raises(SendFailed, match="Timeout"):
            webhook(receiver, timeout_s=0.2).send(notice())
        over.set()
    with receiving(lambda request, number: Answer(500, body=endless)) as receiver, pytest.raises(SendFailed) as long:
        webhook(receiver).send(notice())
    with pytest.raises(SendFailed, match="refused"):
        webhook(receiver).send(notice())

    assert len(str(long.value)) < 300


def test_a_receivers_certificate_is_checked(certificate: Path, context: ssl.SSLContext) -> None:
    """By the authorities of the system, or those of ca_file; nothing is sent before."""
    with receiving(context=context) as receiver:
        with pytest.raises(SendFailed, match="CERTIFICATE_VERIFY_FAILED"):
            webhook(receiver).send(notice())
        before = len(receiver.requests)
        webhook(receiver, ca_file=certificate).send(notice())

    assert before == 0
    assert len(receiver.requests) == 1


def test_slack_has_one_message_for_an_alert_and_its_changes_in_the_thread() -> None:
    """Text of events stays text: it mentions nobody, and makes no link."""
    with receiving(slack) as receiver:
        team = sender("slack", token="xoxb-S3CRET", channel="C1", api_url=f"{receiver.url}/api")
        evil = told(summary="<!channel> & <https://evil.example|click>")
        remembered = team.send(notice(evil))
        team.send(notice(evil, state=State.RESOLVED, number=2, remembered=remembered))
        one, two = receiver.requests

    assert (one.path, one.headers["authorization"]) == ("/api/chat.postMessage", "Bearer xoxb-S3CRET")
    assert remembered == {"ts": "1700000000.000000"}
    assert "&lt;!channel&gt; &amp; &lt;https" in one.json["text"]
    assert one.json["text"].count("<") == one.json["text"].count("<https://logs.example.org/alerts/aa11-1>") == 1
    assert one.json["parse"] == "none"
    assert "thread_ts" not in one.json
    assert (two.json["thread_ts"], two.json["text"].split("]")[0]) == ("1700000000.000000", "[resolved")


@pytest.mark.parametrize(
    ("body", "raised"),
    [
        (b'{"ok": false, "error": "channel_not_found"}', SendFailed),
        (b'{"ok": false, "error": "msg_too_long"}', NoticeRefused),
        (b'{"ok": true}', SendFailed),
        (b"<html>", SendFailed),
        (b"[]", SendFailed),
    ],
)
def test_slack_says_200_and_means_no(body: bytes, raised: type[Exception]) -> None:
    with receiving(lambda request, number: Answer(body=body)) as receiver, pytest.raises(raised):
        sender("slack", token="xoxb-1", channel="C1", api_url=receiver.url).send(notice())


def test_slacks_incoming_webhook_needs_no_token() -> None:
    with receiving(lambda request, number: Answer(body=b"ok")) as receiver:
        remembered = sender("slack", webhook_url=f"{receiver.url}/services/T/B/x").send(notice())

    assert remembered == {}
    assert receiver.requests[0].path == "/services/T/B/x"
    assert set(receiver.requests[0].json) == {"text", "parse", "unfurl_links"}


def test_pagerduty_is_triggered_acknowledged_and_resolved_under_one_key() -> None:
    with receiving(lambda request, number: Answer(202, body=b'{"status":"success"}')) as receiver:
        pager = sender("pagerduty", routing_key="S3CRET", url=f"{receiver.url}/v2/enqueue")
        pager.send(notice(told(summary="x" * 3000)))
        pager.send(notice(state=State.ACKNOWLEDGED, number=2))
        pager.send(notice(state=State.RESOLVED, number=3))
        sent = [one.json for one in receiver.requests]

    assert [one["event_action"] for one in sent] == ["trigger", "acknowledge", "resolve"]
    assert {one["dedup_key"] for one in sent} == {"chan.aa11-1-1"}
    assert {one["routing_key"] for one in sent} == {"S3CRET"}
    assert (sent[0]["payload"]["severity"], len(sent[0]["payload"]["summary"])) == ("error", 1024)
    assert sent[0]["payload"]["source"] == "10.0.0.9"
    assert sent[0]["links"][0]["href"] == "https://logs.example.org/alerts/aa11-1"
    assert "payload" not in sent[1]


def test_a_real_alertmanager_takes_alerts_and_tells_when_they_are_over(service_directory: Path) -> None:
    """It knows an alert again by its labels, and tells its own receivers that it fires once, and once that it ended."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 60))
    alert = told(created=now)
    with receiving() as receiver:
        real = Alertmanager(service_directory / "alertmanager", webhook=f"{receiver.url}/told")
        real.start()
        try:
            channel = sender("alertmanager", url=real.url, labels={"team": "soc"})
            channel.send(notice(alert))
            until(lambda: receiver.requests)
            channel.send(notice(replace(alert, count=13)))
            (active,) = real.alerts()
            channel.send(notice(replace(alert, standing=Standing.QUIET), state=State.RESOLVED, number=2))
            until(lambda: len(receiver.requests) > 1)
            left = real.alerts()
        finally:
            real.stop()
        heard = [one.json["status"] for one in receiver.requests]

    assert active["labels"] == {
        "alertname": "ssh_brute_force",
        "severity": "high",
        "category": "authentication",
        "alert_id": "aa11-1",
        "group_details_ip": "10.0.0.9",
        "team": "soc",
    }
    assert active["annotations"]["description"].startswith("13 events")
    assert active["generatorURL"] == "https://logs.example.org/alerts/aa11-1"
    assert left == []
    assert heard == ["firing", "resolved"]


# --- mail ---------------------------------------------------------------------------------------------------------
class Mailbox:
    """Takes mail, for everybody but those whom it knows no more."""

    def __init__(self) -> None:
        self.mails: list[tuple[list[str], Message]] = []
        self.answer = "250 OK"

    async def handle_RCPT(self, server: SMTP, session: Any, envelope: Any, address: str, options: Any) -> str:
        if address.startswith("gone"):
            return "550 5.1.1 no such user"
        if address.startswith("busy"):
            return "450 4.2.1 try later"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Any, envelope: Any) -> str:
        if self.answer == "250 OK":
            self.mails.append((envelope.rcpt_tos, message_from_bytes(envelope.content)))
        return self.answer


@pytest.fixture
def mailbox() -> Mailbox:
    return Mailbox()


def served(mailbox: Mailbox, **options: Any) -> Controller:
    (port,) = choose_ports(1)
    controller = Controller(mailbox, hostname="127.0.0.1", port=port, **options)
    controller.start()
    return controller


@pytest.fixture
def plain(mailbox: Mailbox) -> Iterator[dict[str, Any]]:
    """A server without encryption; the settings for it."""
    controller = served(mailbox)
    yield {
        "host": "127.0.0.1",
        "port": controller.port,
        "security": "none",
        "sender_address": "logweir@example.org",
        "to": ["ops@example.org"],
    }
    controller.stop()


def test_mails_of_one_alert_are_a_thread(plain: dict[str, Any], mailbox: Mailbox) -> None:
    """Each has an id that stays the same when it is sent again; later ones name the first."""
    mail = sender("smtp", **{**plain, "to": ["ops@example.org", "soc@example.org"]})
    first = notice(told(summary="Fehler: größer ☃"))
    remembered = mail.send(first)
    mail.send(first)
    mail.send(notice(state=State.RESOLVED, number=2, remembered=remembered))
    (to, one), (_, again), (_, two) = mailbox.mails

    assert to == ["ops@example.org", "soc@example.org"]
    assert one["Message-ID"] == again["Message-ID"] == "<chan.aa11-1-1-1-firing@example.org>"
    assert (two["In-Reply-To"], two["References"]) == (one["Message-ID"], one["Message-ID"])
    assert two["Message-ID"] != one["Message-ID"]
    assert one["Auto-Submitted"] == "auto-generated"
    assert "=?utf-8?" in one["Subject"]
    assert "größer ☃" in one.get_payload(decode=True).decode()  # type: ignore[union-attr]
    assert "https://logs.example.org/alerts/aa11-1" in one.get_payload(decode=True).decode()  # type: ignore[union-attr]


def test_nothing_in_an_event_becomes_a_header(plain: dict[str, Any], mailbox: Mailbox) -> None:
    """Neither a line's end of any kind, nor a dot on a line of its own, nor a line that is too long."""
    evil = "x\r\nBcc: evil@example.org\r\n\r\nbody\n.\nQUIT\x0b\x0c\x1c\x85\u2028Cc: z" + "y" * 5000
    sender("smtp", **plain).send(notice(told(summary=evil, group={"a\r\nb": "c\nBcc: d"})))
    ((to, one),) = mailbox.mails

    assert to == ["ops@example.org"]
    assert set(one.keys()) <= {
        "Subject",
        "From",
        "To",
        "Date",
        "Message-ID",
        "Auto-Submitted",
        "Content-Type",
        "Content-Transfer-Encoding",
        "MIME-Version",
        "X-Peer",
        "X-MailFrom",
        "X-RcptTo",
    }
    assert "QUIT" in one.get_payload(decode=True).decode()  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("to", "answer", "raised"),
    [
        (["gone@example.org"], "250 OK", NoticeRefused),
        (["busy@example.org"], "250 OK", SendFailed),
        (["gone@example.org", "busy@example.org"], "250 OK", SendFailed),
        (["ops@example.org", "gone@example.org"], "250 OK", NoticeRefused),
        (["ops@example.org"], "451 4.3.0 later", SendFailed),
        (["ops@example.org"], "554 5.7.1 spam", NoticeRefused),
    ],
)
def test_a_servers_refusals_say_whether_it_is_tried_again(
    plain: dict[str, Any], mailbox: Mailbox, to: list[str], answer: str, raised: type[Exception]
) -> None:
    mailbox.answer = answer
    with pytest.raises(raised):
        sender("smtp", **{**plain, "to": to}).send(notice())


def test_encryption_and_login_are_demanded(
    mailbox: Mailbox, certificate: Path, context: ssl.SSLContext, plain: dict[str, Any]
) -> None:
    """With the server's certificate checked; a server without starttls, or with another's password, gets no mail."""

    def authenticated(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        return AuthResult(success=(data.login, data.password) == (b"anna", b"S3CRET"), handled=False)

    controller = served(
        mailbox, tls_context=context, require_starttls=True, auth_required=True, authenticator=authenticated
    )
    try:
        secured = {**plain, "port": controller.port, "security": "starttls", "username": "anna", "password": "S3CRET"}
        sender("smtp", **secured, ca_file=certificate).send(notice())
        with pytest.raises(SendFailed, match="CERTIFICATE_VERIFY_FAILED"):
            sender("smtp", **secured).send(notice())
        with pytest.raises(SendFailed, match="535"):
            sender("smtp", **{**secured, "password": "other"}, ca_file=certificate).send(notice())
    finally:
        controller.stop()
    with pytest.raises(SendFailed, match="STARTTLS"):
        sender("smtp", **{**plain, "security": "starttls"}).send(notice())

    assert len(mailbox.mails) == 1


def test_a_mail_server_that_hangs_is_given_up(plain: dict[str, Any]) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(SendFailed):
        port = silent.getsockname()[1]
        sender("smtp", **{**plain, "port": port, "timeout_s": 0.2}).send(notice())


# --- apprise ------------------------------------------------------------------------------------------------------
def test_apprise_delivers_to_what_it_knows() -> None:
    """By its own JSON service, which posts to a URL; what fails is tried again."""
    status = 200

    def answer(request: Request, number: int) -> Answer:
        return Answer(status)

    with receiving(answer) as receiver:
        address = receiver.url.removeprefix("http://")
        channel = sender("apprise", urls=[f"json://{address}/in"])
        channel.send(notice())
        status = 500
        with pytest.raises(SendFailed, match="could not deliver"):
            channel.send(notice())
        first = receiver.requests[0].json

    assert first["title"] == "[high] 12 failed logins of aa11-1"
    assert "https://logs.example.org/alerts/aa11-1" in first["message"]
    with pytest.raises(ValueError, match="no URL that apprise knows"):
        sender("apprise", urls=["nonsense"])


# --- what is said -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("made", "title"),
    [
        (notice(), "[high] 12 failed logins of aa11-1"),
        (notice(is_repeat=True), "[still high] 12 failed logins of aa11-1"),
        (notice(state=State.RESOLVED), "[resolved] 12 failed logins of aa11-1"),
        (notice(told("a-1", severity="low"), told("b-1")), "[high] 2 alerts: 12 failed logins of a-1"),
        (notice(*[told()] * 30, is_digest=True), "[high] 30 alerts at once, among them: 12 failed logins of aa11-1"),
        (notice(is_test=True), "TEST [high] 12 failed logins of aa11-1"),
    ],
)
def test_a_notices_title_says_what_it_is(made: Notice, title: str) -> None:
    assert made.title == title
    assert made.lines[0] == title


def test_a_notice_of_many_alerts_names_some_and_counts_the_others() -> None:
    """With times that have their zone."""
    lines = notice(*[told(f"a-{number}") for number in range(30)]).lines

    assert lines[-1] == "and 10 more alerts"
    assert "12 events from 2026-01-31T12:00:00Z to 2026-01-31T12:00:00Z, complete" in lines
