"""Real programs that believe to send to Elasticsearch: to a door, which is restarted twice meanwhile."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import elastic_transport
import elasticsearch
import pytest
from elasticsearch import helpers

from tests.proof import size
from tests.senders import programs
from tests.senders.journey import EVENTS, GOOD, POISON, Journey, is_poison, journey
from tests.services.fetch import ensure_tools
from tests.tools.product import logweir
from tests.waiting import until

ROOT = Path(__file__).resolve().parents[2]
CONFIGURATION = ROOT / "deploy/senders/rsyslog-omelasticsearch.conf"
# The product starts three times; a busy machine needs ten times what an idle one does.
pytestmark = [pytest.mark.sized, pytest.mark.timeout(size(300, 1800))]


def assert_all_came(sent: Journey) -> None:
    """All that is good is stored, once; what is poison is a dead letter; the books have both, and nothing is lost."""
    books = sent.books()
    stored, letters = sent.stored(), sent.letters()
    row = books.row.as_json()

    assert (stored.keys(), letters.keys()) == (GOOD, POISON)
    assert set(stored.values()) == {1}
    assert books.balanced, row
    assert (row["indexed"], row["dead_lettered"]) == (len(GOOD), letters.total())
    assert row["accepted"] == row["indexed"] + row["duplicate"] + row["dead_lettered"]


# --- the official client for Python -----------------------------------------------------------------------------------
def python_action(number: int) -> Any:
    """Text is sent as it is: so poison gets through the client, though without an id."""
    if is_poison(number):
        return f'{{"message":"event {number} says "no""}}'
    return {"_op_type": "create", "_index": "logs", "_id": str(number), "message": f"event {number}", "n": number}


def python_bulks(client: elasticsearch.Elasticsearch, numbers: range) -> None:
    """As a script would: what raises is tried again."""
    for start in range(numbers.start, numbers.stop, 250):
        actions = [python_action(number) for number in range(start, min(start + 250, numbers.stop))]
        while True:
            try:
                for ok, said in helpers.streaming_bulk(client, actions, chunk_size=100, max_retries=5):
                    assert ok, said
                break
            except (elastic_transport.TransportError, elasticsearch.ApiError):
                time.sleep(0.1)


def test_the_greeting_is_what_the_client_for_python_wants(tmp_path: Path) -> None:
    """It refuses to speak with what is no Elasticsearch; a wrong key is an error of its own kind."""
    with journey(tmp_path) as sent:
        client = elasticsearch.Elasticsearch(sent.url, api_key=("id", sent.key))
        created = client.index(index="logs", id="one", document={"message": "event 1"})
        count_sent, errors = helpers.bulk(client, [{"_index": "logs", "message": f"event {n}"} for n in range(2, 12)])
        stranger = elasticsearch.Elasticsearch(sent.url, basic_auth=("logs", "lw_wrong"))
        with pytest.raises(elasticsearch.AuthenticationException):
            stranger.info()
        assert client.info()["tagline"] == "You Know, for Search"
        assert (created["result"], count_sent, errors) == ("created", 10, [])
        assert sent.books(accepted=11).row.as_json()["indexed"] == 11


def test_the_client_for_python_loses_nothing(tmp_path: Path) -> None:
    """Each document has an id, so what was sent twice around a restart is a duplicate, and counted as one."""
    with journey(tmp_path) as sent:
        client = elasticsearch.Elasticsearch(sent.url, basic_auth=("logs", sent.key), max_retries=1)
        sent.send(lambda numbers: python_bulks(client, numbers))

        assert_all_came(sent)


# --- rsyslog ----------------------------------------------------------------------------------------------------------
# What many have in place of the file's template: a quote in a message makes broken JSON of it.
CARELESS = (
    'template(name="logweir-event" type="string" string="{\\"message\\":\\"%msg%\\",\\"host\\":\\"%hostname%\\"}")'
)


class Rsyslog:
    """Debian's rsyslogd, which follows a file and sends each line of it by the configuration that we ship."""

    def __init__(self, folder: Path, sent: Journey, *, template: str = "") -> None:
        ensure_tools()
        folder.mkdir()
        self.folder = folder
        self.lines = folder / "lines.log"
        self.lines.touch()
        self.refused = folder / "logweir-refused.json"
        text = CONFIGURATION.read_text()
        for shipped, here in (
            ("logs.example.com", "127.0.0.1"),
            ('serverport="443"', f'serverport="{sent.port}"'),
            ('usehttps="on"', 'usehttps="off"'),
            ("lw_the_key", sent.key),
            ("/var/spool/rsyslog", str(folder)),
            ('action.resumeInterval="5"', 'action.resumeInterval="1"'),
        ):
            assert shipped in text
            text = text.replace(shipped, here)
        if template:
            begin, end = text.index("template("), text.index("\n}\n") + 3
            text = text[:begin] + template + text[end:]
        begun = text.index("\naction(\n")
        self._configuration = folder / "rsyslog.conf"
        self._configuration.write_text(
            f'global(workDirectory="{folder}")\nmodule(load="imfile")\n'
            f'input(type="imfile" file="{self.lines}" tag="app:" ruleset="sent")\n'
            f'{text[:begun]}\nruleset(name="sent") {{{text[begun:]}}}\n'
        )

    def start(self) -> None:
        daemon = shutil.which("rsyslogd", path="/usr/sbin:/usr/bin")
        assert daemon is not None
        with (self.folder / "log").open("ab") as log:
            words = [daemon, "-n", "-f", str(self._configuration), "-i", str(self.folder / "pid")]
            self._process = subprocess.Popen(words, stdout=log, stderr=log)

    def append(self, numbers: range, text: str = "event {}", poison: str = 'event {} says "no"') -> None:
        with self.lines.open("a") as lines:
            lines.writelines((poison if is_poison(number) else text).format(number) + "\n" for number in numbers)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(60)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(10)


@contextmanager
def rsyslog(folder: Path, sent: Journey, *, template: str = "") -> Iterator[Rsyslog]:
    daemon = Rsyslog(folder, sent, template=template)
    daemon.start()
    try:
        yield daemon
    finally:
        daemon.kill()


def test_rsyslog_by_the_file_that_we_ship_sends_any_message(tmp_path: Path) -> None:
    """Quotes, structured data, backslashes, what is not UTF-8: documents all of them, and a restart repeats none."""
    text = 'event {} says "no" \\ [id name="value"] \t zwölf'
    with journey(tmp_path) as sent, rsyslog(tmp_path / "rsyslog", sent) as daemon:
        daemon.append(range(500), text, text)
        sent.books(accepted=500)
        daemon.stop()
        daemon.append(range(500, 1000), text, text)
        daemon.start()
        row = sent.books(accepted=1000).row.as_json()

        assert sent.stored().keys() == set(range(1000))
        assert (row["indexed"], row["duplicate"], row["dead_lettered"]) == (1000, 0, 0)
        event = json.loads(sent.product.search("event", "--json", "--size", "1"))
        assert (event["processname"], event["severity"], event["key"]) == ("app", "NOTICE", "first")
        assert event["summary"].endswith('says "no" \\ [id name="value"] \t zwölf')
        assert not daemon.refused.exists()


# What it takes from its queue at once.
RSYSLOG_BATCH = 128


@pytest.mark.proof
def test_rsyslog_with_a_careless_template_goes_on(tmp_path: Path) -> None:
    """A message with a quote makes broken JSON: it is a dead letter; others of its bulk and later ones are stored.

    8.2302 does not number its messages, and drops a batch when it misreads what ends a connection: at most one for each
    restart may never have reached the door, and is not in its books.
    """
    with journey(tmp_path) as sent, rsyslog(tmp_path / "rsyslog", sent, template=CARELESS) as daemon:
        sent.send(daemon.append)
        until(lambda: EVENTS - 1 in sent.letters(), wait_s=size(200, 1200))
        # What it had to send again may come behind the last.
        books = sent.books(accepted=EVENTS - 2 * RSYSLOG_BATCH)
        stored, letters = sent.stored(), sent.letters()
        row = books.row.as_json()

        assert stored.keys() <= GOOD
        assert letters.keys() <= POISON
        assert EVENTS - len(stored) - len(letters) <= 2 * RSYSLOG_BATCH
        assert set(stored.values()) == {1}
        assert books.balanced, row
        assert (row["indexed"], row["dead_lettered"]) == (len(stored), letters.total())
        assert not daemon.refused.exists()


@pytest.mark.proof
def test_rsyslog_waits_where_its_key_is_at_its_quota(tmp_path: Path) -> None:
    """Debian 12's drops what is answered 429 or 503, unless the answer is cut short: then it sends again."""
    with journey(tmp_path) as sent:
        words = ("slow", "--events-per-second", "200", "--data-dir", str(sent.product.data_dir))
        sent.key = logweir("keys", "add", *words).strip()
        with rsyslog(tmp_path / "rsyslog", sent) as daemon:
            daemon.append(range(1500), poison="event {}")
            row = sent.books(accepted=1500).row.as_json()
            text = urllib.request.urlopen(f"{sent.url}/metrics").read().decode()

            assert 'reason="quota_exceeded"' in text
            assert sent.stored().keys() == set(range(1500))
            assert (row["indexed"], row["dead_lettered"]) == (1500, 0)
            assert not daemon.refused.exists()


# --- the official clients for JavaScript and Go ---------------------------------------------------------------------
@pytest.mark.proof
@pytest.mark.parametrize("command", [programs.elasticsearch_js, programs.elasticsearch_go], ids=["javascript", "go"])
def test_the_other_official_clients_lose_nothing(tmp_path: Path, command: Callable[[str, str], list[str]]) -> None:
    """They send lines as documents, poison among them, each with an id, and retry by themselves."""
    with journey(tmp_path) as sent:
        words = command(sent.url, sent.key)
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdin is not None

        def hand_over(numbers: range) -> None:
            for number in numbers:
                said = '"no"' if is_poison(number) else "yes"
                process.stdin.write(f'{{"message":"event {number} says {said}"}}\n')
            process.stdin.flush()

        sent.send(hand_over)
        printed, _ = process.communicate(timeout=600)

        assert json.loads(printed) == {"sent": EVENTS, "failed": 0}
        assert_all_came(sent)
