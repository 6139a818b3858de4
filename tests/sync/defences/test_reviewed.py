# Generated from tests/aio/defences/test_reviewed.py by `python tools/async_to_sync.py`.
# Do not edit: change that file and run `make generate`.

"""Faults that a reading of the code found, each with the run that showed it."""

from __future__ import annotations

import logging
from typing import Any

import psycopg
import pytest

from everpool import ConnectionPool
from everpool.conninfo import redact
from everpool.lab import FaultProxy, fatal
from tests.support.threads import eventually, gather, sleep, spawn

from .measure import is_whole


def test_callers_who_wait_for_their_own_ping_do_not_fill_the_queue(
    server: Any,
) -> None:
    with ConnectionPool(server.dsn, min_size=4, max_waiting=1, open=False) as pool:
        pool.wait(10)
        eventually(lambda: is_whole(pool, 4))
        sleep(0.7)  # longer than verify_after: each loan needs a ping
        conns = gather(*(spawn(pool.getconn, 5) for _ in range(4)))
        assert len({id(conn) for conn in conns}) == 4
        for conn in conns:
            pool.putconn(conn)


def test_many_notifications_are_read_to_the_end(server: Any) -> None:
    with ConnectionPool(server.dsn, min_size=1, kwargs={"autocommit": True}, open=False) as pool:
        with pool.connection() as conn:
            conn.execute("listen news")
        with psycopg.connect(server.dsn, autocommit=True) as other:
            for number in range(100):
                other.execute("select pg_notify('news', %s)", (f"{number:06}" + "x" * 1000,))
        sleep(0.6)
        heard: list[Any] = []
        with pool.connection() as conn:
            conn.add_notify_handler(heard.append)
            conn.execute("select 1")
            backlog = conn._notifies_backlog or ()
            assert len(heard) + len(backlog) == 100
        assert not pool.snapshot().cuts


def test_a_session_that_dies_at_birth_does_not_rest(proxy: FaultProxy) -> None:
    def cut(conn: Any) -> None:
        proxy.cut(fatal("57P01", "not now"), link=proxy.links()[-1].number)
        sleep(0.05)

    pool = ConnectionPool(proxy.via("user=postgres dbname=postgres"), open=False, min_size=1)
    pool._configure = cut
    pool.open()
    sleep(0.5)
    assert not any(slot.link.peek() < 0 for slot in list(pool._machine.idle))
    pool.close()


def test_what_a_callable_returns_wrongly_costs_no_place(server: Any) -> None:
    answers = [[1, 2], [3]]

    def kwargs() -> Any:
        return answers.pop() if answers else {}

    with ConnectionPool(
        server.dsn, kwargs=kwargs, min_size=2, open=False, reconnect_timeout=5
    ) as pool:
        eventually(lambda: is_whole(pool, 2), timeout=10)


def test_an_error_of_configure_tells_no_sql(server: Any, caplog: Any) -> None:
    def configure(conn: Any) -> None:
        conn.execute("alter role nobody_here password 'S3CRET'")

    caplog.set_level(logging.DEBUG)
    pool = ConnectionPool(server.dsn, min_size=1, configure=configure, open=False)
    pool.open()
    with pytest.raises(psycopg.OperationalError) as caught:
        pool.getconn(0.5)
    told = f"{caught.value}{pool.snapshot()}{caplog.text}"
    pool.close()
    assert "S3CRET" not in told
    assert "nobody_here" in told  # PostgreSQL's primary message


def test_a_close_of_the_users_that_fails_loses_no_place(server: Any) -> None:
    base: Any = psycopg.Connection

    class Grumpy(base):  # type: ignore[misc]
        failures = 1

        def close(self) -> None:
            super().close()
            if Grumpy.failures:
                Grumpy.failures -= 1
                raise ZeroDivisionError

    with ConnectionPool(server.dsn, min_size=3, connection_class=Grumpy, open=False) as pool:
        eventually(lambda: is_whole(pool, 3))
        pool.drain()
        eventually(lambda: is_whole(pool, 3))


def test_a_long_text_is_shortened_after_it_is_judged_and_redacted() -> None:
    text = "x" * 190 + "S3CRET-word"
    assert "S3C" not in redact(text, "password=S3CRET-word", {})
