"""Quotas hold over time and let large batches through; strangers are slowed down by address, and nobody else is."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import prometheus_client
import pytest
from hypothesis import given
from hypothesis import strategies as st

from logweir.errors import FAILED_ATTEMPTS_EXCEEDED, QUOTA_EXCEEDED, LogweirError
from logweir.keys.file import KeysFile
from logweir.keys.terms import Terms
from logweir.record import Kind
from logweir_ingest.access.quota import BYTES, EVENTS, FailedAttempts, Quota, Quotas
from tests.ingest.helpers import Answer, Door, connected_to_each, events_of, is_ready, of_kind, running
from tests.services.kafka import Kafka
from tests.waiting import until


class Clock:
    """To be set by hand."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def quota_of(clock: Clock, *, processes: int = 1, **limits: int) -> Quota:
    return Quota(limits, processes=processes, now_s=clock)


def retry_after_s(quota: Quota) -> int | None:
    """None when something may come now."""
    try:
        quota.check()
    except LogweirError as error:
        assert error.problem is QUOTA_EXCEEDED
        return int(error.numbers["retry_after_s"])
    return None


def shown(quota: Quota) -> dict[str, str]:
    return {name.decode().removeprefix("x-ratelimit-"): value.decode() for name, value in quota.headers()}


# --- quotas of keys -----------------------------------------------------------------------------------------------
def test_a_second_s_worth_may_come_at_once_and_then_what_the_quota_says() -> None:
    """The bucket is full in the beginning, and never holds more than a second's worth."""
    clock = Clock()
    quota = quota_of(clock, events=100)
    clock.now_s += 60
    for _ in range(10):
        quota.take(events=10, size_bytes=1)

    assert retry_after_s(quota) == 1
    clock.now_s += 0.05
    quota.take(events=10, size_bytes=1)
    assert retry_after_s(quota) == 1
    clock.now_s += 0.06
    assert retry_after_s(quota) is None


def test_a_batch_larger_than_the_bucket_is_let_in_and_paid_for_afterwards() -> None:
    """Else it could never come; Retry-After says when the debt is paid."""
    clock = Clock()
    quota = quota_of(clock, events=100)
    quota.take(events=1000, size_bytes=1)

    assert retry_after_s(quota) == 9
    clock.now_s += 8.5
    assert retry_after_s(quota) == 1
    clock.now_s += 1
    assert retry_after_s(quota) is None


def test_events_and_bytes_each_have_their_quota() -> None:
    """The one that is used up refuses, names itself, and says what it is of."""
    clock = Clock()
    quota = quota_of(clock, events=100, bytes=1000)
    quota.take(events=1, size_bytes=3000)
    with pytest.raises(LogweirError) as caught:
        quota.take(events=1, size_bytes=1)

    assert caught.value.numbers == {"limit": 1000, "resource": "bytes", "retry_after_s": 2}
    assert shown(quota) == {"limit": "1000", "remaining": "0", "reset": "3", "resource": "bytes"}


def test_what_is_given_back_may_come_again() -> None:
    """A batch that was not accepted for our own fault costs its sender nothing."""
    clock = Clock()
    quota = quota_of(clock, events=100, bytes=1000)
    charge = quota.take(events=150, size_bytes=10)
    assert retry_after_s(quota) == 1
    charge.give_back()

    assert retry_after_s(quota) is None
    assert shown(quota) == {"limit": "100", "remaining": "100", "reset": "0", "resource": "events"}


def test_each_process_takes_its_share_and_shows_the_whole() -> None:
    """The quota is the host's: with four processes each lets a quarter in."""
    clock = Clock()
    quotas = [quota_of(clock, processes=4, events=100) for _ in range(4)]
    for quota in quotas:
        quota.take(events=20, size_bytes=1)

    assert shown(quotas[0]) == {"limit": "100", "remaining": "20", "reset": "1", "resource": "events"}
    quotas[0].take(events=5, size_bytes=1)
    assert retry_after_s(quotas[0]) == 1
    assert retry_after_s(quotas[1]) is None


@given(
    limit=st.integers(1, 10_000),
    processes=st.sampled_from([1, 2, 4]),
    arrivals=st.lists(st.tuples(st.floats(0, 0.5), st.integers(1, 3000)), min_size=20, max_size=200),
)
def test_over_any_time_no_more_comes_than_the_quota_a_second_and_one_batch(
    limit: int, processes: int, arrivals: list[tuple[float, int]]
) -> None:
    """Whatever the sender does; and one that is refused is let in after Retry-After, so no less comes either."""
    clock = Clock()
    quota = quota_of(clock, processes=processes, events=limit)
    share = limit / processes
    admitted = 0
    largest = max(size for _, size in arrivals)
    for wait_s, size in arrivals:
        clock.now_s += wait_s
        if (pause_s := retry_after_s(quota)) is not None:
            # What is still owed is paid by then, and not a second earlier.
            assert (admitted - share * (clock.now_s - 1000 + pause_s + 1)) <= 1e-6 + share
            clock.now_s += pause_s
            assert retry_after_s(quota) is None
        quota.take(events=size, size_bytes=0)
        admitted += size

        assert admitted <= share * (clock.now_s - 1000) + share + largest + 1e-6


def test_quotas_outlive_a_change_of_the_keys() -> None:
    """A new key of the name brings no new second's worth; a changed limit counts from then on."""
    clock = Clock()
    quotas = Quotas(processes=1, now_s=clock)
    quota = quotas.set({"web": {EVENTS: 100}})["web"]
    quota.take(events=150, size_bytes=10)

    assert quotas.set({"web": {EVENTS: 100}, "mail": {BYTES: 5}})["web"] is quota
    assert retry_after_s(quota) == 1
    quotas.set({"web": {EVENTS: 10, BYTES: 1000}})
    assert retry_after_s(quota) == 5
    quotas.set({"web": {BYTES: 1000}})
    assert retry_after_s(quota) is None
    assert shown(quota)["resource"] == "bytes"


def test_concurrent_batches_are_all_counted() -> None:
    """The ASGI interface reads large bodies on other threads."""
    clock = Clock()
    quota = quota_of(clock, events=1_000_000)

    def take() -> None:
        for _ in range(2000):
            quota.take(events=1, size_bytes=1)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert shown(quota)["remaining"] == str(1_000_000 - 8000)


# --- attempts without a good key ----------------------------------------------------------------------------------
def attempts(clock: Clock, *, per_minute_max: int = 3, addresses_max: int = 10, processes: int = 1) -> FailedAttempts:
    return FailedAttempts(per_minute_max=per_minute_max, addresses_max=addresses_max, processes=processes, now_s=clock)


def is_counted(failed: FailedAttempts, address: str) -> bool:
    """False when it is too many."""
    try:
        failed.count(address)
    except LogweirError as error:
        assert error.problem is FAILED_ATTEMPTS_EXCEEDED
        assert 1 <= error.numbers["retry_after_s"] <= 60
        return False
    return True


def test_each_address_fails_so_often_a_minute() -> None:
    """Others are not concerned; after Retry-After the next one is counted again."""
    clock = Clock()
    failed = attempts(clock)

    assert [is_counted(failed, "192.0.2.1") for _ in range(5)] == [True] * 3 + [False] * 2
    assert is_counted(failed, "192.0.2.2")
    clock.now_s += 20
    assert [is_counted(failed, "192.0.2.1") for _ in range(2)] == [True, False]


def test_the_addresses_of_one_ipv6_network_are_one() -> None:
    """Who has IPv6 has 2^64 addresses."""
    clock = Clock()
    failed = attempts(clock)

    assert [is_counted(failed, f"2001:db8::{n}") for n in range(1, 5)] == [True, True, True, False]
    assert is_counted(failed, "2001:db8:0:1::1")
    assert [is_counted(failed, "") for _ in range(4)] == [True, True, True, False]


def test_the_table_of_addresses_is_bounded() -> None:
    """The address that failed longest ago is forgotten, and counted."""
    clock = Clock()
    failed = attempts(clock, per_minute_max=1, addresses_max=10)
    name = "logweir_ingest_failed_addresses_forgotten_total"
    before = prometheus_client.REGISTRY.get_sample_value(name) or 0.0
    for n in range(1000):
        assert is_counted(failed, f"10.0.{n // 250}.{n % 250}")

    assert len(failed) == 10
    assert prometheus_client.REGISTRY.get_sample_value(name) == before + 990
    assert not is_counted(failed, "10.0.3.249")
    assert is_counted(failed, "10.0.0.0")


@pytest.mark.parametrize("flood", ["10.0.0.{}", "2001:db8:0:{:x}::1", "2001:db8:0:{:x}::ffff"])
def test_one_neighbourhood_pushes_out_its_own_addresses_first(flood: str) -> None:
    """Who has a /24, or a /48 of IPv6, makes nobody else's failed attempts forgotten."""
    clock = Clock()
    failed = attempts(clock, per_minute_max=1, addresses_max=10)
    others = ("192.0.2.1", "2001:db9::1", "198.51.100.7")
    assert all(is_counted(failed, address) for address in others)
    for n in range(250):
        assert is_counted(failed, flood.format(n))

    assert len(failed) == 10
    assert not any(is_counted(failed, address) for address in others)


def test_processes_share_what_an_address_may() -> None:
    """So that more processes do not let more through; each lets one through at least."""
    clock = Clock()

    assert [is_counted(attempts(clock, per_minute_max=8, processes=4), "192.0.2.1") for _ in range(1)] == [True]
    failed = attempts(clock, per_minute_max=8, processes=4)
    assert [is_counted(failed, "192.0.2.1") for _ in range(3)] == [True, True, False]
    failed = attempts(clock, per_minute_max=1, processes=4)
    assert [is_counted(failed, "192.0.2.1") for _ in range(2)] == [True, False]


# --- a running door -----------------------------------------------------------------------------------------------
def load(
    door: Door, key: str, *, events_per_batch: int, seconds: float, threads: int = 4
) -> list[tuple[float, Answer]]:
    """What senders get who do not care: (when, answer), from one connection per request."""
    answers: list[tuple[float, Answer]] = []
    body = json.dumps([{"summary": "x"}] * events_per_batch)
    end_s = time.monotonic() + seconds

    def send() -> None:
        while time.monotonic() < end_s:
            answer = door.request("POST", "/events", body, {"X-Log-Key": key})
            answers.append((time.monotonic(), answer))
            if answer.status == 429:
                time.sleep(0.01)

    senders = [threading.Thread(target=send) for _ in range(threads)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    return answers


def assert_within(answers: list[tuple[float, Answer]], *, per_s: int) -> None:
    """As much as the quota lets in, a second's at once in the beginning; a machine that stands still takes up less."""
    seconds = answers[-1][0] - answers[0][0]
    accepted = sum(answer.json["accepted"] for _, answer in answers if answer.status == 202)

    assert 0.5 * per_s * seconds <= accepted <= per_s * (seconds + 1.5)


def test_a_door_lets_in_what_the_quota_says(tmp_path: Path) -> None:
    """Under load no more; the rest is 429 with Retry-After, and nothing of it is in the queue."""
    key = KeysFile(tmp_path / "keys.toml").add("limited", terms=Terms(events_per_second=200))
    with running(Door(tmp_path)) as door:
        until(lambda: is_ready(door))
        answers = load(door, key, events_per_batch=10, seconds=5)
        others = [door.post(b"{}") for _ in range(5)]
        rejected = door.metric('logweir_ingest_rejected_requests_total{reason="quota_exceeded"}')
        events = events_of(of_kind(door.records(), Kind.DATA))
    good = [answer for _, answer in answers if answer.status == 202]
    refused = [answer for _, answer in answers if answer.status == 429]

    assert len(good) + len(refused) == len(answers)
    assert_within(answers, per_s=200)
    assert len(events) == 10 * len(good) + len(others)
    assert rejected == len(refused) > 0
    assert refused[0].json["code"] == "quota_exceeded" and refused[0].json["resource"] == "events"
    assert int(refused[0].headers["retry-after"]) == refused[0].json["retry_after_s"] >= 1
    assert good[0].headers["x-ratelimit-limit"] == "200"
    # Ten were taken; between that and the answer it fills again.
    assert 0 <= int(good[0].headers["x-ratelimit-remaining"]) <= 200
    assert good[0].headers["x-ratelimit-reset"] == "1" and good[0].headers["x-ratelimit-resource"] == "events"
    assert not any(name.startswith("x-ratelimit") for other in others for name in other.headers)


NUMBERED = {"Log-Emitter": "e", "Log-Epoch": "run"}
BARE = {
    "a heartbeat": (b"", {**NUMBERED, "Log-High": "7"}, 202),
    "what was dropped": (b"[]", {**NUMBERED, "Log-High": "7", "Log-Dropped": "queue_overflow=1"}, 202),
    "nothing": (b"", {}, 400),
    "no JSON": (b'{"a', {}, 400),
    "no number": (b"{}", NUMBERED, 400),
    "a number too high": (b'{"category":"web"}' * 2, {**NUMBERED, "Log-Seq": str(2**53 - 1)}, 400),
}


@pytest.mark.parametrize("terms", [{"events_per_second": 1}, {"bytes_per_second": 256}], ids=str)
def test_a_request_without_events_is_not_for_nothing(tmp_path: Path, terms: dict[str, int]) -> None:
    """It is counted as an event, and as so many bytes; so is one that cannot be read."""
    keys = KeysFile(tmp_path / "keys.toml")
    named = {what: keys.add(f"key-{at}", terms=Terms(categories=("web",), **terms)) for at, what in enumerate(BARE)}
    found = {}
    with running(Door(tmp_path)) as door:
        until(lambda: is_ready(door))
        for what, (body, headers, _) in BARE.items():
            begun_s = time.monotonic()
            sent = {"X-Log-Key": named[what], **headers}
            answers = [door.request("POST", "/events", body, sent).status for _ in range(20)]
            found[what] = set(answers), 20 - answers.count(429), time.monotonic() - begun_s

    for what, (_, _, status) in BARE.items():
        statuses, let_in, took_s = found[what]
        assert statuses == {status, 429} or took_s > 10, (what, statuses)
        assert let_in <= 3 + took_s, (what, let_in)


def test_two_processes_together_let_in_what_the_quota_says(kafka: Kafka, tmp_path: Path) -> None:
    """Each its half: the sum is within the quota."""
    key = KeysFile(tmp_path / "keys.toml").add("limited", terms=Terms(events_per_second=200))
    environment = {
        "LOGWEIR_QUEUE_URL": f"kafka://{kafka.bootstrap}/quota-{tmp_path.name}",
        "LOGWEIR_QUEUE_PARTITIONS": "2",
    }
    with running(Door(tmp_path, environment=environment), "--processes", "2") as door:
        connected_to_each(door, 2)
        answers = load(door, key, events_per_batch=10, seconds=5)

    assert {answer.status for _, answer in answers} == {202, 429}
    assert_within(answers, per_s=200)


def test_a_good_key_is_let_in_where_others_fail(tmp_path: Path) -> None:
    """Strangers get 429 beyond the limit; the same address with a good key is let in all the while."""
    environment = {"LOGWEIR_INGEST_FAILED_ATTEMPTS_PER_MINUTE_MAX": "5"}
    with running(Door(tmp_path, environment=environment)) as door:
        until(lambda: is_ready(door))
        failures = []
        for turn in range(20):
            headers = {"X-Log-Key": f"wrong-{turn}"} if turn % 2 else {}
            failures.append(door.request("POST", "/events", b"{}", headers))
            assert door.post(b"{}").status == 202
        exceeded = door.metric('logweir_ingest_rejected_requests_total{reason="failed_attempts_exceeded"}')
        log = door.log

    assert [answer.status for answer in failures] == [401] * 5 + [429] * 15
    assert failures[-1].json["code"] == "failed_attempts_exceeded"
    assert 1 <= int(failures[-1].headers["retry-after"]) <= 12
    assert exceeded == 15
    assert log.count("without a good key") == 1
    assert "127.0.0.1" in log
