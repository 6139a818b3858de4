"""Deaths are seen when they happen, by the watch or by a look, and their reasons are known."""

from __future__ import annotations

from statistics import median
from time import monotonic
from typing import Any

import pytest

from everpool.lab import FIN, RST, Answer, FaultProxy, Hold, Style, fatal
from everpool.lab.frames import error_response, ready_for_query
from tests.aio.defences.measure import PING, at_rest, best_of, cuts, is_whole, states
from tests.support.aio import eventually, scalar, sleep, spawn
from tests.support.database import Database

pytestmark = pytest.mark.anyio

REASONS = ["57P05", "57P01", "57P02", "08P01", "25P03", "53300", "XX000"]


@pytest.mark.parametrize("style", [FIN, RST, fatal("57P05")], ids=str)
async def test_a_hang_up_is_seen_within_50_ms_and_the_replacement_needs_no_caller(
    make: Any, proxy: FaultProxy, style: Style, figure: Any
) -> None:
    async with make(3) as pool:
        await pool.wait(10)

        async def until_seen() -> float:
            delays = []
            for _ in range(5):
                await eventually(lambda: is_whole(pool, 3))
                seen = len(pool.snapshot().deaths)
                proxy.cut(style, link=proxy.links()[0].number)
                await eventually(lambda seen=seen: len(pool.snapshot().deaths) > seen, every=0.0005)
                delays.append(monotonic() - proxy.stats().cuts[-1].at)
            return median(delays)

        figure("hang-up seen after, s", await best_of(until_seen, 0.05), 0.05)
        assert pool.get_stats().get("requests_num", 0) == 0
        await eventually(lambda: is_whole(pool, 3))


@pytest.mark.parametrize("sqlstate", REASONS)
async def test_the_reason_of_a_death_is_known(make: Any, proxy: FaultProxy, sqlstate: str) -> None:
    async with make(1) as pool:
        await pool.wait(10)
        proxy.cut(fatal(sqlstate, "so it goes"))
        await eventually(lambda: cuts(pool) == {f"FATAL {sqlstate}": 1})
        death = pool.snapshot().deaths[0]
        assert not death.lent
        assert 0 <= death.silent_for <= death.age < 10
        assert (death.number, death.kind) == (1, f"FATAL {sqlstate}")  # kind: without the words


@pytest.mark.parametrize("sqlstate", ["57P01", "57P05"])
async def test_the_reason_of_a_death_is_known_when_it_comes_with_the_end_in_answer_to_a_ping(
    make: Any, proxy: FaultProxy, sqlstate: str
) -> None:
    async with make(10) as pool:
        await pool.wait(10)
        farewell = Answer(error_response(sqlstate, "so it goes"), FIN)
        rules = [proxy.on(PING, farewell, link=link.number) for link in proxy.links()]
        await pool.check()
        await eventually(lambda: sum(rule.hits for rule in rules) == 10)
        await eventually(lambda: cuts(pool) == {f"FATAL {sqlstate}": 10})
        await eventually(lambda: is_whole(pool, 10))


@pytest.mark.parametrize("style", [FIN, RST], ids=["FIN", "RST"])
async def test_an_end_without_words_is_told_as_what_it_was(
    make: Any, proxy: FaultProxy, style: Style
) -> None:
    async with make(2) as pool:
        await pool.wait(10)
        proxy.cut(style)
        await eventually(lambda: cuts(pool) == {str(style).upper(): 2})


async def test_a_backend_terminated_by_the_administrator_is_known_as_such(
    make: Any, database: Database
) -> None:
    async with make(1) as pool:
        await pool.wait(10)
        database.kill(*database.pids())
        await eventually(lambda: any("57P01" in cause for cause in cuts(pool)))
        await eventually(lambda: is_whole(pool, 1))


async def test_a_death_under_its_borrower_is_told_with_its_reason(
    make: Any, database: Database
) -> None:
    async with make(1) as pool:
        with pytest.raises(Exception, match="terminating connection"):
            async with pool.connection() as conn:
                database.kill(conn.info.backend_pid)
                await conn.execute("select 1")
        await eventually(lambda: any("57P01" in cause for cause in cuts(pool)))
        assert pool.snapshot().deaths[-1].lent
        await eventually(lambda: is_whole(pool, 1))


async def test_a_connection_that_dies_while_lent_is_replaced_at_once(
    make: Any, proxy: FaultProxy
) -> None:
    async with make(1) as pool:
        conn = await pool.getconn()
        proxy.cut(RST)
        # Its place is free as soon as its death is seen: the next caller needs not wait for its return.
        other = await pool.getconn(timeout=5)
        assert await scalar(other, "select 1") == 1
        assert states(pool)["corpse"] == 1
        await pool.putconn(conn)
        await pool.putconn(other)
        await eventually(lambda: is_whole(pool, 1))


async def test_a_look_keeps_a_dead_connection_from_being_lent_without_the_watch(
    make: Any, proxy: FaultProxy, database: Database
) -> None:
    async with make(3, watch=False, verify_after=60.0) as pool:
        await pool.wait(10)
        await eventually(lambda: is_whole(pool, 3))
        old = database.pids()
        await sleep(0.1)
        proxy.cut(FIN)
        await sleep(0.2)
        assert at_rest(pool) == 3  # nobody watched
        async with pool.connection() as conn:
            assert await scalar(conn, "select pg_backend_pid()") not in old
        assert pool.get_stats()["connections_lost"] == 3


async def test_a_look_is_enough_if_the_watch_has_not_come_to_tell_yet(
    make: Any, proxy: FaultProxy
) -> None:
    async with make(4, verify_after=60.0) as pool:
        await pool.wait(10)
        for style in (FIN, RST):
            await eventually(lambda: is_whole(pool, 4))
            await sleep(0.1)
            proxy.cut(style)
            async with pool.connection() as conn:
                assert await scalar(conn, "select 1") == 1


async def test_a_connection_that_has_been_told_to_go_is_not_lent_although_it_has_not_hung_up_yet(
    make: Any, proxy: FaultProxy, database: Database
) -> None:
    async with make(1, 2, verify_after=60.0) as pool:
        await pool.wait(10)
        await eventually(lambda: is_whole(pool, 1))
        (old,) = database.pids()
        await sleep(0.1)
        # A backend takes some milliseconds from its last word to its end.
        (link,) = proxy.links()
        rule = proxy.on(PING, Answer(b"", FIN), link=link.number)
        proxy.inject(error_response("57P01", "so it goes"))
        async with pool.connection() as conn:
            assert await scalar(conn, "select pg_backend_pid()") != old
        assert rule.hits == 1
        await eventually(lambda: cuts(pool) == {"FATAL 57P01": 1})


async def test_a_fatal_message_that_ends_nothing_kills_nothing(
    make: Any, proxy: FaultProxy, database: Database
) -> None:
    async with make(2) as pool:
        await pool.wait(10)
        await eventually(lambda: is_whole(pool, 2))
        pids = database.pids()
        proxy.inject(error_response("57P05", "so it goes") + ready_for_query())
        await sleep(0.1)
        await pool.check()
        async with pool.connection() as conn:
            assert await scalar(conn, "select pg_backend_pid()") in pids
        await eventually(lambda: is_whole(pool, 2))
        assert database.pids() == pids
        assert not cuts(pool)


async def test_an_answer_that_is_not_the_pings_is_not_taken_for_it(
    make: Any, proxy: FaultProxy
) -> None:
    """The answer to the ping would be taken for that to the borrower's query."""
    async with make(1) as pool:
        await pool.wait(10)
        (link,) = proxy.links()
        rule = proxy.on(PING, Hold(), link=link.number)
        check = spawn(pool.check)
        await eventually(lambda: rule.hits)
        proxy.inject(error_response("57014", "so it goes", severity="ERROR") + ready_for_query())
        await sleep(0.05)
        rule.release()
        await check.result()
        for number in range(5):
            async with pool.connection() as conn:
                assert await scalar(conn, "select %s::int", number) == number
        await eventually(lambda: is_whole(pool, 1))


async def test_the_watch_sees_the_death_of_a_connection_that_got_a_used_descriptor(
    make: Any, proxy: FaultProxy
) -> None:
    async with make(1) as pool:
        for _ in range(20):
            conn = await pool.getconn()
            descriptor = conn.pgconn.socket
            await conn.close()
            await pool.putconn(conn)
            async with pool.connection() as conn:
                again = conn.pgconn.socket == descriptor
            if again:
                break
        assert again, "no descriptor was used again in twenty connects"
        await eventually(lambda: is_whole(pool, 1))
        before = len(pool.snapshot().deaths)
        proxy.cut(RST)
        await eventually(lambda: len(pool.snapshot().deaths) == before + 1, timeout=1)
        assert pool.snapshot().deaths[-1].cause == "RST"
        await eventually(lambda: is_whole(pool, 1))


async def test_a_borrower_who_closes_its_connection_hurts_no_other(
    make: Any, proxy: FaultProxy
) -> None:
    async with make(3) as pool:
        await pool.wait(10)
        for _ in range(10):
            async with pool.connection() as conn:
                await conn.close()
            async with pool.connection() as conn:
                assert await scalar(conn, "select 1") == 1
        await eventually(lambda: is_whole(pool, 3))
        assert proxy.stats().open == 3
