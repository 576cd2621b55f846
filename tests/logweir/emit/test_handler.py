"""The handler in programs: configured, forked, ended, monkey-patched; against the real door."""

from __future__ import annotations

import json
import logging
import logging.config
import logging.handlers
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from logweir.emit import LogweirFormatter, LogweirHandler
from tests.ingest.helpers import Door, SecureDoor, is_ready, running
from tests.logweir.emit import programs
from tests.logweir.emit.conftest import MakeLogger
from tests.logweir.emit.stub import accept, stub
from tests.services.process import free_port
from tests.waiting import until


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with running(Door(tmp_path_factory.mktemp("door"))) as found:
        until(lambda: is_ready(found))
        yield found


def url_of(door: Door) -> str:
    return f"http://127.0.0.1:{door.port}"


def run_of(door: Door, emitter_word: str) -> programs.Run:
    """The only run with an event that has the word in its summary."""
    (run,) = [run for run in programs.runs_of(door).values() if any(emitter_word in text for text in run.summaries)]
    return run


# --- configuration -------------------------------------------------------------------------------------------------
def test_everything_that_was_logged_is_at_the_door_numbered(make_logger: MakeLogger, door: Door) -> None:
    """Ten thousand calls from several threads: each once, in a run without a gap that ends with a goodbye."""
    logger, handler = make_logger(url_of(door), door.key, category="shop")

    def work(name: int) -> None:
        for number in range(2500):
            logger.info("all %d-%d", name, number)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert handler.flush(50)
    handler.close()

    run = run_of(door, "all ")
    assert sorted(run.summaries) == sorted(f"all {name}-{number}" for name in range(4) for number in range(2500))
    assert (run.high, run.missing, run.dropped, run.bye) == (10_000, [], {}, True)
    assert {event["category"] for event in run.events} == {"shop"}


def test_dict_config_and_environment(door: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it can be said in a dictConfig; URL and key come from the environment."""
    monkeypatch.setenv("LOGWEIR_URL", url_of(door))
    monkeypatch.setenv("LOGWEIR_KEY", door.key)
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"event": {"()": "logweir.emit.LogweirFormatter", "details": {"release": "7"}}},
            "handlers": {
                "logweir": {
                    "class": "logweir.emit.LogweirHandler",
                    "level": "INFO",
                    "formatter": "event",
                    "emitter": "configured",
                    "buffer_dir": str(tmp_path / "buffer"),
                }
            },
            "loggers": {"configured": {"level": "DEBUG", "handlers": ["logweir"], "propagate": False}},
        }
    )
    (handler,) = logging.getLogger("configured").handlers
    assert isinstance(handler, LogweirHandler)
    logging.getLogger("configured").info("by dictConfig")
    logging.getLogger("configured").debug("too low")
    handler.close()
    logging.getLogger("configured").handlers.clear()

    run = run_of(door, "by dictConfig")
    assert run.events[0]["details"]["release"] == "7"
    assert run.high == 1
    assert run.bye


def test_tls_with_an_authority_of_ones_own(make_logger: MakeLogger, tmp_path: Path) -> None:
    """The CA file is what is trusted; without it nothing is sent, and nothing lost."""
    (tmp_path / "data").mkdir()
    with running(SecureDoor(tmp_path / "data")) as door:
        assert isinstance(door, SecureDoor)
        until(lambda: is_ready(door))
        url = f"https://127.0.0.1:{door.port}"
        logger, handler = make_logger(url, door.key, ca_file=door.authority.certificate)
        logger.info("trusted")
        assert handler.flush(50)
        stranger, strangers = make_logger(url, door.key, exit_timeout_s=0.2)
        stranger.info("not trusted")
        assert not strangers.flush(1)
        handler.close()

        assert [text for run in programs.runs_of(door).values() for text in run.summaries] == ["trusted"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"url": ""}, "LOGWEIR_URL"),
        ({"url": "logs.example.org:8080"}, "http://host:port"),
        ({"url": "http://ann:secret@logs.example.org"}, "password"),
        ({"key": ""}, "no key"),
        ({"key": "lw_sec ret"}, "no key has"),
        ({"key": "lw_secret\r\nX: y"}, "no key has"),
        ({"emitter": "a\nb"}, "emitter"),
        ({"emitter": "x" * 257}, "emitter"),
        ({"batch_events_max": 0}, "batch_events_max"),
        ({"timeout_s": -1}, "timeout_s"),
    ],
)
def test_setting_that_cannot_work_is_said_at_once(
    options: dict[str, object], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the handler is made, with the setting's name, and never with the key or a password."""
    monkeypatch.delenv("LOGWEIR_URL", raising=False)
    monkeypatch.delenv("LOGWEIR_KEY", raising=False)
    with pytest.raises(ValueError, match=words) as raised:
        LogweirHandler(**{"url": "http://127.0.0.1:1", "key": "lw_secret", **options})

    assert "secret" not in str(raised.value)


def test_key_is_shown_nowhere(make_logger: MakeLogger, caplog: pytest.LogCaptureFixture) -> None:
    """Not by repr, nor in what is logged when the door does not answer, nor in the attributes' own words."""
    logger, handler = make_logger(f"http://127.0.0.1:{free_port()}", "lw_secretsecret", exit_timeout_s=0.2)
    logger.info("x")
    handler.flush(0.5)

    shown = repr(handler) + str(handler) + repr(vars(handler)) + repr(handler._sender) + caplog.text
    assert "does not take events" in caplog.text
    assert "secretsecret" not in shown


# --- what it sends -------------------------------------------------------------------------------------------------
def test_formatter_of_another_kind_makes_the_summary(make_logger: MakeLogger) -> None:
    """Any formatter of logging is good; what it makes is text, the other fields are as ever."""
    with stub() as door:
        logger, handler = make_logger(door.url, category="shop")
        handler.setFormatter(logging.Formatter("[%(levelname)s] %(message)s"))
        logger.warning("disk %d %% full", 93, extra={"disk": "sda"})
        handler.flush()

    assert door.events[0]["summary"] == "[WARNING] disk 93 % full"
    assert door.events[0]["severity"] == "WARNING"
    assert door.events[0]["category"] == "shop"
    assert door.events[0]["details"]["disk"] == "sda"


def test_formatter_that_fails_loses_its_event_alone_and_by_count(
    make_logger: MakeLogger, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The logging call does not raise, the number is told as dropped, logging says so as it always does."""

    class Failing(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            raise RuntimeError("no format")

    with stub() as door:
        logger, handler = make_logger(door.url)
        formatter = handler.formatter
        handler.setFormatter(Failing())
        logger.info("lost")
        handler.setFormatter(formatter)
        logger.info("good")
        handler.flush()

    assert door.posted[-1].headers["log-dropped"] == "unformattable=1"
    assert door.accepted_numbers == [2]
    assert "RuntimeError: no format" in capsys.readouterr().err


def test_formatter_of_several_lines_is_one_event(make_logger: MakeLogger) -> None:
    """A subclass that indents its JSON does not break the batch."""

    class Indented(LogweirFormatter):
        def format(self, record: logging.LogRecord) -> str:
            return json.dumps(json.loads(super().format(record)), indent=2)

    with stub() as door:
        logger, handler = make_logger(door.url)
        handler.setFormatter(Indented())
        logger.info("a\nb")
        handler.flush()

    assert [event["summary"] for event in door.events] == ["a\nb"]


def test_what_the_handler_logs_itself_is_not_sent(make_logger: MakeLogger) -> None:
    """Nor what libraries log in its threads: that would never end."""
    with stub() as door:
        logger, handler = make_logger(door.url)
        root = logging.getLogger()
        root.addHandler(handler)

        def respond(posted: object) -> object:
            return accept(posted)  # type: ignore[arg-type]

        original = handler._door.__class__._exchange

        def chatty(*arguments: object) -> object:
            logging.getLogger("http.library").warning("a request is made")
            return original(*arguments)  # type: ignore[arg-type]

        try:
            handler._door.__class__._exchange = chatty  # type: ignore[method-assign, assignment]
            logging.getLogger("logweir.emit").warning("of its own")
            logger.info("one")
            handler.flush()
            time.sleep(0.5)
        finally:
            handler._door.__class__._exchange = original  # type: ignore[method-assign]
            root.removeHandler(handler)

    assert [event["summary"] for event in door.events] == ["one"]
    assert len(door.posted) == 1


def test_logging_in_a_signal_handler_while_logging_does_not_block(tmp_path: Path) -> None:
    """A signal that arrives inside of a logging call, and logs: each event is sent, none twice."""
    code = """
import signal
count = [0]
def again(*_):
    count[0] += 1
    log.info("in the signal handler")
signal.signal(signal.SIGALRM, again)
signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
for number in range(20000):
    log.info("in the program")
signal.setitimer(signal.ITIMER_REAL, 0)
print(count[0])
"""
    with stub() as door:
        out, _ = programs.run(code, door.url, buffer_dir=str(tmp_path / "buffer"), exit_timeout_s=30)

    assert int(out) > 10
    assert door.accepted_numbers == list(range(1, 20_001 + int(out)))


# --- begin and end -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("buffered", [False, True])
def test_program_that_ends_sends_what_is_left(door: Door, tmp_path: Path, buffered: bool) -> None:
    """No flush, no close: at its end everything is delivered, with a goodbye, and no file is left."""
    options = {"buffer_dir": str(tmp_path / "buffer")} if buffered else {}
    word = f"ending {buffered}"
    programs.run(f"for n in range(3000): log.info('{word} %d', n)", url_of(door), door.key, **options)

    run = run_of(door, word)
    assert (run.high, run.missing, run.bye) == (3000, [], True)
    assert not programs.files_in(tmp_path)


def test_what_is_logged_at_the_very_end_is_sent_too(door: Door) -> None:
    """What other exit handlers log behind ours begins another run, which logging's own end closes."""
    code = """
import atexit
atexit._clear()
atexit.register(logging.shutdown)
atexit.register(lambda: log.info("very last"))
from logweir.emit import handler
atexit.register(handler._close_all)
log.info("last but one")
"""
    programs.run(code, url_of(door), door.key)

    before, after = run_of(door, "last but one"), run_of(door, "very last")
    assert before.bye
    assert after.bye
    assert after.previous is not None
    assert after.previous[1] == 1


@pytest.mark.parametrize("buffered", [False, True])
def test_end_waits_for_a_door_that_is_away_no_longer_than_allowed(tmp_path: Path, buffered: bool) -> None:
    """In memory for exit_timeout_s, in vain; what is in files need not be waited for."""
    # The last try may be a moment before the end of the time.
    options = {"buffer_dir": str(tmp_path / "buffer"), "exit_timeout_s": 15} if buffered else {"exit_timeout_s": 3}
    began_s = time.monotonic()
    programs.run("for n in range(1000): log.info('x')", f"http://127.0.0.1:{free_port()}", **options)
    took_s = time.monotonic() - began_s

    assert took_s < 14 if buffered else took_s >= 2
    assert bool(programs.files_in(tmp_path)) == buffered


def test_end_in_time_tells_what_could_not_be_sent(tmp_path: Path) -> None:
    """A door that is too slow for what is left hears of it in the goodbye: dropped, not lost."""

    def respond(posted: object) -> object:
        time.sleep(0.3 if getattr(posted, "events", None) else 0)
        return accept(posted)  # type: ignore[arg-type]

    with stub(respond) as door:  # type: ignore[arg-type]
        programs.run(
            "for n in range(100): log.info('x')", door.url, batch_events_max=2, batch_age_s_max=0.01, exit_timeout_s=2
        )
        last = door.posted[-1].headers

    dropped = int(last["log-dropped"].removeprefix("exit_timeout="))
    assert last["log-bye"] == "1"
    assert len(door.accepted_numbers) + dropped == int(last["log-high"]) == 100


def test_handler_that_a_new_configuration_closed_goes_on(make_logger: MakeLogger) -> None:
    """dictConfig closes all handlers, also of loggers that it leaves alone: the next event begins another run."""
    with stub() as door:
        logger, handler = make_logger(door.url)
        logger.info("before")
        logging.config.dictConfig({"version": 1, "disable_existing_loggers": False})
        logger.info("after")
        assert handler.flush()

    first, goodbye, second = (posted.headers for posted in door.posted)
    assert goodbye["log-bye"] == "1"
    assert second["log-prev"] == f"{first['log-epoch']}:1"
    assert [event["summary"] for event in door.events] == ["before", "after"]


def test_thread_that_has_the_number_of_one_that_ended_is_heard(make_logger: MakeLogger) -> None:
    """The system gives the numbers of threads again: what the handler leaves out is of its living threads only."""
    with stub() as door:
        logger, handler = make_logger(door.url)
        logger.info("first")
        ours = handler._own_threads
        handler.close()

        assert ours
        assert not handler._own_threads


def test_closed_twice_and_never_used_is_fine(make_logger: MakeLogger) -> None:
    """No thread and no request before the first event."""
    before = threading.active_count()
    with stub() as door:
        _, handler = make_logger(door.url)
        assert threading.active_count() <= before + 2
        assert handler.flush()
        handler.close()
        handler.close()

    assert door.posted == []


# --- forks ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("buffered", [False, True])
def test_forked_children_have_runs_of_their_own(door: Door, tmp_path: Path, buffered: bool) -> None:
    """Parent and children that log on all the while: each event comes once, each run is whole."""
    options = {"buffer_dir": str(tmp_path / "buffer")} if buffered else {}
    word = f"forked {buffered}"
    code = f"""
for n in range(100): log.info("{word} parent %d", n)
children = []
for child in range(4):
    log.info("{word} parent forks")
    if (pid := os.fork()) == 0:
        for n in range(500): log.info("{word} child %d %d", child, n)
        logging.shutdown()
        os._exit(0)
    children.append(pid)
for n in range(1000): log.info("{word} parent %d", n)
for pid in children: assert os.waitpid(pid, 0)[1] == 0
"""
    programs.run(code, url_of(door), door.key, **options)

    found = [run for run in programs.runs_of(door).values() if any(word in text for text in run.summaries)]
    assert sorted(run.high for run in found) == [500, 500, 500, 500, 1104]
    assert [(run.missing, run.bye) for run in found] == [([], True)] * 5
    for run in found:
        assert len({event["processid"] for event in run.events}) == 1
    assert not programs.files_in(tmp_path)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_of_multiprocessing_send_what_they_log(door: Door, method: str, tmp_path: Path) -> None:
    """They end without what atexit was given; their last events arrive all the same."""
    program = tmp_path / "program.py"
    program.write_text(
        f"""
import logging, multiprocessing, sys
from logweir.emit import LogweirHandler

def work(number):
    log = logging.getLogger("app")
    if not logging.getLogger().handlers:
        logging.basicConfig(level=logging.INFO, handlers=[LogweirHandler()])
    for n in range(200):
        log.info("children {method} %d %d", number, n)

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, handlers=[LogweirHandler()])
    logging.getLogger("app").info("children {method} begin")
    context = multiprocessing.get_context("{method}")
    processes = [context.Process(target=work, args=(number,)) for number in range(2)]
    for process in processes: process.start()
    for process in processes: process.join()
    sys.exit(sum(process.exitcode for process in processes))
"""
    )
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[3]),
        "LOGWEIR_URL": url_of(door),
        "LOGWEIR_KEY": door.key,
    }
    subprocess.run([sys.executable, str(program)], env=environment, check=True, timeout=50)

    runs = [run for run in programs.runs_of(door).values() if any(f"children {method}" in one for one in run.summaries)]
    assert sorted(run.high for run in runs) == [1, 200, 200]
    assert [(run.missing, run.bye) for run in runs] == [([], True)] * 3


# --- greenlets -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("buffered", [False, True])
@pytest.mark.parametrize("library", ["gevent", "eventlet"])
def test_works_under_monkey_patches(door: Door, tmp_path: Path, library: str, buffered: bool) -> None:
    """Under gevent and eventlet other greenlets run on while events are sent, and all arrive."""
    options = {"buffer_dir": str(tmp_path / "buffer"), "fsync_interval_s": None} if buffered else {}
    word = f"{library} {buffered}"
    patch, sleep, spawn = {
        "gevent": ("from gevent import monkey; monkey.patch_all()", "gevent.sleep", "gevent.spawn"),
        "eventlet": ("eventlet.monkey_patch()", "eventlet.sleep", "eventlet.spawn"),
    }[library]
    code = f"""
import {library}
{patch}
OPTIONS = {options!r}
{programs.BEGIN}
worst = 0.0
def tick():
    global worst
    while True:
        before = time.monotonic()
        {sleep}(0.01)
        worst = max(worst, time.monotonic() - before)
{spawn}(tick)
for n in range(3000):
    log.info("{word} %d", n)
    if n % 10 == 0: {sleep}(0.001)
assert logging.getLogger().handlers[0].flush(50)
print(worst)
"""
    out, _ = programs.ended(programs.start_bare(code, url_of(door), door.key))

    run = run_of(door, word)
    assert (run.high, run.missing, run.bye) == (3000, [], True)
    assert float(out) < 2


def test_greenlets_run_on_while_the_door_hangs() -> None:
    """A request that gets no answer blocks its own greenlet only."""
    code = f"""
from gevent import monkey; monkey.patch_all()
import gevent
OPTIONS = {{"timeout_s": 30, "exit_timeout_s": 0.5, "batch_age_s_max": 0.01}}
{programs.BEGIN}
log.info("x")
gevent.sleep(0.3)
before = time.monotonic()
for n in range(20): gevent.sleep(0.01); log.info("y")
print(time.monotonic() - before)
"""

    def respond(posted: object) -> object:
        time.sleep(20)

    with stub(respond) as door:  # type: ignore[arg-type]
        out, _ = programs.ended(programs.start_bare(code, door.url))

    assert float(out) < 5


# --- what it costs -------------------------------------------------------------------------------------------------
def test_logging_calls_do_not_wait_for_a_door_that_hangs(make_logger: MakeLogger) -> None:
    """While the thread waits for an answer, a call takes what it always does."""
    hang = threading.Event()

    def respond(posted: object) -> object:
        hang.wait(20)
        return accept(posted)  # type: ignore[arg-type]

    with stub(respond) as door:  # type: ignore[arg-type]
        logger, _ = make_logger(door.url, exit_timeout_s=0.1)
        logger.info("x")
        until(lambda: threading.active_count() > 1)
        time.sleep(0.2)
        took_s = []
        for _ in range(2000):
            began_s = time.perf_counter()
            logger.info("y")
            took_s.append(time.perf_counter() - began_s)
        hang.set()

    assert sorted(took_s)[1000] < 0.0005
    assert sum(took_s) < 2


def test_works_without_what_only_unix_has() -> None:
    """Without fcntl and fork hooks, as on Windows, events are buffered in memory; a folder is refused plainly."""
    code = (
        """
import logging, os, secrets, sys
sys.modules["fcntl"] = None
del os.register_at_fork
OPTIONS = {}
"""
        + programs.BEGIN
        + """
log.info("on windows")
try:
    LogweirHandler(buffer_dir="here")
except OSError as error:
    print(error)
"""
    )
    with stub() as door:
        out, _ = programs.ended(programs.start_bare(code, door.url))

    assert [event["summary"] for event in door.events] == ["on windows"]
    assert "cannot be locked" in out
