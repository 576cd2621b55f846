"""The kinds of ledger document and their ids: no other file makes an id or takes one apart.

An id is the kind, the group and the parts of a place, with colons between them; none of these has a colon itself.
What is in a document is said by one file for each kind, which reads and writes its body. Every body carries the version
of its form, so that a program that is too old for it says so instead of misreading it.

To add a kind: its place and its row here, in ``KINDS`` as well; a file beside this one that reads and writes its body;
who writes it, mostly in ``workers/logweir_workers/accounting/``; when it is deleted, in ``accounting/retention.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, Generic, NamedTuple, TypeVar, get_type_hints

from logweir.errors import LEDGER_VERSION_UNKNOWN, LogweirError
from logweir.store.port import Ledger, LedgerDocument

HOUR_WINDOWS = 60
DAY_WINDOWS = 24 * HOUR_WINDOWS


# --- places -------------------------------------------------------------------------------------------------------
class PartitionId(NamedTuple):
    """A partition of one topic."""

    topic_id: str
    partition: int


class PartitionNumber(NamedTuple):
    """A partition by its number, whatever the topic is."""

    partition: int


class StreamId(NamedTuple):
    """What an ingest process's numbers run in: a partition's number, whatever the topic is.

    ``ingest_epoch``: in hexadecimal digits, here and in all places.
    """

    ingest_epoch: str
    partition: int


class StreamWindow(NamedTuple):
    """One minute of a stream, whatever topics have a part of it. ``window``: minutes since 1970, as everywhere."""

    ingest_epoch: str
    partition: int
    window: int


class HourId(NamedTuple):
    """The hour that old windows are merged into. ``hour``: hours since 1970."""

    topic_id: str
    partition: int
    ingest_epoch: str
    hour: int


class WindowId(NamedTuple):
    """A window as one topic has it."""

    topic_id: str
    partition: int
    ingest_epoch: str
    window: int

    @property
    def partition_id(self) -> PartitionId:
        return PartitionId(self.topic_id, self.partition)

    @property
    def stream(self) -> StreamId:
        return StreamId(self.ingest_epoch, self.partition)

    @property
    def in_stream(self) -> StreamWindow:
        return StreamWindow(self.ingest_epoch, self.partition, self.window)

    @property
    def hour(self) -> HourId:
        return HourId(self.topic_id, self.partition, self.ingest_epoch, self.window // HOUR_WINDOWS)


class BlockId(NamedTuple):
    """Some numbers of a window: the ``block``-th so many. The window stands first, so that one can be scanned for."""

    window: int
    topic_id: str
    partition: int
    ingest_epoch: str
    block: int

    @property
    def window_id(self) -> WindowId:
        return WindowId(self.topic_id, self.partition, self.ingest_epoch, self.window)


class EmitterId(NamedTuple):
    """An emitter on one partition. ``digest``: of its key's name and its own, which may be of any length."""

    digest: str
    topic_id: str
    partition: int

    @property
    def partition_id(self) -> PartitionId:
        return PartitionId(self.topic_id, self.partition)


class BucketId(NamedTuple):
    """Some of a partition's sources, which share a document."""

    topic_id: str
    partition: int
    bucket: int


class ShardId(NamedTuple):
    """A part of the rules: "2of4" is the second of four."""

    shard: str


class GroupsId(NamedTuple):
    """Some of the groups of a shard's rules. ``slot``: one is written while the other one counts."""

    shard: str
    bucket: int
    slot: int


class RulesId(NamedTuple):
    """A shard's rules. ``slot``: as of its groups."""

    shard: str
    slot: int


class Digest(NamedTuple):
    """What is known by a digest of its name."""

    digest: str


# --- kinds --------------------------------------------------------------------------------------------------------
_Place = TypeVar("_Place", bound=tuple[Any, ...])


class DocumentKind(Generic[_Place]):
    """One kind of document: makes the id of a place, and finds documents by their places.

    ``version``: in which bodies are written; those of versions before it are read, too.
    """

    def __init__(self, name: str, place: Callable[..., _Place], *, version: int = 1) -> None:
        self.name = name
        self.version = version
        self.place = place
        fields = get_type_hints(place)
        self.types = tuple(fields.values())
        self._partition_at = list(fields).index("partition") if "partition" in fields else None
        self._format = ":".join(["%s"] * (2 + len(fields)))

    def id(self, group: str, place: _Place) -> str:
        return self._format % (self.name, group, *place)

    def place_of(self, id: str) -> _Place:
        return self.place(*[type(part) for type, part in zip(self.types, id.split(":")[2:], strict=True)])

    def read(self, ledger: Ledger, group: str, places: Iterable[_Place]) -> dict[_Place, LedgerDocument]:
        """Those of the documents that were written. Raises LogweirError: STORE_DOWN, LEDGER_VERSION_UNKNOWN."""
        ids = {self.id(group, place): place for place in places}
        return {ids[id]: document for id, document in read_documents(ledger, ids).items()}

    def scan(self, ledger: Ledger, group: str, *begin: str | int) -> Iterator[tuple[_Place, LedgerDocument]]:
        """All of the group, or those whose places begin with these parts, in the order of their ids.

        Raises LogweirError: STORE_DOWN, LEDGER_VERSION_UNKNOWN.
        """
        for document in ledger.scan(":".join(map(str, (self.name, group, *begin, "")))):
            self.check(document)
            yield self.place_of(document.id), document

    def claim(self, ledger: Ledger, group: str, place: _Place, owner: str) -> LedgerDocument:
        """Take the document over; its body is empty when it was never written.

        Raises LogweirError: STORE_DOWN, LEDGER_VERSION_UNKNOWN.
        """
        claimed = ledger.claim(self.id(group, place), owner)
        self.check(claimed)
        return claimed

    def document(
        self, group: str, place: _Place, generation: int, body: dict[str, Any], *, owner: str
    ) -> LedgerDocument:
        """What to write under that generation. ``owner``: who writes it."""
        # The partition for whoever is told that the claim is lost.
        partition = {} if self._partition_at is None else {"partition": place[self._partition_at]}
        whole = {"kind": self.name, "v": self.version, "owner": owner, **partition, **body}
        return LedgerDocument(self.id(group, place), generation, whole)

    def check(self, document: LedgerDocument) -> None:
        """Raises LogweirError(LEDGER_VERSION_UNKNOWN) for a body that only a newer program can read."""
        version = document.body.get("v", 1)
        if version not in range(1, self.version + 1):
            raise LogweirError(LEDGER_VERSION_UNKNOWN, id=document.id, version=version, version_max=self.version)


POSITION = DocumentKind("position", PartitionId)
"""How far a partition is accounted for, and its ingest processes with it (``position.py``)."""
WINDOW = DocumentKind("window", WindowId)
"""One minute of one ingest process on one partition (``window.py``)."""
HOUR = DocumentKind("hour", HourId)
"""Complete windows of an hour, merged (``hours.py``)."""
EMITTER = DocumentKind("emitter", EmitterId)
"""Who sends, and what of its numbers has come (``emitter.py``)."""
SOURCES = DocumentKind("sources", BucketId)
"""Pairs of category and host name, and when events of them came (``source.py``)."""
ACTIVITY = DocumentKind("activity", PartitionId)
"""In which minutes a partition received anything (``activity.py``)."""
EXPECTATION = DocumentKind("expectation", Digest)
"""What a person has said of an emitter or a source (``expectations.py``)."""
CLOSING = DocumentKind("closing", StreamId)
"""What was said of an ingest process that is gone (``closings.py``)."""
REVISION = DocumentKind("revision", BlockId)
"""What has become of events since they were counted (``revisions.py``)."""
STORE_DIFFERENCE = DocumentKind("store_difference", WindowId)
"""A window of which the store has another number of documents than it should (``differences.py``)."""
CARRIED_FORWARD = DocumentKind("carried_forward", PartitionNumber)
"""Sums of what is older than the ledger's retention (``carried_forward.py``)."""
REPLAY = DocumentKind("replay", Digest)
"""How far a replay has come (``replays.py``)."""
EXPIRY = DocumentKind("expiry", Digest)
"""Which days of events have been deleted because they are old (``expiry.py``)."""
REFUSALS = DocumentKind("refusals", Digest)
"""Which keys doors refuse because their dead letters find no room (``refusals.py``)."""
ALERTER = DocumentKind("alerter", ShardId)
"""How far the rules of a shard are evaluated (the engine's checkpoint.py)."""
ALERTER_GROUPS = DocumentKind("alerter_groups", GroupsId)
"""What is known of the rules' groups at that point."""
ALERTER_RULES = DocumentKind("alerter_rules", RulesId)
"""Since which number each rule is asked (``alerts/beginnings.py``)."""

KINDS: tuple[DocumentKind[Any], ...] = (
    POSITION,
    WINDOW,
    HOUR,
    EMITTER,
    SOURCES,
    ACTIVITY,
    EXPECTATION,
    CLOSING,
    REVISION,
    STORE_DIFFERENCE,
    CARRIED_FORWARD,
    REPLAY,
    EXPIRY,
    REFUSALS,
    ALERTER,
    ALERTER_GROUPS,
    ALERTER_RULES,
)
_BY_NAME = {kind.name: kind for kind in KINDS}


def read_documents(ledger: Ledger, ids: Collection[str]) -> dict[str, LedgerDocument]:
    """Documents of any kinds by their ids, asked for at once; those that were never written are absent.

    Raises LogweirError: STORE_DOWN, LEDGER_VERSION_UNKNOWN.
    """
    found = ledger.read(ids)
    for id, document in found.items():
        _BY_NAME[id.partition(":")[0]].check(document)
    return found
