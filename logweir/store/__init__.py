"""The store: ``open_store`` chooses the adapter; what may be asked of it says ``port.py``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

from logweir.config import StoreSettings, shown_url
from logweir.errors import SETTING_BAD, LogweirError
from logweir.store.port import Store


def open_store(settings: StoreSettings) -> Store:
    """The store that ``settings.url`` names: ``http[s]://host:port[,http…]`` or ``sqlite:///folder``.

    Connects lazily: an absent server is an error of the first use.
    """
    scheme = settings.url.partition(":")[0]
    if scheme in ("http", "https"):
        from logweir.store.elasticsearch.store import ElasticsearchStore

        return ElasticsearchStore(settings)
    if scheme == "sqlite":
        from logweir.store.sqlite.store import SqliteStore

        return SqliteStore(settings)
    raise LogweirError(
        SETTING_BAD,
        where="The configuration",
        name="store.url",
        value=shown_url(settings.url),
        reason="it begins neither with http://, https:// nor sqlite:///",
    )


@contextmanager
def existing_store(settings: StoreSettings) -> Iterator[Store]:
    """``open_store``, closed at the end, for commands that look at what is there: it makes nothing.

    Raises LogweirError(STORE_ABSENT), where a command would find nothing and say that all is well.
    """
    with closing(open_store(settings)) as store:
        store.require_prepared()
        yield store
