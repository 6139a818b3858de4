# Generated from tests/aio/defences/test_abandoned.py by `python tools/async_to_sync.py`.
# Do not edit: change that file and run `make generate`.

"""A lost transaction that nobody tries again leaves no session, with its locks, on the server."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from time import monotonic
from typing import Any

import psycopg
import pytest

from everpool import CommitUnknown, DeadlineExceeded, Outcome, PoolTimeout
from everpool.lab import RST, RST_NEXT, SILENCE, FaultProxy, Hold, Message, PostgresServer
from everpool.work import resolve
from tests.support.programs import pgbouncer
from tests.support.threads import Event, eventually, gather, scalar, spawn

from .measure import best_of, is_whole
from .work import Table

SOON = 1.0  # seconds until a lock is free that the server does not know to be nobody's


def room(pool: Any) -> str:
    return str(type(pool).__module__.rpartition(".")[0])


class Locking:
    """The work: to lock a row, and to lose the connection behind the server's back.

    :ivar pids: of the backends it was given.
    """

    def __init__(self, table: Table, proxy: FaultProxy, style: Any = RST) -> None:
        self.table, self.proxy, self.style = table, proxy, style
        self.pids: list[int] = []

    def __call__(self, conn: Any) -> None:
        pid = scalar(conn, "SELECT pg_backend_pid()")
        self.pids.append(pid)
        conn.execute(f"UPDATE {self.table.name} SET id = id + 1")
        self.cut(conn)
        conn.execute("SELECT 1")

    def lose(self, conn: Any) -> None:
        """The same without the row."""
        conn.execute(f"INSERT INTO {self.table.name} VALUES (7)")
        self.cut(conn)
        conn.execute("SELECT 1")

    def cut(self, conn: Any) -> None:
        link = self.proxy.find(backend_pid=conn.info.backend_pid)
        self.proxy.cut(self.style.one_sided(), link=link)

    def is_free(self) -> bool:
        """Whether nobody has the row locked."""
        query = f"SELECT 1 FROM {self.table.name} FOR UPDATE SKIP LOCKED"
        return self.table.execute(query).fetchone() is not None

    def lives(self) -> bool:
        """Whether the last of its sessions is still on the server."""
        query = f"SELECT 1 FROM pg_stat_activity WHERE pid = {self.pids[-1]}"
        return self.table.execute(query).fetchone() is not None


@pytest.fixture
def locking(table: Table, proxy: FaultProxy) -> Iterator[Locking]:
    table.execute(f"INSERT INTO {table.name} VALUES (0)")
    yield Locking(table, proxy)
    table.execute(  # what was left on purpose must not hold up the end
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )


@pytest.mark.parametrize("style", [RST, RST_NEXT], ids=str)
@pytest.mark.parametrize("size", [1, 3])
def test_the_locks_of_an_attempt_that_is_not_repeated_are_free_soon(
    make: Any, locking: Locking, style: Any, size: int, figure: Any
) -> None:
    locking.style = style
    with make(size) as pool:

        def measure() -> float:
            eventually(lambda: is_whole(pool, size))
            start = monotonic()
            with pytest.raises(psycopg.OperationalError) as caught:
                pool.run(locking, attempts=1)
            assert caught.value.outcome is Outcome.ROLLED_BACK  # type: ignore[attr-defined]
            eventually(locking.is_free)
            return monotonic() - start

        figure("seconds until the lock was free", best_of(measure, SOON), SOON)
        assert locking.table.rows() == [0]


@pytest.mark.alone
def test_a_deadline_over_silence_leaves_no_locks(make: Any, locking: Locking) -> None:
    locking.style = SILENCE
    with make(1) as pool:
        start = monotonic()
        with pytest.raises(DeadlineExceeded):
            pool.run(locking, deadline=0.3)
        assert monotonic() - start < 0.3 + 0.25 + 0.1
        eventually(locking.is_free, timeout=SOON)


@pytest.mark.parametrize("attempts", [1, 2])
def test_a_read_only_transaction_leaves_none_either(
    make: Any, locking: Locking, attempts: int
) -> None:
    """Nobody could change the table that it read."""

    def read(conn: Any) -> int:
        pids.append(conn.info.backend_pid)
        conn.execute(f"SELECT * FROM {locking.table.name}")
        if len(pids) == 1:
            locking.cut(conn)
        return scalar(conn, "SELECT 1")  # type: ignore[no-any-return]

    pids: list[int] = []
    with make(1) as pool:
        if attempts == 1:
            with pytest.raises(psycopg.OperationalError):
                pool.run(read, attempts=1, read_only=True)
        else:
            assert pool.run(read, read_only=True) == 1
        eventually(lambda: not pool._left)
        query = f"SELECT count(*) FROM pg_stat_activity WHERE pid = {pids[0]}"
        eventually(lambda: locking.table.execute(query).fetchone() == (0,))


def test_who_waits_for_the_lock_with_all_other_connections_gets_it(
    make: Any, locking: Locking
) -> None:
    """Whoever frees it does not queue behind those who wait for it."""
    name = locking.table.name

    def update(conn: Any) -> None:
        conn.execute(f"UPDATE {name} SET id = id + 10")

    with make(2, 2) as pool:

        def work(conn: Any) -> None:
            conn.execute(f"UPDATE {name} SET id = id + 1")
            locked.set()
            go_on.wait()
            locking.cut(conn)
            conn.execute("SELECT 1")

        locked, go_on = Event(), Event()
        losing = spawn(pool.run, work, attempts=1)
        locked.wait()
        others = [spawn(pool.run, update) for _ in range(4)]
        eventually(lambda: pool.get_stats().get("requests_waiting") == 3)
        go_on.set()
        with pytest.raises(psycopg.OperationalError):
            losing.result()
        gather(*others)
        assert locking.table.rows() == [40]


def test_so_are_those_of_one_that_was_to_be_repeated_and_is_not(
    make: Any, locking: Locking, proxy: FaultProxy
) -> None:
    """There is no connection for the next attempt, until its time is up."""

    def work(conn: Any) -> None:
        proxy.hang()
        locking(conn)

    with make(1) as pool:
        with pytest.raises((PoolTimeout, DeadlineExceeded)) as caught:
            pool.run(work, deadline=0.5)
        assert caught.value.outcome is Outcome.ROLLED_BACK  # type: ignore[union-attr]
        assert not locking.is_free()
        proxy.heal()
        eventually(locking.is_free, timeout=5.0)


def test_several_are_ended_by_one(make: Any, locking: Locking) -> None:
    with make(4) as pool:

        def work(conn: Any, number: int) -> None:
            conn.execute(f"INSERT INTO {locking.table.name} VALUES ({number})")
            pids.append(conn.info.backend_pid)
            eventually(lambda: len(pids) == 4)
            locking.cut(conn)
            conn.execute("SELECT 1")

        pids: list[int] = []
        lost = [spawn(pool.run, work, number, attempts=1) for number in range(4)]
        for each in lost:
            with pytest.raises(psycopg.OperationalError):
                each.result()
        query = f"SELECT count(*) FROM pg_stat_activity WHERE pid = ANY(ARRAY{pids})"
        eventually(lambda: locking.table.execute(query).fetchone() == (0,), timeout=5.0)
        eventually(lambda: not pool._left)
        eventually(lambda: is_whole(pool, 4))


@pytest.mark.alone
def test_what_the_caller_gets_does_not_wait_for_it(
    make: Any, locking: Locking, proxy: FaultProxy
) -> None:
    def work(conn: Any) -> None:
        proxy.hang()  # who would end the session gets no connection
        locking(conn)

    with make(1) as pool:
        start = monotonic()
        with pytest.raises(psycopg.OperationalError):
            pool.run(work, attempts=1)
        assert monotonic() - start < 0.2
        assert not locking.is_free()
        proxy.heal()
        eventually(locking.is_free, timeout=5.0)


def test_where_nothing_can_be_begun_the_caller_hears_his_own_error_and_the_next_ends_both(
    make: Any, locking: Locking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The interpreter is going, or the loop is gone."""

    def refuse(*_: Any) -> None:
        raise RuntimeError("no thread, no task")

    with make(2) as pool:
        eventually(lambda: is_whole(pool, 2))
        with monkeypatch.context() as patch:
            patch.setattr(pool._background, "connect", refuse)
            with pytest.raises(psycopg.OperationalError) as caught:
                pool.run(locking, attempts=1)
        assert caught.value.outcome is Outcome.ROLLED_BACK  # type: ignore[attr-defined]
        assert pool._left and not locking.is_free()
        with pytest.raises(psycopg.OperationalError):
            pool.run(locking.lose, attempts=1)
        eventually(lambda: not pool._left)
        eventually(locking.is_free)


@pytest.mark.parametrize("heals", [True, False])
def test_while_there_is_no_server_nothing_is_requested_to_end_a_session(
    make: Any, locking: Locking, proxy: FaultProxy, heals: bool
) -> None:
    """A pool that fails at once would count, and log, four refusals a second."""

    def work(conn: Any) -> None:
        proxy.refuse()
        locking(conn)

    with make(1, when_down="fail") as pool:
        pool.wait()
        with pytest.raises(psycopg.OperationalError):
            pool.run(work, attempts=1)
        eventually(lambda: pool._machine.connector.trouble)
        before = pool.get_stats()["requests_num"]
        attempts = pool.get_stats()["connections_num"]
        eventually(lambda: pool.get_stats()["connections_num"] >= attempts + 5, timeout=20.0)
        assert pool.get_stats()["requests_num"] <= before + 2  # just when an attempt was due
        if heals:
            proxy.heal()
            eventually(locking.is_free, timeout=5.0)
        start = monotonic()
        pool.close()
        assert monotonic() - start < 1.0  # no job goes on


def test_a_pool_that_is_closed_waits_for_no_answer_about_a_session(
    make: Any, locking: Locking, proxy: FaultProxy
) -> None:
    ends = Message("client", "Query", where=lambda frame: b"terminate_backend" in frame.body)
    hold = proxy.on(ends, Hold())
    with make(2) as pool:
        eventually(lambda: is_whole(pool, 2))
        with pytest.raises(psycopg.OperationalError):
            pool.run(locking, attempts=1)
        eventually(lambda: hold.hits)
        start = monotonic()
        pool.close()
        assert monotonic() - start < 1.0
        eventually(lambda: not pool._ending)


def test_a_commit_that_nobody_may_ask_about_is_left_alone(make: Any, locking: Locking) -> None:
    def work(conn: Any) -> None:
        conn.execute(f"UPDATE {locking.table.name} SET id = id + 1")
        locking.pids.append(conn.info.backend_pid)
        locking.style = SILENCE
        locking.cut(conn)

    with make(1) as pool:
        with pytest.raises(CommitUnknown):
            pool.run(work, attempts=1, commit="off", deadline=0.3)
        assert not pool._left
        assert locking.lives()


def test_behind_a_pooler_its_sessions_are_its_own(
    make: Any, locking: Locking, server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        pgbouncer(server.dsn, pool_mode="transaction", settings={}) as bouncer,
        FaultProxy(target_port=bouncer.port) as before,
    ):
        # By no process id: the pooler's may be negative.
        monkeypatch.setattr(locking, "cut", lambda _: before.cut(RST.one_sided()))
        with make(1, conninfo=before.via(bouncer.dsn)) as pool:
            with pytest.raises(psycopg.OperationalError):
                pool.run(locking, attempts=1)
            assert not pool._left
            assert pool.run(scalar, "SELECT 1") == 1
            assert locking.lives()


def test_a_session_that_is_another_by_now_is_left_alone(
    make: Any, locking: Locking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process id has been given again: the moment it began says so."""
    real = resolve.end_backend

    def other(pgconn: Any, begun: Any) -> Any:
        begun.session = replace(begun.session, started=begun.session.started - 1)
        return real(pgconn, begun)

    with make(1) as pool:
        monkeypatch.setattr(f"{room(pool)}.ending.end_backend", other)
        with pytest.raises(psycopg.OperationalError):
            pool.run(locking, attempts=1)
        eventually(lambda: not pool._left)
        assert locking.lives()


def test_a_forked_child_leaves_the_session_of_its_parent_alone(
    make: Any, locking: Locking, monkeypatch: pytest.MonkeyPatch
) -> None:
    with make(1) as pool:

        def work(conn: Any) -> None:
            monkeypatch.setattr(f"{room(pool)}.attempts.getpid", lambda: 0)
            locking(conn)

        with pytest.raises(psycopg.OperationalError):
            pool.run(work)
        assert len(locking.pids) == 1
        assert not pool._left
        assert locking.lives()
