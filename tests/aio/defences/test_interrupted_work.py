"""Who is cancelled or interrupted over a silent path comes out soon, whatever he was waiting for."""

from __future__ import annotations

from time import monotonic
from typing import Any

import pytest

from everpool.lab import FaultProxy
from tests.aio.defences.measure import best_of, is_whole
from tests.aio.defences.test_work_deadline import (
    Path,
    commit,
    copy_in,
    copy_out,
    execute,
    fetch,
    pipeline,
    stream,
    transaction,
)
from tests.support.aio import eventually, sleep

if True:  # ASYNC
    import asyncio
else:
    import signal
    import threading

pytestmark = pytest.mark.anyio

# What is waited for: the answer that never comes.
WAITING = [
    execute,
    fetch,
    stream,
    copy_in,
    copy_out,
    pipeline,
    commit,
    transaction,
]


# What is waited for is something else: only what psycopg does on leaving finds the path silent.


async def busy(conn: Any, path: Path) -> None:
    await conn.execute("select 1")
    path.silence()
    await sleep(5)


async def busy_in_transaction(conn: Any, path: Path) -> None:
    async with conn.transaction():
        await conn.execute("select 1")
        path.silence()
        await sleep(5)


async def busy_in_pipeline(conn: Any, path: Path) -> None:
    async with conn.pipeline():
        await conn.execute("select 1")
        path.silence()
        await sleep(5)


async def busy_in_copy_in(conn: Any, path: Path) -> None:
    await conn.execute("create temp table t (x text)")
    async with conn.cursor().copy("copy t from stdin") as copy:
        await copy.write(b"x\n")
        path.silence()
        await sleep(5)


async def busy_in_copy_out(conn: Any, path: Path) -> None:
    query = "copy (select repeat('x', 1000) from generate_series(1, 20000)) to stdout"
    async with conn.cursor().copy(query) as copy:
        await copy.read()
        path.silence()
        await sleep(5)


async def busy_with_cursor(conn: Any, path: Path) -> None:
    cur = conn.cursor("c")
    try:
        async with cur:
            await cur.execute("select generate_series(1, 100)")
            path.silence()
            await sleep(5)
    finally:
        cur._closed = True  # its close was interrupted: psycopg would warn of that


BUSY = [
    busy,
    busy_in_transaction,
    busy_in_pipeline,
    busy_in_copy_in,
    busy_in_copy_out,
    busy_with_cursor,
]

AFTER = 0.1  # when the interruption comes
MOST = 0.35  # how long after it all must be over: the grace, and what a busy machine takes


@pytest.mark.parametrize("use", WAITING + BUSY)
async def test_an_interruption_over_silence_is_obeyed_soon(
    make: Any, proxy: FaultProxy, use: Any, figure: Any
) -> None:
    async def measure() -> float:
        proxy.heal()
        await eventually(lambda: is_whole(pool, 1), timeout=10)
        proxy.hang()
        path = Path(proxy)
        if True:  # ASYNC
            start = monotonic()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(AFTER):
                    async with pool.connection() as conn:
                        path.number = proxy.find(backend_pid=conn.info.backend_pid)
                        await use(conn, path)
            return monotonic() - start - AFTER
        else:
            pressed: list[float] = []

            def press() -> None:
                pressed.append(monotonic())
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

            threading.Timer(AFTER, press).start()
            with pytest.raises(KeyboardInterrupt):
                with pool.connection() as conn:
                    path.number = proxy.find(backend_pid=conn.info.backend_pid)
                    use(conn, path)
            return monotonic() - pressed[0]

    async with make(1, kwargs={}) as pool:
        # A thread hears of a key press at psycopg's next look around, a tenth of a second later.
        most = MOST + 0.1 * (not AWARE)
        figure(f"{use.__name__} over silence, interrupted, s", await best_of(measure, most), most)
        proxy.heal()


if True:  # ASYNC
    AWARE = True
else:
    AWARE = False
