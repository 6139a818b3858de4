"""`timeout` bounds the whole of a checkout, whatever the network does."""

from __future__ import annotations

import gc
from time import monotonic
from typing import Any

import pytest

from everpool import PoolTimeout
from everpool.lab import SILENCE, CutBefore, FaultProxy, Message
from tests.aio.defences.measure import best_of, is_whole, states
from tests.support.aio import eventually, gather, scalar, sleep, spawn

if False:  # ASYNC
    import signal
    import threading

pytestmark = pytest.mark.anyio


async def hang(conn: Any) -> None:
    """Wait on the connection for what never comes."""
    await conn.execute("select pg_sleep(60)")


async def refused_after(pool: Any, timeout: float) -> float:
    """How long a checkout took that must end in PoolTimeout."""
    start = monotonic()
    with pytest.raises(PoolTimeout):
        async with pool.connection(timeout=timeout):
            pass
    took = monotonic() - start
    assert took >= timeout
    return took


async def check_deadline(pool: Any, figure: Any, timeout: float = 0.5) -> None:
    """The strict bound is for two seconds; in the shorter runs there is room for a busy machine."""
    most = timeout + (0.05 if timeout == 2 else 0.1)
    took = await best_of(lambda: refused_after(pool, timeout), most)
    figure(f"PoolTimeout for timeout={timeout:g}, s", took, most)


@pytest.mark.parametrize("timeout", [0.5, 2])
async def test_the_deadline_holds_while_everything_is_silent(
    make: Any, proxy: FaultProxy, timeout: float, figure: Any
) -> None:
    async with make(4) as pool:
        await pool.wait(10)
        await sleep(0.6)
        proxy.silence()
        await check_deadline(pool, figure, timeout)
        # What is silent is lent to nobody who comes later either.
        await check_deadline(pool, figure)
        proxy.heal()


@pytest.mark.parametrize("timeout", [0.5, 2])
async def test_the_deadline_holds_while_connects_hang(
    make: Any, proxy: FaultProxy, timeout: float, figure: Any
) -> None:
    proxy.hang()
    async with make(4) as pool:
        await check_deadline(pool, figure, timeout)
        proxy.heal()
        await eventually(lambda: is_whole(pool, 4))


@pytest.mark.parametrize("timeout", [0.5, 2])
async def test_the_deadline_holds_while_a_check_waits_on_its_connection(
    make: Any, timeout: float, figure: Any
) -> None:
    async with make(2, check=hang) as pool:
        await pool.wait(10)
        await check_deadline(pool, figure, timeout)
        pool._check = None
        pool._read_fast_paths()
        await eventually(lambda: is_whole(pool, 2))


async def test_the_deadline_holds_while_a_check_waits_on_a_silent_connection(
    make: Any, proxy: FaultProxy, figure: Any
) -> None:
    async with make(2, check=make_check()) as pool:
        await pool.wait(10)
        proxy.silence()
        await check_deadline(pool, figure)
        proxy.heal()


def make_check() -> Any:
    async def check(conn: Any) -> None:
        await conn.execute("select 1")

    return check


if True:  # ASYNC

    async def test_the_deadline_holds_while_a_check_waits_for_something_else(
        make: Any, figure: Any
    ) -> None:
        async def check(conn: Any) -> None:
            await sleep(60)

        async with make(2, check=check) as pool:
            await pool.wait(10)
            await check_deadline(pool, figure)
            await eventually(lambda: is_whole(pool, 2))


async def test_the_deadline_holds_while_all_connections_are_lent(make: Any, figure: Any) -> None:
    async with make(1) as pool:
        async with pool.connection():
            await check_deadline(pool, figure)


async def test_many_callers_with_different_deadlines_each_get_their_own(
    make: Any, proxy: FaultProxy
) -> None:
    proxy.hang()
    async with make(2) as pool:
        timeouts = [0.7, 0.3, 0.5, 0.2, 0.6, 0.4]
        waits = [spawn(refused_after, pool, timeout) for timeout in timeouts]
        for timeout, took in zip(timeouts, await gather(*waits), strict=True):
            assert took < timeout + 0.15
        assert pool.snapshot().waiting == 0
        proxy.heal()


async def test_a_deadline_that_has_passed_is_refused_without_touching_a_connection(
    make: Any,
) -> None:
    async with make(1) as pool:
        await pool.wait(10)
        with pytest.raises(PoolTimeout):
            await pool.getconn(timeout=0)
        assert is_whole(pool, 1)


async def test_a_connection_that_comes_too_late_for_its_caller_stays_in_the_pool(
    make: Any, proxy: FaultProxy
) -> None:
    proxy.hang()
    async with make(1) as pool:
        await refused_after(pool, 0.2)
        proxy.heal()
        await eventually(lambda: is_whole(pool, 1))
        assert len(proxy.links()) == 1


async def test_an_attempt_past_its_patience_is_disowned_and_one_more_is_made(
    make: Any, proxy: FaultProxy, figure: Any
) -> None:
    """The first connect is accepted and never answered; those after it work."""
    proxy.on(Message("client"), CutBefore(SILENCE))
    start = monotonic()
    async with make(1, 2) as pool:
        async with pool.connection(timeout=10) as conn:
            assert await scalar(conn, "select 1") == 1
        # Before the first success nobody knows how long a connect takes: two seconds are allowed.
        figure("served although the first attempt hangs, s", monotonic() - start, 2.5)
        assert states(pool)["disowned"] <= 1


async def test_a_connect_that_hangs_ends_at_its_limit(make: Any, proxy: FaultProxy) -> None:
    proxy.hang()
    async with make(1, connect_timeout=2) as pool:
        start = monotonic()
        await eventually(lambda: pool.get_stats().get("connections_errors"), timeout=10)
        assert 1.9 < monotonic() - start < 4.5
        assert pool.snapshot().trouble == "silent"
        proxy.heal()
        await eventually(lambda: is_whole(pool, 1))


async def test_closing_does_not_wait_for_connects_that_hang_and_leaves_none_behind(
    make: Any, proxy: FaultProxy
) -> None:
    gc.disable()  # nobody else cleans up
    try:
        proxy.hang()
        pool = make(4, 4)
        await pool.open()
        await eventually(lambda: proxy.stats().connecting)
        start = monotonic()
        await pool.close()
        assert monotonic() - start < 1
        await eventually(lambda: not proxy.links())
    finally:
        gc.enable()


async def test_what_is_returned_to_a_closed_pool_waits_for_no_answer(
    make: Any, proxy: FaultProxy
) -> None:
    pool = make(1, kwargs={"autocommit": False})
    await pool.open(wait=True)
    conn = await pool.getconn()
    await conn.execute("select 1")
    await pool.close()
    proxy.cut(SILENCE)
    start = monotonic()
    await pool.putconn(conn)
    assert monotonic() - start < 1
    assert conn.closed
    await eventually(lambda: not pool._machine.slots)


async def test_a_query_over_silence_that_is_cancelled_ends_soon_and_its_connection_is_replaced(
    make: Any, proxy: FaultProxy, figure: Any
) -> None:
    if True:  # ASYNC

        async def borrow() -> None:
            async with pool.connection() as conn:
                started.append(conn)
                await hang(conn)

        async with make(2) as pool:
            await pool.wait(10)
            started: list[Any] = []
            worker = spawn(borrow)
            await eventually(lambda: started)
            await sleep(0.05)
            proxy.silence()
            start = monotonic()
            worker.cancel()
            await eventually(lambda: worker.done, every=0.001)
            figure("cancelled query over silence, s", monotonic() - start, 0.4)
            proxy.heal()
            await eventually(lambda: is_whole(pool, 2))
            assert started[0].closed
    else:
        pressed: list[float] = []

        def press() -> None:
            proxy.silence()
            pressed.append(monotonic())
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

        with make(2) as pool:
            pool.wait(10)
            threading.Timer(0.1, press).start()
            with pytest.raises(KeyboardInterrupt):
                with pool.connection() as conn:
                    hang(conn)
            figure("interrupted query over silence, s", monotonic() - pressed[0], 0.6)
            proxy.heal()
            eventually(lambda: is_whole(pool, 2))
            assert conn.closed


async def test_a_query_that_is_cancelled_on_a_sound_connection_keeps_it(
    make: Any, proxy: FaultProxy
) -> None:
    if True:  # ASYNC

        async def borrow() -> None:
            async with pool.connection() as conn:
                started.append(conn)
                await hang(conn)

        async with make(1) as pool:
            started: list[Any] = []
            worker = spawn(borrow)
            await eventually(lambda: started)
            await sleep(0.05)
            worker.cancel()
            await eventually(lambda: worker.done)
            await eventually(lambda: is_whole(pool, 1))
            async with pool.connection() as conn:
                assert conn is started[0]
                assert await scalar(conn, "select 1") == 1
