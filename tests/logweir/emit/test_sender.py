"""What the sender does with each answer: batches, retries, the search for an event that is refused, what it says."""

from __future__ import annotations

import itertools
import logging
import time
from typing import Any

import pytest

from logweir.emit.door import Answer, _seconds
from logweir.emit.queue import Batch
from logweir.emit.sender import _pieces
from tests.logweir.emit.conftest import MakeLogger
from tests.logweir.emit.stub import Posted, accept, stub
from tests.services.process import free_port
from tests.waiting import until


def test_events_come_numbered_in_batches_over_one_connection(make_logger: MakeLogger) -> None:
    """Each request says who, which run, the first number and the highest; the numbers follow on; gzip; keep-alive."""
    with stub() as door:
        logger, handler = make_logger(door.url, batch_events_max=100, emitter="shop@web-1", category="shop")
        for number in range(1, 351):
            logger.info("event %d", number)
        assert handler.flush()

    summaries = [event["summary"] for event in door.events]
    headers = [posted.headers for posted in door.posted]
    assert summaries == [f"event {number}" for number in range(1, 351)]
    assert [posted.numbers.start for posted in door.posted] == [1, 101, 201, 301]
    assert {one["log-emitter"] for one in headers} == {"shop@web-1"}
    assert len({one["log-epoch"] for one in headers}) == 1
    assert all(int(one["log-high"]) >= posted.numbers[-1] for one, posted in zip(headers, door.posted, strict=True))
    assert {one["content-encoding"] for one in headers} == {"gzip"}
    assert {one["authorization"] for one in headers} == {"Bearer lw_test"}
    assert len({posted.connection for posted in door.posted}) == 1


def test_batch_goes_when_its_first_event_is_old_enough(make_logger: MakeLogger) -> None:
    """One event alone is sent after batch_age_s_max, together with what came meanwhile."""
    with stub() as door:
        logger, _ = make_logger(door.url, batch_age_s_max=0.3)
        logger.info("first")
        time.sleep(0.1)
        logger.info("second")
        began_s = time.monotonic()
        until(lambda: door.posted, wait_s=5)

        assert [event["summary"] for event in door.posted[0].events] == ["first", "second"]
        assert time.monotonic() - began_s < 2


def test_batch_holds_no_more_bytes_than_allowed(make_logger: MakeLogger) -> None:
    """Large events make small batches; one that is larger than a batch goes alone."""
    with stub() as door:
        logger, handler = make_logger(door.url, batch_size_bytes_max=10_000)
        for size in (3000, 3000, 3000, 3000, 20_000, 10):
            logger.info("x" * size)
        handler.flush()

    assert [len(posted.events) for posted in door.posted] == [3, 1, 1, 1] or max(
        sum(len(event["summary"]) for event in posted.events) for posted in door.posted if len(posted.events) > 1
    ) < 10_000
    assert door.accepted_numbers == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("trouble", [503, 500, 429, 408, 401, 404, None, "not a door"])
def test_batch_is_sent_again_until_it_is_accepted(make_logger: MakeLogger, trouble: object) -> None:
    """A door that is busy, broken, hangs up or does not know the key yet, or a page behind a 200: nothing is lost."""
    tries = itertools.count(1)

    def respond(posted: Posted) -> tuple[int, dict[str, Any], dict[str, str]] | None:
        if next(tries) > 3:
            return accept(posted)
        if trouble == "not a door":
            return 200, {"welcome": "to the hotel's network"}, {}
        return None if trouble is None else (int(str(trouble)), {"detail": "no"}, {})

    with stub(respond) as door:
        logger, handler = make_logger(door.url)
        for number in range(20):
            logger.info("event %d", number)
        assert handler.flush(50)

    assert door.accepted_numbers == list(range(1, 21))
    assert {posted.numbers for posted in door.posted[:4]} == {door.posted[0].numbers}
    assert "log-dropped" not in door.posted[-1].headers


def test_door_that_is_away_gets_everything_when_it_comes(make_logger: MakeLogger) -> None:
    """Connection refused is waited out."""
    port = free_port()
    logger, handler = make_logger(f"http://127.0.0.1:{port}")
    logger.info("early")
    time.sleep(0.4)
    with stub(port=port) as door:
        logger.info("late")
        assert handler.flush(50)

    assert [event["summary"] for event in door.events] == ["early", "late"]


def test_tries_wait_longer_and_never_the_same(make_logger: MakeLogger) -> None:
    """Between tries lie growing times, with chance in them, so that emitters do not come back all at once."""
    with stub(lambda _: (503, {}, {})) as door:
        logger, _ = make_logger(door.url)
        logger.info("x")
        until(lambda: len(door.posted) >= 5, wait_s=20)
        waits = [after.at_s - before.at_s for before, after in itertools.pairwise(door.posted[:5])]
        door.respond = accept

    assert 0.1 <= waits[0] <= 0.5
    assert 0.9 <= waits[3] <= 2.6


def test_retry_after_is_waited_for(make_logger: MakeLogger) -> None:
    """The door's own wish counts, also when a flush is in a hurry."""
    tries = itertools.count()
    with stub(lambda posted: accept(posted) if next(tries) else (429, {}, {"Retry-After": "1"})) as door:
        logger, handler = make_logger(door.url)
        logger.info("x")
        assert handler.flush(50)

    assert 1.0 <= door.posted[1].at_s - door.posted[0].at_s < 4


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7), ("999999", 300), ("soon", None), ("-1", None), (None, None), ("Thu, 01 Jan 1970 00:00:00 GMT", 0)],
)
def test_retry_after_is_seconds_or_a_date(header: str | None, seconds: float | None) -> None:
    """RFC 9110; more than five minutes are not believed."""
    assert _seconds(header) == seconds


def _refusing(status: int, *, indexed: bool) -> Any:
    """Give an answer that refuses requests with a summary that begins with "bad", as the door does: as a whole."""

    def respond(posted: Posted) -> tuple[int, dict[str, Any], dict[str, str]]:
        bad = [at for at, event in enumerate(posted.events) if event["summary"].startswith("bad")]
        if not bad:
            return accept(posted)
        return status, {"detail": "bad event", **({"event_index": bad[0]} if indexed else {})}, {}

    return respond


@pytest.mark.parametrize("indexed", [True, False])
@pytest.mark.parametrize("status", [400, 413, 422, 202])
def test_refused_event_is_found_and_dropped_and_the_others_arrive(
    make_logger: MakeLogger, status: int, indexed: bool
) -> None:
    """Whether the answer names the event or not: all but the poison is delivered once, and the poison is reported."""
    poison = {3, 4, 50, 100}
    refusing = _refusing(status, indexed=indexed)

    def respond(posted: Posted) -> Any:
        found, document, headers = refusing(posted)
        # 202 is of a door that keeps what it cannot read, and says that it is no event.
        return found, {"accepted": 0, "kept": 1, **document}, headers

    with stub(respond) as door:
        logger, handler = make_logger(door.url)
        for number in range(1, 101):
            logger.info("%s %d", "bad" if number in poison else "good", number)
        assert handler.flush(50)
        logger.info("good 101")
        assert handler.flush(50)

    good = [posted for posted in door.posted if not any("bad" in event["summary"] for event in posted.events)]
    assert sorted(number for posted in good for number in posted.numbers) == sorted(set(range(1, 102)) - poison)
    assert door.posted[-1].headers["log-dropped"] == "refused=4"
    assert len(door.posted) < 60


def test_refusal_that_names_its_category_drops_that_event_alone(make_logger: MakeLogger) -> None:
    """403 with an event's index is about the event; without, it is about the key, and waits."""
    with stub(_refusing(403, indexed=True)) as door:
        logger, handler = make_logger(door.url)
        logger.info("bad")
        logger.info("good")
        assert handler.flush()

    assert [event["summary"] for posted in door.posted[-1:] for event in posted.events] == ["good"]


def test_fault_of_the_headers_drops_nothing(make_logger: MakeLogger) -> None:
    """400 emitter_header_bad is no event's fault: everything waits."""
    with stub(lambda _: (400, {"code": "emitter_header_bad"}, {})) as door:
        logger, handler = make_logger(door.url)
        logger.info("one")
        logger.info("two")
        assert not handler.flush(1)
        door.respond = accept
        assert handler.flush(50)

    assert [event["summary"] for event in door.posted[-1].events] == ["one", "two"]


def test_batches_become_smaller_when_a_door_takes_less(make_logger: MakeLogger) -> None:
    """After a 413 for the size of the body, the following batches fit at once."""

    def respond(posted: Posted) -> tuple[int, dict[str, Any], dict[str, str]]:
        return accept(posted) if len(posted.events) <= 30 else (413, {"code": "body_too_large"}, {})

    with stub(respond) as door:
        logger, handler = make_logger(door.url, batch_events_max=200)
        for number in range(1000):
            logger.info("event %d", number)
        assert handler.flush(50)

    assert door.accepted_numbers == list(range(1, 1001))
    assert sum(posted.headers["answered"] == "413" for posted in door.posted) < 10


def test_full_queue_drops_the_newest_and_says_so(make_logger: MakeLogger, caplog: pytest.LogCaptureFixture) -> None:
    """What does not fit is counted with its reason, told with the next batch, logged, and never lost in silence."""
    with stub(lambda _: (503, {}, {})) as door:
        logger, handler = make_logger(door.url, queue_events_max=50, batch_events_max=10)
        for number in range(1, 201):
            logger.info("event %d", number)
        door.respond = accept
        assert handler.flush(50)
        until(lambda: "log-dropped" in door.posted[-1].headers)
        handler.close()

    last = door.posted[-1].headers
    accepted = door.accepted_numbers
    reason, _, dropped = last["log-dropped"].partition("=")
    assert reason == "queue_overflow"
    # What is sent meanwhile makes room again.
    assert accepted == sorted(set(accepted))
    assert len(accepted) + int(dropped) == int(last["log-high"]) == 200
    assert last["log-bye"] == "1"
    assert "queue_overflow" in caplog.text


def test_drop_behind_which_nothing_comes_is_told_all_the_same(
    make_logger: MakeLogger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty request says how far the run is when no event does."""
    monkeypatch.setattr("logweir.emit.sender._IDLE_S", 0.1)
    with stub() as door:
        logger, _ = make_logger(door.url, queue_size_bytes_max=1000)
        logger.info("small")
        until(lambda: door.posted)
        logger.info("x" * 2000)
        until(lambda: len(door.posted) > 1)
        time.sleep(0.5)

    assert [len(posted.events) for posted in door.posted] == [1, 0]
    assert door.posted[1].headers["log-high"] == "2"
    assert door.posted[1].headers["log-dropped"] == "queue_overflow=1"
    assert "log-bye" not in door.posted[1].headers


def test_door_that_takes_no_more_is_complained_of_once(
    make_logger: MakeLogger, caplog: pytest.LogCaptureFixture
) -> None:
    """One line when it begins, one when it is over; neither has the key."""
    caplog.set_level(logging.INFO, "logweir.emit")
    with stub(lambda _: (503, {"detail": "The queue is away."}, {})) as door:
        logger, handler = make_logger(door.url, "lw_secret")
        logger.info("x")
        until(lambda: len(door.posted) >= 3)
        door.respond = accept
        assert handler.flush(50)

    assert [record.levelname for record in caplog.records if record.name == "logweir.emit"] == ["WARNING", "INFO"]
    assert "The queue is away." in caplog.text
    assert "lw_secret" not in caplog.text


def test_answer_is_believed_only_when_it_is_a_doors() -> None:
    """A 2xx counts when it says that all are accepted; one that says less refuses; one that says nothing is no door."""
    assert Answer(202, "", accepted=3).takes(3)
    assert not Answer(200, "").takes(3)
    assert not Answer(200, "").refuses()
    assert Answer(202, "", accepted=0).refuses()
    assert not Answer(403, "").refuses()
    assert Answer(403, "", event_index=0).refuses()


@pytest.mark.parametrize(
    ("at", "firsts"), [(None, [10, 12]), (0, [10, 11]), (2, [10, 12, 13]), (3, [10, 13]), (99, [10, 12])]
)
def test_pieces_of_a_batch_are_the_batch(at: int | None, firsts: list[int]) -> None:
    """Cut where an event is refused, each piece knows its numbers, and the last one where the files are read on."""
    batch = Batch(10, [b"a", b"b", b"c", b"d"], (1, 77))

    pieces = _pieces(batch, at)

    assert [piece.first for piece in pieces] == firsts
    assert [event for piece in pieces for event in piece.events] == batch.events
    assert [piece.end for piece in pieces] == [None] * (len(pieces) - 1) + [(1, 77)]
