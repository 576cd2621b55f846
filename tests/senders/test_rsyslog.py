"""A real rsyslog with omhttp sends to the product: whatever its template breaks, it loses nothing and goes on."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.proof import size
from tests.senders.lines import DATA, at, books, is_poison, lines, send_with_restarts, wait_for
from tests.services.rsyslog import Rsyslog
from tests.services.syslog import line
from tests.tools.product import Embedded, logweir

# The daemon may have to be built, and the product is started and restarted.
pytestmark = pytest.mark.timeout(size(900, 3600))

LINES = size(10_000, 100_000)
CONFIGURATION = (Path(__file__).resolve().parents[2] / "deploy/senders/rsyslog-omhttp.conf").read_text()

# As it is found in many places: what stands in quotes is escaped in the message only.
COMMON = """\
module(load="omhttp")
template(name="common" type="string" string="{\\"timestamp\\":\\"%timereported:::date-rfc3339%\\",\
\\"hostname\\":\\"%hostname%\\",\\"processname\\":\\"%app-name%\\",\\"severity\\":\\"%syslogseverity-text%\\",\
\\"structured data\\":\\"%structured-data%\\",\\"summary\\":\\"%msg:::json%\\"}")
"""
SEND = """\
action(type="omhttp" template="common" server="127.0.0.1" serverport="{port}" usehttps="off" restpath="events"
       httpheaderkey="X-Log-Key" httpheadervalue="{key}" errorfile="{folder}/errors.json"
       action.resumeRetryCount="-1" action.resumeInterval="1" action.resumeIntervalMax="2"
       queue.type="LinkedList" queue.filename="common" queue.size="200000" queue.saveOnShutdown="on")
"""


@pytest.fixture
def product(tmp_path: Path) -> Iterator[Embedded]:
    product = Embedded(tmp_path / "data")
    product.start()
    yield product
    product.process.kill_family()


@pytest.fixture
def rsyslog(product: Embedded, tmp_path: Path) -> Iterator[Rsyslog]:
    """With the common template."""
    folder = tmp_path / "rsyslog"
    rsyslog = Rsyslog(folder, sent=COMMON, rules=SEND.format(port=product.ingest_port, key=product.key, folder=folder))
    rsyslog.start()
    yield rsyslog
    rsyslog.stop()


@pytest.mark.sized
def test_the_common_template_loses_nothing_and_stops_for_nothing(product: Embedded, rsyslog: Rsyslog) -> None:
    """Bare quotes of structured data are mended, worse is a dead letter, all else is stored, over two restarts."""
    send_with_restarts(rsyslog, product, count=LINES)
    wait_for(product, LINES)
    rsyslog.send(lines(LINES, 300))
    total = LINES + 300
    result = wait_for(product, total)
    figures = books(product)
    mended = product.search("tags:mended AND hostname:web1", "--json", "--size", "0").splitlines()

    poison = {number for number in range(total) if is_poison(number)}
    assert set(result.dead) == poison and len(poison) == LINES // 1000
    assert set(result.stored) == set(range(total)) - poison
    assert figures["dead_lettered"] == sum(result.dead.values())
    assert figures["indexed"] == sum(result.stored.values())
    assert result.repeated == figures["accepted"] - total <= 50
    assert len(mended) >= (total + 2) // 3 - len(poison)
    one = json.loads(mended[0])
    assert one["details"]["structured data"].startswith('[origin software="app" note="say')
    assert 'software="app"' in one["details"]["original"]


def test_a_quota_is_waited_for(product: Embedded, rsyslog: Rsyslog) -> None:
    """It is answered 503, of which omhttp tries again: after the 429 that others get it would drop all that follows."""
    count = 400
    (name,) = {row["name"] for row in json.loads(logweir("keys", "list", "--json", *at(product)))}
    logweir("keys", "set", name, "--events-per-second", "100", *at(product))
    time.sleep(3)  # Doors follow within two seconds.
    rsyslog.send(lines(0, count))
    result = wait_for(product, count)
    tries = [json.loads(row) for row in rsyslog.file("errors.json").read_text().splitlines()]

    assert result.repeated == 0
    assert {one["response"]["status"] for one in tries} == {503}
    assert {json.loads(one["response"]["message"])["code"] for one in tries} == {"quota_exceeded"}


@pytest.mark.sized
def test_the_configuration_that_we_ship_sends_whatever_a_message_holds(tmp_path: Path) -> None:
    """Over TLS, by the very file: quotes, structured data, control characters and long lines break nothing."""
    count = size(2_000, 20_000)
    product = Embedded(tmp_path / "data", extra=("--tls",))
    product.start()
    folder = tmp_path / "rsyslog"
    changes = {
        "logweir.example.org": "localhost",
        'serverport="8080"': f'serverport="{product.ingest_port}"',
        "/etc/rsyslog.d/logweir-ca.pem": str(product.data_dir / "tls/ca.crt"),
        "lw_CHANGE": product.key,
        "/var/log/logweir-omhttp.log": str(folder / "errors.json"),
        "call logweir\n": "",
    }
    configuration = CONFIGURATION
    for written, meant in changes.items():
        assert written in configuration
        configuration = configuration.replace(written, meant)
    rsyslog = Rsyslog(folder, sent=configuration, rules="call logweir")
    try:
        rsyslog.start()
        send_with_restarts(rsyslog, product, count=count, restarts=1)
        odd = [b'say "hello" {"a":1}', "zwölf\ttab".encode(), b"x" * 20_000, b"not UTF-8: \xff"]
        rsyslog.send(line(b"line %d end %b" % (count + n, text), data=DATA) for n, text in enumerate(odd))
        result = wait_for(product, count + len(odd))
    finally:
        rsyslog.stop()
        product.process.kill_family()

    assert set(result.stored) == set(range(count + 3))
    assert set(result.dead) == {count + 3}
    assert result.repeated <= 50
