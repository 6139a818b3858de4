"""A pool of tasks belongs to the event loop it was opened in."""

from __future__ import annotations

import gc
import threading
import warnings
from typing import Any

import pytest

from tests.aio.defences.measure import is_whole, request
from tests.support.aio import eventually
from tests.support.database import Database

if True:  # ASYNC
    import asyncio

    pytestmark = pytest.mark.anyio

    async def test_another_running_loop_is_told_which_loop_the_pool_belongs_to(make: Any) -> None:
        errors: list[BaseException] = []

        async def use() -> None:
            for borrow in (lambda: request(pool), pool.getconn, pool.check):
                try:
                    await borrow()
                except BaseException as ex:
                    errors.append(ex)

        async with make(2) as pool:
            await pool.wait(10)
            own = asyncio.get_running_loop()
            thread = threading.Thread(target=lambda: asyncio.run(use()))
            thread.start()
            await eventually(lambda: not thread.is_alive())
            assert [type(ex) for ex in errors] == [RuntimeError] * 3
            for ex in errors:
                assert repr(own) in str(ex)
                assert str(ex).count("Loop running") == 2
            await eventually(lambda: is_whole(pool, 2))
            await request(pool)


def test_a_pool_of_a_loop_that_was_closed_goes_without_a_word(
    make: Any, database: Database, recwarn: Any, capsys: Any
) -> None:
    if True:  # ASYNC
        complaints: list[Any] = []

        async def main() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _, c: complaints.append(c))
            pool = make(3)
            await pool.open()
            await pool.wait(10)
            await request(pool)
            pools.append(pool)

        pools: list[Any] = []
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            loop = asyncio.new_event_loop()
            loop.run_until_complete(main())
            loop.close()
            del loop
            pools.clear()
            gc.collect()
        assert not complaints
        assert not recwarn
        assert "destroyed" not in capsys.readouterr().err
        assert not database.pids() or _gone(database)


def _gone(database: Database) -> bool:
    from time import monotonic, sleep

    deadline = monotonic() + 5
    while database.pids():
        if monotonic() > deadline:
            return False
        sleep(0.01)
    return True
