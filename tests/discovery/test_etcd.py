"""etcd, the real one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from base64 import b64decode, b64encode
from collections.abc import Iterator
from datetime import UTC, datetime
from time import monotonic
from typing import Any

import pytest

from everpool import ConnectionPool
from everpool.discovery import Etcd, Instance, Registrar
from everpool.lab import FaultProxy, PostgresServer
from tests.support.net import refusing_port, silent_port
from tests.support.programs import Program, etcd
from tests.support.programs.process import HOST, find, running
from tests.support.threads import eventually, sleep


def b64(text: str) -> str:
    return b64encode(text.encode()).decode()


def entry(program: Program, instance: Instance, prefix: str = "/services") -> Any:
    """What others find in etcd: the key, its lease, the value; None if there is no such key."""
    key = b64(f"{prefix}/{instance.name}/{instance.id}")
    found = program.json("/v3/kv/range", {"key": key}).get("kvs")
    if not found:
        return None
    return {"lease": found[0].get("lease"), **json.loads(b64decode(found[0]["value"]))}


def status(program: Program, instance: Instance) -> str | None:
    found = entry(program, instance)
    return found["status"] if found else None


def revoke(program: Program, lease: str) -> None:
    program.json("/v3/lease/revoke", {"ID": lease})


@pytest.fixture
def own_etcd() -> Iterator[Program]:
    """An etcd that a test may break."""
    with etcd() as program:
        yield program


def test_registered_and_taken_back(
    one_etcd: Program, orders: Instance, pool: ConnectionPool, figure: Any
) -> None:
    began = monotonic()
    with Registrar(Etcd(one_etcd.url), orders, pool) as registrar:
        eventually(lambda: registrar.standing.registered)
        figure("etcd: registered after, s", monotonic() - began, 1.0)
        found = entry(one_etcd, orders)
        assert (found["address"], found["port"], found["status"]) == ("10.0.0.7", 8000, "pass")
        since = datetime.fromisoformat(found["since"])
        assert abs((datetime.now(UTC) - since).total_seconds()) < 10
        lease = found["lease"]
        assert one_etcd.json("/v3/lease/timetolive", {"ID": lease})["grantedTTL"] == "15"
    assert entry(one_etcd, orders) is None
    assert lease not in str(one_etcd.json("/v3/lease/leases", {}))


def test_a_change_of_status_is_seen(
    one_etcd: Program, orders: Instance, pool: ConnectionPool, figure: Any
) -> None:
    with Registrar(Etcd(one_etcd.url, prefix="/a/b/"), orders, pool) as registrar:
        eventually(lambda: registrar.standing.registered)
        began = monotonic()
        pool.pause()
        eventually(lambda: entry(one_etcd, orders, "/a/b")["status"] == "warn")
        figure("etcd: a change of status seen after, s", monotonic() - began, 1.0)
        pool.resume()
        eventually(lambda: entry(one_etcd, orders, "/a/b")["status"] == "pass")


def test_a_renewal_writes_nothing(
    one_etcd: Program, orders: Instance, pool: ConnectionPool
) -> None:
    with Registrar(Etcd(one_etcd.url, ttl=2), orders, pool) as registrar:
        eventually(lambda: registrar.standing.registered)
        revision = one_etcd.json("/v3/kv/range", {"key": b64("x")})["header"]["revision"]
        sleep(3)  # longer than the TTL
        assert status(one_etcd, orders) == "pass"
        after = one_etcd.json("/v3/kv/range", {"key": b64("x")})["header"]["revision"]
        assert after == revision


def test_registered_anew_when_the_lease_or_the_key_is_lost(
    one_etcd: Program, orders: Instance, pool: ConnectionPool
) -> None:
    with Registrar(Etcd(one_etcd.url, ttl=3), orders, pool) as registrar:
        eventually(lambda: registrar.standing.registered)
        revoke(one_etcd, entry(one_etcd, orders)["lease"])
        assert entry(one_etcd, orders) is None
        eventually(lambda: status(one_etcd, orders) == "pass", timeout=2)
        one_etcd.json("/v3/kv/deleterange", {"key": b64(f"/services/orders/{orders.id}")})
        assert entry(one_etcd, orders) is None
        eventually(lambda: status(one_etcd, orders) == "pass", timeout=2)
        # A lease without which the key stands, as somebody wrote it by hand.
        lease = entry(one_etcd, orders)["lease"]
        byhand = {"key": b64(f"/services/orders/{orders.id}"), "value": b64('{"status": "?"}')}
        one_etcd.json("/v3/kv/put", byhand)
        revoke(one_etcd, lease)
        eventually(lambda: status(one_etcd, orders) == "pass", timeout=2)
        # A change of status finds it out as well.
        revoke(one_etcd, entry(one_etcd, orders)["lease"])
        pool.pause()
        eventually(lambda: status(one_etcd, orders) == "warn", timeout=1.5)
    assert entry(one_etcd, orders) is None


@pytest.mark.parametrize("wiped", [False, True], ids=["with its data", "without its data"])
def test_an_etcd_that_is_killed_and_comes_back_knows_us_again(
    own_etcd: Program, orders: Instance, pool: ConnectionPool, wiped: bool, figure: Any
) -> None:
    with Registrar(Etcd(own_etcd.url, ttl=3), orders, pool) as registrar:
        eventually(lambda: registrar.standing.registered)
        os.kill(own_etcd.pid, signal.SIGKILL)
        own_etcd.down()
        eventually(lambda: registrar.standing.failures >= 2)
        eventually(lambda: not registrar.standing.registered)
        if wiped:
            shutil.rmtree(own_etcd.directory / "data")
        own_etcd.up()
        began = monotonic()
        eventually(lambda: registrar.standing.registered and entry(own_etcd, orders))
        if wiped:
            figure("etcd: registered after its return, s", monotonic() - began, 1.5)
        assert status(own_etcd, orders) == "pass"
        assert registrar.standing.failures == 0


def test_an_etcd_that_stands_still_holds_up_nobody(
    own_etcd: Program, orders: Instance, pool: ConnectionPool
) -> None:
    registrar = Registrar(Etcd(own_etcd.url, ttl=3), orders, pool).start()
    eventually(lambda: registrar.standing.registered)
    os.kill(own_etcd.pid, signal.SIGSTOP)
    eventually(lambda: registrar.standing.failures)
    assert registrar.standing.error == "no answer in time"
    with pool.connection(timeout=1) as conn:
        conn.execute("select 1")
    began = monotonic()
    registrar.close(timeout=1)
    assert monotonic() - began < 1.5
    began = monotonic()
    pool.close()
    assert monotonic() - began < 1


def test_several_members_are_tried_in_turn(
    one_etcd: Program, orders: Instance, pool: ConnectionPool
) -> None:
    with refusing_port() as refusing, silent_port() as silent:
        urls = [f"http://127.0.0.1:{port}" for port in (refusing, silent)]
        with Registrar(Etcd([*urls, one_etcd.url], ttl=3), orders, pool) as registrar:
            eventually(lambda: registrar.standing.registered)
            assert status(one_etcd, orders) == "pass"
            began = monotonic()
            pool.pause()
            eventually(lambda: status(one_etcd, orders) == "warn")
            assert monotonic() - began < 1  # the one that answered is asked first now
            assert registrar.standing.failures == 0


CHILD = """
import sys, time
from everpool import ConnectionPool
from everpool.discovery import Etcd, Instance, Registrar

pool = ConnectionPool(sys.argv[1], min_size=1)
orders = Instance("orders", address="10.0.0.7", port=8000)
registrar = Registrar(Etcd(sys.argv[2], ttl=2), orders, pool).start()
while not registrar.standing.registered:
    time.sleep(0.01)
print("registered", flush=True)
time.sleep(60)
"""


def test_a_process_that_is_killed_is_gone_after_the_ttl(
    one_etcd: Program, orders: Instance, server: PostgresServer, figure: Any
) -> None:
    command = [sys.executable, "-c", CHILD, server.dsn, one_etcd.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"registered\n"
        sleep(2.5)
        assert status(one_etcd, orders) == "pass"
        child.kill()
        began = monotonic()
        child.wait()
    eventually(lambda: entry(one_etcd, orders) is None, timeout=10)
    # etcd looks for leases that have ended twice a second.
    figure("etcd: gone after a kill, TTL 2 s, s", monotonic() - began, 3.5)


def test_the_place_that_another_process_took_is_left_to_it(
    one_etcd: Program, orders: Instance, pool: ConnectionPool
) -> None:
    first = Registrar(Etcd(one_etcd.url), orders, pool).start()
    eventually(lambda: first.standing.registered)
    with Registrar(Etcd(one_etcd.url), orders, pool) as second:
        eventually(lambda: second.standing.registered)
        first.close()
        assert not first.standing.registered
        assert status(one_etcd, orders) == "pass"


def test_with_user_and_password(
    own_etcd: Program, orders: Instance, pool: ConnectionPool, caplog: Any
) -> None:
    ask = own_etcd.json
    for name, password, role in (("root", "r", "root"), ("orders", "hunter2", "services")):
        ask("/v3/auth/user/add", {"name": name, "password": password})
        if role != "root":
            ask("/v3/auth/role/add", {"name": role})
        ask("/v3/auth/user/grant", {"user": name, "role": role})
    span = {"key": b64("/services/"), "range_end": b64("/services0"), "permType": "READWRITE"}
    ask("/v3/auth/role/grant", {"name": "services", "perm": span})
    ask("/v3/auth/enable", {})

    with Registrar(Etcd(own_etcd.url), orders, pool) as stranger:
        eventually(lambda: stranger.standing.failures)
        assert "user name is empty" in stranger.standing.error
    with Registrar(Etcd(own_etcd.url, user="orders", password="no2"), orders, pool) as mistaken:
        eventually(lambda: mistaken.standing.failures)
        assert "invalid user ID or password" in mistaken.standing.error
    known = Etcd(own_etcd.url, user="orders", password="hunter2", ttl=3)
    with Registrar(known, orders, pool) as registrar:
        eventually(lambda: registrar.standing.registered)
        # Tokens are not kept across a restart.
        own_etcd.down()
        own_etcd.up()
        pool.pause()
        eventually(lambda: registrar.standing.status == "warn")
    assert not registrar.standing.registered
    assert registrar.standing.error == ""
    assert "hunter2" not in caplog.text
    assert "no2" not in mistaken.standing.error


class _SecureEtcd(Program):
    """With a certificate that it makes itself."""

    @property
    def url(self) -> str:
        return super().url.replace("http:", "https:")

    @property
    def certificate(self) -> str:
        return f"{self.directory}/data/fixtures/client/cert.pem"

    def arguments(self) -> list[str]:
        return [
            f"--data-dir={self.directory}/data",
            "--auto-tls",
            f"--listen-client-urls={self.url}",
            f"--advertise-client-urls={self.url}",
            f"--listen-peer-urls=http://{HOST}:{self.ports[1]}",
            f"--initial-advertise-peer-urls=http://{HOST}:{self.ports[1]}",
            f"--initial-cluster=default=http://{HOST}:{self.ports[1]}",
        ]

    def ready(self) -> None:
        socket.create_connection((HOST, self.port), timeout=10.0).close()


def test_with_tls(orders: Instance, pool: ConnectionPool) -> None:
    path = find("etcd", "etcd-server")
    with running(lambda directory: _SecureEtcd(path, directory, ports=2)) as secure:
        with Registrar(Etcd(secure.url), orders, pool) as mistrusting:
            eventually(lambda: "CERTIFICATE_VERIFY_FAILED" in mistrusting.standing.error)
        tls = ssl.create_default_context(cafile=secure.certificate)
        with Registrar(Etcd(secure.url, tls=tls), orders, pool) as trusting:
            eventually(lambda: trusting.standing.registered)


def test_what_is_no_etcd_is_told(orders: Instance, pool: ConnectionPool, agent: Any) -> None:
    with Registrar(Etcd(agent.url), orders, pool) as registrar:
        eventually(lambda: registrar.standing.failures)
        assert registrar.standing.error == "the answer is not etcd's: is this the right port?"


def test_the_story_a_database_that_goes_and_comes_is_seen_in_etcd(
    one_etcd: Program, orders: Instance, server: PostgresServer, proxy: FaultProxy, figure: Any
) -> None:
    """Instances with databases of their own (`by="health"`) beside the default, which fails open."""
    other = Instance("orders-open", address="10.0.0.7", port=8000)
    # Of one connection, as two that are cut are worth a warning for a minute.
    with ConnectionPool(proxy.via(server.dsn), min_size=1, max_size=1) as pool:
        pool.wait(10)
        strict = Registrar(Etcd(one_etcd.url), orders, pool, by="health")
        with strict, Registrar(Etcd(one_etcd.url), other, pool):
            eventually(lambda: status(one_etcd, orders) == status(one_etcd, other) == "pass")
            began = monotonic()
            proxy.refuse()
            proxy.cut()
            eventually(lambda: status(one_etcd, orders) == "fail")
            figure("etcd: database gone, seen after, s", monotonic() - began, 1.0)
            eventually(lambda: status(one_etcd, other) == "warn")
            sleep(1)
            proxy.accept()
            began = monotonic()
            eventually(lambda: status(one_etcd, orders) == "pass")
            # Nobody waits for a connection, so the pool tries every 2 s at most.
            figure("etcd: database back, seen after, s", monotonic() - began, 3.0)
            eventually(lambda: status(one_etcd, other) == "pass")
