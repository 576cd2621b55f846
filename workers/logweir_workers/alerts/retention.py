"""Closed alerts that are old are deleted, with what was told of them; what is open is only people's to delete."""

from __future__ import annotations

from logweir.alerts.alert import ALERTS, Status
from logweir.alerts.exceptions import EXCEPTIONS
from logweir.alerts.mutes import MUTES
from logweir.alerts.notices import NOTICES
from logweir.errors import DOCUMENT_CHANGED, LogweirError
from logweir.query.tree import All, Node, Term
from logweir.store.documents import DocumentSet
from logweir.store.port import Documents
from logweir_workers.alerts.writer import EPISODES

_AT_ONCE = 200


def delete_old(documents: Documents, before_us: int) -> int:
    """Delete some closed alerts that the engine last changed before then, and what is known beside them; how many.

    Raises LogweirError(STORE_DOWN).
    """
    closed = Term("status", Status.CLOSED.value)
    settled = Term("settled", "yes")
    return (
        _delete(documents, ALERTS, closed, before_us)
        + _delete(documents, EPISODES, All(), before_us)
        + _delete(documents, NOTICES, settled, before_us)
        + _delete(documents, MUTES, All(), before_us)
        + _delete(documents, EXCEPTIONS, All(), before_us)
    )


def _delete(documents: Documents, among: DocumentSet, query: Node, before_us: int) -> int:
    page = documents.search(among, query, size=_AT_ONCE, to_us=before_us)
    for one in page.documents:
        try:
            documents.delete(among, one.id, version=one.version)
        except LogweirError as error:
            if error.problem is not DOCUMENT_CHANGED:
                raise
    return len(page.documents)
