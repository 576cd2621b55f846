"""A real syslog-ng sends to the product by http(): it loses nothing, and no batch is ever in the way of the next."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.proof import size
from tests.senders.lines import DATA, books, is_poison, lines, send_with_restarts, wait_for
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


@pytest.fixture
def product(tmp_path: Path) -> Iterator[Embedded]:
    product = Embedded(tmp_path / "data", extra=("--tls",))
    product.start()
    yield product
    product.process.kill_family()


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
    count = size(10_000, 100_000)
    daemon = syslog_ng(product, tmp_path / "syslog-ng")
    daemon.start()
    send_with_restarts(daemon, product, count=count)
    odd = [b'say "hello" {"a":1}', "zwölf\ttab".encode(), b"x" * 5_000, b"not UTF-8: \xff"]
    daemon.send(line(b"line %d end %b" % (count + at, text), data=DATA) for at, text in enumerate(odd))
    result = wait_for(product, count + len(odd))
    daemon.stop()
    figures = books(product)
    events = [json.loads(row) for row in product.search("hostname:web1", "--json", "--size", "0").splitlines()]

    assert set(result.stored) == set(range(count + len(odd))) and not result.dead
    assert figures["indexed"] == figures["accepted"] == sum(result.stored.values())
    assert len({event["details"]["uniqid"] for event in events}) == len(result.stored)
    assert result.repeated <= 4 * 500 * 2  # Four batches may be under way at each restart.


def test_a_batch_with_poison_is_accepted_but_for_the_poison(product: Embedded, tmp_path: Path) -> None:
    """Where a bare quote breaks a line: that is a dead letter, all others of its batch and behind it are stored."""
    count = 3_000
    broken, replaced = re.subn(r"body\('.*?\)'\)", lambda _: BARE_BODY, CONFIGURATION, flags=re.DOTALL)
    assert replaced == 1
    daemon = syslog_ng(product, tmp_path / "syslog-ng", broken)
    daemon.start()
    daemon.send(lines(0, count))
    result = wait_for(product, count)
    daemon.stop()

    assert set(result.dead) == {number for number in range(count) if is_poison(number)}
    assert set(result.stored) | set(result.dead) == set(range(count))
    assert result.repeated == 0
