"""Secrets, card numbers and addresses of people become marks, before an event is stored or anybody is alerted.

A mark, ``[redacted:card:1f3a5c7e9b2d]``, says by which rule, and has a hash of the value that is keyed with the
installation's secret: equal values have equal marks, and nobody without the key can try values out.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import orjson
import re2

from logweir.config import WorkerSettings
from logweir.errors import SETTING_BAD, LogweirError
from logweir.metrics import registry
from logweir.process.files import shared_secret
from logweir_workers.normalise.fields import Context

KEY_SIZE_BYTES = 32
LONG_WORD = 20
_HASH_SIZE_BYTES = 6

Event = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Rule:
    """One form of a value that is not to be stored."""

    name: str
    group: str
    """``worker.redact`` names rules, or all rules of a group."""
    signs: tuple[bytes, ...]
    """An event whose JSON has none of these is not looked at: for tokens, what they begin with. None: looked at where
    there are as many digits as a card has."""
    pattern: re.Pattern[str]
    """Takes time in proportion to the text. Of a pattern with a group, only the group is replaced."""
    examples: tuple[tuple[str, str], ...]
    """Texts, and the part of each that is replaced; nothing for a text that stays."""
    holds: Callable[[str], bool] = lambda _value: True
    """Whether what the pattern found is such a value indeed."""
    is_long: bool = True
    """Whether each such value has LONG_WORD letters, digits, _ and - in a row: most events have not."""


def _token(pattern: str) -> re.Pattern[str]:
    """A token that neither begins nor ends inside of a longer word."""
    return re.compile(rf"(?<![A-Za-z0-9_])(?:{pattern})(?![A-Za-z0-9_])")


def _is_card(value: str) -> bool:
    """Whether the digits are of a length that the issuer has, and the last one is right (ISO/IEC 7812, Luhn)."""
    digits = [int(digit) for digit in value if digit.isdigit()]
    if len(digits) not in _card_lengths(int("".join(map(str, digits[:4])))):
        return False
    doubled = [digit if place % 2 == 0 else sum(divmod(2 * digit, 10)) for place, digit in enumerate(reversed(digits))]
    return sum(doubled) % 10 == 0


def _card_lengths(beginning: int) -> tuple[int, ...]:
    """By the first four digits, how many there are."""
    first, two = beginning // 1000, beginning // 100
    if first == 4:  # Visa
        return 13, 16, 19
    if 51 <= two <= 55 or 2221 <= beginning <= 2720:  # Mastercard
        return (16,)
    if two in (34, 37):  # American Express
        return (15,)
    if two in (36, 38, 39) or 3000 <= beginning <= 3059:  # Diners Club
        return (14,)
    if beginning == 6011 or two == 65 or 6440 <= beginning <= 6499 or 3528 <= beginning <= 3589:  # Discover, JCB
        return 16, 17, 18, 19
    return ()


_DIGITS = bytes(ord("0") if byte in b"0123456789" else ord(" ") if byte in b" -" else ord("x") for byte in range(256))
"""For bytes.translate: what a card number looks like, whatever its digits."""
_CARD_RUN, _CARD_GROUPS = b"0" * 13, b"0000 0000"
_WORDS = bytes(ord("x") if chr(byte).isalnum() or byte in b"_-" else ord(" ") for byte in range(128)) + b" " * 128
_LONG_RUN = b"x" * LONG_WORD

RULES = (
    Rule(
        "private_key",
        "secrets",
        (b"PRIVATE KEY",),
        # What is cut off before its end is taken to the end of the text.
        re.compile(
            r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|\Z)",
            re.DOTALL,
        ),
        (
            (
                "key: -----BEGIN RSA PRIVATE KEY-----\nMIIEow\n-----END RSA PRIVATE KEY----- end",
                "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\n-----END RSA PRIVATE KEY-----",
            ),
            (r"-----BEGIN PRIVATE KEY-----\nMIIE", r"-----BEGIN PRIVATE KEY-----\nMIIE"),
            ("-----BEGIN PUBLIC KEY-----\nMIIE\n-----END PUBLIC KEY-----", ""),
        ),
        is_long=False,
    ),
    Rule(
        "aws_secret_key",
        "secrets",
        (b"ecret", b"ECRET"),
        # The identifiers of keys (AKIA…) are no secrets, and CloudTrail is of no use without them.
        re.compile(
            r"(?i:aws_?secret_?(?:access_?)?key|secretaccesskey)[\"'\\ ]{0,3}[:=>][\"'\\ >]{0,4}([A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])"
        ),
        (
            (
                "AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
                "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            ),
            (
                'secretAccessKey": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"',
                "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            ),
            ("AKIAIOSFODNN7EXAMPLE has no secret key", ""),
        ),
        is_long=False,
    ),
    Rule(
        "github_token",
        "secrets",
        (b"ghp_", b"gho_", b"ghu_", b"ghs_", b"ghr_", b"github_pat_"),
        _token(r"gh[pousr]_[A-Za-z0-9]{36,251}+|github_pat_[A-Za-z0-9_]{22,255}+"),
        (
            ("token ghp_" + "a1B2" * 9 + " used", "ghp_" + "a1B2" * 9),
            ("github_pat_" + "a1B2_" * 10, "github_pat_" + "a1B2_" * 10),
            ("ghp_short", ""),
        ),
    ),
    Rule(
        "gitlab_token",
        "secrets",
        (b"glpat-",),
        _token(r"glpat-[A-Za-z0-9_-]{20,100}+"),
        (("glpat-xY7_abcdefghij1234567", "glpat-xY7_abcdefghij1234567"), ("glpat-short", "")),
    ),
    Rule(
        "slack_token",
        "secrets",
        (b"xox", b"hooks.slack.com/services/"),
        re.compile(
            r"(?<![A-Za-z0-9_])xox[abeoprs]-[A-Za-z0-9-]{10,250}+|(?<=hooks\.slack\.com/services/)[A-Za-z0-9/]{20,100}+"
        ),
        (
            ("using xoxb-123456789012-abcdefABCDEF", "xoxb-123456789012-abcdefABCDEF"),
            (
                "POST https://hooks.slack.com/services/T00000000/B00000000/abcdefghijklmnopqrstuvwx done",
                "T00000000/B00000000/abcdefghijklmnopqrstuvwx",
            ),
            ("xoxo-love", ""),
        ),
    ),
    Rule(
        "google_key",
        "secrets",
        (b"AIza",),
        _token(r"AIza[A-Za-z0-9_-]{35}"),
        (("?key=AIza" + "Sy_-9" * 7, "AIza" + "Sy_-9" * 7), ("AIzaHello", "")),
    ),
    Rule(
        "payment_key",
        "secrets",
        (b"k_live_",),
        _token(r"[sr]k_live_[A-Za-z0-9]{16,250}+"),
        (("sk_live_" + "a1B2" * 6, "sk_live_" + "a1B2" * 6), ("sk_test_" + "a1B2" * 6, "")),
    ),
    Rule(
        "package_token",
        "secrets",
        (b"npm_", b"pypi-AgEI"),
        _token(r"npm_[A-Za-z0-9]{36}|pypi-AgEI[A-Za-z0-9_-]{50,250}+"),
        (("npm_" + "a1B2" * 9, "npm_" + "a1B2" * 9), ("npm_install failed", "")),
    ),
    Rule(
        "api_key",
        "secrets",
        (b"sk-", b"SG.", b"hvs."),
        _token(
            r"sk-(?:ant-|proj-)?[A-Za-z0-9_-]{40,250}+|SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}|hvs\.[A-Za-z0-9_-]{24,250}+"
        ),
        (
            ("key sk-ant-" + "a1B2_" * 10, "sk-ant-" + "a1B2_" * 10),
            ("hvs." + "CAESI" * 6, "hvs." + "CAESI" * 6),
            ("task sk-12 of the disk-usage check", ""),
        ),
    ),
    Rule(
        "jwt",
        "secrets",
        (b"eyJ",),
        # RFC 7519: both parts are JSON objects, and base64 of '{"' is eyJ.
        _token(r"eyJ[A-Za-z0-9_-]{8,}+\.eyJ[A-Za-z0-9_-]{8,}+\.[A-Za-z0-9_-]*+"),
        (
            (
                "token=eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl",
                "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl",
            ),
            ("eyJhbGciOiJIUzI1NiJ9 alone", ""),
        ),
    ),
    Rule(
        "authorization",
        "secrets",
        (b"uthorization", b"UTHORIZATION"),
        re.compile(
            r"(?i:authorization[\"'\\]{0,2} ?[:=] ?[\"'\\]{0,2}(?:bearer|basic|token)) ([A-Za-z0-9._~+/=-]{8,8000}+)"
        ),
        (
            ("Authorization: Bearer abc.def-123456", "abc.def-123456"),
            ('{"authorization": "Basic YWxpY2U6c2VjcmV0"}', "YWxpY2U6c2VjcmV0"),
            ("authorization failed for alice", ""),
        ),
        is_long=False,
    ),
    Rule(
        "url_password",
        "secrets",
        (b"@",),
        # The last @ ends it: a password may have one, too.
        re.compile(r"://[^\s/:@\"'<>?#]{0,100}+:(?!\[redacted:)([^\s/\"'<>?#]{1,200})@"),
        (
            ("connecting to postgres://app:s3cret@db1:5432/shop", "s3cret"),
            ("redis://:s3cret@cache1", "s3cret"),
            ("amqp://app:s3c@ret@mq1", "s3c@ret"),
            ("http://example.org:80?mail=a@b", ""),
            ("https://example.org:8443/a@b", ""),
        ),
        is_long=False,
    ),
    Rule(
        "logweir_key",
        "secrets",
        (b"lw_",),
        _token(r"lw_[A-Za-z0-9_-]{43}"),
        (("key lw_" + "a" * 43, "lw_" + "a" * 43), ("lw_none", "")),
    ),
    Rule(
        "card",
        "cards",
        (),
        re.compile(
            r"(?<![0-9A-Za-z_.-])(?<![0-9][ ])"
            r"(?:[2-6][0-9]{12,18}|[2-6][0-9]{3}([ -])(?:[0-9]{4}\1[0-9]{4}\1[0-9]{1,7}|[0-9]{6}\1[0-9]{4,5}))"
            r"(?![0-9A-Za-z_-]|\.[0-9])"
        ),
        (
            ("paid with 4111 1111 1111 1111.", "4111 1111 1111 1111"),
            ("pan=5555-5555-5555-4444", "5555-5555-5555-4444"),
            ("378282246310005", "378282246310005"),
            ("3782 822463 10005 declined", "3782 822463 10005"),
            ("order 4111111111111112", ""),
            ("trace 1767614400000000 took 35 ms", ""),
            ("4f41111111-1111-4111-1111-111111111111", ""),
            ("ratio 4111111111111111.5", ""),
        ),
        _is_card,
    ),
    Rule(
        "email",
        "emails",
        (b"@",),
        re.compile(
            r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+-]{1,64}+@(?:[A-Za-z0-9-]{1,63}+\.){1,8}[A-Za-z]{2,24}(?![A-Za-z0-9-])"
        ),
        (
            ("mail from <alice@example.org> accepted", "alice@example.org"),
            ("root@localhost", ""),
            ("@cee: x", ""),
        ),
        is_long=False,
    ),
)
"""Every rule, in the order in which they are applied."""


class Redaction:
    """The rules in force. For one thread."""

    def __init__(self, rules: Iterable[Rule], key: bytes | None) -> None:
        """Without a ``key``, marks have no hash."""
        rules = tuple(rules)
        self._signs = [(sign, rule) for rule in rules for sign in rule.signs]
        # One pass for all: most events have none of them.
        self._any_sign = re2.compile(b"|".join(re2.escape(sign) for sign, _ in self._signs)) if self._signs else None
        self._cards = [rule for rule in rules if not rule.signs]
        self._key = key

    def __call__(self, event: Event, _context: Context) -> None:
        """Replace, in all values of ``event``, what the rules find; names stay as they are."""
        raw = orjson.dumps([value for name, value in event.items() if name not in _OF_THE_DOOR])
        rules: list[Rule] = []
        if self._any_sign is not None and self._any_sign.search(raw) is not None:
            has_long_word = _LONG_RUN in raw.translate(_WORDS)
            rules += [rule for sign, rule in self._signs if sign in raw and (has_long_word or not rule.is_long)]
        if self._cards:
            shape = raw.translate(_DIGITS)
            if _CARD_RUN in shape or _CARD_GROUPS in shape:
                rules += self._cards
        for rule in rules:
            for name, value in event.items():
                if name not in _OF_THE_DOOR:
                    event[name] = self._redacted(rule, value)

    def _redacted(self, rule: Rule, value: Any) -> Any:
        if type(value) is str:
            return rule.pattern.sub(lambda found: self._mark(rule, found), value)
        if type(value) is dict:
            return {name: self._redacted(rule, inner) for name, inner in value.items()}
        if type(value) is list:
            return [self._redacted(rule, inner) for inner in value]
        if type(value) is int and rule.group == "cards" and value > 10**12:
            text = self._redacted(rule, str(value))
            return value if text == str(value) else text
        return value

    def _mark(self, rule: Rule, found: re.Match[str]) -> str:
        text = found[0]
        if not rule.holds(text):
            return text
        registry.get("logweir_worker_redacted_values_total").labels(rule.name).inc()
        # A card has one mark however its digits are grouped; its pattern has a group of another kind.
        if rule.group == "cards":
            return self._spelled(rule, re.sub("[ -]", "", text))
        if found.re.groups == 0:
            return self._spelled(rule, text)
        begin, end = found.start(1) - found.start(), found.end(1) - found.start()
        return text[:begin] + self._spelled(rule, text[begin:end]) + text[end:]

    def _spelled(self, rule: Rule, value: str) -> str:
        if self._key is None:
            return f"[redacted:{rule.name}]"
        digest = hashlib.blake2b(value.encode(), digest_size=_HASH_SIZE_BYTES, key=self._key).hexdigest()
        return f"[redacted:{rule.name}:{digest}]"


_OF_THE_DOOR = frozenset(("timestamp", "utctimestamp", "receivedtimestamp", "key", "emitter", "sourceaddress"))
"""Fields that the sender of an event has no say in, and times."""


def without_new_key(settings: WorkerSettings) -> WorkerSettings:
    """The settings for a command that only shows what a worker would do: where there is no key yet, none is made."""
    path = settings.redaction_key_file
    return settings if path and path.exists() else settings.model_copy(update={"redaction_key_file": None})


def load(settings: WorkerSettings) -> Redaction | None:
    """The rules that ``settings.redact`` names; None for no rules. Raises LogweirError(SETTING_BAD)."""
    groups = {rule.group for rule in RULES}
    names = groups | {rule.name for rule in RULES}
    wanted = set(settings.redact) - {"none"}
    if unknown := sorted(wanted - names):
        reason = f"it is none of {', '.join([*sorted(groups), *(rule.name for rule in RULES), 'none'])}"
        raise LogweirError(
            SETTING_BAD, where="The configuration", name="worker.redact", value=unknown[0], reason=reason
        )
    rules = [rule for rule in RULES if rule.name in wanted or rule.group in wanted]
    if not rules:
        return None
    path = settings.redaction_key_file
    try:
        return Redaction(rules, shared_secret(path, KEY_SIZE_BYTES) if path else None)
    except OSError as error:
        name, reason = "worker.redaction_key_file", error.strerror or str(error)
        raise LogweirError(SETTING_BAD, where="The configuration", name=name, value=str(path), reason=reason) from error
