"""Receipts: signed tokens that say which numbers a batch got. Encode and decode stand side by side.

A token is base64url of: version (1 byte), ingest epoch (16), partition (4), first number (8), count (4), window (4),
and 16 bytes of BLAKE2b of all that, keyed with the installation's secret (a keyed hash by design, and a quarter of the
cost of HMAC-SHA256 at each answer). It can be read by everybody and made by nobody else.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import struct
from dataclasses import dataclass
from pathlib import Path

from logweir.errors import RECEIPT_BAD, LogweirError
from logweir.process.files import secret_in, shared_secret

VERSION = 1
_FIELDS = struct.Struct(">B16sIQII")
_SIGNATURE_SIZE_BYTES = 16
_SECRET_SIZE_BYTES = 32
_NAME = "receipt.secret"


@dataclass(frozen=True, slots=True)
class Receipt:
    """The numbers ``first`` to ``first + count - 1`` of (ingest epoch, partition), given out in ``window``."""

    ingest_epoch: bytes
    partition: int
    first: int
    count: int
    window: int

    @property
    def last(self) -> int:
        return self.first + self.count - 1


def encode(secret: bytes, *, ingest_epoch: bytes, partition: int, first: int, count: int, window: int) -> bytes:
    """The token of a receipt: 71 letters that need no escaping in a URL."""
    fields = _FIELDS.pack(VERSION, ingest_epoch, partition, first, count, window)
    return base64.urlsafe_b64encode(fields + _signature(fields, secret)).rstrip(b"=")


def decode(token: str, secret: bytes) -> Receipt:
    """The receipt of a token. Raises LogweirError(RECEIPT_BAD) for any that this installation did not make."""
    try:
        data = base64.b64decode(token.encode() + b"=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error) as error:
        raise LogweirError(RECEIPT_BAD) from error
    fields, signature = data[: _FIELDS.size], data[_FIELDS.size :]
    if not hmac.compare_digest(_signature(fields, secret), signature) or fields[0] != VERSION:
        raise LogweirError(RECEIPT_BAD)
    # The last letter has bits that no byte needs: of the tokens that differ in them only one is ours.
    if base64.urlsafe_b64encode(data).rstrip(b"=") != token.encode():
        raise LogweirError(RECEIPT_BAD)
    return Receipt(*_FIELDS.unpack(fields)[1:])


def _signature(fields: bytes, secret: bytes) -> bytes:
    return hashlib.blake2b(fields, digest_size=_SIGNATURE_SIZE_BYTES, key=secret).digest()


def secret_of(folder: Path) -> bytes:
    """The installation's secret, made at first use; processes that make it at the same moment agree on one.

    Raises OSError when the folder cannot be read or written.
    """
    return shared_secret(folder / _NAME, _SECRET_SIZE_BYTES)


def secret_if_any(folder: Path) -> bytes | None:
    """The installation's secret where it can be read; None elsewhere: what is not a door needs none."""
    try:
        return secret_in(folder / _NAME, _SECRET_SIZE_BYTES)
    except OSError:
        return None
