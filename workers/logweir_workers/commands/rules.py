"""See, check and try the rules that make alerts: those that come with logweir, and your own in alerts.rules_dir.

    logweir rules list
    logweir rules shadow my_rule --why 'too many' keep what it finds, and make no alerts of it
    logweir rules backtest my_rule.py --since 7d  what would it have found?
    logweir rules backfill my_rule --since 7d     make the alerts that it would have made
    logweir rules run my_rule --at 1h --dry-run   a scheduled rule, as if it were an hour ago
    logweir rules run bruteforce_ssh.py:AlertBruteforceSsh --dry-run   an alert script of MozDef's
    logweir rules test                        run the examples of all rules
    logweir rules test my_rule.py             of a file that is not in force yet
    logweir rules explain ssh_brute_force '{"processname": "sshd", "summary": "Failed password for root …"}'
    logweir rules explain --file my_rule.py my_rule - < event.json
    logweir rules import sigma/rules          take over Sigma rules, or those of ElastAlert 2 or Wazuh 4

docs/how-to/write-a-rule.md says how to write one, docs/how-to/sigma.md how to use Sigma's, and
docs/how-to/import-elastalert-wazuh.md how to take over the others.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import orjson

from logweir.alerts.beginnings import Begun, read_beginnings
from logweir.alerts.catalogue import DESCRIBED, RULES, RuleState, change_state, described, read_catalogue, state_of
from logweir.alerts.rules import Rule
from logweir.alerts.schedules import Slot, slot_until
from logweir.clock import iso_seconds, now_us
from logweir.commands.output import print_json, user_name
from logweir.config import Settings
from logweir.errors import CERTIFICATE_BAD, EVENT_UNUSABLE, RULE_BAD, RULES_UNREADABLE, LogweirError
from logweir.event import Document
from logweir.query.match import matcher
from logweir.query.times import time_bounds
from logweir.query.tree import All, And, Node, Not, Or
from logweir.receipt import secret_of
from logweir.store import existing_store
from logweir.store.documents import OwnDocument
from logweir.text import counted, printable
from logweir_workers.alerts import checkpoint
from logweir_workers.alerts.backtest import Backtest, backtest, unfit
from logweir_workers.alerts.certificate import certify, require_genuine
from logweir_workers.alerts.examples import Examples, Tried, lint
from logweir_workers.alerts.found import iso
from logweir_workers.alerts.guard import in_time
from logweir_workers.alerts.loading import RuleFiles, named_rule, read_rules
from logweir_workers.alerts.matching import Matcher, Seen, group_of
from logweir_workers.alerts.mozdef.folder import rule_by_hand
from logweir_workers.alerts.mozdef.scripts import Script
from logweir_workers.alerts.scheduled.alerted import Alerted
from logweir_workers.alerts.scheduled.alerts import Asked, ScheduledAlerts
from logweir_workers.alerts.scheduled.runs import STATES, RunFailed, events_for, found_in
from logweir_workers.alerts.sigma.condition import SigmaCondition
from logweir_workers.alerts.sigma.files import SUFFIXES
from logweir_workers.commands import rules_backfill, rules_import
from logweir_workers.document import EventUnfit


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listed = actions.add_parser("list", help="list the rules in force, and what they have found")
    checked = actions.add_parser("lint", help="say what rules lack: a runbook, examples that fire and that do not")
    tested = actions.add_parser("test", help="run the examples of rules")
    for sub in (checked, tested):
        sub.add_argument("files", nargs="*", type=Path, metavar="FILE", help="files of rules (all that are in force)")
    explained = actions.add_parser("explain", help="say why a rule is, or is not, for an event")
    explained.add_argument("rule", metavar="RULE", help="the rule's name")
    explained.add_argument("--file", type=Path, metavar="FILE", help="a file of rules that need not be in force")
    explained.add_argument("event", metavar="EVENT", help="the event as it would be posted; - reads standard input")
    tried = actions.add_parser("backtest", help="say what a rule would have found in events that are stored")
    tried.add_argument("rule", metavar="RULE|FILE", help="a rule's name, or a file of rules that need not be in force")
    tried.add_argument("--since", default="7d", metavar="TIME", help="from then on: 1h, 7d, or ISO 8601 (7d)")
    tried.add_argument("--until", metavar="TIME", help="before then (now)")
    backfilled = actions.add_parser("backfill", help="make the alerts that a rule would have made of stored events")
    rules_backfill.add_arguments(backfilled)
    once = actions.add_parser("run", help="ask a scheduled rule once, as if it were some time, and print what it finds")
    once.add_argument(
        "rule",
        metavar="RULE|FILE:RULE",
        help="a rule's name, or one in a file that need not be in force; or FILE:CLASS, an alert of MozDef's",
    )
    once.add_argument("--at", metavar="TIME", help="its last slot by then: ISO 8601, or 1h for an hour ago (now)")
    once.add_argument(
        "--since", metavar="TIME", help="all events received from then on, up to --at, whatever its window"
    )
    once.add_argument("--dry-run", action="store_true", help="make no alerts")
    certified = actions.add_parser("certify", help="say, signed, at how many of the accepted events a rule has looked")
    certified.add_argument("rule", metavar="RULE|FILE", help="a rule's name, or a certificate to be verified")
    certified.add_argument("--from", dest="since", default="1d", metavar="TIME", help="from then on: 7d, ISO 8601 (1d)")
    certified.add_argument("--to", dest="until", metavar="TIME", help="before then (now)")
    imported = actions.add_parser("import", help=rules_import.HELP)
    rules_import.add_arguments(imported)
    changes = {
        "enable": "have alerts made of what a rule finds",
        "shadow": "keep what a rule would have said, and make no alerts of it",
        "disable": "ask a rule no more",
    }
    changed = [actions.add_parser(name, help=help) for name, help in changes.items()]
    for sub in changed:
        sub.add_argument("rule", metavar="RULE", help="the rule's name")
        sub.add_argument("--why", default="", metavar="TEXT", help="why; it is kept, with who and when")
        sub.add_argument("--by", metavar="NAME", help="who says so (the name of the user who calls)")
    for sub in (listed, checked, tested, explained, tried, backfilled, once, certified, imported, *changed):
        sub.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    if arguments.action == "import":
        return rules_import.run(arguments, settings)
    paths = arguments.files if arguments.action in ("lint", "test") else []
    if arguments.action == "explain" and arguments.file is not None:
        paths = [arguments.file]
    if paths:
        rules = [rule for path in paths for rule in read_rules(path)]
        problems: list[LogweirError] = []
        broken: set[str] = set()
    else:
        files = RuleFiles(settings.alerts, settings.rules_path, last_read=settings.rules_last_read_path)
        broken = files.broken
        rules, problems = [files.rules[name] for name in sorted(files.rules)], files.problems
    for problem in problems:
        print(f"logweir rules: {printable(str(problem))}", file=sys.stderr)
    if arguments.action == "list":
        _list(rules, broken, settings, as_json=arguments.json)
    elif arguments.action in _STATES:
        _change(arguments, rules, settings)
    elif arguments.action in ("certify", "backfill", "run"):
        about_one = {"certify": _certify, "backfill": rules_backfill.run, "run": _run_once}
        return about_one[arguments.action](arguments, rules, settings)
    elif arguments.action == "backtest":
        return _backtest(arguments, rules, settings) or bool(problems)
    elif arguments.action == "explain":
        _explain(arguments, rules, settings)
    elif arguments.action == "lint":
        own = [rule for rule in rules if not isinstance(rule.say, Script)]
        return _lint(own, as_json=arguments.json) or bool(problems)
    else:
        return _test(rules, settings, as_json=arguments.json) or bool(problems)
    return 1 if problems else 0


_ALERTS_SHOWN_MAX = 100
_TELL_INTERVAL_S = 2.0
_STATES = {"enable": RuleState.ENABLED, "shadow": RuleState.SHADOW, "disable": RuleState.DISABLED}


def _change(arguments: argparse.Namespace, rules: Sequence[Rule], settings: Settings) -> None:
    with existing_store(settings.store) as store:
        name, state = arguments.rule, _STATES[arguments.action]
        if name not in store.documents.get(RULES, [name]):
            named_rule(name, rules)
        by = arguments.by or user_name()
        changed = change_state(store.documents, name, state, by=by, why=arguments.why, now_us=now_us())
    if arguments.json:
        print_json(changed.body)
    else:
        print(f"{printable(name)} is {state}.")


def _backtest(arguments: argparse.Namespace, rules: Sequence[Rule], settings: Settings) -> int:
    """The exit status: 1 where a rule of the file cannot be tried. Raises LogweirError, RULE_BAD where none can."""
    now = now_us()
    from_us, to_us = time_bounds(arguments.since, arguments.until, now)
    path = Path(arguments.rule)
    given = read_rules(path) if path.suffix in (".py", *SUFFIXES) else [named_rule(arguments.rule, rules)]
    if not given:
        raise LogweirError(RULES_UNREADABLE, path=path, reason="there is no rule in it")
    wanted = [rule for rule in given if not rule.is_about_books]
    left_out = [unfit(rule) for rule in given if rule.is_about_books]
    if not wanted:
        raise left_out[0]
    for error in left_out:
        print(f"logweir rules: {printable(str(error))}", file=sys.stderr)
    with existing_store(settings.store) as store:
        made = [
            backtest(
                store,
                rule,
                settings,
                from_us=from_us or 0,
                to_us=to_us or now,
                progressed=_Teller(rule.name, from_us or 0, to_us or now),
            )
            for rule in wanted
        ]
    if arguments.json:
        print_json({"rules": [one.as_json() for one in made]})
        return 1 if left_out else 0
    for one in made:
        for alert in one.alerts[:_ALERTS_SHOWN_MAX]:
            group = ", ".join(alert.group.values())
            print(printable(f"{alert.first}  {alert.last}  {alert.count:,}  {group}  {alert.summary}"))
        if one.alerts_count > _ALERTS_SHOWN_MAX:
            print(f"… and {one.alerts_count - _ALERTS_SHOWN_MAX:,} more")
        alerts = counted(one.alerts_count, "alert", separator=",")
        matches = counted(one.matches, "match", plural="matches", separator=",")
        events = counted(one.events, "event", separator=",")
        searches = counted(one.searches, "search", plural="searches", separator=",")
        print(f"{one.rule}: {alerts} of {matches}; {events} read in {searches}, {one.seconds:.1f} s.")
        for remark in one.remarks():
            print(remark)
    return 1 if left_out else 0


def _certify(arguments: argparse.Namespace, rules: Sequence[Rule], settings: Settings) -> int:
    """Exit status 3 where the rule has not looked at every accepted event. Raises LogweirError."""
    path = Path(arguments.rule)
    if path.suffix == ".json":
        try:
            made = orjson.loads(path.read_bytes())
        except (OSError, orjson.JSONDecodeError) as error:
            raise LogweirError(CERTIFICATE_BAD, advice=f"{path} cannot be read: {error}") from error
        require_genuine(made if isinstance(made, dict) else {}, secret_of(settings.data_dir))
    else:
        rule, now = named_rule(arguments.rule, rules), now_us()
        from_us, to_us = time_bounds(arguments.since, arguments.until, now)
        with existing_store(settings.store) as store:
            made = certify(
                store,
                rule,
                settings,
                from_us=from_us or 0,
                to_us=to_us or now,
                secret=secret_of(settings.data_dir),
                now_us=now,
            )
    if arguments.json:
        print_json(made)
    else:
        what = "all" if made["whole"] else "NOT ALL"
        print(
            f"{made['rule']} (revision {made['revision']}) from {made['from']} to {made['to']}: {what} was looked at."
        )
        names = (
            "accepted",
            "indexed",
            "filtered",
            "dead_lettered",
            "duplicate",
            "in_flight",
            "lost",
            "missing",
            "looked_at",
        )
        print(", ".join(f"{name.replace('_', ' ')} {made[name]:,}" for name in names))
        found = counted(made["matches"], "match", plural="matches", separator=",")
        print(f"{found}, {made['excepted']:,} excepted; {counted(len(made['alerts']), 'alert', separator=',')}")
        for first, last in made.get("other_revision", ()):
            print(f"from {first} to {last}, no alerter asked this revision: `logweir rules backfill` does it after all")
        print(f"signature {made['signature']}")
    return 0 if made["whole"] else 3


def _run_once(arguments: argparse.Namespace, rules: Sequence[Rule], settings: Settings) -> int:
    """Raises LogweirError: RULE_BAD for a rule that is none of these, or fails; ALERTER_ABSENT and others."""
    path, _, name = arguments.rule.rpartition(":")
    by_hand = rule_by_hand(Path(path), name, settings.alerts.mozdef_dir) if path else None
    rule = by_hand or named_rule(name, read_rules(Path(path)) if path else rules)
    if rule.schedule is None:
        raise LogweirError(
            RULE_BAD, rule=rule.name, reason="it is not a scheduled one: backtest it, or explain an event"
        )
    now = now_us()
    since_us, at_us = time_bounds(arguments.since, arguments.at, now)
    slot = slot_until(rule.schedule, at_us or now)
    if since_us is not None or by_hand is not None:
        slot = Slot((at_us or now) if since_us is None else since_us, at_us or now)
    with existing_store(settings.store) as store:
        store.refresh()
        alerted = Alerted(store.documents)
        known: Callable[[], Collection[str]] = tuple if arguments.dry_run else lambda: alerted.before(rule, slot)
        events = events_for(store, rule, slot, alerted=known, since_us=since_us)
        try:
            with in_time(rule.schedule.timeout_us / 1e6):
                found = found_in(rule, events)
        except RunFailed as error:
            raise LogweirError(RULE_BAD, rule=rule.name, reason=error) from error
        if not arguments.dry_run:
            shard = checkpoint.shard_id(settings.alerts.shard)
            claimed = checkpoint.read(store, settings.worker.group, shard)
            generation = claimed.generation if claimed is not None else 0
            alerts = ScheduledAlerts(store.documents, generation=generation, clock=now_us)
            verdict: dict[str, Any] = {"state": "open", "up_to": None, "missing": 0, "emitters": []}
            alerts.write(rule, Asked(slot, verdict), found)
            marks = [mark for one in found for mark in one.marks]
            alerted.note(rule, slot, marks, looked_back_us=events.looked_back_us)
    print_json(
        {
            "rule": rule.name,
            "begin": iso(min(slot.begin_us, slot.end_us - events.looked_back_us)),
            "end": iso(slot.end_us),
            "alerts": [
                {
                    "summary": one.summary,
                    "group": dict(one.group),
                    "count": one.count,
                    "severity": one.severity or rule.severity,
                    "category": one.category or rule.category,
                    "tags": list(dict.fromkeys((*rule.tags, *one.tags))),
                    "events": list(one.events),
                    **one.more,
                }
                for one in found
            ],
        }
    )
    return 0


class _Teller:
    """Says on standard error how far a long backtest is."""

    def __init__(self, rule: str, from_us: int, to_us: int) -> None:
        self._rule = rule
        self._from_us = from_us
        self._to_us = to_us
        self._due_s = time.monotonic() + _TELL_INTERVAL_S

    def __call__(self, at_us: int, made: Backtest) -> None:
        if time.monotonic() >= self._due_s:
            self._due_s = time.monotonic() + _TELL_INTERVAL_S
            share = max(0.0, (at_us - self._from_us) / max(1, self._to_us - self._from_us))
            found = counted(made.alerts_count, "alert", separator=",")
            print(f"{self._rule}: {share:.0%}, at {iso_seconds(at_us)}, {found} so far", file=sys.stderr)


def _list(rules: Sequence[Rule], broken: Collection[str], settings: Settings, *, as_json: bool) -> None:
    """``broken``: the paths of files that cannot be read; rules of theirs may be evaluated all the same."""
    known: dict[str, Any] = {}
    catalogue: dict[str, OwnDocument] = {}
    asked: dict[str, Any] = {}
    begun: dict[str, Begun] = {}
    try:
        with existing_store(settings.store) as store:
            stored = checkpoint.read(store, settings.worker.group, checkpoint.shard_id(settings.alerts.shard))
            known = stored.body["rules"] if stored is not None else {}
            catalogue, begun = read_catalogue(store.documents), read_beginnings(store, settings.worker.group)
            names = [rule.name for rule in rules if rule.schedule is not None]
            asked = {name: one.body for name, one in store.documents.get(STATES, names).items()}
    except LogweirError as error:
        print(f"What the rules have found is not known: {printable(str(error))}", file=sys.stderr)
    shown = {rule.name: described(rule) for rule in rules}
    for name in known.keys() & catalogue.keys() - shown.keys():
        body = catalogue[name].body
        if body.get("path") in broken:
            # The alerter evaluates it as it was read last, and this machine has no copy of that.
            shown[name] = {field: body.get(field) for field in DESCRIBED}
    rows = [
        {
            "name": name,
            **row,
            "state": state_of(catalogue.get(name)).value,
            "said": catalogue[name].body["said"] if name in catalogue else None,
            **known.get(name, {"counts": {}, "parked": None, "blind": []}),
            **_begun(begun.get(name)),
            "backfills": catalogue[name].body.get("backfills", []) if name in catalogue else [],
            "is_as_read_last": row["path"] in broken,
            "asked": _asked(asked.get(name)),
        }
        for name, row in sorted(shown.items())
    ]
    if as_json:
        print_json({"rules": rows})
        return
    for row in rows:
        print(f"{row['name']:<32} {row['severity']:<9} {row['window']:<17} {printable(_state_text(row))}")
    print(f"{counted(len(rows), 'rule')}.")


def _state_text(row: dict[str, Any]) -> str:
    """What a rule has found, and what is wrong with it."""
    state = (
        f"parked: {row['parked']}"
        if row["parked"]
        else counted(row["counts"].get("matches", 0), "match", plural="matches", separator=",")
    )
    if unevaluated := row["counts"].get("unevaluated", 0):
        made = sum(one["made"] for one in row["backfills"])
        behind = f", {counted(made, 'alert', separator=',')} backfilled since" if row["backfills"] else ""
        state = f"{state}, {unevaluated:,} unevaluated{behind}"
    if (ran := row["asked"]) is not None:
        state = f"asked up to {ran['until']}, {counted(ran['alerts'], 'alert', separator=',')} found"
        if ran["error"]:
            state = f"FAILING since {ran['failing_since']}: {ran['error']}; {state}"
    if row.get("blind"):
        state = f"blind, no event has brought {', '.join(row['blind'])} for a week; {state}"
    if row.get("example_failed"):
        state = f"an example of it fails, {row['example_failed']}; {state}"
    if row["is_as_read_last"]:
        state = f"as read last, its file cannot be read; {state}"
    if row["state"] != RuleState.ENABLED:
        state = f"{row['state']}, by {row['said']['by']}: {row['said']['why'] or 'no reason given'}; {state}"
    return state


def _begun(begun: Begun | None) -> dict[str, Any]:
    """Since when, and since which number, alerters ask a rule as it is."""
    if begun is None:
        return {"since": None, "begun": None}
    return {"since": iso_seconds(begun.at.since_us), "begun": {"revision": begun.revision, **begun.as_json()}}


def _asked(state: dict[str, Any] | None) -> dict[str, Any] | None:
    """What is known of a scheduled rule's runs."""
    if state is None:
        return None
    said = {name: state[name] for name in ("took_s", "error", "failing_since") if name in state}
    return {"until": iso(state.get("done_us", 0)), **state["counts"], "error": None, "failing_since": None, **said}


def _lint(rules: Sequence[Rule], *, as_json: bool) -> int:
    rows = [{"rule": rule.name, "path": rule.path, "missing": lint(rule)} for rule in rules]
    wrong = [row for row in rows if row["missing"]]
    if as_json:
        print_json({"rules": rows})
    else:
        for row in wrong:
            print(f"{row['rule']} ({row['path']}): {'; '.join(row['missing'])}")
        imported = sum(rule.is_imported for rule in rules)
        if imported:
            print(f"Of {counted(imported, 'imported rule', separator=',')} neither runbook nor examples are asked.")
        lacking = f"{len(wrong)} of which {'lacks' if len(wrong) == 1 else 'lack'} something" if wrong else "all whole"
        print(f"{counted(len(rows), 'rule')}, {lacking}.")
    return 1 if wrong else 0


def _test(rules: Sequence[Rule], settings: Settings, *, as_json: bool) -> int:
    examples = Examples(settings)
    tried: list[tuple[Rule, Tried]] = [
        (rule, examples.run(rule, example)) for rule in rules for example in rule.examples
    ]
    failed = sum(bool(one.problem) for _, one in tried)
    if as_json:
        rows = [
            {"rule": rule.name, "example": one.example.name, "alerts": one.summaries, "problem": one.problem}
            for rule, one in tried
        ]
        print_json({"examples": rows})
        return 1 if failed else 0
    for rule, one in tried:
        if one.problem:
            print(f"{rule.name}, {one.example.name!r}: {printable(one.problem)}")
            for summary in one.summaries[:5]:
                print(f"    {printable(summary)}")
    print(f"{counted(len(tried), 'example')} of {counted(len(rules), 'rule')}, {_failed_text(failed)}.")
    return 1 if failed else 0


def _failed_text(failed: int) -> str:
    if not failed:
        return "all as they should be"
    return f"{failed} not as {'it' if failed == 1 else 'they'} should be"


def _explain(arguments: argparse.Namespace, rules: Sequence[Rule], settings: Settings) -> None:
    rule = named_rule(arguments.rule, rules)
    if not rule.is_about_events:
        about = "findings of the accounting" if rule.is_about_books else "stored events, which its function asks for,"
        raise LogweirError(EVENT_UNUSABLE, reason=f"{rule.name} is about {about} and not about one event")
    raw = sys.stdin.buffer.read() if arguments.event == "-" else arguments.event.encode()
    try:
        sent = orjson.loads(raw)
        document = Examples(settings).document(sent)
    except (orjson.JSONDecodeError, TypeError, AttributeError) as error:
        raise LogweirError(EVENT_UNUSABLE, reason=f"it is not a JSON object: {error}") from error
    except EventUnfit as unfit:
        raise LogweirError(EVENT_UNUSABLE, reason=unfit.error) from unfit
    errors: list[str] = []
    matched = Matcher([rule], failed=lambda _, error: errors.append(f"{type(error).__name__}: {error}")).matches(
        document
    )
    seen = Seen(document)
    group = group_of(rule, seen)
    conditions = [
        where.explained(seen)
        if isinstance(where, SigmaCondition)
        else _explained(document, node)
        if isinstance(where, str)
        else {"condition": "(a function)", "holds": bool(matched)}
        for where, node in zip(rule.conditions, rule.nodes(), strict=True)
    ]
    if arguments.json:
        print_json({"matches": bool(matched), "conditions": conditions, "group": group, "errors": errors})
        return
    for one in conditions:
        _print_tree(one, 0)
    for name, value in group.items():
        print(f"group {name}: {printable(value)}" + ("" if value is not None else "  (without it, it is not counted)"))
    for text in errors:
        print(f"its function failed: {printable(text)}")
    print(f"The event {'is' if matched else 'is not'} for {rule.name}.")


def _explained(document: Document, node: Node) -> dict[str, Any]:
    """The condition as a tree, each part with whether it holds and the values that it looked at."""
    made: dict[str, Any] = {"holds": matcher(node)(document)}
    if isinstance(node, And | Or):
        inner = [_explained(document, one) for one in node.nodes]
        return {"condition": "all of" if isinstance(node, And) else "one of", **made, "parts": inner}
    if isinstance(node, Not):
        return {"condition": "not", **made, "parts": [_explained(document, node.node)]}
    if isinstance(node, All):
        return {"condition": "everything", **made}
    field = getattr(node, "field", None)
    asked = {name: getattr(node, name) for name in node.__slots__ if name != "field"}
    made["condition"] = f"{field or 'words'} {type(node).__name__.lower()} {printable(list(asked.values()))}"
    made["value"] = Seen(document).value(field) if field else None
    return made


def _print_tree(tree: dict[str, Any], depth: int) -> None:
    value = "" if "value" not in tree or tree["value"] is None else f"   (it is {printable(tree['value'])})"
    print(f"{'  ' * depth}{'yes' if tree['holds'] else 'no ':<3} {tree['condition']}{value}")
    for part in tree.get("parts", ()):
        _print_tree(part, depth + 1)
