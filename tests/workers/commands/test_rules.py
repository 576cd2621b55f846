"""`logweir rules`: what is in force, what a file lacks, what its examples come to, why a rule is not for an event."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from logweir import cli, config
from logweir.alerts import event
from logweir.alerts.rules import WindowKind
from logweir.config import StoreSettings
from logweir.store import open_store
from logweir_workers.alerts.examples import Examples
from logweir_workers.alerts.loading import PACK, RUNBOOKS

ROOT = Path(__file__).resolve().parents[3]
GOOD = """
from logweir.alerts import event, rule

@rule(where="category:shop AND details.outcome:failure", group=["details.username"], at_least=2, within="1m",
      severity="low", runbook="shop.md")
def failed(found):
    return f"{found.count} of {found.group}"

failed.example("two", [event(category="shop", outcome="failure", username="anna", at=at) for at in range(2)], alerts=1)
failed.example("one", [event(category="shop", outcome="failure", username="anna")], alerts=0)
"""
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> Run:
    (tmp_path / "rules").mkdir()

    def call(*words: str) -> tuple[int, str, str]:
        status = cli.main(["rules", *words, "--data-dir", str(tmp_path)])
        out, err = capfdbinary.readouterr()
        return status, out.decode(), err.decode()

    return call


def test_every_rule_that_comes_along_has_what_it_needs_and_does_what_it_says(run: Run) -> None:
    """Examples that fire and that do not, a runbook that is there."""
    lint_status, lint, _ = run("lint")
    test_status, tested, _ = run("test", "--json")
    rules = json.loads(run("list", "--json")[1])["rules"]
    absent = [rule["runbook"] for rule in rules if not (ROOT / rule["runbook"]).is_file()]

    assert (lint_status, test_status) == (0, 0), lint + tested
    assert len(rules) >= 4
    assert all(Path(rule["path"]).parent == PACK for rule in rules)
    assert absent == []
    assert {f"{RUNBOOKS}/{one.name}" for one in (ROOT / RUNBOOKS).glob("*.md")} == {rule["runbook"] for rule in rules}


def test_rules_of_ones_own_are_listed_with_those_that_come_along(run: Run, tmp_path: Path) -> None:
    """What has no store yet is listed all the same; a file that cannot be read is named."""
    (tmp_path / "rules/shop.py").write_text(GOOD)
    (tmp_path / "rules/bad.py").write_text("from logweir.alerts import rule\n\nrule(nonsense=1)\n")
    (tmp_path / "rules/_helper.py").write_text("this is not read")
    status, out, err = run("list")

    assert status == 1
    assert "failed " in out and "ssh_brute_force " in out
    assert "bad.py cannot be read: TypeError" in err and "(line 3)" in err
    assert "_helper" not in err


def test_examples_that_do_not_do_what_they_say_are_named(run: Run, tmp_path: Path) -> None:
    good, wrong = tmp_path / "good.py", tmp_path / "wrong.py"
    good.write_text(GOOD)
    wrong.write_text(GOOD.replace('"two", [', '"two", [event(category="other")] + [').replace("alerts=0", "alerts=3"))
    status, out, _ = run("test", str(good))
    wrong_status, wrong_out, _ = run("test", str(wrong))
    raising = tmp_path / "raising.py"
    raising.write_text(GOOD.replace('return f"', 'return found.nonsense + f"'))
    raising_status, raising_out, _ = run("test", str(raising))

    assert (status, out) == (0, "2 examples of 1 rule, all as they should be.\n")
    assert wrong_status == 1
    assert "failed, 'one': it makes 0 alerts of them, and should make 3" in wrong_out
    assert wrong_out.endswith("2 examples of 1 rule, 1 not as it should be.\n")
    assert raising_status == 1
    assert "its function fails: AttributeError" in raising_out


def test_texts_of_the_rules_that_come_along_count_in_words(run: Run) -> None:
    """One host, and not one hosts."""
    said = [text for one in json.loads(run("test", "--json")[1])["examples"] for text in one["alerts"]]

    assert any(" 1 host" in text for text in said)
    assert [
        text for text in said if re.search(r"(?<![0-9.:,])1 [a-z ]*(hosts|events|requests|logins|times)\b", text)
    ] == []


def test_lint_says_what_a_rule_lacks(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "bare.py"
    path.write_text("from logweir.alerts import rule\n@rule(where='x', severity='low')\ndef bare(found): return 'x'\n")
    status, out, _ = run("lint", str(path))

    assert status == 1
    assert "it has no runbook; it has no example that fires; it has no example that does not fire" in out
    assert out.endswith("1 rule, 1 of which lacks something.\n")


def test_explain_says_why_a_rule_is_not_for_an_event(run: Run, tmp_path: Path) -> None:
    """Each part of the condition with what it looked at; the group's values; what it is for, too."""
    (tmp_path / "rules/shop.py").write_text(GOOD)
    event = {"category": "shop", "details": {"outcome": "success", "username": "anna"}}
    _, out, _ = run("explain", "failed", json.dumps(event))
    event["details"] = {"outcome": "failure", "username": "anna"}
    explained = json.loads(run("explain", "failed", json.dumps(event), "--json")[1])
    _, without, _ = run("explain", "failed", '{"category": "shop", "details": {"outcome": "failure"}}')

    assert "yes category term" in out
    assert 'no  details.outcome term ["failure"]   (it is success)' in out
    assert out.endswith("The event is not for failed.\n")
    assert (explained["matches"], explained["group"]) == (True, {"details.username": "anna"})
    assert "without it, it is not counted" in without


def test_the_types_of_rules_that_are_listed_are_explained() -> None:
    page = (ROOT / "docs/how-to/write-a-rule.md").read_text(encoding="utf-8")

    assert [kind for kind in WindowKind if f"`{kind}` |" not in page and f"of the type `{kind}`" not in page] == []


def test_a_rule_is_explained_before_it_is_in_force(run: Run, tmp_path: Path) -> None:
    """By its file; a rule that the file does not have is named."""
    (tmp_path / "shop.py").write_text(GOOD)
    event = '{"category": "shop", "details": {"outcome": "failure", "username": "anna"}}'
    status, out, _ = run("explain", "--file", str(tmp_path / "shop.py"), "failed", event)
    unknown_status, _, err = run("explain", "--file", str(tmp_path / "shop.py"), "ssh_brute_force", event)

    assert (status, unknown_status) == (0, 2)
    assert out.endswith("The event is for failed.\n")
    assert "There is no rule 'ssh_brute_force'" in err


def test_what_cannot_be_explained_is_said(run: Run) -> None:
    for words, said in (
        (("explain", "ssh_brute_forc", "{}"), "Did you mean 'ssh_brute_force'?"),
        (("explain", "ssh_brute_force", "nonsense"), "The event cannot be used: it is not a JSON object"),
        (("explain", "ssh_brute_force", "[1]"), "it is not a JSON object"),
    ):
        status, _, err = run(*words)
        assert status == 2
        assert said in err


def test_a_backtest_of_a_file_says_what_its_rules_would_have_found(run: Run, tmp_path: Path) -> None:
    """Before it is in force; a rule by its name; what is no rule is named."""
    path = tmp_path / "shop.py"
    path.write_text(GOOD)
    sent = event(category="shop", outcome="failure", username="anna")
    with closing(open_store(StoreSettings(url=f"sqlite:///{tmp_path}/store"))) as store:
        store.prepare()
        examples = Examples(config.load(environment={}, overrides={"data_dir": tmp_path}))
        store.index([examples.document(sent, 1), examples.document(sent, 2)])
    span = ("--since", "2026-01-31T10:00:00Z", "--until", "2026-01-31T14:00:00Z")
    status, out, _ = run("backtest", str(path), *span)
    found = json.loads(run("backtest", str(path), *span, "--json")[1])["rules"]
    none_status, none, _ = run("backtest", "ssh_brute_force", *span)
    unknown_status, _, err = run("backtest", "ssh_brute_forse", *span)

    assert status == none_status == 0
    assert "2 of anna" in out
    assert "failed: 1 alert of 2 matches; 2 events read in " in out
    assert [(one["rule"], one["alerts_count"], one["cost"]["matches"]) for one in found] == [("failed", 1, 2)]
    assert none.startswith("ssh_brute_force: 0 alerts of 0 matches")
    assert unknown_status != 0
    assert "Did you mean 'ssh_brute_force'?" in err


def test_a_backtest_of_a_file_says_which_rules_cannot_be_tried(run: Run, tmp_path: Path) -> None:
    """Those about the accounting: as by name, and beside the others; a file without any rule is named."""
    with closing(open_store(StoreSettings(url=f"sqlite:///{tmp_path}/store"))) as store:
        store.prepare()
    about_books = "\nfrom logweir.alerts import books\n@books(of='lost', severity='low')\ndef lost(found): return 'x'\n"
    said = []
    for text in (about_books, GOOD + about_books, "x = 1"):
        (tmp_path / "some.py").write_text(text)
        status, out, err = run("backtest", str(tmp_path / "some.py"), "--since", "1h")
        said.append((status != 0, "failed: 0 alerts" in out, err))
    by_name = run("backtest", "events_lost", "--since", "1h")[2]

    assert [one[:2] for one in said] == [(True, False), (True, True), (True, False)]
    assert all("The rule lost cannot be used: it is about what the accounting finds" in err for *_, err in said[:2])
    assert "it is about what the accounting finds, not about events" in by_name
    assert "there is no rule in it" in said[2][2]
