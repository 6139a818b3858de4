"""everpool in FastAPI and Starlette::

    pool = AsyncConnectionPool("postgresql://app@db/app", open=False, timeout=2)
    app = FastAPI(lifespan=lifespan(pool))
    add_handlers(app)

    @app.get("/books")
    async def books(conn: Annotated[AsyncConnection, borrow(pool)]):
        ...

`lifespan` opens the pool and closes it, `borrow` lends a connection to a request, `add_handlers`
answers 503 with ``Retry-After`` when there is none, `monitoring` has the health endpoints and
metrics. Under plain Starlette all but `borrow` work
the same; there, use ``async with pool.connection()``.

What goes wrong says no more to the client than a code and when to ask again: hosts, users and
SQL stay in the log.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    AsyncExitStack,
    asynccontextmanager,
)
from dataclasses import dataclass
from math import ceil
from random import random
from time import monotonic
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

import psycopg

from everpool import AsyncConnectionPool, ConnectionPool, DeadlineExceeded, Outcome, Refused
from everpool.endpoints import asgi_app

try:
    from anyio import CancelScope, CapacityLimiter, to_thread
    from anyio.lowlevel import RunVar
    from starlette.applications import Starlette
    from starlette.endpoints import HTTPEndpoint
    from starlette.requests import HTTPConnection, Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Mount, Route, Router
    from starlette.websockets import WebSocket, WebSocketState
except ModuleNotFoundError as ex:
    needed = f'{ex.name} is needed here: pip install "everpool[fastapi]"'
    raise ModuleNotFoundError(needed, name=ex.name) from None

__all__ = ["add_handlers", "borrow", "is_cut", "lifespan", "monitoring"]

Pool: TypeAlias = ConnectionPool[Any] | AsyncConnectionPool[Any]
Lifespan: TypeAlias = Callable[[Any], AbstractAsyncContextManager[Mapping[str, Any] | None]]

# Threads that may wait for a connection of one `ConnectionPool`: as many as AnyIO has for ``def``
# routes, whose threads they must not take.
WAITING_THREADS = 40

# WebSocket's "try again later".
TRY_AGAIN_LATER = 1013
INTERNAL_ERROR = 1011

# HTTP's methods that a client may repeat without knowing what became of the first time.
REPEATABLE = ("GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE")


# -- the pool's life --------------------------------------------------------------------------


def lifespan(pool: Pool, inner: Lifespan | None = None) -> Lifespan:
    """Make a lifespan that opens ``pool`` before, and closes it after, the application's own.

    :param pool: made with ``open=False``. A closed pool cannot be opened again: make a new one
        for each application.
    :param inner: the application's own lifespan; it may use the pool. For a second pool:
        ``lifespan(one, lifespan(two))``.

    It does not wait for connections, so that the application starts while the database is away;
    who wants it to fails on ``await pool.wait()`` in ``inner``.
    """

    @asynccontextmanager
    async def run(app: Any) -> AsyncIterator[Mapping[str, Any] | None]:
        async with AsyncExitStack() as stack:
            if isinstance(pool, AsyncConnectionPool):
                await stack.enter_async_context(pool)
            else:
                # Closing waits for threads to end.
                await to_thread.run_sync(pool.open)
                stack.push_async_callback(_close, pool)
            yield await stack.enter_async_context(inner(app)) if inner is not None else None

    return run


async def _close(pool: ConnectionPool[Any]) -> None:
    await to_thread.run_sync(pool.close)


# -- a connection for a request ---------------------------------------------------------------


def borrow(pool: Pool) -> Any:
    """A FastAPI dependency: a connection for one request, as ``pool.connection()`` lends it.

    Committed, or rolled back after an error (an `HTTPException` too), and returned when the
    path operation has returned and *before* the response is sent, so that a COMMIT that fails
    is answered with an error. What streams its response after that borrows for itself.

    The same for a `ConnectionPool` and ``def`` path operations. Asked for twice, a request gets
    one connection.

    :raises Refused: see `everpool.AsyncConnectionPool.connection`; answered by `add_handlers`.
    """
    try:
        from fastapi import Depends
    except ModuleNotFoundError as ex:
        needed = f'{ex.name} is needed here: pip install "everpool[fastapi]"'
        raise ModuleNotFoundError(needed, name=ex.name) from None

    wait = _Awaiting(pool) if isinstance(pool, AsyncConnectionPool) else _Threaded(pool)
    # "request", the default, would commit when the response has been sent.
    return Depends(wait, scope="function")


@dataclass(frozen=True, slots=True)
class _Awaiting:
    """Equal for the same pool: by that FastAPI knows what a request has asked for already."""

    pool: AsyncConnectionPool[Any]

    async def __call__(self) -> AsyncIterator[Any]:
        async with self.pool.connection() as conn:
            yield conn


@dataclass(frozen=True, slots=True)
class _Threaded:
    """The same for threads.

    A generator without ``async`` would wait for its connection in one of the threads that
    ``def`` routes run in: when all of them wait, those who have a connection cannot go on.
    """

    pool: ConnectionPool[Any]

    async def __call__(self) -> AsyncIterator[Any]:
        pool = self.pool
        deadline = monotonic() + pool.timeout  # the wait for a thread counts

        def enter() -> tuple[AbstractContextManager[Any], Any]:
            loan = pool.connection(deadline - monotonic())
            return loan, loan.__enter__()

        async def leave(*error: Any) -> None:
            # A thread more, always: who returns must never wait for those who want.
            with CancelScope(shield=True):
                await to_thread.run_sync(loan.__exit__, *error, limiter=CapacityLimiter(1))

        loan, conn = await to_thread.run_sync(enter, limiter=_limiter(pool))
        try:
            yield conn
        except BaseException as ex:
            await leave(type(ex), ex, ex.__traceback__)
            raise
        await leave(None, None, None)


_limiters: RunVar[WeakKeyDictionary[Pool, CapacityLimiter]] = RunVar("everpool_limiters")


def _limiter(pool: Pool) -> CapacityLimiter:
    """The threads that wait for this pool, of this event loop."""
    try:
        limiters = _limiters.get()
    except LookupError:
        limiters = WeakKeyDictionary()
        _limiters.set(limiters)
    return limiters.setdefault(pool, CapacityLimiter(WAITING_THREADS))


# -- errors -----------------------------------------------------------------------------------


def add_handlers(app: Starlette) -> None:
    """Answer 503 with ``Retry-After`` where the database, not the request, is at fault.

    * `Refused`, of any kind: there was no connection to be had. The code is the refusal's:
      ``"timeout"``, ``"saturated"``, ``"full"``, ``"down"``, ``"rejected"`` or ``"closed"``.
    * A connection that was cut while the request had it (see `is_cut`): code ``"cut"``. If it was
      cut in the middle of a COMMIT, nobody knows whether that took effect: then a POST or PATCH
      is answered with 500, code ``"unknown"`` and no ``Retry-After``, because it must not simply
      be repeated.

    The body is ``{"code": …, "retry_after": …}``, in whole seconds, as in the header. A
    WebSocket that has been accepted is closed with 1013, "try again later", and the code as the
    reason. Other errors of the database go the way they went before.

    :param app: a Starlette or FastAPI application. One mounted in it has handlers of its own.
    """
    app.add_exception_handler(Refused, _on_refused)
    app.add_exception_handler(psycopg.OperationalError, _on_operational_error)


def is_cut(ex: BaseException) -> bool:
    """Whether an error means that the connection was cut while it was in use.

    True for what libpq says without the server (that has no SQLSTATE), and for the SQLSTATE by
    which servers and poolers end connections: class 08, and 57P01 to 57P05.
    """
    if not isinstance(ex, psycopg.OperationalError):
        return False
    if ex.sqlstate:
        return ex.sqlstate.startswith(("08", "57P"))
    # Subclasses without SQLSTATE are psycopg's, about time-outs and pipelines; what has a
    # `pgconn` is a failed connect of the program's own.
    return type(ex) is psycopg.OperationalError and ex.pgconn is None


# Coroutines, because a plain function would need a thread, and all of them may be waiting.


async def _on_refused(request: HTTPConnection, ex: Exception) -> Any:
    assert isinstance(ex, Refused)
    return await _unavailable(request, ex.code, ex.retry_after)


async def _on_operational_error(request: HTTPConnection, ex: Exception) -> Any:
    in_doubt = getattr(ex, "outcome", None) is Outcome.UNKNOWN
    if in_doubt and request.scope.get("method") not in REPEATABLE:
        return await _in_doubt(request)
    if isinstance(ex, DeadlineExceeded):
        return await _unavailable(request, "deadline", 0.0)
    if not is_cut(ex):
        raise ex
    return await _unavailable(request, "cut", 0.0)  # others are there, or will be at once


async def _unavailable(request: HTTPConnection, code: str, seconds: float) -> Any:
    if isinstance(request, WebSocket) and not _can_be_denied(request):
        return await request.close(TRY_AGAIN_LATER, code)
    # Rounded up, and up to a second more: those refused together shall not come back together.
    retry_after = ceil(seconds + 1.0 - random())
    body = {"code": code, "retry_after": retry_after}
    return JSONResponse(body, 503, {"Retry-After": str(retry_after)})


async def _in_doubt(request: HTTPConnection) -> Any:
    """What the request did may have taken effect; a client that repeats it may do it twice."""
    if isinstance(request, WebSocket) and not _can_be_denied(request):
        return await request.close(INTERNAL_ERROR, "unknown")
    return JSONResponse({"code": "unknown"}, 500)


def _can_be_denied(websocket: WebSocket) -> bool:
    """Whether a WebSocket can still be answered over HTTP."""
    new = websocket.application_state is WebSocketState.CONNECTING
    return new and "websocket.http.response" in websocket.scope.get("extensions", {})


# -- health and metrics -----------------------------------------------------------------------


def monitoring(*pools: Pool, metrics: bool = False) -> Router:
    """The health endpoints, to be mounted: ``app.mount("/internal", monitoring(pool))``.

    ``live``, ``ready``, ``startup`` and ``health`` as `everpool.endpoints.asgi_app` has them, and
    with ``metrics`` these pools' under ``metrics``, for Prometheus. (A program that has metrics of
    its own registers the pools with them: `everpool.telemetry.prometheus.register`.)

    :raises ModuleNotFoundError: metrics, without prometheus-client.
    """
    health = Mount("/", asgi_app(pools))
    return Router([_metrics(pools), health] if metrics else [health])


def _metrics(pools: tuple[Pool, ...]) -> Route:
    from prometheus_client import CollectorRegistry
    from prometheus_client.exposition import choose_encoder

    from everpool.telemetry.prometheus import Collector

    registry = CollectorRegistry()
    registry.register(Collector(*pools))

    class Metrics(HTTPEndpoint):  # other methods get 405
        async def get(self, request: Request) -> Response:
            encode, media_type = choose_encoder(request.headers.get("accept", ""))
            return Response(encode(registry), headers={"Content-Type": media_type})

    return Route("/metrics", Metrics)
