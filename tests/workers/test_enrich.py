"""Enrichments: their own examples, that they keep to what they declare, and the file of category rules."""

import copy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import logweir_workers.enrich
from logweir.config import WorkerSettings
from logweir.errors import SETTING_BAD, LogweirError
from logweir.event import FIELD_BY_NAME
from logweir_workers.enrich import Enricher, Enrichment, Example, enrichments, load
from logweir_workers.enrich.category import RULES_MAX
from logweir_workers.normalise.fields import Context

CONTEXT = Context(1_767_614_400_000_000, "web")
ENRICHER = Enricher(tuple(each.prepare(WorkerSettings()) for each in enrichments()))
EXAMPLES = [(each, example) for each in enrichments() for example in each.examples]


@pytest.mark.parametrize(("enrichment", "example"), EXAMPLES, ids=lambda value: getattr(value, "name", ""))
def test_example_of_an_enrichment_holds(enrichment: Enrichment, example: Example) -> None:
    """Each file's examples are its tests: the event, and what it has more or otherwise afterwards."""
    before, added = example
    event = dict(copy.deepcopy(before))

    enrichment.prepare(WorkerSettings())(event, CONTEXT)

    assert event == {**before, **added}
    assert set(added) <= set(enrichment.adds)


def test_every_file_of_the_folder_is_an_enrichment_that_runs() -> None:
    """A file that nobody registered would never run; each has examples, one of which adds nothing."""
    folder = Path(logweir_workers.enrich.__file__).parent

    assert {path.stem for path in folder.glob("[!_]*.py")} == {each.name for each in enrichments()}
    for each in enrichments():
        assert set(each.adds) <= set(FIELD_BY_NAME)
        # What look-ups add is in files: test_tables.py shows it.
        assert any(added for _, added in each.examples) or each.name == "lookups"
        assert any(not added for _, added in each.examples)


@given(
    st.dictionaries(
        st.sampled_from(["hostname", "fqdn", "sourceaddress", "processname", "summary"]), st.text(min_size=1)
    )
)
def test_enriching_any_event_changes_only_what_is_declared(event: dict[str, Any]) -> None:
    """Whatever the texts are, nothing raises, nothing else changes, and the same event gives the same again."""
    once, again = dict(event), dict(event)

    ENRICHER(once, CONTEXT)
    ENRICHER(again, CONTEXT)

    adds = {field for each in enrichments() for field in each.adds}
    assert once == again
    assert {name: value for name, value in once.items() if name not in adds} == {
        name: value for name, value in event.items() if name not in adds
    }
    assert all(type(value) is str and value for value in once.values())


# --- the file of category rules -------------------------------------------------------------------------------------


def category_of(path: Path, rules: str, event: dict[str, Any]) -> str | None:
    path.write_text(rules, encoding="utf-8")
    event = {"key": "web", **event}
    load(WorkerSettings(categories_file=path))(event, CONTEXT)
    return event.get("category")


@pytest.fixture
def rules_file(tmp_path: Path) -> Path:
    return tmp_path / "categories.toml"


def test_first_rule_that_matches_gives_the_category(rules_file: Path) -> None:
    """The file's order decides; all conditions of a rule must hold, any pattern of a condition is enough."""
    rules = """
    [[rule]]
    category = "login failure"
    processname = ["sshd", "sudo"]
    summary_contains = ["Failed password", "authentication failure"]

    [[rule]]
    category = "authentication"
    processname = "SSHD"

    [[rule]]
    category = "shop"
    source = "/srv/shop/*"
    key = "shop-?"
    """

    assert (
        category_of(rules_file, rules, {"processname": "sshd", "summary": "FAILED PASSWORD for x"}) == "login failure"
    )
    assert category_of(rules_file, rules, {"processname": "sshd", "summary": "Accepted"}) == "authentication"
    assert category_of(rules_file, rules, {"processname": "sshd"}) == "authentication"
    assert category_of(rules_file, rules, {"processname": "sudo"}) is None
    assert category_of(rules_file, rules, {"source": "/srv/Shop/a.py", "key": "shop-1"}) == "shop"
    assert category_of(rules_file, rules, {"source": "/srv/shop/a.py", "key": "shop-10"}) is None
    assert category_of(rules_file, rules, {}) is None


def test_own_category_stays_unless_a_rule_overrides(rules_file: Path) -> None:
    """What the event says counts more than a rule, but for rules that say otherwise."""
    rules = """
    [[rule]]
    category = "mail"
    processname = "postfix/*"

    [[rule]]
    category = "legacy"
    hostname = "old*"
    override = true

    [[rule]]
    category = "other"
    """

    assert category_of(rules_file, rules, {"category": "x", "processname": "postfix/smtpd"}) == "x"
    assert category_of(rules_file, rules, {"category": "x", "hostname": "old1"}) == "legacy"
    assert category_of(rules_file, rules, {"processname": "postfix/smtpd", "hostname": "old1"}) == "mail"
    assert category_of(rules_file, rules, {}) == "other"


def test_empty_file_of_rules_gives_no_category(rules_file: Path) -> None:
    """This is how the built-in rules are switched off."""
    assert category_of(rules_file, "", {"processname": "sshd"}) is None


@pytest.mark.parametrize(
    ("rules", "named", "reason"),
    [
        ("[[rule]]\ncategory = ", "the file", "not TOML"),
        ("rules = 1", "rules", r"\[\[rule\]\] tables only"),
        ("rule = 1", "rule", r"\[\[rule\]\] tables only"),
        ("rule = [1]", "rule 1", "a rule is a table"),
        ('[[rule]]\nkey = "a"', "rule 1: category", "needs the category"),
        ('[[rule]]\ncategory = " "', "rule 1: category", "needs the category"),
        ("[[rule]]\ncategory = 7", "rule 1: category", "needs the category"),
        (
            '[[rule]]\ncategory = "a"\nkey = "a"\n[[rule]]\ncategory = "b"\nproces = "x"',
            "rule 2: proces",
            "knows processname",
        ),
        ('[[rule]]\ncategory = "a"\nprocessname = 7', "rule 1: processname", "neither a text nor a list"),
        ('[[rule]]\ncategory = "a"\nprocessname = []', "rule 1: processname", "neither a text nor a list"),
        ('[[rule]]\ncategory = "a"\nsummary_contains = [""]', "rule 1: summary_contains", "neither a text nor a list"),
        ('[[rule]]\ncategory = "a"\nkey = "a"\noverride = "yes"', "rule 1: override", "neither true nor false"),
        ('[[rule]]\ncategory = "a"\n[[rule]]\ncategory = "b"', "rule 1", "no rule behind it"),
        ('[[rule]]\ncategory = "a"\nkey = "a"\n' * (RULES_MAX + 1), "rule", f"at most {RULES_MAX}"),
    ],
)
def test_bad_rule_is_refused_at_the_start_with_its_number(
    rules_file: Path, rules: str, named: str, reason: str
) -> None:
    """A worker does not start with rules that it only half understands."""
    with pytest.raises(LogweirError, match=reason) as caught:
        category_of(rules_file, rules, {})

    assert caught.value.problem is SETTING_BAD
    assert caught.value.numbers["name"] == named
    assert str(rules_file) in str(caught.value)


def test_missing_file_of_rules_is_refused_with_the_setting(tmp_path: Path) -> None:
    """The message names the setting, the path and what is wrong with it."""
    for path, reason in ((tmp_path / "none.toml", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(LogweirError, match=reason) as caught:
            load(WorkerSettings(categories_file=path))

        assert caught.value.numbers["name"] == "worker.categories_file"
        assert str(path) in str(caught.value)


def test_file_of_rules_that_is_not_utf8_is_refused(rules_file: Path) -> None:
    """Said with the file's name, not with a traceback."""
    rules_file.write_bytes(b'[[rule]]\ncategory = "\xff"')

    with pytest.raises(LogweirError, match="not TOML"):
        load(WorkerSettings(categories_file=rules_file))
