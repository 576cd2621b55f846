"""The store behind TLS, a password or an API key: what is refused is said, and the rights that docs/how-to names do."""

from __future__ import annotations

import json
import re
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from logweir.config import StoreSettings
from logweir.errors import LogweirError
from logweir.event import Document, Provenance
from logweir.query.parse import parse
from logweir.store import open_store
from logweir.store.port import DeadLetter, LedgerDocument, LetterFilter, Written
from tests.contract.test_store import found, some
from tests.contract.test_store_failures import problem_of
from tests.services.elasticsearch import Elasticsearch

# A server with a certificate and passwords of its own is started for them.
pytestmark = pytest.mark.timeout(300)
ROOT = Path(__file__).resolve().parents[2]
DAY = "19700101"


def test_password_and_api_key_work_over_tls(elasticsearch_secured: Any) -> None:
    """With the CA file and either kind of credentials, all of the store works."""
    server = elasticsearch_secured
    for credentials in (
        {"username": server.username, "password": SecretStr(server.password)},
        {"api_key": SecretStr(server.api_key())},
    ):
        with closing(open_store(StoreSettings(url=server.url, ca_file=server.ca_file, **credentials))) as store:
            store.prepare()

            assert all(item.written in (Written.CREATED, Written.EXISTS) for item in store.index(some(2)))
            assert sorted(found(store)) == ["e1", "e2"]
            assert store.ledger.claim("p", "one").generation > 0
            assert "cluster" in store.check()


def test_wrong_credentials_are_store_refuses(elasticsearch_secured: Any) -> None:
    """A wrong password or none, and a key without rights, are refused and not tried for ever."""
    server = elasticsearch_secured
    narrow = server.api_key("narrow", {"r": {"cluster": ["manage_index_templates"], "index": []}})
    for credentials, status in (
        ({"username": server.username, "password": SecretStr("wrong")}, "401"),
        ({}, "401"),
        ({"api_key": SecretStr(narrow)}, "unauthorized"),
    ):
        settings = StoreSettings(url=server.url, ca_file=server.ca_file, **credentials)
        with closing(open_store(settings)) as store:
            error = problem_of(lambda store=store: store.index(some(1)))

            assert error.problem.code == "store_refuses"
            assert status in error.detail


def test_untrusted_certificate_is_store_down(elasticsearch_secured: Any) -> None:
    """Without the CA file the server is not believed, and the error says why."""
    with closing(open_store(StoreSettings(url=elasticsearch_secured.url))) as store:
        error = problem_of(lambda: store.index(some(1)))

    assert error.problem.code == "store_down"
    assert "certificate verify failed" in error.detail


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
    claimed = store.ledger.claim("position:rights", "tests")
    store.ledger.write([LedgerDocument("window:rights", claimed.generation, {"kind": "window"})])
    store.dead_letters.put([DeadLetter("rights", 0, "event_unfit", {}, b"{}")])
    store.dead_letters.trim("event_unfit", letters_max=9, size_bytes_max=9)
    dropped = store.dead_letters.delete(LetterFilter(ids=("rights",)))
    checked = store.check()
    removed = store.delete_expired("19700102")
    store.close()

    assert item.written in (Written.CREATED, Written.EXISTS)
    assert len(hits.events) == 1
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
