"""Who is let in: the key of a request, looked up among the hashed keys of a file that may change at any time."""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
import logging
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from logweir.clock import Clock, iso_seconds, now_us
from logweir.config import Settings
from logweir.errors import KEY_MISSING, KEY_REFUSED, KEY_UNKNOWN, KEYS_UNREADABLE, LogweirError
from logweir.keys.file import Key, digest_of, read_keys
from logweir.keys.terms import NO_TERMS
from logweir.keys.usage import note_usage
from logweir.process.files import fingerprint_of
from logweir_ingest.access.categories import check_categories, folded
from logweir_ingest.access.quota import BARE_SIZE_BYTES, BYTES, EVENTS, Charge, FailedAttempts, Quota, Quotas
from logweir_ingest.access.refused_keys import RefusedKeys

log = logging.getLogger(__name__)

EXPIRED, WRONG_NETWORK = "key_expired", "key_wrong_network"
"""As what KEY_REFUSED counts in the metrics."""

_CHECK_EVERY_S = 0.5
_RESTLESS_S_MAX = 1.0
_NOTE_EVERY_S = 5.0
_SAY_EVERY_S = 60.0
_BEARER, _BASIC = b"bearer ", b"basic "


class KeyRefused(LogweirError):
    """KEY_REFUSED, for one of the reasons above, of which the answer says nothing."""

    def __init__(self, reason: str) -> None:
        super().__init__(KEY_REFUSED)
        self._reason = reason

    @property
    def reason(self) -> str:
        return self._reason


class Authenticator:
    """Finds out whose a request is, by its key."""

    def __init__(
        self, keys: Keys, headers: tuple[str, ...], *, failed: FailedAttempts, refused_keys: RefusedKeys
    ) -> None:
        self._keys = keys
        self._refused_keys = refused_keys
        self._headers = tuple(header.lower().encode() for header in headers)
        self._failed = failed
        self._said = _Said()

    @classmethod
    def of(cls, settings: Settings) -> Authenticator:
        """Over the settings' keys file, with the limits of one of their processes."""
        ingest = settings.ingest
        failed = FailedAttempts(
            per_minute_max=ingest.failed_attempts_per_minute_max,
            addresses_max=ingest.failed_addresses_max,
            processes=ingest.processes,
        )
        keys = Keys(settings.keys_path, processes=ingest.processes)
        return cls(keys, ingest.key_headers, failed=failed, refused_keys=RefusedKeys(settings))

    def start(self) -> None:
        """Follow changes of the keys file, and which keys are refused, from now on, each on a thread of its own."""
        self._keys.start()
        self._refused_keys.start()

    def stop(self) -> None:
        self._refused_keys.stop()
        self._keys.stop()

    def unready(self) -> str | None:
        """Why nobody is let in, or None."""
        if not self._keys.is_readable:
            return "the keys cannot be read"
        return None if self._keys.has_live else "there is no live key; `logweir keys add NAME` makes one"

    def authenticate(self, key: bytes | None, headers: Mapping[bytes, bytes], source_address: str) -> Known:
        """The key of a request that comes from there.

        None: it is in ingest.key_headers, in Authorization: Bearer, or the password in Authorization: Basic.

        Raises LogweirError: KEY_MISSING, KEY_UNKNOWN, KEY_REFUSED, or FAILED_ATTEMPTS_EXCEEDED in place of these;
        QUOTA_EXCEEDED, LETTERS_OF_KEY_FULL; KEYS_UNREADABLE while nobody can be told from a stranger.
        """
        key = self._key_in(headers) if key is None else key
        known = self._keys.find(key) if key else None
        if known is None:
            if not self._keys.is_readable:
                raise LogweirError(KEYS_UNREADABLE)
            raise self._failure(source_address, LogweirError(KEY_UNKNOWN if key else KEY_MISSING))
        if known.policy is not None:
            try:
                known.policy.check(source_address)
            except KeyRefused as error:
                raise self._failure(source_address, error) from None
        self._refused_keys.check(known.name)
        known.is_used = True
        return known

    def _failure(self, source_address: str, error: LogweirError) -> LogweirError:
        # Who has a good key never comes here: a stranger behind the same address cannot shut it out.
        try:
            self._failed.count(source_address)
        except LogweirError as exceeded:
            if self._said.is_due("failed"):
                about = {"source_address": source_address}
                log.warning("%s: %s (Said once a minute.)", source_address, exceeded, extra=about)
            return exceeded
        return error

    def _key_in(self, headers: Mapping[bytes, bytes]) -> bytes:
        for header in self._headers:
            value = headers.get(header)
            if value:
                return value.strip()
        authorization = headers.get(b"authorization", b"")
        if authorization[: len(_BEARER)].lower() == _BEARER:
            return authorization[len(_BEARER) :].strip()
        # Of programs that have a place for an address and none for a header: https://any:KEY@door/events.
        return secret_in(authorization, _BASIC) or b""


def secret_in(authorization: bytes, scheme: bytes) -> bytes | None:
    """What stands behind the colon in that scheme's base64; None where there is none. ``scheme``: as ``b"basic "``."""
    if authorization[: len(scheme)].lower() != scheme:
        return None
    try:
        _, colon, secret = base64.b64decode(authorization[len(scheme) :].strip(), validate=True).partition(b":")
    except binascii.Error:
        return None
    return secret if colon else None


class Known:
    """A key that is not revoked. ``policy`` is None for one that is good always, everywhere and for everything."""

    __slots__ = ("digest", "id", "is_used", "name", "policy")

    def __init__(self, key: Key, policy: KeyPolicy | None) -> None:
        self.digest = key.digest
        self.id = key.id
        self.name = key.name
        self.policy = policy
        self.is_used = False
        """Set by each use, taken back by the thread that notes it: a look at a clock would cost each request more."""


class KeyPolicy:
    """What a key with terms lets through, and says of it."""

    def __init__(self, key: Key, quota: Quota | None, said: _Said, clock: Clock) -> None:
        terms = key.terms
        self.stamp = dict(terms.stamp) or None
        self.unreadable = terms.unreadable
        """KEEP or REFUSE, None where the key does not say."""
        self._whose = f"The key {key.name!r} (id {key.id})"
        self._about = {"key": key.name, "key_id": key.id}
        self._id = key.id
        self._expires_us = key.expires_us
        self._networks = tuple(ipaddress.ip_network(network) for network in terms.networks)
        self._categories = frozenset(map(folded, terms.categories))
        self._quota = quota
        self._said = said
        self._clock = clock

    @property
    def is_expired(self) -> bool:
        return self._expires_us is not None and self._clock() >= self._expires_us

    def check(self, source_address: str) -> None:
        """What can be told before the body. Raises LogweirError: KEY_REFUSED, QUOTA_EXCEEDED."""
        if self._expires_us is not None and self._clock() >= self._expires_us:
            raise self._refused(EXPIRED, f"it expired at {iso_seconds(self._expires_us)}", source_address)
        if self._networks and not self._is_from_within(source_address):
            raise self._refused(WRONG_NETWORK, "that is in none of its networks", source_address)
        if self._quota is not None:
            try:
                self._quota.check()
            except LogweirError as error:
                raise self._at_its_quota(error) from None

    def charge(self, events: Sequence[bytes]) -> Charge | None:
        """Let the events of a batch through, and take them from the quota; one without events is not for nothing.

        Raises LogweirError: CATEGORY_REFUSED, CATEGORY_MISSING, QUOTA_EXCEEDED.
        """
        if self._categories:
            check_categories(events, self._categories, stamped="category" in (self.stamp or {}))
        if self._quota is None:
            return None
        size_bytes = sum(map(len, events)) if events else BARE_SIZE_BYTES
        try:
            return self._quota.take(events=max(1, len(events)), size_bytes=size_bytes)
        except LogweirError as error:
            raise self._at_its_quota(error) from None

    def charge_refused(self, size_bytes: int) -> None:
        """Take a request that cannot be read, and so much of it that is kept: it goes through the queue, too."""
        if self._quota is not None:
            self._quota.charge(events=1, size_bytes=max(size_bytes, BARE_SIZE_BYTES))

    def _is_from_within(self, source_address: str) -> bool:
        address = _address_of(source_address)
        return address is not None and any(address in network for network in self._networks)

    def _refused(self, reason: str, words: str, source_address: str) -> KeyRefused:
        if self._said.is_due(f"{self._id} {reason}"):
            log.warning(
                "%s was refused to %s: %s. (Said once a minute; all are counted.)",
                self._whose,
                source_address,
                words,
                extra={**self._about, "source_address": source_address, "reason": reason},
            )
        return KeyRefused(reason)

    def _at_its_quota(self, error: LogweirError) -> LogweirError:
        if self._said.is_due(f"{self._id} quota"):
            about = {**self._about, "problem": error.problem.code}
            log.warning("%s: %s (Said once a minute; all are counted.)", self._whose, error.detail, extra=about)
        return error


@lru_cache(maxsize=1024)
def _address_of(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


class Keys:
    """The keys of the file that are not revoked. Safe to use from several threads.

    Once started, changes of the file count within two seconds. A file that cannot be read, or is gone, leaves the keys
    as they were, and the log says so.
    """

    def __init__(self, path: Path, *, processes: int = 1, clock: Clock = now_us) -> None:
        self._path = path
        self._clock = clock
        self._quotas = Quotas(processes=processes)
        self._known: dict[bytes, Known] = {}
        self._ids: frozenset[str] = frozenset()
        self._used: dict[str, str] = {}
        self._complaints: dict[str, str] = {}
        self.is_readable = False
        """False until the file was read, or was not there, for the first time: until then nobody is a stranger."""
        self._loaded = self._seen = fingerprint_of(path)
        self._changed_s: float | None = None
        self._ended = threading.Event()
        self._follower = threading.Thread(target=self._follow, name="keys", daemon=True)
        self._load()
        if self.is_readable and not self.has_live:
            log.info("%s holds no live key: every event is refused; `logweir keys add NAME` makes one.", path)

    def find(self, key: bytes) -> Known | None:
        # What is looked up and compared is a hash: how long that takes says nothing about any key.
        digest = digest_of(key)
        known = self._known.get(digest)
        return known if known is not None and hmac.compare_digest(known.digest, digest) else None

    @property
    def has_live(self) -> bool:
        """Whether there is a key that is neither revoked nor expired."""
        return any(known.policy is None or not known.policy.is_expired for known in self._known.values())

    def start(self) -> None:
        self._follower.start()

    def stop(self) -> None:
        """Note the last uses, and follow the file no more."""
        self._ended.set()
        if self._follower.is_alive():
            self._follower.join(_CHECK_EVERY_S)
        self.note()

    def _follow(self) -> None:
        noted_s = time.monotonic()
        while not self._ended.wait(_CHECK_EVERY_S):
            try:
                self.check()
                if time.monotonic() - noted_s >= _NOTE_EVERY_S:
                    noted_s = time.monotonic()
                    self.note()
            except Exception:  # Without this thread no key would ever be revoked.
                log.exception("The keys could not be looked after; trying again")

    def check(self) -> None:
        """Load the file when it has changed, and has stayed so since the last check: editors write in several steps.

        One that does not come to rest is loaded all the same: else who adds keys would keep revoked ones alive.
        """
        self._gather(self._known.values())
        fingerprint = fingerprint_of(self._path)
        if fingerprint == self._loaded:
            self._changed_s = None
        elif fingerprint is None:
            self._changed_s = None
            self._complain("file", f"{self._path} is gone. The keys stay as they were.")
        else:
            now_s = time.monotonic()
            self._changed_s = self._changed_s or now_s
            is_restless = now_s - self._changed_s >= _RESTLESS_S_MAX
            if (is_restless or fingerprint == self._seen) and self._load(is_restless=is_restless):
                self._loaded, self._changed_s = fingerprint, None
        self._seen = fingerprint

    def note(self) -> None:
        """Write down when keys were last used, as far as that is new."""
        self._gather(self._known.values())
        if not self._used:
            return
        try:
            note_usage(self._path, self._used, ids=self._ids)
        except BlockingIOError:
            pass  # Whoever holds the lock keeps no key alive: another time.
        except OSError as error:
            self._complain("usage", f"The last use of keys cannot be noted beside {self._path}: {error}")
        else:
            self._used = {}
            self._complaints.pop("usage", None)

    def _load(self, *, is_restless: bool = False) -> bool:
        """Put in force what the file holds, and whether it is to be left at that: False when it may be read later.

        ``is_restless``: it need not have been the same before and after.
        """
        before = fingerprint_of(self._path)
        try:
            keys = read_keys(self._path)
        except LogweirError as error:
            self._complain("file", f"{error} The keys stay as they were.")
            # What the file says will not become better by itself; that it cannot be read may.
            return not isinstance(error.__cause__, OSError)
        if not is_restless and fingerprint_of(self._path) != before:
            return False
        self._complaints.pop("file", None)
        self.is_readable = True
        said = _Said()
        quotas = self._quotas.set(_limits_by_name(keys))
        known = {key.digest: Known(key, self._policy_of(key, quotas, said)) for key in keys if not key.revoked}
        replaced, self._known = self._known, known
        self._gather(replaced.values())
        self._ids = frozenset(key.id for key in keys)
        return True

    def _policy_of(self, key: Key, quotas: Mapping[str, Quota], said: _Said) -> KeyPolicy | None:
        quota = quotas.get(key.name)
        if key.expires is None and key.terms == NO_TERMS and quota is None:
            return None
        return KeyPolicy(key, quota, said, self._clock)

    def _gather(self, known: Iterable[Known]) -> None:
        used = [one for one in known if one.is_used]
        if used:
            now = iso_seconds(self._clock())
            for one in used:
                one.is_used = False
                self._used[one.id] = now

    def _complain(self, topic: str, complaint: str) -> None:
        if complaint != self._complaints.get(topic):
            self._complaints[topic] = complaint
            log.error("%s", complaint)


def _limits_by_name(keys: Iterable[Key]) -> dict[str, dict[str, int]]:
    """The quota of each name: that of its last key."""
    limits_by_name: dict[str, dict[str, int]] = {}
    for key in keys:
        if not key.revoked:
            limits = {EVENTS: key.terms.events_per_second, BYTES: key.terms.bytes_per_second}
            limits_by_name[key.name] = {resource: limit for resource, limit in limits.items() if limit}
    return {name: limits for name, limits in limits_by_name.items() if limits}


class _Said:
    """What was said in the log lately. Topics are as many as there are keys, and a few."""

    def __init__(self) -> None:
        self._said_s: dict[str, float] = {}

    def is_due(self, topic: str) -> bool:
        """Whether it was not said for a minute; then it is now."""
        now_s = time.monotonic()
        if now_s - self._said_s.get(topic, -_SAY_EVERY_S) < _SAY_EVERY_S:
            return False
        self._said_s[topic] = now_s
        return True
