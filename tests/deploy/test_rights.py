"""The rights in Elasticsearch that docs/how-to names are enough."""

import json
import re
from pathlib import Path

import pytest
from pydantic import SecretStr

from logweir.config import StoreSettings
from logweir.errors import LogweirError
from logweir.event import Provenance
from logweir.query import parse
from logweir.store import DeadLetter, Document, LedgerDocument, LetterFilter, Written, open_store
from tests.deploy.compose import ROOT
from tests.services.elasticsearch import Elasticsearch

DAY = "19700101"


def test_documented_role_is_enough_for_everything(elasticsearch_secured: Elasticsearch) -> None:
    """With an API key of that role logweir prepares, writes, claims, finds, keeps dead letters and removes old days."""
    page = (ROOT / "docs/how-to/kafka-and-elasticsearch.md").read_text(encoding="utf-8")
    (role,) = re.findall(r"^```json\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    key = elasticsearch_secured.api_key("documented", {"logweir": json.loads(role)})
    store = open_store(
        StoreSettings(
            url=elasticsearch_secured.url,
            api_key=SecretStr(key),
            ca_file=Path(elasticsearch_secured.ca_file),
        )
    )
    source = {"summary": "by rights", "receivedtimestamp": "1970-01-01T00:00:00.000000Z"}
    provenance = Provenance("00-0", 1, "00")

    store.prepare()
    (item,) = store.index([Document("rights", DAY, source, provenance, "by rights", "by rights")])
    store.refresh()
    hits = store.search(parse("rights"), size=1)
    claimed = store.claim("position:rights", "tests")
    store.write_ledger([LedgerDocument("window:rights", claimed.generation, {"kind": "window"})])
    store.put_dead_letters([DeadLetter("rights", 0, "event_unfit", {}, b"{}")])
    store.trim_dead_letters("event_unfit", letters_max=9, size_bytes_max=9)
    dropped = store.delete_dead_letters(LetterFilter(ids=("rights",)))
    checked = store.check()
    removed = store.delete_expired("19700102")
    store.close()

    assert item.written in (Written.CREATED, Written.EXISTS)
    assert hits.total == 1
    assert dropped == {"event_unfit": 1}
    assert checked
    assert removed == [DAY]


def test_key_without_rights_is_refused(elasticsearch_secured: Elasticsearch) -> None:
    """The server does look at the role: with an empty one nothing can be prepared."""
    key = elasticsearch_secured.api_key("nothing", {"nothing": {"cluster": [], "indices": []}})
    settings = StoreSettings(
        url=elasticsearch_secured.url, api_key=SecretStr(key), ca_file=Path(elasticsearch_secured.ca_file)
    )

    with pytest.raises(LogweirError, match="unauthorized"):
        open_store(settings).prepare()
