# Generated from tests/aio/defences/test_cancelled.py by `python tools/async_to_sync.py`.
# Do not edit: change that file and run `make generate`.

"""Whatever is cancelled or interrupted, and wherever: the pool is whole afterwards."""

from __future__ import annotations

import gc
import logging
import random
import signal
import threading
from time import monotonic
from typing import Any

import psycopg
import pytest

from everpool import PoolTimeout
from tests.support.threads import eventually, interrupt, scalar, sleep, spawn
from tests.sync.defences.measure import is_whole, request

SIZE = 2
MOST_STEPS = 60


def test_a_connection_returned_twice_is_not_taken_from_its_next_borrower(make: Any) -> None:
    def borrow() -> Any:
        return pool.getconn(5)

    with make(1) as pool:
        with pytest.raises(ValueError, match="returned before"):
            with pool.connection() as conn:
                waiter = spawn(borrow)
                eventually(lambda: pool.snapshot().waiting)
                pool.putconn(conn)
                assert waiter.result() is conn
        with pytest.raises(PoolTimeout):
            pool.getconn(0.05)
        assert scalar(conn, "select 1") == 1
        pool.putconn(conn)
        eventually(lambda: is_whole(pool, 1))


def block(pool: Any) -> None:
    with pool.connection(5) as conn:
        scalar(conn, "select 1")


def transaction(pool: Any) -> None:
    with pool.connection(5) as conn, conn.transaction():
        scalar(conn, "select 1")


def failing(pool: Any) -> None:
    try:
        with pool.connection(5) as conn:
            conn.autocommit = False
            scalar(conn, "select 1")
            raise ZeroDivisionError
    except ZeroDivisionError:
        pass


@pytest.fixture
def no_log(monkeypatch: Any) -> None:
    """Logging's own locks do not survive an interruption. To disable a logger leaves its children as they are."""
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if name.startswith(("everpool", "psycopg")) and isinstance(logger, logging.Logger):
            monkeypatch.setattr(logger, "disabled", True)


@pytest.mark.parametrize("use", [block, transaction, failing])
@pytest.mark.parametrize("threads", [2, 6], ids=["no queue", "queue"])
def test_threads_interrupted_anywhere_lose_nothing(
    make: Any, use: Any, threads: int, no_log: None
) -> None:
    stop = threading.Event()
    interruptions = [0]

    def work() -> None:
        while not stop.is_set():
            try:
                while not stop.is_set():
                    use(pool)
            except KeyboardInterrupt:
                interruptions[0] += 1
            except psycopg.Error:
                pass  # an interrupted query may leave its connection unusable

    chance = random.Random(threads)
    with make(3, verify_after=0.002, peek_after=0.0) as pool:
        pool.wait(10)
        workers = [spawn(work) for _ in range(threads)]
        until = monotonic() + 1.5
        while monotonic() < until:
            sleep(chance.random() * 0.004)
            interrupt(chance.choice(workers))
        sleep(0.05)
        stop.set()
        for worker in workers:
            try:
                worker.result()
            except KeyboardInterrupt:
                pass
        gc.collect()
        eventually(lambda: is_whole(pool, 3))
        assert pool.snapshot().waiting == 0
        request(pool, 5)
        assert interruptions[0] > 50


def test_a_key_press_in_the_main_thread_loses_nothing(make: Any) -> None:
    """Where notebooks interrupt: the pool lives on."""
    main = threading.main_thread().ident
    chance = random.Random(3)
    interruptions = 0
    with make(2, verify_after=0.002, peek_after=0.0) as pool:
        pool.wait(10)
        for _ in range(150):
            press = threading.Timer(
                chance.random() * 0.004, signal.pthread_kill, (main, signal.SIGINT)
            )
            try:
                press.start()
                while True:
                    block(pool)
            except KeyboardInterrupt:
                interruptions += 1
            press.join()
        gc.collect()
        eventually(lambda: is_whole(pool, 2))
        request(pool, 5)
        assert interruptions == 150
