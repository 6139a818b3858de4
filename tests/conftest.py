"""Fixtures on a real server: one PostgreSQL for the whole run, a fresh fault proxy per test."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from everpool.lab import FaultProxy, PostgresServer
from tests.support.figures import figure as figure
from tests.support.figures import print_table
from tests.support.packages import deselect_by_package

# Loggers whose settings each test leaves as it found them.
LOGGERS = ("everpool", "psycopg")


def pytest_configure(config: pytest.Config) -> None:
    # A shell's background jobs ignore SIGINT and pass that on: tests press the key.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line(
        "markers",
        "contract_only(package, reason): holds for one of psycopg_pool and everpool only",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    deselect_by_package(config, items)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    print_table(terminalreporter)


@pytest.fixture(autouse=True)
def loggers_as_found() -> Iterator[None]:
    """What a test or a program that it runs sets on our loggers and psycopg's does not outlive it."""
    names = [name for name in logging.root.manager.loggerDict if name.startswith(LOGGERS)]
    # `getLogger` makes those that were mere places between others; they hold nothing yet.
    found = {logger: _settings(logger) for logger in map(logging.getLogger, names)}
    yield
    for logger, (level, handlers, disabled, propagate) in found.items():
        logger.setLevel(level)
        logger.handlers[:] = handlers
        logger.disabled, logger.propagate = disabled, propagate


def _settings(logger: logging.Logger) -> tuple[int, list[logging.Handler], bool, bool]:
    return logger.level, list(logger.handlers), logger.disabled, logger.propagate


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
