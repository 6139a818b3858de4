"""Clients that are cancelled, or interrupted, at awkward moments: nothing is lost."""

from __future__ import annotations

import random
import threading
from typing import Any

import pytest
from psycopg import AsyncConnection
from psycopg.pq import TransactionStatus

from tests.support.aio import Event, eventually, gather, scalar, sleep, spawn
from tests.support.packages import everpool_only

pytestmark = pytest.mark.anyio


async def whole(pool: Any, size: int) -> None:
    """Assert that *size* connections can be had at once, all of them good, and no more than that exist."""
    conns = []
    for _ in range(size):
        conn = await pool.getconn(5)
        assert conn.info.transaction_status == TransactionStatus.IDLE
        assert await scalar(conn, "select 1") == 1
        await conn.rollback()
        conns.append(conn)
    assert len({conn.info.backend_pid for conn in conns}) == size
    assert pool.get_stats()["pool_size"] == size
    for conn in conns:
        await pool.putconn(conn)


if True:  # ASYNC
    import asyncio

    async def test_a_cancelled_client_leaves_the_queue(make_any: Any) -> None:
        async with make_any() as pool:
            conn = await pool.getconn(5)
            workers = [spawn(pool.getconn, 5) for _ in range(3)]
            await eventually(lambda: pool.get_stats()["requests_waiting"] == 3)
            workers[1].cancel()
            with pytest.raises(asyncio.CancelledError):
                await workers[1].result()
            await pool.putconn(conn)
            assert await workers[0].result() is conn
            await pool.putconn(conn)
            assert await workers[2].result() is conn
            await pool.putconn(conn)
            await whole(pool, 1)

    async def test_a_client_cancelled_as_it_is_served_loses_no_connection(make_any: Any) -> None:
        async with make_any() as pool:
            for turns in range(6):
                conn = await pool.getconn(5)
                worker = spawn(pool.getconn, 5)
                await eventually(lambda: pool.get_stats()["requests_waiting"] == 1)
                await pool.putconn(conn)
                for _ in range(turns):
                    await asyncio.sleep(0)
                worker.cancel()
                try:
                    await pool.putconn(await worker.result())
                except asyncio.CancelledError:
                    pass
                await eventually(lambda: pool.get_stats()["requests_waiting"] == 0)
            await whole(pool, 1)

    async def test_a_block_that_is_cancelled_is_rolled_back_and_gives_its_connection_back(
        make_any: Any,
    ) -> None:
        entered = Event()

        async def client() -> None:
            async with pool.connection(timeout=5) as conn:
                await conn.execute("create table this_will_not_stay ()")
                entered.set()
                await asyncio.sleep(30)

        async with make_any() as pool:
            worker = spawn(client)
            await entered.wait()
            worker.cancel()
            with pytest.raises(asyncio.CancelledError):
                await worker.result()
            async with pool.connection(timeout=5) as conn:
                assert await scalar(conn, "select to_regclass('this_will_not_stay')") is None
            await whole(pool, 1)

    async def test_a_query_that_is_cancelled_gives_its_connection_back_or_up(
        make_any: Any, database: Any
    ) -> None:
        async def client() -> None:
            async with pool.connection(timeout=5) as conn:
                await conn.execute("select pg_sleep(20)")

        async with make_any() as pool:
            worker = spawn(client)
            await eventually(lambda: {database.state(pid) for pid in database.pids()} == {"active"})
            worker.cancel()
            with pytest.raises(asyncio.CancelledError):
                await worker.result()
            await whole(pool, 1)

    @pytest.mark.parametrize("callback", ["check", "reset", "configure"])
    async def test_a_client_cancelled_during_a_callback_loses_no_connection(
        make: Any, callback: str
    ) -> None:
        reached, calls = Event(), []

        async def slow(conn: Any) -> None:
            calls.append(conn)
            if len(calls) == 1:
                reached.set()
                await asyncio.sleep(0.2)

        async def client() -> None:
            async with pool.connection(timeout=5):
                pass
            await asyncio.sleep(5)

        async with make(**{callback: slow}) as pool:
            worker = spawn(client)
            await reached.wait()
            worker.cancel()
            with pytest.raises(asyncio.CancelledError):
                await worker.result()
            await whole(pool, 1)

    async def test_a_return_that_is_cancelled_loses_no_connection(make: Any) -> None:
        async with make() as pool:
            for turns in range(4):
                conn = await pool.getconn(5)
                await conn.execute("select 1")
                worker = spawn(pool.putconn, conn)
                for _ in range(turns):
                    await asyncio.sleep(0)
                worker.cancel()
                try:
                    await worker.result()
                except asyncio.CancelledError:
                    pass
                if conn._pool is pool:
                    await pool.putconn(conn)
                await eventually(lambda: pool.get_stats()["pool_available"] == 1)
            await whole(pool, 1)

    async def cancel_at_random(pool: Any, size: int) -> None:
        chance = random.Random(20)

        async def client() -> None:
            async with pool.connection(timeout=5) as conn:
                await conn.execute("select 1")
                await asyncio.sleep(chance.random() / 200)

        await pool.wait(5)
        for _ in range(15):
            workers = [spawn(client) for _ in range(10)]
            while workers:
                await asyncio.sleep(chance.random() / 500)
                worker = workers.pop(chance.randrange(len(workers)))
                if chance.random() < 0.7:
                    worker.cancel()
                try:
                    await worker.result()
                except asyncio.CancelledError:
                    pass
        await eventually(lambda: pool.get_stats()["requests_waiting"] == 0)
        await whole(pool, size)

    async def test_clients_cancelled_at_random_lose_no_connection(make: Any) -> None:
        async with make(3) as pool:
            await cancel_at_random(pool, 3)

    @everpool_only(
        "the null pools of psycopg_pool lose the place of a client cancelled at a bad moment"
    )
    async def test_clients_of_a_null_pool_cancelled_at_random_lose_no_place(make_null: Any) -> None:
        async with make_null(3) as pool:
            await cancel_at_random(pool, 3)

    async def test_a_client_cancelled_while_its_pool_grows_does_not_stop_the_growth(
        make: Any,
    ) -> None:
        class Slow(AsyncConnection[Any]):
            @classmethod
            async def connect(cls, conninfo: str = "", **kwargs: Any) -> Any:
                await sleep(0.1)
                return await super().connect(conninfo, **kwargs)

        async with make(0, 1, connection_class=Slow) as pool:
            worker = spawn(pool.getconn, 5)
            await eventually(lambda: pool.get_stats()["pool_size"] == 1)
            worker.cancel()
            with pytest.raises(asyncio.CancelledError):
                await worker.result()
            await eventually(lambda: pool.get_stats()["pool_available"] == 1)
            await whole(pool, 1)

    async def test_opening_and_waiting_can_be_cancelled(make: Any) -> None:
        class Slow(AsyncConnection[Any]):
            @classmethod
            async def connect(cls, conninfo: str = "", **kwargs: Any) -> Any:
                await sleep(0.2)
                return await super().connect(conninfo, **kwargs)

        async with make(connection_class=Slow) as pool:
            worker = spawn(pool.wait, 5)
            await asyncio.sleep(0.05)
            worker.cancel()
            with pytest.raises(asyncio.CancelledError):
                await worker.result()
            await whole(pool, 1)

    async def test_a_timeout_around_the_pool_works_as_the_pools_own(make_any: Any) -> None:
        async with make_any() as pool:
            conn = await pool.getconn(5)
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.02):
                        await pool.getconn(5)
            await pool.putconn(conn)
            await whole(pool, 1)

    async def test_a_pool_serves_a_task_group(make_any: Any) -> None:
        async def client(n: int) -> Any:
            async with pool.connection(timeout=5) as conn:
                return await scalar(conn, "select %s::int", n)

        async with make_any(2) as pool:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(client(n)) for n in range(10)]
        assert [task.result() for task in tasks] == list(range(10))

else:

    class Interrupt(BaseException):
        """As KeyboardInterrupt, without its effect on the test runner."""

    @pytest.fixture
    def alarm() -> Any:
        """Raises `Interrupt` in the main thread after so many seconds."""
        import signal

        def handler(signum: int, frame: Any) -> None:
            raise Interrupt

        previous = signal.signal(signal.SIGALRM, handler)
        yield lambda delay: signal.setitimer(signal.ITIMER_REAL, delay)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)

    @everpool_only("psycopg_pool gives the connection to the client that is no longer there")
    def test_an_interrupted_client_leaves_the_queue(make_any: Any, alarm: Any) -> None:
        with make_any() as pool:
            conn = pool.getconn(5)
            alarm(0.05)
            with pytest.raises(Interrupt):
                pool.getconn(10)
            pool.putconn(conn)
            whole(pool, 1)

    def test_an_interrupted_query_gives_its_connection_back_or_up(
        make_any: Any, alarm: Any
    ) -> None:
        with make_any() as pool:
            with pytest.raises(Interrupt):
                with pool.connection(timeout=5) as conn:
                    alarm(0.1)
                    conn.execute("select pg_sleep(20)")
            whole(pool, 1)

    # An exception that a signal raises inside a finalizer is reported, not raised.
    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    @everpool_only("psycopg_pool can lose a connection to an exception between two statements")
    def test_interrupts_at_random_lose_no_connection(make: Any, alarm: Any) -> None:
        chance = random.Random(7)
        with make(2) as pool:
            pool.wait(5)
            for _ in range(150):
                try:
                    alarm(0.0002 + chance.random() / 1000)
                    for _ in range(20):
                        with pool.connection(timeout=5) as conn:
                            conn.execute("select 1")
                    alarm(0)
                except Interrupt:
                    pass
            whole(pool, 2)

    def test_threads_hammer_the_pool(make_any: Any) -> None:
        counts = dict.fromkeys(range(8), 0)

        def client(n: int) -> None:
            for _ in range(25):
                with pool.connection(timeout=10) as conn:
                    conn.execute("select 1")
                    counts[n] += 1

        with make_any(3) as pool:
            gather(*[spawn(client, n) for n in counts])
            assert set(counts.values()) == {25}
            assert pool.get_stats()["requests_num"] == 200
        assert threading.active_count() < 50


async def test_a_worker_that_fails_holding_a_connection_gives_it_back(make_any: Any) -> None:
    async def client() -> None:
        async with pool.connection(timeout=5) as conn:
            await conn.execute("select 1 / 0")

    async with make_any(2) as pool:
        for _ in range(5):
            worker = spawn(client)
            with pytest.raises(Exception, match="division by zero"):
                await worker.result()
        await gather(*[spawn(whole_turn, pool) for _ in range(4)])


async def whole_turn(pool: Any) -> None:
    async with pool.connection(timeout=5) as conn:
        assert await scalar(conn, "select 1") == 1
