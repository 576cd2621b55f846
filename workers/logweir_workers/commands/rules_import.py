"""`logweir rules import`: take over rules of Sigma, ElastAlert 2 and Wazuh 4, and say what was left, and why."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from logweir.commands.output import print_json
from logweir.config import Settings
from logweir.text import counted, printable
from logweir_workers.alerts.importers.importing import FORMATS, import_rules
from logweir_workers.alerts.importers.report import Imported
from logweir_workers.alerts.sigma.plans import FILE_NAME, PlanCache

HELP = "take over rules of Sigma, ElastAlert 2 or Wazuh 4, and say which were left and why"
_SHOWN_MAX = 100
_RULES_SHOWN_MAX = 3
_TELL_INTERVAL_S = 2.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, metavar="DIR|ZIP", help="a folder or ZIP file of rules, or one file")
    parser.add_argument("--to", type=Path, metavar="DIR", help="where to (the folder of your own rules)")
    parser.add_argument("--format", choices=FORMATS, default="", help="whose rules they are (by what each file is)")
    parser.add_argument(
        "--parents",
        type=Path,
        metavar="DIR|ZIP",
        help="rules that those of Wazuh refer to, such as its own; they are not taken over",
    )


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """The exit status: 1 where nothing was taken."""
    due_s = time.monotonic() + _TELL_INTERVAL_S

    def tell(read: int, of: int) -> None:
        nonlocal due_s
        if time.monotonic() >= due_s:
            due_s = time.monotonic() + _TELL_INTERVAL_S
            print(f"{read:,} of {counted(of, 'file', separator=',')} read", file=sys.stderr)

    to = arguments.to or settings.rules_path
    cache = PlanCache(settings.rules_last_read_path / FILE_NAME)
    made = import_rules(arguments.source, to, cache, format=arguments.format, parents=arguments.parents, tell=tell)
    if arguments.json:
        print_json(made.as_json())
    else:
        _print(made)
    return 0 if made.taken else 1


def _print(made: Imported) -> None:
    _print_some([f"taken: {name}, as {path}" for name, path in sorted(made.written.items())])
    _print_some([f"different: {text} ({_rules_text(rules)})" for text, rules in _by_change(made).items()])
    _print_some([f"left: {name}: {reason}" for name, reason in sorted(made.left.items())])
    how = [f"{list(made.taken.values()).count(one):,} {one}" for one in ("added", "updated", "unchanged")]
    files, rules = counted(len(made.taken), "file", separator=","), counted(made.rules, "rule", separator=",")
    print(f"Taken: {files} ({', '.join(how)}) with {rules} to {made.to}. Left: {len(made.left):,}.")
    if made.silent:
        only = counted(made.silent, "rule", separator=",")
        print(f"For {only} others ask, so no alerts come of {'it' if made.silent == 1 else 'them'} alone.")


def _print_some(lines: list[str]) -> None:
    for line in lines[:_SHOWN_MAX]:
        print(printable(line))
    if len(lines) > _SHOWN_MAX:
        print(f"… and {len(lines) - _SHOWN_MAX:,} more, which --json has")


def _by_change(made: Imported) -> dict[str, list[str]]:
    """By what is different, in which rules."""
    found: dict[str, list[str]] = {}
    for rule, changes in made.changes.items():
        for one in changes:
            found.setdefault(one, []).append(rule)
    return found


def _rules_text(rules: list[str]) -> str:
    more = len(rules) - _RULES_SHOWN_MAX
    return ", ".join(rules[:_RULES_SHOWN_MAX]) + (f" and {more:,} more" if more > 0 else "")
