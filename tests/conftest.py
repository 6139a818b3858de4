from __future__ import annotations

import os

import pytest

from tests.support.packages import deselect_by_package


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "contract_only(package, reason): the test holds for one of psycopg_pool and everpool only"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    deselect_by_package(config, items)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def server_dsn() -> str:
    return os.environ["EVERPOOL_TEST_DSN"]
