"""A real rsyslog with omhttp sends to the product: whatever its template breaks, it loses nothing and goes on."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.proof import size
from tests.senders.lines import DATA, at, books, events, is_poison, lines, running, send_with_restarts, wait_for
from tests.services.rsyslog import Rsyslog
from tests.services.syslog import line
from tests.tools.product import Embedded, logweir

# The daemon may have to be built, and the product is started and restarted.
pytestmark = pytest.mark.timeout(size(900, 3600))

LINES = size(4_000, 100_000)
CONFIGURATION = (Path(__file__).resolve().parents[2] / "deploy/senders/rsyslog-omhttp.conf").read_text()

# As it is found in many places: what stands in quotes is escaped in the message only.
COMMON = """\
module(load="omhttp")
template(name="common" type="string" string="{\\"timestamp\\":\\"%timereported:::date-rfc3339%\\",\
\\"hostname\\":\\"%hostname%\\",\\"processname\\":\\"%app-name%\\",\\"severity\\":\\"%syslogseverity-text%\\",\
\\"structured data\\":\\"%structured-data%\\",\\"summary\\":\\"%msg:::json%\\"}")
"""
SEND = """\
action(type="omhttp" template="common" server="localhost" serverport="{port}" usehttps="off" restpath="events"
       httpheaderkey="X-Log-Key" httpheadervalue="{key}" errorfile="{folder}/errors.json"
       action.resumeRetryCount="-1" action.resumeInterval="1" action.resumeIntervalMax="2"
       queue.type="LinkedList" queue.filename="common" queue.size="200000" queue.saveOnShutdown="on")
"""


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    with running(Embedded(tmp_path_factory.mktemp("product") / "data")) as product:
        yield product


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[Embedded]:
    with running(Embedded(tmp_path / "data", extra=("--tls",))) as product:
        yield product


def common(product: Embedded, folder: Path, key: str) -> Rsyslog:
    """With the template that many have."""
    rules = SEND.format(port=product.ingest_port, key=key, folder=folder)
    return Rsyslog(folder, sent=COMMON, rules=rules)


@pytest.mark.sized
def test_the_common_template_loses_nothing_and_stops_for_nothing(product: Embedded, tmp_path: Path) -> None:
    """Bare quotes of structured data are mended, worse is a dead letter, all else is stored, over two restarts."""
    total = LINES + 300
    with common(product, tmp_path, product.key) as rsyslog:
        send_with_restarts(rsyslog, product, "web1", count=LINES, restarts=2)
        wait_for(product, "web1", LINES)
        rsyslog.send(lines("web1", range(LINES, total)))
        result = wait_for(product, "web1", total)
    figures = books(product)
    mended = events(product, "tags:mended AND hostname:web1")

    poison = {number for number in range(total) if is_poison(number)}
    assert set(result.dead) == poison and len(poison) == LINES // 1000
    assert set(result.stored) == set(range(total)) - poison
    assert figures["dead_lettered"] == sum(result.dead.values())
    assert figures["indexed"] == sum(result.stored.values())
    assert result.repeated == figures["accepted"] - total <= 50
    assert len(mended) >= (total + 2) // 3 - len(poison)
    details = mended[0]["details"]
    assert isinstance(details, dict)
    assert details["structured data"] == DATA.decode()
    assert 'software="app"' in details["original"]


def test_a_quota_is_waited_for(product: Embedded, tmp_path: Path) -> None:
    """It is answered 503, of which omhttp tries again: after the 429 that others get it would drop all that follows."""
    count = 400
    key = logweir("keys", "add", "limited", "--events-per-second", "100", *at(product)).strip()
    time.sleep(8)  # Doors follow within two seconds; before that, each try would count as one with a wrong key.
    with common(product, tmp_path, key) as rsyslog:
        rsyslog.send(lines("web2", range(count)))
        result = wait_for(product, "web2", count)
    tries = [json.loads(row) for row in (tmp_path / "errors.json").read_text().splitlines()]

    assert result.repeated == 0
    assert {one["response"]["status"] for one in tries} == {503}
    assert {json.loads(one["response"]["message"])["code"] for one in tries} == {"quota_exceeded"}


@pytest.mark.sized
def test_the_configuration_that_we_ship_sends_whatever_a_message_holds(secured: Embedded, tmp_path: Path) -> None:
    """Over TLS, by the very file: quotes, structured data, control characters and long lines break nothing."""
    count = size(1_000, 20_000)
    changes = {
        "logweir.example.org": "localhost",
        'serverport="8080"': f'serverport="{secured.ingest_port}"',
        "/etc/rsyslog.d/logweir-ca.pem": str(secured.data_dir / "tls/ca.crt"),
        "lw_CHANGE": secured.key,
        "/var/log/logweir-omhttp.log": str(tmp_path / "errors.json"),
        "call logweir\n": "",
    }
    configuration = CONFIGURATION
    for written, meant in changes.items():
        assert written in configuration
        configuration = configuration.replace(written, meant)
    odd = [b'say "hello" {"a":1}', "zwölf\ttab".encode(), b"x" * 20_000, b"not UTF-8: \xff"]
    with Rsyslog(tmp_path, sent=configuration, rules="call logweir") as rsyslog:
        send_with_restarts(rsyslog, secured, "web1", count=count, restarts=size(0, 2))
        rsyslog.send(line(b"line %d end %b" % (count + n, text), data=DATA, host=b"web1") for n, text in enumerate(odd))
        result = wait_for(secured, "web1", count + len(odd))

    assert set(result.stored) == set(range(count + 3))
    assert set(result.dead) == {count + 3}
    assert result.repeated <= 50
