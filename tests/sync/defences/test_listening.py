# Generated from tests/aio/defences/test_listening.py by `python tools/async_to_sync.py`.
# Do not edit: change that file and run `make generate`.

"""`pool.listen()`: notifications across the deaths of connections, and nothing lost unknowingly."""

from __future__ import annotations

import re
from pathlib import Path
from time import monotonic
from typing import Any

import psycopg
import pytest

from everpool import ConnectionPool, Gap, NullConnectionPool, PoolClosed
from everpool.events import ListenerGap
from everpool.lab import FIN, RST, SILENCE, FaultProxy, PostgresServer, fatal
from tests.support.database import Database
from tests.support.programs import pgbouncer
from tests.support.threads import Event, Queue, eventually, scalar, sleep, spawn
from tests.sync.defences.measure import cuts, is_whole, states

# A machine that is busy elsewhere is late with what it tells.
SLACK = 0.1


class Ear:
    """Keeps what a listener yields, and when; leaves at the note "end"."""

    def __init__(self, listener: Any) -> None:
        self.listener = listener
        self.heard: list[tuple[float, Any]] = []
        self.listens = Event()
        self.worker = spawn(self.hear)

    def hear(self) -> None:
        with self.listener as notes:
            self.listens.set()
            for note in notes:
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


def heard(ear: Ear, number: int) -> None:
    eventually(lambda: str(number) in ear.payloads or ear.worker.done)


def is_listening(pool: Any) -> bool:
    return states(pool)["lent"] == 1


def test_notifications_come_in_order_from_all_channels_whatever_their_names(
    make: Any, database: Database
) -> None:
    with make(2) as pool, pool.listen('Two "w"', "b") as notes:
        for number in range(3):
            database.execute(f"""notify "Two ""w""\", '{number}'""")
            database.execute(f"notify b, '{number}'")
        database.execute("notify two, 'no'")
        heard = [next(notes) for _ in range(6)]
        assert [(note.channel, note.payload) for note in heard] == [
            (channel, str(number)) for number in range(3) for channel in ('Two "w"', "b")
        ]
        assert isinstance(heard[0], psycopg.Notify)


@pytest.mark.parametrize(
    ("style", "why"),
    [(FIN, "FIN"), (RST, "RST"), (fatal("57P01"), "57P01"), (SILENCE, "no answer")],
    ids=["FIN", "RST", "FATAL", "silence"],
)
def test_after_a_cut_a_gap_is_told_and_nothing_is_lost_unknowingly(
    make: Any, proxy: FaultProxy, database: Database, style: Any, why: str
) -> None:
    told: list[Any] = []
    with make(2) as pool:
        pool.subscribe(told.append, ListenerGap)
        ear = Ear(pool.listen("numbers", heartbeat=0.5 if style == SILENCE else 15))
        ear.listens.wait()
        talk = Talker(database)
        heard(ear, talk())
        for time in (1, 2):
            while len(talk.sent) < 20 * time:
                talk()
                sleep(0.002)
            proxy.cut(style)
            until = monotonic() + 5
            while len(ear.gaps) < time and monotonic() < until:
                talk()
                sleep(0.01)
            heard(ear, talk())
        database.execute("notify numbers, 'end'")
        ear.worker.result()
        talk.check(ear)
        assert len(ear.gaps) == 2 or style == SILENCE  # a busy machine is silent for long
        assert all(why in gap.why for _, gap in ear.gaps)
        eventually(lambda: len(told) == len(ear.gaps))
        # A connect that the second cut met may have been silenced with the others.
        eventually(lambda: is_whole(pool, 2), 20)


@pytest.mark.parametrize("heartbeat", [15, 0.2], ids=["in peace", "heartbeat due"])
def test_what_has_come_is_told_before_the_gap(
    make: Any, proxy: FaultProxy, database: Database, heartbeat: float
) -> None:
    with make(2) as pool, pool.listen("news", heartbeat=heartbeat) as notes:
        sleep(0.25)
        database.execute("notify news, 'one'; notify news, 'two'; notify news, 'three'")
        eventually(notes._listening._slot.link.unread)
        proxy.cut(fatal("57P01"))
        payloads = [next(notes).payload for _ in range(3)]
        assert payloads == ["one", "two", "three"]
        gap = next(notes)
        assert isinstance(gap, Gap) and "57P01" in gap.why


def test_it_goes_on_when_the_server_comes_back(figure: Any) -> None:
    with PostgresServer() as server:
        database = Database(server.dsn)
        with ConnectionPool(server.dsn, min_size=1, timeout=0.5, open=False) as pool:
            ear = Ear(pool.listen("numbers"))
            ear.listens.wait()
            talk = Talker(database)
            heard(ear, talk())
            database.close()
            server.down()
            eventually(lambda: pool.snapshot().state == "down")
            sleep(0.7)  # longer than the pool's timeout
            server.up()
            back = monotonic()
            talk.database = database = Database(server.dsn)
            while not ear.gaps:
                assert monotonic() < back + 5
                talk()
                sleep(0.01)
            figure("listens again after the server's return, s", ear.gaps[0][0] - back, 2)
            heard(ear, talk())
            database.execute("notify numbers, 'end'")
            ear.worker.result()
            talk.check(ear)
            assert len(ear.gaps) == 1
            assert "57P01" in ear.gaps[0][1].why
        database.close()


def test_a_loop_that_begins_while_the_server_is_away_begins_with_a_gap(
    make: Any, proxy: FaultProxy, database: Database
) -> None:
    proxy.refuse()
    with make(1, timeout=0.2) as pool:

        def first() -> Any:
            for note in pool.listen("news"):
                return note

        def entered() -> Any:
            with pool.listen("news") as notes:
                database.execute("notify news, 'read from here on'")
                return next(notes)

        begun = monotonic()
        loop, block = spawn(first), spawn(entered)
        sleep(0.5)
        proxy.accept()
        gap, note = loop.result(), block.result()
        assert isinstance(gap, Gap)
        assert 0.5 <= gap.seconds <= monotonic() - begun
        assert note.payload == "read from here on"


def test_the_connection_comes_back_as_it_was_and_is_no_leak(make: Any, database: Database) -> None:
    with make(1, 1, kwargs={}, leak_after=0.1) as pool:
        pool.wait(10)
        before = database.pids()
        with pool.listen("news") as notes:
            assert is_listening(pool)
            sleep(0.3)
            database.execute("notify news")
            for note in notes:
                assert note.channel == "news"
                break
        with pytest.raises(ZeroDivisionError):
            with pool.listen("news"):
                raise ZeroDivisionError
        eventually(lambda: is_whole(pool, 1))
        database.execute("notify news")
        with pool.connection() as conn:
            assert not conn.autocommit
            assert not conn.execute("select pg_listening_channels()").fetchall()
            for note in conn.notifies(timeout=0):
                raise AssertionError(note)
        assert database.pids() == before
        assert pool.snapshot().leaks == {"held": 0, "dropped": 0}
        assert not cuts(pool)


def test_what_the_connection_listens_to_by_itself_stays_so(make: Any, database: Database) -> None:
    heard = Queue()

    def configure(conn: Any) -> None:
        conn.add_notify_handler(lambda note: heard.put((note.channel, note.payload)))
        conn.execute("listen own")

    with make(1, 1, configure=configure) as pool:
        with pool.listen("news", "own") as notes:
            database.execute("notify own, 'one'")
            database.execute("notify news, 'two'")
            assert [next(notes).payload for _ in range(2)] == ["one", "two"]
            assert heard.get() == ("own", "one")
        with pool.connection() as conn:
            assert scalar(conn, "select pg_listening_channels()") == "own"
            database.execute("notify own, 'three'")
            conn.execute("select 1")
            assert heard.get() == ("own", "three")


def test_closing_the_pool_or_the_listener_ends_the_loop_at_once(make: Any) -> None:
    def listen(listener: Any) -> float:
        for note in listener:
            raise AssertionError(note)
        return monotonic()

    with make(2) as pool:
        one, two = pool.listen("news"), pool.listen("news")
        workers = [spawn(listen, one), spawn(listen, two)]
        eventually(lambda: states(pool)["lent"] == 2)
        with pytest.raises(RuntimeError, match="each have its own"):
            next(one)
        start = monotonic()
        one.close()
        assert workers[0].result() - start < 0.3
        eventually(lambda: states(pool)["lent"] == 1)
        start = monotonic()
        pool.close()
        assert workers[1].result() - start < 0.3
        eventually(lambda: not pool._machine.slots)
        with pytest.raises(PoolClosed):
            listen(pool.listen("news"))
    assert not cuts(pool)


def test_closing_the_pool_ends_a_loop_that_waits_for_the_server(
    make: Any, proxy: FaultProxy
) -> None:
    def listen() -> float:
        for note in pool.listen("news"):
            raise AssertionError(note)
        return monotonic()

    proxy.refuse()
    for when_down in ("wait", "fail"):
        with make(1, when_down=when_down) as pool:
            worker = spawn(listen)
            sleep(0.2)
            assert not worker.done
            start = monotonic()
            pool.close()
            assert worker.result() - start < 0.3


def test_one_that_is_dropped_gives_the_connection_back_too(make: Any, database: Database) -> None:
    with make(1, 1) as pool:
        pool.wait(10)
        before = database.pids()
        notes = pool.listen("news")
        notes.__enter__()
        database.execute("notify news")
        next(notes)
        del notes
        eventually(lambda: is_whole(pool, 1))
        assert database.pids() == before
        assert pool.snapshot().leaks == {"held": 0, "dropped": 0}
        with pool.connection() as conn:
            assert scalar(conn, "select count(*) from pg_listening_channels()") == 0


def test_null_pools_listen_too(make: Any, dsn: str, proxy: FaultProxy, database: Any) -> None:
    with NullConnectionPool(dsn, max_size=2, open=False) as pool:
        with pool.listen("news") as notes:
            database.execute("notify news, 'one'")
            assert next(notes).payload == "one"
            proxy.cut(RST)
            assert next(notes).why == "RST"
            database.execute("notify news, 'two'")
            assert next(notes).payload == "two"
        eventually(lambda: not pool._machine.slots)


def test_behind_a_pooler_in_transaction_mode_it_says_so(server: PostgresServer) -> None:
    with pgbouncer(server.dsn, "transaction") as pooler:
        with ConnectionPool(pooler.dsn, min_size=1, max_size=2, open=False) as pool:
            # With nobody else about, the pooler passes what we send to ourselves to the very
            # server connection that listens, and the answer comes: it proves nothing.
            with pytest.raises(psycopg.NotSupportedError, match="transaction mode"):
                for _ in pool.listen("news", heartbeat=0.5):
                    pass
            eventually(lambda: is_whole(pool, 1) or is_whole(pool, 2))


def test_behind_a_pooler_in_session_mode_it_works(
    server: PostgresServer, database: Database, caplog: Any
) -> None:
    with pgbouncer(server.dsn, "session") as pooler:
        for max_size in (1, 2):
            with ConnectionPool(pooler.dsn, max_size=max_size, min_size=1) as pool:
                with pool.listen("news") as notes:
                    database.execute("notify news, 'one'")
                    assert next(notes).payload == "one"
                eventually(lambda: is_whole(pool, 1) or is_whole(pool, 2))
            assert caplog.text.count("no second connection") == 1


def test_mistakes_are_told_at_once(make: Any) -> None:
    pool = make(1)
    for channels in ((), ("",), ("x" * 64,), ("a\0b",)):
        with pytest.raises(ValueError):
            pool.listen(*channels)
    for heartbeat in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="heartbeat"):
            pool.listen("news", heartbeat=heartbeat)
    with pytest.raises(PoolClosed):
        next(pool.listen("news"))


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
