"""Make, list, show, change, exchange and revoke the keys that emitters send.

    KEY=$(logweir keys add webshop --network 10.1.0.0/16 --category web --events-per-second 500)
    logweir keys rotate webshop --grace 24h
    logweir keys revoke webshop --id 3fa4c1d2

Doors read a change within two seconds, without a restart. docs/how-to/keys.md says what each term means.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from logweir.clock import duration_us, iso_seconds, now_us
from logweir.commands.output import print_json, whole_number
from logweir.config import Settings
from logweir.errors import KEY_TERM_BAD, LogweirError
from logweir.keys.file import AS_LONG, Key, KeysFile, moment, name_unknown, read_keys
from logweir.keys.terms import KEEP, REFUSE, Terms
from logweir.keys.usage import read_usage
from logweir.text import printable

NEVER = "never"
GRACE_DEFAULT = "7d"
_CLEARABLE = {
    "networks": "networks",
    "categories": "categories",
    "events-per-second": "events_per_second",
    "bytes-per-second": "bytes_per_second",
    "stamp": "stamp",
    "unreadable": "unreadable",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    add = actions.add_parser("add", help="make a key, and print it once, alone, on standard output")
    add.add_argument("name", metavar="NAME", help="1 to 64 letters, digits, '.', '_' or '-'")
    _add_terms(add)
    listing = actions.add_parser("list", help="name every key")
    listing.add_argument("--json", action="store_true", help="as a JSON array")
    show = actions.add_parser("show", help="say all about the keys of one name")
    show.add_argument("name", metavar="NAME")
    show.add_argument("--json", action="store_true", help="as a JSON array")
    change = actions.add_parser("set", help="change the terms of a name's keys; what is not named stays")
    change.add_argument("name", metavar="NAME")
    _add_id(change)
    _add_terms(change)
    change.add_argument(
        "--clear", action="append", choices=tuple(_CLEARABLE), default=[], help="take this term away; may be repeated"
    )
    rotate = actions.add_parser("rotate", help="make a second key on the same terms, and print it as add does")
    rotate.add_argument("name", metavar="NAME")
    rotate.add_argument(
        "--grace",
        metavar="TIME",
        default=GRACE_DEFAULT,
        help=f"how long the old keys still work: 0s, 24h, 7d, … or {NEVER} to leave them as they are ({GRACE_DEFAULT})",
    )
    _add_expires(rotate, "as long from now as the old key was made for")
    revoke = actions.add_parser("revoke", help="end all keys of a name, or one of them, within two seconds")
    revoke.add_argument("name", metavar="NAME")
    _add_id(revoke)


def _add_id(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--id", metavar="ID", help="only the key with this id, of those that have the name")


def _add_expires(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument(
        "--expires",
        metavar="TIME",
        help=f"from when on it is refused: 90d from now, 2027-01-31T12:00:00Z, 2027-01-31, or {NEVER} ({default})",
    )


def _add_terms(parser: argparse.ArgumentParser) -> None:
    _add_expires(parser, NEVER)
    parser.add_argument(
        "--network",
        action="append",
        dest="networks",
        metavar="NETWORK",
        help="let it in only from here: 10.0.0.0/8, 2001:db8::/32 or one address; may be repeated",
    )
    parser.add_argument(
        "--category",
        action="append",
        dest="categories",
        metavar="CATEGORY",
        help="let only events of this category in; may be repeated",
    )
    at_least_one = whole_number(least=1)
    parser.add_argument(
        "--events-per-second", type=at_least_one, metavar="N", help="most events, of all keys of the name together"
    )
    parser.add_argument(
        "--bytes-per-second", type=at_least_one, metavar="N", help="most bytes of events, decompressed, likewise"
    )
    parser.add_argument(
        "--stamp",
        action="append",
        type=_stamp,
        metavar="FIELD=TEXT",
        help="give this field to events that do not say it; may be repeated",
    )
    parser.add_argument(
        "--unreadable",
        choices=(KEEP, REFUSE),
        help="keep what cannot be read as dead letters and answer 202, or refuse the request (the first, of senders"
        " that a refusal would stop for good)",
    )


def _stamp(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"{text!r} is not FIELD=TEXT")
    return name, value


# --- what each action does ----------------------------------------------------------------------------------------
def run(arguments: argparse.Namespace, settings: Settings) -> int:
    path = settings.keys_path
    if arguments.action == "add":
        _add(arguments, path)
    elif arguments.action == "rotate":
        _rotate(arguments, path)
    elif arguments.action == "set":
        _set(arguments, path)
    elif arguments.action == "revoke":
        for key in KeysFile(path).revoke(arguments.name, id=arguments.id):
            print(f"The key {key.name!r} (id {key.id}) is refused within 2 seconds.", file=sys.stderr)
    elif arguments.action == "show":
        _show(arguments, path)
    else:
        _list(arguments, path)
    return 0


def _add(arguments: argparse.Namespace, path: Path) -> None:
    terms = Terms.of({field: value for field, value in _given(arguments).items() if field != "expires"})
    print(KeysFile(path).add(arguments.name, terms=terms, expires=_end(arguments.expires)))
    print(f"The key {arguments.name!r} is live within 2 seconds. It is shown only now.", file=sys.stderr)


def _rotate(arguments: argparse.Namespace, path: Path) -> None:
    grace_us = None if arguments.grace == NEVER else duration_us(arguments.grace)
    if grace_us is None and arguments.grace != NEVER:
        raise LogweirError(
            KEY_TERM_BAD, term="--grace", value=arguments.grace, reason=f"it is neither 30m, 24h, 7d, … nor {NEVER!r}"
        )
    _end(arguments.grace)  # Nobody may wait until after the year 9999.
    expires = _end(arguments.expires) if arguments.expires else AS_LONG
    key, old = KeysFile(path).rotate(arguments.name, grace_us=grace_us, expires=expires)
    print(key)
    name = arguments.name
    print(f"The second key of {name!r} is live within 2 seconds. It is shown only now.", file=sys.stderr)
    for one in old:
        end = f"until {one.expires}" if one.expires else "until it is revoked"
        advice = f"; end it earlier: logweir keys revoke {name} --id {one.id}"
        print(f"The old key (id {one.id}) works {end}{advice}", file=sys.stderr)


def _set(arguments: argparse.Namespace, path: Path) -> None:
    changes: dict[str, Any] = {_CLEARABLE[term]: None for term in arguments.clear} | _given(arguments)
    if not changes:
        raise LogweirError(KEY_TERM_BAD, term="The change", value="", reason="no flag says what to change")
    if "expires" in changes:
        changes["expires"] = _end(arguments.expires)
    for key in KeysFile(path).change(arguments.name, changes, id=arguments.id):
        print(_shown(key, read_usage(path), now_us()))


def _given(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the flags say, by the names of the file."""
    fields = ("expires", *_CLEARABLE.values())
    given = {field: value for field in fields if (value := getattr(arguments, field)) is not None}
    if "stamp" in given:
        given["stamp"] = dict(given["stamp"])
    return given


def _end(text: str | None) -> str | None:
    """The time that ``--expires`` means, None for never. Raises LogweirError(KEY_TERM_BAD)."""
    if text is None or text == NEVER:
        return None
    lifetime_us = duration_us(text)
    try:
        return moment(text) if lifetime_us is None else iso_seconds(now_us() + lifetime_us)
    except ValueError as error:
        raise LogweirError(KEY_TERM_BAD, term="time", value=text, reason="it is after the year 9999") from error


def _show(arguments: argparse.Namespace, path: Path) -> None:
    every = read_keys(path)
    keys = [key for key in every if key.name == arguments.name]
    if not keys:
        raise name_unknown(arguments.name, every)
    usage, time_us = read_usage(path), now_us()
    if arguments.json:
        print_json([_as_row(key, usage, time_us) for key in keys])
    else:
        print("\n\n".join(_shown(key, usage, time_us) for key in keys))


def _list(arguments: argparse.Namespace, path: Path) -> None:
    usage, time_us = read_usage(path), now_us()
    rows = [_as_row(key, usage, time_us) for key in read_keys(path)]
    if arguments.json:
        print_json(rows)
    elif not rows:
        print(f"{path} holds no key; make one: logweir keys add NAME", file=sys.stderr)
    else:
        lines = [("NAME", "ID", "CREATED", "LAST USED", "EXPIRES", "STATE")]
        for row in rows:
            state = f"revoked {row['revoked']}" if row["revoked"] else row["state"]
            lines.append((row["name"], row["id"], row["created"], row["used"] or "-", row["expires"] or "-", state))
        _print_table(lines)


# --- how keys are shown -------------------------------------------------------------------------------------------
def _as_row(key: Key, usage: dict[str, str], time_us: int) -> dict[str, Any]:
    return {
        "name": key.name,
        "id": key.id,
        "state": key.state(time_us),
        "created": key.created,
        "used": usage.get(key.id),
        "expires": key.expires,
        "revoked": key.revoked,
        **key.terms.as_dict(),
    }


def _shown(key: Key, usage: dict[str, str], time_us: int) -> str:
    terms = key.terms
    lines = {
        "id": key.id,
        "state": key.state(time_us) + (f" since {key.revoked}" if key.revoked else ""),
        "created": key.created,
        "last used": usage.get(key.id, "not that a door has noted it"),
        "expires": key.expires or NEVER,
        "networks": ", ".join(terms.networks) or "any",
        "categories": ", ".join(terms.categories) or "any",
        "events per second": str(terms.events_per_second or "any number"),
        "bytes per second": str(terms.bytes_per_second or "any number"),
        "stamp": ", ".join(f"{name}={text}" for name, text in terms.stamp.items()) or "nothing",
        "unreadable": terms.unreadable or "kept of senders that a refusal would stop for good",
    }
    return "\n".join([printable(key.name), *(f"  {label:<17}  {printable(text)}" for label, text in lines.items())])


def _print_table(lines: Sequence[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(f"{text:<{width}}" for text, width in zip(line, widths, strict=True)).rstrip())
