"""How the path carries bytes: latency, drip, silence, refusal, cuts at a byte; healing."""

from __future__ import annotations

import asyncio
import gc
import time

import psycopg
import pytest

from everpool.lab import FIN, RST, RST_NEXT, SILENCE, FaultProxy, PostgresServer, Style
from everpool.lab.frames import build, startup_message

from .conftest import Raw

ROWS = "SELECT repeat('x', 1000) FROM generate_series(1, 5000)"


def test_latency_delays_each_way_without_limiting_throughput(
    server: PostgresServer, proxy: FaultProxy
) -> None:
    with psycopg.connect(proxy.via(server.dsn), autocommit=True) as conn:
        proxy.latency(0.1)
        began = time.monotonic()
        conn.execute("SELECT 1")
        assert time.monotonic() - began >= 0.2
        began = time.monotonic()
        assert len(conn.execute(ROWS).fetchall()) == 5000
        # 5 MB in pieces: a pause per piece, instead of a delay line, would take two seconds and
        # more.
        assert 0.2 <= time.monotonic() - began < 1.5
        proxy.latency(0)
        began = time.monotonic()
        conn.execute("SELECT 1")
        assert time.monotonic() - began < 0.2


def test_latency_of_one_direction_and_one_connection(
    server: PostgresServer, proxy: FaultProxy
) -> None:
    with (
        psycopg.connect(proxy.via(server.dsn), autocommit=True) as slow,
        psycopg.connect(proxy.via(server.dsn), autocommit=True) as fast,
    ):
        number = proxy.find(backend_pid=slow.info.backend_pid)
        proxy.latency(0.3, direction="to_client", link=number)
        began = time.monotonic()
        fast.execute("SELECT 1")
        assert time.monotonic() - began < 0.3
        slow.execute("SELECT 1")
        assert time.monotonic() - began >= 0.3


def test_jitter_keeps_the_order(server: PostgresServer, proxy: FaultProxy) -> None:
    with psycopg.connect(proxy.via(server.dsn), autocommit=True) as conn:
        proxy.latency(0.0, jitter=0.02)
        rows = conn.execute("SELECT i FROM generate_series(1, 50000) i").fetchall()
        assert [i for (i,) in rows] == list(range(1, 50001))


def test_drip(proxy: FaultProxy, raw: Raw) -> None:
    client = raw().login()
    proxy.drip(4, 0.02)
    client.query("SELECT 1")
    began = time.monotonic()
    size = sum(len(frame.data) for frame in client.until("ReadyForQuery"))
    assert time.monotonic() - began >= (size // 4 - 1) * 0.02
    client.query(ROWS)
    client.until("RowDescription")
    proxy.drip(0, 0)
    client.until("ReadyForQuery")


def test_refused_and_accepted_again_on_the_same_port(
    server: PostgresServer, proxy: FaultProxy
) -> None:
    with psycopg.connect(proxy.via(server.dsn), autocommit=True) as conn:
        port = proxy.port
        for _ in range(3):
            proxy.refuse()
            proxy.refuse()
            with pytest.raises(psycopg.OperationalError, match="refused"):
                psycopg.connect(proxy.via(server.dsn))
            assert conn.execute("SELECT 1").fetchone() == (1,), "live connections go on"
            proxy.accept()
            proxy.accept()
            psycopg.connect(proxy.via(server.dsn)).close()
        assert proxy.port == port


def test_hanging_connects_are_answered_after_healing(proxy: FaultProxy, raw: Raw) -> None:
    old = raw().login()
    proxy.hang()
    new = raw()
    new.sock.sendall(startup_message("postgres"))
    assert new.is_quiet()
    old.query("SELECT 1")
    old.until("ReadyForQuery")
    assert proxy.stats().connecting == 1
    proxy.heal()
    new.until("ReadyForQuery")
    assert proxy.stats().connecting == 0


def test_psycopg_gives_up_on_a_hanging_connect(server: PostgresServer, proxy: FaultProxy) -> None:
    def attempt() -> None:
        with pytest.raises(psycopg.errors.ConnectionTimeout):
            psycopg.connect(proxy.via(server.dsn), connect_timeout=2)

    proxy.hang()
    attempt()
    gc.collect()  # psycopg 3.3 leaves the socket of a timed-out connect to the garbage collector
    proxy.wait(lambda stats: stats.connecting == 0)


def test_silence_loses_what_was_said(proxy: FaultProxy, raw: Raw) -> None:
    client = raw().login()
    proxy.silence()
    client.query("SELECT 1")
    assert client.is_quiet()
    proxy.heal()
    assert client.is_quiet(), "what was swallowed is lost"
    client.query("SELECT 2")
    rows = [frame.body for frame in client.until("ReadyForQuery") if frame.kind == "DataRow"]
    assert rows == [b"\0\1\0\0\0\1" + b"2"]
    assert not proxy.links()[0].in_hand, "what was lost is not waited for"


def test_late_silence_delivers_on_healing(proxy: FaultProxy, raw: Raw) -> None:
    client = raw().login()
    proxy.silence(late=True)
    client.query("SELECT 1")
    assert client.is_quiet()
    proxy.heal()
    client.until("ReadyForQuery")


def test_the_silence_of_one_connection(proxy: FaultProxy, raw: Raw) -> None:
    deaf, well = raw().login(), raw().login()
    proxy.silence(link=deaf.number, late=True)
    deaf.query("SELECT 1")
    well.query("SELECT 1")
    well.until("ReadyForQuery")
    assert deaf.is_quiet()
    raw().login()
    proxy.heal(link=deaf.number)
    deaf.until("ReadyForQuery")


def test_a_server_that_hung_up_in_the_silence_is_noticed_after_healing(
    server: PostgresServer, proxy: FaultProxy, raw: Raw
) -> None:
    client = raw().login()
    (info,) = proxy.links()
    proxy.cut(SILENCE)
    with psycopg.connect(server.dsn) as conn:
        conn.execute("SELECT pg_terminate_backend(%s, 5000)", [info.backend_pid])
    assert client.is_quiet()
    proxy.heal()
    assert client.ending() == "fin"


def test_a_healed_cut_is_open_again_and_on_the_clock(proxy: FaultProxy, raw: Raw) -> None:
    client = raw().login()
    proxy.cut(SILENCE)
    proxy.idle_cut(0.2, RST)
    assert client.is_quiet(0.4), "a dead connection has no clocks"
    proxy.heal()
    assert client.ending() == "rst"
    assert [cut.reason for cut in proxy.stats().cuts] == ["asked", "idle"]


@pytest.mark.parametrize("style", [FIN, RST, SILENCE, RST_NEXT], ids=str)
def test_cut_at_a_byte_of_the_answer(proxy: FaultProxy, raw: Raw, style: Style) -> None:
    client = raw().login()
    proxy.cut_at_byte(13, style)
    client.query("SELECT 1")
    proxy.wait(lambda stats: bool(stats.cuts))
    got = b""
    client.sock.settimeout(0.3)
    try:
        while data := client.sock.recv(100):
            got += data
    except (ConnectionResetError, TimeoutError):
        pass
    assert len(got) == 13
    (cut,) = proxy.stats().cuts
    assert (cut.reason, cut.style, cut.in_hand) == ("byte", style, True)


def test_cut_at_a_byte_of_the_request(proxy: FaultProxy, raw: Raw) -> None:
    client = raw().login()
    proxy.cut_at_byte(5, RST, direction="to_server")
    client.query("SELECT 1")
    assert client.ending() == "rst"


def test_cut_at_every_byte_of_the_login(server: PostgresServer, proxy: FaultProxy) -> None:
    for count in range(0, 320, 40):
        proxy.cut_at_byte(count, FIN)
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(proxy.via(server.dsn), gssencmode="disable")
    proxy.heal()
    psycopg.connect(proxy.via(server.dsn)).close()


def test_large_answers_meet_backpressure(proxy: FaultProxy, raw: Raw) -> None:
    """The proxy must not swallow what its client does not read."""
    client = raw().login()
    client.query("SELECT repeat('x', 1000000) FROM generate_series(1, 60)")
    time.sleep(0.5)
    assert proxy._relay is not None
    assert proxy._relay.links[client.number].to_client.buffered < 8_000_000
    assert client.until("ReadyForQuery")[-2].body == b"SELECT 60\0"


def test_large_requests_meet_backpressure(proxy: FaultProxy, raw: Raw) -> None:
    client = raw().login()
    proxy.silence(late=True)
    client.sock.settimeout(0.5)
    with pytest.raises(TimeoutError):
        client.sock.sendall(build(b"Q", bytes(1_000_000)) * 60)
    assert proxy._relay is not None
    assert proxy._relay.links[client.number].to_server.buffered < 8_000_000


def test_new_connections_follow_the_new_target(server: PostgresServer, proxy: FaultProxy) -> None:
    with psycopg.connect(proxy.via(server.dsn), autocommit=True) as conn:
        proxy.retarget("127.0.0.1", 1)  # nobody listens there
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(proxy.via(server.dsn))
        conn.execute("SELECT 1")
        proxy.retarget(server.host, server.port)
        psycopg.connect(proxy.via(server.dsn)).close()


def test_bytes_that_are_not_postgresql_pass(proxy: FaultProxy, raw: Raw) -> None:
    client = raw()
    client.sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
    client.ending()  # the server says what it thinks of that, and hangs up
    client = raw().login()
    client.sock.sendall(build(b"?", b"nonsense"))
    assert client.until("ErrorResponse")


def test_in_async_code_and_while_its_loop_is_stalled(server: PostgresServer) -> None:
    async def scenario() -> None:
        async with FaultProxy(server.host, server.port) as proxy:
            conn = await psycopg.AsyncConnection.connect(proxy.via(server.dsn), autocommit=True)
            async with conn:
                proxy.idle_cut(0.2, RST)
                time.sleep(0.6)  # noqa: ASYNC251  the loop under test does nothing
                (cut,) = proxy.stats().cuts
                assert cut.idle < 0.5
                with pytest.raises(psycopg.OperationalError):
                    await conn.execute("SELECT 1")
            await proxy.wait_async(lambda stats: stats.open == 0)

    asyncio.run(scenario())
