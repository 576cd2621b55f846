"""Alerts as documents, and as notices say them."""

from __future__ import annotations

from typing import Any

from logweir.alerts import alert
from logweir.alerts.alert import ALERTS
from logweir.clock import iso_seconds
from logweir.store.port import Store
from logweir_workers.notify.notice import Notice, Standing, State, Told

NOW_US = 1_769_860_800_000_000


def body(id: str, *, now_us: int = NOW_US, **values: Any) -> dict[str, Any]:
    return {
        **alert.opened(id, created_us=now_us),
        "kind": "alert",
        "rule": "ssh_brute_force",
        "revision": "abcd",
        "severity": "high",
        "summary": f"12 failed logins of {id}",
        "category": "authentication",
        "tags": ["attack.t1110"],
        "runbook": "https://wiki.example.org/ssh",
        "group": {"details.ip": "10.0.0.9"},
        "first": iso_seconds(now_us),
        "last": iso_seconds(now_us),
        "count": 12,
        "evidence": [],
        "evidence_last": [],
        "search": {},
        "late": None,
        "previous": None,
        "is_quiet": False,
        "completeness": {"state": "complete", "up_to": None, "missing": 0, "emitters": []},
        "generation": 1,
        "upto": {"topic_id": "t", "offsets": {}},
        "updated": iso_seconds(now_us),
        **values,
    }


def stored(store: Store, id: str, *, now_us: int, **values: Any) -> None:
    store.documents.put(ALERTS, id, body(id, now_us=now_us, **values), version=None)


def changed(store: Store, id: str, *, now_us: int, **values: Any) -> None:
    """The engine changes an alert."""
    document = store.documents.get(ALERTS, [id])[id]
    after = {**document.body, **values, "updated": iso_seconds(now_us)}
    store.documents.put(ALERTS, id, after, version=document.version)


def told(id: str = "aa11-1", **values: Any) -> Told:
    made = Told.of(body(id), now_us=NOW_US, public_url="https://logs.example.org")
    given = {name: getattr(made, name) for name in made.__slots__}
    return Told(**{**given, **values})


def notice(*alerts: Told, state: State = State.FIRING, number: int = 1, **values: Any) -> Notice:
    thread = values.pop("thread", "chan.aa11-1-1")
    standing = Standing.QUIET if state is State.RESOLVED else Standing.FIRING
    return Notice(
        channel="chan",
        key=f"{thread}-{number}-{state}",
        thread=thread,
        number=number,
        state=state,
        alerts=alerts or (told(standing=standing),),
        time_us=NOW_US,
        **values,
    )
