from __future__ import annotations

from collections.abc import Iterator

import pytest

from .pools import Tasks, Threads


@pytest.fixture(params=[Threads, Tasks], ids=["threads", "tasks"])
def world(request: pytest.FixtureRequest) -> Iterator[Threads | Tasks]:
    world = request.param()
    yield world
    world.stop()
