"""A real syslog-ng sends to the product by http(): it loses nothing, and no batch is ever in the way of the next."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.proof import size
from tests.senders.lines import DATA, books, events, is_poison, lines, running, send_with_restarts, wait_for
from tests.services.syslog import line
from tests.services.syslog_ng import SyslogNg
from tests.tools.product import Embedded

# The daemon may have to be fetched, and the product is started and restarted.
pytestmark = pytest.mark.timeout(size(900, 3600))

CONFIGURATION = (Path(__file__).resolve().parents[2] / "deploy/senders/syslog-ng.conf").read_text()
# As people write it who do not know $(format-json).
BARE_BODY = (
    r"""body("{\"hostname\":\"$HOST\",\"processname\":\"$PROGRAM\","""
    r"""\"summary\":\"$(sanitize -C -i '\"\\' $MSG)\"}")"""
)


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    with running(Embedded(tmp_path_factory.mktemp("product") / "data", extra=("--tls",))) as product:
        yield product


def syslog_ng(product: Embedded, folder: Path, configuration: str = CONFIGURATION) -> SyslogNg:
    """With the file that we ship, but for what everybody has to change in it."""
    changes = {
        "logweir.example.org:8080": f"localhost:{product.ingest_port}",
        "/etc/syslog-ng/logweir-ca.pem": str(product.data_dir / "tls/ca.crt"),
        "lw_CHANGE": product.key,
        "/var/lib/syslog-ng": str(folder),
    }
    for written, meant in changes.items():
        assert written in configuration
        configuration = configuration.replace(written, meant)
    return SyslogNg(folder, sent=configuration)


@pytest.mark.sized
def test_the_configuration_that_we_ship_sends_whatever_a_message_holds(product: Embedded, tmp_path: Path) -> None:
    """Over TLS and two restarts of the product: nothing is lost, and what came twice can be told."""
    count = size(4_000, 100_000)
    odd = [b'say "hello" {"a":1}', "zwölf\ttab".encode(), b"x" * 5_000, b"not UTF-8: \xff"]
    with syslog_ng(product, tmp_path) as daemon:
        send_with_restarts(daemon, product, "web1", count=count, restarts=2)
        daemon.send(line(b"line %d end %b" % (count + n, text), data=DATA) for n, text in enumerate(odd))
        result = wait_for(product, "web1", count + len(odd))
    figures = books(product)
    stored = events(product, "hostname:web1")
    ids = {event["details"]["uniqid"] for event in stored if isinstance(event["details"], dict)}

    assert set(result.stored) == set(range(count + len(odd))) and not result.dead
    assert figures["indexed"] == figures["accepted"] == sum(result.stored.values())
    assert len(ids) == len(result.stored)
    assert result.repeated <= 4 * 500 * 2  # Four batches may be under way at each restart.


def test_a_batch_with_poison_is_accepted_but_for_the_poison(product: Embedded, tmp_path: Path) -> None:
    """Where a bare quote breaks a line: that is a dead letter, all others of its batch and behind it are stored."""
    count = 2_000
    broken, replaced = re.subn(r"body\('.*?\)'\)", lambda _: BARE_BODY, CONFIGURATION, flags=re.DOTALL)
    assert replaced == 1
    with syslog_ng(product, tmp_path, broken) as daemon:
        daemon.send(lines("web2", range(count)))
        result = wait_for(product, "web2", count)

    assert set(result.dead) == {number for number in range(count) if is_poison(number)}
    assert set(result.stored) | set(result.dead) == set(range(count))
    assert result.repeated == 0
