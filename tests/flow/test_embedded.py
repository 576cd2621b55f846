"""`logweir up`, as a user runs it: everything embedded, on loopback. Killed with -9 it is in test_kill.py."""

from __future__ import annotations

import gzip
import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.tools.product import (
    LOGWEIR,
    Embedded,
    Load,
    Process,
    environment,
    logweir,
    status_of,
)

# Each starts the whole product.
pytestmark = pytest.mark.timeout(180)

FOUND_S_MAX = 50.0  # A second or two, where measured.


@pytest.fixture
def product(tmp_path: Path) -> Iterator[Embedded]:
    product = Embedded(tmp_path / "data")
    product.start()
    yield product
    product.process.kill_family()


def post(product: Embedded, body: str, key: str | None = None) -> tuple[int, dict[str, object]]:
    done = subprocess.run(
        [
            "curl",
            "-sS",
            "-w",
            "\n%{http_code}",
            "-H",
            f"X-My-Log-Input-Key: {key or product.key}",
            "--data-binary",
            "@-",
            f"http://127.0.0.1:{product.ingest_port}/events",
        ],
        input=body,
        capture_output=True,
        text=True,
        check=True,
    )
    answer, _, status = done.stdout.rpartition("\n")
    return int(status), json.loads(answer)


def wait_for_count(product: Embedded, query: str, count: int) -> None:
    started = time.monotonic()
    while (found := int(product.search(query, "--count"))) != count:
        assert time.monotonic() - started < FOUND_S_MAX, f"{found} of {count} are found after {FOUND_S_MAX} s"


def test_the_printed_curl_line_works_and_its_event_is_found(product: Embedded) -> None:
    """A newcomer copies the line that the first start prints, and finds the event with the other."""
    lines = product.process.text.splitlines()
    curl = next(line.strip() for line in lines if "curl -H" in line)
    answer = json.loads(subprocess.run(curl, shell=True, capture_output=True, text=True, check=True).stdout)
    wait_for_count(product, "hello", 1)

    assert answer["accepted"] == 1
    assert answer["durable"] == "queue"
    assert answer["receipt"]


def test_what_is_sent_is_found(product: Embedded, tmp_path: Path) -> None:
    """10,000 events by `logweir send` and one by curl; wrong key 401; broken JSON 400 that names the byte."""
    events = tmp_path / "events.ndjson"
    events.write_text("".join(json.dumps({"category": "bulk", "summary": f"line {at}"}) + "\n" for at in range(10_000)))
    url = f"http://127.0.0.1:{product.ingest_port}/events"
    logweir("send", str(events), "--key", product.key, "--url", url)
    sent = post(product, '{"category":"bulk","summary":"by curl"}')
    wait_for_count(product, "category:bulk", 10_001)
    unknown = post(product, "{}", key="lw_wrong")
    broken = post(product, '{"a":"b"}\n{"a":"say "hi""}')

    assert sent[0] == 202
    assert unknown[0] == 401
    assert broken[0] == 400
    assert broken[1]["event_index"] == 1
    assert broken[1]["byte_offset"] == 21
    lines = product.search("category:bulk AND line", "--json", "--size", "0").splitlines()
    assert len({json.loads(line)["_id"] for line in lines}) == 10_000


def test_a_broken_line_is_named_and_all_before_it_is_sent(product: Embedded, tmp_path: Path) -> None:
    """A compressed file with a broken line: the line and its byte are said, and where to go on; a wrong key is, too."""
    lines = [b'{"category":"send","summary":"%d"}' % number for number in range(700)]
    lines[600] = b'{"broken": }'
    file = tmp_path / "events.ndjson.gz"
    file.write_bytes(gzip.compress(b"\n".join(lines)))
    url = f"http://127.0.0.1:{product.ingest_port}/events"

    def send(key: str, *more: str) -> subprocess.CompletedProcess[str]:
        command = [*LOGWEIR, "send", str(file), "--key", key, "--url", url, *more]
        return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60)

    unknown, broken = send("lw_wrong"), send(product.key)
    wait_for_count(product, "category:send", 600)
    lines[600] = lines[0]
    file.write_bytes(gzip.compress(b"\n".join(lines)))
    rest = send(product.key, "--from-line", "601")
    wait_for_count(product, "category:send", 700)

    assert "100 events accepted" in rest.stderr
    assert unknown.returncode == broken.returncode == 2
    assert "Check --key" in unknown.stderr
    assert "600 events accepted" in broken.stderr
    assert "Line 601: not valid JSON at byte 11 of the line" in broken.stderr
    assert "the same command with --from-line 601" in broken.stderr


def test_ctrl_c_stops_everything_even_under_load(product: Embedded) -> None:
    """After Ctrl-C no process and no listener is left; the next start says that keys were shown before."""
    family = product.process.family()
    with Load([product.ingest_port], product.key):
        time.sleep(1)
        product.process.stop()
    left = [one for one in family if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
    first_key = product.key
    product.start()

    assert not left
    assert len(family) >= 4
    assert first_key not in product.process.text
    assert "keys add NAME" in product.process.text


def test_children_do_not_outlive_their_parent_however_it_dies(product: Embedded) -> None:
    """kill -9 of the parent alone takes all children with it, and frees the ports."""
    family = product.process.family()
    family[0].send_signal(signal.SIGKILL)
    product.process.popen.wait(5)
    _, alive = psutil.wait_procs(family[1:], timeout=5)

    assert not alive
    assert status_of(product.ingest_port, "/healthz") == 0


def test_a_second_start_on_the_same_folder_or_port_is_a_clear_error(product: Embedded, tmp_path: Path) -> None:
    """The error names the folder and the process, or the port, and ends at once."""
    same_folder = Process(["up", "--data-dir", str(product.data_dir)], tmp_path / "second.log")
    same_port = Process(
        ["up", "--data-dir", str(tmp_path / "other"), "--ingest-port", str(product.ingest_port)], tmp_path / "third.log"
    )

    assert same_folder.popen.wait(15) == 2
    assert f"is in use by another logweir (process {product.process.popen.pid})" in same_folder.text
    assert same_port.popen.wait(15) == 2
    assert f"cannot listen on 127.0.0.1:{product.ingest_port}" in same_port.text


def test_doctor_finds_nothing_wrong_and_names_what_is(product: Embedded, tmp_path: Path) -> None:
    """Exit status 0 on a running product; 1, with what to do, when the queue is not there."""
    rows = [json.loads(line) for line in logweir("doctor", "--json", "--data-dir", str(product.data_dir)).splitlines()]
    absent = subprocess.run(
        [*LOGWEIR, "doctor", "--json", "--data-dir", str(tmp_path)],
        env=environment(LOGWEIR_QUEUE_URL="kafka://127.0.0.1:1/events"),
        capture_output=True,
        text=True,
        timeout=90,
    )
    queue = next(row for row in map(json.loads, absent.stdout.splitlines()) if row["what"] == "queue")

    assert {row["what"] for row in rows} == {
        "configuration",
        "keys",
        "certificate",
        "disk",
        "queue",
        "store",
        "dead letters",
        "alerts",
        "channels",
        "exceptions",
        "clock",
    }
    assert not [row for row in rows if row["state"] == "fault"]
    assert absent.returncode == 1
    assert queue["state"] == "fault"
    assert "127.0.0.1:1" in queue["found"]
    assert queue["advice"]


APPLICATION = json.dumps(
    {
        "category": "application",
        "hostname": "shop-1.example.com",
        "tags": ["checkout", "eu"],
        "module": "checkout.pay",
        "source": "/srv/shop/checkout/pay.py",
        "severity": "INFO",
        "processid": 4711,
        "processname": "gunicorn",
        "timestamp": 1763856000.125,
        "summary": "order 42 paid",
        "details": {"relativeCreatedTimestamp": 812.5, "loglevel": "INFO", "linenumber": 88},
    }
)
RSYSLOG = (
    '{"category":"syslog","tags":"audit","processname":"sshd","processid":"-","PRI":"38","PRI-Text":"auth.info",'
    '"severity":"6","hostname":"bastion","summary":" Accepted publickey for root from 10.0.0.7",'
    '"message id":"-","structured data":"%s"}'
)


def test_application_and_system_logs_are_told_apart_by_category_and_key(product: Embedded) -> None:
    """What a Python program and what rsyslog's template post, each with its own key, found by either."""
    keys = {
        name: logweir("keys", "add", name, "--data-dir", str(product.data_dir)).strip() for name in ("shop", "hosts")
    }
    time.sleep(2)
    posted = [post(product, APPLICATION, keys["shop"]), post(product, RSYSLOG % "-", keys["hosts"])]
    wait_for_count(product, "key:shop OR key:hosts", 2)
    (application,) = map(json.loads, product.search("category:application", "--json").splitlines())
    (system,) = map(json.loads, product.search("key:hosts AND sshd", "--json").splitlines())

    assert [status for status, _ in posted] == [202, 202]
    assert (application["key"], application["processid"], application["hostname"]) == ("shop", "4711", "shop-1")
    assert application["timestamp"].startswith("2025-11-23T00:00:00.125")
    assert application["details"]["linenumber"] == 88
    assert (system["category"], system["severity"], system["tags"]) == ("syslog", "INFO", ["audit"])
    assert system["summary"] == "Accepted publickey for root from 10.0.0.7"
    assert system["details"]["PRI-Text"] == "auth.info"


def test_a_template_that_structured_data_breaks_is_answered_with_the_byte_and_kept(product: Embedded) -> None:
    """Quotes inside rsyslog's template break its JSON: the sender is told where, the operator sees what was sent."""
    body = RSYSLOG % '[origin ip="10.0.0.7"]'
    status, answer = post(product, body)
    deadline = time.monotonic() + 10
    command = ("deadletters", "list", "--json", "--data-dir", str(product.data_dir))
    while not (lines := logweir(*command).splitlines()):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    (letter,) = map(json.loads, lines)

    assert status == 400
    assert answer["code"] == "json_bad"
    assert answer["byte_offset"] == body.index('10.0.0.7"]')
    assert letter["reason"] == "body_refused"
    assert letter["text"] == body
    assert letter["key"] == "first"
