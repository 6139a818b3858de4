"""Fixtures on a real server: one PostgreSQL for the whole run, a fresh fault proxy per test."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from everpool.lab import FaultProxy, PostgresServer
from tests.support.figures import figure as figure
from tests.support.figures import print_table
from tests.support.packages import deselect_by_package

# The labs of workers that run side by side choose their ports from ranges of their own: parts of
# this one, below the ephemeral ports, or of what EVERPOOL_LAB_PORTS says.
PORTS, PARTS = "10240-32639", 8

# Loggers whose settings each test leaves as it found them.
LOGGERS = ("everpool", "psycopg")


def pytest_configure(config: pytest.Config) -> None:
    # A shell's background jobs ignore SIGINT and pass that on: tests press the key.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line(
        "markers",
        "contract_only(package, reason): holds for one of psycopg_pool and everpool only",
    )
    config.addinivalue_line(
        "markers",
        "alone: measures how fast or how soon; not beside other tests (those with `figure` are)",
    )
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    if worker:
        first, last = map(int, os.environ.get("EVERPOOL_LAB_PORTS", PORTS).split("-"))
        each = (last + 1 - first) // PARTS
        first += each * (int(worker.removeprefix("gw")) % PARTS)
        os.environ["EVERPOOL_LAB_PORTS"] = f"{first}-{first + each - 1}"


# First, so that `-m alone` knows.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    deselect_by_package(config, items)
    for item in items:
        if "figure" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.alone)


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
