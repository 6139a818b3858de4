"""gRPC's own client against gRPC's own service."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from time import monotonic
from typing import Any

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub, add_HealthServicer_to_server

from everpool.endpoints import Readiness
from everpool.endpoints.grpc import grpc_health
from everpool.lab import FaultProxy, PostgresServer
from tests.support.threads import eventually

from .pools import Tasks, Threads

SERVING, NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING

# Leaves at the first look.
AT_ONCE = Readiness(strict=True, after=0, spread=0, looks=1, back_after=0)


@contextmanager
def serving(health: Any) -> Iterator[HealthStub]:
    with ThreadPoolExecutor(4) as executor:
        server = grpc.server(executor)
        add_HealthServicer_to_server(health.servicer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                yield HealthStub(channel)
        finally:
            server.stop(0).wait()


def check(stub: HealthStub, service: str = "") -> Any:
    return stub.Check(HealthCheckRequest(service=service), timeout=5).status


class Watch:
    """What a watching client is told, as it comes."""

    def __init__(self, stub: HealthStub, service: str) -> None:
        self.told: queue.Queue[Any] = queue.Queue()
        self._call = stub.Watch(HealthCheckRequest(service=service))
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        try:
            for response in self._call:
                self.told.put(response.status)
        except grpc.RpcError:
            pass  # the test has ended

    def next(self, timeout: float = 5.0) -> Any:
        return self.told.get(timeout=timeout)

    def end(self) -> None:
        self._call.cancel()
        self._thread.join(5)


def test_a_service_for_each_pool_and_one_for_all(
    world: Threads | Tasks, server: PostgresServer
) -> None:
    pools = [world.open(server.dsn, min_size=1, max_size=1, name=name) for name in ("a", "b")]
    with grpc_health(pools) as health, serving(health) as stub:
        assert [check(stub, name) for name in ("", "a", "b")] == [SERVING] * 3
        with pytest.raises(grpc.RpcError) as unknown:
            check(stub, "c")
        assert unknown.value.code() is grpc.StatusCode.NOT_FOUND  # type: ignore[attr-defined]
        world.end(pools[0])
        eventually(lambda: check(stub, "a") == NOT_SERVING)
        assert [check(stub, name) for name in ("", "b")] == [NOT_SERVING, SERVING]


def test_an_outage_is_told_at_once_and_so_is_its_end(
    world: Threads | Tasks, server: PostgresServer, proxy: FaultProxy
) -> None:
    pool = world.open(proxy.via(server.dsn), min_size=2, max_size=2, name="a")
    world.wait(pool)
    # The slow look would come too late to help.
    with grpc_health(pool, readiness=AT_ONCE, every=60) as health, serving(health) as stub:
        watches = [Watch(stub, "a"), Watch(stub, ""), Watch(stub, "a")]
        assert [watch.next() for watch in watches] == [SERVING] * 3
        proxy.refuse()
        proxy.cut()
        began = monotonic()
        assert [watch.next() for watch in watches] == [NOT_SERVING] * 3
        assert monotonic() - began < 2
        proxy.accept()
        assert [watch.next() for watch in watches] == [SERVING] * 3
        # Nothing is told twice.
        assert [watch.told.qsize() for watch in watches] == [0] * 3
        for watch in watches:
            watch.end()


def test_by_default_an_outage_does_not_end_serving(
    world: Threads | Tasks, server: PostgresServer, proxy: FaultProxy
) -> None:
    pool = world.open(proxy.via(server.dsn), min_size=1, max_size=1, name="a")
    world.wait(pool)
    with grpc_health(pool, every=0.05) as health, serving(health) as stub:
        watch = Watch(stub, "a")
        proxy.refuse()
        proxy.cut()
        eventually(lambda: pool.health().state.value == "down")
        with pytest.raises(AssertionError):
            eventually(lambda: check(stub, "a") == NOT_SERVING, timeout=0.5)
        assert watch.next() == SERVING
        assert watch.told.empty()  # what has not changed is not told again
        watch.end()


def test_what_only_time_changes_is_found_by_the_slow_look(
    world: Threads | Tasks, server: PostgresServer, proxy: FaultProxy
) -> None:
    pool = world.open(proxy.via(server.dsn), min_size=1, max_size=1, name="a")
    world.wait(pool)
    patient = Readiness(strict=True, after=1.0, spread=0, looks=3, back_after=0)
    with grpc_health(pool, readiness=patient, every=0.1) as health, serving(health) as stub:
        proxy.refuse()
        proxy.cut()
        eventually(lambda: pool.health().state.value == "down")
        began = monotonic()
        eventually(lambda: check(stub, "a") == NOT_SERVING)
        assert monotonic() - began >= 0.8


def test_at_the_end_nothing_is_served_and_nothing_is_left(
    world: Threads | Tasks, server: PostgresServer
) -> None:
    pool = world.open(server.dsn, min_size=1, max_size=1, name="a")
    with grpc_health(pool) as health, serving(health) as stub:
        watch = Watch(stub, "a")
        assert watch.next() == SERVING
        health.close()
        assert watch.next() == NOT_SERVING
        assert check(stub) == NOT_SERVING
        watch.end()
        assert not [t for t in threading.enumerate() if t.name == "everpool-grpc-health"]


@pytest.mark.anyio
async def test_an_asyncio_server_is_served_in_its_loop(
    server: PostgresServer, proxy: FaultProxy
) -> None:
    from everpool import AsyncConnectionPool

    dsn = proxy.via(server.dsn)
    async with AsyncConnectionPool(dsn, min_size=1, max_size=1, name="a", open=False) as pool:
        await pool.wait()
        with grpc_health(pool, readiness=AT_ONCE, every=60, aio=True) as health:
            grpc_server = grpc.aio.server()
            add_HealthServicer_to_server(health.servicer, grpc_server)
            port = grpc_server.add_insecure_port("127.0.0.1:0")
            await grpc_server.start()
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                stub = HealthStub(channel)
                request = HealthCheckRequest(service="a")
                calls = [stub.Watch(request) for _ in range(50)]

                async def told() -> set[Any]:
                    return {(await call.read()).status for call in calls}

                assert await told() == {SERVING}
                proxy.refuse()
                proxy.cut()
                assert await told() == {NOT_SERVING}
                proxy.accept()
                assert await told() == {SERVING}
                health.close()
                assert await told() == {NOT_SERVING}
                for call in calls:
                    call.cancel()
            await grpc_server.stop(0)
