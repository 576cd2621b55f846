"""Print every setting as a logweir.toml: its value in force, what it means, and its environment variable."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import tomlkit
from pydantic import BaseModel, SecretStr

from logweir.config import SECTIONS, Settings, environment_name, fields_of, require_known, shown_url
from logweir.text import printable, safe_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="SECTION.NAME", help="print only this setting's value")


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    if arguments.name:
        print(printable(value_of(settings, arguments.name)))
    else:
        # TOML has the escapes of JSON.
        print(safe_json(as_toml(settings)), end="")
    return 0


def value_of(settings: Settings, name: str) -> str:
    """One setting's value as text, secrets masked. Raises LogweirError(SETTING_UNKNOWN)."""
    require_known(name, where="The command line")
    section, _, inner = name.rpartition(".")
    return str(_plain(inner, getattr(getattr(settings, section) if section else settings, inner)))


def as_toml(settings: Settings) -> str:
    """All settings, ready to be saved as logweir.toml; those without a value, and with secrets, are commented out.

    The advanced ones of each section stand below the others.
    """
    document = tomlkit.document()
    _add(document, settings, "data_dir")
    for section in SECTIONS:
        table = tomlkit.table()
        model: BaseModel = getattr(settings, section)
        for name in fields_of(type(model), advanced=False):
            _add(table, model, name, section)
        advanced = fields_of(type(model), advanced=True)
        if advanced:
            table.add(tomlkit.nl())
            table.add(tomlkit.comment("Advanced: right as they are for almost everybody."))
        for name in advanced:
            _add(table, model, name, section)
        document.add(section, table)
    return tomlkit.dumps(document)


def _add(container: Any, model: BaseModel, name: str, section: str = "") -> None:
    full_name = f"{section}.{name}" if section else name
    container.add(tomlkit.comment(f"{type(model).model_fields[name].description} [{environment_name(full_name)}]"))
    value = _plain(name, getattr(model, name))
    if value in ("", None) or "***" in str(value):
        container.add(tomlkit.comment(f"{name} = {tomlkit.item(value or '').as_string()}"))
    else:
        container.add(name, value)


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, SecretStr):
        return "***" if value.get_secret_value() else ""
    if name == "url":
        return shown_url(value)
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value
