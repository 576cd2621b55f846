"""A certificate authority of this machine's own, for trying TLS out: what `logweir up --tls` serves.

``ca.crt`` is what senders are told to trust. It stays when the certificate that is served is made anew, so its key is
kept: whoever has that can pass for any server with those who trust it. ``server.pem`` is the served certificate with
its key, in one file, which changes in one step. All of them are for their owner alone.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from logweir.errors import FILE_UNREADABLE, LogweirError
from logweir.http.tls import Loaded, Pair, load
from logweir.process.files import make_folder, write_whole

_CA_LIFE = timedelta(days=3650)
# Some programs take no certificate that lives longer than 398 days.
_LIFE = timedelta(days=397)
# A clock that is a little behind must not see a certificate from the future.
_BACKDATED = timedelta(hours=1)
_NAME = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*", re.IGNORECASE
)


class Authority:
    """What is in the folder. Raises LogweirError(FILE_UNREADABLE) when it cannot be read or written."""

    def __init__(self, folder: Path) -> None:
        self.certificate = folder / "ca.crt"
        self._key = folder / "ca.key"
        self._folder = folder
        self.pair = Pair(folder / "server.pem", folder / "server.pem")

    def prepare(self, *names: str) -> bool:
        """Have a certificate for this machine and for ``names`` that need not be renewed yet.

        True when one was made: there was none, it was due, or it lacked a name. So is the authority when it is absent,
        broken, or would not outlive what it signs.
        """
        wanted = _names(names)
        try:
            make_folder(self._folder)
            signed_by = self._kept()
            if signed_by is not None and self._serves(wanted):
                return False
            self._write(wanted, *(signed_by or self._made()))
        except OSError as error:
            raise LogweirError(FILE_UNREADABLE, path=self._folder, reason=error.strerror or error) from error
        return True

    def _serves(self, wanted: list[str]) -> bool:
        try:
            served: Loaded = load(self.pair)
        except LogweirError:
            return False
        return not served.is_due and set(wanted) <= set(served.names)

    def _kept(self) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None:
        try:
            own = load(Pair(self.certificate, self._key))
            certificate = x509.load_pem_x509_certificate(self.certificate.read_bytes())
            key = serialization.load_pem_private_key(self._key.read_bytes(), None)
        except LogweirError:
            return None
        is_fresh = own.expires - datetime.now(UTC) > _LIFE
        return (certificate, key) if is_fresh and isinstance(key, ec.EllipticCurvePrivateKey) else None

    def _made(self) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        key = ec.generate_private_key(ec.SECP256R1())
        name = _called(f"logweir on {socket.gethostname()}"[:64])
        usage = _usage(key_cert_sign=True, crl_sign=True)
        certificate = (
            _begun(name, name, key, _CA_LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .sign(key, hashes.SHA256())
        )
        write_whole(self._key, _pem_of_key(key))
        write_whole(self.certificate, _pem(certificate))
        return certificate, key

    def _write(self, names: list[str], authority: x509.Certificate, authority_key: ec.EllipticCurvePrivateKey) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
        certificate = (
            _begun(_called("logweir"), authority.subject, key, _LIFE)
            .add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(issuer, critical=False)
            .sign(authority_key, hashes.SHA256())
        )
        write_whole(self.pair.certificate, _pem(certificate) + _pem_of_key(key))


def _names(others: tuple[str, ...]) -> list[str]:
    """Of this machine as senders on it and beside it call it; what can be no name in a certificate is left out."""
    names = ["localhost", "127.0.0.1", "::1", socket.gethostname(), *others]
    addresses = [_address(name) for name in names]
    known = [
        str(address) if address else name
        for name, address in zip(names, addresses, strict=True)
        if address or _NAME.fullmatch(name)
    ]
    return list(dict.fromkeys(known))


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name.partition("%")[0])  # fe80::1%eth0 is fe80::1, here on eth0
    except ValueError:
        return None


def _general(name: str) -> x509.GeneralName:
    address = _address(name)
    return x509.IPAddress(address) if address else x509.DNSName(name)


def _called(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _begun(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, life: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _pem_of_key(key: ec.EllipticCurvePrivateKey) -> str:
    plain = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain).decode()
