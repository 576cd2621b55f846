"""Correlation: the matches of each rule and group, and the episodes that they make up.

An episode is a run of matches without a pause longer than the rule's ``quiet``; it fires when one of the windows in it
reaches the rule's threshold. Both follow from the set of matches alone, so the order in which they come makes no
difference, as long as they come while the group is remembered.
"""

from __future__ import annotations

import zlib
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from logweir.alerts.rules import Rule, WindowKind
from logweir.ledger.emitter import Emitter
from logweir.ledger.shares import Shares
from logweir_workers.alerts.windows import Match, Tail, best, reached_around

BUCKETS = 64
"""Parts in which the groups are written down: only those with changes are written again."""
GROUP_MATCHES_MAX = 20_000
"""Matches of one group that are remembered; no rule needs more than 10,000 within its window."""
EVIDENCE_MAX = 10
"""Events at the beginning and at the end of an episode that are kept with its alert."""
TRACKED_MAX = 1_000
"""Different values of a field that a rule's function can count."""
EMITTERS_MAX = 16
ABSENT_US_MAX = 30 * 86_400_000_000
"""What has been absent for so long is expected no more."""
KNOWN_MAX = 1_000
"""Values of one group that a rule for new ones remembers."""

PAUSES_MAX = 100
"""Pauses of a group that wait to be judged."""

GroupValues = tuple[str, ...]
Place = tuple[int, str, str]
"""Time, id and day of an event."""


@dataclass(slots=True)
class Episode:
    """Matches of one group without a long pause."""

    first_us: int
    last_us: int
    count: int = 0
    fired: bool = False
    """It has reached the threshold."""
    alert: str | None = None
    """The id of its alert, once there is one."""
    previous: str | None = None
    """The alert that was closed before it."""
    merged: list[str] = field(default_factory=list)
    """Alerts of episodes that late matches have shown to be parts of this one."""
    received_us: int = 0
    """When the latest of its events was received."""
    closed_us: int | None = None
    """When its alert was closed: what happened after that is another episode's."""
    is_quiet: bool = False
    """Its end has been said."""
    late_us: int = 0
    """How far behind its own time the match came that made it fire; 0 for one that came in time."""
    first: list[tuple[int, str, str]] = field(default_factory=list)
    last: list[tuple[int, str, str]] = field(default_factory=list)
    """Time, id and day of the earliest and of the latest matches."""
    values: dict[str, list[str]] = field(default_factory=dict)
    """Of the fields that the rule's function asks for, the different values."""
    emitters: list[Emitter] = field(default_factory=list)
    """Who sent its events, the first few."""
    fired_hour: int | None = None
    """The hour of receipt, since 1970, in which it reached the threshold."""
    is_folded: bool = False
    """It has no alert of its own: too many of its rule had (``storms.py``)."""

    def note(self, match: Match) -> None:
        """Count a match in."""
        self.count += 1
        self.first_us, self.last_us = min(self.first_us, match.time_us), max(self.last_us, match.time_us)
        key = match.time_us, match.id, match.day
        if len(self.first) < EVIDENCE_MAX or key < self.first[-1]:
            insort(self.first, key)
            del self.first[EVIDENCE_MAX:]
        if len(self.last) < EVIDENCE_MAX or key > self.last[0]:
            insort(self.last, key)
            del self.last[:-EVIDENCE_MAX]

    def join(self, other: Episode) -> None:
        """Take over another episode, which late matches have shown to be a part of this one."""
        self.first_us, self.last_us = min(self.first_us, other.first_us), max(self.last_us, other.last_us)
        self.count += other.count
        self.first = sorted({*self.first, *other.first})[:EVIDENCE_MAX]
        self.last = sorted({*self.last, *other.last})[-EVIDENCE_MAX:]
        self.take_over(other)

    def take_over(self, other: Episode) -> None:
        """Go on as the other one, which had the same matches or a part of them."""
        self.fired = self.fired or other.fired
        self.received_us = max(self.received_us, other.received_us)
        self.late_us = max(self.late_us, other.late_us)
        self.previous, self.closed_us = self.previous or other.previous, self.closed_us or other.closed_us
        self.merged += other.merged
        if self.alert is None:
            self.alert = other.alert
        elif other.alert is not None:
            self.merged.append(other.alert)
        hours = [hour for hour in (self.fired_hour, other.fired_hour) if hour is not None]
        self.fired_hour = min(hours, default=None)
        self.is_folded = self.alert is None and (self.is_folded or other.is_folded)
        for name, values in other.values.items():
            self.track(name, values)
        for emitter in other.emitters:
            self.note_emitter(emitter)

    @property
    def is_awaited(self) -> bool:
        """Whether its alert has yet to say that it is quiet."""
        return self.fired and not self.is_quiet and not self.is_folded

    def track(self, name: str, values: Sequence[str]) -> None:
        known = self.values.setdefault(name, [])
        known += [value for value in dict.fromkeys(values) if value not in known][: TRACKED_MAX - len(known)]

    def note_emitter(self, emitter: Emitter) -> None:
        if emitter not in self.emitters and len(self.emitters) < EMITTERS_MAX:
            self.emitters.append(emitter)

    def as_row(self) -> list[Any]:
        return [getattr(self, name) for name in self.__slots__]

    @classmethod
    def from_row(cls, row: Sequence[Any]) -> Episode:
        episode = cls(*row)
        episode.first = [(time_us, id, day) for time_us, id, day in episode.first]
        episode.last = [(time_us, id, day) for time_us, id, day in episode.last]
        episode.emitters = [(key, emitter) for key, emitter in episode.emitters]
        return episode


class Group:
    """The matches of one rule that have the same values, in the order of their time."""

    __slots__ = (
        "_ids",
        "_matches",
        "_tail",
        "begun_us",
        "episodes",
        "key",
        "known",
        "known_from_us",
        "latest",
        "others",
        "pauses",
        "rule",
        "since_us",
        "values",
    )

    def __init__(self, rule: Rule, values: GroupValues, key: str = "") -> None:
        self.rule = rule
        self.values = values
        self.key = key
        """The key that sent its first event."""
        self.episodes: list[Episode] = []
        """In the order of their time."""
        self.known: dict[str, int] = {}
        """Of a rule for new values: those that it had, and when it had each last."""
        self.since_us: int | None = None
        """When its first match happened, of a rule for new values; when its latest came, of one for what is absent."""
        self.latest: tuple[int, str, str] | None = None
        """Time, id and day of that one."""
        self.begun_us = 0
        """When the earliest of these came."""
        self.pauses: list[tuple[int, int, Place]] = []
        """Times without one, long enough to be an absence, that are not judged yet; each with the one before it."""
        self.known_from_us = 0
        """All its matches since then are remembered."""
        self.others: set[str] | None = None
        """Its alerts that none of the episodes here is known to have; None before the store was asked."""
        self._matches: list[Match] = []
        self._ids: set[str] = set()
        self._tail: Tail | None = None

    def __len__(self) -> int:
        return len(self._matches)

    def has(self, id: str) -> bool:
        return id in self._ids

    def note_others(self, alerts: Iterable[str]) -> None:
        """``alerts``: all that the group has in the store. The first time, those are noted that no episode has."""
        if self.others is None:
            known = {id for one in self.episodes for id in (one.alert, one.previous, *one.merged)}
            self.others = set(alerts) - known

    @property
    def fired_hours(self) -> set[int]:
        """The hours of receipt in which its episodes have fired."""
        return {one.fired_hour for one in self.episodes if one.fired_hour is not None}

    def add(self, match: Match) -> Episode | None:
        """The episode that the match is a part of now; None for one that is no news."""
        if match.id in self._ids:
            return None
        if self.rule.window.kind is WindowKind.NEW_VALUE and not self._is_new(match):
            return None
        position = bisect_left(self._matches, match)
        self._matches.insert(position, match)
        self._ids.add(match.id)
        if position < len(self._matches) - 1:
            self._tail = None
        episode = self._episode_of(match.time_us)
        episode.note(match)
        if not episode.fired:
            episode.fired = self._fires(position, episode)
        if len(self._matches) > GROUP_MATCHES_MAX:
            self._forget_first(GROUP_MATCHES_MAX // 2)
        return episode

    # --- of a rule for what is absent --------------------------------------------------------------------------------
    @property
    def is_absent(self) -> bool:
        """Whether it was found to be, and nothing has come since."""
        return bool(self.episodes) and not self.episodes[-1].is_quiet

    def come(self, match: Match, received_us: int) -> Episode | None:
        """A match has come; the absence that is over with it, if there was one. In whatever order they come."""
        place = match.time_us, match.id, match.day
        if self.since_us is None:
            self.since_us = self.begun_us = received_us
            self.latest = place
            return None
        if received_us < self.begun_us:
            self._pause(received_us, self.begun_us, place)
            self.begun_us = received_us
            return None
        if received_us <= self.since_us:
            self.pauses = [
                part
                for begin_us, end_us, before in self.pauses
                for part in (
                    [(begin_us, received_us, before), (received_us, end_us, place)]
                    if begin_us < received_us < end_us
                    else [(begin_us, end_us, before)]
                )
                if part[1] - part[0] >= self.rule.window.absent_us
            ]
            return None
        ended = self.episodes[-1] if self.is_absent else None
        if ended is not None:
            ended.is_quiet, ended.last_us = True, received_us
        elif self.latest is not None:
            # Whether it was absent in between is judged as if this had not come yet: the same, however late we read it.
            self._pause(self.since_us, received_us, self.latest)
        self.since_us, self.latest = received_us, place
        return ended

    def _pause(self, begin_us: int, end_us: int, place: Place) -> None:
        if end_us - begin_us >= self.rule.window.absent_us:
            self.pauses = sorted([*self.pauses, (begin_us, end_us, place)])[-PAUSES_MAX:]

    def miss(self, since_us: int, place: Place, due_us: int, *, over_us: int | None) -> Episode:
        """It was absent since then: the episode that this is, which goes on with one that was over a little before.

        ``place``: the last that came. ``due_us``: when the absence was complete. ``over_us``: when it was over.
        """
        before = next((one for one in reversed(self.episodes) if one.first_us <= since_us), None)
        if before is not None and before.closed_us is None and since_us <= before.last_us + self.rule.quiet_us:
            episode = before
        else:
            closed = before.alert if before is not None and before.closed_us is not None else None
            episode = Episode(since_us, due_us, count=1, fired=True, previous=closed)
            insort(self.episodes, episode, key=lambda one: one.first_us)
        episode.is_quiet, episode.last_us = over_us is not None, due_us if over_us is None else over_us
        episode.first, episode.received_us = [place], due_us
        return episode

    def _forget_absent(self, time_us: int) -> None:
        """Expect it no more, when its latest came before then."""
        if self.since_us is not None and self.since_us < time_us:
            self.since_us = self.latest = None
            self.episodes, self.pauses = [], []

    def _is_new(self, match: Match) -> bool:
        value = str(match.value)
        self.since_us = match.time_us if self.since_us is None else min(self.since_us, match.time_us)
        is_new = value not in self.known and match.time_us - self.since_us >= self.rule.window.learn_us
        self.known[value] = max(self.known.pop(value, 0), match.time_us)
        while len(self.known) > KNOWN_MAX:
            del self.known[next(iter(self.known))]
        return is_new

    def _fires(self, position: int, episode: Episode) -> bool:
        window = self.rule.window
        if window.kind in (WindowKind.MATCH, WindowKind.NEW_VALUE):
            return True
        begin = self._begin_of(episode)
        if position < len(self._matches) - 1 or begin:
            return reached_around(window, self._matches, position, begin)
        if self._tail is None:
            self._tail = Tail(window)
        return self._tail.reached(self._matches)

    def _begin_of(self, episode: Episode) -> int:
        """The position of the first match that counts: none of an episode that was closed."""
        closed_us = [one.closed_us for one in self.episodes if one.closed_us is not None and one is not episode]
        return bisect_left(self._matches, (max(closed_us) + 1,)) if closed_us else 0

    def _episode_of(self, time_us: int) -> Episode:
        """The episode that a match of that time belongs to; two that it connects become one."""
        quiet_us = self.rule.quiet_us
        near = [
            one
            for one in self.episodes
            if one.first_us - quiet_us <= time_us <= one.last_us + quiet_us
            and (one.closed_us is None or time_us <= one.closed_us)
        ]
        if len(near) > 1 and any(one.closed_us is not None for one in near):
            near = near[:1]
        if not near:
            made = Episode(time_us, time_us, previous=self._closed_before(time_us))
            insort(self.episodes, made, key=lambda one: one.first_us)
            return made
        whole, *others = near
        for other in others:
            whole.join(other)
            self.episodes.remove(other)
        return whole

    def _closed_before(self, time_us: int) -> str | None:
        """The alert that a new episode would go on with, had it not been closed."""
        for one in reversed(self.episodes):
            if one.closed_us is not None and one.closed_us < time_us <= one.last_us + self.rule.quiet_us:
                return one.alert
        return None

    def split(self, episode: Episode, closed_us: int) -> Episode | None:
        """The episode's alert was closed: what happened since is another one, which is given if there is any."""
        episode.closed_us = closed_us
        begin = bisect_left(self._matches, (closed_us + 1,))
        later = [match for match in self._matches[begin:] if match.time_us <= episode.last_us]
        if not later:
            return None
        made = Episode(later[0].time_us, later[0].time_us, previous=episode.alert, received_us=episode.received_us)
        made.emitters, made.values = list(episode.emitters), {name: list(of) for name, of in episode.values.items()}
        for match in later:
            made.note(match)
        episode.count -= len(later)
        earlier = [match for match in self._matches[:begin] if match.time_us >= episode.first_us]
        episode.last_us = earlier[-1].time_us if earlier else closed_us
        episode.last = [(one.time_us, one.id, one.day) for one in earlier[-EVIDENCE_MAX:]]
        episode.first = [key for key in episode.first if key[0] <= closed_us]
        insort(self.episodes, made, key=lambda one: one.first_us)
        kind = self.rule.window.kind
        made.fired = kind in (WindowKind.MATCH, WindowKind.NEW_VALUE) or any(
            reached_around(self.rule.window, self._matches, position, begin)
            for position in range(begin, begin + len(later))
        )
        return made

    def recall(self, matches: Sequence[Match]) -> None:
        """Take back matches from before ``known_from_us``; all there are, of the episodes that they are a part of."""
        before = self.episodes
        kept = self._matches
        self.episodes, self._matches, self._ids, self._tail = [], [], set(), None
        for match in sorted({*kept, *(one for one in matches if one.time_us < self.known_from_us)}):
            self.add(match)
        for old in before:
            same = [one for one in self.episodes if one.first_us <= old.last_us and old.first_us <= one.last_us]
            if not same:
                insort(self.episodes, old, key=lambda one: one.first_us)
            for one in same[:1]:
                one.take_over(old)
                if old.closed_us is not None:
                    self.split(one, old.closed_us)
        self.known_from_us = min([self.known_from_us, *(match.time_us for match in matches)])

    def best_of(self, episode: Episode) -> int:
        """How far the episode has come towards the rule's threshold."""
        return best(
            self.rule.window,
            [match for match in self._matches if episode.first_us <= match.time_us <= episode.last_us],
        )

    def forget_before(self, time_us: int) -> int:
        """Take out the matches before then, and episodes that nothing can become a part of any more; how many."""
        self.known_from_us = max(self.known_from_us, time_us - self.rule.memory_us)
        count = bisect_left(self._matches, (time_us - self.rule.memory_us,))
        if count:
            self._forget_first(count)
        if self.rule.window.kind is WindowKind.ABSENT:
            self._forget_absent(time_us - ABSENT_US_MAX)
        gone_us = time_us - self.rule.quiet_us
        self.episodes = [one for one in self.episodes if one.last_us >= gone_us or one.is_awaited]
        return count

    def _forget_first(self, count: int) -> None:
        if self._tail is not None:
            self._tail.forget_first(self._matches, count)
        self._ids.difference_update(match.id for match in self._matches[:count])
        del self._matches[:count]

    @property
    def is_empty(self) -> bool:
        """Whether nothing of it is worth remembering."""
        return not self._matches and not self.episodes and not self.known and self.latest is None

    def as_row(self) -> list[Any]:
        episodes = [one.as_row() for one in self.episodes]
        matches = [list(one) for one in self._matches]
        first = [self.rule.name, self.values, matches, episodes]
        rest = [self.known, self.since_us, self.known_from_us, self.latest, self.pauses, self.begun_us]
        return [*first, *rest, self.key]

    @classmethod
    def from_row(cls, rule: Rule, row: Sequence[Any]) -> Group:
        group = cls(rule, tuple(row[1]), row[10] if len(row) > 10 else "")
        group._matches = [Match(*match) for match in row[2]]
        group._ids = {match.id for match in group._matches}
        group.episodes = [Episode.from_row(one) for one in row[3]]
        group.known, group.since_us, group.known_from_us = dict(row[4]), row[5], row[6]
        latest, pauses, group.begun_us = row[7:10] if len(row) > 9 else (None, [], 0)
        group.latest = (latest[0], latest[1], latest[2]) if latest else None
        group.pauses = [(begin_us, end_us, (time_us, id, day)) for begin_us, end_us, (time_us, id, day) in pauses]
        return group


class Left(NamedTuple):
    """An episode that has fired, and whose rule is none of those that are asked now."""

    rule: str
    group: GroupValues
    episode: Episode


class Groups:
    """All groups of all rules, within a limit that senders' keys share. ``changed``: the buckets that have changes."""

    def __init__(self, *, groups_max: int) -> None:
        self.changed: set[int] = set()
        self.refused: dict[str, int] = {}
        """By rule, how many matches were not counted because there were too many groups."""
        self.left: list[Left] = []
        """What was written down of rules that are no more, or count something else, and has no alert yet."""
        self._shares = Shares(groups_max, count=0, by_key={})
        self._buckets: list[dict[tuple[str, GroupValues], Group]] = [{} for _ in range(BUCKETS)]
        self._sweep: Iterator[Group] = iter(())

    def __len__(self) -> int:
        return self._shares.count

    def __iter__(self) -> Iterator[Group]:
        for bucket in self._buckets:
            yield from list(bucket.values())

    def get(self, rule: Rule, values: GroupValues) -> Group | None:
        return self._buckets[_bucket_of(rule.name, values)].get((rule.name, values))

    def make(self, rule: Rule, values: GroupValues, key: str = "") -> Group | None:
        """The group, made if it is not there for an event of ``key``; None when there is no room for another one.

        No other one makes room for it: that would be how a flood of groups hides a slow attack. Nor does the flood of
        one key take the room of another, which has a part of its own.
        """
        number = _bucket_of(rule.name, values)
        group = self._buckets[number].get((rule.name, values))
        if group is None:
            if not self._shares.has_room(key):
                self.refused[rule.name] = self.refused.get(rule.name, 0) + 1
                return None
            group = self._buckets[number][rule.name, values] = Group(rule, values, key)
            self._shares.take(key)
        self.changed.add(number)
        return group

    def touch(self, group: Group) -> None:
        """Something of the group has changed."""
        self.changed.add(_bucket_of(group.rule.name, group.values))

    def forget_before(self, time_us: int, *, groups_max: int) -> None:
        """Forget of some groups, others the next time, what is too old to matter."""
        for _ in range(groups_max):
            group = next(self._sweep, None)
            if group is None:
                self._sweep = iter(self)
                return
            episodes = len(group.episodes)
            if group.forget_before(time_us) or len(group.episodes) != episodes:
                self.touch(group)
            if group.is_empty:
                number = _bucket_of(group.rule.name, group.values)
                if self._buckets[number].pop((group.rule.name, group.values), None) is not None:
                    self._shares.give_back(group.key)
                self.changed.add(number)

    def keep_only(self, rules: Mapping[str, Rule]) -> None:
        """Forget the groups of rules that are not there any more, or whose revision is another one."""
        for number, bucket in enumerate(self._buckets):
            for key, group in list(bucket.items()):
                rule = rules.get(group.rule.name)
                if rule is None or rule.revision != group.rule.revision:
                    del bucket[key]
                    self._shares.give_back(group.key)
                    self.changed.add(number)
                else:
                    group.rule = rule

    def bucket(self, number: int) -> list[list[Any]]:
        """One bucket, as it is written down."""
        return [group.as_row() for group in self._buckets[number].values()]

    def load(self, number: int, rows: Sequence[Sequence[Any]], rules: Mapping[str, Rule]) -> None:
        """Take in a bucket that was written down, as far as its rules are there."""
        for row in rows:
            rule = rules.get(row[0])
            if rule is None:
                self.changed.add(number)  # What it was written down for is no more, also after the next start.
                self.left += [
                    Left(row[0], tuple(row[1]), one)
                    for one in map(Episode.from_row, row[3])
                    if one.fired and one.alert is None and not one.is_folded
                ]
            else:
                group = Group.from_row(rule, row)
                if (rule.name, group.values) not in self._buckets[number]:
                    self._shares.take(group.key)
                self._buckets[number][rule.name, group.values] = group


def _bucket_of(name: str, values: GroupValues) -> int:
    return zlib.crc32("\0".join((name, *values)).encode("utf-8", "surrogatepass")) % BUCKETS
