"""The file of keys: each shown once, kept hashed, good on its terms, never lost to a command at the same moment."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from logweir.errors import (
    KEY_ID_UNKNOWN,
    KEY_ID_WANTED,
    KEY_NAME_BAD,
    KEY_NAME_TAKEN,
    KEY_NAME_UNKNOWN,
    KEY_TERM_BAD,
    KEYS_FILE_BAD,
    LogweirError,
)
from logweir.keys.file import AS_LONG, KeysFile, hash_of, moment, read_keys
from logweir.keys.terms import STAMP_SIZE_BYTES_MAX, Terms
from logweir.keys.usage import note_usage, read_usage, usage_path

NOW_US = 1_790_000_000_000_000  # 2026-09-21T14:13:20Z
HOUR_US = 3_600_000_000
TERMS = Terms(
    networks=("10.0.0.0/8", "2001:db8::/32"),
    categories=("web", "mail log"),
    events_per_second=500,
    bytes_per_second=1_000_000,
    stamp={"category": "web", "site": "north"},
    unreadable="keep",
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "keys.toml"


class Later:
    """A clock to be set."""

    now_us = NOW_US

    def __call__(self) -> int:
        return self.now_us


def _file(path: Path, clock: Later | None = None) -> KeysFile:
    return KeysFile(path, clock=clock or Later())


def _states(path: Path, time_us: int = NOW_US) -> list[str]:
    return [key.state(time_us) for key in read_keys(path)]


# --- making and ending ----------------------------------------------------------------------------------------------
def test_a_key_is_kept_hashed_and_only_for_its_owner(path: Path) -> None:
    """The file never holds the key itself, and nobody else may read even the hash."""
    key = _file(path).add("web-1")

    assert key.startswith("lw_") and len(key) == 46
    assert key not in path.read_text()
    (known,) = read_keys(path)
    assert (known.name, known.hash, known.created) == ("web-1", hash_of(key.encode()), "2026-09-21T14:13:20Z")
    assert known.state(NOW_US) == "live"
    assert known.hash == f"sha256:{known.id}{known.hash[15:]}"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_live_name_cannot_be_taken_again_until_it_is_revoked(path: Path) -> None:
    """A second key of a live name is made on purpose, by rotate; the old line stays as a record."""
    file = _file(path)
    file.add("web")
    with pytest.raises(LogweirError) as caught:
        file.add("web")
    assert caught.value.problem is KEY_NAME_TAKEN

    file.revoke("web")
    file.add("web")

    assert _states(path) == ["revoked", "live"]


def test_an_expired_name_may_be_taken_again(path: Path) -> None:
    """Nothing that works is replaced."""
    clock = Later()
    _file(path, clock).add("web", expires="2026-09-21T15:00:00Z")
    clock.now_us += HOUR_US
    _file(path, clock).add("web")

    assert _states(path, clock.now_us) == ["expired", "live"]


@pytest.mark.parametrize("name", ["", "a b", "ä", "x" * 65, "a/b", 'a"b', "a\nb", "lw_" + "x" * 43])
def test_a_bad_name_is_refused(path: Path, name: str) -> None:
    """Names go into metrics, logs and screens: they are plain, and no key that was pasted in the wrong place."""
    with pytest.raises(LogweirError) as caught:
        _file(path).add(name)
    assert caught.value.problem is KEY_NAME_BAD
    assert not path.exists()


@pytest.mark.parametrize("action", ["revoke", "rotate", "change"])
def test_an_unknown_name_suggests_the_nearest(path: Path, action: str) -> None:
    """A typing error is answered with the name that was meant; of revoked ones nothing can be changed."""
    file = _file(path)
    file.add("firewall")
    file.add("firewalls")
    file.revoke("firewalls")
    actions = {
        "revoke": lambda name: file.revoke(name),
        "rotate": lambda name: file.rotate(name, grace_us=0),
        "change": lambda name: file.change(name, {"events_per_second": 5}),
    }
    before = path.read_text()

    for name in ("firewal", "firewalls"):
        with pytest.raises(LogweirError) as caught:
            actions[action](name)
        assert caught.value.problem is KEY_NAME_UNKNOWN
        assert "'firewall'?" in str(caught.value)
    assert path.read_text() == before


def test_rotating_gives_the_name_a_second_key_on_the_same_terms(path: Path) -> None:
    """The old key works until its grace is over, and never longer than it would have."""
    clock = Later()
    file = _file(path, clock)
    first = file.add("web", terms=TERMS)
    second, old = file.rotate("web", grace_us=24 * HOUR_US)
    clock.now_us += HOUR_US
    third, older = file.rotate("web", grace_us=48 * HOUR_US)

    keys = read_keys(path)
    assert [key.hash for key in keys] == [hash_of(key.encode()) for key in (first, second, third)]
    assert [key.name for key in keys] == ["web"] * 3
    assert [key.terms for key in keys] == [TERMS] * 3
    assert [key.expires for key in keys] == ["2026-09-22T14:13:20Z", "2026-09-23T15:13:20Z", None]
    assert [key.id for key in old] == [keys[0].id]
    assert [key.id for key in older] == [keys[0].id, keys[1].id]
    assert _states(path, NOW_US + 24 * HOUR_US) == ["expired", "live", "live"]


def test_rotating_without_grace_leaves_the_old_key(path: Path) -> None:
    """Both are live until one is revoked, by its id."""
    file = _file(path)
    file.add("web")
    file.rotate("web", grace_us=None)
    first = read_keys(path)[0]
    revoked = file.revoke("web", id=first.id)

    assert [key.id for key in revoked] == [first.id]
    assert _states(path) == ["revoked", "live"]


@pytest.mark.parametrize(
    ("expires", "expected"),
    [(AS_LONG, "2026-12-20T15:13:20Z"), (None, None), ("2027-01-01T00:00:00Z", "2027-01-01T00:00:00Z")],
)
def test_a_rotated_key_lives_as_long_as_its_predecessor_was_to(
    path: Path, expires: str | None, expected: str | None
) -> None:
    """A key made for 90 days is followed by one for 90 days, unless another end is given."""
    clock = Later()
    file = _file(path, clock)
    file.add("web", expires="2026-12-20T14:13:20Z")
    clock.now_us += HOUR_US
    file.rotate("web", grace_us=None, expires=expires)

    assert [key.expires for key in read_keys(path)] == ["2026-12-20T14:13:20Z", expected]


def test_an_id_that_the_name_has_not_is_refused(path: Path) -> None:
    """The ids that there are stand in the message."""
    file = _file(path)
    file.add("web")
    with pytest.raises(LogweirError) as caught:
        file.revoke("web", id="00000000")

    assert caught.value.problem is KEY_ID_UNKNOWN
    assert read_keys(path)[0].id in str(caught.value)
    assert _states(path) == ["live"]


# --- terms ----------------------------------------------------------------------------------------------------------
def test_terms_come_back_as_they_were_set(path: Path) -> None:
    """Each term is a field of the key's table."""
    file = _file(path)
    file.add("web", terms=TERMS, expires="2027-01-01T00:00:00Z")
    file.add("plain")

    web, plain = read_keys(path)
    assert (web.terms, web.expires) == (TERMS, "2027-01-01T00:00:00Z")
    assert (plain.terms, plain.expires) == (Terms(), None)
    assert set(path.read_text().split("plain")[1].split()) >= {"hash", "created"}
    assert "networks" not in path.read_text().split("plain")[1]


def test_changing_sets_and_clears_terms_of_all_keys_of_a_name_or_of_one(path: Path) -> None:
    """What is not named stays, as do other names, and keys that are revoked."""
    file = _file(path)
    file.add("web", terms=TERMS)
    file.revoke("web")
    file.add("web", terms=TERMS)
    file.rotate("web", grace_us=None)
    file.add("mail")
    ids = [key.id for key in read_keys(path)]
    file.change("web", {"networks": ["192.0.2.1"], "stamp": None, "events_per_second": None})
    changed = file.change("web", {"categories": ["mail"], "expires": "2027-01-01T00:00:00Z"}, id=ids[2])

    revoked, first, second, mail = read_keys(path)
    assert revoked.terms == TERMS and mail.terms == Terms()
    same = {"networks": ("192.0.2.1/32",), "bytes_per_second": 1_000_000, "unreadable": "keep"}
    assert first.terms == Terms(categories=("web", "mail log"), **same)
    assert second.terms == Terms(categories=("mail",), **same)
    assert (first.expires, second.expires) == (None, "2027-01-01T00:00:00Z")
    assert changed == [second]


def test_the_end_of_one_key_is_not_that_of_another(path: Path) -> None:
    """Of a key that a rotation ends soon it would be put off: which one is meant has to be said."""
    file = _file(path)
    file.add("web")
    file.rotate("web", grace_us=HOUR_US)
    before = path.read_text()
    with pytest.raises(LogweirError) as caught:
        file.change("web", {"expires": "2027-01-01T00:00:00Z"})
    old, new = read_keys(path)

    assert caught.value.problem is KEY_ID_WANTED
    assert f"{old.id} ({old.expires}), {new.id} (never)" in str(caught.value)
    assert path.read_text() == before
    assert file.change("web", {"expires": "2027-01-01T00:00:00Z"}, id=new.id)[0].expires == "2027-01-01T00:00:00Z"


BAD_TERMS = [
    ({"networks": ["10.0.0.1/8"]}, "write 10.0.0.0/8"),
    ({"networks": ["2001:db8::1/32"]}, "write 2001:db8::/32"),
    ({"networks": ["10.0.0.0/33"]}, "neither a network"),
    ({"networks": ["office"]}, "neither a network"),
    ({"networks": "10.0.0.0/8"}, "not a list"),
    ({"networks": [f"10.0.{n // 256}.{n % 256}" for n in range(257)]}, "at most 256"),
    ({"categories": [""]}, "1 to 200 visible"),
    ({"categories": [" web"]}, "without spaces"),
    ({"categories": ["a\nb"]}, "1 to 200 visible"),
    ({"categories": ["x" * 201]}, "1 to 200 visible"),
    ({"categories": [5]}, "not a list of texts"),
    ({"events_per_second": 0}, "whole number from 1"),
    ({"events_per_second": True}, "whole number from 1"),
    ({"bytes_per_second": 1.5}, "whole number from 1"),
    ({"bytes_per_second": 10**12 + 1}, "whole number from 1"),
    ({"stamp": {"site": 3}}, "not texts"),
    ({"stamp": ["site"]}, "not texts"),
    ({"stamp": {"a b": "x"}}, "a field's name"),
    ({"stamp": {"site": " "}}, "empty"),
    ({"stamp": {"key": "other"}}, "not a key's to say"),
    ({"stamp": {"timestamp": "2026-01-01"}}, "not a key's to say"),
    ({"stamp": {f"f{n}": "x" for n in range(17)}}, "at most 16 fields"),
    ({"stamp": {"site": "x" * STAMP_SIZE_BYTES_MAX}}, "1024 bytes"),
    ({"categories": ["web"], "stamp": {"category": "mail"}}, "has only web"),
    ({"unreadable": "perhaps"}, "neither 'keep' nor 'refuse'"),
    ({"unreadable": True}, "neither 'keep' nor 'refuse'"),
]


@pytest.mark.parametrize(("terms", "said"), BAD_TERMS, ids=[str(bad[0])[:40] for bad in BAD_TERMS])
def test_bad_terms_are_refused_with_their_name_and_reason(path: Path, terms: dict[str, object], said: str) -> None:
    """What cannot work is refused when it is set; the file stays as it was."""
    file = _file(path)
    file.add("web")
    before = path.read_text()
    for attempt in (lambda: Terms.of(terms), lambda: file.change("web", terms)):
        with pytest.raises(LogweirError) as caught:
            attempt()
        assert caught.value.problem is KEY_TERM_BAD
        assert said in str(caught.value)
        assert caught.value.numbers["term"] in terms
    assert path.read_text() == before


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2027-01-31T12:00:00Z", "2027-01-31T12:00:00Z"),
        ("2027-01-31T12:00:00.9+02:00", "2027-01-31T10:00:00Z"),
        ("2027-01-31", "2027-01-31T00:00:00Z"),
    ],
)
def test_times_are_read_to_the_second_in_utc(text: str, time: str) -> None:
    """A day is its first moment."""
    assert moment(text) == time


@pytest.mark.parametrize("text", ["tomorrow", "2027-01-31T12:00:00", "2027-02-31", "", "10000-01-01"])
def test_times_without_a_zone_and_what_is_no_time_are_refused(text: str) -> None:
    """Whose noon it is must not be guessed."""
    with pytest.raises(LogweirError) as caught:
        moment(text)
    assert caught.value.problem is KEY_TERM_BAD


# --- written by hand ------------------------------------------------------------------------------------------------
HASH = "sha256:" + "0" * 64
GOOD = f"[[key]]\nname = 'a'\nhash = '{HASH}'\ncreated = 2026-01-01T00:00:00Z\n"


def test_a_file_written_by_hand_is_read(path: Path) -> None:
    """With TOML's own times and days, in any order, with comments."""
    path.parent.mkdir()
    path.write_text(
        f"# ours\n[[key]]\nexpires = 2027-01-31\nnetworks = ['10.0.0.7']\nname = 'a'\nhash = '{HASH}' # b\n"
        "created = 2026-01-01T01:00:00+01:00\n[key.stamp]\nsite = 'north'\n"
    )
    (key,) = read_keys(path)

    assert (key.name, key.created, key.expires) == ("a", "2026-01-01T00:00:00Z", "2027-01-31T00:00:00Z")
    assert key.terms == Terms(networks=("10.0.0.7/32",), stamp={"site": "north"})


def test_what_a_person_wrote_into_the_file_stays(path: Path) -> None:
    """Comments beside keys are the operator's."""
    file = _file(path)
    file.add("web")
    path.write_text(path.read_text() + "# the team of the shop has it\n")

    file.add("mail")
    file.change("web", {"events_per_second": 5})
    file.revoke("web")

    assert "# the team of the shop has it" in path.read_text()
    assert [known.name for known in read_keys(path)] == ["web", "mail"]


BROKEN = [
    ("no toml", "Expected '='"),
    ("[[key]]\nname = 'a'\n", "lacks the text 'hash'"),
    ("[[key]]\nname = 'a'\nhash = 'md5:1'\ncreated = 2026-01-01T00:00:00Z\n", "64 hexadecimal"),
    (GOOD.replace("'a'", "'a b'"), "'a b' cannot be"),
    (GOOD.replace("2026-01-01T00:00:00Z", "'x'"), "not a time"),
    (GOOD.replace("00Z", "00"), "with its zone"),
    (GOOD.replace("created", "made"), "lacks the time 'created'"),
    ("key = 3\n", "[[key]]"),
    ("key = ['a']\n", "[[key]]"),
    (GOOD + "netwroks = ['10.0.0.0/8']\n", "Did you mean 'networks'?"),
    (GOOD + "networks = ['10.0.0.1/8']\n", "key 1, 'a', cannot be so: networks cannot be '10.0.0.1/8'"),
    (GOOD + "events_per_second = '5'\n", "whole number"),
    (GOOD.replace("[[key]]", "[[keys]]"), "Did you mean 'key'?"),
    (GOOD + GOOD, "keys 1 and 2 have the same hash"),
]


@pytest.mark.parametrize(("text", "said"), BROKEN, ids=[broken[1] for broken in BROKEN])
def test_a_broken_file_is_an_error_and_is_not_overwritten(path: Path, text: str, said: str) -> None:
    """A file that cannot be read may hold keys that are in use: no command touches it, and it says what is wrong."""
    path.parent.mkdir()
    path.write_text(text)
    file = _file(path)
    for attempt in (lambda: file.add("web"), lambda: file.revoke("a"), lambda: file.rotate("a", grace_us=0)):
        with pytest.raises(LogweirError) as caught:
            attempt()
        assert caught.value.problem is KEYS_FILE_BAD
        assert said in str(caught.value)
    assert path.read_text() == text


def test_keys_made_at_the_same_moment_all_survive(path: Path) -> None:
    """Eight processes add a key each at once; a lost one would be a key that was shown and never works."""
    program = "import sys; from pathlib import Path; from logweir.keys.file import KeysFile;"
    program += "print(KeysFile(Path(sys.argv[1])).add(sys.argv[2]))"
    running = [
        subprocess.Popen([sys.executable, "-c", program, str(path), f"key-{n}"], stdout=subprocess.PIPE, text=True)
        for n in range(8)
    ]
    keys = [process.communicate(timeout=60)[0].strip() for process in running]

    assert {known.hash for known in read_keys(path)} == {hash_of(key.encode()) for key in keys}
    assert len(set(keys)) == 8


# --- last used ------------------------------------------------------------------------------------------------------
def test_the_last_use_of_each_key_is_kept_beside_the_file(path: Path) -> None:
    """Of what several doors say the latest counts; of keys that are no more, nothing is kept."""
    file = _file(path)
    file.add("web")
    before = path.read_text()
    note_usage(path, {"aaaaaaaa": "2026-01-02T00:00:00Z", "gone": "2026-01-02T00:00:00Z"}, ids=["aaaaaaaa", "bbbbbbbb"])
    note_usage(
        path, {"aaaaaaaa": "2026-01-01T00:00:00Z", "bbbbbbbb": "2026-01-03T00:00:00Z"}, ids=["aaaaaaaa", "bbbbbbbb"]
    )

    assert read_usage(path) == {"aaaaaaaa": "2026-01-02T00:00:00Z", "bbbbbbbb": "2026-01-03T00:00:00Z"}
    assert path.read_text() == before
    assert stat.S_IMODE(usage_path(path).stat().st_mode) == 0o600


@pytest.mark.parametrize("text", ["", "no json", "[]", '{"a": 5}', '{"a": "x"}', '{"a": ["2026-01-01"]}'])
def test_a_damaged_note_of_last_uses_is_begun_anew(path: Path, text: str) -> None:
    """It is a note, not a record: no command fails for it."""
    _file(path).add("web")
    usage_path(path).write_text(text)
    assert read_usage(path) == {}
    note_usage(path, {"aaaaaaaa": "2026-01-02T00:00:00Z"}, ids=["aaaaaaaa"])

    assert json.loads(usage_path(path).read_text()) == {"aaaaaaaa": "2026-01-02T00:00:00Z"}
