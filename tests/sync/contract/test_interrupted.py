# Generated from tests/aio/contract/test_interrupted.py by `python tools/async_to_sync.py`.
# Do not edit: change that file and run `make generate`.

"""Clients that are cancelled, or interrupted, at awkward moments: nothing is lost."""

from __future__ import annotations

import random
import threading
from typing import Any

import pytest
from psycopg.pq import TransactionStatus

from tests.support.packages import everpool_only
from tests.support.threads import gather, scalar, spawn


def whole(pool: Any, size: int) -> None:
    """Assert that *size* connections can be had at once, all of them good, and no more than that exist."""
    conns = []
    for _ in range(size):
        conn = pool.getconn(5)
        assert conn.info.transaction_status == TransactionStatus.IDLE
        assert scalar(conn, "select 1") == 1
        conn.rollback()
        conns.append(conn)
    assert len({conn.info.backend_pid for conn in conns}) == size
    assert pool.get_stats()["pool_size"] == size
    for conn in conns:
        pool.putconn(conn)


class Interrupt(BaseException):
    """As KeyboardInterrupt, without its effect on the test runner."""


@pytest.fixture
def alarm() -> Any:
    """Raises `Interrupt` in the main thread after so many seconds."""
    import signal

    def handler(signum: int, frame: Any) -> None:
        raise Interrupt

    previous = signal.signal(signal.SIGALRM, handler)
    yield lambda delay: signal.setitimer(signal.ITIMER_REAL, delay)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, previous)


@everpool_only("psycopg_pool gives the connection to the client that is no longer there")
def test_an_interrupted_client_leaves_the_queue(make_any: Any, alarm: Any) -> None:
    with make_any() as pool:
        conn = pool.getconn(5)
        alarm(0.05)
        with pytest.raises(Interrupt):
            pool.getconn(10)
        pool.putconn(conn)
        whole(pool, 1)


def test_an_interrupted_query_gives_its_connection_back_or_up(make_any: Any, alarm: Any) -> None:
    with make_any() as pool:
        with pytest.raises(Interrupt):
            with pool.connection(timeout=5) as conn:
                alarm(0.1)
                conn.execute("select pg_sleep(20)")
        whole(pool, 1)


# An exception that a signal raises inside a finalizer is reported, not raised.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@everpool_only("psycopg_pool can lose a connection to an exception between two statements")
def test_interrupts_at_random_lose_no_connection(make: Any, alarm: Any) -> None:
    chance = random.Random(7)
    with make(2) as pool:
        pool.wait(5)
        for _ in range(150):
            try:
                alarm(0.0002 + chance.random() / 1000)
                for _ in range(20):
                    with pool.connection(timeout=5) as conn:
                        conn.execute("select 1")
                alarm(0)
            except Interrupt:
                pass
        whole(pool, 2)


def test_threads_hammer_the_pool(make_any: Any) -> None:
    counts = dict.fromkeys(range(8), 0)

    def client(n: int) -> None:
        for _ in range(25):
            with pool.connection(timeout=10) as conn:
                conn.execute("select 1")
                counts[n] += 1

    with make_any(3) as pool:
        gather(*[spawn(client, n) for n in counts])
        assert set(counts.values()) == {25}
        assert pool.get_stats()["requests_num"] == 200
    assert threading.active_count() < 50


def test_a_worker_that_fails_holding_a_connection_gives_it_back(make_any: Any) -> None:
    def client() -> None:
        with pool.connection(timeout=5) as conn:
            conn.execute("select 1 / 0")

    with make_any(2) as pool:
        for _ in range(5):
            worker = spawn(client)
            with pytest.raises(Exception, match="division by zero"):
                worker.result()
        gather(*[spawn(whole_turn, pool) for _ in range(4)])


def whole_turn(pool: Any) -> None:
    with pool.connection(timeout=5) as conn:
        assert scalar(conn, "select 1") == 1
