"""The files that come with everpool, as tests look at them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import yaml

FOLDER = files("everpool.telemetry")
RULES = FOLDER.joinpath("rules.yml").read_text("utf-8")
DASHBOARD = FOLDER.joinpath("dashboard.json").read_text("utf-8")

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*everpool_[a-zA-Z0-9_:]*|everpool_[a-zA-Z0-9_:]*")
_CHOICE = re.compile(r"(everpool_\w+)\{([^}]*)\}")
_EQUAL = re.compile(r'(\w+)="([^"$]*)"')


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES)["groups"] for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(DASHBOARD)
    return loaded


def shown() -> list[str]:
    """All expressions of the dashboard, with the variables replaced."""
    found = [t["expr"] for panel in dashboard()["panels"] for t in panel.get("targets", [])]
    return [
        e.replace("$__rate_interval", "5m").replace("$job", "j").replace("$pool", "p")
        for e in found
    ]


def names(expr: str) -> set[str]:
    """The metrics and recorded series in an expression."""
    return set(_NAME.findall(expr))


def choices(expr: str) -> Iterator[tuple[str, str, str]]:
    """What an expression selects by equality: metric, label, value."""
    for metric, matchers in _CHOICE.findall(expr):
        for label, value in _EQUAL.findall(matchers):
            yield metric, label, value
