"""The command line: a table of subcommands, each imported only when it is used.

A subcommand's module has ``add_arguments(parser)`` and ``run(arguments, settings) -> exit status``; one whose arguments
may begin with a dash has ``unambiguous(words)``, which gives them so that they are not taken for options.
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from logweir import __version__
from logweir.errors import FILE_FAILED, PARAMETER_BAD, SERVER_EXTRA_MISSING, LogweirError
from logweir.process import logs
from logweir.text import printable


@dataclass(frozen=True, slots=True)
class Command:
    name: str
    help: str
    module: str


COMMANDS = (
    Command("up", "run the whole product on this machine", "logweir.commands.up"),
    Command("ingest", "run the door: HTTP in, queue out", "logweir_ingest.server"),
    Command("worker", "run a worker: queue in, store out", "logweir_workers.worker"),
    Command("console", "run the web console", "logweir_console.server"),
    Command("exporter", "publish the ledger's figures for Prometheus", "logweir_workers.exporter.exporter"),
    Command("alerter", "ask rules of every event, and write down alerts", "logweir_workers.alerts.alerter"),
    Command(
        "alerts",
        "list and show alerts; acknowledge, assign, note, snooze, close and reopen them",
        "logweir.commands.alerts",
    ),
    Command("rules", "list, check, test and explain the rules that make alerts", "logweir_workers.commands.rules"),
    Command(
        "channels", "list and test the channels by which people are told of alerts", "logweir_workers.commands.channels"
    ),
    Command("lists", "see and change the lists of values that rules and searches name", "logweir.commands.lists"),
    Command(
        "exceptions", "keep some events from counting for a rule, for a while", "logweir_workers.commands.exceptions"
    ),
    Command("mutes", "tell nobody of some alerts for a while", "logweir.commands.mutes"),
    Command("keys", "make, list, change, exchange and revoke the keys that emitters send", "logweir.commands.keys"),
    Command("search", "search the stored events", "logweir.commands.search"),
    Command("audit", "close the books: what became of every event, and which never came", "logweir.commands.audit"),
    Command("emitters", "list who sends, who fell silent, and what is lost or missing", "logweir.commands.emitters"),
    Command("replay", "create anew what is missing in the store, or redo all of it", "logweir_workers.commands.replay"),
    Command(
        "deadletters",
        "list, show, export, retry or drop what could not be indexed or read",
        "logweir_workers.commands.deadletters",
    ),
    Command("filters", "check the rules that leave events out on purpose", "logweir_workers.commands.filters"),
    Command("parse", "show what becomes of lines: fields, which parser, time taken", "logweir_workers.commands.parse"),
    Command("queue", "save what can be read of a damaged embedded queue", "logweir.commands.queue"),
    Command("receipt", "ask a door what became of a batch", "logweir.commands.receipt"),
    Command("send", "post events from a file or standard input", "logweir.commands.send"),
    Command("doctor", "check configuration, certificate, queue, store, disk and clock", "logweir.commands.doctor"),
    Command("config", "print every setting: its value, where it is set, what it means", "logweir.commands.config"),
)


def main(argv: list[str] | None = None) -> int:
    """Run one subcommand; gives the exit status. A user's mistake is one line on standard error and status 2.

    The line of a command that logs is a log line.
    """
    # Read first, wherever they stand: neither the top nor a subcommand's own subcommands would know them.
    common, words = _common_parser().parse_known_args(sys.argv[1:] if argv is None else argv)
    command = next((row for row in COMMANDS if words and row.name == words[0]), None)
    if command is None:
        _top_parser().parse_args(words)
        _top_parser().print_help()
        return 2
    # What a command writes (events, keys, locks) is its owner's alone.
    umask_before = os.umask(0o077)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # A terminal need not know every letter.
    try:
        _require_text(words[1:])
        return _run(command, words[1:], common)
    except LogweirError as error:
        if not logs.last_words(error):
            print(f"logweir {command.name}: {printable(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output (head, less) has gone: not an error, but Python's own flush at exit must not say so.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    finally:
        os.umask(umask_before)


@contextmanager
def _ending_at_once() -> Iterator[None]:
    """Until a command listens itself, Ctrl-C ends the process in the system's own way.

    As an exception it is lost now and then: libraries that are imported take it for one of their own. What lost it ran
    on, and did not stop.
    """
    is_ours = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT)
    if not is_ours or before is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _run(command: Command, words: list[str], common: argparse.Namespace) -> int:
    try:
        with _ending_at_once():
            module = importlib.import_module(command.module)
            config = importlib.import_module("logweir.config")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("logweir"):
            raise
        raise LogweirError(SERVER_EXTRA_MISSING, command=command.name, module=error.name) from error
    parser = argparse.ArgumentParser(
        prog=f"logweir {command.name}",
        description=module.__doc__,
        parents=[_common_parser()],
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(parser)
    if hasattr(module, "unambiguous"):
        words = module.unambiguous(words)
    arguments = parser.parse_args(words, namespace=common)
    try:
        settings = config.settings_of(arguments)
        importlib.import_module("logweir.query.lists").use(settings.lists_path)
        status: int = module.run(arguments, settings)
    except OSError as error:
        # A file or folder that is in the way, such as a data folder that cannot be written.
        if error.filename is None or isinstance(error, BrokenPipeError):
            raise
        raise LogweirError(FILE_FAILED, path=os.fsdecode(error.filename), reason=error) from error
    return status


def _require_text(words: list[str]) -> None:
    """Raises LogweirError(PARAMETER_BAD) for what is not UTF-8, and no file's name either: nothing is called so."""
    for number, word in enumerate(words, start=1):
        is_text = word.isascii() or not any("\ud800" <= character <= "\udfff" for character in word)
        if not is_text and not os.path.lexists(word):
            raise LogweirError(PARAMETER_BAD, name=f"number {number}", value=word, expected="UTF-8")


def _common_parser() -> argparse.ArgumentParser:
    """What every command takes, before or behind its name."""
    parser = argparse.ArgumentParser(prog="logweir", add_help=False, allow_abbrev=False)
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="folder of everything that logweir keeps (data)")
    parser.add_argument("--config", type=Path, metavar="FILE", help="configuration file (logweir.toml)")
    return parser


def _top_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="logweir",
        description="The log pipeline that can prove what it did with every event.",
        epilog="`logweir COMMAND --help` says more. Every command takes --data-dir, --config and LOGWEIR_… variables.",
    )
    parser.add_argument("--version", action="version", version=f"logweir {__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND")
    for command in COMMANDS:
        subparsers.add_parser(command.name, help=command.help)
    return parser


if __name__ == "__main__":
    sys.exit(main())
