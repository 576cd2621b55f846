"""The operator's tables: networks, countries, look-ups; read again when they change, and bounded."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from logweir.config import WorkerSettings
from logweir.errors import SETTING_BAD, SETTING_NEEDS_EXTRA, LogweirError
from logweir_workers import enrich
from logweir_workers.enrich import _tables
from logweir_workers.normalise.fields import Context, normalise

CONTEXT = Context(1_767_614_400_000_000, "web")


def write(path: Path, text: str) -> Path:
    """Write a file anew, so that it is seen as another one however quickly that happens."""
    partial = path.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
    return path


def details_of(enricher: enrich.Enricher, sent: dict[str, Any]) -> dict[str, Any]:
    event = normalise(sent, CONTEXT)
    enricher(event, CONTEXT)
    details: dict[str, Any] = event.get("details", {})
    return details


def test_smallest_network_names_the_site_of_both_sides(tmp_path: Path) -> None:
    """IPv4 and IPv6, with comments and blank lines; an address of none has no site."""
    path = write(
        tmp_path / "networks.csv",
        "# ours\n10.0.0.0/8, elsewhere\n\n10.1.0.0/16,Berlin\n10.1.2.3,desk\n2001:db8:1::/48,Berlin\n",
    )
    enricher = enrich.load(WorkerSettings(networks_file=path))

    assert details_of(enricher, {"src_ip": "10.1.9.9", "dst_ip": "10.9.9.9"}) == {
        "sourceipaddress": "10.1.9.9",
        "destinationipaddress": "10.9.9.9",
        "sourceipversion": 4,
        "sourceipscope": "private",
        "sourcesite": "Berlin",
        "destinationipversion": 4,
        "destinationipscope": "private",
        "destinationsite": "elsewhere",
    }
    assert details_of(enricher, {"src_ip": "10.1.2.3"})["sourcesite"] == "desk"
    assert details_of(enricher, {"src_ip": "2001:db8:1::7"})["sourcesite"] == "Berlin"
    assert "sourcesite" not in details_of(enricher, {"src_ip": "2001:db8:2::7"})


def test_address_that_a_parser_found_is_enriched() -> None:
    """Enrichments see what parsers add."""
    event = {"processname": "sshd", "summary": "Invalid user a from 10.1.2.3 port 22"}

    assert details_of(enrich.load(WorkerSettings()), event)["sourceipscope"] == "private"


def test_tables_are_read_again_when_they_change_and_stay_when_they_break(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An operator's typo takes nothing away, and is said once."""
    networks = write(tmp_path / "networks.csv", "10.0.0.0/8,one\n")
    (tmp_path / "lookups").mkdir()
    hosts = write(tmp_path / "lookups" / "hosts.csv", "hostname,owner\nweb1,alice\n")
    enricher = enrich.load(WorkerSettings(networks_file=networks, lookups_dir=tmp_path / "lookups"))
    event = {"hostname": "WEB1.example.org", "src_ip": "10.1.2.3"}

    def seen() -> tuple[str, str]:
        details = details_of(enricher, event)
        return details["sourcesite"], details["owner"]

    assert seen() == ("one", "alice")
    write(networks, "10.0.0.0/8,two\n")
    write(hosts, "hostname,owner\nweb1,bob\n")
    enricher.reload()
    assert seen() == ("two", "bob")
    write(networks, "10.0.0.0/8\n")
    hosts.unlink()
    enricher.reload()
    enricher.reload()
    assert seen() == ("two", "bob")
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert [error.count("Until then") for error in errors] == [1, 1]


def test_look_ups_add_details_by_field_and_by_detail(tmp_path: Path) -> None:
    """Case does not count, empty values add nothing, what is there stays, the first of equal rows counts."""
    write(tmp_path / "a.csv", "details.username,team,details.floor\nAlice,shop,3\nbob,,4\nalice,late,5\n")
    write(tmp_path / "b.csv", 'hostname,owner\nweb1,"shop, team"\n')
    (tmp_path / "notes.txt").write_text("not a table")
    enricher = enrich.load(WorkerSettings(lookups_dir=tmp_path))

    assert details_of(enricher, {"user": "alice", "host": "web1"}) == {
        "username": "alice",
        "team": "shop",
        "floor": "3",
        "owner": "shop, team",
    }
    assert details_of(enricher, {"user": "BOB", "details": {"floor": "mine"}}) == {"username": "BOB", "floor": "mine"}
    assert details_of(enricher, {"user": "carol", "host": "web2"}) == {"username": "carol"}
    assert details_of(enricher, {"host": "web1"}) == {"owner": "shop, team"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("10.0.0.0/8\n", "line 1 is not a network and the name"),
        ("10.0.0.1/8,a\n", "line 1: 10.0.0.1/8 has host bits set"),
        ("\n10.0.0.0/8,a\nhost,b\n", "line 3: 'host' does not appear"),
        ('10.0.0.0/8,"a\n', "line 1"),
        ("10.0.0.0/8," + "a" * 1001, "more than 1000 characters"),
    ],
)
def test_bad_file_of_networks_stops_the_start_with_its_line(tmp_path: Path, text: str, reason: str) -> None:
    """And with the name of the setting."""
    path = write(tmp_path / "networks.csv", text)

    with pytest.raises(LogweirError, match=reason) as caught:
        enrich.load(WorkerSettings(networks_file=path))

    assert caught.value.problem is SETTING_BAD
    assert caught.value.numbers["name"] == "worker.networks_file"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no first row"),
        ("colour,owner\n", "'colour', is neither a field nor a detail"),
        ("hostname\nweb1\n", "needs 2 to 20 columns"),
        ("hostname,owner\nweb1\n", "line 2 has 1 values, the first row 2"),
    ],
)
def test_bad_look_up_stops_the_start(tmp_path: Path, text: str, reason: str) -> None:
    """Before an event is enriched by half of it."""
    write(tmp_path / "bad.csv", text)

    with pytest.raises(LogweirError, match=reason):
        enrich.load(WorkerSettings(lookups_dir=tmp_path))


def test_tables_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By rows, bytes and files."""
    monkeypatch.setattr(_tables, "ROWS_MAX", 3)
    path = write(tmp_path / "networks.csv", "".join(f"10.{number}.0.0/16,a\n" for number in range(4)))
    with pytest.raises(LogweirError, match="more than 3 rows"):
        enrich.load(WorkerSettings(networks_file=path))
    monkeypatch.setattr(_tables, "SIZE_BYTES_MAX", 10)
    with pytest.raises(LogweirError, match="larger than 10 bytes"):
        enrich.load(WorkerSettings(networks_file=path))


def test_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    """By their settings."""
    for name in ("networks_file", "geoip_file", "lookups_dir"):
        with pytest.raises(LogweirError, match="No such file") as caught:
            enrich.load(WorkerSettings.model_validate({name: tmp_path / "none"}))
        assert caught.value.numbers["name"] == f"worker.{name}"


def test_file_that_is_no_maxmind_file_is_refused(tmp_path: Path) -> None:
    """With what the reader says of it."""
    path = write(tmp_path / "x.mmdb", "no database")

    with pytest.raises(LogweirError) as caught:
        enrich.load(WorkerSettings(geoip_file=path))

    assert caught.value.numbers["name"] == "worker.geoip_file"


def test_setting_that_needs_a_package_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that installs it."""
    monkeypatch.setitem(__import__("sys").modules, "maxminddb", None)
    path = write(tmp_path / "x.mmdb", "x")

    with pytest.raises(LogweirError, match=r"logweir\[geo\]") as caught:
        enrich.load(WorkerSettings(geoip_file=path))

    assert caught.value.problem is SETTING_NEEDS_EXTRA


def test_without_the_packages_events_stay_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are extras: a worker runs without them."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)

    details = details_of(enrich.load(WorkerSettings()), {"src_ip": "193.0.6.139", "user_agent": "curl/8.5.0"})

    assert set(details) == {"sourceipaddress", "useragent", "sourceipversion", "sourceipscope"}


def test_country_comes_from_the_maxmind_file_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The country of the place, else of the registration; what the file says of no country adds nothing."""
    said: dict[str, Any] = {
        "193.0.6.139": {"country": {"iso_code": "NL"}, "registered_country": {"iso_code": "XX"}},
        "193.0.6.140": {"registered_country": {"iso_code": "DE"}},
        "193.0.6.141": {"continent": {"code": "EU"}},
        "193.0.6.142": None,
    }

    class Reader:
        get = staticmethod(said.__getitem__)

    monkeypatch.setattr("maxminddb.open_database", lambda _path, _mode: Reader())
    enricher = enrich.load(WorkerSettings(geoip_file=write(tmp_path / "x.mmdb", "x")))

    assert [details_of(enricher, {"src_ip": address}).get("country") for address in said] == ["NL", "DE", None, None]
