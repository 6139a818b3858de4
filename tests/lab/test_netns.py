"""Packets that vanish. Skipped, with the reason, where the machine has no private networks."""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator

import psycopg
import pytest

from everpool.lab import FaultProxy, PostgresServer
from everpool.lab.netns import PrivateNetwork, Unavailable

from .test_cuts import unacknowledged


@pytest.fixture(scope="module")
def inside() -> Iterator[tuple[PrivateNetwork, PostgresServer]]:
    """This thread in a network of its own, with a server there."""
    try:
        with PrivateNetwork() as net, PostgresServer() as server:
            yield net, server
    except Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture
def net(inside: tuple[PrivateNetwork, PostgresServer]) -> Iterator[PrivateNetwork]:
    yield inside[0]
    inside[0].heal()


@pytest.fixture
def server(inside: tuple[PrivateNetwork, PostgresServer]) -> PostgresServer:
    return inside[1]


def own_namespace() -> int:
    return os.stat("/proc/thread-self/ns/net").st_ino


def connect(server: PostgresServer, **options: object) -> psycopg.Connection:
    return psycopg.connect(server.dsn, autocommit=True, **options)  # type: ignore[arg-type]


def test_dropped_packets_stay_unacknowledged_until_healed(
    net: PrivateNetwork, server: PostgresServer
) -> None:
    with connect(server) as conn:
        conn.execute("SELECT 1")
        before = net.gone
        net.drop(server.port)
        results: list[object] = []
        thread = threading.Thread(
            target=lambda: results.append(conn.execute("SELECT 2").fetchone())
        )
        thread.start()
        with socket.socket(fileno=os.dup(conn.fileno())) as sock:
            deadline = time.monotonic() + 10
            while not unacknowledged(sock):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            thread.join(0.5)
            assert thread.is_alive()
            assert unacknowledged(sock)
        assert net.gone > before
        net.heal()
        thread.join(20)  # the kernel tries again when it likes
        assert results == [(2,)]


def test_the_kernel_gives_up_by_itself(net: PrivateNetwork, server: PostgresServer) -> None:
    with connect(server, tcp_user_timeout=500) as conn:
        net.drop(server.port, "to_server")
        began = time.monotonic()
        with pytest.raises(psycopg.OperationalError, match="timed out"):
            conn.execute("SELECT 1")
        assert 0.4 < time.monotonic() - began < 10


def test_reject_resets_at_the_next_packet_only(net: PrivateNetwork, server: PostgresServer) -> None:
    with connect(server) as conn:
        net.reject(server.port)
        with pytest.raises(psycopg.OperationalError):
            conn.execute("SELECT 1")
        with pytest.raises(psycopg.OperationalError, match="refused"):
            connect(server)
        net.heal()
        connect(server).close()


def test_loss_slows_and_breaks_nothing(net: PrivateNetwork, server: PostgresServer) -> None:
    with connect(server) as conn:
        before = net.gone
        net.lose(server.port, 20)
        for number in range(15):
            assert conn.execute("SELECT %s", [number]).fetchone() == (number,)
        assert net.gone > before


def test_the_proxy_works_inside(net: PrivateNetwork, server: PostgresServer) -> None:
    with FaultProxy(server.host, server.port) as proxy:
        psycopg.connect(proxy.via(server.dsn)).close()


def test_only_the_thread_that_enters_is_inside_and_it_comes_back() -> None:
    home, seen = own_namespace(), []
    go, done = threading.Event(), threading.Event()

    def outsider() -> None:
        go.wait()
        seen.append(own_namespace())
        done.set()

    threading.Thread(target=outsider).start()
    try:
        with PrivateNetwork() as net:
            assert own_namespace() != home
            go.set()
            done.wait()
            thread = threading.Thread(target=lambda: seen.append(own_namespace()))
            thread.start()
            thread.join()
            assert seen == [home, own_namespace()]
            assert net.gone == 0
    except Unavailable as reason:
        pytest.skip(str(reason))
    finally:
        go.set()
    assert own_namespace() == home
    with pytest.raises(RuntimeError, match="not entered"):
        net.heal()


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(Unavailable, match="nft"):
        PrivateNetwork().__enter__()
