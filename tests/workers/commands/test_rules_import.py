"""`logweir rules import`: what was taken, what was left and why; and the other actions on what was imported."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from logweir import cli
from tests.workers.alerts.sigma.helpers import sigma_rule

GOOD = sigma_rule("s: {f: a}\ncondition: s", title="Good", name="good")
PLACEHOLDER = sigma_rule("s: {'f|expand': 'a%hosts%'}\ncondition: s")
CORRELATION = """
title: Many
correlation: {type: event_count, rules: [good], timespan: 1m, condition: {gte: 2}}
"""
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> Run:
    (tmp_path / "data").mkdir()

    def call(*words: str) -> tuple[int, str, str]:
        status = cli.main(["rules", *words, "--data-dir", str(tmp_path / "data")])
        out, err = capfdbinary.readouterr()
        return status, out.decode(), err.decode()

    return call


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "sigma"
    (folder / "win").mkdir(parents=True)
    (folder / "win/good.yml").write_text(GOOD)
    (folder / "placeholder.yml").write_text(PLACEHOLDER)
    (folder / "README.md").write_text("no rule")
    return folder


def test_a_folder_is_taken_over_with_a_reason_for_each_file_that_is_left(
    run: Run, source: Path, tmp_path: Path
) -> None:
    """The second time nothing changes; what changed is said."""
    status, out, _ = run("import", str(source))
    again = json.loads(run("import", str(source), "--json")[1])
    (source / "win/good.yml").write_text(GOOD.replace("f: a", "f: b"))
    third = json.loads(run("import", str(source), "--json")[1])
    rules = tmp_path / "data/rules"

    assert status == 0
    assert "left: placeholder.yml: its placeholder %hosts% (expand) is a part of a value" in out
    assert f"Taken: 1 file (1 added, 0 updated, 0 unchanged) with 1 rule to {rules}. Left: 1." in out
    assert again["taken"] == {"win/good.yml": "unchanged"}
    assert list(again["left"]) == ["placeholder.yml"]
    assert third["taken"] == {"win/good.yml": "updated"}
    assert sorted(str(one.relative_to(rules)) for one in rules.rglob("*") if one.is_file()) == ["win/good.yml"]


def test_a_zip_file_is_taken_over_and_nothing_of_it_lands_elsewhere(run: Run, tmp_path: Path) -> None:
    """Nor is more of it unpacked than a rule may have."""
    path = tmp_path / "rules.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("sigma/good.yml", GOOD)
        archive.writestr("../evil.yml", GOOD)
        archive.writestr("/evil.yml", GOOD)
        archive.writestr("a/../../evil.yml", GOOD)
        archive.writestr("large.yml", "#" * 2_000_000)
    status, _, _ = run("import", str(path), "--to", str(tmp_path / "to"))
    made = json.loads(run("import", str(path), "--to", str(tmp_path / "to"), "--json")[1])

    assert status == 0
    assert made["taken"] == {"sigma/good.yml": "unchanged"}
    assert made["left"] == {"large.yml": "it has more than 1048576 bytes"}
    assert sorted(one.name for one in tmp_path.rglob("*.yml")) == ["good.yml"]


@pytest.mark.parametrize("name", ["none", "none.yml", "text.zip"])
def test_what_is_no_source_is_refused_by_its_name(run: Run, tmp_path: Path, name: str) -> None:
    """A typing error must not look like an import of nothing."""
    (tmp_path / "text.zip").write_text("no archive")
    status, _, err = run("import", str(tmp_path / name))

    assert status != 0
    assert name in err
    assert "neither a folder nor a ZIP file" in err


def test_a_folder_without_a_rule_that_can_be_used_fails(run: Run, source: Path) -> None:
    """So a script notices."""
    (source / "win/good.yml").unlink()
    status, out, _ = run("import", str(source))

    assert status == 1
    assert "Taken: 0 files" in out


ELASTALERT = "name: Many\ntype: frequency\nnum_events: 2\ntimeframe: {minutes: 1}\nfilter: [{term: {a: b}}]\n"
PARENT = '<group name="a,"><rule id="1" level="0"><match>x</match><description>x</description></rule></group>'
CHILD = PARENT.replace('id="1" level="0">', 'id="2" level="7"><if_sid>1</if_sid>').replace("x<", "y<")


def test_each_file_is_taken_by_what_it_is_and_what_is_different_is_said(run: Run, source: Path, tmp_path: Path) -> None:
    """Sigma's as they are, the others as Python, which is in force as any rule."""
    (source / "many.yaml").write_text(ELASTALERT)
    (source / "own.xml").write_text(CHILD)
    (source / "pom.xml").write_text("<project/>")
    parents = tmp_path / "parents.xml"
    parents.write_text(PARENT)
    status, out, _ = run("import", str(source), "--parents", str(parents))
    made = json.loads(run("import", str(source), "--json")[1])
    tested, listed = run("test"), run("list")[1]

    assert (status, tested[0]) == (0, 0)
    assert "taken: many.yaml, as elastalert_many.py" in out
    assert "taken: own.xml, as wazuh_own.py" in out
    assert "different: ElastAlert knows no severity: medium is a guess. (elastalert_many)" in out
    assert "left: pom.xml: it is no file of Wazuh's rules: it has <project>" in out
    assert "Taken: 3 files (3 added, 0 updated, 0 unchanged) with 3 rules" in out
    assert "rule 1, which it refers to, is not here" in made["left"]["own.xml: rule 2"]
    assert made["written"] == {"many.yaml": "elastalert_many.py"}
    assert all(name in listed for name in ("elastalert_many", "wazuh_2", "good"))


def test_a_format_that_is_named_is_what_files_are_read_as(run: Run, source: Path, tmp_path: Path) -> None:
    """Files of other endings are passed over, and of one that is none of it, it is said."""
    (source / "own.xml").write_text(CHILD)
    (tmp_path / "flow.yml").write_text("{name: Flow, type: any, filter: [{term: {a: b}}]}")
    left = json.loads(run("import", str(source), "--format", "elastalert", "--json")[1])["left"]
    taken = json.loads(run("import", str(tmp_path / "flow.yml"), "--format", "elastalert", "--json")[1])["taken"]

    assert set(left) == {"placeholder.yml", "win/good.yml"}
    assert "it is no rule of ElastAlert 2: it has no type" in left["win/good.yml"]
    assert taken == {"flow.yml": "added"}


def test_a_zip_file_writes_converted_rules_nowhere_else(run: Run, tmp_path: Path) -> None:
    """Whatever its names say; two files of one name become two."""
    path = tmp_path / "rules.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/own.xml", CHILD.replace("<if_sid>1</if_sid>", ""))
        archive.writestr("b/own.xml", PARENT.replace('id="1" level="0"', 'id="3" level="3"'))
        archive.writestr("../evil.xml", CHILD)
        archive.writestr("/evil.yaml", ELASTALERT)
        archive.writestr("c\\..\\evil.xml", CHILD)
    made = json.loads(run("import", str(path), "--to", str(tmp_path / "to"), "--json")[1])

    assert set(made["taken"]) == {"a/own.xml", "b/own.xml"}
    assert made["left"] == {}
    assert sorted(one.name for one in tmp_path.rglob("*.py")) == sorted(made["written"].values())
    assert len({*made["written"].values()}) == 2


def test_a_correlation_may_refer_to_a_rule_that_was_imported_before(run: Run, source: Path, tmp_path: Path) -> None:
    """Without it, it is left, and says what it misses."""
    own = tmp_path / "own"
    own.mkdir()
    (own / "many.yml").write_text(CORRELATION)
    left = json.loads(run("import", str(own), "--json")[1])["left"]
    run("import", str(source))
    taken = json.loads(run("import", str(own), "--json")[1])
    names = [one["name"] for one in json.loads(run("list", "--json")[1])["rules"] if one["origin"]]

    assert left == {"many.yml": "Many: there is no rule with the id or name 'good' that it refers to"}
    assert (taken["taken"], names) == ({"many.yml": "added"}, ["many"])


def test_a_long_import_says_how_far_it_is(run: Run, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On standard error, so that --json stays JSON."""
    monkeypatch.setattr("logweir_workers.commands.rules_import._TELL_INTERVAL_S", 0.0)
    _, out, err = run("import", str(source), "--json")

    assert "1 of 2 files read" in err
    assert json.loads(out)["rules"] == 1


def test_imported_rules_are_listed_explained_and_asked_for_no_runbook(run: Run, source: Path) -> None:
    """What is not asked is said."""
    run("import", str(source))
    event = '{"details": {"logsource": {"product": "test"}, "f": "A"}, "hostname": "web1"}'
    explained = run("explain", "good", event)[1]
    status, linted, _ = run("lint")
    tested = run("test")[0]
    (row,) = [one for one in json.loads(run("list", "--json")[1])["rules"] if one["name"] == "good"]
    alone = run("lint", str(source / "win/good.yml"))

    assert "yes log source product test" in explained
    assert "yes f is a   (it is A)" in explained
    assert "group hostname: web1" in explained
    assert "The event is for good." in explained
    assert (status, tested, alone[0]) == (0, 0, 0)
    assert "Of 1 imported rule neither runbook nor examples are asked." in linted
    assert (row["where"], row["severity"], row["origin"]["author"]) == ("Good", "high", "Ada")
