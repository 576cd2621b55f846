"""Sigma files among the rules: read, read again, compiled once, and what becomes of those that are broken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from logweir import config
from logweir.config import Settings
from logweir_workers.alerts.examples import Examples, lint
from logweir_workers.alerts.loading import RuleFiles, read_rules
from logweir_workers.alerts.sigma import files as sigma_files
from logweir_workers.alerts.sigma.plans import FILE_NAME, PlanCache, content_hash
from tests.workers.alerts.sigma.helpers import sigma_rule

RULE = sigma_rule("s: {f: a}\ncondition: s", title="An a")
OTHER = sigma_rule("s: {f: b}\ncondition: s", title="A b")
IN_PYTHON = """
from logweir.alerts import event, rule

@rule(sigma="parts/one.yml", group=["details.username"], at_least=2, within="1m", severity="low")
def two_of_them(found):
    return f"{found.count} of {found.group}"

def happened(at, f): return event(at=at, details={"f": f, "username": "ann", "logsource": {"product": "test"}})

two_of_them.example("two", [happened(0, "a"), happened(1, "A")], alerts=1)
two_of_them.example("one of each", [happened(0, "a"), happened(1, "b")], alerts=0)
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "rules/deep/er").mkdir(parents=True)
    return config.load(environment={}, overrides={"data_dir": tmp_path, "alerts.pack": False})


def read(settings: Settings) -> RuleFiles:
    return RuleFiles(settings.alerts, settings.rules_path, last_read=settings.rules_last_read_path)


def test_files_at_any_depth_are_rules_and_are_read_again_when_they_change(settings: Settings) -> None:
    """Files that begin with a dot or _ are none, as of Python's."""
    rules = settings.rules_path
    (rules / "one.yml").write_text(RULE)
    (rules / "deep/er/two.yaml").write_text(OTHER)
    (rules / "_not.yml").write_text(OTHER)
    (rules / "not.txt").write_text(OTHER)
    files = read(settings)
    first = dict(files.rules)
    unchanged = files.reload()
    (rules / "deep/er/two.yaml").write_text(OTHER.replace("f: b", "f: [b, c]"))
    changed = files.reload()
    second = dict(files.rules)
    (rules / "one.yml").unlink()
    files.reload()

    assert (sorted(first), unchanged, changed) == (["one", "two"], False, True)
    assert first["one"] is second["one"]
    assert first["one"].path == str(rules / "one.yml")
    assert first["two"].revision != second["two"].revision
    assert (sorted(files.rules), files.problems) == (["two"], [])


def test_a_broken_file_goes_on_as_it_was_read_last_also_after_a_restart(settings: Settings) -> None:
    """One that never could be read brings nothing. Both say so."""
    path, never = settings.rules_path / "one.yml", settings.rules_path / "never.yml"
    path.write_text(RULE)
    files = read(settings)
    files.keep()
    before = files.rules["one"].revision
    path.write_text("title: [")
    never.write_text(sigma_rule("s: {f: a}\ncondition: t"))
    files.reload()
    now = files.rules["one"].revision
    files.keep()
    again = read(settings)

    assert (now, again.rules["one"].revision, sorted(again.rules)) == (before, before, ["one"])
    assert again.broken == {str(path), str(never)}
    assert {str(problem).split(": ")[0] for problem in again.problems} == {
        f"The rules in {path} cannot be read",
        f"The rules in {never} cannot be read",
    }
    assert "as they were read last" in str(next(one for one in again.problems if str(path) in str(one)))
    assert "Until then it is not evaluated." in str(next(one for one in again.problems if str(never) in str(one)))


def test_nothing_is_parsed_that_is_in_the_cache(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a restart all are there without pySigma; what is new is parsed."""
    (settings.rules_path / "one.yml").write_text(RULE)
    read(settings).keep()
    parsed: list[bytes] = []
    parse = sigma_files.parse

    def noted(source: bytes) -> Any:
        parsed.append(source)
        return parse(source)

    monkeypatch.setattr(sigma_files, "parse", noted)
    files = read(settings)
    (settings.rules_path / "two.yml").write_text(OTHER)
    files.reload()

    assert sorted(files.rules) == ["one", "two"]
    assert parsed == [OTHER.encode()]


@pytest.mark.parametrize("content", [b"", b"no JSON", b"[]", b'{"form": "0", "plans": {}, "last": {}}'])
def test_a_cache_that_cannot_be_used_is_as_good_as_none(settings: Settings, content: bytes) -> None:
    """And is replaced by one that can."""
    (settings.rules_path / "one.yml").write_text(RULE)
    settings.rules_last_read_path.mkdir()
    (settings.rules_last_read_path / FILE_NAME).write_bytes(content)
    files = read(settings)
    files.keep()

    assert sorted(files.rules) == ["one"]
    assert (
        content_hash(RULE.encode()) in orjson.loads((settings.rules_last_read_path / FILE_NAME).read_bytes())["plans"]
    )


def test_the_cache_forgets_what_no_file_is_any_more(settings: Settings) -> None:
    """Else it would grow for ever."""
    path = settings.rules_path / "one.yml"
    path.write_text(RULE)
    files = read(settings)
    files.keep()
    path.write_text(OTHER)
    fresh = read(settings)
    fresh.keep()
    cache = PlanCache(settings.rules_last_read_path / FILE_NAME)

    assert cache.get(content_hash(RULE.encode())) is None
    assert cache.get(content_hash(OTHER.encode())) is not None


def test_a_rule_in_python_has_a_sigma_file_as_its_condition(settings: Settings) -> None:
    """It is a part of that rule then, and no rule of its own; its author stays named."""
    (settings.rules_path / "parts").mkdir()
    (settings.rules_path / "parts/one.yml").write_text(RULE)
    (settings.rules_path / "own.py").write_text(IN_PYTHON)
    files = read(settings)
    rule = files.rules["two_of_them"]
    tried = [Examples(settings).run(rule, example) for example in rule.examples]
    before = rule.revision
    (settings.rules_path / "parts/one.yml").write_text(RULE.replace("f: a", "f: z"))
    files.reload()

    assert list(files.rules) == ["two_of_them"]
    assert [one.problem for one in tried] == ["", ""]
    assert tried[0].summaries == ["2 of ann"]
    assert (rule.origin["author"], rule.where, rule.is_imported) == ("Ada", "An a", False)
    assert files.rules["two_of_them"].revision != before
    assert "it has no runbook" in lint(rule)


def test_a_rule_whose_sigma_file_is_not_there_is_read_once_it_is(settings: Settings) -> None:
    """Until then the problem names both."""
    (settings.rules_path / "own.py").write_text(IN_PYTHON)
    files = read(settings)
    problem = str(files.problems[0])
    (settings.rules_path / "parts").mkdir()
    (settings.rules_path / "parts/one.yml").write_text(RULE)
    files.reload()

    assert "the Sigma rule parts/one.yml of two_of_them cannot be read" in problem
    assert (list(files.rules), files.problems) == (["two_of_them"], [])


def test_a_sigma_file_is_read_alone_for_a_try(settings: Settings, tmp_path: Path) -> None:
    """For backtest, lint and test, before it is in force."""
    path = tmp_path / "try.yml"
    path.write_text(RULE)
    (rule,) = read_rules(path)

    assert (rule.name, rule.severity, lint(rule)) == ("try", "high", [])


def test_more_files_than_are_read_are_a_problem_with_their_number(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing that is read is lost for it."""
    monkeypatch.setattr(sigma_files, "FILES_MAX", 1)
    (settings.rules_path / "one.yml").write_text(RULE)
    (settings.rules_path / "two.yml").write_text(OTHER)
    files = read(settings)

    assert list(files.rules) == ["one"]
    assert "it has more than 1 Sigma files" in str(files.problems[0])


def test_what_an_import_has_compiled_meanwhile_is_not_compiled_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An alerter that runs looks into the cache when there are new files."""
    (settings.rules_path / "one.yml").write_text(RULE)
    files = read(settings)
    files.keep()
    other = PlanCache(settings.rules_last_read_path / FILE_NAME)
    sigma_files.plans_of(OTHER.encode(), other)
    other.keep()
    (settings.rules_path / "two.yml").write_text(OTHER)
    monkeypatch.setattr(sigma_files, "parse", lambda _: pytest.fail("it is parsed"))
    files.reload()

    assert (sorted(files.rules), files.problems) == (["one", "two"], [])


def test_without_the_extra_each_file_says_what_to_install(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules in Python go on."""
    (settings.rules_path / "one.yml").write_text(RULE)
    read(settings).keep()
    monkeypatch.setattr(sigma_files, "missing", lambda: "ahocorasick")
    files = read(settings)

    assert files.rules == {}
    assert "pip install 'logweir[sigma]'" in str(files.problems[0])
