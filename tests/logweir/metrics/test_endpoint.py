"""/metrics and /healthz of a process that serves nothing else."""

from __future__ import annotations

import ast
import http.client
import socket
from pathlib import Path

import pytest

from logweir import errors
from logweir.errors import PORT_TAKEN, LogweirError
from logweir.metrics import endpoint as exposition
from logweir.metrics import registry
from logweir.metrics.table import METRICS

ROOT = Path(__file__).parents[3]


def get(port: int, path: str, *, address: str = "127.0.0.1") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(address, port, timeout=10)
    connection.request("GET", path)
    response = connection.getresponse()
    return response.status, response.read()


def test_metrics_and_health_are_served_on_the_next_free_port() -> None:
    """A second process on the machine takes the next port; health is what the process says of itself."""
    registry.prepare(("logweir_worker_",))
    wrong: list[str] = []
    first = exposition.serve("one", "127.0.0.1", 0, lambda: wrong[0] if wrong else None)
    second = exposition.serve("two", "127.0.0.1", first, lambda: None)
    status, text = get(first, "/metrics")
    healthy = get(first, "/healthz")
    wrong.append("it stands still")
    unhealthy = get(first, "/healthz")

    assert status == 200
    # How many, other tests of this process decide.
    assert b'logweir_worker_events_total{outcome="dead_lettered"} ' in text
    assert b"_created" not in text
    assert healthy == (200, b"ok\n")
    assert unhealthy == (503, b"it stands still\n")
    assert second > first
    assert get(second, "/healthz")[0] == 200
    assert get(first, "/")[0] == 404


def test_an_address_of_ipv6_is_listened_on() -> None:
    """And on its next port, when that one is taken."""
    first = exposition.serve("one", "::1", 0, lambda: None)
    second = exposition.serve("two", "::1", first, lambda: None)

    assert get(first, "/healthz", address="::1") == get(second, "/healthz", address="::1") == (200, b"ok\n")


@pytest.mark.parametrize(
    ("address", "port", "said"),
    [
        ("192.0.2.1", 8090, "192.0.2.1:8090: Cannot assign requested address."),
        ("2001:db8::1", 8090, "[2001:db8::1]:8090: Cannot assign requested address."),
        ("no.such.invalid", 8090, "no.such.invalid:8090: "),
    ],
)
def test_an_address_that_is_not_ours_is_tried_once(
    address: str, port: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another port would not help; the error says the address, what is wrong with it, and that it may be that."""
    tried: list[object] = []
    bind = exposition._Server.server_bind

    def counted(server: exposition._Server) -> None:
        tried.append(server.server_address)
        bind(server)

    monkeypatch.setattr(exposition._Server, "server_bind", counted)
    with pytest.raises(LogweirError) as raised:
        exposition.serve("It", address, port, lambda: None)

    assert raised.value.problem is PORT_TAKEN
    assert f"It cannot listen on {said}" in str(raised.value)
    assert "another port or address" in str(raised.value)
    assert len(tried) == 1


def test_the_last_port_of_all_is_tried_and_none_behind_it() -> None:
    """65536 is no port, and no error of its own."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 65535))
        taken.listen()
        with pytest.raises(LogweirError, match=r"cannot listen on 127\.0\.0\.1:65535: Address already in use"):
            exposition.serve("It", "127.0.0.1", 65535, lambda: None)


def test_what_a_door_may_refuse_has_its_series_from_the_start() -> None:
    """So that the first burst is an increase, too: each code and its status, and why a key was refused."""
    registry.prepare(("logweir_ingest_requests", "logweir_ingest_rejected"))
    text = registry.exposition()[0].decode()

    for problem in (errors.KEY_MISSING, errors.BODY_TOO_LARGE, errors.SPOOL_FULL, errors.INTERNAL):
        assert f'logweir_ingest_rejected_requests_total{{reason="{problem.code}"}} ' in text
        assert f'logweir_ingest_requests_total{{code="{problem.status}",endpoint="events"}} ' in text
    assert 'logweir_ingest_rejected_requests_total{reason="key_expired"} ' in text
    assert 'logweir_ingest_requests_total{code="202",endpoint="events"} ' in text
    assert errors.SETTING_BAD.code not in text


def test_every_metric_of_the_table_can_be_made() -> None:
    """Names, labels and starting values of every row are such that prometheus-client takes them."""
    for row in METRICS:
        assert registry.get(row.name) is registry.get(row.name)


def test_every_metric_of_the_table_is_used_by_the_code() -> None:
    """By its name, or by one that a file puts together of words that it has: the table alone publishes nothing."""
    used = {name for folder in CODE for file in folder.rglob("*.py") for name in names_in(file)}

    assert {row.name for row in METRICS} - used == set()


CODE = [ROOT / "logweir", ROOT / "ingest", ROOT / "workers", ROOT / "console"]


def names_in(file: Path) -> set[str]:
    """The texts of a file, but for a table of metrics; and its f-strings, filled with these texts."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    tree.body = [one for one in tree.body if not ast.unparse(one).startswith("METRICS = ")]
    nodes = list(ast.walk(tree))
    texts = {one.value for one in nodes if isinstance(one, ast.Constant) and isinstance(one.value, str)}
    return texts.union(*(_filled(one, texts) for one in nodes if isinstance(one, ast.JoinedStr)))


def _filled(pattern: ast.JoinedStr, texts: set[str]) -> set[str]:
    match pattern.values:
        case [ast.Constant(value=str(before)), ast.FormattedValue(), ast.Constant(value=str(after))]:
            return {before + text + after for text in texts} if before.startswith("logweir_") else set()
    return set()
