"""gRPC's health service for pools, on grpcio-health-checking.

    server = grpc.server(ThreadPoolExecutor())
    with grpc_health(pool) as health:
        add_HealthServicer_to_server(health.servicer, server)

What changes in a pool is told at once, and a look every few seconds finds what changes because
time goes by. So `Watch` is the way to follow; nobody has to poll.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from threading import Event, Thread
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from everpool.core.health import Status
from everpool.events import Closed, Happening, StateChanged

from .questions import Endpoints
from .readiness import Readiness

if TYPE_CHECKING:
    from .questions import Pool

try:
    from grpc_health.v1 import health  # type: ignore[import-untyped]
    from grpc_health.v1.health_pb2 import HealthCheckResponse  # type: ignore[import-untyped]
except ModuleNotFoundError as error:
    needed = 'grpcio-health-checking is needed here: pip install "everpool[grpc]"'
    raise ModuleNotFoundError(needed, name=error.name) from error

__all__ = ["GrpcHealth", "grpc_health"]

logger = logging.getLogger("everpool.endpoints")

# A strict readiness counts looks and waits some seconds; nothing that only time changes is more
# urgent than that.
EVERY = 5.0


class GrpcHealth:
    """See `grpc_health`. A context manager.

    :ivar servicer: to be added to a server, with ``add_HealthServicer_to_server``.
    """

    def __init__(
        self, endpoints: Endpoints, every: float, loop: asyncio.AbstractEventLoop | None
    ) -> None:
        # The one for threads runs under asyncio too, but each Watch keeps a thread for ever.
        self.servicer = health.aio.HealthServicer() if loop else health.HealthServicer()
        self._loop = loop
        self._setting: set[asyncio.Future[None]] = set()
        self._endpoints = endpoints
        self._every = every
        self._told: dict[str, Any] = {}
        self._news = Event()
        self._closed = False
        # Before the first look, so that nothing is missed in between.
        self._subscriptions = [
            pool.subscribe(self._heard, StateChanged, Closed) for pool in endpoints.pools
        ]
        self._look()
        self._thread = Thread(target=self._watch, name="everpool-grpc-health", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Look no more, and say NOT_SERVING from now on: the end of the program is near."""
        self._closed = True
        for subscription in self._subscriptions:
            subscription.close()
        self._news.set()
        self._thread.join()
        self._tell(dict.fromkeys(self._told, HealthCheckResponse.NOT_SERVING))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _heard(self, happening: Happening) -> None:
        self._news.set()

    def _watch(self) -> None:
        while not self._closed:
            self._news.wait(self._every)
            self._news.clear()
            if not self._closed:
                self._look()

    def _look(self) -> None:
        try:
            findings = self._endpoints.ready()
            serving = [finding.status is not Status.FAIL for finding in findings]
            names = [pool.name for pool in self._endpoints.pools]
            status = {"": _word(all(serving))}
            for name in names:
                same = (ok for other, ok in zip(names, serving, strict=True) if other == name)
                status[name] = _word(all(same))
            self._tell(status)
        except Exception:
            logger.exception("gRPC's health could not be brought up to date")

    def _tell(self, status: dict[str, Any]) -> None:
        """Set what has changed: each time that something is set, all who watch are told."""
        for service, word in status.items():
            if self._told.get(service) != word:
                self._told[service] = word
                if self._loop is None:
                    self.servicer.set(service, word)
                else:
                    self._set_in_loop(self._loop, service, word)

    def _set_in_loop(self, loop: asyncio.AbstractEventLoop, service: str, word: Any) -> None:
        try:
            loop.call_soon_threadsafe(self._set_soon, service, word)
        except RuntimeError:
            pass  # the loop has been closed, and the server with it

    def _set_soon(self, service: str, word: Any) -> None:
        task = asyncio.ensure_future(self.servicer.set(service, word))
        self._setting.add(task)
        task.add_done_callback(self._setting.discard)


def grpc_health(
    pools: Pool | Iterable[Pool],
    *,
    readiness: Readiness | None = None,
    every: float = EVERY,
    aio: bool = False,
) -> GrpcHealth:
    """gRPC's health service: a service named as each pool, and ``""`` for all of them.

    SERVING is what readiness says: see `Readiness`. It begins to look at once.

    :param every: seconds between two looks, when nothing happens meanwhile.
    :param aio: for a ``grpc.aio`` server in the running event loop, whatever the pools are.
    :raises RuntimeError: ``aio``, and no loop runs.

    The other parameters, and what else is raised, are those of `Endpoints`.
    """
    loop = asyncio.get_running_loop() if aio else None
    return GrpcHealth(Endpoints(pools, readiness=readiness), every, loop)


def _word(serving: bool) -> Any:
    return HealthCheckResponse.SERVING if serving else HealthCheckResponse.NOT_SERVING
