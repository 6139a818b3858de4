"""The metrics of real pools, as OpenTelemetry's own SDK has them."""

from __future__ import annotations

import gc
import inspect
import subprocess
import sys
import threading
from collections.abc import Iterator
from time import sleep
from typing import Any

import pytest
from opentelemetry.sdk.metrics.export import Histogram, Sum
from opentelemetry.semconv._incubating.attributes import db_attributes
from opentelemetry.semconv._incubating.metrics import db_metrics

from everpool import AsyncConnectionPool, ConnectionPool, NullConnectionPool, PoolTimeout
from everpool.core.histogram import BOUNDS
from everpool.lab import FaultProxy, PostgresServer
from everpool.telemetry.otel import feeder, instrument
from everpool.telemetry.otel.feeder import FEEDER
from everpool.telemetry.otel.readings import HISTOGRAMS, READINGS
from tests.support.threads import eventually
from tests.telemetry.otel import POOL, STATE, Meters

WAIT = "db.client.connection.wait_time"
USE = "db.client.connection.use_time"
CREATE = "db.client.connection.create_time"
KINDS = {CREATE: "connect", WAIT: "wait", USE: "use"}


@pytest.fixture
def meters() -> Meters:
    return Meters()


@pytest.fixture
def pool(proxy: FaultProxy, server: PostgresServer) -> Iterator[ConnectionPool[Any]]:
    conninfo = proxy.via(server.dsn)
    with ConnectionPool(conninfo, min_size=2, max_size=3, name="orders", timeout=5) as pool:
        pool.wait(10)
        yield pool


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Each test ends what it began."""
    yield
    gc.collect()
    eventually(lambda: not FEEDER.running, timeout=5)
    eventually(lambda: "everpool-otel" not in {thread.name for thread in threading.enumerate()})


def test_the_nine_instruments_are_those_of_the_conventions(
    pool: ConnectionPool[Any], meters: Meters
) -> None:
    with instrument(pool, meter_provider=meters.provider):
        with pool.connection():
            pass
    # `instrument` has ended, so what is read has to be asked of a second one.
    with instrument(pool, meter_provider=meters.provider):
        found = meters.metrics()
    theirs = Meters().provider.get_meter("theirs")
    asked = [
        create(theirs)
        for name, create in inspect.getmembers(db_metrics, inspect.isfunction)
        if name.startswith("create_db_client_connection_")
    ]
    assert len(asked) == 9
    for instrument_ in asked:
        ours = found[instrument_.name]
        assert (ours.unit, ours.description) == (instrument_.unit, instrument_.description)
        kind = type(instrument_).__name__.strip("_")
        if kind == "Histogram":
            assert isinstance(ours.data, Histogram)
        else:
            assert isinstance(ours.data, Sum)
            assert ours.data.is_monotonic == (kind == "Counter")
        for point in ours.data.data_points:
            names = {db_attributes.DB_CLIENT_CONNECTION_POOL_NAME}
            if ours.name == "db.client.connection.count":
                names.add(db_attributes.DB_CLIENT_CONNECTION_STATE)
            assert point.attributes.keys() == names
            assert point.attributes[POOL] == "orders"


def test_all_instruments_are_there(pool: ConnectionPool[Any], meters: Meters) -> None:
    with instrument(pool, meter_provider=meters.provider) as done:
        with pool.connection():
            pass
        pool.drain()
        eventually(lambda: meters.value("everpool.happening.count", name="pool.drained") == 1)
        FEEDER.feed(done._entry.source)  # type: ignore[union-attr]
        names = {reading.name for reading in READINGS} | {name for _, name, _ in HISTOGRAMS}
        names |= {"everpool.happening.count", "everpool.durations.left_out"}
        assert meters.metrics().keys() == names
        for metric in meters.metrics().values():
            assert metric.description.endswith(".") and metric.unit


def test_a_pool_at_work(pool: ConnectionPool[Any], proxy: FaultProxy, meters: Meters) -> None:
    with instrument(pool, meter_provider=meters.provider):
        assert meters.value("db.client.connection.count", state="idle") == 2
        assert meters.value("db.client.connection.count", state="used") == 0
        with pool.connection(), pool.connection():
            assert meters.value("db.client.connection.count", state="used") == 2
            assert meters.value("db.client.connection.count", state="idle") == 0
            with pool.connection():
                with pytest.raises(PoolTimeout):
                    pool.getconn(0.05)
        assert meters.value("db.client.connection.timeouts") == 1
        assert meters.value("db.client.connection.max") == 3
        assert meters.value("db.client.connection.idle.max") == 3
        assert meters.value("db.client.connection.idle.min") == 2
        assert meters.value("db.client.connection.pending_requests") == 0
        assert meters.value("everpool.requests") == 4
        assert meters.value("everpool.refusals", code="timeout") == 1
        assert meters.value("everpool.refusals", code="down") == 0
        assert meters.value("everpool.state", state="up") == 1
        assert meters.value("everpool.state", state="down") == 0
        assert meters.value("everpool.trouble", trouble="unreachable") == 0
        assert meters.value("everpool.connection.opened") == 3
        assert meters.value("everpool.connection.cuts", cause="FIN") == 0
        assert 0 < (meters.value("everpool.connection.round_trip") or 0) < 1
        proxy.cut()
        eventually(lambda: meters.value("everpool.connection.cuts", cause="FIN") == 3)
        assert meters.value("everpool.connection.cuts_lent") == 0
        eventually(lambda: meters.value("everpool.happening.count", name="connection.cut") == 3)


def test_who_waits_is_pending(pool: ConnectionPool[Any], meters: Meters) -> None:
    with instrument(pool, meter_provider=meters.provider):
        held = [pool.getconn() for _ in range(3)]
        thread = threading.Thread(target=lambda: pool.putconn(pool.getconn(5)))
        thread.start()
        eventually(lambda: meters.value("db.client.connection.pending_requests") == 1)
        eventually(lambda: (meters.value("everpool.queue.longest_wait") or 0) > 0.05)
        for conn in held:
            pool.putconn(conn)
        thread.join()


def test_the_histograms_have_the_snapshots_counts_and_sums(
    pool: ConnectionPool[Any], meters: Meters
) -> None:
    with instrument(pool, meter_provider=meters.provider):
        for number in range(200):
            with pool.connection():
                sleep(0.002 if number % 20 == 0 else 0)
        held = [pool.getconn() for _ in range(3)]
        thread = threading.Thread(target=lambda: pool.putconn(pool.getconn(5)))
        thread.start()
        sleep(0.12)
        for conn in held:
            pool.putconn(conn)
        thread.join()
    # Closing has recorded the rest.
    agree(pool, meters)
    wait = meters.histogram(WAIT)
    assert wait.count == 204 and wait.sum > 0.1
    assert sum(wait.bucket_counts[5:]) == 1


def agree(pool: Any, meters: Meters) -> None:
    """Counts and sums are the snapshot's, bucket by bucket."""
    snapshot = pool.snapshot()
    for name, kind in KINDS.items():
        durations, point = getattr(snapshot, kind), meters.histogram(name, pool.name)
        if point is None:
            assert durations.count == 0
            continue
        assert point.explicit_bounds == BOUNDS
        assert tuple(point.bucket_counts) == durations.counts, kind
        assert point.count == durations.count
        assert point.sum == pytest.approx(durations.sum, rel=1e-4, abs=1e-5)


def test_the_background_feeds_them_within_two_seconds(
    pool: ConnectionPool[Any], meters: Meters
) -> None:
    with instrument(pool, meter_provider=meters.provider):
        with pool.connection():
            pass
        eventually(lambda: bool(meters.histogram(USE)), timeout=3)
        agree(pool, meters)


def test_too_many_are_sampled_and_what_was_left_out_is_counted(
    pool: ConnectionPool[Any], meters: Meters, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeder, "BUDGET", 100)
    with instrument(pool, meter_provider=meters.provider):
        for _ in range(4):
            for _ in range(500):
                with pool.connection():
                    sleep(0.0002)  # or one interruption would be more than all the rest
            sleep(feeder.INTERVAL + 0.1)
    with instrument(pool, meter_provider=meters.provider):
        snapshot = pool.snapshot()
        total = 0
        for name, kind in KINDS.items():
            left_out = meters.value("everpool.durations.left_out", histogram=name)
            recorded = meters.histogram(name).count
            assert left_out is not None
            assert recorded + left_out == getattr(snapshot, kind).count, kind
            total += recorded
            assert kind != "connect" or not left_out  # the few are all there
        assert 300 <= total <= 600
        # What is recorded is the same as the rest, on the average.
        use = meters.histogram(USE)
        assert use.sum / use.count == pytest.approx(snapshot.use.sum / snapshot.use.count, rel=0.5)


def test_a_recording_that_fails_harms_nobody(
    pool: ConnectionPool[Any], meters: Meters, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    with instrument(pool, meter_provider=meters.provider) as done:
        track = done._entry.source.tracks[1]  # type: ignore[union-attr]

        class Broken:
            def record(self, value: float, attributes: Any) -> None:
                raise RuntimeError("broken")

        monkeypatch.setattr(track, "histogram", Broken())
        with pool.connection():
            pass
        eventually(lambda: "recording durations failed" in caplog.text, timeout=4)
        eventually(lambda: meters.histogram(USE) is not None, timeout=4)


def test_two_pools_on_one_provider(server: PostgresServer, meters: Meters) -> None:
    with (
        ConnectionPool(server.dsn, min_size=1, name="a") as a,
        ConnectionPool(server.dsn, min_size=2, name="b") as b,
    ):
        a.wait(10)
        b.wait(10)
        with instrument(a, meter_provider=meters.provider):
            with instrument(b, meter_provider=meters.provider):
                assert meters.value("db.client.connection.max", "a") == 1
                assert meters.value("db.client.connection.max", "b") == 2
            assert meters.value("db.client.connection.max", "b") is None
            assert meters.value("db.client.connection.max", "a") == 1
        agree(a, meters)
        agree(b, meters)


def test_two_pools_of_one_name(server: PostgresServer, meters: Meters) -> None:
    first = ConnectionPool(server.dsn, min_size=1, name="twin", open=True)
    second = ConnectionPool(server.dsn, min_size=2, name="twin", open=True)
    try:
        one = instrument(first, meter_provider=meters.provider)
        with pytest.raises(ValueError, match="two pools are named 'twin'"):
            instrument(second, meter_provider=meters.provider)
        first.close()
        with instrument(second, meter_provider=meters.provider):  # the closed one gives way
            assert meters.value("db.client.connection.max", "twin") == 2
        one.close()
    finally:
        first.close()
        second.close()


def test_a_null_pool(server: PostgresServer, meters: Meters) -> None:
    with NullConnectionPool(server.dsn, max_size=0, name="orders") as pool:
        with instrument(pool, meter_provider=meters.provider):
            with pool.connection():
                assert meters.value("db.client.connection.count", state="used") == 1
            assert meters.value("db.client.connection.idle.max") == 0
            assert meters.value("db.client.connection.idle.min") == 0
            assert meters.value("db.client.connection.max") is None  # there is no limit
        agree(pool, meters)


@pytest.mark.anyio
async def test_an_async_pool(server: PostgresServer, meters: Meters) -> None:
    async with AsyncConnectionPool(server.dsn, min_size=1, name="orders", open=False) as pool:
        await pool.wait(10)
        with instrument(pool, meter_provider=meters.provider):
            for _ in range(20):
                async with pool.connection():
                    assert meters.value("db.client.connection.count", state="used") == 1
        agree(pool, meters)


def test_a_pool_that_is_closed_has_told_all(server: PostgresServer, meters: Meters) -> None:
    with ConnectionPool(server.dsn, min_size=1, name="orders") as pool:
        pool.wait(10)
        instrument(pool, meter_provider=meters.provider)
        with pool.connection():
            pass
    agree(pool, meters)
    assert meters.value("everpool.state", state="closed") == 1
    eventually(lambda: not FEEDER.running, timeout=3)


def test_a_pool_that_is_collected_is_told_of_no_more(
    server: PostgresServer, meters: Meters
) -> None:
    pool = ConnectionPool(server.dsn, min_size=1, name="orders", open=True)
    pool.wait(10)
    done = instrument(pool, meter_provider=meters.provider)
    assert meters.value("everpool.state", state="up") == 1
    del pool
    gc.collect()
    assert meters.value("everpool.state", state="up") is None
    done.close()


def test_what_is_ended_is_told_no_more_and_can_begin_again(
    pool: ConnectionPool[Any], meters: Meters
) -> None:
    done = instrument(pool, meter_provider=meters.provider)
    with pytest.raises(ValueError, match="told already"):
        instrument(pool, meter_provider=meters.provider)
    assert FEEDER.running
    done.close()
    done.close()
    assert not FEEDER.running
    assert meters.value("everpool.requests") is None
    with pool.connection():
        pass
    with instrument(pool, meter_provider=meters.provider):
        assert meters.value("everpool.requests") == 1
    agree(pool, meters)  # nothing twice


def test_the_global_provider_may_be_set_later(server: PostgresServer) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LATE, server.dsn], capture_output=True, text=True, timeout=30
    )
    assert done.stdout.splitlines() == ["['a', 'b']", "['c']"], done.stderr


LATE = f"""
import sys
from opentelemetry import metrics
from everpool import ConnectionPool
from everpool.telemetry.otel import instrument
from tests.telemetry.otel import POOL, Meters

with ConnectionPool(sys.argv[1], name="a") as a, ConnectionPool(sys.argv[1], name="b") as b:
    first = instrument(a)
    meters = Meters()
    metrics.set_meter_provider(meters.provider)
    second = instrument(b, meter_provider=meters.provider)
    for pool in (a, b):
        with pool.connection():
            pass
    first.close(), second.close()
    points = meters.metrics()["{USE}"].data.data_points
    print(sorted(point.attributes[{POOL!r}] for point in points))
with ConnectionPool(sys.argv[1], name="c") as c, instrument(c):
    points = meters.metrics()["everpool.requests"].data.data_points
    print(sorted(point.attributes[{POOL!r}] for point in points))
"""


FORKED = """
import os, sys, time
from everpool import ConnectionPool
from everpool.telemetry.otel import instrument
from everpool.telemetry.otel.feeder import FEEDER
from tests.telemetry.otel import Meters

def uses():
    return meters.histogram("db.client.connection.use_time").count

meters = Meters()
with ConnectionPool(sys.argv[1], min_size=1, name="orders") as pool:
    done = instrument(pool, meter_provider=meters.provider)
    for _ in range(3):
        with pool.connection():
            pass
    FEEDER.feed(done._entry.source)
    child = os.fork()
    if not child:
        with pool.connection():
            pass
        # What was recorded before the fork stays in the SDK; the child adds its own.
        end = time.monotonic() + 5
        while uses() != 4 and time.monotonic() < end:
            time.sleep(0.05)
        assert meters.value("everpool.requests") == 1
        os._exit(10 + uses())
    _, status = os.waitpid(child, 0)
    print(uses(), os.waitstatus_to_exitcode(status))
"""


def test_a_forked_child_is_told_of_for_itself(server: PostgresServer) -> None:
    script = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKED, server.dsn]
    done = subprocess.run(script, capture_output=True, text=True, timeout=30)
    assert done.stdout.split() == ["3", "14"], done.stderr


def test_a_script_that_ends_nothing_ends(server: PostgresServer) -> None:
    script = """
import sys
from everpool import ConnectionPool
from everpool.telemetry.otel import instrument
pool = ConnectionPool(sys.argv[1], name="orders", open=True)
instrument(pool)
with pool.connection():
    print("used")
"""
    done = subprocess.run(
        [sys.executable, "-c", script, server.dsn], capture_output=True, text=True, timeout=10
    )
    assert (done.stdout, done.stderr, done.returncode) == ("used\n", "", 0)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"metrcis": True}, TypeError, "'metrcis'.*metrics, traces, meter_provider"),
        ({"metrics": False}, ValueError, "nothing to do"),
        ({"tracer_provider": object()}, ValueError, "tracer_provider is given, but traces=False"),
        (
            {"metrics": False, "traces": True, "meter_provider": object()},
            ValueError,
            "meter_provider is given, but metrics=False",
        ),
    ],
)
def test_options_that_make_no_sense_are_refused(
    options: dict[str, Any], error: type[Exception], says: str
) -> None:
    pool = ConnectionPool("", open=False)
    with pytest.raises(error, match=says):
        instrument(pool, **options)


def test_what_is_no_pool_is_refused() -> None:
    import psycopg_pool

    with pytest.raises(TypeError, match="no pool of everpool's"):
        instrument(psycopg_pool.ConnectionPool("", open=False))  # type: ignore[arg-type]


def test_without_the_api_the_extra_is_named() -> None:
    script = """
import sys
sys.modules["opentelemetry"] = None
import everpool.telemetry.otel
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert 'pip install "everpool[otel]"' in done.stderr


def test_no_attribute_names_a_host_or_a_user(pool: ConnectionPool[Any], meters: Meters) -> None:
    with instrument(pool, meter_provider=meters.provider):
        said = str(meters.points())
    with pool.connection() as conn:
        assert conn.info.host not in said
    assert STATE in said
