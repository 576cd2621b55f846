"""The examples of docs/how-to/python-logging.md, run as they stand there, against the real door."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from logweir.record import Batch, Kind
from tests.ingest.helpers import ROOT, Door, is_ready, of_kind, running
from tests.logweir.emit import programs
from tests.services.process import free_port
from tests.waiting import until

PAGE = (ROOT / "docs/how-to/python-logging.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with running(Door(tmp_path_factory.mktemp("door"))) as found:
        until(lambda: is_ready(found))
        yield found


def example(word: str) -> str:
    """The only block of Python on the page that has the word."""
    (found,) = [block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if word in block]
    return str(found)


def batches_of(door: Door) -> list[Batch]:
    return [batch for _, record in of_kind(door.records(), Kind.DATA) for batch in record.batches if batch.events]


def events_by(door: Door, code: str) -> dict[str, dict[str, Any]]:
    """What the program sends, by summary."""
    before = {batch.id for batch in batches_of(door)}
    programs.ended(programs.start_bare(code, f"http://127.0.0.1:{door.port}", door.key))
    events = [json.loads(event) for batch in batches_of(door) if batch.id not in before for event in batch.events]
    return {event["summary"]: event for event in events}


def test_shortest_example_sends(door: Door) -> None:
    """basicConfig with the handler, the rest from the environment."""
    code = example("basicConfig(level=logging.INFO, handlers=[logging.StreamHandler()")
    event = events_by(door, code)["order 4711 taken"]

    assert event["category"] == "webshop"
    assert event["details"]["customer"] == "c-77"


def test_dict_config_example_sends(door: Door, tmp_path: Path) -> None:
    """With its folder, which is elsewhere here."""
    folder = tmp_path / "logs"
    code = example("dictConfig").replace("/var/lib/webshop/logs", str(folder))
    event = events_by(door, code + "\nlogging.getLogger('shop').info('by the example')")["by the example"]

    assert event["tags"] == ["production"]
    assert folder.is_dir()


def test_formatter_example_adds_details(door: Door) -> None:
    """What a formatter of one's own is for."""
    code = example("LogweirFormatter(") + "\nlogging.getLogger().warning('with release')"

    assert events_by(door, code)["with release"]["details"]["release"] == "2026.11"


def test_structlog_example_has_its_pairs_as_details(door: Door) -> None:
    """Also what was bound, context variables, and exceptions."""
    code = (
        example("structlog.configure")
        + """
structlog.contextvars.bind_contextvars(request="r-1")
try:
    1 / 0
except ZeroDivisionError:
    structlog.get_logger("orders").bind(customer="c-78").error("order failed", exc_info=True, order=5)
"""
    )
    events = events_by(door, code)
    taken, failed = events["order taken"], events["order failed"]

    assert (taken["details"]["order"], taken["details"]["customer"], taken["source"]) == (4711, "c-77", "orders")
    assert failed["severity"] == "ERROR"
    assert (failed["details"]["customer"], failed["details"]["request"]) == ("c-78", "r-1")
    assert failed["details"]["exception"]["type"] == "ZeroDivisionError"


def test_loguru_example_has_what_is_bound_as_details(door: Door) -> None:
    """Also its own levels, and exceptions without their trace in the summary."""
    code = (
        example("from loguru")
        + """
logger.success("done {}", 5)
try:
    1 / 0
except ZeroDivisionError:
    logger.exception("failed {braces}", braces="{}")
"""
    )
    events = events_by(door, code)
    taken, done, failed = events["order 4711 taken"], events["done 5"], events["failed {}"]

    assert taken["details"]["customer"] == "c-77"
    assert (done["severity"], done["details"]["level"]) == ("INFO", "SUCCESS")
    assert failed["details"]["exception"]["type"] == "ZeroDivisionError"


def test_plain_example_posts_one_event_a_request(door: Door) -> None:
    """As many programs do it: X-Log-Key, half a second, no numbers."""
    code = (
        example("class PlainHandler")
        + """
logging.basicConfig(level=logging.INFO, handlers=[PlainHandler()])
for number in range(20):
    logging.getLogger("plain").info("plain %d", number)
"""
    )
    before = {batch.id for batch in batches_of(door)}
    _, errors = programs.ended(programs.start_bare(code, f"http://127.0.0.1:{door.port}", door.key))
    batches = [batch for batch in batches_of(door) if batch.id not in before]
    event = json.loads(batches[0].events[0])

    # On a machine that is busy half a second may not be enough.
    assert len(batches) + errors.count("--- Logging error ---") >= 20
    assert [len(batch.events) for batch in batches] == [1] * len(batches)
    assert {batch.epoch for batch in batches} == {None}
    assert (event["severity"], event["source"]) == ("INFO", "plain")


def test_plain_example_goes_on_when_the_door_is_away() -> None:
    """It complains as logging does, and the program lives."""
    code = example("class PlainHandler") + "\nlogging.basicConfig(handlers=[PlainHandler()])\nlogging.warning('x')"
    _, errors = programs.ended(programs.start_bare(code, f"http://127.0.0.1:{free_port()}"))

    assert "Logging error" in errors


def test_settings_and_reasons_on_the_page_are_those_of_the_code() -> None:
    """Every argument with its default, every reason for a drop."""
    import inspect

    from logweir.emit import LogweirHandler
    from logweir.emit.page import REASONS

    rows = re.findall(r"^\| (`.*?) \| (.*?) \|", PAGE.partition("## Settings")[2], re.MULTILINE)
    described = {name: default for names, default in rows for name in re.findall(r"`(\w+)`", names)}
    parameters = dict(inspect.signature(LogweirHandler.__init__).parameters)
    del parameters["self"]

    assert set(parameters) == set(described) - set(REASONS)
    assert set(REASONS) <= set(described)
    for name, parameter in parameters.items():
        if isinstance(parameter.default, int | float) and parameter.default:
            size = described[name].replace(",", "").replace(" MiB", "")
            shown = float(size) * (1024 * 1024 if "MiB" in described[name] else 1) if size != "`NOTSET`" else 0
            assert shown == parameter.default, name
