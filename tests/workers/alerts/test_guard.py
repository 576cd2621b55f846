"""Rules' own code that does not come back: interrupted where it can be, else found by the next process."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from logweir_workers.alerts import guard
from logweir_workers.alerts.guard import Guard, RuleEnds, RuleTooSlow


@pytest.fixture(autouse=True)
def signals_are_left_as_found() -> Iterator[None]:
    before = signal.getsignal(signal.SIGALRM)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_a_loop_is_interrupted_and_leaves_no_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "CALL_S_MAX", 0.05)
    watching = Guard(tmp_path / "rule")
    with pytest.raises(RuleTooSlow), watching.running("looping"):
        while True:
            pass
    monkeypatch.setattr(guard, "CALL_S_MAX", 5.0)
    with watching.running("fine"):
        pass
    watching.close()

    assert Guard(tmp_path / "rule").found == ""


def test_code_that_looks_at_no_signal_ends_the_process_and_is_known_to_the_next(tmp_path: Path) -> None:
    """As an expression that backtracks for ever; the traceback is in the log."""
    program = textwrap.dedent("""
        import re, sys
        from pathlib import Path
        from logweir_workers.alerts import guard
        guard.STUCK_S_MAX = 0.3
        watching = guard.Guard(Path(sys.argv[1]))
        watching.watch()
        with watching.running("backtracking"):
            re.match(r"(a+)+$", "a" * 60 + "b")
    """)
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "rule")], capture_output=True, text=True, timeout=30
    )
    found = [Guard(tmp_path / "rule").found for _ in range(2)]

    assert done.returncode == 1
    assert "Timeout" in done.stderr and "re.match" not in done.stdout
    assert found == ["backtracking", ""]


def test_who_rests_is_not_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []
    monkeypatch.setattr(guard.faulthandler, "dump_traceback_later", lambda *_, **__: called.append("watch"))
    monkeypatch.setattr(guard.faulthandler, "cancel_dump_traceback_later", lambda: called.append("rest"))
    watching = Guard(tmp_path / "rule")
    watching.watch()
    watching.rest()
    watching.watch()
    watching.close()

    assert called == ["watch", "rest", "watch", "rest"]


def test_beside_the_main_thread_code_only_runs(tmp_path: Path) -> None:
    """Signals are the main thread's."""
    done: list[str] = []

    def run() -> None:
        watching = Guard(tmp_path / "rule")
        watching.watch()
        with watching.running("x"):
            done.append(watching.found)
        watching.close()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()

    assert done == [""]
    assert not (tmp_path / "rule").exists()


@pytest.mark.parametrize("end", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_what_would_end_the_process_is_an_error_of_the_rule(tmp_path: Path, end: type[BaseException]) -> None:
    """The mark is taken away; Ctrl-C is for commands, which have no file."""
    watching = Guard(tmp_path / "rule")

    with pytest.raises(RuleEnds, match=end.__name__), watching.running("ending"):
        raise end
    with pytest.raises(RuleEnds if end is not KeyboardInterrupt else end), Guard().running("ending"):
        raise end
    assert Guard(tmp_path / "rule").found == ""


def test_of_a_rule_that_forks_one_process_goes_on(tmp_path: Path) -> None:
    program = textwrap.dedent("""
        import os, sys
        from pathlib import Path
        from logweir_workers.alerts.guard import Guard
        with Guard(Path(sys.argv[1])).running("forking"):
            child = os.fork()
        assert os.waitpid(child, 0)[1] == 1 << 8
        print("one")
    """)
    command = [sys.executable, "-c", program, str(tmp_path / "rule")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert (done.stdout, done.stderr) == ("one\n", "")
