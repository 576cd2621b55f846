"""The door as a command reaches it: where it is, and whether it is to be trusted."""

from __future__ import annotations

import ssl
from pathlib import Path

import urllib3

from logweir.commands.output import reachable
from logweir.config import Settings
from logweir.errors import DOOR_UNTRUSTED, FILE_UNREADABLE, LogweirError


def door_url(settings: Settings) -> str:
    """Where the door of these settings is reached from this machine: scheme, host and port."""
    scheme = "https" if settings.ingest.tls_cert_file else "http"
    return f"{scheme}://{reachable(settings.ingest.address)}:{settings.ingest.port}"


def trusted(ca_file: Path | None) -> ssl.SSLContext:
    """Whose certificates are: those that authorities in the file have signed, else the system's. FILE_UNREADABLE."""
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        reason = "it holds no certificate in PEM" if isinstance(error, ssl.SSLError) else error.strerror
        raise LogweirError(FILE_UNREADABLE, path=ca_file, reason=reason) from error


def check_trust(url: str, error: urllib3.exceptions.HTTPError) -> None:
    """Raises LogweirError(DOOR_UNTRUSTED) when the error is that the door's certificate is not believed."""
    refused = error.args[0] if isinstance(error, urllib3.exceptions.SSLError) and error.args else None
    if isinstance(refused, ssl.SSLCertVerificationError):
        raise LogweirError(DOOR_UNTRUSTED, url=url, reason=refused.verify_message.rstrip(".")) from error
