"""Where a request really came from, when trusted proxies stand in between."""

from __future__ import annotations

import ipaddress
from functools import lru_cache

from logweir.errors import SETTING_BAD, LogweirError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# RFC 4291 section 2.5.5.2: how a socket that listens for both versions shows an IPv4 address.
_IPV4_MAPPED = "::ffff:"


class SourceAddress:
    """Believes X-Forwarded-For as far as trusted proxies wrote it.

    Raises LogweirError(SETTING_BAD) for networks that are none.
    """

    def __init__(self, trusted_proxies: tuple[str, ...]) -> None:
        try:
            self._trusted = tuple(ipaddress.ip_network(network, strict=False) for network in trusted_proxies if network)
        except ValueError as error:
            raise LogweirError(
                SETTING_BAD,
                where="The configuration",
                name="ingest.trusted_proxies",
                value=",".join(trusted_proxies),
                reason=error,
            ) from error
        self._is_trusted = lru_cache(maxsize=1024)(self._is_trusted_uncached)

    def of(self, peer: str, forwarded_for: bytes | None) -> str:
        """The nearest address that no trusted proxy has: the peer's, or one from X-Forwarded-For, right to left.

        An IPv4 address that is written as one of IPv6 is given as what it is.
        """
        peer = peer.removeprefix(_IPV4_MAPPED)
        if not self._trusted or not forwarded_for or not self._is_trusted(peer):
            return peer
        source = peer
        for part in reversed(forwarded_for.decode("latin-1").split(",")):
            address = _address_of(part.strip())
            if address is None:
                break
            source = str(address)
            if not self._is_trusted(source):
                break
        return source

    def _is_trusted_uncached(self, peer: str) -> bool:
        address = _address_of(peer)
        return address is not None and any(address in network for network in self._trusted)


def _address_of(text: str) -> Address | None:
    """The address in ``1.2.3.4``, ``1.2.3.4:567``, ``::1``, ``[::1]`` or ``[::1]:567``."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
