"""The endpoints inside a program's own server: ASGI and WSGI."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from everpool.endpoints import asgi_app, wsgi_app

from .pools import DOWN, Pretended

pytestmark = pytest.mark.anyio

Ask = Callable[..., Any]

PATHS = ["/live", "/ready", "/startup", "/health", "/livez", "/readyz", "/startupz", "/healthz"]


def asgi(pool: Any, prefix: str = "", **options: Any) -> Any:
    app: Any = asgi_app(pool, **options)
    if prefix:
        app = Starlette(routes=[Mount(prefix, app)])
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


def wsgi(pool: Any, prefix: str = "", **options: Any) -> Any:
    app: Any = validator(wsgi_app(pool, **options))

    def mounted(environ: Any, start_response: Any) -> Any:
        """As Werkzeug's DispatcherMiddleware does it."""
        path = environ["PATH_INFO"]
        assert path.startswith(prefix)
        environ["SCRIPT_NAME"], environ["PATH_INFO"] = prefix, path[len(prefix) :]
        return app(environ, start_response)

    class Client:
        async def request(self, method: str, path: str, headers: Any = None) -> httpx.Response:
            environ: dict[str, Any] = {
                "REQUEST_METHOD": method,
                "PATH_INFO": path,
                "QUERY_STRING": "x=1",
            }
            setup_testing_defaults(environ)
            environ |= {
                f"HTTP_{k.upper().replace('-', '_')}": v for k, v in (headers or {}).items()
            }
            told: list[Any] = []
            body = mounted(environ, lambda *told_now: told.extend(told_now))
            data = b"".join(body)
            body.close()
            return httpx.Response(int(told[0][:3]), headers=told[1], content=data or None)

    return Client()


both = pytest.mark.parametrize("world", [asgi, wsgi])


@both
@pytest.mark.parametrize("prefix", ["", "/internal", "/a/b"])
@pytest.mark.parametrize("path", PATHS)
async def test_every_path_answers_under_any_prefix(world: Ask, prefix: str, path: str) -> None:
    client = world(Pretended(), prefix)
    got = await client.request("GET", prefix + path)
    assert got.status_code == 200
    assert got.json()["status"] == "pass"
    assert got.headers["content-type"] == "application/health+json"
    head = await client.request("HEAD", prefix + path)
    assert (head.status_code, head.content) == (200, b"")
    if "health" not in path:  # there it tells the time
        assert dict(head.headers) == dict(got.headers)
    assert int(head.headers["content-length"]) > 0


@both
async def test_what_fails_is_a_503_with_retry_after(world: Ask) -> None:
    got = await world(Pretended(**DOWN)).request("GET", "/health")
    assert got.status_code == 503
    assert got.json() == {"status": "fail", "code": "down", "retry_after": 1}
    assert got.headers["retry-after"] == "1"


@both
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"])
async def test_other_methods_are_refused(world: Ask, method: str) -> None:
    got = await world(Pretended()).request(method, "/ready")
    assert got.status_code == 405
    assert got.headers["allow"] == "GET, HEAD"
    assert got.json() == {"status": "fail", "code": "unknown method"}


@both
@pytest.mark.parametrize("path", ["/", "/ready/", "/READY", "/ready/x", "/x/ready", "/.env", "/é"])
async def test_other_paths_are_unknown(world: Ask, path: str) -> None:
    got = await world(Pretended()).request("GET", path)
    assert got.status_code == 404
    assert got.json() == {"status": "fail", "code": "unknown path"}
    assert (await world(Pretended()).request("POST", path)).status_code == 404


@both
async def test_what_is_known_already_is_not_repeated(world: Ask) -> None:
    client = world(Pretended())
    etag = (await client.request("GET", "/health")).headers["etag"]
    got = await client.request("GET", "/health", headers={"If-None-Match": etag})
    assert (got.status_code, got.content) == (304, b"")


@both
async def test_details_only_with_consent(world: Ask) -> None:
    for consent in (False, True):
        got = await world(Pretended(**DOWN), details=consent).request("GET", "/health")
        assert ("db-7.internal" in got.text) is consent


async def test_asgi_by_itself_takes_part_in_start_and_end() -> None:
    messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
    sent: list[Any] = []

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message["type"])

    app: Any = asgi_app(Pretended())  # type: ignore[arg-type]
    await app({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_asgi_refuses_a_websocket() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    app: Any = asgi_app(Pretended())  # type: ignore[arg-type]
    await app({"type": "websocket", "path": "/live"}, None, send)
    assert sent == [{"type": "websocket.close", "code": 1003}]


async def test_asgi_is_not_confused_by_a_prefix_like_a_path() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    app: Any = asgi_app(Pretended())  # type: ignore[arg-type]
    for root, path, code in [
        ("/health", "/health/live", 200),
        ("/liv", "/live", 200),
        ("/x/", "/x/live", 200),
    ]:
        sent.clear()
        scope = {"type": "http", "method": "GET", "root_path": root, "path": path, "headers": []}
        await app(scope, None, send)
        assert sent[0]["status"] == code
        assert json.loads(sent[1]["body"])["status"] == "pass"
        sent.clear()
        await app({**scope, "method": "HEAD"}, None, send)
        assert (sent[0]["status"], sent[1]["body"]) == (code, b"")
