"""Whatever is cancelled or interrupted, and wherever: the pool is whole afterwards."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
import pytest

from everpool import PoolClosed, PoolTimeout
from tests.aio.defences.measure import is_whole, request
from tests.support.aio import eventually, scalar, sleep, spawn
from tests.support.database import Database

if True:  # ASYNC
    import asyncio
    import types
else:
    import gc
    import logging
    import random
    import signal
    import threading
    from time import monotonic

    from tests.support.threads import interrupt

pytestmark = pytest.mark.anyio

SIZE = 2
MOST_STEPS = 60


async def test_a_connection_returned_twice_is_not_taken_from_its_next_borrower(make: Any) -> None:
    async def borrow() -> Any:
        return await pool.getconn(5)

    async with make(1) as pool:
        with pytest.raises(ValueError, match="returned before"):
            async with pool.connection() as conn:
                waiter = spawn(borrow)
                await eventually(lambda: pool.snapshot().waiting)
                await pool.putconn(conn)
                assert await waiter.result() is conn
        with pytest.raises(PoolTimeout):
            await pool.getconn(0.05)
        assert await scalar(conn, "select 1") == 1
        await pool.putconn(conn)
        await eventually(lambda: is_whole(pool, 1))


if True:  # ASYNC

    @types.coroutine
    def stepping(awaitable: Any, last: int, late: bool) -> Any:
        """Await, and cancel the task at its *last* suspension: at once, or when what it waits for is done."""
        steps = awaitable.__await__()
        task = asyncio.current_task()
        assert task is not None
        value, error, count = None, None, 0
        while True:
            try:
                waits_for = steps.send(value) if error is None else steps.throw(error)
            except StopIteration as stop:
                return stop.value
            count += 1
            if count == last:
                if late and waits_for is not None:
                    waits_for.add_done_callback(lambda _: task.cancel())
                else:
                    task.cancel()
            value, error = None, None
            try:
                value = yield waits_for
            except BaseException as ex:
                error = ex

    async def cancelled_at(last: int, late: bool, call: Callable[[], Awaitable[Any]]) -> bool:
        """Run *call*, cancel it at its suspension number *last*; return whether it was cancelled."""

        async def run() -> None:
            await stepping(call(), last, late)

        task = asyncio.create_task(run())
        try:
            async with asyncio.timeout(10):
                await task
        except asyncio.CancelledError:
            return True
        return False

    async def plain(pool: Any) -> None:
        await pool.putconn(await pool.getconn(5))

    async def block(pool: Any) -> None:
        async with pool.connection(5) as conn:
            await conn.execute("select 1")

    async def transaction(pool: Any) -> None:
        async with pool.connection(5) as conn, conn.transaction():
            await conn.execute("select 1")

    async def left_open(pool: Any) -> None:
        conn = await pool.getconn(5)
        try:
            await conn.execute("begin")
        finally:
            await pool.putconn(conn)

    async def failing(pool: Any) -> None:
        with pytest.raises(ZeroDivisionError):
            async with pool.connection(5):
                raise ZeroDivisionError

    async def checked(pool: Any) -> None:
        await pool.check()

    async def quick_check(conn: Any) -> None:
        await conn.execute("select 1")

    async def clean(conn: Any) -> None:
        await conn.execute("reset all")

    ASKING = {"verify_after": 0.0, "peek_after": 0.0}

    @pytest.mark.parametrize("late", [False, True], ids=["at once", "late"])
    @pytest.mark.parametrize(
        "settings",
        [{}, ASKING, {"check": quick_check}, {"reset": clean}],
        ids=["plain", "asking", "check", "reset"],
    )
    @pytest.mark.parametrize("use", [plain, block, transaction, left_open, failing, checked])
    async def test_a_cancellation_at_any_await_loses_nothing(
        make: Any, use: Any, settings: dict[str, Any], late: bool
    ) -> None:
        async with make(SIZE, **settings) as pool:
            await pool.wait(10)
            for last in range(1, MOST_STEPS):
                await eventually(lambda: is_whole(pool, SIZE))
                cancelled = await cancelled_at(last, late, lambda: use(pool))
                await eventually(lambda: is_whole(pool, SIZE))
                assert pool.snapshot().waiting == 0
                await request(pool, 5)
                if not cancelled:
                    break
        assert not cancelled, "more awaits than expected"

    @pytest.mark.parametrize("late", [False, True], ids=["at once", "late"])
    @pytest.mark.parametrize(
        "settings", [{}, ASKING, {"check": quick_check}], ids=["plain", "asking", "check"]
    )
    async def test_a_cancellation_of_one_who_waits_loses_nothing(
        make: Any, settings: dict[str, Any], late: bool
    ) -> None:
        async with make(SIZE, **settings) as pool:
            await pool.wait(10)
            for last in range(1, MOST_STEPS):
                await eventually(lambda: is_whole(pool, SIZE))
                conns = [await pool.getconn(5) for _ in range(SIZE)]
                waiter = spawn(cancelled_at, last, late, lambda: plain(pool))
                await eventually(lambda w=waiter: pool.snapshot().waiting or w.done)
                for conn in conns:
                    await pool.putconn(conn)
                cancelled = await waiter.result()
                await eventually(lambda: is_whole(pool, SIZE))
                await request(pool, 5)
                if not cancelled:
                    break
            assert not cancelled, "more awaits than expected"

    @pytest.mark.parametrize("late", [False, True], ids=["at once", "late"])
    async def test_a_cancelled_open_or_wait_leaves_a_pool_that_works(make: Any, late: bool) -> None:
        for last in range(1, MOST_STEPS):
            pool = make(SIZE)
            cancelled = await cancelled_at(last, late, lambda pool=pool: pool.open(wait=True))
            await eventually(lambda pool=pool: is_whole(pool, SIZE))
            await request(pool, 5)
            cancelled |= await cancelled_at(last, late, lambda pool=pool: pool.wait(5))
            await request(pool, 5)
            await pool.close()
            if not cancelled:
                return
        pytest.fail("more awaits than expected")

    @pytest.mark.parametrize("late", [False, True], ids=["at once", "late"])
    async def test_a_cancelled_close_has_closed(make: Any, late: bool, database: Database) -> None:
        for last in range(1, MOST_STEPS):
            tasks = asyncio.all_tasks()
            pool = make(4)
            await pool.open()
            await eventually(lambda: database.pids())  # some connect still, some rest
            cancelled = await cancelled_at(last, late, pool.close)
            with pytest.raises(PoolClosed):
                await pool.getconn()
            await eventually(lambda: not database.pids())
            await eventually(lambda tasks=tasks: asyncio.all_tasks() <= tasks)
            await pool.close()
            if not cancelled:
                return
        pytest.fail("more awaits than expected")

    async def test_many_tasks_cancelled_at_random_lose_nothing(make: Any) -> None:
        import random

        chance = random.Random(5)

        async def work() -> None:
            while True:
                async with pool.connection(5) as conn:
                    await conn.execute("select pg_sleep(0.001)")

        async with make(3, verify_after=0.001, peek_after=0.0) as pool:
            workers = [spawn(work) for _ in range(12)]
            for _ in range(150):
                await sleep(0.004)
                place = chance.randrange(len(workers))
                workers[place].cancel()
                workers[place] = spawn(work)
            for worker in workers:
                worker.cancel()
            await eventually(lambda: is_whole(pool, 3))
            assert pool.snapshot().waiting == 0
            await request(pool, 5)

else:

    def block(pool: Any) -> None:
        with pool.connection(5) as conn:
            scalar(conn, "select 1")

    def transaction(pool: Any) -> None:
        with pool.connection(5) as conn, conn.transaction():
            scalar(conn, "select 1")

    def failing(pool: Any) -> None:
        try:
            with pool.connection(5) as conn:
                conn.autocommit = False
                scalar(conn, "select 1")
                raise ZeroDivisionError
        except ZeroDivisionError:
            pass

    @pytest.fixture
    def no_log(monkeypatch: Any) -> None:
        """Logging's own locks do not survive an interruption. To disable a logger leaves its children as they are."""
        for name, logger in list(logging.root.manager.loggerDict.items()):
            if name.startswith(("everpool", "psycopg")) and isinstance(logger, logging.Logger):
                monkeypatch.setattr(logger, "disabled", True)

    @pytest.mark.parametrize("use", [block, transaction, failing])
    @pytest.mark.parametrize("threads", [2, 6], ids=["no queue", "queue"])
    def test_threads_interrupted_anywhere_lose_nothing(
        make: Any, use: Any, threads: int, no_log: None
    ) -> None:
        stop = threading.Event()
        interruptions = [0]

        def work() -> None:
            while not stop.is_set():
                try:
                    while not stop.is_set():
                        use(pool)
                except KeyboardInterrupt:
                    interruptions[0] += 1
                except psycopg.Error:
                    pass  # an interrupted query may leave its connection unusable

        chance = random.Random(threads)
        with make(3, verify_after=0.002, peek_after=0.0) as pool:
            pool.wait(10)
            workers = [spawn(work) for _ in range(threads)]
            until = monotonic() + 1.5
            while monotonic() < until:
                sleep(chance.random() * 0.004)
                interrupt(chance.choice(workers))
            sleep(0.05)
            stop.set()
            for worker in workers:
                try:
                    worker.result()
                except KeyboardInterrupt:
                    pass
            gc.collect()
            eventually(lambda: is_whole(pool, 3))
            assert pool.snapshot().waiting == 0
            request(pool, 5)
            assert interruptions[0] > 50

    def test_a_key_press_in_the_main_thread_loses_nothing(make: Any) -> None:
        """Where notebooks interrupt: the pool lives on."""
        main = threading.main_thread().ident
        chance = random.Random(3)
        interruptions = 0
        with make(2, verify_after=0.002, peek_after=0.0) as pool:
            pool.wait(10)
            for _ in range(150):
                press = threading.Timer(
                    chance.random() * 0.004, signal.pthread_kill, (main, signal.SIGINT)
                )
                try:
                    press.start()
                    while True:
                        block(pool)
                except KeyboardInterrupt:
                    interruptions += 1
                press.join()
            gc.collect()
            eventually(lambda: is_whole(pool, 2))
            request(pool, 5)
            assert interruptions == 150
