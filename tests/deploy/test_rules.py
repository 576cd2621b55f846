"""Prometheus' rules: promtool takes them, each alert fires and does not fire, and each has its runbook."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.deploy.compose import ROOT, load
from tests.deploy.promql import LEDGER_COUNTERS, ROWS, metric_of, selectors
from tests.deploy.rules import alerts, recorded, rules

CONFIGURATION = ROOT / "deploy/prometheus/prometheus.yml"
ALERTMANAGER = ROOT / "deploy/alertmanager/alertmanager.yml"
CASES = Path(__file__).with_name("alerts.yml")
RUNBOOKS = ROOT / "docs/how-to/runbooks"
# Prometheus' own.
FOREIGN = {"up"}
# What a series has besides the labels of its row.
SCRAPED = {"job", "instance", "le"}
every_alert = pytest.mark.parametrize("name", sorted(alerts()))


def test_prometheus_takes_its_configuration_and_rules() -> None:
    """promtool, which Prometheus brings along, reads the file and the rules that it names without an error."""
    done = _run("promtool", "check", "config", str(CONFIGURATION))

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("rules found") == 2


def test_alertmanager_takes_its_example() -> None:
    """amtool reads the file, and it speaks of alerts that there are."""
    done = _run("amtool", "check-config", str(ALERTMANAGER))
    named = set(re.findall(r"\bLogweir[A-Z]\w+", ALERTMANAGER.read_text(encoding="utf-8")))

    assert done.returncode == 0, done.stdout + done.stderr
    assert named <= set(alerts())


@pytest.mark.timeout(240)  # promtool plays days of every alert.
def test_every_alert_fires_when_it_should_and_only_then() -> None:
    """The cases of alerts.yml come out as they say: labels and words of what fires, and what does not."""
    done = _run("promtool", "test", "rules", str(CASES))

    assert done.returncode == 0, done.stdout + done.stderr


@every_alert
def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not(name: str) -> None:
    """Otherwise an alert that never fires, or always, would pass."""
    cases = yaml.safe_load(CASES.read_text(encoding="utf-8"))["tests"]
    expected = [one["exp_alerts"] for case in cases for one in case["alert_rule_test"] if one["alertname"] == name]

    assert any(expected)
    assert not all(expected)


@every_alert
def test_every_alert_says_what_is_wrong_how_bad_it_is_and_where_to_read_on(name: str) -> None:
    """A severity, a summary, a description, and the address of its runbook."""
    rule = alerts()[name]

    assert name.startswith("Logweir")
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    assert rule["annotations"]["runbook_url"] == f"http://localhost:3000/public/logweir/how-to/runbooks/{name}.md"


def test_runbooks_are_served_where_alerts_say() -> None:
    """Grafana of the compose file serves what is below its public/ folder: docs/ is mounted there, on that port."""
    grafana = load()["services"]["grafana"]

    assert "./docs:/usr/share/grafana/public/logweir:ro" in grafana["volumes"]
    assert "127.0.0.1:3000:3000" in grafana["ports"]


@every_alert
def test_every_runbook_answers_the_three_questions(name: str) -> None:
    """What it means, how to see it, what to do; and the list of runbooks has it with its severity."""
    text = (RUNBOOKS / f"{name}.md").read_text(encoding="utf-8")
    rule = alerts()[name]
    row = f"| [{name}]({name}.md) | {rule['labels']['severity']} | {rule['annotations']['summary']} |"

    assert re.findall(r"^#+ (.*)$", text, re.MULTILINE) == [name, "What it means", "How to see it", "What to do"]
    assert "`logweir " in text or re.search(r"^logweir ", text, re.MULTILINE)
    assert row in (RUNBOOKS / "README.md").read_text(encoding="utf-8")


def test_there_is_no_runbook_without_an_alert() -> None:
    """A page that nothing leads to is one that nobody keeps current."""
    assert {page.stem for page in RUNBOOKS.glob("*.md")} - {"README"} == set(alerts())


def test_rules_ask_for_series_that_exist() -> None:
    """Each metric is in the table, with the labels that are asked of it, or is recorded by another rule."""
    asked = [selector for rule in rules() for selector in selectors(rule["expr"])]
    names = {selector.name for selector in asked}
    known = FOREIGN | set(recorded()) | set(ROWS)

    assert {metric_of(name) for name in names} <= known
    for selector in asked:
        if row := ROWS.get(metric_of(selector.name)):
            assert selector.labels <= {*row.labels, *SCRAPED}, selector.text


def test_only_what_is_recorded_tells_how_much_a_count_of_the_ledger_has_grown() -> None:
    """An exporter under another address has series of its own: an alert must not ask each by itself."""
    asked = {name: selectors(rule["expr"]) for name, rule in alerts().items()}
    alone = {name for name, found in asked.items() for one in found if one.range_s and one.name in LEDGER_COUNTERS}
    over_all = [one for rule in recorded().values() for one in selectors(rule["expr"]) if one.name in LEDGER_COUNTERS]

    assert alone == set()
    assert {one.function for one in over_all} == {"max_over_time"}


def test_jobs_are_named_as_the_rules_expect() -> None:
    """LogweirTargetDown watches the jobs that begin so: all of ours. LogweirJobDown wants somebody in three of them."""
    jobs = [job["job_name"] for job in yaml.safe_load(CONFIGURATION.read_text(encoding="utf-8"))["scrape_configs"]]
    needed = re.findall(r'job="(.+?)"', alerts()["LogweirJobDown"]["expr"])

    assert [job for job in jobs if not job.startswith("logweir-")] == ["prometheus"]
    assert len(needed) == 3
    assert set(needed) <= set(jobs)


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=300)
