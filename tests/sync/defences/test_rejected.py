# Generated from tests/aio/defences/test_rejected.py by `python tools/async_to_sync.py`.
# Do not edit: change that file and run `make generate`.

"""Connects that fail: who is told what, how soon, and how often the pool tries again. No password is ever told."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator
from time import monotonic
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from everpool import PoolTimeout, PoolUnavailable
from everpool.lab import FIN, STARTUP, Answer, FaultProxy, PostgresServer, fatal
from everpool.lab.frames import error_response
from tests.support.net import refusing_port
from tests.support.threads import eventually, gather, sleep, spawn
from tests.sync.defences.measure import cuts, is_whole, request

SECRET = "Xq7-Tannenzapfen"
WRONG = "Zz9-Kieselstein"


@pytest.fixture(scope="module")
def locked() -> Iterator[PostgresServer]:
    """A server that asks for a password."""
    with PostgresServer(password=SECRET) as server:
        yield server


@pytest.fixture
def listening(caplog: Any) -> Any:
    """Everything that anybody logs, at every level."""
    caplog.set_level(logging.DEBUG)
    return caplog


def told(error: BaseException, pool: Any, listening: Any) -> str:
    """All that a program, a log or a person could see."""
    records = [
        f"{record.getMessage()} {record.args!r} {record.exc_info and traceback.format_exception(*record.exc_info)}"
        for record in listening.records
    ]
    chain = "".join(traceback.format_exception(error))
    return "\n".join(
        [
            chain,
            str(error),
            repr(error),
            repr(pool),
            repr(pool.snapshot()),
            listening.text,
            *records,
        ]
    )


def refused_at_once(pool: Any, match: str) -> PoolUnavailable:
    start = monotonic()
    with pytest.raises(PoolUnavailable, match=match) as caught:
        with pool.connection(timeout=20):
            pass
    assert monotonic() - start < 1
    return caught.value


def test_a_wrong_password_is_told_at_once_tried_rarely_and_recovers_when_it_is_right(
    make: Any, proxy: FaultProxy, locked: PostgresServer, listening: Any
) -> None:
    proxy.retarget(locked.host, locked.port)
    conninfo = proxy.via(make_conninfo(locked.conninfo, password=WRONG))
    with make(4, conninfo=conninfo) as pool:
        error = refused_at_once(pool, "password authentication failed")
        assert isinstance(error, PoolTimeout)  # programs written for psycopg_pool catch it
        for _ in range(20):  # asking does not make the pool try
            refused_at_once(pool, "password authentication failed")
        sleep(1.5)
        refused_at_once(pool, "password authentication failed")
        assert proxy.stats().accepted <= 3
        assert pool.snapshot().trouble == "rejected"
        assert WRONG not in told(error, pool, listening)
        with psycopg.connect(locked.dsn, autocommit=True) as admin:
            admin.execute(f"alter role postgres password '{WRONG}'")
        try:
            eventually(lambda: pool.snapshot().state == "up", timeout=10)
            request(pool, 5)
            eventually(lambda: is_whole(pool, 4))
        finally:
            pool.conninfo = conninfo
            with psycopg.connect(locked.dsn, password=WRONG, autocommit=True) as admin:
                admin.execute(f"alter role postgres password '{SECRET}'")
        assert WRONG not in told(error, pool, listening)


def test_callers_already_waiting_are_told_of_a_rejection_at_once(
    make: Any, locked: PostgresServer
) -> None:
    with make(1, conninfo=make_conninfo(locked.conninfo, password=WRONG)) as pool:
        start = monotonic()
        callers = [spawn(refused_at_once, pool, "password authentication") for _ in range(10)]
        gather(*callers)
        assert monotonic() - start < 1


def test_a_password_that_changes_under_the_pool_takes_nothing_from_those_who_have_connections(
    make: Any, locked: PostgresServer
) -> None:
    with make(1, 3, conninfo=locked.conninfo) as pool:
        pool.wait(10)
        pool.conninfo = make_conninfo(locked.conninfo, password=WRONG)
        with pool.connection() as conn:
            # There is a connection to wait for: it will come back.
            with pytest.raises(PoolTimeout, match="password authentication failed"):
                with pool.connection(timeout=0.3):
                    pass
            conn.execute("select 1")
        request(pool, 1)


def test_a_missing_database_is_told_at_once_and_served_when_it_is_there(
    make: Any, server: PostgresServer, listening: Any
) -> None:
    conninfo = make_conninfo(server.conninfo, dbname="not_there_yet", password=SECRET)
    with make(2, conninfo=conninfo) as pool:
        error = refused_at_once(pool, "not_there_yet.*does not exist")
        assert SECRET not in told(error, pool, listening)
        with psycopg.connect(server.dsn, autocommit=True) as admin:
            admin.execute("create database not_there_yet")
            try:
                eventually(lambda: pool.snapshot().state == "up", timeout=10)
                request(pool, 5)
            finally:
                pool.close()
                admin.execute("drop database not_there_yet with (force)")


def test_a_server_without_room_still_serves_those_connections_that_there_are(
    make: Any, proxy: FaultProxy
) -> None:
    with make(2, 6) as pool:
        pool.wait(10)
        full = error_response("53300", "sorry, too many clients already")
        rule = proxy.on(STARTUP, Answer(full, FIN), times=None)
        with pool.connection(), pool.connection():
            with pytest.raises(PoolTimeout, match="too many clients") as caught:
                with pool.connection(timeout=0.5):
                    pass
            assert not isinstance(caught.value, PoolUnavailable)
            assert pool.snapshot().trouble == "too many connections"
            waiter = spawn(request, pool, 5)
            sleep(0.05)
        waiter.result()
        for _ in range(10):
            request(pool, 0.5)
        assert not cuts(pool)
        rule.remove()
        with pool.connection(), pool.connection():
            request(pool, 5)


def test_a_crowded_server_does_not_make_an_empty_pool_fail_at_once(
    make: Any, proxy: FaultProxy
) -> None:
    full = Answer(error_response("53300", "sorry, too many clients already"), FIN)
    rule = proxy.on(STARTUP, full, times=None)
    with make(2) as pool:
        waiter = spawn(request, pool, 10)
        eventually(lambda: rule.hits >= 3)
        rule.remove()
        waiter.result()


def test_a_refused_connect_is_the_reason_of_the_timeout(make: Any, listening: Any) -> None:
    with refusing_port() as port:
        conninfo = f"host=127.0.0.1 port={port} user=x dbname=x password={SECRET}"
        with make(1, conninfo=conninfo) as pool:
            with pytest.raises(PoolTimeout, match="refused") as caught:
                with pool.connection(timeout=0.3):
                    pass
            assert not isinstance(caught.value, PoolUnavailable)
            assert SECRET not in told(caught.value, pool, listening)


BROKEN = [
    pytest.param(f"host=127.0.0.1 password={SECRET}' oops", id="stray quote"),
    pytest.param(f"host=127.0.0.1 password=a {SECRET} user=x", id="unquoted space"),
    pytest.param(f"postgresql://x:{SECRET}@[::1/x", id="broken address"),
    pytest.param(f"postgresql://x:a@{SECRET}%zz@127.0.0.1/x", id="broken escape"),
    pytest.param(f"host=127.0.0.1 {SECRET}=x", id="unknown parameter"),
    pytest.param(f"host=127.0.0.1 password={SECRET} sslmode=sometimes", id="impossible value"),
]


@pytest.mark.parametrize("broken", BROKEN)
def test_a_conninfo_that_cannot_be_used_is_told_at_once_and_not_quoted(
    make: Any, broken: str, listening: Any
) -> None:
    with make(1, conninfo=broken) as pool:
        error = refused_at_once(pool, "cannot connect")
        assert SECRET not in told(error, pool, listening)


def test_a_password_among_the_keyword_arguments_is_not_told_either(
    make: Any, listening: Any
) -> None:
    kwargs = {"host": "127.0.0.1", "password": SECRET, "sslmode": "sometimes"}
    with make(1, conninfo="", kwargs=kwargs) as pool:
        error = refused_at_once(pool, "sometimes|cannot be parsed")
        assert SECRET not in told(error, pool, listening)


def test_a_server_that_echoes_the_password_is_not_quoted_with_it(
    make: Any, proxy: FaultProxy, listening: Any
) -> None:
    proxy.on(STARTUP, Answer(error_response("28000", f"bad guess: {SECRET}"), FIN), times=None)
    conninfo = make_conninfo(make.dsn, password=SECRET)
    with make(1, conninfo=conninfo) as pool:
        with pytest.raises(PoolTimeout, match=r"bad guess: \*\*\*") as caught:
            with pool.connection(timeout=0.5):
                pass
        assert SECRET not in told(caught.value, pool, listening)


@pytest.mark.parametrize("how", ["raises", "returns nonsense"])
def test_a_conninfo_function_that_fails_is_told_without_its_secrets(
    make: Any, how: str, listening: Any
) -> None:
    def conninfo() -> str:
        if how == "raises":
            raise RuntimeError("no token today")
        return f"password={SECRET} nonsense"

    with make(1, conninfo=conninfo) as pool:
        with pytest.raises(PoolTimeout) as caught:
            with pool.connection(timeout=0.5):
                pass
        text = told(caught.value, pool, listening)
        assert SECRET not in text
        assert how != "raises" or "no token today" in str(caught.value)


def test_a_host_that_does_not_resolve_is_told_at_once(make: Any, listening: Any) -> None:
    conninfo = f"host=no-such-host.invalid user=x dbname=x password={SECRET}"
    with make(1, conninfo=conninfo) as pool:
        start = monotonic()
        with pytest.raises(PoolUnavailable, match="no-such-host.invalid") as caught:
            with pool.connection(timeout=20):
                pass
        assert monotonic() - start < 10  # as long as the resolver takes to say so
        assert SECRET not in told(caught.value, pool, listening)


def test_a_death_is_told_without_the_servers_control_characters(
    make: Any, proxy: FaultProxy, listening: Any
) -> None:
    with make(1) as pool:
        pool.wait(10)
        proxy.cut(fatal("57P05", "bye\r\nERROR everpool: \x1b[31mforged " + 500 * "x"))
        eventually(lambda: cuts(pool))
        (cause,) = cuts(pool)
        assert cause.isprintable()
        assert len(cause) < 250
        assert "\x1b" not in listening.text
