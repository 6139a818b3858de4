# Generated from tests/aio/defences/test_fork.py by `python tools/async_to_sync.py`.
# Do not edit: change that file and run `make generate`.

"""A forked child gets connections of its own, and takes nothing from its parent."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from tests.support.database import Database
from tests.support.threads import eventually, scalar, sleep
from tests.sync.defences.measure import cuts, is_whole, request

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork"),
    # That is what is tested here.
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]


def in_child(task: Callable[[], Any]) -> str:
    """Fork, run *task* in the child, in a new event loop if it is asynchronous, and return what it returned as text."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        signal.alarm(20)
        try:
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
    eventually(ended, timeout=25)
    os.close(reader)
    os.waitpid(pid, 0)  # noqa: ASYNC222  it has closed its end: it is gone
    return b"".join(chunks).decode()


def test_the_first_use_in_a_child_has_connections_of_its_own(make: Any, database: Database) -> None:
    with make(3) as pool:
        pool.wait(10)
        eventually(lambda: is_whole(pool, 3))
        pids = database.pids()

        def child() -> int:
            with pool.connection(5) as conn:
                return scalar(conn, "select pg_backend_pid()")

        theirs = int(in_child(child))
        assert theirs not in pids
        # The parent's are as they were, and the pool has noticed nothing.
        eventually(lambda: database.pids() == pids)
        for _ in range(3):
            with pool.connection() as conn:
                assert scalar(conn, "select pg_backend_pid()") in pids
        assert is_whole(pool, 3)
        assert not cuts(pool)


def test_a_child_may_subscribe_before_it_uses_the_pool(make: Any) -> None:
    with make(2) as pool:
        pool.wait(10)

        def child() -> int:
            with pool.subscribe(print):
                with pool.connection() as conn:
                    return scalar(conn, "select 1")

        assert in_child(child) == "1"


def test_parent_and_child_use_their_pools_at_the_same_time(make: Any, database: Database) -> None:
    with make(2) as pool:
        pool.wait(10)
        eventually(lambda: is_whole(pool, 2))
        pids = database.pids()

        def child() -> str:
            for number in range(50):
                with pool.connection(5) as conn:
                    assert scalar(conn, "select %s::int + 1000", number) == number + 1000
            pool.close()
            return "fine"

        def parent() -> None:
            while not done:
                with pool.connection(5) as conn:
                    assert scalar(conn, "select 7") == 7
                sleep(0.001)

        from tests.support.threads import spawn

        done: list[str] = []
        using = spawn(parent)
        done.append(in_child(child))
        using.result()
        assert done == ["fine"]
        assert database.pids() == pids
        assert not cuts(pool)


def test_a_child_that_just_exits_does_not_disturb_its_parent(make: Any, database: Database) -> None:
    with make(3) as pool:
        pool.wait(10)
        eventually(lambda: is_whole(pool, 3))
        pids = database.pids()
        conn = pool.getconn()

        def child() -> str:
            pool.__del__()
            return "gone"

        assert in_child(child) == "gone"
        assert scalar(conn, "select 1") == 1
        pool.putconn(conn)
        sleep(0.1)
        pool.check()
        assert database.pids() == pids
        assert not cuts(pool)


def test_a_connection_lent_when_its_process_forked_gives_the_child_a_clean_error(
    make: Any, database: Database
) -> None:
    with make(2) as pool:
        pool.wait(10)
        conn = pool.getconn()

        def child() -> str:
            try:
                conn.execute("select 1")
            except psycopg.OperationalError:
                pass
            else:
                return "the parent's session was used"
            try:
                pool.putconn(conn)
            except ValueError:
                pass  # it is not of the child's pool
            with pool.connection(5) as own:
                assert own is not conn
                return str(scalar(own, "select 'fine'"))

        assert in_child(child) == "fine"
        assert scalar(conn, "select pg_backend_pid()") in database.pids()
        pool.putconn(conn)
        eventually(lambda: is_whole(pool, 2))
        assert not cuts(pool)


def test_a_block_around_a_fork_ends_in_the_child_without_lending_what_it_inherited(
    make: Any, database: Database
) -> None:
    with make(1) as pool:
        pool.wait(10)
        lease = pool.connection(5)
        inherited = lease.__enter__()

        def child() -> str:
            with pool.connection(5) as own:
                scalar(own, "select 1")
            lease.__exit__(None, None, None)
            with pool.connection(5) as own:
                assert own is not inherited
                return str(scalar(own, "select 'fine'"))

        assert in_child(child) == "fine"
        assert scalar(inherited, "select 1") == 1
        lease.__exit__(None, None, None)
        eventually(lambda: is_whole(pool, 1))
        assert not cuts(pool)


def test_a_child_may_close_the_pool_it_never_used(make: Any, database: Database) -> None:
    with make(2) as pool:
        pool.wait(10)
        eventually(lambda: is_whole(pool, 2))
        pids = database.pids()

        def child() -> str:
            pool.close()
            return "closed"

        assert in_child(child) == "closed"
        request(pool, 5)
        assert database.pids() == pids
        assert not cuts(pool)


def test_the_parents_watch_goes_on_after_a_fork(make: Any, database: Database) -> None:
    with make(2) as pool:
        pool.wait(10)
        eventually(lambda: is_whole(pool, 2))

        def child() -> str:
            request(pool, 5)
            pool.close()
            return "fine"

        assert in_child(child) == "fine"
        database.kill(*database.pids())
        eventually(lambda: sum(cuts(pool).values()) == 2, timeout=1)
        eventually(lambda: is_whole(pool, 2))
