"""Write docs/reference/ from the tables in the code, which are the only place where each thing is said; and dashboards.

python deploy/generate.py            write what has changed
python deploy/generate.py --check    write nothing; name what is not current and end with 1
"""

from __future__ import annotations

import argparse
import ast
import importlib
import inspect
import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import dashboards
from pydantic.fields import FieldInfo

from logweir import cli, config, errors, event, limits, outcomes
from logweir.alerts.rules import Rule, WindowKind
from logweir.clock import DAY_US
from logweir.metrics.table import METRICS
from logweir_workers import parsers
from logweir_workers.alerts import loading
from logweir_workers.normalise import time_forms

REFERENCE = Path(__file__).resolve().parent.parent / "docs" / "reference"
_BY_HAND = "<!-- Made by deploy/generate.py from {source}: change that, not this page. -->\n"

_SETTINGS_HEAD = """\
A setting comes from, in this order, the last one that has it winning: its default; `logweir.toml` in the working folder
(or the file that `--config` or `LOGWEIR_CONFIG` names), where `queue.url` is `url` in the table `[queue]`; the
environment; the command line. An empty environment variable counts as not set. A list is written with commas in the
environment. `logweir config` prints the values in force; a name that is none of these is an error that suggests the
nearest.
"""
_PROBLEMS_HEAD = """\
Everything that can be wrong has a code, the same in HTTP answers, on the command line and in logs. An HTTP answer is
`application/problem+json` ([RFC 9457](https://www.rfc-editor.org/rfc/rfc9457)) with the members `type`, `title`,
`status`, `detail`, `advice`, `code` and the numbers in braces by their names. *Again* says whether the same request may
succeed later as it is.
"""
_LIMITS_HEAD = """\
Everything that a sender can make grow has a limit, a setting for it, an answer beyond it and a count of how often:
`logweir_ingest_rejected_requests_total` or `logweir_console_rejected_requests_total` by `reason`, which is the answer's
code. [Problems](problems.md) has each answer's words. What a request breaks of these, it breaks as a whole: none of its
events is accepted.

An answer of 408, 431, 503 for too many requests or connections, or 429 for requests sent ahead ends its connection,
behind the answers to earlier requests. `/healthz`, `/readyz` and `/metrics` are answered whatever the load. A key may
have quotas of its own (429 `quota_exceeded`); a request that brings no events, or cannot be read, takes one event and
256 bytes of them. Fixed by what they bound: the `Log-*` headers and `Idempotency-Key` (400
`emitter_header_bad` says how long each may be; no number, that of a request's last event included, is above 2^53 - 1,
so that whatever counts or reads it does so exactly), and a compressed body's parts and window
([JSON](json.md#compression)).

What all keys share, none may fill for the others. A tenth of the room for dead letters, and of the emitters and sources
that are tracked on a partition, is each key's own, whatever the others have taken. Of refused bodies, the oldest of a
key with more than half go first; of the emitters with series of their own, a key has half at most while there are
others; one large body of each key is let in beside all. Who is beyond its share is named in the log, and counted:
`logweir_worker_emitters_untracked_total`, `logweir_worker_sources_untracked_total`, `logweir_series_capped`,
`logweir_worker_paused{reason="dead_letters_full"}`, `logweir_worker_dead_letters_deleted_total`.
"""
_METRICS_HEAD = """\
Ingest and the console serve `/metrics` on their own ports, each worker on `worker.metrics_port` or the next free one
above, the exporter on `exporter.port`, the alerter on `alerts.metrics_port`. Histograms have `_bucket`, `_sum` and
`_count` as usual. Times are in seconds, sizes in bytes.
"""
_FIELDS_HEAD = """\
Every top-level field of a stored event. Whatever else an event brings along moves under `details`. The names in the
last column, from the Elastic Common Schema, mean the same field in a search.
"""
_DETAILS_HEAD = """\
These details have one name and one type, whoever sends them: [event.md](event.md#known-details) lists how senders call
them. A value that has not the form of its kind stays under the name that it was sent with. A search compares numbers
and addresses in their order, and keywords as those of the fields above; all of them by their text, too, as it does with
other details. It understands the names under "Also called". The last column has the parsers that fill a detail;
`country` is worked out from `sourceipaddress`, too ([enrich](../how-to/enrich.md)).
"""
_PARSERS_HEAD = """\
A worker reads what log lines say and adds it as [details](fields.md#known-details), between normalising an event and
its other enrichments. Nothing that the event has is changed: where a detail is there already, it stays; the message
stays as it is. A line that no parser understands stays untouched.

Which parser is asked is a look-up: by what the line begins with, else by the process, else by the category that the
event came with; objects by a member that only they have. `logweir parse FILE` shows what becomes of lines, and
[parse your own](../how-to/parse-your-own.md) how to add a parser. Below, each line is one of the parser's own tests.
A parser adds at most {fields} details, and no text of more than {length:,} characters.
"""
_RULES_HEAD = """\
The rules that come with logweir, in force unless `alerts.pack` is false ([alerting](../alerting.md)). Each links to
what to do when it fires. They look at the fields that [parsers](parsers.md) fill, so an event that says so itself, in
whatever format, is seen as well. `logweir rules test` runs their examples; how to have rules of your own says
[write a rule](../how-to/write-a-rule.md).
"""
_COMPOSE_BEGIN = "# --- every setting, by section: made by deploy/generate.py from logweir/config.py ---\n"
_COMPOSE_END = "# --- end of what deploy/generate.py makes ---"
_TIMES_HEAD = """\
How the time of an event may be written, in any of the names that [an event](event.md#names) has for it. Nothing is
guessed: a text that is none of these, or that could be two times, leaves the event with the time of its receipt and the
tag `time_unreadable`, and is kept under `details`.

Each example is noon of 31 January 2026 in UTC, a quarter of a second later, or that day. Upper and lower case are the
same. A zone may follow the time in almost all of them: `Z`, `+01:00`, `+0100`, `+01`, `UTC+1`, `GMT+01:00` (east of
Greenwich, all of these), or a name of the table below.
"""
_TIMES_RULES = """\
* Without a zone it is UTC. A day alone is its midnight.
* Without a year it is the latest that is at most seven days after the receipt: logs are late, seldom early.
* Digits beyond microseconds are cut, and the sent time is then kept under `details`.
* `24:00:00` is the midnight that ends the day. A leap second, `23:59:60` in UTC at the end of a month, is the last
  microsecond before it; anywhere else, second 60 is no time.
* Cisco's `*` and `.`, which say that the device's clock is not synchronised, are read over; what was sent is kept under
  `details`.
* `-`, RFC 5424's "not known", says no time: the event has that of its receipt, without a tag.
* `date` and `time` in one event (IIS, CloudFront), a day and a time of day, are read as one.
* A day of the week must be that of the date. 12-hour times have an hour from 1 to 12.
* A time before 1973-03-03 or after 2099 is not read: a device without a clock says 1970.
"""
_TIMES_NOT = """\
| Sent | Could be |
| --- | --- |
| `01/02/2026` | January or February |
| `26/11/13`, `26-11-13`, `261113 05:20:00` (Hadoop, MySQL 5.6) | 2026 or 2013; `11/30/26` is read |
| `202601311200`, twelve digits | a date, milliseconds before 2001, seconds after 2100 |
| eighteen digits | nanoseconds before 2001, Windows' 100 nanoseconds since 1601 |
| `2026-01-31T12:00:00Z+01:00`, `12:00:00 CET+0100` | two zones |
| `2026-01-31T12-00-00`, `2026-01-31T12.5` | hours with an offset, hours with a fraction |
"""
_CLI_HEAD = """\
Every command also takes `--data-dir DIR`, `--config FILE` and the `LOGWEIR_…` variables of [the settings](settings.md).
It ends with 0, with 2 for a mistake of its user's (one line on standard error says which), with 130 after Ctrl-C.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; end with 1 when a page is not current")
    check = parser.parse_args(arguments).check
    current = pages()
    stale = [path for path, text in current.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    for path in stale:
        name = path.relative_to(_root())
        if check:
            print(f"{name} is not current: run python deploy/generate.py", file=sys.stderr)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(current[path], encoding="utf-8")
            print(f"wrote {name}")
    return 1 if check and stale else 0


def _root() -> Path:
    return REFERENCE.parent.parent


def pages() -> dict[Path, str]:
    """Every generated file by its path."""
    makers: dict[str, tuple[str, Callable[[], str]]] = {
        "settings": ("logweir/config.py", settings_page),
        "problems": ("logweir/errors.py", problems_page),
        "limits": ("logweir/limits.py and logweir/config.py", limits_page),
        "metrics": ("logweir/metrics/table.py", metrics_page),
        "outcomes": ("logweir/outcomes.py", outcomes_page),
        "fields": ("logweir/event.py", fields_page),
        "times": ("workers/logweir_workers/normalise/time_forms.py", times_page),
        "parsers": ("workers/logweir_workers/parsers/", parsers_page),
        "rules": ("workers/logweir_workers/alerts/rules/", rules_page),
        "cli": ("the commands' own parsers", cli_page),
    }
    reference = {
        REFERENCE / f"{name}.md": _BY_HAND.format(source=source) + "\n" + make().rstrip() + "\n"
        for name, (source, make) in makers.items()
    }
    shown = {_root() / "deploy/grafana/dashboards" / name: text for name, text in dashboards.pages().items()}
    compose = _root() / "docker-compose.yml"
    return {**reference, **shown, compose: compose_file(compose.read_text(encoding="utf-8"))}


def compose_file(text: str) -> str:
    """docker-compose.yml with every setting in the block that is made here: .env may set it, for those who need it."""
    begin, end = _COMPOSE_BEGIN, _COMPOSE_END
    parts = [begin, *(_compose_settings(section) for section in config.SECTIONS), end]
    head, _, rest = text.partition(begin)
    return head + "\n".join(parts) + rest.partition(end)[2]


def _compose_settings(section: str) -> str:
    names = (name for name in config.names() if name.startswith(f"{section}."))
    variables = (config.environment_name(name) for name in names)
    return f"x-{section}: &{section}\n" + "".join(f"  {variable}: ${{{variable}:-}}\n" for variable in variables)


def settings_page() -> str:
    parts = [
        "# Settings\n",
        _SETTINGS_HEAD,
        _settings_table("", {"data_dir": config.Settings.model_fields["data_dir"]}),
    ]
    for section, model in config.SECTIONS.items():
        parts.append(f"\n## {section}\n\n{inspect.getdoc(model)}\n")
        parts.append(_settings_table(section, config.fields_of(model, advanced=False)))
        if advanced := config.fields_of(model, advanced=True):
            parts.append(f"\nAdvanced: right as they are for almost everybody.\n\n{_settings_table(section, advanced)}")
    return "\n".join(parts)


def _settings_table(section: str, fields: dict[str, FieldInfo]) -> str:
    rows = []
    for name, field in fields.items():
        full_name = f"{section}.{name}" if section else name
        meaning = (field.description or "") + _limits(field)
        rows.append((_code(full_name), _default(field.default), meaning, _code(config.environment_name(full_name))))
    return _table(("Setting", "Default", "Meaning", "Environment"), rows)


def _default(value: Any) -> str:
    if hasattr(value, "get_secret_value"):
        value = value.get_secret_value()
    if isinstance(value, tuple):
        value = ", ".join(value)
    return _code(str(value)) if value not in (None, "") else ""


def _limits(field: FieldInfo) -> str:
    words = (("ge", "at least"), ("gt", "more than"), ("le", "at most"), ("lt", "less than"))
    limits = ", ".join(
        f"{word} {getattr(constraint, name)}"
        for constraint in field.metadata
        for name, word in words
        if hasattr(constraint, name)
    )
    return f" ({limits})" if limits else ""


def problems_page() -> str:
    rows = sorted(
        (problem for problem in vars(errors).values() if isinstance(problem, errors.Problem)),
        key=lambda problem: problem.code,
    )
    table = _table(
        ("Code", "Status", "Again", "What happened", "What to do"),
        ((_code(row.code), str(row.status), "yes" if row.retry else "", row.text, row.advice) for row in rows),
    )
    return f"# Problems\n\n{_PROBLEMS_HEAD}\n{table}"


def limits_page() -> str:
    rows = [(row.setting if "." in row.setting else f"ingest.{row.setting}", row.beyond) for row in limits.LIMITS]
    rows += [(f"console.{row.setting}", row.beyond) for row in limits.LIMITS if "." not in row.setting]
    table = _table(
        ("Setting", "Default", "Counts", "Beyond it"), (_limit_row(setting, beyond) for setting, beyond in rows)
    )
    return f"# Limits\n\n{_LIMITS_HEAD}\n{table}"


def _limit_row(setting: str, beyond: errors.Problem | str) -> tuple[str, ...]:
    section, _, name = setting.partition(".")
    field = config.SECTIONS[section].model_fields[name]
    answer = beyond if isinstance(beyond, str) else f"{beyond.status} {_code(beyond.code)}"
    return _code(setting), _default(field.default), field.description or "", answer


def metrics_page() -> str:
    rows = (
        (_code(row.name), row.kind.value, ", ".join(_code(label) for label in row.labels), row.help) for row in METRICS
    )
    return f"# Metrics\n\n{_METRICS_HEAD}\n{_table(('Metric', 'Kind', 'Labels', 'Meaning'), rows)}"


def outcomes_page() -> str:
    return "\n".join(
        (
            "# Outcomes\n",
            "Exactly one of these becomes of every event that was answered 2xx.\n",
            _table(("Outcome", "Meaning"), ((_code(row.value), row.help) for row in outcomes.Outcome)),
            "\n## Why an event is a dead letter\n",
            _table(("Reason", "Meaning"), ((_code(row.value), row.help) for row in outcomes.DeadLetterReason)),
            "\n## Where it was then\n",
            "The stages, in the order in which an event passes them: "
            + ", ".join(_code(stage.value) for stage in outcomes.Stage)
            + ".",
        )
    )


def fields_page() -> str:
    kinds = _table(("Kind", "How it is kept"), ((_code(kind.value), _docstring_of(kind)) for kind in event.Kind))
    fields = _table(("Field", "Kind", "Meaning", "Also called"), map(_field_row, event.FIELDS))
    rows = ((*_field_row(row), _filled_by(row.name.removeprefix("details."))) for row in event.DETAILS)
    details = _table(("Field", "Kind", "Meaning", "Also called", "Filled by"), rows)
    return "\n\n".join(
        (
            f"# Fields of an event\n\n{_FIELDS_HEAD}\n{fields}",
            f"## Known details\n\n{_DETAILS_HEAD}\n{details}",
            f"## Kinds\n\n{kinds}",
        )
    )


def _field_row(row: event.Field) -> tuple[str, ...]:
    return _code(row.name), row.kind.value, row.help, _code(row.ecs) if row.ecs else ""


def _filled_by(detail: str) -> str:
    names = [parser.name for parser in parsers.built_in() if detail in parser.adds]
    return ", ".join(f"[{name}](parsers.md#{name})" for name in names)


def parsers_page() -> str:
    head = _PARSERS_HEAD.format(fields=parsers.FIELDS_MAX, length=parsers.VALUE_LENGTH_MAX)
    built_in = parsers.built_in()
    rows = ((f"[{parser.name}](#{parser.name})", _says(parser), _looked_up_by(parser)) for parser in built_in)
    table = _table(("Parser", "Reads", "Looked up by"), rows)
    return "\n\n".join((f"# Parsers\n\n{head}\n{table}", *map(_parser_section, built_in)))


def _says(parser: parsers.Parser) -> str:
    """The first line of its file, without the name: what it reads."""
    docstring = inspect.getdoc(importlib.import_module(parser.parse.__module__)) or ""
    return _prose(docstring.partition("\n")[0].partition(": ")[2])


def _looked_up_by(parser: parsers.Parser) -> str:
    names = {
        "process": parser.processes,
        "category": parser.categories,
        "beginning": parser.begins,
        "member": parser.marks,
    }
    return "; ".join(f"{what} {' '.join(map(_code, given))}" for what, given in names.items() if given)


def _parser_section(parser: parsers.Parser) -> str:
    adds = "what the line names" if parser.is_free else ", ".join(map(_code, parser.adds))
    lines = "\n".join(f"{_sent(sent)}\n    {_details(details)}" for sent, details in parser.examples)
    return f"## {parser.name}\n\nAdds {adds}.\n\n```text\n{lines}\n```"


def _sent(sent: Any) -> str:
    text = sent if isinstance(sent, str) else json.dumps(sent, ensure_ascii=False)
    return "".join(character if character.isprintable() else f"\\x{ord(character):02x}" for character in text)


def _details(details: Any) -> str:
    return (
        " ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in details.items()) or "(untouched)"
    )


def _docstring_of(kind: event.Kind) -> str:
    """The string below the member's line in the source: Python itself keeps none for members of an enumeration."""
    found = re.search(rf"\b{kind.name} = .*?\n\s+\"\"\"(.*?)\"\"\"", inspect.getsource(event.Kind), re.DOTALL)
    return _prose(" ".join(found.group(1).split())) if found else ""


def rules_page() -> str:
    parts = ["# Rules\n", _RULES_HEAD]
    for path in sorted(loading.PACK.glob("[!_]*.py")):
        rules = loading.read_rules(path)
        rows = (
            (
                f"[{_code(rule.name)}](../{rule.runbook.removeprefix('docs/')})",
                rule.severity,
                _asked(rule),
                _code(rule.where),
                ", ".join(map(_code, rule.group)),
            )
            for rule in rules
        )
        subject = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        parts.append(f"\n## {path.stem}\n\n{_prose(subject)}\n")
        parts.append(_table(("Rule", "Severity", "An alert when there is", "Of events", "By"), rows))
    return "\n".join(parts)


def _asked(rule: Rule) -> str:
    """What the rule asks of the events of its condition."""
    window = rule.window
    within = f" within {_length(window.within_us)}" if window.within_us else ""
    match window.kind:
        case WindowKind.MATCH | WindowKind.BOOKS:
            return "one"
        case WindowKind.EVENT_COUNT:
            return f"{window.threshold:g} of them{within}"
        case WindowKind.VALUE_COUNT:
            return f"{window.threshold:g} different {_code(window.field or '')}{within}"
        case WindowKind.TEMPORAL:
            return f"one of each{within}"
        case WindowKind.TEMPORAL_ORDERED:
            return f"{', then '.join(f'{count} of them' for count in window.steps)}{within}"
        case WindowKind.ABSENT:
            return f"none for {_length(window.absent_us)}"
        case WindowKind.NEW_VALUE:
            return f"a {_code(window.field or '')} that was not there in {_length(window.learn_us)}"
    return f"{window.kind.replace('_', ' ')}{within}"


def _length(time_us: int) -> str:
    for unit, letter in ((DAY_US, "d"), (3_600_000_000, "h"), (60_000_000, "m")):
        if time_us % unit == 0:
            return f"{time_us // unit}{letter}"
    return f"{time_us / 1e6:g}s"


def times_page() -> str:
    forms = [(form.name, ", ".join(map(_code, form.examples)), form.source) for form in time_forms.FORMS]
    numbers = [
        ("seconds since 1970", "`1769860800`, `1769860800.25`, `1.7698608E9`", "POSIX; 9 or 10 digits"),
        (
            "milli-, micro- and nanoseconds since 1970",
            "`1769860800250`",
            "Java, ECMAScript and others; 13, 16, 19 digits",
        ),
    ]
    offsets: dict[float, list[str]] = {}
    for name, hours in time_forms.ZONES_H.items():
        offsets.setdefault(hours, []).append(_code(name))
    read = [(f"{hours:+g}" if hours else "0", ", ".join(names)) for hours, names in offsets.items()]
    several = [(_code(name), places) for name, places in time_forms.ZONES_OF_SEVERAL.items()]
    return "\n".join(
        (
            "# Times\n",
            _TIMES_HEAD,
            _table(("Form", "Examples", "Source"), [*forms[:1], *numbers, *forms[1:]]),
            "\nNumbers may be sent as numbers or as text.\n\n## Rules\n",
            _TIMES_RULES,
            "\n## Names of zones\n",
            "Read are names that stand for one offset wherever they are in use, by the tz database since 2019:\n",
            _table(("Hours east of UTC", "Names"), read),
            "\nAll others are not read, among them these. Behind an offset, `+0800 CST`, any name may stand.\n",
            _table(("Name", "Used in"), several),
            "\n## What could be two times\n",
            _TIMES_NOT,
        )
    )


def cli_page() -> str:
    parts = [
        "# The command line\n",
        _CLI_HEAD,
        _table(("Command", ""), ((f"[`logweir {row.name}`](#logweir-{row.name})", row.help) for row in cli.COMMANDS)),
    ]
    for command in cli.COMMANDS:
        module = importlib.import_module(command.module)
        parser = argparse.ArgumentParser(prog=f"logweir {command.name}", add_help=False)
        module.add_arguments(parser)
        parts.append(f"\n## logweir {command.name}\n\n{_prose(inspect.getdoc(module) or '')}\n")
        parts.append(_arguments(parser))
    return "\n".join(part for part in parts if part)


def _prose(docstring: str) -> str:
    """A docstring as Markdown: its indented examples are code blocks already, its ``names`` become `names`."""
    return docstring.replace("``", "`")


def _arguments(parser: argparse.ArgumentParser, prefix: str = "") -> str:
    rows: list[tuple[str, str]] = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, inner in action.choices.items():
                usage = " ".join(_shown(one) for one in inner._actions if not isinstance(one, argparse._HelpAction))
                rows.append((_code(f"{prefix}{name} {usage}".strip()), helps.get(name, "")))
        elif not isinstance(action, argparse._HelpAction):
            rows.append((_code(_shown(action)), (action.help or "") % {"default": action.default, "prog": parser.prog}))
    return _table(("Argument", "Meaning"), rows) if rows else ""


def _shown(action: argparse.Action) -> str:
    """`--size N`, `FILE` or `[NAME]`."""
    metavar = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    if action.choices is not None and action.metavar is None:
        metavar = "{" + ",".join(str(choice) for choice in action.choices) + "}"
    if action.option_strings:
        return ", ".join(action.option_strings) + ("" if action.nargs == 0 else f" {metavar}")
    return f"[{metavar}]" if action.nargs in ("?", "*") else metavar


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    """Outside of `code`, Markdown would take <name> for HTML and show nothing."""
    pieces = text.replace("|", "\\|").replace("\n", " ").split("`")
    return "`".join(piece if number % 2 else piece.replace("<", "&lt;") for number, piece in enumerate(pieces))


def _code(text: str) -> str:
    return f"`{text}`"


if __name__ == "__main__":
    sys.exit(main())
