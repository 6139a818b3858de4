# Generated from tests/aio/contract/conftest.py by `python tools/async_to_sync.py`.
# Do not edit: change that file and run `make generate`.

"""The contract of psycopg_pool: fixtures that build the pools under test.

Every test takes one of `make`, `make_null` and `make_any`, directly or through another fixture, and so runs once for each
package and, with `make_any`, once for each kind of pool.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from types import ModuleType
from typing import Any

import pytest

from everpool.lab import PostgresServer
from tests.support.database import Database
from tests.support.packages import PACKAGES


@pytest.fixture(params=PACKAGES)
def package(request: pytest.FixtureRequest) -> str:
    """The name of the package under test."""
    name: str = request.param
    return name


@pytest.fixture
def module(package: str) -> ModuleType:
    """The package under test."""
    return import_module(package)


@pytest.fixture
def database(server: PostgresServer) -> Iterator[Database]:
    database = Database(server.dsn)
    yield database
    database.close()


@pytest.fixture
def dsn(database: Database) -> str:
    return database.dsn


class Make:
    """Builds pools of one class that hold *size* connections, or up to *max_size*, and are not open yet."""

    def __init__(self, cls: type, dsn: str, null: bool) -> None:
        self.cls: Any = cls
        self.dsn = dsn
        self.null = null

    def __call__(self, size: int = 1, max_size: int | None = None, **settings: Any) -> Any:
        settings.setdefault("conninfo", self.dsn)
        settings.setdefault("open", False)
        if self.null:
            return self.cls(min_size=0, max_size=max_size or size, **settings)
        return self.cls(min_size=size, max_size=max_size, **settings)


@pytest.fixture
def make(module: ModuleType, dsn: str) -> Make:
    """Builds ordinary pools."""
    return Make(module.ConnectionPool, dsn, null=False)


@pytest.fixture
def make_null(module: ModuleType, dsn: str) -> Make:
    """Builds null pools."""
    return Make(module.NullConnectionPool, dsn, null=True)


@pytest.fixture(params=["pool", "null"])
def make_any(request: pytest.FixtureRequest, module: ModuleType, dsn: str) -> Make:
    """Builds pools of both kinds: the test runs once for each."""
    if request.param == "null":
        return Make(module.NullConnectionPool, dsn, null=True)
    return Make(module.ConnectionPool, dsn, null=False)
