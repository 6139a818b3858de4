"""Health and metrics below one mount, in either framework."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette

from everpool import AsyncConnectionPool, ConnectionPool
from everpool.fastapi import lifespan, monitoring
from tests.fastapi.conftest import running

pytestmark = pytest.mark.anyio


@pytest.fixture(params=[FastAPI, Starlette])
def app(request: pytest.FixtureRequest, dsn: str) -> Any:
    one = AsyncConnectionPool(dsn, min_size=1, name="one", open=False)
    two = ConnectionPool(dsn, min_size=1, name="two", open=False)
    app = request.param(lifespan=lifespan(one, lifespan(two)))
    app.mount("/internal", monitoring(one, two, metrics=True))
    app.mount("/bare", monitoring(one))
    return app


@pytest.mark.parametrize("path", ["live", "ready", "startup", "health", "livez"])
async def test_health(app: Any, path: str) -> None:
    async with running(app) as client:
        for mount in ("internal", "bare"):
            answer = await client.get(f"/{mount}/{path}")
            assert answer.status_code == 200
            assert answer.json()["status"] in ("pass", "warn")  # it may not have connected yet


async def test_health_after_the_end(app: Any) -> None:
    async with running(app) as client:
        async with running(app):
            pass
        answer = await client.get("/internal/ready")
        assert (answer.status_code, answer.json()["status"]) == (503, "fail")


async def test_metrics(app: Any) -> None:
    async with running(app) as client:
        answer = await client.get("/internal/metrics")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/plain; version=")
        assert 'pool="one"' in answer.text and 'pool="two"' in answer.text
        accept = {"accept": "application/openmetrics-text; version=1.0.0"}
        answer = await client.get("/internal/metrics", headers=accept)
        assert answer.headers["content-type"].startswith("application/openmetrics-text")
        assert answer.text.endswith("# EOF\n")


async def test_what_does_not_exist(app: Any) -> None:
    async with running(app) as client:
        assert (await client.get("/internal/nonsense")).status_code == 404
        assert (await client.get("/bare/metrics")).status_code == 404
        assert (await client.post("/internal/metrics")).status_code == 405
        assert (await client.post("/internal/health")).status_code == 405
