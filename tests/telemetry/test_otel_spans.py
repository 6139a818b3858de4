"""Spans of real pools, as OpenTelemetry's own SDK has them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from time import monotonic, time_ns
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.trace import SpanKind, StatusCode
from psycopg.conninfo import make_conninfo

from everpool import AsyncConnectionPool, ConnectionPool, PoolTimeout, PoolUnavailable
from everpool.events import CommitResolved, OpenFailed, Retried, Trouble
from everpool.lab import PostgresServer
from everpool.telemetry.otel import instrument
from everpool.telemetry.otel.spans import Spans
from tests.support.net import refusing_port
from tests.support.threads import eventually
from tests.telemetry.otel import POOL, Meters, Tracing, attributes

COMMON = {"db.system.name": "postgresql", POOL: "orders"}
NUMBER = "everpool.connection.number"


@pytest.fixture
def tracing() -> Tracing:
    return Tracing()


@pytest.fixture
def pool(server: PostgresServer) -> Iterator[ConnectionPool[Any]]:
    with ConnectionPool(server.dsn, min_size=1, max_size=2, name="orders", timeout=5) as pool:
        pool.wait(10)
        yield pool


def traced(pool: Any, tracing: Tracing) -> Any:
    return instrument(pool, metrics=False, traces=True, tracer_provider=tracing.provider)


def seconds(span: ReadableSpan) -> float:
    assert span.start_time is not None and span.end_time is not None
    return (span.end_time - span.start_time) / 1e9


def test_an_acquire_is_the_child_of_what_its_thread_does(
    pool: ConnectionPool[Any], tracing: Tracing
) -> None:
    def work(name: str) -> None:
        with tracing.tracer.start_as_current_span(name):
            with pool.connection():
                pass
            with tracing.tracer.start_as_current_span(f"{name} after"):
                pass

    with traced(pool, tracing):
        threads = [threading.Thread(target=work, args=(name,)) for name in ("one", "two")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        by_parent = {span.parent.span_id: span for span in tracing.spans("everpool.acquire")}  # type: ignore[union-attr]
        for name in ("one", "two"):
            (parent,) = tracing.spans(name)
            span = by_parent[parent.context.span_id]
            assert span.context.trace_id == parent.context.trace_id
            assert span.kind is SpanKind.INTERNAL
            assert attributes(span).items() >= COMMON.items()
            assert attributes(span)[NUMBER] in {v.number for v in pool.snapshot().connections}
            assert span.status.status_code is StatusCode.UNSET
            # The span ends with the request: what follows is the parent's again.
            (after,) = tracing.spans(f"{name} after")
            assert after.parent.span_id == parent.context.span_id  # type: ignore[union-attr]


@pytest.mark.anyio
async def test_an_acquire_is_the_child_of_what_its_task_does(
    server: PostgresServer, tracing: Tracing
) -> None:
    async def work(pool: Any, name: str) -> None:
        with tracing.tracer.start_as_current_span(name):
            async with pool.connection() as conn:
                await conn.execute("select pg_sleep(0.02)")

    names = [f"task {number}" for number in range(6)]
    async with AsyncConnectionPool(
        server.dsn, min_size=1, max_size=2, name="orders", open=False
    ) as pool:
        with traced(pool, tracing):
            await asyncio.gather(*(work(pool, name) for name in names))
    children = {span.parent.span_id for span in tracing.spans("everpool.acquire")}  # type: ignore[union-attr]
    assert children == {tracing.spans(name)[0].context.span_id for name in names}
    # Some waited, and their spans say for how long.
    assert max(map(seconds, tracing.spans("everpool.acquire"))) >= 0.02


def test_a_check_callback_is_part_of_the_acquire(server: PostgresServer, tracing: Tracing) -> None:
    def check(conn: psycopg.Connection[Any]) -> None:
        with tracing.tracer.start_as_current_span("check"):
            pass

    with ConnectionPool(server.dsn, min_size=1, check=check, name="orders") as pool:
        with traced(pool, tracing), pool.connection():
            pass
    (acquire,) = tracing.spans("everpool.acquire")
    assert tracing.spans("check")[0].parent == acquire.context


def test_a_timeout_is_an_error(pool: ConnectionPool[Any], tracing: Tracing) -> None:
    with traced(pool, tracing):
        with pool.connection(), pool.connection():
            with pytest.raises(PoolTimeout), pool.connection(0.05):
                pass
    span = tracing.spans("everpool.acquire")[-1]
    assert span.status.status_code is StatusCode.ERROR
    assert attributes(span)["error.type"] == "timeout"
    assert NUMBER not in attributes(span)
    assert 0.05 <= seconds(span) < 1
    assert not span.events and span.status.description is None  # an error's text may name hosts


def test_what_a_server_sends_as_an_sqlstate_is_told_only_if_it_is_one(tracing: Tracing) -> None:
    spans, error = Spans("orders", tracing.provider), psycopg.OperationalError("bye")
    error.sqlstate = "secret of any length"
    with pytest.raises(psycopg.Error), spans.around():
        raise error
    (span,) = tracing.spans("everpool.acquire")
    assert "db.response.status_code" not in attributes(span)


def test_an_interruption_is_told_by_its_class(pool: ConnectionPool[Any], tracing: Tracing) -> None:
    spans = Spans("orders", tracing.provider)
    with pytest.raises(KeyboardInterrupt), spans.around():
        raise KeyboardInterrupt
    with pytest.raises(psycopg.Error), spans.around():
        raise psycopg.errors.AdminShutdown("bye")
    interrupted, shut_down = tracing.spans("everpool.acquire")
    assert attributes(interrupted)["error.type"] == "KeyboardInterrupt"
    assert attributes(shut_down)["error.type"] == "psycopg.errors.AdminShutdown"
    assert attributes(shut_down)["db.response.status_code"] == "57P01"


def test_a_connect(server: PostgresServer, tracing: Tracing) -> None:
    pool = ConnectionPool(server.dsn, min_size=2, max_size=3, name="orders", open=False)
    before = time_ns()
    with traced(pool, tracing), tracing.tracer.start_as_current_span("somebody"), pool:
        pool.wait(10)
        eventually(lambda: len(tracing.spans("everpool.connect")) == 2)
        after = time_ns()
        for span in tracing.spans("everpool.connect"):
            assert span.kind is SpanKind.CLIENT
            assert span.parent is None  # it was opened for nobody in particular
            assert attributes(span).items() >= COMMON.items()
            assert span.start_time is not None and span.end_time is not None
            assert before - 10**8 < span.start_time < span.end_time < after + 10**8
            assert span.status.status_code is StatusCode.UNSET
        took = sum(map(seconds, tracing.spans("everpool.connect")))
        assert took == pytest.approx(pool.snapshot().connect.sum, abs=0.001)


def test_a_rejected_connect_is_an_error(server: PostgresServer, tracing: Tracing) -> None:
    dsn = make_conninfo(server.dsn, dbname="nowhere")
    pool = ConnectionPool(dsn, min_size=1, name="orders", open=False, timeout=5)
    with traced(pool, tracing), pool:
        with pytest.raises(PoolUnavailable), pool.connection():
            pass
        eventually(lambda: bool(tracing.spans("everpool.connect")))
    (acquire,) = tracing.spans("everpool.acquire")
    assert attributes(acquire)["error.type"] == "rejected"
    connect = tracing.spans("everpool.connect")[0]
    assert connect.status.status_code is StatusCode.ERROR
    assert attributes(connect)["error.type"] == "rejected"
    assert 0 < seconds(connect) < 2
    assert "nowhere" not in connect.to_json() + acquire.to_json()


def test_a_refused_connect_is_an_error(tracing: Tracing) -> None:
    with refusing_port() as port:
        dsn = f"host=127.0.0.1 port={port} dbname=nowhere"
        pool = ConnectionPool(dsn, min_size=1, name="orders", open=False)
        with traced(pool, tracing), pool:
            eventually(lambda: bool(tracing.spans("everpool.connect")))
    connect = tracing.spans("everpool.connect")[0]
    assert attributes(connect)["error.type"] == "unreachable"
    assert str(port) not in connect.to_json()


def test_a_connect_that_the_server_refused_by_a_code(
    server: PostgresServer, tracing: Tracing
) -> None:
    def configure(conn: psycopg.Connection[Any]) -> None:
        conn.execute("select 1 / 0")

    pool = ConnectionPool(server.dsn, min_size=1, configure=configure, name="orders", open=False)
    with traced(pool, tracing), pool:
        eventually(lambda: bool(tracing.spans("everpool.connect")))
    found = attributes(tracing.spans("everpool.connect")[0])
    assert found["db.response.status_code"] == "22012"


@pytest.mark.parametrize("text", ["FATAL: no", "connection failed: 22012: no", "timeout expired"])
def test_what_is_no_sqlstate_is_not_told_as_one(text: str, tracing: Tracing) -> None:
    Spans("orders", tracing.provider).hear(OpenFailed(monotonic(), 1, Trouble.GONE, text, 1, 0.1))
    (span,) = tracing.spans("everpool.connect")
    assert "db.response.status_code" not in attributes(span)


def test_a_retry(tracing: Tracing) -> None:
    spans = Spans("orders", tracing.provider)
    with tracing.tracer.start_as_current_span("whoever's thread it is told in"):
        spans.hear(Retried(monotonic(), 2, "40001", 0.25))
    (span,) = tracing.spans("everpool.retry")
    assert span.parent is None
    assert seconds(span) == pytest.approx(0.25, abs=1e-6)
    assert attributes(span) == {
        **COMMON,
        "everpool.retry.attempt": 2,
        "everpool.retry.reason": "40001",
    }


@pytest.mark.parametrize(
    ("outcome", "status"), [("committed", StatusCode.UNSET), ("unknown", StatusCode.ERROR)]
)
def test_a_commit_looked_into(outcome: str, status: StatusCode, tracing: Tracing) -> None:
    spans = Spans("orders", tracing.provider)
    spans.hear(CommitResolved(monotonic(), outcome, 1.5))
    (span,) = tracing.spans("everpool.resolve_commit")
    assert seconds(span) == pytest.approx(1.5, abs=1e-6)
    assert attributes(span)["everpool.commit.outcome"] == outcome
    assert span.status.status_code is status
    assert abs((span.end_time or 0) - time_ns()) < 10**9


def test_a_tracer_that_fails_harms_nobody(
    pool: ConnectionPool[Any], tracing: Tracing, caplog: Any
) -> None:
    class Broken(SpanProcessor):
        def on_start(self, span: Any, parent_context: Any = None) -> None:
            raise RuntimeError("broken")

    class BrokenLate(SpanProcessor):
        def on_end(self, span: Any) -> None:
            raise RuntimeError("broken late")

    tracing.provider.add_span_processor(BrokenLate())
    with traced(pool, tracing), pool.connection():
        pass
    tracing.provider.add_span_processor(Broken())
    with traced(pool, tracing), pool.connection():
        pass
    assert caplog.text.count("tracing failed") == 2
    assert pool.snapshot().slots["idle"] == 1


def test_a_tracer_of_no_provider_costs_no_connection(pool: ConnectionPool[Any]) -> None:
    with instrument(pool, metrics=False, traces=True), pool.connection():
        pass


def test_closing_ends_the_spans_and_gives_the_hot_path_back(
    pool: ConnectionPool[Any], tracing: Tracing
) -> None:
    assert pool._direct
    done = traced(pool, tracing)
    with pytest.raises(ValueError, match="traced already"):
        traced(pool, tracing)
    with pool.connection():
        pass
    done.close()
    done.close()
    with pool.connection():
        pass
    assert len(tracing.spans("everpool.acquire")) == 1
    assert pool._direct


def test_what_cannot_begin_as_a_whole_does_not_begin_in_part(
    server: PostgresServer, pool: ConnectionPool[Any], tracing: Tracing
) -> None:
    meters = Meters()
    both = SimpleNamespace(meter_provider=meters.provider, tracer_provider=tracing.provider)
    with (
        ConnectionPool(server.dsn, name="orders") as twin,
        instrument(twin, meter_provider=meters.provider),
    ):
        with pytest.raises(ValueError, match="two pools are named 'orders'"):
            instrument(pool, traces=True, **vars(both))
        assert pool._direct
    with instrument(pool, traces=True, **vars(both)):
        pass
