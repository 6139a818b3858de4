"""`Alerts` on real pools: through a proxy that cuts, with sinks that hang, over forks, to the end."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import threading
import time
import traceback
from collections.abc import Iterator
from statistics import median
from typing import Any
from weakref import ref

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from everpool import AsyncConnectionPool, ConnectionPool
from everpool.alerts import (
    Alertmanager,
    Alerts,
    ConfigurationRefused,
    ConnectionsCut,
    CredentialsRefused,
    Leak,
    Saturated,
    Unreachable,
    Webhook,
)
from everpool.lab import FaultProxy, PostgresServer
from tests.alerts.receiver import Receiver, wait_for
from tests.support.figures import Figures
from tests.support.programs import alertmanager

CONFIG = "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n"

# What takes minutes at night takes a second here.
CUTS = ConnectionsCut(count=2, within=1.0, clear=0.3)
SOON: dict[str, Any] = {"group_wait": 0.1, "group_interval": 0.2, "repeat_every": 3600}


@pytest.fixture
def pool(proxy: FaultProxy, server: PostgresServer) -> Iterator[ConnectionPool[Any]]:
    conninfo = proxy.via(server.dsn)
    with ConnectionPool(conninfo, min_size=3, max_size=3, timeout=5, name="main") as pool:
        pool.wait()
        yield pool


def conditions(receiver: Receiver, status: str) -> list[str]:
    return [alert["condition"] for alert in receiver.alerts(status)]


def test_cuts_are_told_and_resolve_by_themselves(
    pool: ConnectionPool[Any], proxy: FaultProxy, receiver: Receiver
) -> None:
    with alertmanager(CONFIG) as program:
        sinks = [Webhook(receiver.url), Alertmanager(program.url)]
        with Alerts(pool, sinks=sinks, conditions=[CUTS], source="billing", **SOON) as alerts:
            assert proxy.cut() == 3
            entry = wait_for(lambda: receiver.alerts("firing"))[0]
            assert entry["condition"] == "connections_cut"
            assert entry["pool"] == "main"
            assert "3 connections were cut within 1.0 s (3 by FIN), 0 of them" in entry["summary"]
            assert [alert.condition for alert in alerts.active()] == ["connections_cut"]
            seen = wait_for(lambda: program.json("/api/v2/alerts"))
            assert seen[0]["labels"]["alertname"] == "EverpoolConnectionsCut"
            assert seen[0]["labels"]["instance"] == "billing"

            entry = wait_for(lambda: receiver.alerts("resolved"))[0]
            assert entry["condition"] == "connections_cut"
            wait_for(lambda: program.json("/api/v2/alerts") == [])
            assert alerts.active() == ()
            assert len(receiver.bodies) == 2
            assert [state.failed for state in alerts.sinks()] == [0, 0]


def test_the_alertmanager_is_told_again_while_it_lasts(
    pool: ConnectionPool[Any], proxy: FaultProxy, receiver: Receiver, monkeypatch: Any
) -> None:
    monkeypatch.setattr(Alertmanager, "refresh", 0.3)
    monkeypatch.setattr("everpool.alerts.service.TICK", 0.05)
    sinks = [Alertmanager(receiver.url)]
    with Alerts(pool, sinks=sinks, conditions=[Unreachable(after=0.1, clear=0)], **SOON):
        proxy.refuse()
        proxy.cut()
        wait_for(lambda: len(receiver.bodies) >= 4)
        proxy.accept()
        soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 60))
        wait_for(lambda: receiver.bodies[-1][0]["endsAt"] < soon)  # no longer in four minutes
        told = len(receiver.bodies)
        time.sleep(0.8)
        assert len(receiver.bodies) == told


def test_an_outage_is_unreachable_and_names_nobody(
    pool: ConnectionPool[Any], proxy: FaultProxy, receiver: Receiver
) -> None:
    kinds = [Unreachable(after=0.2, clear=0.2), CUTS]
    with Alerts(pool, sinks=[Webhook(receiver.url)], conditions=kinds, **SOON):
        proxy.refuse()
        proxy.cut()
        wait_for(lambda: "unreachable" in conditions(receiver, "firing"))
        proxy.accept()
        wait_for(lambda: "unreachable" in conditions(receiver, "resolved"))
    said = str(receiver.bodies)
    assert str(proxy.port) not in said
    assert "127.0.0.1" not in said


def test_a_wrong_password_is_told_without_the_password(receiver: Receiver) -> None:
    with PostgresServer(password="Xq7-Tannenzapfen") as locked:
        conninfo = make_conninfo(locked.dsn, password="Zz9-Kieselstein")
        kinds = [CredentialsRefused(after=0), ConfigurationRefused(after=0), Unreachable(after=0)]
        with ConnectionPool(conninfo, min_size=1, name="main") as pool:
            sinks = [Webhook(receiver.url)]
            with Alerts(pool, sinks=sinks, conditions=kinds, details=True, **SOON):
                entry = wait_for(lambda: receiver.alerts("firing"))[0]
    assert entry["condition"] == "credentials_refused"
    assert "password authentication failed" in entry["detail"]
    assert "Kieselstein" not in str(receiver.bodies)
    assert "Tannenzapfen" not in str(receiver.bodies)


def test_a_missing_database_is_a_mistaken_configuration(
    server: PostgresServer, receiver: Receiver
) -> None:
    kinds = [CredentialsRefused(after=0), ConfigurationRefused(after=0)]
    conninfo = make_conninfo(server.dsn, dbname="tokens_and_certificates")
    with ConnectionPool(conninfo, min_size=1, name="main") as pool:
        with Alerts(pool, sinks=[Webhook(receiver.url)], conditions=kinds, **SOON):
            entry = wait_for(lambda: receiver.alerts("firing"))[0]
    assert entry["condition"] == "configuration_refused"
    assert "tokens" not in str(entry)
    assert entry["detail"] == ""


def test_saturation_and_a_leak(server: PostgresServer, receiver: Receiver) -> None:
    kinds = [Saturated(after=0, clear=0), Leak(clear=0)]
    with ConnectionPool(server.dsn, min_size=1, name="main", leak_after=0.5) as pool:
        with Alerts(pool, sinks=[Webhook(receiver.url)], conditions=kinds, **SOON):
            conn = pool.getconn()
            waiter = threading.Thread(target=lambda: pool.putconn(pool.getconn(timeout=20)))
            waiter.start()
            wait_for(lambda: {"saturated", "leak"} <= set(conditions(receiver, "firing")))
            pool.putconn(conn)
            waiter.join()
            wait_for(lambda: {"saturated", "leak"} <= set(conditions(receiver, "resolved")))


def test_two_pools_one_notice(
    pool: ConnectionPool[Any], proxy: FaultProxy, server: PostgresServer, receiver: Receiver
) -> None:
    with ConnectionPool(proxy.via(server.dsn), min_size=3, name="other") as other:
        other.wait()
        sinks = [Webhook(receiver.url)]
        with Alerts(pool, other, sinks=sinks, conditions=[CUTS], **(SOON | {"group_wait": 0.5})):
            proxy.cut()
            wait_for(lambda: receiver.bodies)
    assert {alert["pool"] for alert in receiver.bodies[0]["alerts"]} == {"main", "other"}
    assert receiver.bodies[0]["title"].endswith("connections are being cut, 2 pools")


@pytest.mark.anyio
async def test_a_pool_of_tasks(
    proxy: FaultProxy, server: PostgresServer, receiver: Receiver
) -> None:
    async with AsyncConnectionPool(proxy.via(server.dsn), min_size=3, name="tasks") as pool:
        await pool.wait()
        with Alerts(pool, sinks=[Webhook(receiver.url)], conditions=[CUTS], **SOON):
            proxy.cut()
            await asyncio.to_thread(wait_for, lambda: receiver.alerts("firing"))
    assert receiver.bodies[0]["alerts"][0]["pool"] == "tasks"


def test_checkouts_do_not_feel_a_sink_that_hangs(
    pool: ConnectionPool[Any], proxy: FaultProxy, receiver: Receiver, figure: Figures
) -> None:
    """Interleaved rounds without alerts, and with alerts whose sink hangs; of both the fastest:
    what hangs is in the way in each round, and a neighbour's load in some.
    """

    def checkouts() -> list[float]:
        times = []
        for _ in range(2000):
            began = time.perf_counter()
            with pool.connection():
                pass
            times.append(time.perf_counter() - began)
        return times

    checkouts()
    without, hanging, worst = [], [], 0.0
    receiver.hanging = True
    for _ in range(5):
        without.append(median(checkouts()))
        alerts = Alerts(pool, sinks=[Webhook(receiver.url)], conditions=[CUTS], **SOON).start()
        calls = len(receiver.times)
        proxy.cut()
        wait_for(lambda calls=calls: len(receiver.times) > calls)
        times = checkouts()
        assert alerts.sinks()[0].waiting  # it hangs all the while
        hanging.append(median(times))
        worst = max(worst, *times)
        alerts.close(timeout=0.0)
    figure(
        "checkout while a sink hangs, times that without alerts",
        min(hanging) / min(without),
        1.3,
    )
    figure("slowest checkout while a sink hangs, s", worst, 0.5)  # the sink's limit is 10 s


def test_close_is_bounded_and_resolves_nothing(
    pool: ConnectionPool[Any], proxy: FaultProxy, receiver: Receiver
) -> None:
    alerts = Alerts(pool, sinks=[Webhook(receiver.url)], conditions=[CUTS], **SOON).start()
    proxy.cut()
    wait_for(lambda: receiver.bodies)
    alerts.close()
    assert len(receiver.bodies) == 1
    receiver.hanging = True
    alerts.start()
    proxy.cut()
    wait_for(lambda: len(receiver.times) == 2)
    began = time.monotonic()
    alerts.close(timeout=0.5)
    assert time.monotonic() - began < 1.0


def test_a_dropped_pool_takes_the_alerts_with_it(server: PostgresServer, monkeypatch: Any) -> None:
    monkeypatch.setattr("everpool.alerts.service.TICK", 0.05)
    pool = ConnectionPool(server.dsn, min_size=1, name="main", open=False)
    pool.open(wait=True)
    alerts = Alerts(pool, sinks=[Webhook("http://127.0.0.1:9/")]).start()
    gone = ref(pool)
    del pool

    def ended() -> bool:
        gc.collect()
        return gone() is None and not _threads()

    wait_for(ended)
    assert alerts.active() == ()


def test_a_closed_pool_ends_the_alerts(server: PostgresServer) -> None:
    with ConnectionPool(server.dsn, min_size=1, name="main") as pool:
        alerts = Alerts(pool, sinks=[Webhook("http://127.0.0.1:9/")]).start()
        pool.wait()
        assert len(_threads()) == 2
    wait_for(lambda: not _threads())
    alerts.close()


def _threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("everpool-alerts")]


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("starts", [False, True])
def test_a_forked_child_sends_nothing_unless_started(
    pool: ConnectionPool[Any], server: PostgresServer, receiver: Receiver, starts: bool
) -> None:
    with Alerts(pool, sinks=[Webhook(receiver.url)], conditions=[CUTS], **SOON) as alerts:
        held, let_go = threading.Event(), threading.Event()

        def hold() -> None:
            with alerts._lock:
                held.set()
                let_go.wait(20)

        holder = threading.Thread(target=hold)
        holder.start()
        held.wait(20)
        child = os.fork()  # the child's copy of the lock is held by nobody who could let go
        let_go.set()
        if not child:
            signal.alarm(20)
            status = 1
            try:
                assert alerts.active() == ()
                assert not _threads()
                if starts:
                    alerts.start()
                for _ in range(3):
                    with pool.connection() as conn:
                        pid = conn.info.backend_pid
                    with psycopg.connect(server.dsn, autocommit=True) as admin:
                        admin.execute("select pg_terminate_backend(%s)", (pid,))
                    wait_for(lambda: sum(pool.snapshot().cuts.values()) >= 1)
                time.sleep(1.0)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        holder.join()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    sources = {body["source"] for body in receiver.bodies}
    assert sources == ({f"{socket.gethostname()}:{child}"} if starts else set())


def test_wrong_arguments_are_told() -> None:
    one = ConnectionPool("", open=False, name="main", min_size=1)
    two = ConnectionPool("", open=False, name="main", min_size=1)
    with pytest.raises(ValueError, match="two pools are named 'main'"):
        Alerts(one, two)
    with pytest.raises(ValueError, match="two conditions are named 'leak'"):
        Alerts(one, conditions=[Leak(), Leak()])
    with pytest.raises(TypeError, match="not str"):
        Alerts("pool")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a sink is a Webhook, Alertmanager or Apprise, not str"):
        Alerts(one, sinks=["https://example.com/s3cret"])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="group_interval must be more than 0"):
        Alerts(one, group_interval=0)
    with pytest.raises(ValueError, match="repeat_every must not be less than group_interval"):
        Alerts(one, repeat_every=1)
    with pytest.raises(TypeError, match="group_wait must be a number of seconds"):
        Alerts(one, group_wait="5")  # type: ignore[arg-type]


def test_shown_without_secrets() -> None:
    pool = ConnectionPool("", open=False, name="main", min_size=1)
    alerts = Alerts(pool, sinks=[Webhook("https://kim:pa55@example.com/s3cret")])
    assert repr(alerts) == "Alerts(1 pools, sinks=[Webhook(https://example.com)])"
