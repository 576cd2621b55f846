"""Rules of Wazuh 4: what they fire for here, what is left and why."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from logweir.config import AlertsSettings
from logweir_workers.alerts.importers.conditions import Unfit
from logweir_workers.alerts.importers.fields import Place
from logweir_workers.alerts.importers.importing import import_rules
from logweir_workers.alerts.importers.wazuh_expressions import OSREGEX, PCRE2, SREGEX, asked_of
from logweir_workers.alerts.loading import RuleFiles
from logweir_workers.alerts.sigma.plans import FILE_NAME, PlanCache
from tests.workers.alerts.importers.helpers import alerts_of, at, imported

GROUPING = '<rule id="1000" level="0"><decoded_as>sshd</decoded_as><description>sshd</description></rule>'
FAILED = """
<rule id="1001" level="5">
  <if_sid>1000</if_sid>
  <match>^Failed|^error: PAM: Authentication</match>
  <description>sshd: authentication failed for $(dstuser)</description>
  <description> from $(srcip).</description>
  <group>authentication_failed,</group>
  <mitre><id>T1110</id></mitre>
</rule>
"""


def a_file(*rules: str, var: str = "") -> str:
    return f'<!-- Author: Ada -->\n{var}\n<group name="syslog,sshd,">\n{"".join(rules)}\n</group>\n'


def a_rule(inner: str, *, id: int = 2000, attributes: str = 'level="5"') -> str:
    return f'<rule id="{id}" {attributes}>{inner}<description>A test</description></rule>'


def ssh(summary: str = "", seconds: float = 0, **details: Any) -> dict[str, Any]:
    return at(seconds, hostname="web1", processname="sshd", summary=summary, details=details)


def failed(seconds: float, address: str = "203.0.113.9", user: str = "eve") -> dict[str, Any]:
    return ssh(f"Failed password for {user} from {address} port 22 ssh2", seconds)


WEB = {"method": "GET", "path": "/a", "query": "q=select%20", "status": 404}
RULES = (
    # What the rule asks; an event that it is for; one that it is not for.
    ("<match>bad protocol</match>", ssh("x Bad Protocol version"), ssh("bad  protocol")),
    ("<match>^a.b|c$</match>", ssh("A.B c d"), ssh("axb c d")),
    ("<match>one|</match><match>two</match>", ssh("two"), ssh("three")),
    ('<match>fail</match><regex negate="yes">ours</regex>', ssh("fail"), ssh("fail of ours")),
    (r"<regex>port \d+ ssh\d$</regex>", ssh("Port 22 ssh2"), ssh("port x ssh2")),
    (r"<regex>^\w+@\S+ \p|^x\.\.y</regex>", ssh("a-b@c.d (x"), ssh("a b@c.d (x")),
    (r"<regex>\(x\)\s*\$5 a+b</regex>", ssh("(x)  $5 a+b"), ssh("(x)  $5 aab")),
    (r"<regex>(\d+) \| \<tag></regex>", ssh("12 | <tag>"), ssh("12 | tag")),
    (r'<regex type="pcre2">(?i)port (\d{4,5})\b</regex>', ssh("PORT 4242"), ssh("port 42")),
    (r'<match type="pcre2">^Port</match>', ssh("Port"), ssh("port")),
    ("<match>R&D</match>", ssh("r&d"), ssh("r&amp;d")),
    ("<match>C:\\Temp\\*</match>", ssh("in c:\\temp\\*"), ssh("in c:\\temp\\x")),
    ("<program_name>^cron|^CRON</program_name>", at(0, processname="crond"), at(0, processname="anacron")),
    ("<hostname>^db</hostname>", at(0, hostname="db1.example.com"), at(0, hostname="web1")),
    ("<hostname>.example.com$</hostname>", at(0, hostname="db1.example.com"), at(0, hostname="db1.example.org")),
    ("<srcip>192.0.2.0/24</srcip><srcip>10.0.0.1</srcip>", ssh(src_ip="192.0.2.7"), ssh(src_ip="10.0.0.2")),
    ("<srcip>!192.0.2.0/24</srcip>", ssh(src_ip="10.0.0.1"), ssh(src_ip="192.0.2.7")),
    ('<srcip negate="yes">192.0.2.0/24</srcip>', ssh(src_ip="10.0.0.1"), ssh("without an address")),
    ("<dstport>^22$|^23$</dstport>", ssh(dst_port=23), ssh(dst_port=2323)),
    ("<user>root</user>", ssh(target_user="root", user="eve"), ssh(target_user="eve", user="root")),
    ("<user>^root$</user>", ssh(user="root"), ssh(user="eve")),
    ('<user negate="yes">^root$</user>', ssh(user="eve"), ssh("nobody")),
    ("<action>drop</action>", ssh(action="drop"), ssh(action="dropped")),
    (
        "<url>select%20|union+</url><id>^4</id><category>web-log</category>",
        at(0, details=WEB),
        at(0, details=WEB | {"status": 200}),
    ),
    ('<field name="shop.state">^paid$|^sent$</field>', ssh(shop={"state": "Paid"}), ssh(shop={"state": "unpaid"})),
    ('<field name="shop.state" negate="yes">^paid$</field>', ssh(shop={"state": "sent"}), ssh("without")),
    (
        '<field name="aws.eventName" type="pcre2">^Stop</field>',
        at(0, details={"eventName": "StopLogging"}),
        at(0, details={"eventName": "stop"}),
    ),
    (
        '<decoded_as>windows_eventchannel</decoded_as><field name="win.system.eventID">^4625$</field>',
        at(0, details={"EventID": 4625, "Channel": "Security"}),
        at(0, details={"EventID": 4624, "Channel": "Security"}),
    ),
    (
        '<decoded_as>auditd</decoded_as><field name="audit.type">ABEND$</field><field name="audit.exe">/x$</field>',
        at(0, summary='type=ANOM_ABEND msg=audit(1769860800.1:2): auid=1 uid=1 comm="x" exe="/usr/bin/x" res=1'),
        at(0, summary='type=ANOM_EXEC msg=audit(1769860800.1:2): auid=1 uid=1 comm="x" exe="/usr/bin/x" res=1'),
    ),
    (
        '<field name="win.eventdata.targetUserName">^eve$</field><field name="win.system.providerName">^Audit</field>',
        at(
            0,
            details={
                "winlog": {"event_id": 4625, "provider_name": "Auditing", "event_data": {"TargetUserName": "eve"}}
            },
        ),
        at(
            0,
            details={"winlog": {"event_id": 4625, "provider_name": "Auditing", "event_data": {"TargetUserName": "x"}}},
        ),
    ),
    ("<decoded_as>sudo</decoded_as>", at(0, processname="sudo"), at(0, processname="su")),
    ("<match>$BAD</match>", ssh("kernel PANIC"), ssh("$BAD")),
)


@pytest.mark.parametrize(("asked", "fires", "does_not"), RULES)
def test_what_a_rule_asks_of_an_event_is_the_same(tmp_path: Path, asked: str, fires: Any, does_not: Any) -> None:
    """Held against events as the engine does it, through decoding, parsers, names and types."""
    text = a_file(a_rule(asked), var='<var name="BAD">segfault|panic</var>')
    made, rules = imported(tmp_path, {"a.xml": text})

    assert made.left == {}
    assert alerts_of(rules["wazuh_2000"], [fires]) == ["A test"]
    assert alerts_of(rules["wazuh_2000"], [does_not]) == []


OURS = a_rule("<if_sid>1000</if_sid><match>from 192.0.2.</match>", id=1002, attributes='level="0"')
ROOT = a_rule("<if_sid>1001</if_sid><user>root</user>", id=1003, attributes='level="12"')
SHOUTING = a_rule("<if_sid>1001</if_sid><match>noise</match>", id=1004, attributes='level="0"')


def test_parents_hold_and_what_a_child_or_level_0_takes_is_not_counted(tmp_path: Path) -> None:
    """As an event of Wazuh's is for one rule alone."""
    made, rules = imported(tmp_path, {"ssh.xml": a_file(GROUPING, FAILED, OURS, ROOT, SHOUTING)})
    of_failed, of_root = rules["wazuh_1001"], rules["wazuh_1003"]
    elsewhere = at(0, processname="sudo", summary="Failed password for eve from 203.0.113.9 port 22 ssh2")

    assert made.left == {}
    assert (made.rules, made.silent) == (2, 3)
    assert (of_failed.severity, of_root.severity) == ("low", "high")
    assert of_failed.tags == ("attack.t1110", "syslog", "sshd", "authentication_failed")
    assert alerts_of(of_failed, [failed(0)]) == ["sshd: authentication failed for eve from 203.0.113.9."]
    for other in (elsewhere, failed(0, "192.0.2.7"), failed(0, user="root"), ssh("Failed noise"), ssh("Accepted")):
        assert alerts_of(of_failed, [other]) == []
    assert alerts_of(of_root, [failed(0, user="root")]) == ["A test"]
    assert alerts_of(of_root, [failed(0, "192.0.2.7", user="root")]) == []


def many(more: str = "<same_source_ip />", attributes: str = 'frequency="3" timeframe="60"') -> str:
    inner = f"<if_matched_sid>1001</if_matched_sid>{more}"
    return a_rule(inner, id=1010, attributes=f'level="10" {attributes}')


COUNTED = (
    # More of a rule that counts; events that it fires for; events that it does not.
    ("<same_source_ip />", [failed(n) for n in range(3)], [failed(n, f"203.0.113.{n}") for n in range(3)]),
    (
        "<same_srcip /><global_frequency />",
        [failed(n) | {"hostname": f"web{n}"} for n in range(3)],
        [failed(0), failed(1)],
    ),
    ("", [failed(n, f"203.0.113.{n}") for n in range(3)], [failed(n) | {"hostname": f"web{n}"} for n in range(3)]),
    ("", [failed(n) for n in range(3)], [failed(n * 40) for n in range(3)]),
    ("<different_srcip />", [failed(n, f"203.0.113.{n}") for n in range(3)], [failed(n) for n in range(9)]),
    (
        "<same_field>shop.id</same_field>",
        [failed(n) | {"details": {"shop": {"id": 7}}} for n in range(3)],
        [failed(n) for n in range(3)],
    ),
    # The last has to be one of its own.
    ("<match>crc</match>", [failed(0), failed(1), ssh("Failed crc", 2)], [ssh("Failed crc", 0), failed(1), failed(2)]),
    ("<if_sid>1005</if_sid>", [failed(0), failed(1), ssh("Accepted", 2)], [ssh("Accepted", 0), failed(1), failed(2)]),
)
ACCEPTED = a_rule("<if_sid>1000</if_sid><match>^Accepted</match>", id=1005)


@pytest.mark.parametrize(("more", "fires", "does_not"), COUNTED)
def test_what_is_counted_is_the_same(tmp_path: Path, more: str, fires: Any, does_not: Any) -> None:
    """For each host, as for each agent there."""
    made, rules = imported(tmp_path, {"ssh.xml": a_file(GROUPING, FAILED, ACCEPTED, many(more))})

    assert made.left == {}
    assert len(alerts_of(rules["wazuh_1010"], fires)) == 1
    assert alerts_of(rules["wazuh_1010"], does_not) == []


def test_a_group_is_counted_and_can_be_a_parent(tmp_path: Path) -> None:
    """All rules of the group, in whichever file."""
    counted = a_rule(
        "<if_matched_group>authentication_failed</if_matched_group>", id=1020, attributes='level="10" frequency="2"'
    )
    child = a_rule("<if_group>authentication_failed</if_group><match>preauth</match>", id=1021)
    made, rules = imported(tmp_path, {"a.xml": a_file(GROUPING, FAILED), "b.xml": a_file(counted, child)})

    assert made.left == {}
    assert len(alerts_of(rules["wazuh_1020"], [failed(0), failed(300)])) == 1
    assert alerts_of(rules["wazuh_1021"], [ssh("Failed x [preauth]")]) == ["A test"]
    assert alerts_of(rules["wazuh_1021"], [ssh("x [preauth]")]) == []


def test_parents_may_be_named_without_being_taken_and_may_be_overwritten(tmp_path: Path) -> None:
    """As local rules go back to Wazuh's own, which few want to have here."""
    parents = tmp_path / "ruleset"
    parents.mkdir()
    (parents / "0095-sshd_rules.xml").write_text(a_file(GROUPING, FAILED))
    over = a_rule("<if_sid>4711</if_sid><match>^Failed none</match>", id=1001, attributes='level="7" overwrite="yes"')
    own = a_file(over, a_rule("<if_sid>1001</if_sid><match>invalid</match>"))
    alone, _ = imported(tmp_path, {"local_rules.xml": own})
    made, rules = imported(tmp_path, {"local_rules.xml": own}, parents=parents)

    assert "rule 4711, which it refers to, is not here" in alone.left["local_rules.xml: rule 1001"]
    assert "its parent, rule 1001: rule 4711, which" in alone.left["local_rules.xml: rule 2000"]
    assert (made.left, sorted(rules)) == ({}, ["wazuh_1001", "wazuh_2000"])
    assert alerts_of(rules["wazuh_1001"], [ssh("Failed none for x")]) == ["A test"]
    assert alerts_of(rules["wazuh_1001"], [at(0, processname="sudo", summary="Failed none for x")]) == []
    assert alerts_of(rules["wazuh_2000"], [ssh("Failed none for invalid x")]) == ["A test"]


def test_a_rule_without_a_decoder_is_asked_of_every_event_and_says_so(tmp_path: Path) -> None:
    """Wazuh asks it of what counts to syslog."""
    made, _ = imported(tmp_path, {"a.xml": a_file(a_rule("<match>x</match>"))})

    assert any("here it is asked of every event" in one for one in made.changes["wazuh_2000"])


def test_a_list_of_keys_is_a_list_here(tmp_path: Path) -> None:
    """Which has to be made, as the file says."""
    asked = '<list field="srcip" lookup="address_match_key">etc/lists/Bad-IPs</list>'
    asked += '<list field="user" lookup="not_match_key">etc/lists/staff</list>'
    made, rules = imported(tmp_path, {"a.xml": a_file(a_rule(asked))})

    assert rules["wazuh_2000"].conditions[0].lists == {"bad_ips", "staff"}  # type: ignore[union-attr]
    assert any("etc/lists/Bad-IPs have to become the list bad_ips" in one for one in made.changes["wazuh_2000"])


def test_what_is_different_is_said_in_the_file_with_authors_and_links(tmp_path: Path) -> None:
    """One alert of an event there, each rule's own here; a host for an agent; decoders."""
    rule = a_rule(r'<if_sid>1000</if_sid><regex>a\.+b</regex><info type="link">https://example.com/x</info>', id=1030)
    made, rules = imported(tmp_path, {"ssh.xml": a_file(GROUPING, rule, FAILED, many())})
    written = (tmp_path / "to/wazuh_ssh.py").read_text()
    of_rule, of_many = " ".join(made.changes["wazuh_1030"]), " ".join(made.changes["wazuh_1010"])

    assert "# From ssh.xml, rules of Wazuh 4." in written
    assert "# Author: Ada" in written
    assert rules["wazuh_1030"].runbook == "https://example.com/x"
    for said in (
        "one alert of an event",
        "less than 15m apart",
        "decoder sshd is taken for",
        "own matcher tries few ways",
    ):
        assert said in of_rule, said
    assert "it is asked of every event" not in of_rule
    for said in ("each agent: here those of each host", "without details.sourceipaddress is not counted"):
        assert said in of_many, said


LEFT = (
    (
        "<if_sid>4711</if_sid>",
        "rule 4711, which it refers to, is not here: import its file too, or name it with --parents",
    ),
    ("<if_group>nobody</if_group>", "there is no rule of the group nobody here"),
    ("<if_level>5</if_level>", "its parents are all rules of a level"),
    ("<if_sid>2000</if_sid>", "rule 2000 is one of its own parents"),
    ("<if_sid>1010</if_sid>", "its parent, rule 1010: it counts events"),
    ("<decoded_as>syscheck_new_entry</decoded_as>", "of which no event comes here"),
    ("<decoded_as>cisco-ios</decoded_as>", "Wazuh's decoder cisco-ios has read"),
    ("<if_matched_sid>1000</if_matched_sid>", "it counts events, and does not say how many"),
    ("<decoded_as>json</decoded_as><match>x</match>", "in the text of a record that is an object"),
    ("<category>ossec</category>", "Wazuh itself and its agents report"),
    ("<category>ids</category>", "the category ids"),
    ("<category>syslog</category>", "its condition would hold for every event"),
    ("<time>6 pm - 8 am</time>", "some hours of the day"),
    ("<weekday>weekends</weekday>", "some days of the week"),
    ("<id>^5</id>", "each of Wazuh's decoders says for itself"),
    ("<match>x</match><same_user />", "it counts, and does not say what is counted"),
    ('<field name="win.system.a|re">x</field>', "cannot be written in a rule"),
    ("<match>x</match><check_if_ignored>srcip</check_if_ignored>", "what an alert before has had ignored"),
    ('<field name="win.system.severityValue">^AUDIT_FAILURE$</field>', "which is made by Wazuh's decoder"),
    ("<compiled_rule>is_simple</compiled_rule>", "compiled into Wazuh"),
    ("<check_diff /><match>x</match>", "printed the last time"),
    ("<extra_data>x</extra_data>", "asks with <extra_data>"),
    (r'<regex type="pcre2">(?!x)y</regex>', "is none of RE2's: look-around"),
    (r'<regex type="pcre2">(a)\1</regex>', "is none of RE2's"),
    (r"<regex>\h</regex>", r"has \h, which osregex does not know"),
    ("<regex>a$b</regex>", "has a $ inside"),
    ("<match>!x</match>", "begins with !"),
    ("<match>a &lt; b</match>", "an entity of XML"),
    ('<match type="glob">x</match>', "of the type 'glob'"),
    ("<srcip>everywhere</srcip>", "the address 'everywhere', which is none"),
    ('<list field="srcip" lookup="match_key_value" check_value="x">a</list>', "more than keys in a list"),
    ('<field name="a|re">x</field>', "cannot be written in a rule"),
    ("<match>x</match><if_matched_sid>1001</if_matched_sid>", "does not say how many (frequency)"),
)


@pytest.mark.parametrize(("asked", "said"), LEFT)
def test_what_would_mean_something_else_is_left_with_its_reason(tmp_path: Path, asked: str, said: str) -> None:
    """The other rules of its file are taken."""
    made, rules = imported(tmp_path, {"a.xml": a_file(GROUPING, FAILED, many(), a_rule(asked))})

    assert said in made.left["a.xml: rule 2000"]
    assert "wazuh_2000" not in rules
    assert "wazuh_1010" in rules


def test_a_rule_is_left_where_what_silences_it_cannot_be_said(tmp_path: Path) -> None:
    """Else it would fire where Wazuh is silent. Another child that cannot be taken is only said."""
    silent = a_rule("<if_sid>1001</if_sid><time>6 pm - 8 am</time>", id=1040, attributes='level="0"')
    loud = a_rule("<if_sid>1001</if_sid><time>6 pm - 8 am</time>", id=1041)
    made, rules = imported(tmp_path, {"a.xml": a_file(GROUPING, FAILED, silent)})
    other, taken = imported(tmp_path / "other", {"a.xml": a_file(GROUPING, FAILED, loud)})

    assert "rule 1040, of level 0, keeps events from it: it is for some hours" in made.left["a.xml: rule 1001"]
    assert rules == {}
    assert any("Its child, rule 1041, is not taken" in one for one in other.changes["wazuh_1001"])
    assert list(taken) == ["wazuh_1001"]


def test_a_child_that_takes_every_event_leaves_its_parent_none(tmp_path: Path) -> None:
    """As where somebody has rules ignored by their numbers, or given another level."""
    ignored = a_rule("<if_sid>1001</if_sid>", id=1050, attributes='level="0"')
    made, rules = imported(tmp_path, {"a.xml": a_file(GROUPING, FAILED, many(), ignored)})

    assert made.left["a.xml: rule 1001"] == "rule 1050 takes each of its events"
    assert "rule 1001 cannot be taken: rule 1050 takes each" in made.left["a.xml: rule 1010"]
    assert rules == {}


def test_a_frequency_without_what_is_counted_is_no_rule(tmp_path: Path) -> None:
    """Wazuh refuses it, too."""
    rule = a_rule("<match>x</match>", attributes='level="5" frequency="3"')
    made, _ = imported(tmp_path, {"a.xml": a_file(rule)})

    assert "does not say what is counted" in made.left["a.xml: rule 2000"]


@pytest.mark.parametrize(
    ("kind", "pattern", "fits", "does_not"),
    [
        (OSREGEX, r"^\d\d\d$", ["123"], ["1234", "12", "a12"]),
        (OSREGEX, r"\w+@\w+", ["x a_b-@c y"], ["a.@b", "@"]),
        (OSREGEX, r"a\sb", ["a b"], ["a\tb", "a\nb"]),
        (OSREGEX, r"a\tb", ["a\tb"], ["a b"]),
        (OSREGEX, r"a\.b", ["axb", "a\nb", "a.b"], ["ab"]),
        (OSREGEX, r"a.b", ["a.b"], ["axb"]),
        (OSREGEX, r"x\p+y", ["x(-)y", "x[]y"], ["xy", "x_y", "x/y"]),
        (OSREGEX, r"x\D\Wy", ["xa.y"], ["x1.y", "xa-y"]),
        (OSREGEX, r"[a]{2}", ["x[A]{2}"], ["aa"]),
        (OSREGEX, r"one|^two|three$", ["one", "two x", "x three", "A ONE"], ["x two", "three x"]),
        (OSREGEX, r"a\|b", ["a|b"], ["a"]),
        (OSREGEX, r"C:\\x %a% \p", [r"c:\x %a% -"], [r"C:\\x %a% -"]),
        (PCRE2, r"C:\\\w+\\x\*", [r"C:\abc\x*"], [r"C:\\abc\x*"]),
        (SREGEX, r"^whole$", ["whole", "WHOLE"], ["wholes", "a whole"]),
        (SREGEX, r"a*b?\d", [r"xa*b?\d"], ["aab5"]),
        (SREGEX, r"(x)|[y]", ["(x)", "[y]"], ["x", "y"]),
        (PCRE2, r"^(?i)fail(ed|ure)\s", ["FAILED x"], ["x failed "]),
    ],
)
def test_expressions_are_translated_to_the_letter(
    tmp_path: Path, kind: str, pattern: str, fits: list[str], does_not: list[str]
) -> None:
    """Cases as Wazuh's documentation describes its expressions."""
    from logweir_workers.alerts.importers.conditions import detection_of
    from logweir_workers.alerts.sigma.condition import compiled
    from logweir_workers.alerts.sigma.parsing import parse_detection
    from tests.workers.alerts.sigma.helpers import seen

    plan = parse_detection(detection_of(asked_of(Place("details.v"), pattern, kind)))
    holds = compiled(plan["condition"])

    for text in fits:
        assert holds(seen({"details": {"v": text}}).sigma), text
    for text in does_not:
        assert not holds(seen({"details": {"v": text}}).sigma), text


BOMB = (
    """<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><group name="x"><rule id="1" level="1">&b;</rule></group>"""
)
HOSTILE = {
    "bomb": (BOMB, "it is no XML"),
    "outside": ('<!DOCTYPE x SYSTEM "file:///etc/passwd"><group name="x"/>', "it is no XML"),
    "deep": ("<group>" * 2_000 + "</group>" * 2_000, "inside of each other"),
    "many": ("<group>" + "<rule/>" * 150_000 + "</group>", ""),
    "broken": ("<group><rule></group>", "it is no XML"),
    "closes": ("</rules><rules>", "it is no XML"),
    "other": ("<decoder name='x'/>", "it has <decoder>"),
    "empty": ("", "there is none in it"),
    "bytes": ("\x00", "it is no XML"),
    "remarks": ("<!--" * 200_000, "never ends"),
    "declarations": ("<?xml" * 150_000, "there is none in it"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_left_and_keeps_nobody_waiting(tmp_path: Path, name: str) -> None:
    """Nor does it keep the others from being taken."""
    began_s = time.monotonic()
    text, said = HOSTILE[name]
    made, rules = imported(tmp_path, {"bad.xml": text, "good.xml": a_file(a_rule("<match>x</match>"))})

    assert list(rules) == ["wazuh_2000"]
    assert said in " ".join(made.left.values())
    assert time.monotonic() - began_s < 20


def test_parents_that_multiply_are_bounded(tmp_path: Path) -> None:
    """Each level would double what the rule asks."""
    rules = [a_rule("<match>x0</match>", id=3000), a_rule("<match>y0</match>", id=4000)]
    for n in range(1, 40):
        both = f"<if_sid>{3000 + n - 1}, {4000 + n - 1}</if_sid>"
        rules += [a_rule(f"{both}<match>x{n}</match>", id=3000 + n), a_rule(f"{both}<match>y{n}</match>", id=4000 + n)]
    deep = [a_rule("<match>z0</match>", id=5000, attributes='level="0"')]
    for n in range(1, 1_000):
        deep.append(a_rule(f"<if_sid>{5000 + n - 1}</if_sid><match>z{n}</match>", id=5000 + n, attributes='level="0"'))
    deep.append(a_rule("<if_sid>5999</if_sid>", id=6000))
    began_s = time.monotonic()
    made, taken = imported(tmp_path, {"a.xml": a_file(*rules), "deep.xml": a_file(*deep)})

    assert "it goes back to more than 150 rules" in made.left["deep.xml: rule 6000"]
    assert "more than 1000 values" in made.left["a.xml: rule 3039"]
    assert "wazuh_3002" in taken
    assert time.monotonic() - began_s < 60


@pytest.mark.parametrize("text", ['"""\nimport os\n', "'); raise SystemExit #", "{found}", "coding: utf-7", "\u202ex"])
def test_texts_of_whatever_kind_are_texts_and_nothing_else(tmp_path: Path, text: str) -> None:
    """Neither code nor the encoding of the file."""
    rule = a_rule(
        f"<match>{text}</match><group>{text}</group><info type='link'>{text}</info><description>{text}</description>"
    )
    made, rules = imported(tmp_path, {"a.xml": f"<!-- Author: {text} -->{a_file(rule)}"})
    found = alerts_of(rules["wazuh_2000"], [at(0, summary=text)])

    assert made.left == {}
    assert found == [" ".join(f"{text}A test".split())]


def test_a_file_that_was_changed_by_hand_is_not_overwritten(tmp_path: Path) -> None:
    """One that was not is updated when its source changes, and only then."""
    source = {"a.xml": a_file(a_rule("<match>x</match>"))}
    first, _ = imported(tmp_path, source)
    again, _ = imported(tmp_path, source)
    changed, _ = imported(tmp_path, {"a.xml": source["a.xml"].replace("<match>x", "<match>y")})
    path = tmp_path / "to/wazuh_a.py"
    path.write_text(path.read_text().replace('severity="low"', 'severity="high"'))
    by_hand = import_rules(tmp_path / "source", tmp_path / "to", PlanCache(None))

    assert (first.taken["a.xml"], again.taken["a.xml"], changed.taken["a.xml"]) == ("added", "unchanged", "updated")
    assert by_hand.taken == {}
    assert "wazuh_a.py is not as an import has written it" in by_hand.left["a.xml"]
    assert 'severity="high"' in path.read_text()


def test_an_alerter_need_not_compile_what_an_import_has_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands of detections take seconds, in which it would ask no rule."""
    (tmp_path / "a.xml").write_text(a_file(GROUPING, FAILED, many("<match>crc</match>")))
    import_rules(tmp_path / "a.xml", tmp_path / "to", PlanCache(tmp_path / "last" / FILE_NAME))
    monkeypatch.setattr("logweir_workers.alerts.sigma.files.parse_detection", None)
    files = RuleFiles(AlertsSettings(pack=False), tmp_path / "to", last_read=tmp_path / "last")

    assert files.problems == []
    assert sorted(files.rules) == ["wazuh_1001", "wazuh_1010"]


def test_an_expression_that_cannot_be_said_raises_its_reason() -> None:
    """Rather than to mean something else."""
    with pytest.raises(Unfit, match="type 'x'"):
        from logweir_workers.alerts.importers.wazuh_expressions import kind_of

        kind_of("x", SREGEX)
