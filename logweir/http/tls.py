"""The certificate that a server of ours shows: checked before it is served, and followed when its files change."""

from __future__ import annotations

import logging
import ssl
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from logweir.config import IngestSettings
from logweir.errors import (
    SETTING_BAD,
    TLS_CERTIFICATE_NOT_VALID,
    TLS_FILE_BAD,
    TLS_KEY_ENCRYPTED,
    TLS_KEY_MISMATCHED,
    LogweirError,
)
from logweir.process.files import fingerprint_of

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pair:
    """Where a certificate and its key are. Both may be in one file, which can be replaced in one step."""

    certificate: Path
    key: Path

    @classmethod
    def of(cls, settings: IngestSettings) -> Pair:
        """The one that ingest is to serve. Raises LogweirError(SETTING_BAD) when no certificate is named."""
        certificate, key = settings.tls_cert_file, settings.tls_key_file
        if certificate is None:
            reason = "a key alone is of no use: name its certificate, ingest.tls_cert_file"
            raise LogweirError(
                SETTING_BAD, where="The configuration", name="ingest.tls_key_file", value=key, reason=reason
            )
        return cls(certificate, key or certificate)

    def fingerprint(self) -> tuple[tuple[int, int, int] | None, ...]:
        """What differs after a change of either file, or of who may read it."""
        return tuple(fingerprint_of(path) for path in (self.certificate, self.key))


@dataclass(frozen=True, slots=True)
class Loaded:
    """A pair that can be served. ``names``: the host names and addresses that the certificate is for."""

    context: ssl.SSLContext
    since: datetime
    expires: datetime
    names: tuple[str, ...]

    @property
    def is_due(self) -> bool:
        """Whether it should be renewed by now: a month before it expires, or with a fifth of a shorter life left."""
        return self.expires - datetime.now(UTC) < min(timedelta(days=30), (self.expires - self.since) / 5)


def load(pair: Pair) -> Loaded:
    """Read and check the pair.

    Raises LogweirError: TLS_FILE_BAD, TLS_KEY_ENCRYPTED, TLS_KEY_MISMATCHED, TLS_CERTIFICATE_NOT_VALID.
    """
    certificate = _certificate_in(pair.certificate)
    if _public_key_in(pair.key) != certificate.public_key:
        raise LogweirError(TLS_KEY_MISMATCHED, path=pair.certificate, key_path=pair.key)
    since, until, now = certificate.since, certificate.until, datetime.now(UTC)
    if not since <= now < until:
        raise LogweirError(
            TLS_CERTIFICATE_NOT_VALID, path=pair.certificate, since=_shown(since), until=_shown(until), now=_shown(now)
        )
    return Loaded(_context_of(pair), since, until, certificate.names)


class _Certificate(NamedTuple):
    """All that is read of one."""

    public_key: object
    since: datetime
    until: datetime
    names: tuple[str, ...]


def _certificate_in(path: Path) -> _Certificate:
    """The first one: the server's own."""
    content = _bytes_of(path)
    try:
        one = x509.load_pem_x509_certificates(content)[0]
        return _Certificate(one.public_key(), one.not_valid_before_utc, one.not_valid_after_utc, _names_of(one))
    except ValueError as error:
        raise LogweirError(TLS_FILE_BAD, path=path, reason="it holds no certificate in PEM") from error
    except Exception as error:  # Unknown curves and algorithms are no ValueError, nor of one class.
        raise LogweirError(TLS_FILE_BAD, path=path, reason=f"its certificate cannot be read: {error}") from error


def _public_key_in(path: Path) -> object:
    """The one that belongs to the private key there."""
    content = _bytes_of(path)
    try:
        return serialization.load_pem_private_key(content, None).public_key()
    except TypeError as error:
        raise LogweirError(TLS_KEY_ENCRYPTED, path=path) from error
    except ValueError as error:
        raise LogweirError(TLS_FILE_BAD, path=path, reason="it holds no private key in PEM") from error
    except Exception as error:  # As above.
        raise LogweirError(TLS_FILE_BAD, path=path, reason=f"its private key cannot be read: {error}") from error


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise LogweirError(TLS_FILE_BAD, path=path, reason=error.strerror or error) from error


def _context_of(pair: Pair) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # Without a password of its own, OpenSSL would ask for one on the terminal.
        context.load_cert_chain(pair.certificate, pair.key, password=lambda: "")
    except OSError as error:  # ssl.SSLError, too
        reason = getattr(error, "reason", None) or error.strerror or error
        raise LogweirError(TLS_FILE_BAD, path=pair.certificate, reason=f"OpenSSL does not take it: {reason}") from error
    return context


def _names_of(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    addresses = names.get_values_for_type(x509.IPAddress)
    return (*names.get_values_for_type(x509.DNSName), *(str(address) for address in addresses))


def _shown(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")


class ServedCertificate:
    """What a server's TLS connections are made with: always the newest good pair of the files.

    ``context`` is given to the server once. At each handshake it passes the connection on to the pair that is current
    then, so that a change needs no new socket, and disturbs no connection that stands.
    """

    def __init__(self, pair: Pair) -> None:
        """Raises LogweirError as ``load``."""
        self.pair = pair
        # The fingerprint first: a change between the two is seen at the next look.
        self._fingerprint = pair.fingerprint()
        self._current = load(pair)
        self._bad_looks = 0
        self.context = _context_of(pair)
        self.context.sni_callback = self._pass_on

    def _pass_on(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        # OpenSSL asks for every handshake, also when the client names no server.
        connection.context = self._current.context

    @property
    def names(self) -> tuple[str, ...]:
        return self._current.names

    def expires_s(self) -> float:
        """Seconds until the current certificate expires; negative once it has."""
        return self._current.expires.timestamp() - time.time()

    def refresh(self, *, says: bool = True) -> None:
        """Take a changed pair; a broken one leaves the present one. ``says``: log it. Call about once a second."""
        fingerprint = self.pair.fingerprint()
        if fingerprint != self._fingerprint:
            self._fingerprint, self._bad_looks = fingerprint, 0
        elif not self._bad_looks:
            return
        try:
            self._current = load(self.pair)
        except LogweirError as error:
            # Two files cannot be changed in one step: only what is broken at the next look, too, is worth a word.
            self._bad_looks += 1
            if says and self._bad_looks == 2:
                log.error("%s The certificate of before is served on; it is good until %s.", error, self._until())
            return
        self._bad_looks = 0
        if says:
            log.info(
                "%s has changed and is served from now on; it is good until %s.", self.pair.certificate, self._until()
            )

    def _until(self) -> str:
        return _shown(self._current.expires)


def pinned(certificate: Path) -> ssl.SSLContext:
    """For a client on this machine: trust exactly the certificate in the file, whatever name it is reached by."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(certificate)
    return context
