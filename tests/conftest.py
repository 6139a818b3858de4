"""Fixtures on a real server: one PostgreSQL for the whole run, a fresh fault proxy per test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from everpool.lab import FaultProxy, PostgresServer


@pytest.fixture(scope="session")
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture
def proxy(server: PostgresServer) -> Iterator[FaultProxy]:
    with FaultProxy(server.host, server.port) as proxy:
        yield proxy
