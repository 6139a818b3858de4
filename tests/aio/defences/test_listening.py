"""`pool.listen()`: notifications across the deaths of connections, and nothing lost unknowingly."""

from __future__ import annotations

import re
from pathlib import Path
from time import monotonic
from typing import Any

import psycopg
import pytest

from everpool import AsyncConnectionPool, AsyncNullConnectionPool, Gap, PoolClosed
from everpool.events import ListenerGap
from everpool.lab import FIN, RST, SILENCE, FaultProxy, PostgresServer, fatal
from tests.aio.defences.measure import cuts, is_whole, states
from tests.support.aio import Event, Queue, eventually, scalar, sleep, spawn
from tests.support.database import Database
from tests.support.programs import pgbouncer

pytestmark = pytest.mark.anyio

# A machine that is busy elsewhere is late with what it tells.
SLACK = 0.1


class Ear:
    """Keeps what a listener yields, and when; leaves at the note "end"."""

    def __init__(self, listener: Any) -> None:
        self.listener = listener
        self.heard: list[tuple[float, Any]] = []
        self.listens = Event()
        self.worker = spawn(self.hear)

    async def hear(self) -> None:
        async with self.listener as notes:
            self.listens.set()
            async for note in notes:
                self.heard.append((monotonic(), note))
                if not isinstance(note, Gap) and note.payload == "end":
                    break

    @property
    def gaps(self) -> list[tuple[float, Gap]]:
        return [(at, note) for at, note in self.heard if isinstance(note, Gap)]

    @property
    def payloads(self) -> list[str]:
        return [note.payload for _, note in self.heard if not isinstance(note, Gap)]


class Talker:
    """Sends numbers, and remembers when each was sent and committed."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.sent: list[tuple[float, float]] = []

    def __call__(self) -> int:
        began = monotonic()
        self.database.execute(f"notify numbers, '{len(self.sent)}'")
        self.sent.append((began, monotonic()))
        return len(self.sent) - 1

    def check(self, ear: Ear) -> None:
        """Each number was received, in order, or sent within a gap that was told."""
        numbers = [int(payload) for payload in ear.payloads if payload.isdigit()]
        assert numbers == sorted(set(numbers))
        for number in set(range(len(self.sent))) - set(numbers):
            began, ended = self.sent[number]
            assert any(ended >= at - gap.seconds - SLACK and began <= at for at, gap in ear.gaps), (
                f"{number} was lost unknowingly"
            )


async def heard(ear: Ear, number: int) -> None:
    await eventually(lambda: str(number) in ear.payloads or ear.worker.done)


def is_listening(pool: Any) -> bool:
    return states(pool)["lent"] == 1


async def test_notifications_come_in_order_from_all_channels_whatever_their_names(
    make: Any, database: Database
) -> None:
    async with make(2) as pool, pool.listen('Two "w"', "b") as notes:
        for number in range(3):
            database.execute(f"""notify "Two ""w""\", '{number}'""")
            database.execute(f"notify b, '{number}'")
        database.execute("notify two, 'no'")
        heard = [await anext(notes) for _ in range(6)]
        assert [(note.channel, note.payload) for note in heard] == [
            (channel, str(number)) for number in range(3) for channel in ('Two "w"', "b")
        ]
        assert isinstance(heard[0], psycopg.Notify)


@pytest.mark.parametrize(
    ("style", "why"),
    [(FIN, "FIN"), (RST, "RST"), (fatal("57P01"), "57P01"), (SILENCE, "no answer")],
    ids=["FIN", "RST", "FATAL", "silence"],
)
async def test_after_a_cut_a_gap_is_told_and_nothing_is_lost_unknowingly(
    make: Any, proxy: FaultProxy, database: Database, style: Any, why: str
) -> None:
    told: list[Any] = []
    async with make(2) as pool:
        pool.subscribe(told.append, ListenerGap)
        ear = Ear(pool.listen("numbers", heartbeat=0.5 if style == SILENCE else 15))
        await ear.listens.wait()
        talk = Talker(database)
        await heard(ear, talk())
        for time in (1, 2):
            while len(talk.sent) < 20 * time:
                talk()
                await sleep(0.002)
            proxy.cut(style)
            until = monotonic() + 5
            while len(ear.gaps) < time and monotonic() < until:
                talk()
                await sleep(0.01)
            await heard(ear, talk())
        database.execute("notify numbers, 'end'")
        await ear.worker.result()
        talk.check(ear)
        assert len(ear.gaps) == 2 or style == SILENCE  # a busy machine is silent for long
        assert all(why in gap.why for _, gap in ear.gaps)
        await eventually(lambda: len(told) == len(ear.gaps))
        # A connect that the second cut met may have been silenced with the others.
        await eventually(lambda: is_whole(pool, 2), 20)


@pytest.mark.parametrize("heartbeat", [15, 0.2], ids=["in peace", "heartbeat due"])
async def test_what_has_come_is_told_before_the_gap(
    make: Any, proxy: FaultProxy, database: Database, heartbeat: float
) -> None:
    async with make(2) as pool, pool.listen("news", heartbeat=heartbeat) as notes:
        await sleep(0.25)
        database.execute("notify news, 'one'; notify news, 'two'; notify news, 'three'")
        await eventually(notes._listening._slot.link.unread)
        proxy.cut(fatal("57P01"))
        payloads = [(await anext(notes)).payload for _ in range(3)]
        assert payloads == ["one", "two", "three"]
        gap = await anext(notes)
        assert isinstance(gap, Gap) and "57P01" in gap.why


async def test_it_goes_on_when_the_server_comes_back(figure: Any) -> None:
    with PostgresServer() as server:
        database = Database(server.dsn)
        async with AsyncConnectionPool(server.dsn, min_size=1, timeout=0.5, open=False) as pool:
            ear = Ear(pool.listen("numbers"))
            await ear.listens.wait()
            talk = Talker(database)
            await heard(ear, talk())
            database.close()
            server.down()
            await eventually(lambda: pool.snapshot().state == "down")
            await sleep(0.7)  # longer than the pool's timeout
            server.up()
            back = monotonic()
            talk.database = database = Database(server.dsn)
            while not ear.gaps:
                assert monotonic() < back + 5
                talk()
                await sleep(0.01)
            figure("listens again after the server's return, s", ear.gaps[0][0] - back, 2)
            await heard(ear, talk())
            database.execute("notify numbers, 'end'")
            await ear.worker.result()
            talk.check(ear)
            assert len(ear.gaps) == 1
            assert "57P01" in ear.gaps[0][1].why
        database.close()


async def test_a_loop_that_begins_while_the_server_is_away_begins_with_a_gap(
    make: Any, proxy: FaultProxy, database: Database
) -> None:
    proxy.refuse()
    async with make(1, timeout=0.2) as pool:

        async def first() -> Any:
            async for note in pool.listen("news"):
                return note

        async def entered() -> Any:
            async with pool.listen("news") as notes:
                database.execute("notify news, 'read from here on'")
                return await anext(notes)

        begun = monotonic()
        loop, block = spawn(first), spawn(entered)
        await sleep(0.5)
        proxy.accept()
        gap, note = await loop.result(), await block.result()
        assert isinstance(gap, Gap)
        assert 0.5 <= gap.seconds <= monotonic() - begun
        assert note.payload == "read from here on"


async def test_the_connection_comes_back_as_it_was_and_is_no_leak(
    make: Any, database: Database
) -> None:
    async with make(1, 1, kwargs={}, leak_after=0.1) as pool:
        await pool.wait(10)
        before = database.pids()
        async with pool.listen("news") as notes:
            assert is_listening(pool)
            await sleep(0.3)
            database.execute("notify news")
            async for note in notes:
                assert note.channel == "news"
                break
        with pytest.raises(ZeroDivisionError):
            async with pool.listen("news"):
                raise ZeroDivisionError
        await eventually(lambda: is_whole(pool, 1))
        database.execute("notify news")
        async with pool.connection() as conn:
            assert not conn.autocommit
            assert not (await (await conn.execute("select pg_listening_channels()")).fetchall())
            async for note in conn.notifies(timeout=0):
                raise AssertionError(note)
        assert database.pids() == before
        assert pool.snapshot().leaks == {"held": 0, "dropped": 0}
        assert not cuts(pool)


async def test_what_the_connection_listens_to_by_itself_stays_so(
    make: Any, database: Database
) -> None:
    heard = Queue()

    async def configure(conn: Any) -> None:
        conn.add_notify_handler(lambda note: heard.put((note.channel, note.payload)))
        await conn.execute("listen own")

    async with make(1, 1, configure=configure) as pool:
        async with pool.listen("news", "own") as notes:
            database.execute("notify own, 'one'")
            database.execute("notify news, 'two'")
            assert [(await anext(notes)).payload for _ in range(2)] == ["one", "two"]
            assert await heard.get() == ("own", "one")
        async with pool.connection() as conn:
            assert await scalar(conn, "select pg_listening_channels()") == "own"
            database.execute("notify own, 'three'")
            await conn.execute("select 1")
            assert await heard.get() == ("own", "three")


async def test_closing_the_pool_or_the_listener_ends_the_loop_at_once(make: Any) -> None:
    async def listen(listener: Any) -> float:
        async for note in listener:
            raise AssertionError(note)
        return monotonic()

    async with make(2) as pool:
        one, two = pool.listen("news"), pool.listen("news")
        workers = [spawn(listen, one), spawn(listen, two)]
        await eventually(lambda: states(pool)["lent"] == 2)
        with pytest.raises(RuntimeError, match="each have its own"):
            await anext(one)
        start = monotonic()
        await one.aclose()
        assert await workers[0].result() - start < 0.3
        await eventually(lambda: states(pool)["lent"] == 1)
        start = monotonic()
        await pool.close()
        assert await workers[1].result() - start < 0.3
        await eventually(lambda: not pool._machine.slots)
        with pytest.raises(PoolClosed):
            await listen(pool.listen("news"))
    assert not cuts(pool)


async def test_closing_the_pool_ends_a_loop_that_waits_for_the_server(
    make: Any, proxy: FaultProxy
) -> None:
    async def listen() -> float:
        async for note in pool.listen("news"):
            raise AssertionError(note)
        return monotonic()

    proxy.refuse()
    for when_down in ("wait", "fail"):
        async with make(1, when_down=when_down) as pool:
            worker = spawn(listen)
            await sleep(0.2)
            assert not worker.done
            start = monotonic()
            await pool.close()
            assert await worker.result() - start < 0.3


async def test_one_that_is_dropped_gives_the_connection_back_too(
    make: Any, database: Database
) -> None:
    async with make(1, 1) as pool:
        await pool.wait(10)
        before = database.pids()
        notes = pool.listen("news")
        await notes.__aenter__()
        database.execute("notify news")
        await anext(notes)
        del notes
        await eventually(lambda: is_whole(pool, 1))
        assert database.pids() == before
        assert pool.snapshot().leaks == {"held": 0, "dropped": 0}
        async with pool.connection() as conn:
            assert await scalar(conn, "select count(*) from pg_listening_channels()") == 0


async def test_null_pools_listen_too(make: Any, dsn: str, proxy: FaultProxy, database: Any) -> None:
    async with AsyncNullConnectionPool(dsn, max_size=2, open=False) as pool:
        async with pool.listen("news") as notes:
            database.execute("notify news, 'one'")
            assert (await anext(notes)).payload == "one"
            proxy.cut(RST)
            assert (await anext(notes)).why == "RST"
            database.execute("notify news, 'two'")
            assert (await anext(notes)).payload == "two"
        await eventually(lambda: not pool._machine.slots)


async def test_behind_a_pooler_in_transaction_mode_it_says_so(server: PostgresServer) -> None:
    with pgbouncer(server.dsn, "transaction") as pooler:
        async with AsyncConnectionPool(pooler.dsn, min_size=1, max_size=2, open=False) as pool:
            # With nobody else about, the pooler passes what we send to ourselves to the very
            # server connection that listens, and the answer comes: it proves nothing.
            with pytest.raises(psycopg.NotSupportedError, match="transaction mode"):
                async for _ in pool.listen("news", heartbeat=0.5):
                    pass
            await eventually(lambda: is_whole(pool, 1) or is_whole(pool, 2))


async def test_behind_a_pooler_in_session_mode_it_works(
    server: PostgresServer, database: Database, caplog: Any
) -> None:
    with pgbouncer(server.dsn, "session") as pooler:
        for max_size in (1, 2):
            async with AsyncConnectionPool(pooler.dsn, max_size=max_size, min_size=1) as pool:
                async with pool.listen("news") as notes:
                    database.execute("notify news, 'one'")
                    assert (await anext(notes)).payload == "one"
                await eventually(lambda: is_whole(pool, 1) or is_whole(pool, 2))
            assert caplog.text.count("no second connection") == 1


async def test_mistakes_are_told_at_once(make: Any) -> None:
    pool = make(1)
    for channels in ((), ("",), ("x" * 64,), ("a\0b",)):
        with pytest.raises(ValueError):
            pool.listen(*channels)
    for heartbeat in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="heartbeat"):
            pool.listen("news", heartbeat=heartbeat)
    with pytest.raises(PoolClosed):
        await anext(pool.listen("news"))


if False:  # ASYNC

    def test_the_example_in_the_documentation(make: Any, database: Any) -> None:
        page = Path(__file__).parents[3] / "docs" / "listening.md"
        example = re.findall(r"```python\n(.*?)```", page.read_text(), re.S)[0]
        calls = Queue()
        names: dict[str, Any] = {
            "read_the_tables": lambda: calls.put("read"),
            "handle": lambda *args: calls.put(args),
        }
        exec(compile(example, str(page), "exec"), names)
        with make(2) as pool:
            worker = spawn(names["work"], pool)
            assert calls.get() == "read"
            database.execute("notify settings, 'dark'")
            assert calls.get() == ("settings", "dark")
            database.kill(*database.pids())
            assert calls.get() == "read"
            pool.close()
            worker.result()


if True:  # ASYNC

    async def test_a_cancelled_loop_gives_the_connection_back(make: Any, database: Any) -> None:
        async def listen() -> None:
            async for note in pool.listen("news"):
                begun.put(note)

        async with make(1, 1) as pool:
            await pool.wait(10)
            before, begun = database.pids(), Queue()
            worker = spawn(listen)
            await eventually(lambda: is_listening(pool))
            database.execute("notify news")  # the server has the LISTEN at the second at the latest
            await sleep(0.05)
            database.execute("notify news")
            await begun.get()
            worker.cancel()
            await eventually(lambda: is_whole(pool, 1))
            assert database.pids() == before
            async with pool.connection() as conn:
                assert await scalar(conn, "select count(*) from pg_listening_channels()") == 0

    async def test_inside_the_block_waiting_for_a_while_only_costs_nothing(
        make: Any, database: Any
    ) -> None:
        import asyncio

        async with make(1, 1) as pool, pool.listen("news") as notes:
            for _ in range(2):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(anext(notes), 0.05)
            database.execute("notify news, 'one'")
            assert (await anext(notes)).payload == "one"
