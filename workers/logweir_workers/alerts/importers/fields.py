"""What fields are called here that other products call as their senders do."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from logweir.event import DETAILS, FIELDS
from logweir_workers.alerts.importers.conditions import Leaf, Tree, Unfit, one_of
from logweir_workers.normalise.details import FITS
from logweir_workers.normalise.details import SYNONYMS as OF_DETAILS
from logweir_workers.normalise.fields import SYNONYMS as OF_FIELDS
from logweir_workers.normalise.severities import SPELLINGS, severity_of

_NAME = re.compile(r"[\w@.\- ]{1,200}")
_TOP = {name.lower(): field for field, names in OF_FIELDS.items() for name in names if field != "details"}
_TOP |= {field.ecs: field.name for field in FIELDS if field.ecs}
_KNOWN = {name: known for known, names in OF_DETAILS.items() for name in names}
_KNOWN |= {field.ecs: field.name.removeprefix("details.") for field in DETAILS if field.ecs}


_IN_ONE_CASE = ("hostname", "fqdn", "severity")
"""Fields whose values are kept in one case, whatever was sent."""
_OPENED = ("winlog.event_data.", "winlog.user_data.", "winlog.", "detail.")
_ELASTIC = ("_type", "_index", "_id", "_source", "_score")


@dataclass(frozen=True, slots=True)
class Place:
    """Where an event has a field."""

    path: str
    """As rules and searches name it: ``hostname``, ``details.username``."""

    @property
    def name(self) -> str:
        """As detections name it: what is within some objects counts as the event's own there."""
        name = self.path.removeprefix("details.")
        return next((name.removeprefix(one) for one in _OPENED if name.lower().startswith(one)), name)

    @property
    def is_text(self) -> bool:
        """It is the message, which is looked for by words."""
        return self.path == "summary"

    def value(self, value: Any) -> Any:
        """A value as events have it here. Raises Unfit where they have none like it."""
        if self.path == "severity":
            known = severity_of(value)
            if known is None:
                raise Unfit(f"{value!r} is no severity that is known here")
            return known
        fit = FITS.get(self.path.removeprefix("details.")) if self.path.startswith("details.") else None
        fitting = fit(value) if fit is not None else None
        return value if fitting is None else fitting

    def asked(self, how: str, values: tuple[Any, ...]) -> Tree:
        """One of the values fits the field. A host's full name is another field than its short one."""
        names = ("hostname", "fqdn") if self.path == "hostname" else (self.name,)
        if self.path in _IN_ONE_CASE:
            how = how.replace("cased", "").strip("|")
        if self.path == "severity" and not how:
            # Another spelling of it is kept, too, and found first.
            values = tuple(dict.fromkeys(each for one in values for each in (one, *SPELLINGS.get(one, ()))))
        return one_of(Leaf(name, how, values) for name in names)


def place_of(name: str) -> Place:
    """The place of a field by the name that a sender, or the Elastic Common Schema, has for it. Raises Unfit."""
    name = name.strip().removeprefix("details.")
    if not _NAME.fullmatch(name) or name.startswith(".") or name.endswith("."):
        raise Unfit(f"the name of its field {name[:60]!r} cannot be written in a rule")
    if name in _ELASTIC:
        raise Unfit(f"its field {name} is Elasticsearch's own")
    lowered = name.lower()
    if lowered in _TOP:
        return Place(_TOP[lowered])
    return Place(f"details.{_KNOWN.get(lowered, name)}")
