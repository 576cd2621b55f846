"""docker-compose.yml as `docker compose` would read it: with its variables filled in."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
COMPOSE_FILE = ROOT / "docker-compose.yml"
_VARIABLE = re.compile(r"\$(?:(\$)|\{(\w+)(?:(:?[-?])([^}]*))?\})")


def load(variables: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the file's content with `variables` in place of its ${…}, as from a file given with --env-file."""
    compose: dict[str, Any] = _filled(yaml.safe_load(COMPOSE_FILE.read_text(encoding="utf-8")), variables or {})
    return compose


def variables_of(text: str) -> set[str]:
    """Return the names of all variables that a text refers to."""
    return {match[2] for match in _VARIABLE.finditer(text) if match[2]}


def own_services(compose: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the services that run our image."""
    return {name: row for name, row in compose["services"].items() if row["image"].startswith("logweir:")}


def _filled(value: Any, variables: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(inner, variables) for key, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, variables) for inner in value]
    return _VARIABLE.sub(lambda match: _value(match, variables), value) if isinstance(value, str) else value


def _value(match: re.Match[str], variables: Mapping[str, str]) -> str:
    escaped, name, operator, default = match.groups()
    if escaped:
        return "$"
    given = variables.get(name)
    if given is None or (given == "" and (operator or "").startswith(":")):
        if operator and operator.endswith("?"):
            raise ValueError(f"{name} must be set: {default}")
        return default or ""
    return given
