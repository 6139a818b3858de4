"""The endpoints as an ASGI application, to be mounted or served by itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import TYPE_CHECKING, Any

from .questions import Endpoints
from .readiness import Readiness

if TYPE_CHECKING:
    from .questions import Pool

__all__ = ["ASGIApp", "asgi_app"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

# Of WebSocket: this endpoint has no use for what you want.
REFUSED = 1003


class ASGIApp:
    """See `asgi_app`."""

    def __init__(self, endpoints: Endpoints) -> None:
        self.endpoints = endpoints

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._answer(scope, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": REFUSED})
        elif scope["type"] == "lifespan":
            await _live(receive, send)

    async def _answer(self, scope: Message, send: Send) -> None:
        method = scope["method"]
        known = b",".join(value for name, value in scope["headers"] if name == b"if-none-match")
        reply = self.endpoints.reply(method, _path(scope), known.decode("latin-1"))
        headers = [(name.lower().encode(), value.encode()) for name, value in reply.headers]
        await send({"type": "http.response.start", "status": reply.code, "headers": headers})
        body = b"" if method == "HEAD" else reply.body
        await send({"type": "http.response.body", "body": body})


def asgi_app(
    pools: Pool | Iterable[Pool], *, readiness: Readiness | None = None, details: bool = False
) -> ASGIApp:
    """An ASGI application that answers ``/live``, ``/ready``, ``/startup`` and ``/health``.

    For Starlette and FastAPI: ``app.mount("/internal", asgi_app(pool))``. It runs in the event
    loop, so while that is blocked it does not answer; `HealthServer` does.

    The parameters, and what is raised, are those of `Endpoints`.
    """
    return ASGIApp(Endpoints(pools, readiness=readiness, details=details))


def _path(scope: Message) -> str:
    """The path below what the application is mounted under."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "").rstrip("/")
    return path[len(root) :] if path.startswith(f"{root}/") else path


async def _live(receive: Receive, send: Send) -> None:
    """Take part in the server's start and end, without a part to play."""
    while (await receive())["type"] == "lifespan.startup":
        await send({"type": "lifespan.startup.complete"})
    await send({"type": "lifespan.shutdown.complete"})
