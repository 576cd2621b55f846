"""The store: ``open_store`` chooses the adapter; what may be asked of it says ``port.py``."""

from __future__ import annotations

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
