"""What happens is told: to listeners, in order, and to the log, folded; nobody who listens harms the pool."""

from __future__ import annotations

import gc
import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from time import sleep as block
from typing import Any

import pytest

from everpool import events, subscriptions
from everpool.lab import FIN, FaultProxy, fatal
from everpool.logs import JSONFormatter
from tests.aio.defences.measure import at_rest, is_whole, request
from tests.support.aio import eventually, gather, scalar, sleep, spawn

if True:  # ASYNC
    import asyncio

pytestmark = pytest.mark.anyio


async def test_a_listener_hears_a_cut_and_its_replacement_in_order(
    make: Any, proxy: FaultProxy
) -> None:
    async with make(3) as pool:
        await pool.wait(10)
        heard: list[Any] = []
        with pool.subscribe(heard.append) as subscription:
            before = monotonic()
            proxy.cut(fatal("57P05", "idle for too long"))
            await eventually(
                lambda: sum(isinstance(h, events.Opened) for h in heard) == 3 and is_whole(pool, 3)
            )
        found = [h for h in heard if isinstance(h, events.Cut)]
        assert len(found) == 3
        for cut in found:
            assert cut.cause.kind == "FATAL 57P05" and cut.cause.text == "idle for too long"
            assert not cut.lent and before <= cut.at <= monotonic()
            assert 0 <= cut.silent_for <= cut.age < 10
        times = [h.at for h in heard]
        assert times == sorted(times)
        assert subscription.dropped == subscription.failures == 0
        assert len({h.number for h in heard if isinstance(h, events.Opened)}) == 3


async def test_only_what_was_asked_for_is_heard(make: Any, proxy: FaultProxy) -> None:
    async with make(2) as pool:
        await pool.wait(10)
        ends: list[Any] = []
        all_but_loans: list[Any] = []
        pool.subscribe(ends.append, events.Cut, events.Closed)
        pool.subscribe(all_but_loans.append)
        loans: list[Any] = []  # somebody else asks for them
        pool.subscribe(loans.append, events.Lent)
        await request(pool)
        await eventually(lambda: loans)
        proxy.cut(FIN)
        await eventually(lambda: len(ends) == 2 and is_whole(pool, 2))
    await eventually(lambda: any(isinstance(h, events.Closed) for h in ends))
    assert {type(h) for h in ends} == {events.Cut, events.Closed}
    assert not {type(h) for h in all_but_loans} & {events.Lent, events.Returned}
    assert {events.Opened, events.Cut} <= {type(h) for h in all_but_loans}


async def test_loans_are_told_to_who_asks_and_then_no_more(make: Any) -> None:
    async with make(2) as pool:
        await pool.wait(10)
        await request(pool)
        assert pool._direct and pool._plain
        heard: list[Any] = []
        subscription = pool.subscribe(heard.append, events.Lent, events.Returned)
        assert not pool._direct and not pool._plain
        for _ in range(3):
            await request(pool)
        conn = await pool.getconn()
        await sleep(0.02)
        await pool.putconn(conn)
        await eventually(lambda: len(heard) == 8)
        assert [type(h) for h in heard] == [events.Lent, events.Returned] * 4
        assert heard[-1].held >= 0.02 and heard[-1].number == heard[-2].number
        assert all(0 <= h.waited < 1 for h in heard[::2])
        subscription.close()
        await request(pool)  # the first one notices
        assert pool._direct and pool._plain
        await sleep(0.05)
        assert len(heard) == 8


async def test_a_listener_that_raises_goes_on_hearing_and_is_told_of_rarely(
    make: Any, proxy: FaultProxy, caplog: Any
) -> None:
    caplog.set_level("ERROR")
    async with make(1) as pool:
        await pool.wait(10)
        heard = []

        def listener(happening: Any) -> None:
            heard.append(happening)
            raise ValueError("the listener's own fault")

        subscription = pool.subscribe(listener, events.Cut)
        for number in range(9):
            await eventually(lambda: is_whole(pool, 1))
            proxy.cut(FIN)
            await eventually(lambda number=number: len(heard) == number + 1)
        await eventually(lambda: subscription.failures == 9)
        told = [r for r in caplog.records if "a listener raised" in r.getMessage()]
        assert len(told) == 4  # the 1st, 2nd, 4th and 8th time
        assert "ValueError" in (told[0].exc_text or str(told[0].exc_info))


async def test_a_slow_listener_delays_nobody_and_what_it_misses_is_counted(
    make: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(subscriptions, "CAPACITY", 20)
    async with make(2) as pool:
        await pool.wait(10)
        release = threading.Event()
        slow: list[Any] = []
        swift: list[Any] = []

        def dawdle(happening: Any) -> None:
            release.wait(10)
            slow.append(happening)

        subscription = pool.subscribe(dawdle, events.Lent)
        pool.subscribe(swift.append, events.Lent)
        longest = 0.0
        for count in range(100):
            longest = max(longest, (await request(pool))[1])
            await eventually(lambda count=count: len(swift) == count + 1)
        assert longest < 0.5
        assert subscription.dropped == 100 - 21  # one in its hands, twenty in its queue
        assert pool.snapshot().dropped == 79
        release.set()
        await eventually(lambda: len(slow) == 21)
        assert slow == swift[:21]


if True:  # ASYNC

    async def test_a_coroutine_function_is_called_in_the_loop(make: Any, proxy: FaultProxy) -> None:
        async with make(2) as pool:
            await pool.wait(10)
            heard = []

            async def listener(happening: Any) -> None:
                await asyncio.sleep(0.01)
                heard.append((happening, asyncio.get_running_loop(), threading.get_ident()))

            pool.subscribe(listener, events.Cut)
            proxy.cut(FIN)
            await eventually(lambda: len(heard) == 2)
            assert {loop for _, loop, _ in heard} == {asyncio.get_running_loop()}
            assert {ident for _, _, ident in heard} == {threading.get_ident()}

    async def test_a_plain_function_that_blocks_does_not_block_the_loop(
        make: Any, proxy: FaultProxy
    ) -> None:
        async with make(1) as pool:
            await pool.wait(10)
            entered = threading.Event()

            def listener(happening: Any) -> None:
                entered.set()
                block(0.5)

            pool.subscribe(listener, events.Cut)
            proxy.cut(FIN)
            await eventually(entered.is_set)
            start = monotonic()
            for _ in range(10):
                await asyncio.sleep(0.001)
            assert monotonic() - start < 0.3

    async def test_a_coroutine_hears_of_the_end_before_it_has_come(make: Any) -> None:
        pool, heard = make(1), []

        async def listener(happening: Any) -> None:
            await asyncio.sleep(0.01)
            heard.append(type(happening))

        await pool.open(wait=True)
        pool.subscribe(listener, events.Closed, events.Retired)
        conn = await pool.getconn()
        await pool.close()
        assert heard == [events.Closed]
        await pool.putconn(conn)  # the pool has no background any more
        await eventually(lambda: heard == [events.Closed, events.Retired])

    async def test_a_coroutine_may_close_the_pool_that_calls_it(
        make: Any, proxy: FaultProxy
    ) -> None:
        async with make(1) as pool:
            await pool.wait(10)
            took: list[float] = []

            async def listener(happening: Any) -> None:
                before = monotonic()
                await pool.close()
                took.append(monotonic() - before)

            pool.subscribe(listener, events.Cut)
            proxy.cut(FIN)
            await eventually(lambda: took)
        assert took[0] < 0.5

    async def test_a_coroutine_whose_work_is_cancelled_goes_on_hearing(
        make: Any, proxy: FaultProxy
    ) -> None:
        async with make(1) as pool:
            await pool.wait(10)
            heard = []

            async def listener(happening: Any) -> None:
                heard.append(happening)
                work = asyncio.ensure_future(asyncio.sleep(10))
                work.cancel()
                await work

            subscription = pool.subscribe(listener, events.Cut)
            for number in range(3):
                await eventually(lambda: is_whole(pool, 1))
                proxy.cut(FIN)
                await eventually(lambda number=number: len(heard) == number + 1)
            assert subscription.failures == 3

    async def test_a_listeners_task_that_is_cancelled_is_replaced(
        make: Any, proxy: FaultProxy
    ) -> None:
        async with make(1) as pool:
            await pool.wait(10)
            tasks: list[Any] = []

            async def listener(happening: Any) -> None:
                tasks.append(asyncio.current_task())
                await asyncio.sleep(0.2)

            pool.subscribe(listener, events.Cut)
            for number in range(2):
                await eventually(lambda: is_whole(pool, 1))
                proxy.cut(FIN)
                await eventually(lambda number=number: len(tasks) == number + 1)
                tasks[-1].cancel()
                await eventually(tasks[-1].done)


async def test_who_asks_for_all_kinds_hears_of_loans_too(make: Any) -> None:
    async with make(1) as pool:
        await pool.wait(10)
        heard: list[Any] = []
        pool.subscribe(heard.append, events.Happening)
        await request(pool)
        await eventually(lambda: {events.Lent, events.Returned} <= {type(h) for h in heard})


async def test_a_pool_that_is_not_open_has_nothing_to_tell_of_its_state(make: Any) -> None:
    pool = make(1)
    pool.max_idle = 10.0
    await pool.resize(1, 2)
    assert pool.snapshot().happenings == []
    assert pool.health().state is events.Condition.NEW
    await pool.open(wait=True)
    assert pool.health().state is events.Condition.UP
    await pool.close()
    changes = [h for h in pool.snapshot().happenings if isinstance(h, events.StateChanged)]
    assert [(c.before, c.after) for c in changes] == [("starting", "up"), ("up", "closed")]


async def test_what_traces_may_fail_and_costs_no_connection(make: Any) -> None:
    async with make(1, max_size=1) as pool:
        await pool.wait(10)

        @contextmanager
        def around() -> Iterator[Any]:
            yield lambda number: 1 / 0

        pool.trace(around)
        kept = []
        for _ in range(2):
            with pytest.raises(ZeroDivisionError) as caught:
                await pool.getconn(timeout=1.0)
            kept.append(caught)  # its frames would hold the connection
        pool.trace(None)
        await request(pool)
        assert pool.snapshot().opened == 1


async def test_a_log_that_blocks_costs_one_thread(make: Any) -> None:
    stuck, goes_on = threading.Event(), threading.Event()
    lines = []

    class Stuck(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if False:  # ASYNC
                stuck.set()
                goes_on.wait(20)
            lines.append(record.getMessage())

    logger = logging.getLogger("everpool.pool")
    handler, level = Stuck(), logger.level
    async with make(1) as pool:
        await pool.wait(10)
        await sleep(0.3)
        logger.addHandler(handler)
        logger.setLevel("INFO")
        try:
            for _ in range(6):
                await pool.drain()
                await sleep(0.15)
            threads = [t for t in threading.enumerate() if t.name.startswith(f"{pool.name}-list")]
            assert len(threads) <= 1
            goes_on.set()
            await eventually(lambda: sum("are to be replaced" in line for line in lines) == 6)
        finally:
            goes_on.set()
            logger.removeHandler(handler)
            logger.setLevel(level)


@pytest.mark.parametrize(
    ("listener", "kinds"), [(3, ()), (print, (int,)), (print, (events.Closed(0.0),))]
)
async def test_what_cannot_listen_is_refused(make: Any, listener: Any, kinds: Any) -> None:
    with pytest.raises(TypeError):
        make(1).subscribe(listener, *kinds)


async def test_a_dropped_pool_takes_its_listeners_threads_with_it(make: Any) -> None:
    pool = make(1)
    await pool.open(wait=True)
    heard: list[Any] = []
    pool.subscribe(heard.append)
    with_listener = pool.name
    await pool.check()
    await eventually(lambda: heard)
    del pool
    gc.collect()
    await eventually(
        lambda: not [t for t in threading.enumerate() if t.name.startswith(with_listener)],
        timeout=2,
    )


async def test_twenty_cuts_are_one_line(make: Any, proxy: FaultProxy, caplog: Any) -> None:
    caplog.set_level("INFO", logger="everpool")
    async with make(20) as pool:
        await pool.wait(20)
        await eventually(lambda: at_rest(pool) == 20)
        await sleep(0.3)
        caplog.clear()
        proxy.cut(fatal("57P05", "idle for too long"))
        await eventually(lambda: "cut" in caplog.text)
        await eventually(lambda: at_rest(pool) == 20)
        await sleep(0.3)
    lines = [r for r in caplog.records if getattr(r, "event", "") == "connection.cut"]
    assert sum(r.count for r in lines) == 20 and len(lines) <= 2
    line = max(lines, key=lambda r: r.count)
    assert line.name == "everpool.connection" and line.levelno == logging.INFO
    assert f"{line.count} connections were cut while idle" in line.getMessage()
    assert "57P05 idle for too long" in line.getMessage() and "of silence" in line.getMessage()
    assert (line.pool, line.cause, line.sqlstate) == (pool.name, "FATAL", "57P05")


async def test_an_outage_does_not_flood_the_log(make: Any, proxy: FaultProxy, caplog: Any) -> None:
    caplog.set_level("INFO", logger="everpool")
    async with make(4) as pool:
        await pool.wait(10)
        proxy.refuse()
        proxy.cut(FIN)
        await eventually(lambda: not at_rest(pool))
        waiters = [spawn(request, pool, 20) for _ in range(4)]
        await sleep(4)
        lines = [r for r in caplog.records if getattr(r, "event", "") == "connection.open_failed"]
        attempts = pool.snapshot().open_failed
        proxy.accept()
        await gather(*waiters)
        await eventually(lambda: is_whole(pool, 4))
    assert attempts >= 5
    assert 1 <= len(lines) <= 4
    assert sum(r.count for r in lines) <= attempts
    states = [r.getMessage() for r in caplog.records if getattr(r, "event", "") == "pool.state"]
    assert "is down" in "".join(states) and "is up" in states[-1] + states[-2]


async def test_the_log_as_json(make: Any, proxy: FaultProxy) -> None:
    lines = []

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(json.loads(self.format(record)))

    logger = logging.getLogger("everpool")
    handler, level = Keeper(), logger.level
    handler.setFormatter(JSONFormatter())
    logger.addHandler(handler)
    logger.setLevel("INFO")
    try:
        async with make(1) as pool:
            await pool.wait(10)
            proxy.cut(fatal("57P01", 'so "it" goes\n'))
            await eventually(lambda: any(line.get("event") == "connection.cut" for line in lines))
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    (line,) = [line for line in lines if line.get("event") == "connection.cut"]
    assert line["level"] == "INFO" and line["pool"] == pool.name and line["count"] == 1
    assert line["time"].endswith("Z") and "T" in line["time"]
    assert (line["cause"], line["sqlstate"], line["lent"]) == ("FATAL", "57P01", False)
    assert isinstance(line["number"], int) and line["age"] >= 0


async def test_closing_tells_it_to_log_and_listeners_before_it_returns(
    make: Any, caplog: Any
) -> None:
    caplog.set_level("INFO", logger="everpool")
    pool = make(1)
    await pool.open(wait=True)
    heard: list[Any] = []
    pool.subscribe(heard.append)
    await pool.close()
    assert "the pool is closed" in caplog.text
    await eventually(lambda: any(isinstance(h, events.Closed) for h in heard), timeout=1)


async def test_a_snapshot_counts_what_happened(make: Any, proxy: FaultProxy) -> None:
    async with make(2) as pool:
        await pool.wait(10)
        for _ in range(5):
            await request(pool)
        async with pool.connection() as conn:
            await scalar(conn, "select pg_sleep(0.02)")
        proxy.cut(FIN)
        await eventually(lambda: len(pool.snapshot().deaths) == 2 and is_whole(pool, 2))
        pool.pop_stats()
        snapshot = pool.snapshot()
        assert (snapshot.wait.count, snapshot.use.count) == (6, 6)
        assert snapshot.use.counts[3] >= 1 and snapshot.use.sum >= 0.02
        assert 0.01 < snapshot.use.quantile(0.99) <= 0.05
        assert snapshot.connect.count == snapshot.opened == 4
        assert snapshot.cuts == {"FIN": 2} and len(snapshot.connections) == 2
        assert all(c.state == "idle" and c.expires_in > 3000 for c in snapshot.connections)
        origins = {s.name: (s.value, s.origin) for s in snapshot.settings}
        assert origins["min_size"] == (2, "given") and origins["keepalive"] == (45.0, "default")
        pool.max_idle = 123.0
        assert {s.name: s.origin for s in pool.snapshot().settings}["max_idle"] == "changed"
        assert pool.get_stats()["requests_num"] == 0
