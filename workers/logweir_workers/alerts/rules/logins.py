"""Logins of whatever kind: from where a user never came before."""

from __future__ import annotations

from typing import Any

from logweir.alerts import event, rule

_DAY = 86_400


def _login(country: str | None, day: float, *, user: str = "alice", outcome: str = "success") -> dict[str, Any]:
    details = {"action": "login", "outcome": outcome, "username": user}
    return event(details=details if country is None else {**details, "country": country}, at=day * _DAY)


@rule(
    where="details.action:(login OR ConsoleLogin) AND details.outcome:success",
    new="details.country",
    group=["details.username"],
    learn="7d",
    severity="medium",
    category="authentication",
    tags=["attack.t1078"],
    runbook="login-from-new-country.md",
)
def login_from_new_country(found: Any) -> str:
    countries = ", ".join(found.some("details.country"))
    return f"{found.group} logged in from {countries} for the first time"


_USUAL = [_login("DE", day) for day in range(9)]
login_from_new_country.example("another country", [*_USUAL, _login("BR", 10)], alerts=1)
login_from_new_country.example("the usual one", [*_USUAL, _login("DE", 10)], alerts=0)
login_from_new_country.example("one that failed", [*_USUAL, _login("BR", 10, outcome="failure")], alerts=0)
login_from_new_country.example("a user of three days", [_login("DE", 0), _login("BR", 3)], alerts=0)
login_from_new_country.example("of unknown country", [*_USUAL, _login(None, 10)], alerts=0)
