"""The door over TLS, with real handshakes: which pairs it serves, how it follows them, and who cannot hold it up."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from logweir.cli import main
from logweir.http.authority import Authority
from logweir.http.tls import Pair, load
from tests.ingest.helpers import SOURCES, Door, SecureDoor, is_ready, running
from tests.waiting import until

DAY = datetime.timedelta(days=1)
EXPIRES = "logweir_ingest_tls_certificate_expires_seconds"
FAILED = 'logweir_ingest_tls_handshakes_failed_total{reason="%s"}'


def make_pair(folder: Path, name: str = "door", *, days: int = 90, age: int = 0, password: bytes = b"") -> Pair:
    """A self-signed certificate for localhost and 127.0.0.1, and its key, ``age`` days old."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    since = datetime.datetime.now(datetime.UTC) - age * DAY
    names: list[x509.GeneralName] = [x509.DNSName("localhost")]
    names.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(since)
        .not_valid_after(since + days * DAY)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    kept = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    pair = Pair(folder / f"{name}.crt", folder / f"{name}.key")
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    pair.certificate.write_bytes(certificate.public_bytes(pem))
    pair.key.write_bytes(key.private_bytes(pem, pkcs8, kept))
    return pair


def make_unreadable(folder: Path) -> Pair:
    """A pair on a curve that OpenSSL knows, and the library that we read certificates with does not."""
    pair = Pair(folder / "curve.crt", folder / "curve.key")
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime239v1", "-nodes", "-keyout", str(pair.key)]
    command = ["openssl", "req", "-x509", "-subj", "/CN=door", *key, "-out", str(pair.certificate)]
    subprocess.run(command, check=True, capture_output=True)
    return pair


def served_serial(port: int) -> int:
    """The number of the certificate that a new connection is shown."""
    pem = ssl.get_server_certificate(("127.0.0.1", port), timeout=10)
    return x509.load_pem_x509_certificate(pem.encode()).serial_number


def serial_of(path: Path) -> int:
    return x509.load_pem_x509_certificate(path.read_bytes()).serial_number


def curl(door: SecureDoor, *words: str) -> subprocess.CompletedProcess[str]:
    command = ["curl", "-sS", "--max-time", "10", "--cacert", str(door.authority.certificate), *words]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureDoor]:
    environment = {"LOGWEIR_INGEST_TLS_HANDSHAKE_TIMEOUT_S": "1", "LOGWEIR_INGEST_CONNECTIONS_MAX": "40"}
    with running(SecureDoor(tmp_path_factory.mktemp("secure"), environment=environment)) as door:
        until(lambda: is_ready(door))
        yield door


# --- which pairs --------------------------------------------------------------------------------------------------
def test_what_cannot_be_served_is_said_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 2 and one line with the file's name, whatever is wrong with the pair."""
    good, other = make_pair(tmp_path, "good"), make_pair(tmp_path, "other")
    encrypted = make_pair(tmp_path, "encrypted", password=b"secret")
    expired, coming = make_pair(tmp_path, "expired", age=91), make_pair(tmp_path, "coming", age=-2)
    (tmp_path / "text").write_text("no PEM")
    curve = make_unreadable(tmp_path)
    for certificate, key, said in (
        (tmp_path / "absent.pem", good.key, "absent.pem cannot be used for TLS: No such file"),
        (tmp_path, good.key, "cannot be used for TLS: Is a directory"),
        (tmp_path / "text", good.key, "text cannot be used for TLS: it holds no certificate in PEM"),
        (good.certificate, tmp_path / "text", "text cannot be used for TLS: it holds no private key in PEM"),
        (good.certificate, good.certificate, "good.crt cannot be used for TLS: it holds no private key in PEM"),
        (good.certificate, other.key, "other.key is not the one of the certificate in"),
        (curve.certificate, good.key, "curve.crt cannot be used for TLS: its certificate cannot be read: Curve"),
        (good.certificate, curve.key, "curve.key cannot be used for TLS: its private key cannot be read: Curve"),
        (encrypted.certificate, encrypted.key, "encrypted.key is encrypted"),
        (expired.certificate, expired.key, "expired.crt is good from"),
        (coming.certificate, coming.key, "coming.crt is good from"),
    ):
        flags = ["--data-dir", str(tmp_path / "data"), "--port", "0"]
        assert main(["ingest", *flags, "--tls-cert", str(certificate), "--tls-key", str(key)]) == 2
        assert said in capsys.readouterr().err
    assert main(["ingest", *flags, "--tls-key", str(good.key)]) == 2
    assert "name its certificate" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


def test_a_pair_may_be_in_one_file(tmp_path: Path) -> None:
    """Key and certificate in any order: then both change in one step."""
    pair = make_pair(tmp_path)
    parts = pair.certificate.read_text(), pair.key.read_text()
    for text in ("".join(parts), "".join(reversed(parts))):
        (tmp_path / "both.pem").write_text(text)

        assert load(Pair(tmp_path / "both.pem", tmp_path / "both.pem")).names == ("localhost", "127.0.0.1")


def test_senders_verify_the_door_and_old_versions_are_refused(door: SecureDoor) -> None:
    """curl is content with TLS 1.2 and 1.3; who wants less, or does not trust it, is counted."""
    refused = door.metric(FAILED % "refused")
    url = f"https://localhost:{door.port}/events"
    key = ["-H", f"X-Log-Key: {door.key}", "-d", '{"summary":"hello"}']
    answers = [curl(door, "--tls-max", version, *key, url) for version in ("1.2", "1.3")]
    unknown = subprocess.run(["curl", "-sS", *key, url], capture_output=True, text=True)
    old = subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{door.port}", "-tls1_1", "-cipher", "ALL@SECLEVEL=0"],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    plain = curl(door, f"http://localhost:{door.port}/healthz")

    assert [json.loads(answer.stdout)["accepted"] for answer in answers] == [1, 1]
    assert unknown.returncode == 60  # "peer certificate cannot be authenticated"
    assert old.returncode != 0 and plain.returncode != 0
    assert door.metric(FAILED % "refused") == refused + 3


# --- following them -----------------------------------------------------------------------------------------------
def test_a_changed_certificate_is_served_soon_and_breaks_no_connection(tmp_path: Path) -> None:
    """While new connections come and kept ones go on, without one error; the metric follows."""
    with running(SecureDoor(tmp_path)) as door:
        until(lambda: is_ready(door))
        file = door.authority.pair.certificate
        kept, ended, statuses = door.connection(), threading.Event(), []

        def ask() -> None:
            while not ended.is_set():
                statuses.append(door.request("GET", "/healthz").status)
                statuses.append(door.post(b"{}", connection=kept).status)

        asking = threading.Thread(target=ask)
        asking.start()
        expires_s = door.metric(f'{EXPIRES}{{file="{file}"}}')
        said = "has changed and is served from now on"
        for count, name in enumerate(("one.example", "two.example"), start=1):
            assert door.authority.prepare(name)
            until(lambda: served_serial(door.port) == serial_of(file))
            # It is the master that says so, and it looks by itself.
            until(lambda count=count: door.log.count(said) == count)
        ended.set()
        asking.join(10)
        workers = door.workers()

        assert set(statuses) == {200, 202} and len(statuses) > 20
        assert 396 * 86400 < expires_s < 398 * 86400
        assert door.workers() == workers


def test_a_broken_pair_leaves_the_one_before(tmp_path: Path) -> None:
    """Also for a process that replaces another; it is said once, and what is whole again is served."""
    pair = make_pair(tmp_path)
    flags = ["--tls-cert", str(pair.certificate), "--tls-key", str(pair.key)]
    with running(Door(tmp_path), *flags) as door:
        served = served_serial(door.port)
        make_pair(tmp_path, "next")
        (tmp_path / "next.crt").replace(pair.certificate)
        door.wait_for(r"door.key is not the one of the certificate in .*door.crt.* served on; it is good until")
        worker = door.worker()
        os.kill(worker, signal.SIGKILL)
        until(lambda: worker not in door.workers() and door.workers() and is_served(door))
        still = served_serial(door.port)
        assert door.process is not None
        door.process.send_signal(signal.SIGHUP)
        door.wait_for("Not reloaded, everything stays as it was: The private key in")
        (tmp_path / "next.key").replace(pair.key)
        until(lambda: served_serial(door.port) == serial_of(pair.certificate))

    assert served == still != serial_of(pair.certificate)
    assert door.log.count("served on; it is good until") == 1


def test_a_pair_that_cannot_be_read_ends_no_door(tmp_path: Path) -> None:
    """A renewal on a curve that nobody here knows is as any other that is broken."""
    pair, unreadable = make_pair(tmp_path), make_unreadable(tmp_path)
    both = tmp_path / "both.pem"
    both.write_bytes(pair.certificate.read_bytes() + pair.key.read_bytes())
    with running(Door(tmp_path), "--tls-cert", str(both)) as door:
        served = served_serial(door.port)
        workers = door.workers()
        (tmp_path / "next").write_bytes(unreadable.certificate.read_bytes() + unreadable.key.read_bytes())
        (tmp_path / "next").replace(both)
        door.wait_for(r"both.pem cannot be used for TLS: .* The certificate of before is served on")
        still = served_serial(door.port)
        make_pair(tmp_path)
        (tmp_path / "next").write_bytes(pair.certificate.read_bytes() + pair.key.read_bytes())
        (tmp_path / "next").replace(both)
        until(lambda: served_serial(door.port) == serial_of(both))

        assert served == still
        assert door.workers() == workers
        assert "Traceback" not in door.log


def is_served(door: Door) -> bool:
    try:
        return served_serial(door.port) != 0
    except OSError:
        return False


# --- who cannot hold it up ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("begin", [b"", b"\x16\x03\x01\x02\x00\x01\x00"])
def test_a_handshake_that_is_never_completed_is_cut_and_holds_up_nobody(door: SecureDoor, begin: bytes) -> None:
    """Whoever connects and says nothing, or half of a greeting, is gone after tls_handshake_timeout_s."""
    unfinished = door.metric(FAILED % "unfinished")
    silent = [socket.create_connection(("127.0.0.1", door.port), 10) for _ in range(20)]
    started_s = time.monotonic()
    for connection in silent:
        connection.sendall(begin)
    statuses = [door.request("GET", "/healthz").status for _ in range(5)]
    served_s = time.monotonic() - started_s
    for connection in silent:
        assert connection.recv(100) == b""
        connection.close()

    assert statuses == [200] * 5 and served_s < 1
    assert 0.8 < time.monotonic() - started_s < 20
    until(lambda: door.metric(FAILED % "unfinished") == unfinished + 20)


def test_handshakes_count_as_connections_do(door: SecureDoor) -> None:
    """Beyond connections_max they are cut at once; when they are gone there is room again."""
    crowded = door.metric(FAILED % "crowded")
    silent = [socket.create_connection(("127.0.0.1", door.port), 10) for _ in range(60)]
    started_s = time.monotonic()
    cut = 0
    for connection in silent[40:]:
        cut += connection.recv(100) == b""
    took_s = time.monotonic() - started_s
    for connection in silent:
        connection.close()

    assert cut == 20 and took_s < 0.8
    until(lambda: is_ready(door))
    assert door.metric(FAILED % "crowded") >= crowded + 20


def test_handshakes_of_one_address_or_of_many_end_nobody_elses(tmp_path: Path) -> None:
    """They count as connections without a key: the oldest makes room for the newest, and who has shown a key stays."""
    shares = {"MAX": "100", "WITHOUT_KEY_MAX": "60", "WITHOUT_KEY_PER_ADDRESS_MAX": "30"}
    environment = {f"LOGWEIR_INGEST_CONNECTIONS_{name}": most for name, most in shares.items()}
    with running(SecureDoor(tmp_path, environment=environment)) as door, contextlib.ExitStack() as stack:
        until(lambda: is_ready(door))
        kept = stack.enter_context(contextlib.closing(door.connection()))
        assert door.post(b"{}", connection=kept).status == 202
        for number in range(400):
            address = "127.0.0.1" if number < 200 else f"127.0.0.{number % 100 + 2}"
            silent = socket.create_connection(("127.0.0.1", door.port), 10, (address, 0))
            stack.enter_context(silent).sendall((b"", b"\x16\x03\x01\x02\x00\x01\x00")[number % 2])
            if number % 50 == 49:
                assert door.request("GET", "/healthz").status == 200
                assert [door.post(b"{}", connection=one).status for one in (None, kept)] == [202, 202]
        ended = door.metric('logweir_ingest_rejected_requests_total{reason="connections_without_key_too_many"}')

        assert ended >= 400 - 60
        assert door.metric(FAILED % "crowded") == ended


# --- for trying it out --------------------------------------------------------------------------------------------
def test_an_authority_keeps_what_is_good_and_makes_what_is_not(tmp_path: Path) -> None:
    """A second start changes nothing; a new name, an old certificate or a lost key does, and the authority stays."""
    authority = Authority(tmp_path / "tls")
    assert authority.prepare("192.0.2.7")
    first, trusted = authority.pair.certificate.read_bytes(), authority.certificate.read_bytes()
    assert not authority.prepare("192.0.2.7", "no name at all")
    assert authority.prepare("door.example")
    assert authority.pair.certificate.read_bytes() != first
    old = make_pair(tmp_path, days=100, age=90)
    authority.pair.certificate.write_bytes(old.certificate.read_bytes() + old.key.read_bytes())
    assert authority.prepare("door.example")
    verify = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname", "door.example"]
    verified = subprocess.run(
        [*verify, "-CAfile", str(authority.certificate), str(authority.pair.certificate)],
        capture_output=True,
        text=True,
    )

    assert verified.returncode == 0, verified.stderr
    assert authority.certificate.read_bytes() == trusted
    assert {"localhost", "127.0.0.1", "::1", socket.gethostname(), "door.example"} <= set(load(authority.pair).names)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "tls").iterdir()} == {0o600}
    (tmp_path / "tls/ca.key").unlink()
    assert authority.prepare()
    assert authority.certificate.read_bytes() != trusted


@pytest.mark.parametrize(
    ("days", "age", "mode", "state", "said"),
    [
        (90, 0, 0o600, "ok", "for localhost, 127.0.0.1, good for 89 more days"),
        (90, 80, 0o600, "warning", "Renew it"),
        (7, 1, 0o600, "ok", "good for 5 more days"),
        (90, 0, 0o644, "warning", "every user can read"),
        (90, 91, 0o600, "fault", "is good from"),
    ],
)
def test_doctor_says_when_a_certificate_is_due(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], days: int, age: int, mode: int, state: str, said: str
) -> None:
    """A month before it expires, or with a fifth of a shorter life left."""
    pair = make_pair(tmp_path, days=days, age=age)
    pair.key.chmod(mode)
    config = tmp_path / "logweir.toml"
    config.write_text(f"[ingest]\ntls_cert_file = '{pair.certificate}'\ntls_key_file = '{pair.key}'\n")
    main(["doctor", "--json", "--data-dir", str(tmp_path / "data"), "--config", str(config)])
    findings = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    (found,) = [one for one in findings if one["what"] == "certificate"]

    assert found["state"] == state
    assert said in found["found"] + found["advice"]


def test_send_trusts_whom_it_is_told_to(door: SecureDoor, tmp_path: Path) -> None:
    """Without --ca-file it says at once what is missing, instead of trying for a minute."""
    (tmp_path / "events").write_text('{"summary":"sent"}\n')
    words = ["send", "--key", door.key, "--url", f"https://127.0.0.1:{door.port}/events", str(tmp_path / "events")]
    trusting = logweir(*words, "--ca-file", str(door.authority.certificate))
    started_s = time.monotonic()
    doubting = logweir(*words)
    wrong = logweir(*words, "--ca-file", str(tmp_path / "events"))

    assert (trusting.returncode, "1 event accepted" in trusting.stderr) == (0, True)
    assert doubting.returncode == 2 and re.search("not to be trusted: .*--ca-file", doubting.stderr)
    assert wrong.returncode == 2 and "it holds no certificate in PEM" in wrong.stderr
    assert time.monotonic() - started_s < 50


def logweir(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "logweir.cli", *words],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": SOURCES},
    )
