"""Keys that workers have doors refuse: for as long as a worker says so, and nobody else."""

from __future__ import annotations

from pathlib import Path

import pytest

from logweir import config
from logweir.errors import LETTERS_OF_KEY_FULL, LogweirError
from logweir.keys.file import KeysFile
from logweir.ledger.refusals import Refusals, write_refusals
from logweir.store import open_store
from logweir_ingest.access import refused_keys
from logweir_ingest.access.refused_keys import RefusedKeys
from tests.ingest.helpers import Door, running
from tests.waiting import until


@pytest.fixture
def refused(tmp_path: Path) -> RefusedKeys:
    return RefusedKeys(config.load(environment={}, overrides={"data_dir": tmp_path}))


def is_refused(refused: RefusedKeys, key: str) -> bool:
    try:
        refused.check(key)
    except LogweirError as error:
        assert error.problem is LETTERS_OF_KEY_FULL
        return True
    return False


def test_what_is_not_said_again_is_believed_for_a_while_only(
    refused: RefusedKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No worker lives any more, or the store does not answer: nobody would say when there is room again."""
    now_s = [1000.0]
    monkeypatch.setattr(refused_keys.time, "monotonic", lambda: now_s[0])
    said = []
    for at_us, later_s in ((1, 0), (1, 20), (2, 20), (2, 29), (2, 2), (3, 100)):
        now_s[0] += later_s
        refused.hear(Refusals(frozenset({"loud"}), at_us))
        said.append(is_refused(refused, "loud"))

    assert said == [True, True, True, True, False, True]
    assert not is_refused(refused, "quiet")


def test_a_door_refuses_the_keys_that_the_ledger_names_and_takes_them_again(tmp_path: Path) -> None:
    """503, to be sent again; other keys are let in all the while, and no store is made for a look."""
    settings = config.load(environment={}, overrides={"data_dir": tmp_path})
    group = settings.worker.group
    with running(Door(tmp_path)) as door:
        loud = {"X-Log-Key": KeysFile(tmp_path / "keys.toml").add("loud")}
        until(lambda: door.request("POST", "/events", b"{}", loud).status == 202)
        store = open_store(settings.store)
        store.prepare()
        write_refusals(store, group, {"loud"}, is_full=lambda _: True, owner="w", at_us=1)
        until(lambda: door.request("POST", "/events", b"{}", loud).status == 503)
        answer = door.request("POST", "/events", b"{}", loud)
        other = door.request("POST", "/events", b"{}", {"X-Log-Key": door.key}).status
        write_refusals(store, group, (), is_full=lambda _: False, owner="w", at_us=2)
        until(lambda: door.request("POST", "/events", b"{}", loud).status == 202)
        store.close()

    assert answer.json["code"] == "letters_of_key_full"
    assert "retry-after" in {name.lower() for name in answer.headers}
    assert other == 202
