"""Cuts of the moment: what each style looks like to the client, and to the server behind."""

from __future__ import annotations

import socket
import time

import psycopg
import pytest
from psycopg import errors

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
from everpool.lab.frames import error_response, notice_response, ready_for_query

from .conftest import Raw


def backend_is_gone(server: PostgresServer, pid: int, timeout: float = 10.0) -> bool:
    deadline = time.monotonic() + timeout
    with psycopg.connect(server.dsn, autocommit=True) as conn:
        while time.monotonic() < deadline:
            if not conn.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", [pid]).fetchall():
                return True
            time.sleep(0.02)
    return False


@pytest.mark.parametrize(("style", "end"), [(FIN, "fin"), (RST, "rst"), (fatal("57P05"), "fin")])
def test_the_client_of_a_cut_connection_sees_the_right_end(
    proxy: FaultProxy, raw: Raw, style: Style, end: str
) -> None:
    client = raw().login()
    assert proxy.cut(style) == 1
    assert client.ending() == end
    said = [frame for frame in client.left_over() if frame.kind == "ErrorResponse"]
    assert [b"C57P05\0" in frame.body for frame in said] == ([True] if style.sqlstate else [])


def test_a_reset_leaves_although_the_client_is_sending(proxy: FaultProxy, raw: Raw) -> None:
    """Try hard: what a close becomes depends on what is unread at that moment."""
    for _ in range(20):
        client = raw().login()
        client.query("SELECT 1")
        proxy.cut(RST)
        assert client.ending() == "rst"


def test_the_next_packet_is_reset_and_nothing_is_said_before(proxy: FaultProxy, raw: Raw) -> None:
    client = raw().login()
    proxy.cut(RST_NEXT)
    assert client.is_quiet()
    client.query("SELECT 1")
    assert client.ending() == "rst"


def test_data_for_a_connection_that_was_closed_is_reset(proxy: FaultProxy, raw: Raw) -> None:
    client = raw().login()
    proxy.cut(FIN)
    assert client.sock.recv(1) == b""
    assert proxy.stats().closing == 1
    client.query("SELECT 1")
    proxy.wait(lambda stats: stats.closing == 0)
    with pytest.raises(ConnectionError):
        client.query("SELECT 1")


def test_silence_acknowledges_and_never_answers(proxy: FaultProxy, raw: Raw) -> None:
    client = raw().login()
    proxy.cut(SILENCE)
    client.query("SELECT 1")
    assert client.is_quiet()
    deadline = time.monotonic() + 10
    while unacknowledged(client.sock):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert proxy.links()[0].state == "silent"


def unacknowledged(sock: socket.socket) -> int:
    # tcpi_unacked: eight one-byte fields, then the fifth 32-bit word.
    return int.from_bytes(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32)[24:28], "little")


def test_a_silent_connection_can_still_be_reset(proxy: FaultProxy, raw: Raw) -> None:
    client = raw().login()
    proxy.cut(SILENCE)
    assert proxy.cut(SILENCE) == 0
    assert proxy.cut(RST_NEXT) == 1
    client.query("SELECT 1")
    assert client.ending() == "rst"


@pytest.mark.parametrize(
    ("style", "error"),
    [
        (FIN, psycopg.OperationalError),
        (RST, psycopg.OperationalError),
        (RST_NEXT, psycopg.OperationalError),
        (fatal("57P05"), errors.IdleSessionTimeout),
        (fatal("57P01"), errors.AdminShutdown),
        (fatal("08P01", "server conn crashed?"), errors.ProtocolViolation),
    ],
    ids=str,
)
def test_what_psycopg_makes_of_it(
    server: PostgresServer, proxy: FaultProxy, style: Style, error: type[psycopg.Error]
) -> None:
    with psycopg.connect(proxy.via(server.dsn)) as conn:
        pid = conn.info.backend_pid
        proxy.cut(style)
        with pytest.raises(error) as caught:
            conn.execute("SELECT 1")
        assert caught.value.sqlstate == (style.sqlstate or None)
        assert conn.broken
    assert backend_is_gone(server, pid), "the server must be told of the end"


def test_a_cut_in_the_middle_of_a_query(
    server: PostgresServer, proxy: FaultProxy, raw: Raw
) -> None:
    client = raw().login()
    client.query("SELECT pg_sleep(30)")
    proxy.wait(lambda stats: proxy.links()[0].in_hand)
    proxy.cut(fatal("57P01"))
    client.until("ErrorResponse")
    assert client.ending() == "fin"
    assert proxy.stats().cuts_in_hand == 1


def test_only_the_chosen_connection_is_cut(server: PostgresServer, proxy: FaultProxy) -> None:
    with (
        psycopg.connect(proxy.via(server.dsn), autocommit=True) as one,
        psycopg.connect(proxy.via(server.conninfo), autocommit=True) as two,
    ):
        assert proxy.cut(RST, link=proxy.find(backend_pid=one.info.backend_pid)) == 1
        assert two.execute("SELECT 1").fetchone() == (1,)
        with pytest.raises(psycopg.OperationalError):
            one.execute("SELECT 1")
    with pytest.raises(LookupError):
        proxy.cut(RST, link=99)


def test_a_one_sided_cut_leaves_the_session_on_the_server(
    server: PostgresServer, proxy: FaultProxy
) -> None:
    conn = psycopg.connect(proxy.via(server.dsn))
    conn.execute("SELECT 1")
    pid = conn.info.backend_pid
    proxy.cut(RST.one_sided())
    conn.close()
    assert not backend_is_gone(server, pid, timeout=0.3)
    proxy.close()
    assert backend_is_gone(server, pid)


def test_a_fatal_that_ends_nothing(server: PostgresServer, proxy: FaultProxy, raw: Raw) -> None:
    client = raw().login()
    proxy.inject(error_response("57P05", "idle too long, it says") + ready_for_query())
    assert [frame.kind for frame in client.until("ReadyForQuery")] == [
        "ErrorResponse",
        "ReadyForQuery",
    ]
    client.query("SELECT 1")
    assert "DataRow" in [frame.kind for frame in client.until("ReadyForQuery")]


def test_an_injected_notice_reaches_the_handlers(server: PostgresServer, proxy: FaultProxy) -> None:
    with psycopg.connect(proxy.via(server.dsn), autocommit=True) as conn:
        seen: list[str | None] = []
        conn.add_notice_handler(lambda diag: seen.append(diag.sqlstate))
        proxy.inject(notice_response("01000", "hear, hear"))
        assert conn.execute("SELECT 1").fetchone() == (1,)
        assert seen == ["01000"]


def test_styles_as_text() -> None:
    for style in (FIN, RST, RST_NEXT, SILENCE, fatal("57P05"), fatal()):
        assert Style.parse(str(style)) == style
    for wrong in ("", "bang", "fatal:1", "fin:57P01"):
        with pytest.raises(ValueError, match=r"cut|SQLSTATE"):
            Style.parse(wrong)
