"""A forked child gets connections of its own, and takes nothing from its parent."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from tests.aio.defences.measure import cuts, is_whole, request
from tests.support.aio import eventually, scalar, sleep
from tests.support.database import Database

if True:  # ASYNC
    import asyncio

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork"),
    # That is what is tested here.
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]


async def in_child(task: Callable[[], Any]) -> str:
    """Fork, run *task* in the child, in a new event loop if it is asynchronous, and return what it returned as text."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        signal.alarm(20)
        try:
            if True:  # ASYNC
                asyncio._set_running_loop(None)
                said = str(asyncio.new_event_loop().run_until_complete(task()))
            else:
                said = str(task())
        except BaseException:
            said = traceback.format_exc()
        os.write(writer, said.encode()[:60000])
        os._exit(0)
    os.close(writer)
    chunks: list[bytes] = []

    def ended() -> bool:
        while True:
            try:
                chunk = os.read(reader, 65536)
            except BlockingIOError:
                return False
            if not chunk:
                return True
            chunks.append(chunk)

    os.set_blocking(reader, False)
    await eventually(ended, timeout=25)
    os.close(reader)
    os.waitpid(pid, 0)  # noqa: ASYNC222  it has closed its end: it is gone
    return b"".join(chunks).decode()


async def test_the_first_use_in_a_child_has_connections_of_its_own(
    make: Any, database: Database
) -> None:
    async with make(3) as pool:
        await pool.wait(10)
        await eventually(lambda: is_whole(pool, 3))
        pids = database.pids()

        async def child() -> int:
            async with pool.connection(5) as conn:
                return await scalar(conn, "select pg_backend_pid()")

        theirs = int(await in_child(child))
        assert theirs not in pids
        # The parent's are as they were, and the pool has noticed nothing.
        await eventually(lambda: database.pids() == pids)
        for _ in range(3):
            async with pool.connection() as conn:
                assert await scalar(conn, "select pg_backend_pid()") in pids
        assert is_whole(pool, 3)
        assert not cuts(pool)


async def test_a_child_may_subscribe_before_it_uses_the_pool(make: Any) -> None:
    async with make(2) as pool:
        await pool.wait(10)

        async def child() -> int:
            with pool.subscribe(print):
                async with pool.connection() as conn:
                    return await scalar(conn, "select 1")

        assert await in_child(child) == "1"


async def test_parent_and_child_use_their_pools_at_the_same_time(
    make: Any, database: Database
) -> None:
    async with make(2) as pool:
        await pool.wait(10)
        await eventually(lambda: is_whole(pool, 2))
        pids = database.pids()

        async def child() -> str:
            for number in range(50):
                async with pool.connection(5) as conn:
                    assert await scalar(conn, "select %s::int + 1000", number) == number + 1000
            await pool.close()
            return "fine"

        async def parent() -> None:
            while not done:
                async with pool.connection(5) as conn:
                    assert await scalar(conn, "select 7") == 7
                await sleep(0.001)

        from tests.support.aio import spawn

        done: list[str] = []
        using = spawn(parent)
        done.append(await in_child(child))
        await using.result()
        assert done == ["fine"]
        assert database.pids() == pids
        assert not cuts(pool)


async def test_a_child_that_just_exits_does_not_disturb_its_parent(
    make: Any, database: Database
) -> None:
    async with make(3) as pool:
        await pool.wait(10)
        await eventually(lambda: is_whole(pool, 3))
        pids = database.pids()
        conn = await pool.getconn()

        async def child() -> str:
            pool.__del__()
            return "gone"

        assert await in_child(child) == "gone"
        assert await scalar(conn, "select 1") == 1
        await pool.putconn(conn)
        await sleep(0.1)
        await pool.check()
        assert database.pids() == pids
        assert not cuts(pool)


async def test_a_connection_lent_when_its_process_forked_gives_the_child_a_clean_error(
    make: Any, database: Database
) -> None:
    async with make(2) as pool:
        await pool.wait(10)
        conn = await pool.getconn()

        async def child() -> str:
            try:
                await conn.execute("select 1")
            except psycopg.OperationalError:
                pass
            else:
                return "the parent's session was used"
            try:
                await pool.putconn(conn)
            except ValueError:
                pass  # it is not of the child's pool
            async with pool.connection(5) as own:
                assert own is not conn
                return str(await scalar(own, "select 'fine'"))

        assert await in_child(child) == "fine"
        assert await scalar(conn, "select pg_backend_pid()") in database.pids()
        await pool.putconn(conn)
        await eventually(lambda: is_whole(pool, 2))
        assert not cuts(pool)


async def test_a_block_around_a_fork_ends_in_the_child_without_lending_what_it_inherited(
    make: Any, database: Database
) -> None:
    async with make(1) as pool:
        await pool.wait(10)
        lease = pool.connection(5)
        inherited = await lease.__aenter__()

        async def child() -> str:
            async with pool.connection(5) as own:
                await scalar(own, "select 1")
            await lease.__aexit__(None, None, None)
            async with pool.connection(5) as own:
                assert own is not inherited
                return str(await scalar(own, "select 'fine'"))

        assert await in_child(child) == "fine"
        assert await scalar(inherited, "select 1") == 1
        await lease.__aexit__(None, None, None)
        await eventually(lambda: is_whole(pool, 1))
        assert not cuts(pool)


async def test_a_child_may_close_the_pool_it_never_used(make: Any, database: Database) -> None:
    async with make(2) as pool:
        await pool.wait(10)
        await eventually(lambda: is_whole(pool, 2))
        pids = database.pids()

        async def child() -> str:
            await pool.close()
            return "closed"

        assert await in_child(child) == "closed"
        await request(pool, 5)
        assert database.pids() == pids
        assert not cuts(pool)


async def test_the_parents_watch_goes_on_after_a_fork(make: Any, database: Database) -> None:
    async with make(2) as pool:
        await pool.wait(10)
        await eventually(lambda: is_whole(pool, 2))

        async def child() -> str:
            await request(pool, 5)
            await pool.close()
            return "fine"

        assert await in_child(child) == "fine"
        database.kill(*database.pids())
        await eventually(lambda: sum(cuts(pool).values()) == 2, timeout=1)
        await eventually(lambda: is_whole(pool, 2))
