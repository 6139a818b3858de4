"""A receiver on the loopback, and pools as they would look at one moment."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from everpool import ConnectionPool, Snapshot
from tests.alerts.receiver import Receiver


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: Any) -> None:
    """A proxy that the environment names is not for the loopback."""
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


class Picture:
    """Snapshots of a pool that is well, but for what a test says."""

    def __init__(self, name: str = "main") -> None:
        pool = ConnectionPool("", min_size=2, max_size=4, name=name, open=False)
        self.base: Snapshot = replace(pool.snapshot(), state="up")

    def at(self, now: float, vitals: dict[str, Any] | None = None, **changes: Any) -> Snapshot:
        return replace(
            self.base, at=now, vitals=replace(self.base.vitals, **(vitals or {})), **changes
        )


@pytest.fixture
def picture() -> Picture:
    return Picture()
