"""A primary and its standby behind one name: nothing is written to the wrong one, and nobody restarts anything."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from time import monotonic
from typing import Any

import psycopg
import pytest

from everpool import AsyncNullConnectionPool
from everpool.events import OpenFailed, ServerChanged
from everpool.lab import FIN, Answer, FaultProxy, Message, PostgresServer, Standby
from everpool.lab.frames import (
    error_response,
    notice_response,
    notification_response,
    ready_for_query,
)
from tests.aio.defences.measure import at_rest, bare_connect, cuts, is_whole, request
from tests.support.aio import Event, eventually, gather, scalar, sleep, spawn

pytestmark = pytest.mark.anyio

WRITERS = 4
NAME = "db.failover.test"


def rows(server: PostgresServer) -> set[int]:
    with psycopg.connect(server.dsn) as conn:
        return {number for (number,) in conn.execute("select number from kept")}


def tell(server: PostgresServer, *statements: str) -> None:
    with psycopg.connect(server.dsn, autocommit=True) as conn:
        for statement in statements:
            conn.execute(statement)


def on_standby(pool: Any) -> int:
    return sum(bool(slot.standby) for slot in pool._machine.slots)


class Writers:
    """Programs with a plain loop around each transaction."""

    def __init__(self, pool: Any) -> None:
        self.pool = pool
        self.acknowledged: dict[int, float] = {}
        self.failures: Counter[str | None] = Counter()
        self.stop = Event()
        self._workers = [spawn(self._write, first) for first in range(WRITERS)]

    async def _write(self, first: int) -> None:
        for number in count(first, WRITERS):
            while not self.stop.is_set():
                try:
                    async with self.pool.connection(5) as conn:
                        await conn.execute(
                            "insert into kept values (%s) on conflict do nothing", (number,)
                        )
                    self.acknowledged[number] = monotonic()
                    break
                except psycopg.Error as error:
                    self.failures[error.sqlstate] += 1
                    await sleep(0.01)
            if self.stop.is_set():
                return
            await sleep(0.005)

    async def one_after(self, moment: float) -> float:
        """The seconds from a moment to the first acknowledgement after it."""
        await eventually(
            lambda: any(at > moment for at in list(self.acknowledged.values())), every=0.002
        )
        return min(at for at in list(self.acknowledged.values()) if at > moment) - moment

    async def end(self) -> None:
        self.stop.set()
        await gather(*self._workers)


async def test_no_write_is_lost_or_goes_astray_when_a_standby_takes_over_and_the_old_primary_returns(
    make: Any, figure: Any
) -> None:
    with (
        PostgresServer({"synchronous_standby_names": "standby1"}) as old,
        old.standby() as new,
        FaultProxy(old.host, old.port) as proxy,
    ):
        tell(old, "create table kept (number int primary key)")
        told: list[ServerChanged] = []
        pool = make(WRITERS, conninfo=proxy.via(old.dsn), kwargs={})
        async with pool:
            pool.subscribe(told.append, ServerChanged)
            writers = Writers(pool)
            await eventually(lambda: len(writers.acknowledged) > 20)

            # The machine dies; the name leads to the standby, which is promoted later.
            proxy.retarget(new.host, new.port)
            old.crash()
            await eventually(lambda: pool._machine.writes)
            await eventually(lambda: on_standby(pool) == 0)
            await sleep(0.5)
            assert "standby" in (pool.snapshot().last_error or "")
            assert writers.failures["25006"] <= WRITERS  # who held one when the pool learned of it
            new.promote()
            took = await writers.one_after(monotonic())
            # The attempt that came too early ends, up to 0.8 s pass, and the next one is made.
            figure("writes after the promotion, s", took, 1 + 2 * await bare_connect(new.dsn))
            assert writers.failures["25006"] <= WRITERS
            await eventually(lambda: len(told) == 1)
            change = told[0]
            assert (change.timeline_before, change.timeline, change.why) == (1, 2, "promotion")
            await eventually(lambda: at_rest(pool) + pool.snapshot().slots["lent"] == WRITERS)

            # The old primary returns, and the name leads to it once more.
            old.up()
            tell(
                old,
                "set synchronous_commit = local",
                "alter system set synchronous_standby_names = ''",
                "select pg_reload_conf()",
            )
            before = rows(old)
            proxy.retarget(old.host, old.port)
            proxy.cut(FIN)
            await eventually(lambda: "timeline 1" in (pool.snapshot().last_error or ""))
            await sleep(0.5)
            proxy.retarget(new.host, new.port)
            took = await writers.one_after(monotonic())
            most = 1 + 2 * await bare_connect(new.dsn)
            figure("writes after the name is right again, s", took, most)
            await writers.end()
            assert rows(old) == before
            assert set(writers.acknowledged) <= rows(new)
            assert len(told) == 1


@pytest.fixture(scope="module")
def primary() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        tell(server, "create table kept (number serial primary key)")
        yield server


@pytest.fixture(scope="module")
def standby(primary: PostgresServer) -> Iterator[Standby]:
    with primary.standby() as standby:
        yield standby


INSERT = "insert into kept default values"


async def insert(pool: Any) -> None:
    async with pool.connection(5) as conn:
        await conn.execute(INSERT)


@pytest.mark.parametrize("autocommit", [False, True], ids=["transaction", "autocommit"])
async def test_of_two_hosts_the_first_a_standby_a_writer_finds_the_primary_after_one_refusal(
    make: Any, primary: PostgresServer, standby: Standby, autocommit: bool
) -> None:
    both = (
        f"host={standby.host},{primary.host} port={standby.port},{primary.port}"
        f" user={primary.user} dbname={primary.dbname}"
    )
    async with make(2, conninfo=both, kwargs={"autocommit": autocommit}) as pool:
        await pool.wait(10)
        assert on_standby(pool) == 2  # as libpq would have it, and for reading that is fine
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            await insert(pool)
        await eventually(lambda: pool._machine.writes)
        for _ in range(4):
            await insert(pool)
        await eventually(lambda: is_whole(pool, 2))
        assert on_standby(pool) == 0
        assert cuts(pool) == {"demoted 25006": 1, "demoted": 1}


async def test_run_finds_the_primary_by_itself(
    make: Any, primary: PostgresServer, standby: Standby
) -> None:
    both = (
        f"host={standby.host},{primary.host} port={standby.port},{primary.port}"
        f" user={primary.user} dbname={primary.dbname}"
    )

    async def work(conn: Any) -> int:
        await conn.execute(INSERT)
        return int(await scalar(conn, "select count(*) from kept"))

    async with make(1, conninfo=both, kwargs={}) as pool:
        await pool.wait(10)
        assert await pool.run(work) > 0  # refused once, repeated on the primary
        assert pool._machine.writes
        await eventually(lambda: is_whole(pool, 1) and on_standby(pool) == 0)
        assert cuts(pool)["demoted 25006"] == 1


async def test_a_transaction_that_writes_teaches_the_pool_that_it_writes(
    make: Any, primary: PostgresServer
) -> None:
    async def work(conn: Any) -> None:
        await conn.execute("select 1")

    async with make(1, conninfo=primary.dsn, kwargs={}) as pool:
        await pool.run(work, read_only=True)
        assert not pool._machine.writes
        await pool.run(work)
        assert pool._machine.writes


async def test_a_pool_told_to_write_lends_no_standby(
    make: Any, proxy: FaultProxy, primary: PostgresServer, standby: Standby
) -> None:
    proxy.retarget(primary.host, primary.port)
    failed: list[OpenFailed] = []
    pool = make(2, conninfo=proxy.via(primary.dsn))
    async with pool:
        pool.subscribe(failed.append, OpenFailed)
        await pool.wait(10)
        pool._writing()
        assert pool._machine.writes
        proxy.retarget(standby.host, standby.port)
        proxy.cut(FIN)
        await eventually(lambda: cuts(pool) == {"FIN": 2})
        asking = spawn(insert, pool)
        await eventually(lambda: len(failed) >= 3)
        assert all("the server is a standby, and this pool writes" in f.text for f in failed)
        proxy.retarget(primary.host, primary.port)
        await asking.result()
        await eventually(lambda: is_whole(pool, 2))


async def test_a_stray_write_does_not_stop_a_pool_that_reads_from_a_standby(
    make: Any, standby: Standby
) -> None:
    async with make(2, conninfo=standby.dsn) as pool:
        await pool.wait(10)
        for _ in range(3):
            with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                await insert(pool)
            await request(pool, 5)
        await eventually(lambda: is_whole(pool, 2))
        assert cuts(pool) == {"demoted 25006": 3} and not pool._machine.writes


async def test_read_only_by_choice_is_no_demotion(make: Any, primary: PostgresServer) -> None:
    async def chosen(conn: Any) -> None:
        if True:  # ASYNC
            await conn.set_read_only(True)
        else:
            conn.read_only = True

    async def by_statement(conn: Any) -> None:
        await conn.execute("set transaction read only")

    async def by_setting(conn: Any) -> None:
        await conn.execute("set default_transaction_read_only = on")
        await conn.commit()

    async with make(1, conninfo=primary.dsn, kwargs={}) as pool:
        await pool.wait(10)
        for choose in (by_statement, chosen, by_setting):
            with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                async with pool.connection() as conn:
                    await choose(conn)
                    await conn.execute(INSERT)
        assert not cuts(pool) and is_whole(pool, 1)


async def test_a_promoted_session_is_found_out_by_a_ping_and_kept(
    make: Any, primary: PostgresServer
) -> None:
    with primary.standby() as standby:
        async with make(1, conninfo=standby.dsn) as pool:
            await pool.wait(10)
            (slot,) = pool._machine.slots
            assert slot.standby and slot.direct
            standby.promote()
            await pool.check()
            assert slot.standby is False
            pool._writing()
            assert pool._machine.writes
            await insert(pool)
            assert list(pool._machine.slots) == [slot] and not cuts(pool)


async def test_the_name_is_resolved_anew_by_each_connect(
    make: Any, primary: PostgresServer, monkeypatch: Any
) -> None:
    addresses = ["127.0.0.2"]
    resolve = socket.getaddrinfo

    def resolved(host: Any, *args: Any, **kwargs: Any) -> Any:
        return resolve(addresses[0] if host == NAME else host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    with FaultProxy(primary.host, primary.port, host="127.0.0.2") as first:
        with FaultProxy(primary.host, primary.port, host="127.0.0.3", port=first.port) as second:
            where = f"host={NAME} port={first.port} user={primary.user} dbname={primary.dbname}"
            async with make(2, conninfo=where) as pool:
                await pool.wait(10)
                assert len(first.links()) == 2
                addresses[0] = "127.0.0.3"
                first.cut(FIN)
                await eventually(lambda: sum(cuts(pool).values()) == 2)
                await request(pool, 5)
                await eventually(lambda: is_whole(pool, 2))
                assert not first.links() and len(second.links()) == 2


QUESTION = Message("client", "Query", contains=b"pg_control_system")
UNABLE = error_response("42883", "no such function", severity="ERROR") + ready_for_query()


async def test_a_new_connection_knows_whom_it_leads_to(make: Any, primary: PostgresServer) -> None:
    asked: list[Any] = []

    async def configure(conn: Any) -> None:
        asked.append(conn._slot.incarnation)

    async with make(1, conninfo=primary.dsn, kwargs={}, configure=configure) as pool:
        await pool.wait(10)
        (slot,) = pool._machine.slots
        assert asked == [slot.incarnation] and slot.direct and slot.standby is False
        assert slot.incarnation.timeline == 1
    async with AsyncNullConnectionPool(primary.dsn) as pool:
        async with pool.connection() as conn:
            assert conn._slot.incarnation == slot.incarnation


async def test_a_server_that_cannot_tell_is_asked_once(make: Any, proxy: FaultProxy) -> None:
    rule = proxy.on(QUESTION, Answer(UNABLE), times=None)
    async with make(1, 3) as pool:
        await pool.wait(10)
        async with pool.connection() as one, pool.connection() as two:
            assert one._slot.incarnation is None and two._slot.incarnation is None
            assert await scalar(one, "select 1") == 1
        assert rule.hits == 1


async def test_a_connection_that_is_lost_over_the_question_is_a_failed_connect(
    make: Any, proxy: FaultProxy
) -> None:
    proxy.on(QUESTION, Answer(error_response("57P01", "so it goes"), FIN), times=2)
    async with make(1) as pool:
        await pool.wait(10)
        assert pool.snapshot().open_failed == 2
        assert pool._machine.asks


async def test_no_handler_hears_of_the_question_and_no_notification_is_lost(
    make: Any, proxy: FaultProxy
) -> None:
    heard: list[str] = []

    class Listening(psycopg.AsyncConnection[Any]):
        @classmethod
        async def connect(cls, *args: Any, **kwargs: Any) -> Any:
            conn = await super().connect(*args, **kwargs)
            conn.add_notice_handler(lambda notice: heard.append(str(notice.message_primary)))
            conn.add_notify_handler(lambda notify: heard.append(notify.payload))
            return conn

    unasked = notice_response("01000", "psst") + notification_response(7, "news", "extra")
    proxy.on(QUESTION, Answer(unasked + UNABLE))
    async with make(1, connection_class=Listening) as pool:
        await pool.wait(10)
        assert heard == []
        await request(pool)
        assert heard == ["extra"]


async def test_behind_a_pooler_nobody_is_asked_twice(
    make: Any, proxy: FaultProxy, monkeypatch: Any
) -> None:
    from everpool._async import identifying

    asked: list[int] = []
    answer = identifying.answer

    def pooled(result: Any) -> Any:
        session, incarnation = answer(result)
        asked.append(session.pid)
        return replace(session, pid=1), incarnation

    monkeypatch.setattr(identifying, "answer", pooled)
    async with make(2, 3) as pool:
        await pool.wait(10)
        first = len(asked)  # two may have been connected side by side
        lent = [await pool.getconn() for _ in range(3)]
        assert len(asked) == first
        assert not any(conn._slot.direct for conn in lent)
        assert all(slot.standby is None for slot in pool._machine.slots)
        for conn in lent:
            await pool.putconn(conn)
