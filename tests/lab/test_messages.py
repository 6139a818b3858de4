"""Faults set off by a message: cut before and after, hold, drop, answer."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from psycopg import errors

from everpool.lab import (
    COMMIT,
    COMMITTED,
    FIN,
    READY,
    RST,
    SILENCE,
    STARTUP,
    Answer,
    CutAfter,
    CutBefore,
    Drop,
    FaultProxy,
    Hold,
    Message,
    PostgresServer,
    Style,
    fatal,
)
from everpool.lab.frames import error_response, ready_for_query, startup_message

from .conftest import Raw


@pytest.fixture
def table(server: PostgresServer) -> Iterator[psycopg.Connection]:
    """A connection past the proxy, with an empty table ``t``."""
    with psycopg.connect(server.dsn, autocommit=True) as conn:
        conn.execute("DROP TABLE IF EXISTS t; CREATE TABLE t (i int)")
        yield conn


def rows_within(conn: psycopg.Connection, count: int, timeout: float = 10.0) -> bool:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if conn.execute("SELECT count(*) FROM t").fetchone() == (count,):
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("style", [FIN, RST, fatal("57P01")], ids=str)
@pytest.mark.parametrize(
    ("message", "action", "stored"),
    [
        (COMMIT, CutBefore, 0),
        (COMMIT, CutAfter, 1),
        (COMMITTED, CutBefore, 1),
    ],
    ids=["request lost", "answer not awaited", "answer lost"],
)
def test_a_commit_with_an_unknown_outcome(
    server: PostgresServer,
    proxy: FaultProxy,
    table: psycopg.Connection,
    message: Message,
    action: type[CutBefore] | type[CutAfter],
    stored: int,
    style: Style,
) -> None:
    """To the client the three are the same; to the table they are not."""
    rule = proxy.on(message, action(style))
    with psycopg.connect(proxy.via(server.dsn)) as conn:
        conn.execute("INSERT INTO t VALUES (1)")
        pid = conn.info.backend_pid
        with pytest.raises(psycopg.OperationalError):
            conn.commit()
    assert rule.hits == 1
    (cut,) = proxy.stats().cuts
    assert (cut.reason, cut.in_hand, cut.style) == ("message", True, style)
    while table.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", [pid]).fetchall():
        time.sleep(0.01)
    assert table.execute("SELECT count(*) FROM t").fetchone() == (stored,)


def test_a_commit_in_the_extended_protocol(
    server: PostgresServer, proxy: FaultProxy, table: psycopg.Connection
) -> None:
    with psycopg.connect(proxy.via(server.dsn)) as conn:
        rule = proxy.on(COMMIT, CutBefore(RST))
        with pytest.raises(psycopg.OperationalError), conn.pipeline():
            conn.execute("INSERT INTO t VALUES (1)")
            conn.commit()
        assert rule.hits == 1
    assert rows_within(table, 0)


def test_a_held_commit_arrives_after_its_client_is_gone(
    server: PostgresServer, proxy: FaultProxy, table: psycopg.Connection
) -> None:
    rule = proxy.on(COMMIT, Hold())
    conn = psycopg.connect(proxy.via(server.dsn))
    conn.execute("INSERT INTO t VALUES (1)")
    with ThreadPoolExecutor() as pool:
        commit = pool.submit(conn.commit)
        rule.wait()
        proxy.cut(RST)
        with pytest.raises(psycopg.OperationalError):
            commit.result(10)
    conn.close()
    assert proxy.stats().open == 0
    assert not rows_within(table, 1, timeout=0.2)
    rule.release()
    assert rows_within(table, 1), "the late COMMIT was delivered"


def test_a_held_answer_keeps_the_order(proxy: FaultProxy, raw: Raw) -> None:
    client = raw().login()
    rule = proxy.on(Message("server", "DataRow"), Hold())
    client.query("SELECT 1")
    rule.wait()
    assert [frame.kind for frame in client.until("RowDescription")] == ["RowDescription"]
    assert client.is_quiet()
    rule.release()
    kinds = [frame.kind for frame in client.until("ReadyForQuery")]
    assert kinds == ["DataRow", "CommandComplete", "ReadyForQuery"]


def test_a_silence_after_the_answer_lets_it_through(proxy: FaultProxy, raw: Raw) -> None:
    client = raw().login()
    proxy.on(READY, CutAfter(SILENCE))
    client.query("SELECT 1")
    client.until("ReadyForQuery")
    client.query("SELECT 1")
    assert client.is_quiet()


def test_a_cut_before_the_answer_withholds_it(proxy: FaultProxy, raw: Raw) -> None:
    client = raw().login()
    proxy.on(READY, CutBefore(FIN))
    client.query("SELECT 1")
    assert client.ending() == "fin"
    kinds = [frame.kind for frame in client.left_over()]
    assert kinds == ["RowDescription", "DataRow", "CommandComplete"]


def test_latency_applies_before_the_cut(proxy: FaultProxy, raw: Raw) -> None:
    """What was sent before the cut is still under way when the cut is decided."""
    client = raw().login()
    proxy.latency(0.2, direction="to_client")
    proxy.on(READY, CutAfter(RST))
    client.query("SELECT 1")
    assert client.until("ReadyForQuery")
    assert client.ending() == "rst"


def test_nothing_slips_out_behind_a_cut_that_is_under_way(proxy: FaultProxy, raw: Raw) -> None:
    client = raw().login()
    proxy.latency(0.2, direction="to_client")
    proxy.on(Message("server", "DataRow"), CutAfter(FIN))
    client.query("SELECT 1")
    assert client.ending() == "fin"
    assert [frame.kind for frame in client.left_over()] == ["RowDescription", "DataRow"]


@pytest.mark.parametrize("sqlstate", ["53300", "57P03", "28P01"])
def test_a_login_answered_by_a_refusal(
    server: PostgresServer, proxy: FaultProxy, sqlstate: str
) -> None:
    proxy.on(STARTUP, Answer(error_response(sqlstate, "no, says the relay"), then=FIN), times=2)
    for _ in range(2):
        with pytest.raises(psycopg.OperationalError, match="says the relay"):
            psycopg.connect(proxy.via(server.dsn))
    psycopg.connect(proxy.via(server.dsn)).close()


def test_a_request_answered_by_the_proxy(server: PostgresServer, proxy: FaultProxy) -> None:
    """A FATAL that is followed by ReadyForQuery, as one pooler sends it, ends nothing."""
    answer = Answer(error_response("57P05", "gone, it says") + ready_for_query())
    with psycopg.connect(proxy.via(server.dsn), autocommit=True) as conn:
        proxy.on(Message("client", "Query", contains=b"select 2"), answer)
        conn.execute("SELECT 1")
        with pytest.raises(errors.IdleSessionTimeout):
            conn.execute("SELECT 2")
        assert not proxy.links()[0].in_hand
        assert conn.execute("SELECT 2").fetchone() == (2,)


def test_a_dropped_message(proxy: FaultProxy, raw: Raw) -> None:
    client = raw().login()
    proxy.on(Message("server", ("C", "Z")), Drop(), times=None)
    client.query("SELECT 1")
    client.until("DataRow")
    assert client.is_quiet()


def test_which_messages_count(proxy: FaultProxy, raw: Raw) -> None:
    one, two = raw().login(), raw().login()
    query = Message("client", "Q", where=lambda frame: b"pg_" not in frame.body)
    rule = proxy.on(query, CutBefore(FIN), link=one.number, skip=1)
    for client, sql in ((two, "SELECT 1"), (one, "SELECT 2"), (one, "SELECT pg_sleep(0)")):
        client.query(sql)
        client.until("ReadyForQuery")
    assert rule.hits == 0
    one.query("SELECT 3")
    assert one.ending() == "fin"
    rule.wait()


def test_a_removed_rule_does_nothing(proxy: FaultProxy, raw: Raw) -> None:
    client = raw().login()
    rule = proxy.on(Message("client", "Query"), CutBefore(), times=None)
    rule.remove()
    client.query("SELECT 1")
    client.until("ReadyForQuery")
    with pytest.raises(TimeoutError, match="0 times"):
        rule.wait(0.01)


def test_a_misspelt_message_is_refused() -> None:
    with pytest.raises(ValueError, match="Quarry"):
        Message("client", "Quarry")
    with pytest.raises(ValueError, match="ReadyForQuery"):
        Message("client", "ReadyForQuery")


def test_an_error_in_a_predicate_is_not_lost(server: PostgresServer) -> None:
    proxy = FaultProxy(server.host, server.port).start()
    called = threading.Event()

    def broken(frame: object) -> bool:
        called.set()
        raise ZeroDivisionError

    proxy.on(Message("client", where=broken), Drop())
    with socket.create_connection((proxy.host, proxy.port)) as sock:
        sock.sendall(startup_message("me"))
        assert called.wait(10)
    with pytest.raises(ZeroDivisionError):
        proxy.close()
