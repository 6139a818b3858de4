"""Fixtures on a real server: one PostgreSQL for the whole run, a fresh fault proxy per test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from everpool.lab import FaultProxy, PostgresServer
from tests.support.figures import figure as figure
from tests.support.figures import print_table
from tests.support.packages import deselect_by_package


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "contract_only(package, reason): holds for one of psycopg_pool and everpool only",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    deselect_by_package(config, items)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    print_table(terminalreporter)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """What the asynchronous tests run on: psycopg knows no other."""
    return "asyncio"


@pytest.fixture(scope="session")
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture
def proxy(server: PostgresServer) -> Iterator[FaultProxy]:
    with FaultProxy(server.host, server.port) as proxy:
        yield proxy
