"""What a scrape says about real pools."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Iterator
from math import inf
from typing import Any

import psycopg
import pytest
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as strictly
from prometheus_client.parser import text_string_to_metric_families as parse

from everpool import (
    AsyncConnectionPool,
    ConnectionPool,
    NullConnectionPool,
    PoolTimeout,
    TooManyRequests,
)
from everpool.events import Cut
from everpool.lab import FaultProxy, PostgresServer
from everpool.telemetry.prometheus import Collector, register
from tests.support.threads import eventually, spawn


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry(auto_describe=True)


@pytest.fixture
def pool(proxy: FaultProxy, server: PostgresServer) -> Iterator[ConnectionPool[Any]]:
    conninfo = proxy.via(server.dsn)
    with ConnectionPool(conninfo, min_size=2, max_size=4, name="orders") as pool:
        pool.wait(10)
        yield pool


def values(registry: CollectorRegistry) -> dict[str, float]:
    """Each series as it is written, ``name{label=value,…}``, and its value."""
    found: dict[str, float] = {}
    for family in parse(generate_latest(registry).decode()):
        for sample in family.samples:
            labels = ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items()))
            series = f"{sample.name}{{{labels}}}"
            assert series not in found, "the same series twice"
            found[series] = sample.value
    return found


def test_a_pool_at_work(pool: ConnectionPool[Any], registry: CollectorRegistry) -> None:
    register(pool, registry=registry)
    for _ in range(5):
        with pool.connection():
            pass
    with pool.connection():
        seen = values(registry)
    assert seen["everpool_up{pool=orders}"] == 1
    assert seen["everpool_state{pool=orders,state=up}"] == 1
    assert seen["everpool_health{pool=orders,status=pass}"] == 1
    assert sum(v for k, v in seen.items() if k.startswith("everpool_state{")) == 1
    assert not any(v for k, v in seen.items() if k.startswith("everpool_trouble{"))
    assert seen["everpool_connections{pool=orders,state=used}"] == 1
    assert seen["everpool_connections{pool=orders,state=idle}"] == 1
    assert sum(v for k, v in seen.items() if k.startswith("everpool_connections{")) == 2
    assert seen["everpool_connections_min{pool=orders}"] == 2
    assert seen["everpool_connections_max{pool=orders}"] == 4
    assert seen["everpool_requests_total{pool=orders}"] == 6
    assert seen["everpool_wait_seconds_count{pool=orders}"] == 6
    assert seen["everpool_use_seconds_count{pool=orders}"] == 5
    assert seen["everpool_connect_seconds_count{pool=orders}"] == 2
    assert 0 < seen["everpool_connect_seconds_sum{pool=orders}"] < 20
    (info,) = (k for k in seen if k.startswith("everpool_build_info{"))
    assert f"psycopg={psycopg.__version__}" in info


def test_buckets_are_cumulative_and_agree_with_the_snapshot(
    pool: ConnectionPool[Any], registry: CollectorRegistry
) -> None:
    register(pool, registry=registry)
    with pool.connection() as conn:
        conn.execute("select pg_sleep(0.02)")
    with pool.connection() as conn:
        pass
    seen = values(registry)
    buckets = {
        float(k.partition("le=")[2].partition(",")[0]): v
        for k, v in seen.items()
        if k.startswith("everpool_use_seconds_bucket{")
    }
    use = pool.snapshot().use
    assert [*sorted(buckets)] == [*use.bounds, inf]
    assert [buckets[b] for b in sorted(buckets)] == sorted(buckets.values())
    assert buckets[0.01] == 1
    assert buckets[0.5] == buckets[inf] == 2 == seen["everpool_use_seconds_count{pool=orders}"]
    assert seen["everpool_use_seconds_sum{pool=orders}"] == pytest.approx(use.sum)
    assert use.sum >= 0.02


def test_cuts_by_cause_and_those_that_interrupted_somebody(
    pool: ConnectionPool[Any], proxy: FaultProxy, registry: CollectorRegistry
) -> None:
    register(pool, registry=registry)
    before = values(registry)
    assert before["everpool_cuts_total{cause=FATAL 57P01,pool=orders}"] == 0
    with pytest.raises(psycopg.OperationalError), pool.connection() as conn:
        proxy.cut("fatal:57P01")
        conn.execute("select 1")
    eventually(lambda: sum(pool.snapshot().cuts.values()) == 2)
    seen = values(registry)
    assert seen["everpool_cuts_total{cause=FATAL 57P01,pool=orders}"] == 2
    assert seen["everpool_cuts_lent_total{pool=orders}"] == 1
    assert seen["everpool_discarded_total{pool=orders,reason=FATAL 57P01}"] == 2
    snapshot = pool.snapshot()
    ended = sum(v for k, v in seen.items() if k.startswith("everpool_discarded_total{"))
    assert ended == sum(snapshot.cuts.values()) + sum(snapshot.retired.values())


def test_a_database_that_is_away(
    pool: ConnectionPool[Any], proxy: FaultProxy, registry: CollectorRegistry
) -> None:
    register(pool, registry=registry)
    proxy.refuse()
    proxy.cut("rst")
    eventually(lambda: pool.health().state.value == "down")
    seen = values(registry)
    assert seen["everpool_up{pool=orders}"] == 0
    assert seen["everpool_state{pool=orders,state=down}"] == 1
    assert seen["everpool_trouble{pool=orders,trouble=unreachable}"] == 1
    assert seen["everpool_health{pool=orders,status=fail}"] == 1
    assert seen["everpool_connect_errors_total{pool=orders}"] >= 1


def test_refusals_by_code_and_timeouts(server: PostgresServer, registry: CollectorRegistry) -> None:
    with ConnectionPool(server.dsn, min_size=1, max_size=1, name="p", max_waiting=1) as pool:
        pool.wait(10)
        register(pool, registry=registry)
        with pool.connection():
            with pytest.raises(PoolTimeout):
                pool.getconn(timeout=0.05)
            patient = spawn(pool.getconn, 10.0)
            eventually(lambda: pool.snapshot().waiting == 1)
            with pytest.raises(TooManyRequests):
                pool.getconn()
            seen = values(registry)
        pool.putconn(patient.result())
    assert seen["everpool_requests_waiting{pool=p}"] == 1
    assert seen["everpool_longest_wait_seconds{pool=p}"] > 0
    assert seen["everpool_requests_refused_total{code=timeout,pool=p}"] == 1
    assert seen["everpool_checkout_timeouts_total{pool=p}"] == 1
    assert seen["everpool_requests_refused_total{code=full,pool=p}"] == 1
    assert sum(v for k, v in seen.items() if k.startswith("everpool_requests_refused")) == 2


def test_leaks_held_and_dropped(server: PostgresServer, registry: CollectorRegistry) -> None:
    with ConnectionPool(server.dsn, min_size=2, name="p", leak_after=0.05) as pool:
        pool.wait(10)
        register(pool, registry=registry)
        conn = pool.getconn()
        pool.getconn()  # and dropped
        gc.collect()
        eventually(lambda: pool.snapshot().leaks["held"] >= 1, timeout=10)
        eventually(lambda: pool.snapshot().leaks["dropped"] == 1)
        pool.putconn(conn)
        seen = values(registry)
        assert seen["everpool_leaks_total{kind=dropped,pool=p}"] == 1
        assert seen["everpool_leaks_total{kind=held,pool=p}"] >= 1


def test_what_listeners_missed_is_not_forgotten_with_them(
    pool: ConnectionPool[Any], registry: CollectorRegistry
) -> None:
    register(pool, registry=registry)
    subscription = pool.subscribe(lambda happening: None, Cut)
    subscription.dropped = 7  # as if it had been slow
    assert values(registry)["everpool_happenings_dropped_total{pool=orders}"] == 7
    subscription.close()
    subscription.close()
    assert values(registry)["everpool_happenings_dropped_total{pool=orders}"] == 7


def test_a_null_pool_without_a_limit(server: PostgresServer, registry: CollectorRegistry) -> None:
    with NullConnectionPool(server.dsn, name="null") as pool:
        register(pool, registry=registry)
        with pool.connection():
            seen = values(registry)
        assert seen["everpool_connections_max{pool=null}"] == inf
        assert seen["everpool_connections{pool=null,state=used}"] == 1


@pytest.mark.anyio
async def test_an_async_pool(server: PostgresServer, registry: CollectorRegistry) -> None:
    async with AsyncConnectionPool(server.dsn, min_size=1, name="tasks") as pool:
        await pool.wait(10)
        register(pool, registry=registry)
        async with pool.connection():
            assert values(registry)["everpool_connections{pool=tasks,state=used}"] == 1


def test_openmetrics_too(pool: ConnectionPool[Any], registry: CollectorRegistry) -> None:
    register(pool, registry=registry)
    names = {family.name for family in strictly(openmetrics(registry).decode())}
    assert {"everpool_up", "everpool_cuts", "everpool_wait_seconds", "everpool_build"} <= names


def test_no_label_tells_more_than_it_must(
    pool: ConnectionPool[Any], proxy: FaultProxy, registry: CollectorRegistry
) -> None:
    register(pool, registry=registry)
    with pytest.raises(psycopg.Error), pool.connection() as conn:
        conn.execute("select 'secret statement' from nowhere")
    proxy.cut("fatal:57P05")
    eventually(lambda: pool.snapshot().cuts)
    allowed = {"pool", "state", "trouble", "status", "code", "cause", "reason", "kind", "le"}
    allowed |= {"version", "psycopg", "libpq", "implementation"}
    for family in registry.collect():
        for sample in family.samples:
            assert set(sample.labels) <= allowed
    text = generate_latest(registry).decode()
    for secret in ("secret", "select", "127.0.0.1", str(proxy.port), server_user(pool)):
        assert secret not in text


def server_user(pool: ConnectionPool[Any]) -> str:
    with pool.connection() as conn:
        return conn.info.user


# -- pools that come and go -----------------------------------------------------------------------


def test_a_closed_pool_is_told_of_until_it_is_gone(
    server: PostgresServer, registry: CollectorRegistry
) -> None:
    pool = ConnectionPool(server.dsn, min_size=1, name="short", open=True)
    register(pool, registry=registry)
    pool.wait(10)
    pool.close()
    seen = values(registry)
    assert seen["everpool_state{pool=short,state=closed}"] == 1
    assert seen["everpool_up{pool=short}"] == 0
    assert seen["everpool_background_late_seconds{pool=short}"] == 0
    del pool
    gc.collect()
    assert not [series for series in values(registry) if "short" in series]


def test_the_collector_keeps_no_pool(server: PostgresServer, registry: CollectorRegistry) -> None:
    pool = ConnectionPool(server.dsn, min_size=1, name="forgotten", open=True)
    pool.wait(10)
    register(pool, registry=registry)
    values(registry)
    del pool
    gc.collect()
    assert not [series for series in values(registry) if "forgotten" in series]


FORKED = """
import os, sys
from prometheus_client import REGISTRY
from everpool import ConnectionPool
from everpool.telemetry.prometheus import register

def asked():
    return REGISTRY.get_sample_value("everpool_requests_total", {"pool": "p"})

with ConnectionPool(sys.argv[1], min_size=1, name="p") as pool:
    pool.wait(10)
    collector = register(pool)
    for _ in range(3):
        with pool.connection():
            pass
    collector._mutex.acquire()  # as another thread of the parent may have done
    child = os.fork()
    if not child:
        with pool.connection():
            pass
        os._exit(10 + int(asked()))
    _, status = os.waitpid(child, 0)
    print(int(asked()), os.waitstatus_to_exitcode(status))
"""


def test_a_forked_child_counts_for_itself(server: PostgresServer) -> None:
    script = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKED, server.dsn]
    done = subprocess.run(script, capture_output=True, text=True, timeout=30)
    assert done.stdout.split() == ["3", "11"], done.stderr


def test_two_pools_of_one_name(server: PostgresServer, registry: CollectorRegistry) -> None:
    first = ConnectionPool(server.dsn, min_size=1, name="twin", open=True)
    second = ConnectionPool(server.dsn, min_size=1, name="twin", open=True)
    try:
        register(first, registry=registry)
        with pytest.raises(ValueError, match="two pools are named 'twin'"):
            register(second, registry=registry)
        register(first, registry=registry)  # nothing new
        assert values(registry)["everpool_state{pool=twin,state=closed}"] == 0
        first.close()
        register(second, registry=registry)  # the closed one gives way
        assert values(registry)["everpool_state{pool=twin,state=closed}"] == 0
    finally:
        first.close()
        second.close()


def test_two_pools_in_one_registry(server: PostgresServer, registry: CollectorRegistry) -> None:
    with (
        ConnectionPool(server.dsn, min_size=1, name="a") as a,
        ConnectionPool(server.dsn, min_size=1, name="b") as b,
    ):
        collector = register(a, registry=registry)
        assert register(b, registry=registry) is collector
        text = generate_latest(registry).decode()
        assert text.count("# TYPE everpool_up gauge") == 1
        seen = values(registry)
        assert {"everpool_up{pool=a}", "everpool_up{pool=b}"} <= seen.keys()


def test_a_second_collector_is_refused(pool: ConnectionPool[Any], registry: Any) -> None:
    registry.register(Collector(pool))
    with pytest.raises(ValueError, match="Duplicated"):
        registry.register(Collector(pool))


def test_a_collector_taken_out_comes_back(pool: ConnectionPool[Any], registry: Any) -> None:
    registry.unregister(register(pool, registry=registry))
    assert not values(registry)
    register(pool, registry=registry)
    assert values(registry)["everpool_up{pool=orders}"] == 1


def test_metrics_asked_for_by_name(pool: ConnectionPool[Any], registry: Any) -> None:
    register(pool, registry=registry)
    chosen = generate_latest(registry.restricted_registry(["everpool_up"])).decode()
    assert 'everpool_up{pool="orders"} 1.0' in chosen
    assert "everpool_state" not in chosen


def test_the_default_registry(pool: ConnectionPool[Any]) -> None:
    collector = register(pool)
    try:
        assert REGISTRY.get_sample_value("everpool_up", {"pool": "orders"}) == 1
    finally:
        REGISTRY.unregister(collector)


# -- what is given wrongly ------------------------------------------------------------------------


def test_labels_of_the_users_own(pool: ConnectionPool[Any], registry: Any) -> None:
    collector = register(pool, registry=registry, labels={"worker": 3})
    seen = values(registry)
    assert seen["everpool_up{pool=orders,worker=3}"] == 1
    assert all("worker=3" in series for series in seen if not series.startswith("everpool_build"))
    assert register(pool, registry=registry) is collector
    with pytest.raises(ValueError, match="have the labels {'worker': '3'}"):
        register(pool, registry=registry, labels={"worker": 4})


@pytest.mark.parametrize("label", ["pool", "state", "le", "__name__", "a-b", "1st", ""])
def test_labels_that_cannot_be(label: str) -> None:
    with pytest.raises(ValueError, match="no label can be"):
        Collector(labels={label: "x"})


def test_an_unknown_option_names_the_allowed() -> None:
    with pytest.raises(TypeError, match="unknown option 'lables'; allowed: labels"):
        Collector(lables={"worker": "3"})


def test_what_is_no_pool() -> None:
    with pytest.raises(TypeError, match="str is no pool of everpool's"):
        Collector("orders")  # type: ignore[arg-type]


def test_without_prometheus_client_the_extra_is_named() -> None:
    script = (
        "import sys; sys.modules['prometheus_client'] = None\nimport everpool.telemetry.prometheus"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert 'pip install "everpool[prometheus]"' in done.stderr
