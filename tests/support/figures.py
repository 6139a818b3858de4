"""Measured figures beside those asked for: each test's go into its result, and with EVERPOOL_TEST_FIGURES=1 into a
table at the end of the run."""

from __future__ import annotations

import os
from typing import Any

import pytest

_KEY = "figure"


class Figures:
    """Notes what a test measures."""

    def __init__(self, properties: list[tuple[str, object]]) -> None:
        self._properties = properties

    def __call__(self, what: str, measured: float, most: float) -> None:
        """Note a figure, and fail if it is more than was asked for."""
        self._properties.append((_KEY, (what, measured, most)))
        assert measured <= most, f"{what}: {measured:.3f}, at most {most:.3f} was asked for"


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Figures:
    return Figures(request.node.user_properties)


def print_table(reporter: Any) -> None:
    """Write all figures of the run, if the environment asks for them."""
    if os.environ.get("EVERPOOL_TEST_FIGURES") != "1":
        return
    reporter.section("figures")
    for outcome in ("passed", "failed"):
        for report in reporter.getreports(outcome):
            for key, value in report.user_properties:
                if key == _KEY and report.when == "call":
                    what, measured, most = value
                    reporter.line(f"{measured:8.3f} <= {most:<7.3f} {what}: {report.nodeid}")
