"""A survey as JSON: to be read by programs, and to go on from.

Neither conninfo nor password is part of it; the server appears as a fingerprint.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .facts import Facts
from .findings import Findings, find, fits, python
from .observation import Limits, Observation
from .run import Result

if TYPE_CHECKING:
    from ..environments import Entry

FORMAT = "everpool survey"
VERSION = 1

# Enough for a thousand times what a survey observes.
LONGEST_FILE = 1 << 24


class Unreadable(Exception):
    """The file is none of a survey's; the text says why."""


def nearest(findings: Findings, most: int = 3) -> list[Entry]:
    """The entries of the catalogue that the path looks like, the best first."""
    from ..environments import nearest as nearest_entries

    measured = findings.measured
    return [] if measured is None else nearest_entries(measured, most)


def as_json(result: Result) -> dict[str, Any]:
    """All of a result, what follows from it included."""
    findings = find(result.observations, result.limits)
    policy = findings.policy
    told = asdict(findings)
    told["environments"] = [_without_nothing(e) for e in told["environments"]]
    return {
        "format": FORMAT,
        "version": VERSION,
        "complete": result.complete,
        "trouble": result.trouble,
        "seconds": round(result.seconds, 3),
        "limits": asdict(result.limits),
        "facts": result.facts.as_json(),
        "findings": _rounded(told),
        "nearest": [
            {"name": e.name, "title": e.title, "fits": fits(findings, e.facts)}
            for e in nearest(findings)
        ],
        "settings": {
            name: {"value": _finite(getattr(policy, name)), "why": policy.reason(name).why}
            for name in policy.reasons
        },
        "python": python(findings.environments),
        "observations": [_rounded(asdict(o)) for o in result.observations],
    }


def save(path: Path, result: Result) -> None:
    """Write a result, all of it or nothing.

    :raises OSError: it cannot be written.
    """
    new = path.with_name(f"{path.name}.new")
    new.write_text(json.dumps(as_json(result), indent=2) + "\n", encoding="utf-8")
    os.replace(new, path)


def load(path: Path) -> Result:
    """Read a result, to go on from it. What follows from the observations is not read.

    :raises Unreadable: the file is missing or none of a survey's.
    """
    try:
        if path.stat().st_size > LONGEST_FILE:
            raise Unreadable(f"{path} is too long to be a survey")
        data = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise Unreadable(f"{path} is no survey")
        if data.get("version") != VERSION:
            raise Unreadable(
                f"{path} is a survey of version {data.get('version')!r}, and this program reads"
                f" version {VERSION}"
            )
        seconds = data["seconds"]
        if isinstance(seconds, bool) or not isfinite(seconds) or seconds < 0:
            raise ValueError(f"its seconds are {seconds!r}")
        return Result(
            limits=Limits(**data["limits"]),
            facts=Facts.read(data["facts"]),
            observations=[Observation.read(o) for o in data["observations"]],
            seconds=seconds,
        )
    except (OSError, UnicodeDecodeError) as error:
        raise Unreadable(f"{path} cannot be read: {error}") from None
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise Unreadable(f"{path} is no survey that can be gone on from: {error}") from None


def _rounded(value: Any) -> Any:
    """Milliseconds are all that a measurement gives."""
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(inner) for inner in value]
    return value


def _without_nothing(environment: dict[str, Any]) -> dict[str, Any]:
    return {k: _finite(v) for k, v in environment.items() if v is not None and k != "name"}


def _finite(value: Any) -> Any:
    """JSON knows no infinity."""
    return value if not isinstance(value, float) or isfinite(value) else None
