"""Detections that are written into a rule in Python: compiled as those of Sigma files are, for any log source."""

from __future__ import annotations

from pathlib import Path

import pytest

from logweir.errors import LogweirError
from logweir_workers.alerts.loading import read_rules
from tests.workers.alerts.sigma.helpers import examples

RULES = """
from logweir.alerts import event, rule, step

@rule(
    where={
        "sshd": {"processname|startswith": "sshd"},
        "failed": {"summary|re|i": ["^failed", "^error: pam"]},
        "ours": {"sourceipaddress|cidr": "192.0.2.0/24"},
        "condition": "sshd and failed and not ours",
    },
    group=["details.sourceipaddress"], at_least=2, within="2m", severity="low",
)
def failed(found):
    return f"{found.count} of {found.group}"

def login(text, address, at):
    return event(processname="sshd", summary=text, sourceipaddress=address, at=at)

failed.example("two", [login("FAILED password", "203.0.113.9", at) for at in range(2)], alerts=1)
failed.example("ours", [login("FAILED password", "192.0.2.9", at) for at in range(2)], alerts=0)
failed.example("another text", [login("It FAILED", "203.0.113.9", at) for at in range(2)], alerts=0)

@rule(
    steps=[step({"a": {"details_a": 1}, "condition": "a"}, at_least=2), {"b": {"details_b": 1}, "condition": "b"}],
    in_order=True, within="1m", severity="low",
)
def in_order(found):
    return "both"

in_order.example("in order", [event(details_a=1), event(details_a=1, at=1), event(details_b=1, at=2)], alerts=1)
in_order.example("one is missing", [event(details_a=1, at=1), event(details_b=1, at=2)], alerts=0)
"""


def test_a_detection_is_a_condition_of_a_rule_and_of_its_steps(tmp_path: Path) -> None:
    """Whatever the log source of the event; its revision goes by what it asks, not by the file."""
    path = tmp_path / "own.py"
    path.write_text(RULES)
    rules = read_rules(path)
    path.write_text(RULES + "# a remark\n")
    tried = [examples().run(rule, example) for rule in rules for example in rule.examples]

    assert [one.problem for one in tried] == [""] * 5
    assert rules[0].where == "sshd and failed and not ours"
    assert [rule.revision for rule in read_rules(path)] == [rule.revision for rule in rules]


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ('{"a": {"f": 1}}', "condition"),
        ('{"a": {"f": 1}, "condition": "b"}', "b"),
        ('{"a": {"f|unheard_of": 1}, "condition": "a"}', "unheard_of"),
        ('{"a": {"f|re": "(?=x)"}, "condition": "a"}', "(?=x)"),
        ('{"a": {"f": {1, 2}}, "condition": "a"}', "set"),
    ],
)
def test_a_detection_that_cannot_be_meant_is_refused_by_the_rule_s_name(tmp_path: Path, where: str, said: str) -> None:
    """The file is not in force then, as with any other mistake."""
    path = tmp_path / "own.py"
    path.write_text(
        f"from logweir.alerts import rule\n@rule(where={where}, severity='low')\ndef a_rule(_): return ''\n"
    )
    with pytest.raises(LogweirError) as raised:
        read_rules(path)

    assert "a_rule" in str(raised.value)
    assert said in str(raised.value)
