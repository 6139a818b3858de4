"""What holds with every registry: nobody waits for it, nothing is kept alive, nothing is left behind."""

from __future__ import annotations

import gc
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from time import monotonic
from typing import Any
from weakref import ref

import pytest

from everpool import AsyncConnectionPool, ConnectionPool
from everpool.discovery import Consul, Instance, Registrar
from everpool.discovery.http import Lost
from everpool.discovery.instance import Report
from everpool.lab import PostgresServer
from tests.discovery.consul_agent import ConsulAgent
from tests.support import aio
from tests.support.net import silent_port
from tests.support.threads import eventually, sleep


class Registry:
    """A registry whose every call is the given function."""

    shown = "test://"
    ttl = 1.5

    def __init__(self, act: Callable[[str], None]) -> None:
        self.act = act
        self.calls: list[str] = []

    def entry(self, instance: Instance) -> Registry:
        return self

    def register(self, report: Report) -> None:
        self._call("register")

    def report(self, report: Report) -> None:
        self._call("report")

    def withdraw(self) -> None:
        self._call("withdraw")

    def _call(self, what: str) -> None:
        self.calls.append(what)
        self.act(what)


def discovery_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "everpool-orders"]


def test_a_registry_that_hangs_blocks_neither_pool_nor_close(
    orders: Instance, pool: ConnectionPool
) -> None:
    with silent_port() as port:
        registrar = Registrar(Consul(f"http://127.0.0.1:{port}", ttl=3), orders, pool).start()
        sleep(0.1)
        began = monotonic()
        for _ in range(100):
            with pool.connection() as conn:
                conn.execute("select 1")
            assert registrar.standing.registered is False
        pool.pause()
        pool.resume()
        assert monotonic() - began < 1
        eventually(lambda: registrar.standing.error == "no answer in time")
        began = monotonic()
        registrar.close(timeout=0.2)
        assert monotonic() - began < 0.4
        eventually(lambda: not discovery_threads(), timeout=8)


def test_a_registry_that_trickles_is_given_up(orders: Instance, pool: ConnectionPool) -> None:
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def trickle() -> None:
            try:
                while True:
                    sock, _ = listener.accept()
                    with sock:
                        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
                        while not stop.wait(0.1):
                            sock.sendall(b"x")
            except OSError:
                pass

        thread = threading.Thread(target=trickle, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        registrar = Registrar(Consul(url, ttl=1.5), orders, pool).start()
        eventually(lambda: registrar.standing.error == "no answer in time", timeout=3)
        registrar.close(timeout=0)
        stop.set()
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)
    eventually(lambda: not discovery_threads(), timeout=8)


@pytest.mark.parametrize(
    "answer",
    [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nx", b"\x00" * 70000],
    ids=["nothing", "no HTTP", "cut short", "rubbish"],
)
def test_a_broken_answer_is_a_failure_and_no_more(
    orders: Instance, pool: ConnectionPool, answer: bytes
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            try:
                while True:
                    sock, _ = listener.accept()
                    with sock:
                        sock.recv(65536)
                        sock.sendall(answer)
                        sock.shutdown(socket.SHUT_WR)
                        while sock.recv(65536):  # an RST would be something else
                            pass
            except OSError:
                pass

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        registrar = Registrar(Consul(url, ttl=1.5), orders, pool).start()
        eventually(lambda: registrar.standing.failures >= 2)
        assert len(registrar.standing.error) < 250
        assert "\x00" not in registrar.standing.error
        registrar.close(timeout=0)
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)


def test_an_error_that_nobody_foresaw_ends_nothing(orders: Instance, pool: ConnectionPool) -> None:
    def fail(what: str) -> None:
        if what == "register" and registry.calls.count("register") < 3:
            raise KeyError("hunter2")

    registry = Registry(fail)
    with Registrar(registry, orders, pool) as registrar:
        eventually(lambda: registrar.standing.error == "KeyError")
        eventually(lambda: registrar.standing.registered)
        assert registrar.standing.error == ""


def test_a_registry_that_loses_what_it_registers_is_not_asked_all_the_time(
    orders: Instance, pool: ConnectionPool
) -> None:
    def lose(what: str) -> None:
        if what != "withdraw":
            raise Lost("what?")

    registry = Registry(lose)
    with Registrar(registry, orders, pool) as registrar:
        sleep(1)
        assert 1 <= len(registry.calls) <= 11
        assert not registrar.standing.registered


def test_a_pool_that_is_dropped_is_not_held_and_its_place_is_given_back(
    agent: ConsulAgent, orders: Instance, server: PostgresServer
) -> None:
    pool = ConnectionPool(server.dsn, min_size=1, open=True)
    pool.wait(10)
    registrar = Registrar(Consul(agent.url), orders, pool).start()
    eventually(lambda: registrar.standing.registered)
    weak = ref(pool)
    del pool
    gc.collect()
    eventually(lambda: weak() is None)
    eventually(lambda: agent.services == {} and not discovery_threads())
    registrar.close()


def test_a_closed_pool_is_withdrawn_and_the_thread_ends(
    agent: ConsulAgent, orders: Instance, pool: ConnectionPool
) -> None:
    registrar = Registrar(Consul(agent.url), orders, pool).start()
    eventually(lambda: registrar.standing.registered)
    pool.close()
    eventually(lambda: agent.services == {} and not discovery_threads())
    assert not registrar.standing.registered
    registrar.close()


def test_leaves_no_subscription_behind(
    agent: ConsulAgent, orders: Instance, pool: ConnectionPool
) -> None:
    before = pool._hub.subscriptions
    with Registrar(Consul(agent.url), orders, pool) as registrar:
        eventually(lambda: registrar.standing.registered)
        assert len(pool._hub.subscriptions) == len(before) + 1
    assert pool._hub.subscriptions == before


def test_starts_once_and_never_again(
    agent: ConsulAgent, orders: Instance, pool: ConnectionPool
) -> None:
    registrar = Registrar(Consul(agent.url), orders, pool)
    assert not registrar.standing.registered
    with registrar:
        assert registrar.start() is registrar
        assert len(discovery_threads()) == 1
    registrar.close()
    with pytest.raises(RuntimeError, match="started again"):
        registrar.start()
    unused = Registrar(Consul(agent.url), orders, pool)
    unused.close()
    with pytest.raises(RuntimeError, match="started again"):
        unused.start()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_leaves_the_registration_to_its_parent(
    agent: ConsulAgent, orders: Instance, pool: ConnectionPool
) -> None:
    with Registrar(Consul(agent.url), orders, pool) as registrar:
        eventually(lambda: registrar.standing.registered)
        asked = len(agent.requests)
        registrar._bell._cond.acquire()  # as when the thread is about to wait
        child = os.fork()
        if child:
            registrar._bell._cond.release()
        else:
            code = 1
            signal.alarm(10)  # a child that waits for ever would be left behind
            try:
                began = monotonic()
                quiet = not registrar.standing.registered
                registrar.start()
                registrar.close()
                code = 0 if quiet and monotonic() - began < 1 else 2
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
        assert len(agent.requests) == asked
        assert agent.status(orders.id) == "passing"
        assert registrar.standing.registered


@pytest.mark.anyio
async def test_pools_of_asyncio(
    agent: ConsulAgent, orders: Instance, server: PostgresServer
) -> None:
    async with AsyncConnectionPool(server.dsn, min_size=1) as pool:
        await pool.wait(10)
        async with Registrar(Consul(agent.url), orders, pool) as registrar:
            await aio.eventually(lambda: agent.status(orders.id) == "passing")
            await pool.pause()
            await aio.eventually(lambda: agent.status(orders.id) == "warning")
            await aio.eventually(lambda: registrar.standing.status == "warn")
        assert agent.services == {}


@pytest.mark.anyio
async def test_the_loop_does_not_wait_for_a_registry_that_hangs(
    agent: ConsulAgent, orders: Instance, server: PostgresServer
) -> None:
    async with AsyncConnectionPool(server.dsn, min_size=1) as pool:
        async with Registrar(Consul(agent.url, ttl=6), orders, pool) as registrar:
            await aio.eventually(lambda: registrar.standing.registered)
            agent.hang()
            leaving = aio.spawn(registrar.__aexit__, None, None, None)
            longest, until = 0.0, monotonic() + 0.5
            while monotonic() < until:
                before = monotonic()
                await aio.sleep(0.005)
                longest = max(longest, monotonic() - before)
            assert longest < 0.2
            agent.go_on()
            await leaving.result()


SCRIPT = """
import sys, time
from everpool import ConnectionPool
from everpool.discovery import Consul, Instance, Registrar

pool = ConnectionPool(sys.argv[1], min_size=1, open=True)
registrar = Registrar(Consul(sys.argv[2]), Instance("orders", "10.0.0.7", 8000), pool).start()
time.sleep(0.2)
"""


def test_a_script_that_closes_nothing_ends_at_once_in_silence(server: PostgresServer) -> None:
    with silent_port() as port:
        began = monotonic()
        command = [sys.executable, "-c", SCRIPT, server.dsn, f"http://127.0.0.1:{port}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert monotonic() - began < 5


def test_no_connection_is_borrowed(
    agent: ConsulAgent, orders: Instance, pool: ConnectionPool
) -> None:
    before = pool.get_stats().get("requests_num", 0)
    with Registrar(Consul(agent.url, ttl=1), orders, pool) as registrar:
        eventually(lambda: registrar.standing.registered)
        sleep(1)
        connections: Any = pool.snapshot().slots
        assert connections["idle"] == 2
    assert pool.get_stats().get("requests_num", 0) == before
