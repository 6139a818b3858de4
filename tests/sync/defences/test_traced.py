# Generated from tests/aio/defences/test_traced.py by `python tools/async_to_sync.py`.
# Do not edit: change that file and run `make generate`.

"""Requests that pass through a tracer: it sees each, in the asker's context, and the pool lends as without it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import pytest

from everpool import PoolClosed, PoolTimeout
from tests.support.threads import eventually, gather, spawn
from tests.sync.defences.measure import is_whole, request

who: ContextVar[str] = ContextVar("who", default="nobody")


class Log:
    """Notes who asked, and what he was told."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, Any]] = []

    @contextmanager
    def around(self) -> Iterator[Callable[[int], None]]:
        numbers: list[int] = []
        try:
            yield numbers.append
        except BaseException as ex:
            self.lines.append((who.get(), type(ex)))
            raise
        self.lines.append((who.get(), *numbers))


def ask(pool: Any, name: str) -> None:
    who.set(name)
    with pool.connection():
        pass
    conn = pool.getconn()
    pool.putconn(conn)


def test_each_request_passes_through_in_the_askers_context(make: Any) -> None:
    log = Log()
    with make(2) as pool:
        pool.wait(10)
        pool.trace(log.around)
        gather(*(spawn(ask, pool, name) for name in ("ann", "bob", "cy")))
        assert sorted(name for name, _ in log.lines) == ["ann"] * 2 + ["bob"] * 2 + ["cy"] * 2
        numbers = {view.number for view in pool.snapshot().connections}
        assert {number for _, number in log.lines} <= numbers
        eventually(lambda: is_whole(pool, 2))


def test_refusals_pass_through_too(make: Any) -> None:
    log = Log()
    with make(1) as pool:
        pool.wait(10)
        pool.trace(log.around)
        with pool.connection():
            with pytest.raises(PoolTimeout):
                with pool.connection(0.05):
                    pass
            with pytest.raises(PoolTimeout):
                pool.getconn(0)
    with pytest.raises(PoolClosed):
        pool.getconn()
    assert [issubclass(told, PoolTimeout | PoolClosed) for _, told in log.lines[1:]] == [True] * 3


def test_one_at_a_time_and_none_again(make: Any) -> None:
    log = Log()
    with make(1) as pool:
        pool.wait(10)
        request(pool)
        assert pool._direct
        pool.trace(log.around)
        with pytest.raises(ValueError, match="traced already"):
            pool.trace(log.around)
        request(pool)
        pool.trace(None)
        assert pool._direct  # the hot path again
        request(pool)
        assert len(log.lines) == 1


def test_what_a_tracer_raises_loses_no_connection(make: Any) -> None:
    @contextmanager
    def broken() -> Iterator[Callable[[int], None]]:
        yield lambda number: None
        raise RuntimeError("broken")

    with make(1) as pool:
        pool.wait(10)
        pool.trace(broken)
        with pytest.raises(RuntimeError, match="broken"):
            with pool.connection():
                pass
        pool.trace(None)
        eventually(lambda: is_whole(pool, 1))
        request(pool, 5)
