"""Alerts under load and kills: every event counted once, every alert told once."""

from __future__ import annotations

import collections
import json
import time
from pathlib import Path

from tests.tools.product import logweir
from tests.waiting import until
from tests.workers.notify.receivers import Receiver

_READY_S_MAX = 60
# Whatever an emitter sends is a match. Of the first rule an emitter has one alert; of the second one for each part.
_RULES = """
from logweir.alerts import event, rule


@rule(where="category:{category}", group=["details.sender"], at_least=1, within="1h", quiet="1d", severity="info",
      runbook="none")
def torture(found):
    return f"{{found.count}} of {{found.group}}"


@rule(where="category:{category}", group=["details.sender", "details.part"], at_least=1, within="1h", quiet="1d",
      severity="low", runbook="none")
def torture_part(found):
    return f"{{found.group}}"
"""
_CHANNEL = """
[hook]
type = "webhook"
url = "{url}"
secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
rules = ["torture_part"]
"""
SETTINGS = {"LOGWEIR_ALERTS_STORM_ALERTS_MAX": "1000000"}
"""For the environment of who evaluates them: each part's alert is one of its own."""


class Alerting:
    """The rules and the channel of a product's data folder, and the channel's receiver."""

    def __init__(self, data: Path, category: str) -> None:
        self._receiver = Receiver()
        rules = data / "rules" / "torture.py"
        rules.parent.mkdir(parents=True)
        rules.write_text(_RULES.format(category=category))
        (data / "channels.toml").write_text(_CHANNEL.format(url=self._receiver.url))

    def close(self) -> None:
        self._receiver.close()

    def wait_until_told(self, env: dict[str, str]) -> None:
        """Return when the channel is told of all alerts that are made from now on."""
        until(lambda: "hook" in _books(env), wait_s=_READY_S_MAX)

    def counted(
        self, env: dict[str, str], stored: collections.Counter[str], *, within_s: float
    ) -> collections.Counter[str]:
        """By emitter, the events that alerts have counted, as soon as they are ``stored``, or when the time is out."""
        deadline = time.monotonic() + within_s
        while True:
            found: collections.Counter[str] = collections.Counter()
            for alert in _alerts(env, "torture"):
                found[alert["group"]["details.sender"]] += alert["count"]
            if found == stored or time.monotonic() > deadline:
                return found
            time.sleep(1)

    def untold(self, env: dict[str, str], *, within_s: float) -> list[str]:
        """What is wrong with the notices of the parts' alerts, a line each, as soon as nothing is, or time is out."""
        deadline = time.monotonic() + within_s
        while True:
            wrong = self._untold(env)
            if not wrong or time.monotonic() > deadline:
                return wrong
            time.sleep(1)

    def _untold(self, env: dict[str, str]) -> list[str]:
        alerts = {alert["id"] for alert in _alerts(env, "torture_part")}
        counts = _books(env)["hook"]["alerts"]
        # The same notice may come again behind a kill: under the same key.
        keys: dict[str, set[str]] = collections.defaultdict(set)
        for request in list(self._receiver.requests):
            for alert in request.json["data"]["alerts"]:
                keys[alert["id"]].add(request.headers["webhook-id"])
        holds = {
            f"the books of the channel have all {len(alerts)} alerts as notified: {counts}": counts
            == dict.fromkeys(counts, 0) | {"notified": len(alerts)},
            f"each alert is told: {sorted(alerts - keys.keys())[:3]}": alerts <= keys.keys(),
            f"no other is: {sorted(keys.keys() - alerts)[:3]}": keys.keys() <= alerts,
            "each is told by one notice": all(len(one) == 1 for one in keys.values()),
        }
        return [fault for fault, is_held in holds.items() if not is_held]


def _alerts(env: dict[str, str], rule: str) -> list[dict[str, object]]:
    found = json.loads(logweir("alerts", "list", f"rule:{rule}", "--json", "--size", "10000", env=env, timeout_s=120))
    alerts: list[dict[str, object]] = found["alerts"]
    return alerts


def _books(env: dict[str, str]) -> dict[str, dict[str, dict[str, int]]]:
    said = logweir("audit", "--json", env=env, timeout_s=120, statuses=(0, 1, 3))
    channels: dict[str, dict[str, dict[str, int]]] = json.loads(said)["channels"]
    return channels
