"""Files of rules that are broken: what becomes of their rules, and who says so."""

from __future__ import annotations

import shutil

import pytest

from logweir import clock
from logweir.config import Settings
from logweir.queue.port import Queue
from logweir.store.port import Store
from logweir_workers.alerts.loading import RuleFiles
from tests.waiting import until
from tests.workers.alerts.test_engine import RULES, alerts_of, an_engine, batch, login, read_all, settings  # noqa: F401 - a fixture
from tests.workers.alerts.test_states import Run, run  # noqa: F401 - fixtures
from tests.workers.helpers import Door

AS_READ = "Until then its rules are evaluated as they were read last."
NOT_AT_ALL = "Until then its rules are not evaluated."


def test_after_a_restart_the_rules_of_a_broken_file_go_on_as_they_were_read_last(
    settings: Settings,  # noqa: F811
    queue: Queue,
    store: Store,
    door: Door,
    run: Run,  # noqa: F811
) -> None:
    """With what they had counted; doctor complains, and the list has them, marked."""
    engine = an_engine(settings, queue, store)
    for at in range(3):
        door.write(batch(login("failure", at=at)))
    read_all(engine, queue)
    engine._checkpoint.write(engine.progress, engine.evaluator.groups, clock=clock.now_us)
    (settings.rules_path / "own.py").write_text("this is no Python")
    engine = an_engine(settings, queue, store)
    engine.read_states()
    for at in range(3, 5):
        door.write(batch(login("failure", at=at)))
    read_all(engine, queue)
    engine._flush()
    engine._checkpoint.write(engine.progress, engine.evaluator.groups, clock=clock.now_us)
    doctor = run("doctor")[1]
    status, out, err = run("rules", "list")
    shutil.rmtree(settings.rules_last_read_path)
    elsewhere = run("rules", "list")[1]

    assert [one["count"] for one in alerts_of(store, "rule:failures")] == [5]
    assert AS_READ in str(engine.in_force.files.problems[0])
    assert "3 rules evaluated, but for files of rules: The rules in" in doctor
    assert (status, AS_READ in err) == (1, True)
    assert [line.split()[0] for line in out.splitlines() if "as read last, its file cannot be read" in line] == [
        *("failures", "raising", "success_after_failures"),
    ]
    assert elsewhere == out


@pytest.mark.parametrize(
    "text",
    [
        "this is no Python",
        "import sys; sys.exit(0)",
        RULES.replace('raise ValueError("never works")', "raise SystemExit"),
        RULES.replace('severity="low"', 'severity="lowest"'),
    ],
)
def test_a_file_that_never_could_be_read_brings_no_rules_and_says_so(
    settings: Settings,  # noqa: F811
    text: str,
) -> None:
    """Whatever is wrong with it, the path is in the message; read once, its rules stay."""
    own = settings.rules_path / "own.py"
    own.write_text(text)
    files = RuleFiles(settings.alerts, settings.rules_path, last_read=settings.rules_last_read_path)
    never = (set(files.rules), str(files.problems[0]))
    own.write_text(RULES)
    files.reload()
    files.keep()
    own.write_text(text)
    files.reload()
    then = (len(files.rules), str(files.problems[0]))
    own.unlink()
    files.reload()
    files.keep()

    assert (never[0], NOT_AT_ALL in never[1], str(own) in never[1]) == (set(), True, True)
    assert (then[0], AS_READ in then[1]) == (3, True)
    assert (files.rules, files.problems, list(settings.rules_last_read_path.iterdir())) == ({}, [], [])


@pytest.mark.parametrize(
    "text", ["while True: pass", RULES.replace('raise ValueError("never works")', "while True: pass")]
)
def test_a_file_that_never_comes_to_its_end_is_given_up(
    settings: Settings,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    text: str,
) -> None:
    """Neither the file itself, nor what a rule's function does the first time that it is asked."""
    monkeypatch.setattr("logweir_workers.alerts.guard.CALL_S_MAX", 0.2)
    (settings.rules_path / "own.py").write_text(text)

    files = RuleFiles(settings.alerts, settings.rules_path)

    assert (len(files.rules), "it took longer than" in str(files.problems[0])) == (0, True)


def test_a_rule_whose_example_fails_is_named_and_is_in_force_all_the_same(
    settings: Settings,  # noqa: F811
    queue: Queue,
    store: Store,
    run: Run,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """By the log and the list; not any more once it is mended. Examples that never end are ended."""
    own = settings.rules_path / "own.py"
    example = "\nfrom logweir.alerts import event\nraising.example('one', [event(summary='%s')], alerts=1)\n"
    own.write_text(RULES.replace('raise ValueError("never works")', 'return "x"') + example % "nothing")
    engine = an_engine(settings, queue, store)

    def turned() -> None:
        engine.in_force.examples.turn()
        until(lambda: engine.in_force.examples._running is None or engine.in_force.examples.turn())
        engine._note_rules()
        engine._checkpoint.write(engine.progress, engine.evaluator.groups, clock=clock.now_us)

    turned()
    failing = run("rules", "list")[1]
    own.write_text(RULES.replace('raise ValueError("never works")', 'return "x"') + example % "unheard")
    engine.reload()
    turned()
    mended = run("rules", "list")[1]
    monkeypatch.setattr("logweir_workers.alerts.example_checks.CHECK_S_MAX", 2.0)
    own.write_text(
        RULES.replace('raise ValueError("never works")', "\n    while found.count: pass") + example % "unheard"
    )
    engine.in_force.files.reload()
    engine.in_force.note_files()
    turned()

    assert "an example of it fails, 'one': it makes 0 alerts of them, and should make 1" in failing
    assert any("The rule raising is in force, and an example of it fails" in text for text in caplog.messages)
    assert "an example of it fails" not in mended
    assert engine.in_force.examples.failed == {"raising": "its file's examples did not come to an end within 2 s"}


def test_two_rules_of_one_name_are_a_problem_until_one_is_renamed(settings: Settings) -> None:  # noqa: F811
    """In whichever file that is done."""
    (settings.rules_path / "other.py").write_text(RULES)
    files = RuleFiles(settings.alerts, settings.rules_path)
    problems = [str(one) for one in files.problems]
    (settings.rules_path / "other.py").write_text("")
    files.reload()

    assert len(problems) == 3
    assert all("there is another rule" in one and "the other one is evaluated" in one for one in problems)
    assert (files.problems, files.broken) == ([], set())
