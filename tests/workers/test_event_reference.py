"""docs/reference/event.md and docs/how-to/categories.md say what the code does."""

import re
import textwrap
import tomllib
from pathlib import Path
from typing import Any

import pytest

from logweir.config import WorkerSettings
from logweir.event import KEYWORD_LENGTH_MAX
from logweir_workers import decode
from logweir_workers.enrich import category, enrichments, load
from logweir_workers.normalise import details
from logweir_workers.normalise import fields as normalise
from logweir_workers.normalise.fields import Context
from logweir_workers.normalise.severities import SCALES, SEVERITIES, SPELLINGS
from logweir_workers.normalise.times import time_of

ROOT = Path(__file__).parents[2]
EVENT = (ROOT / "docs" / "reference" / "event.md").read_text(encoding="utf-8")
TIMES = (ROOT / "docs" / "reference" / "times.md").read_text(encoding="utf-8")
CATEGORIES = (ROOT / "docs" / "how-to" / "categories.md").read_text(encoding="utf-8")
README = Path(load.__globals__["__file__"]).with_name("README.md").read_text(encoding="utf-8")


def _table(text: str, header: str) -> list[list[str]]:
    """The cells of the rows under the header row that begins with ``header``."""
    rows = text.partition(f"| {header} |")[2].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def _code(cell: str) -> tuple[str, ...]:
    return tuple(re.findall(r"`([^`]+)`", cell))


def test_reference_lists_every_name_of_every_field_in_order() -> None:
    """The order is the rule for which name wins."""
    assert {_code(field)[0]: _code(names) for field, names in _table(EVENT, "Field")} == normalise.SYNONYMS


def test_reference_lists_every_name_of_every_known_detail_in_order() -> None:
    """As for the fields."""
    assert {_code(detail)[0]: _code(names) for detail, names in _table(EVENT, "Detail")} == details.SYNONYMS


def test_reference_lists_every_spelling_of_every_severity() -> None:
    """Digits and spellings, with nothing more and nothing less."""
    numbers: dict[str, list[int]] = {name: [] for name in SEVERITIES}
    for scale in SCALES:
        for number, name in {} if scale.told_by else scale.severities.items():
            numbers[name].append(number)

    for severity, digits, spellings in _table(EVENT, "Severity"):
        (name,) = _code(severity)
        assert [int(digit) for digit in digits.split(",")] == numbers.pop(name)
        assert _code(spellings) == SPELLINGS[name]
    assert numbers == {}


def test_reference_lists_every_scale_with_what_tells_it() -> None:
    """Names and numbers, in the order in which they are tried."""
    listed = [
        (
            name,
            tuple(" ".join(_code(names)) for names in told_by.split(", ")),
            {int(number): severity for number, severity in re.findall(r"(\d+) ([A-Z]+)", numbers)},
        )
        for name, told_by, numbers in _table(EVENT, "Scale")
    ]

    assert listed == [(scale.name, scale.told_by, scale.severities) for scale in SCALES if scale.told_by]


def test_limits_in_the_reference_are_those_in_force() -> None:
    """The numbers of the table, in its order, and the nesting that is read at all."""
    numbers = [int(re.findall(r"[\d,]+", row[0])[0].replace(",", "")) for row in _table(EVENT, "Limit")]

    assert numbers == [
        KEYWORD_LENGTH_MAX,
        normalise.TAGS_MAX,
        normalise.NAME_SIZE_BYTES_MAX,
        normalise.LEVELS_MAX,
        8000,
        normalise.WORDS_MAX,
    ]
    assert f"deeper than {decode.DEPTH_MAX} levels" in EVENT
    assert f"`details.{normalise.RENAMED}`" in EVENT
    assert f"`{normalise.TIME_UNREADABLE}`" in EVENT
    assert f"`{normalise.PARTLY_SEARCHABLE}`" in EVENT


@pytest.mark.parametrize("sent", [sent for row in _table(TIMES, "Sent") for sent in _code(row[0])])
def test_time_that_the_reference_calls_ambiguous_is_not_read(sent: str) -> None:
    """Nothing is guessed."""
    assert time_of(sent, 1_769_900_000_000_000) is None


def test_numbers_in_the_reference_are_read() -> None:
    """The forms' own examples are tested with their table."""
    numbers = [_code(row[1]) for row in _table(TIMES, "Form") if "since 1970" in row[0] and "/Date" not in row[1]]

    assert len(numbers) == 2
    assert {time_of(text, 0) for text in (*numbers[0], *numbers[1])} == {
        (1_769_860_800_000_000, True),
        (1_769_860_800_250_000, True),
    }


def test_rules_in_the_how_to_work(tmp_path: Path) -> None:
    """The page's own file of rules loads, and its table lists all that a rule may say."""
    blocks = re.findall(r"```toml\n(.*?)```", CATEGORIES, re.DOTALL)
    (rules,) = [block for block in blocks if "[[rule]]" in block]
    path = tmp_path / "categories.toml"
    path.write_text(rules, encoding="utf-8")

    load(WorkerSettings(categories_file=path))

    assert len(tomllib.loads(rules)["rule"]) == 4
    listed = {name for row in _table(CATEGORIES, "In a rule") for name in _code(row[0])}
    assert listed == {*category.FIELDS, category.CONTAINS, "category", "override"}


def test_readme_of_the_enrichments_lists_them_all() -> None:
    """One row a file, with every field that it adds."""
    rows = {_code(file)[0].removesuffix(".py"): adds for file, adds in _table(README, "File")}

    assert list(rows) == [each.name for each in enrichments()]
    for each in enrichments():
        assert set(each.adds) <= set(_code(rows[each.name]))


def test_enrichment_in_the_readme_works() -> None:
    """The page's code is what people copy: it runs, and its examples hold."""
    (code,) = re.findall(r"```python\n(.*?) *```", README, re.DOTALL)
    names: dict[str, Any] = {}

    exec(textwrap.dedent(code), names)

    private = names["private"]
    for before, added in private.examples:
        event = dict(before)
        private.prepare(WorkerSettings())(event, Context(0, "web"))
        assert event == {**before, **added}
