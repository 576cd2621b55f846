"""The rules of deploy/prometheus/rules as they stand in the files."""

from __future__ import annotations

from typing import Any

import yaml

from tests.deploy.compose import ROOT

FOLDER = ROOT / "deploy/prometheus/rules"


def rules() -> list[dict[str, Any]]:
    found = [yaml.safe_load(file.read_text(encoding="utf-8")) for file in sorted(FOLDER.glob("*.yml"))]
    return [rule for file in found for group in file["groups"] for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def recorded() -> dict[str, dict[str, Any]]:
    return {rule["record"]: rule for rule in rules() if "record" in rule}
