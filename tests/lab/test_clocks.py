"""Cuts by the clock, heartbeats, and what the statistics say about them."""

from __future__ import annotations

import threading
import time

import psycopg
import pytest

from everpool.lab import (
    FIN,
    RST,
    RST_NEXT,
    SILENCE,
    FaultProxy,
    PostgresServer,
    Style,
    fatal,
)
from everpool.lab.frames import build

from .conftest import Raw

STYLES = [FIN, RST, RST_NEXT, SILENCE, fatal("57P05")]


@pytest.mark.parametrize("style", STYLES, ids=str)
def test_idle_cut(proxy: FaultProxy, raw: Raw, style: Style) -> None:
    proxy.idle_cut(0.3, style)
    client = raw().login()
    for _ in range(4):
        time.sleep(0.1)
        client.query("SELECT 1")
        client.until("ReadyForQuery")
    assert not proxy.stats().cuts, "traffic keeps it alive"
    stats = proxy.wait(lambda stats: bool(stats.cuts))
    (cut,) = stats.cuts
    assert (cut.style, cut.reason, cut.in_hand) == (style, "idle", False)
    assert cut.idle >= 0.3
    assert cut.age >= 0.7


def test_unanswered_requests_are_traffic(proxy: FaultProxy, raw: Raw) -> None:
    client = raw().login()
    client.query("SELECT pg_sleep(30)")
    proxy.idle_cut(0.4, RST)
    for _ in range(8):
        time.sleep(0.1)
        client.sock.sendall(build(b"H"))
    assert not proxy.stats().cuts
    assert client.ending() == "rst"


@pytest.mark.parametrize("style", STYLES, ids=str)
def test_age_cut_takes_no_notice_of_traffic(proxy: FaultProxy, raw: Raw, style: Style) -> None:
    proxy.age_cut(0.3, style)
    client = raw().login()
    client.query("SELECT pg_sleep(30)")
    (cut,) = proxy.wait(lambda stats: bool(stats.cuts)).cuts
    assert (cut.style, cut.reason, cut.in_hand) == (style, "age", True)
    assert 0.3 <= cut.age < 5
    assert proxy.stats().cuts_in_hand == 1


def test_age_cut_between_requests(proxy: FaultProxy, raw: Raw) -> None:
    proxy.age_cut(0.3, FIN, between_requests=True)
    idle, busy = raw().login(), raw().login()
    busy.query("BEGIN")
    busy.until("ReadyForQuery")
    assert idle.ending() == "fin"
    busy.query("SELECT pg_sleep(0.3)")
    busy.until("ReadyForQuery")
    assert len(proxy.stats().cuts) == 1, "a transaction is open"
    busy.query("COMMIT")
    busy.until("ReadyForQuery")
    assert busy.ending() == "fin"
    assert proxy.stats().cuts_in_hand == 0
    assert [cut.reason for cut in proxy.stats().cuts] == ["age", "age"]


def test_between_requests_spares_pipelines_and_copies(
    server: PostgresServer, proxy: FaultProxy
) -> None:
    with psycopg.connect(proxy.via(server.dsn), autocommit=True) as conn:
        conn.execute("CREATE TEMP TABLE c (i int)")
        proxy.age_cut(0.0, RST, between_requests=True)  # from now on, the first moment will do
        proxy.wait(lambda stats: bool(stats.cuts))
    for use in ("copy", "pipeline", "transaction"):
        proxy.age_cut(0.2, RST, between_requests=True)
        with psycopg.connect(proxy.via(server.dsn), autocommit=use != "transaction") as conn:
            if use == "copy":
                sql = "COPY (SELECT 1, pg_sleep(0.4)) TO STDOUT"
                with conn.cursor() as cur, cur.copy(sql) as copy:
                    list(copy)
            elif use == "pipeline":
                with conn.pipeline():
                    for _ in range(5):
                        conn.execute("SELECT pg_sleep(0.1)")
            else:
                conn.execute("CREATE TEMP TABLE c (i int)")
                with conn.cursor() as cur, cur.copy("COPY c FROM STDIN") as copy:
                    copy.write_row([1])
                    time.sleep(0.4)
                    copy.write_row([2])
                conn.commit()
    proxy.wait(lambda stats: len(stats.cuts) == 4)
    assert proxy.stats().cuts_in_hand == 0


def test_clocks_of_one_connection_can_be_changed_and_stopped(proxy: FaultProxy, raw: Raw) -> None:
    proxy.idle_cut(0.4, FIN)
    spared, meant = raw().login(), raw().login()
    proxy.idle_cut(None, link=spared.number)
    assert meant.ending() == "fin"
    assert spared.is_quiet(0.3)
    proxy.age_cut(0.0, RST, link=spared.number)
    assert spared.ending() == "rst"
    proxy.idle_cut(None)
    assert raw().login().is_quiet(0.6)


def test_heartbeat(server: PostgresServer, proxy: FaultProxy, raw: Raw) -> None:
    client = raw().login()
    proxy.heartbeat(0.1, "application_name", "tick")
    for _ in range(3):
        (frame,) = client.until("ParameterStatus")
        assert frame.body == b"application_name\0tick\0"
    proxy.heartbeat(None)
    with psycopg.connect(proxy.via(server.dsn), autocommit=True) as conn:
        proxy.heartbeat(0.05, "application_name", "tock")
        for _ in range(20):
            assert conn.execute("SELECT 1").fetchone() == (1,)
            time.sleep(0.01)
        assert conn.info.parameter_status("application_name") == "tock"


def test_a_heartbeat_is_no_traffic(proxy: FaultProxy, raw: Raw) -> None:
    proxy.idle_cut(0.3, FIN)
    proxy.heartbeat(0.1)
    assert raw().login().ending() == "fin"


def test_statistics(server: PostgresServer, proxy: FaultProxy) -> None:
    proxy.latency(0.1)
    gate = threading.Barrier(4)

    def connect() -> None:
        gate.wait()
        with psycopg.connect(proxy.via(server.dsn), gssencmode="disable", sslmode="disable"):
            gate.wait()

    threads = [threading.Thread(target=connect) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stats = proxy.wait(lambda stats: stats.open == 0)
    assert (stats.accepted, stats.max_open, stats.connecting) == (4, 4, 0)
    assert stats.max_connecting == 4


def test_cancel_requests_are_no_sessions(server: PostgresServer, proxy: FaultProxy) -> None:
    with psycopg.connect(proxy.via(server.dsn), autocommit=True) as conn:
        timer = threading.Timer(0.2, conn.cancel_safe)
        timer.start()
        with pytest.raises(psycopg.errors.QueryCanceled):
            conn.execute("SELECT pg_sleep(30)")
        timer.join()
        stats = proxy.wait(lambda stats: stats.connecting == 0)
        assert (stats.accepted, stats.cancels, stats.open, stats.max_open) == (2, 1, 1, 1)


def test_waiting_has_an_end(proxy: FaultProxy) -> None:
    with pytest.raises(TimeoutError, match="accepted=0"):
        proxy.wait(lambda stats: stats.accepted > 0, timeout=0.05)
