"""Known details: their names in every spelling, their types, and that what does not fit stays as it was sent."""

from typing import Any

import pytest

from logweir.event import DETAILS, FIELD_BY_NAME, Kind
from logweir.query.parse import parse
from logweir.query.tree import Term
from logweir_workers.normalise.details import FITS, SYNONYMS
from logweir_workers.normalise.fields import SYNONYMS as FIELD_SYNONYMS
from logweir_workers.normalise.fields import Context, normalise

CONTEXT = Context(1_767_614_400_500_000, "web")
VALUES: dict[Kind, Any] = {Kind.IP: "192.0.2.7", Kind.NUMBER: 404, Kind.FLOAT: 0.25, Kind.KEYWORD: "failure"}
KINDS = {field.name.removeprefix("details."): field.kind for field in DETAILS}


def details_of(event: dict[str, Any]) -> Any:
    return normalise(event, CONTEXT).get("details")


@pytest.mark.parametrize(
    ("known", "name"), [(known, name) for known, names in SYNONYMS.items() for name in names], ids=lambda value: value
)
def test_every_name_means_its_detail(known: str, name: str) -> None:
    """At the top, under details, in capitals, and as objects inside of objects."""
    value = VALUES[KINDS[known]]
    nested: Any = value
    for part in reversed(name.split(".")):
        nested = {part: nested}

    assert details_of({name: value}) == {known: value}
    assert details_of({"details": {name: value, "x": 1}}) == {known: value, "x": 1}
    assert details_of({name.upper(): value}) == {known: value}
    assert details_of({"details": nested}) == {known: value}
    assert details_of(nested) == {known: value}


def test_every_known_detail_has_names_of_which_its_own_is_the_first() -> None:
    """No name means two things, and none is also the name of a field."""
    names = [name for spellings in SYNONYMS.values() for name in spellings]

    assert list(KINDS) == sorted(SYNONYMS, key=list(KINDS).index) and set(KINDS) == set(SYNONYMS)
    assert all(spellings[0] == known for known, spellings in SYNONYMS.items())
    assert len(names) == len(set(names))
    assert not {name for spellings in FIELD_SYNONYMS.values() for name in spellings} & set(names)


def test_ecs_names_do_not_collide_with_fields() -> None:
    """Elasticsearch cannot have a text `source` and an object of that name; searches know details by their aliases."""
    aliases = [field.ecs for field in DETAILS if field.ecs]

    assert len(aliases) == len(set(aliases))
    assert not {alias.partition(".")[0] for alias in aliases} & set(FIELD_BY_NAME)
    assert parse("user.name:root") == parse("details.username:root") == Term("details.username", "root")


@pytest.mark.parametrize(
    ("known", "sent", "kept"),
    [
        ("sourceipaddress", "192.0.2.7", "192.0.2.7"),
        ("sourceipaddress", " 2001:DB8:0::7 ", "2001:db8::7"),
        ("sourceipaddress", "::ffff:192.0.2.7", "192.0.2.7"),
        ("sourceport", "4242", 4242),
        ("status", 200.0, 200),
        ("bytes", "0", 0),
        ("bytes", 2**63 - 1, 2**63 - 1),
        ("duration", "0.250", 0.25),
        ("duration", "0.000000123456789", 0.000000123456789),
        ("duration", "3", 3),
        ("duration", 1, 1),
        ("username", " root ", "root"),
        ("username", 1000, "1000"),
        ("outcome", "Failed", "failure"),
        ("outcome", "SUCCESS", "success"),
    ],
)
def test_value_with_the_form_of_its_type_takes_the_type(known: str, sent: object, kept: object) -> None:
    """One spelling of one value, so that equal things are equal."""
    fit = FITS[known]

    assert fit(sent) == kept and type(fit(sent)) is type(kept)
    assert details_of({known: sent}) == {known: kept}


@pytest.mark.parametrize(
    ("known", "sent"),
    [
        ("sourceipaddress", "web1.example.org"),
        ("sourceipaddress", "192.0.2.7:4242"),
        ("sourceipaddress", "192.0.2.07"),
        ("sourceipaddress", "fe80::1%eth0"),
        ("sourceipaddress", 3_221_225_991),
        ("sourceport", "ssh"),
        ("sourceport", "0x10"),
        ("status", "007"),
        ("status", "1" * 19),
        ("status", "\u0664\u0662"),
        ("status", 2**63),
        ("status", 1.5),
        ("status", True),
        ("bytes", "-"),
        ("duration", "5ms"),
        ("duration", "nan"),
        ("duration", "123456789012.12345678"),  # more digits than a float keeps
        ("username", "-"),
        ("username", ""),
        ("username", ["a"]),
        ("username", None),
        ("outcome", "maybe"),
        ("outcome", True),
    ],
)
def test_value_of_another_form_stays_as_it_was_sent(known: str, sent: object) -> None:
    """Under the name with which it was sent, as text or number or whatever it is."""
    other = SYNONYMS[known][1] if len(SYNONYMS[known]) > 1 else known

    assert details_of({known: sent}) == {known: sent}
    assert details_of({other: sent}) == {other: sent}


def test_strongest_name_that_fits_wins_and_the_others_stay() -> None:
    """The table's order decides, not the sender's; who says the same goes."""
    assert details_of({"user": "a", "user_name": "b"}) == {"username": "b", "user": "a"}
    assert details_of({"user": "a", "username": "a"}) == {"username": "a"}
    assert details_of({"src": "main.c", "client_ip": "192.0.2.7"}) == {"src": "main.c", "sourceipaddress": "192.0.2.7"}
    assert details_of({"user": {"name": "a", "id": 5}, "user_name": "b"}) == {
        "username": "b",
        "user": {"name": "a", "id": 5},
    }


def test_unfit_value_under_the_own_name_keeps_the_others_as_they_were_sent() -> None:
    """`status: "ok"` is no HTTP status, and its place is taken."""
    assert details_of({"status": "ok", "status_code": 404}) == {"status": "ok", "status_code": 404}


def test_objects_lose_only_what_is_known() -> None:
    """The other members stay; an object that was sent empty stays, one that is empty then goes."""
    event = {"http": {"request": {"method": "GET", "id": 7}, "response": {"status_code": 200}}, "user": {}}

    assert details_of(event) == {"http": {"request": {"id": 7}}, "method": "GET", "status": 200, "user": {}}


def test_normalising_twice_changes_nothing() -> None:
    """What has its name and type already stays untouched."""
    once = details_of({"src_ip": "::FFFF:192.0.2.7", "request_time": "0.1", "sc-status": "200"})

    assert details_of({"details": once}) == once
