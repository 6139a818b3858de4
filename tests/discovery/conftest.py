"""Pools on a real server through a proxy, a stand-in for Consul, a real etcd."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from everpool import ConnectionPool
from everpool.discovery import Instance
from everpool.lab import FaultProxy, PostgresServer
from tests.discovery.consul_agent import ConsulAgent
from tests.support.programs import Program, etcd


@pytest.fixture
def orders() -> Instance:
    return Instance("orders", address="10.0.0.7", port=8000)


@pytest.fixture
def pool(server: PostgresServer, proxy: FaultProxy) -> Iterator[ConnectionPool]:
    """An open pool, in good health."""
    with ConnectionPool(proxy.via(server.dsn), min_size=2, max_size=2, name="orders") as pool:
        pool.wait(10)
        yield pool


@pytest.fixture
def agent() -> Iterator[ConsulAgent]:
    with ConsulAgent() as agent:
        yield agent


@pytest.fixture(scope="session")
def one_etcd() -> Iterator[Program]:
    """An etcd for the tests that leave it as it is."""
    with etcd() as program:
        yield program
