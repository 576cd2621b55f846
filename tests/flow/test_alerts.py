"""Alerts as a user meets them: twelve failed logins posted, kill -9 of everything, and nothing changes."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.tools.product import Embedded, environment, logweir
from tests.waiting import until

# Each starts the whole product, some of them twice.
pytestmark = pytest.mark.timeout(180)


def post(product: Embedded, *outcomes: str) -> None:
    """One request for each line of sshd about a login of root from one address that ended so."""
    for outcome in outcomes:
        event = {
            "processname": "sshd",
            "hostname": "web1",
            "summary": f"{outcome} password for root from 203.0.113.9 port 4242 ssh2",
        }
        request = urllib.request.Request(
            f"http://127.0.0.1:{product.ingest_port}/events",
            data=json.dumps(event).encode(),
            headers={"X-My-Log-Input-Key": product.key},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert json.loads(answer.read())["accepted"] == 1


def alerts(product: Embedded, *words: str) -> list[dict[str, Any]]:
    out = logweir("alerts", "list", *words, "--json", "--data-dir", str(product.data_dir))
    found: list[dict[str, Any]] = json.loads(out)["alerts"]
    return found


def test_failed_logins_alert_within_seconds_and_kill_9_changes_nothing(tmp_path: Path) -> None:
    """One alert, high, of twelve events of that address, complete; a success makes a second, critical one."""
    product = Embedded(tmp_path / "data")
    try:
        product.start()
        post(product, *["Failed"] * 5)
        product.process.kill_family()
        product.start()
        post(product, *["Failed"] * 7)
        until(lambda: alerts(product, "count:12 AND completeness:complete"), wait_s=30)
        (first,) = alerts(product)
        post(product, "Accepted")
        until(lambda: len(alerts(product, "completeness:complete")) == 2, wait_s=30)
        before = alerts(product)
        for _ in range(2):
            product.process.kill_family()
            product.start()
        post(product, "Accepted")
        until(lambda: alerts(product, "rule:ssh_login_after_failures AND count:14"), wait_s=30)
        after = alerts(product)
    finally:
        product.process.kill_family()

    assert (first["rule"], first["severity"], first["count"]) == ("ssh_brute_force", "high", 12)
    assert first["group"] == {"details.sourceipaddress": "203.0.113.9"}
    assert len(first["evidence"]) == 10
    assert {(one["severity"], one["count"]) for one in before} == {("high", 12), ("critical", 13)}
    same = ("id", "rule", "count", "first", "last", "evidence", "created", "history")
    (kept,) = [one for one in after if one["severity"] == "high"]
    assert {name: kept[name] for name in same} == {name: first[name] for name in same}
    assert len(after) == 2


OWN_RULE = """
from logweir.alerts import rule

@rule(where="details.job:scan", group=["hostname"], severity="low")
def scanned(found):
    return f"{found.group} was scanned"
"""


def test_a_flood_is_one_alert_with_its_exact_number_although_all_is_killed_in_it(tmp_path: Path) -> None:
    """Fifty hosts, some of them again after kill -9: five alerts, and one that counts fifty."""
    product = Embedded(tmp_path / "data", env=environment(LOGWEIR_ALERTS_STORM_ALERTS_MAX="5"))
    (tmp_path / "data/rules").mkdir(parents=True)
    (tmp_path / "data/rules/own.py").write_text(OWN_RULE)
    try:
        product.start()
        post_scans(product, range(30))
        product.process.kill_family()
        product.start()
        post_scans(product, range(20, 50))
        until(lambda: sum(one["count"] for one in alerts(product, "rule:scanned") if "storm" in one) >= 50, wait_s=60)
        found = alerts(product, "rule:scanned")
    finally:
        product.process.kill_family()
    storms = [one for one in found if "storm" in one]

    # Should an hour have ended in between, those that came again fired in each of the two.
    assert sum(one["count"] for one in storms) == (50 if len(storms) == 1 else 60)
    assert sum(one["storm"]["apart"] for one in storms) == len(found) - len(storms) == 5


def post_scans(product: Embedded, hosts: range) -> None:
    events = [{"hostname": f"web{number}", "details": {"job": "scan"}} for number in hosts]
    request = urllib.request.Request(
        f"http://127.0.0.1:{product.ingest_port}/events",
        data=json.dumps(events).encode(),
        headers={"X-My-Log-Input-Key": product.key},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert json.loads(answer.read())["accepted"] == len(hosts)
