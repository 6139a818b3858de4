"""A small catalogue, where the program has none yet."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib.util import find_spec
from types import ModuleType

from everpool.core.environment import Environment


@dataclass(frozen=True)
class Entry:
    name: str
    title: str
    facts: Environment


ENTRIES = [
    Entry("aws-nlb", "AWS NLB", Environment(350, kill="rst-next", activity="packets")),
    Entry("haproxy", "HAProxy", Environment(kill="fin", activity="bytes")),
]


def nearest(measured: Environment, most: int = 3) -> list[Entry]:
    return [entry for entry in ENTRIES if entry.facts.kill == measured.kill][:most]


def install() -> None:
    """Let the program find it, unless there is a real one."""
    if find_spec("everpool.environments") is None:
        module = ModuleType("everpool.environments")
        module.nearest = nearest  # type: ignore[attr-defined]
        sys.modules["everpool.environments"] = module
