"""Show what could not be indexed and what could not be read; try it again, take it out, or drop it.

    logweir deadletters list --count
    logweir deadletters list --reason event_unfit --since 1d
    logweir deadletters show ID
    logweir deadletters retry --reason event_unfit
    logweir deadletters export --key web > letters.ndjson
    logweir deadletters drop --reason store_refused --until 30d

Dead letters are accepted events that could not be indexed. Refused bodies were never accepted: the door could not read
them. list and show speak of both; export and drop of refused bodies only with --refused; retry never.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from contextlib import closing

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from logweir.clock import now_us
from logweir.commands.output import print_json, whole_number
from logweir.config import Settings
from logweir.errors import LETTER_UNKNOWN, LogweirError
from logweir.outcomes import DeadLetterReason, Stage
from logweir.query.times import time_bounds
from logweir.queue import open_queue
from logweir.store import existing_store
from logweir.store.letters import OF_EVENTS, REFUSED, as_event, as_json, as_page, as_text, pages
from logweir.store.port import Held, LetterFilter, Store
from logweir.text import printable
from logweir_workers.deadletters.retry import REMOVED, Result, Retrier, Tried

_SIZE_DEFAULT = 20
_DROPPED_AT_ONCE = 1000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="list them, newest first")
    _add_filters(listing, refused=True)
    listing.add_argument(
        "--size",
        type=whole_number(least=0),
        default=_SIZE_DEFAULT,
        metavar="N",
        help=f"most of them shown ({_SIZE_DEFAULT}); 0 for all",
    )
    listing.add_argument("--count", action="store_true", help="print how many there are by reason, nothing else")
    listing.add_argument("--json", action="store_true", help="print each as one line of JSON, its bytes as base64")
    show = actions.add_parser("show", help="show one with everything that is known of it")
    show.add_argument("id", metavar="ID", help="its id, as list prints it")
    form = show.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print it as one line of JSON, its bytes as base64")
    form.add_argument(
        "--raw", action="store_true", help="print its bytes as they were sent (on a terminal, spelled out)"
    )
    export = actions.add_parser("export", help="print their events, one a line, as logweir send takes them")
    _add_filters(export, refused=True)
    retry = actions.add_parser("retry", help="try them again, after what was wrong has been mended")
    _add_filters(retry, refused=False)
    retry.add_argument("--json", action="store_true", help="print what became of them as one JSON object")
    drop = actions.add_parser("drop", help="remove them for good; their events stay dead-lettered in the books")
    _add_filters(drop, refused=True)
    drop.add_argument("--yes", action="store_true", help="do not ask")
    drop.add_argument("--json", action="store_true", help="print how many were dropped by reason as one JSON object")


def _add_filters(parser: argparse.ArgumentParser, *, refused: bool) -> None:
    reasons = [reason.value for reason in DeadLetterReason if refused or reason is not DeadLetterReason.BODY_REFUSED]
    parser.add_argument("--reason", action="append", choices=reasons, help="only those of it; may be given again")
    parser.add_argument("--stage", choices=[stage.value for stage in Stage], help="only those that came so far")
    parser.add_argument("--key", metavar="NAME", help="only those sent with the key of this name")
    parser.add_argument("--emitter", metavar="NAME", help="only those of this emitter")
    parser.add_argument("--since", metavar="TIME", help="only from then on: ISO 8601, epoch seconds, or 15m, 1h, 7d, …")
    parser.add_argument("--until", metavar="TIME", help="only before then")
    parser.add_argument("--id", action="append", metavar="ID", help="only this one; may be given again")
    if refused:
        parser.add_argument("--refused", action="store_true", help="only bodies that the door could not read")


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    action = {"list": _list, "show": _show, "export": _export, "retry": _retry, "drop": _drop}[arguments.action]
    with existing_store(settings.store) as store:
        return action(arguments, settings, store)


# --- looking at them ----------------------------------------------------------------------------------------------
def _list(arguments: argparse.Namespace, _settings: Settings, store: Store) -> int:
    wanted = _wanted(arguments, (*OF_EVENTS, REFUSED))
    counts = store.dead_letters.count(wanted)
    total = sum(held.letters for held in counts.values())
    if arguments.count:
        _print_counts(counts, as_json=arguments.json)
        return 0
    shown = 0
    for page in pages(store, wanted, size=arguments.size or None):
        for letter in page:
            if arguments.json:
                print_json(as_json(letter))
            else:
                print(as_text(letter))
        shown += len(page)
    if shown < total:
        verb = "is" if shown == 1 else "are"
        print(f"The newest {shown} of {total} {verb} shown; --size 0 shows all.", file=sys.stderr)
    if not total:
        print("0 dead letters found.", file=sys.stderr)
    return 0


def _print_counts(counts: dict[str, Held], *, as_json: bool) -> None:
    if as_json:
        print_json({reason: held._asdict() for reason, held in counts.items()})
        return
    for reason, held in sorted(counts.items(), key=lambda row: -row[1].letters):
        print(f"{held.letters:>9}  {held.size_bytes / 1e6:>9.1f} MB  {reason:<18} {DeadLetterReason(reason).help}")


def _show(arguments: argparse.Namespace, _settings: Settings, store: Store) -> int:
    found = store.dead_letters.page(size=1, wanted=LetterFilter(ids=(arguments.id,)))
    if not found:
        raise LogweirError(LETTER_UNKNOWN, id=arguments.id)
    if arguments.raw and sys.stdout.isatty():
        print("\n".join(printable(line) for line in found[0].raw.decode(errors="backslashreplace").splitlines()))
    elif arguments.raw:
        sys.stdout.buffer.write(found[0].raw)
    elif arguments.json:
        print_json(as_json(found[0]))
    else:
        print(as_page(found[0]))
    return 0


def _export(arguments: argparse.Namespace, settings: Settings, store: Store) -> int:
    wanted = _wanted(arguments, OF_EVENTS)
    exported = too_large = 0
    for page in pages(store, wanted):
        for letter in page:
            line = as_event(letter)
            sys.stdout.buffer.write(line)
            too_large += len(line) > settings.ingest.event_size_bytes_max
        exported += len(page)
    print(f"{exported} exported; they are still kept.", file=sys.stderr)
    if too_large:
        verb = "is" if too_large == 1 else "are"
        print(f"{too_large} {verb} larger than ingest.event_size_bytes_max: a door would refuse that.", file=sys.stderr)
    return 0


# --- doing something about them -----------------------------------------------------------------------------------
def _retry(arguments: argparse.Namespace, settings: Settings, store: Store) -> int:
    wanted = _wanted(arguments, OF_EVENTS)
    total = sum(held.letters for held in store.dead_letters.count(wanted).values())
    counts: Counter[Result] = Counter()
    failed: Tried | None = None
    with closing(open_queue(settings.queue, group=settings.worker.group)) as queue, _progress() as progress:
        bar = progress.add_task("trying again", total=total)
        with closing(Retrier(settings=settings, store=store, queue=queue)) as retrier:
            for page in pages(store, wanted):
                tried = retrier.retry(page)
                counts.update(one.result for one in tried)
                failed = failed or next((one for one in tried if one.result is Result.FAILED), None)
                progress.update(bar, advance=len(page))
            retrier.recheck()
    left = sum(count for result, count in counts.items() if result not in REMOVED)
    if arguments.json:
        print_json({**{result.value: counts[result] for result in Result}, "left": left})
    else:
        _print_tried(counts, failed)
    return 1 if left else 0


_SAID = {
    Result.INDEXED: "indexed",
    Result.DUPLICATE: "duplicates of events that were there",
    Result.FILTERED: "left out by a filter",
    Result.QUEUED: "records that are in the queue again",
    Result.FAILED: "fail still",
    Result.UNSETTLED: "not accounted for by a worker yet; try them again in a few seconds",
    Result.CONFLICT: "cannot be indexed, as other events have their numbers; export and send them to keep them",
}


def _print_tried(counts: Counter[Result], failed: Tried | None) -> None:
    if not counts:
        print("There is nothing to try again.")
    for result in Result:
        if counts[result]:
            print(f"{counts[result]:>9}  {_SAID[result]}")
    if failed is not None:
        print(f"The newest that fails, {printable(failed.letter.id)}: {printable(failed.error)}")


def _drop(arguments: argparse.Namespace, _settings: Settings, store: Store) -> int:
    wanted = _wanted(arguments, OF_EVENTS)
    counts = store.dead_letters.count(wanted)
    total = sum(held.letters for held in counts.values())
    listed = ", ".join(f"{held.letters} {reason}" for reason, held in sorted(counts.items()))
    if total and not arguments.yes and not _agreed(f"Drop {total} for good ({listed})?"):
        print("Nothing was dropped.", file=sys.stderr)
        return 1
    dropped: Counter[str] = Counter()
    with _progress() as progress:
        bar = progress.add_task("dropping", total=total)
        # No more than was agreed to, should others have come since: the oldest go first.
        while left := total - dropped.total():
            gone = store.dead_letters.delete(wanted, letters_max=min(left, _DROPPED_AT_ONCE))
            if not gone:
                break
            dropped.update(gone)
            progress.update(bar, completed=dropped.total())
    if arguments.json:
        print_json(dict(dropped))
    else:
        print(f"{dropped.total()} dropped.")
    return 0


def _agreed(question: str) -> bool:
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


# --- what they have in common -------------------------------------------------------------------------------------
def _wanted(arguments: argparse.Namespace, reasons: tuple[str, ...]) -> LetterFilter:
    """What the options ask for; without --reason and --refused, those of ``reasons``. Raises LogweirError(TIME_BAD)."""
    from_us, to_us = time_bounds(arguments.since, arguments.until, now_us())
    if getattr(arguments, "refused", False):
        reasons = (REFUSED,)
    return LetterFilter(
        ids=tuple(arguments.id or ()),
        reasons=tuple(arguments.reason or reasons),
        stage=arguments.stage,
        key=arguments.key,
        emitter=arguments.emitter,
        from_us=from_us,
        to_us=to_us,
    )


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
    )
