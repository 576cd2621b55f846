"""Redaction: each rule's own examples, the marks, that nothing else changes, and that no text takes long."""

from __future__ import annotations

import copy
import re
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logweir import config
from logweir.config import WorkerSettings
from logweir.errors import SETTING_BAD, LogweirError
from logweir.metrics import registry
from logweir_workers import enrich
from logweir_workers.normalise.fields import Context, normalise
from logweir_workers.redaction import LONG_WORD, RULES, Redaction, Rule, load

KEY = b"k" * 32
CONTEXT = Context(1_767_614_400_000_000, "web")
ALL = Redaction(RULES, KEY)
EXAMPLES = [(rule, example) for rule in RULES for example in rule.examples]
SECRETS = [(rule, part) for rule, (_, part) in EXAMPLES if part]
HOW_TO = (Path(__file__).parents[2] / "docs" / "how-to" / "redact.md").read_text(encoding="utf-8")


def redacted(event: dict[str, Any], redaction: Redaction = ALL) -> dict[str, Any]:
    event = copy.deepcopy(event)
    redaction(event, CONTEXT)
    return event


@pytest.mark.parametrize(("rule", "example"), EXAMPLES, ids=lambda value: getattr(value, "name", ""))
def test_example_of_a_rule_holds(rule: Rule, example: tuple[str, str]) -> None:
    """The part becomes a mark and the rest stays; a text without such a value stays whole."""
    text, part = example

    summary = redacted({"summary": text}, Redaction((rule,), KEY))["summary"]

    before, found, after = text.partition(part) if part else (text, "", "")
    assert (summary == text) == (not part)
    assert summary.startswith(before) and summary.endswith(after)
    assert not found or re.fullmatch(
        rf"\[redacted:{rule.name}:[0-9a-f]{{12}}\]", summary[len(before) :].removesuffix(after)
    )


def test_every_rule_shows_a_value_and_a_text_that_stays() -> None:
    """And says the truth about how long its values are."""
    for rule in RULES:
        parts = [part for _, part in rule.examples]
        assert any(parts) and not all(parts), rule.name
        assert (
            not rule.is_long
            or rule.group == "cards"
            or all(max(map(len, re.findall(r"[A-Za-z0-9_-]+", part))) >= LONG_WORD for part in parts if part)
        )


@pytest.mark.parametrize(("rule", "part"), SECRETS, ids=lambda value: getattr(value, "name", ""))
def test_value_is_found_wherever_it_stands(rule: Rule, part: str) -> None:
    """In the message, in tags, in details at any depth, of the names of details only not."""
    text = next(text for text, found in rule.examples if found == part)
    event = {"summary": text, "tags": ["a", text], "hostname": text, "details": {"a": [{"b": text}], "c": 1}}

    result = redacted(event)

    assert part not in str(result)
    assert result["details"]["c"] == 1
    assert result["tags"][0] == "a"
    assert result["tags"][1] == result["summary"] == result["hostname"] == result["details"]["a"][0]["b"]


def test_equal_values_have_equal_marks_and_others_others() -> None:
    """So that they can still be counted and joined."""
    one = redacted({"summary": "4111 1111 1111 1111"})["summary"]

    assert redacted({"summary": "4111-1111-1111-1111"})["summary"] == one
    assert redacted({"details": {"pan": 4111111111111111}})["details"]["pan"] == one
    assert redacted({"summary": "5555555555554444"})["summary"] != one
    assert redacted({"summary": "4111111111111111"}, Redaction(RULES, b"o" * 32))["summary"] != one
    assert redacted({"summary": "4111111111111111"}, Redaction(RULES, None))["summary"] == "[redacted:card]"


def test_numbers_that_are_no_cards_stay_numbers() -> None:
    """Times, counts, fractions."""
    event = {"details": {"at": 1767614400000000000, "n": 4111111111111112, "f": 4111111111111111.5, "t": True}}

    assert redacted(event) == event


def test_what_the_door_says_stays() -> None:
    """An e-mail address as the name of an emitter or a key is the operator's own choice."""
    event = {"key": "ops@example.org", "emitter": "alice@example.org", "summary": "mail to bob@example.org"}

    result = redacted(event)

    assert (result["key"], result["emitter"]) == (event["key"], event["emitter"])
    assert "bob@" not in result["summary"]


def test_marks_are_counted_by_rule() -> None:
    """Each value, not each event."""
    before = registry.get("logweir_worker_redacted_values_total").labels("card")._value.get()

    redacted({"summary": "4111111111111111 and 5555555555554444"})

    assert registry.get("logweir_worker_redacted_values_total").labels("card")._value.get() == before + 2


def test_redacting_again_changes_nothing() -> None:
    """A mark holds nothing that a rule finds."""
    for rule, (text, _) in EXAMPLES:
        once = redacted({"summary": text, "details": {"x": text}})
        assert redacted(once) == once, rule.name


_text = st.text(max_size=20) | st.sampled_from([text for _, (text, _) in EXAMPLES])
_value = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | _text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(["summary", "hostname", "note"]), _value, max_size=3))
def test_event_without_secrets_stays_and_no_event_breaks_it(sent: dict[str, Any]) -> None:
    """The same shape afterwards; no secret is left; what has none is as it was."""
    event = normalise(sent, CONTEXT)

    result = redacted(event)

    assert result.keys() == event.keys()
    text = str(result)
    assert not [part for rule, part in SECRETS if rule.group == "secrets" and part in text and len(part) > 10]
    if "[redacted:" not in text:
        assert result == event


@pytest.mark.parametrize(
    "piece",
    [
        "-----BEGIN PRIVATE KEY-----",
        "-----BEGIN A PRIVATE KEY",
        "eyJaaaaaaaaaaaaaaaaaaaa.",
        "xoxb-aaaaaaaaaaaaaaaaaaaa",
        "://a:b",
        "a@",
        "a.b@a.",
        "4111 1111 ",
        "4111-",
        "1",
        "AWS_SECRET_ACCESS_KEY=",
        "authorization: bearer ",
        "sk-",
    ],
)
def test_hostile_text_takes_time_in_proportion_to_its_length(piece: str) -> None:
    """Half a megabyte of beginnings."""

    def spent_s(size: int) -> float:
        event = {"summary": piece * (size // len(piece))}
        best = float("inf")
        for _ in range(3):
            began_s = time.process_time()
            redacted(event)
            best = min(best, time.process_time() - began_s)
        return best

    assert spent_s(400_000) < 8 * 3 * spent_s(50_000) + 0.05


# --- settings -------------------------------------------------------------------------------------------------------


def test_settings_name_groups_and_rules(tmp_path: Path) -> None:
    """Secrets and cards by default; nothing at all with none."""

    def names(*redact: str) -> set[str]:
        redaction = load(WorkerSettings(redact=redact, redaction_key_file=tmp_path / "key"))
        assert redaction is not None
        shown = {rule: redacted({"summary": rule.examples[0][0]}, redaction)["summary"] for rule in RULES}
        return {rule.name for rule, summary in shown.items() if f"[redacted:{rule.name}:" in summary}

    secrets = {rule.name for rule in RULES if rule.group == "secrets"}
    assert WorkerSettings().redact == ("secrets", "cards")
    assert names("secrets", "cards") == secrets | {"card"}
    assert names("emails", "jwt") == {"email", "jwt"}
    assert load(WorkerSettings(redact=("none",))) is None


def test_unknown_rule_is_refused_at_the_start() -> None:
    """With all that there are."""
    with pytest.raises(LogweirError, match="none of cards, emails, secrets, private_key") as caught:
        enrich.load(WorkerSettings(redact=("card", "mails")))

    assert caught.value.problem is SETTING_BAD


def test_key_is_made_once_in_the_data_folder(tmp_path: Path) -> None:
    """And is its owner's alone; the next worker has the same marks."""
    settings = config.load(environment={}, overrides={"data_dir": str(tmp_path / "data")}).worker

    marks = []
    for _ in range(2):
        event: dict[str, Any] = {"summary": "4111111111111111"}
        enrich.load(settings)(event, CONTEXT)
        marks.append(event["summary"])

    path = tmp_path / "data" / "redaction.key"
    assert marks[0] == marks[1] and marks[0].startswith("[redacted:card:")
    assert len(path.read_bytes()) == 32 and path.stat().st_mode & 0o777 == 0o600


def test_key_that_cannot_be_used_is_refused_at_the_start(tmp_path: Path) -> None:
    """Of another size, or where no file can be made."""
    (tmp_path / "short").write_bytes(b"x")
    (tmp_path / "file").write_bytes(b"x")

    for path, reason in (
        (tmp_path / "short", "holds 1 bytes"),
        (tmp_path / "file" / "key", "Not a directory|File exists"),
    ):
        with pytest.raises(LogweirError, match=reason) as caught:
            enrich.load(WorkerSettings(redaction_key_file=path))
        assert caught.value.numbers["name"] == "worker.redaction_key_file"


def test_what_parsers_decode_is_redacted_too() -> None:
    """The audit's hexadecimal digits hide nothing."""
    command = b"git clone https://alice:s3cret@example.org/x".hex().upper()
    event = normalise(
        {"processname": "audit", "summary": f"type=PROCTITLE msg=audit(1.1:1): proctitle={command}"}, CONTEXT
    )

    enrich.load(WorkerSettings())(event, CONTEXT)

    assert event["details"]["command"] == "git clone https://alice:[redacted:url_password]@example.org/x"


def test_how_to_lists_every_rule() -> None:
    """Name and group, in order."""
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \|", HOW_TO, re.MULTILINE)

    assert rows == [(rule.name, rule.group) for rule in RULES]
