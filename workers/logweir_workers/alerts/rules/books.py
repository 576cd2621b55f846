"""What the accounting itself has found: losses, silences, conflicts. They need no parser and no Prometheus."""

from __future__ import annotations

from typing import Any

from logweir.alerts import books, counted, finding


@books(of="lost", severity="high", runbook="events-lost.md", tags=["accounting"])
def events_lost(found: Any) -> str:
    numbers = f" (numbers {found.ranges})" if found.ranges else ""
    return (
        f"{found.host} lost {counted(found.count, 'event', separator=',')}{numbers} from {found.first} to {found.last}"
    )


events_lost.example("312 numbers that never came", [finding("lost", count=312)], alerts=1)
events_lost.example("a minute later some more", [finding("lost", count=3), finding("lost", count=2, at=60)], alerts=1)
events_lost.example("an hour later some more", [finding("lost", count=3), finding("lost", count=2, at=3600)], alerts=2)
events_lost.example(
    "of two emitters", [finding("lost", count=3), finding("lost", count=3, emitter="shop/db-1", host="db-1")], alerts=2
)
events_lost.example("one that is silent has lost nothing", [finding("silent", lasts=True)], alerts=0)


@books(of="silent", severity="medium", runbook="emitter-silent.md", tags=["accounting"])
def emitter_silent(found: Any) -> str:
    others = f" and {found.count - 1} with it" if found.count > 1 else ""
    *_, name = found.values.values()
    return f"Nothing has come of {name}{others} since {found.first} ({found.text})"


emitter_silent.example("one", [finding("silent", lasts=True, until=3600)], alerts=1)
emitter_silent.example("one that lost something still speaks", [finding("lost")], alerts=0)


@books(of="after_match", severity="high", runbook="silence-after-match.md", tags=["accounting", "attack.t1562"])
def silence_after_match(found: Any) -> str:
    return f"{found.host} {found.text}"


silence_after_match.example("a host fell silent after an alert", [finding("after_match", text="fell silent")], alerts=1)
silence_after_match.example("a host fell silent", [finding("silent", lasts=True)], alerts=0)


@books(
    of="volume",
    where=lambda found: found.usual >= 100 and found.count < found.usual * 0.3,
    severity="medium",
    quiet="2h",
    runbook="volume-drop.md",
    tags=["accounting"],
)
def volume_drop(found: Any) -> str:
    events = counted(found.count, "event", separator=",")
    return f"{found.host} sent {events} from {found.first} to {found.last}; {found.usual:,.0f} are usual"


volume_drop.example("a tenth of what is usual", [finding("volume", count=100, usual=1000, until=3600)], alerts=1)
volume_drop.example("half of what is usual", [finding("volume", count=500, usual=1000, until=3600)], alerts=0)
volume_drop.example("few are usual", [finding("volume", count=1, usual=50, until=3600)], alerts=0)
volume_drop.example(
    "two hours are one alert",
    [finding("volume", count=9, usual=1000, at=at, until=at + 3600) for at in (0, 3600)],
    alerts=1,
)


@books(
    of="dead_letters",
    where=lambda found: found.count >= 20 and found.count >= 3 * found.usual,
    severity="medium",
    quiet="30m",
    runbook="dead-letters-rising.md",
    tags=["accounting"],
)
def dead_letters_rising(found: Any) -> str:
    events = counted(found.count, "event", separator=",")
    letters = "a dead letter" if found.count == 1 else "dead letters"
    return f"{events} of {found.host} became {letters} from {found.first} to {found.last}"


dead_letters_rising.example("fifty within ten minutes", [finding("dead_letters", count=50, until=600)], alerts=1)
dead_letters_rising.example("as many as before", [finding("dead_letters", count=50, usual=40, until=600)], alerts=0)
dead_letters_rising.example("a few", [finding("dead_letters", count=5, until=600)], alerts=0)


@books(of="conflict", severity="high", quiet="1h", runbook="identity-conflict.md", tags=["accounting"])
def identity_conflict(found: Any) -> str:
    events = counted(found.count, "event", separator=",")
    others = "another event" if found.count == 1 else "other events"
    return f"{events} of {found.host} had the identity of {others}: two senders with one name?"


identity_conflict.example("one", [finding("conflict", count=1, until=60)], alerts=1)
identity_conflict.example("dead letters of another kind", [finding("dead_letters", count=500, until=600)], alerts=0)


@books(of="jump", severity="medium", quiet="1h", runbook="emitter-jumped.md", tags=["accounting"])
def emitter_jumped(found: Any) -> str:
    return f"{found.group} jumped over {found.count:,} numbers: what it lost of these is unknown"


emitter_jumped.example("one", [finding("jump", count=9_000_000_000_000_000)], alerts=1)
emitter_jumped.example("numbers that it can have counted up to", [finding("lost", count=5)], alerts=0)


@books(of="queue_loss", severity="critical", quiet="1h", runbook="queue-loss.md", tags=["accounting"])
def queue_loss(found: Any) -> str:
    numbers = f", numbers {found.ranges}" if found.ranges else ""
    events = "event" if found.count == 1 else "events"
    of = f"; events of {found.host} were among them" if found.emitters else ""
    return f"The queue lost {found.count:,} {found.text or events} of partition {found.group}{numbers}{of}"


queue_loss.example("some", [finding("queue_loss", count=5)], alerts=1)
queue_loss.example("lost before they came to the queue", [finding("lost", count=5)], alerts=0)


@books(of="blind", severity="low", quiet="1d", runbook="rule-blind.md", tags=["accounting"])
def rule_blind(found: Any) -> str:
    return f"The rule {found.group} is blind: no event has brought {found.text} for a week"


rule_blind.example("one", [finding("blind", lasts=True, text="details.action")], alerts=1)
rule_blind.example("an emitter that is silent", [finding("silent", lasts=True)], alerts=0)
