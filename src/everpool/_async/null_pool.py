"""The null pool: opens a connection for each request, lends what returns to who waits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast

import psycopg_pool
from psycopg import AsyncConnection
from psycopg_pool.abc import (
    ACT,
    AsyncConnectFailedCB,
    AsyncConnectionCB,
    AsyncConninfoParam,
    AsyncKwargsParam,
)

from ..core import policy as defaults
from .pool import AsyncConnectionPool
from .working import Judge

if TYPE_CHECKING:
    from ..environments import Path
    from ..work.chaos import Chaos


class AsyncNullConnectionPool(AsyncConnectionPool[ACT], psycopg_pool.AsyncNullConnectionPool[ACT]):
    """A pool that keeps no connection at rest, as `psycopg_pool.AsyncNullConnectionPool`.

    It limits how many exist at once (``max_size``, 0 for no limit), connects under the same
    deadline and with the same care for a server in trouble as `AsyncConnectionPool`, and hands
    a returned connection to the next who waits. ``close_returns`` has no effect.
    """

    _pooled = False

    def __init__(
        self,
        conninfo: AsyncConninfoParam = "",
        *,
        connection_class: type[ACT] = cast(type[ACT], AsyncConnection),
        kwargs: AsyncKwargsParam | None = None,
        min_size: int = 0,
        max_size: int | None = None,
        open: bool | None = None,
        configure: AsyncConnectionCB[ACT] | None = None,
        check: AsyncConnectionCB[ACT] | None = None,
        reset: AsyncConnectionCB[ACT] | None = None,
        name: str | None = None,
        close_returns: bool = False,
        timeout: float = defaults.TIMEOUT,
        max_waiting: int = defaults.MAX_WAITING,
        max_lifetime: float = defaults.MAX_LIFETIME,
        max_idle: float = defaults.MAX_IDLE,
        reconnect_timeout: float = defaults.RECONNECT_TIMEOUT,
        reconnect_failed: AsyncConnectFailedCB | None = None,
        num_workers: int = defaults.NUM_WORKERS,
        connect_timeout: float = defaults.CONNECT_TIMEOUT,
        callback_timeout: float = defaults.CALLBACK_TIMEOUT,
        tcp_settings: bool = True,
        leak_after: float = defaults.LEAK_AFTER,
        deadline: float = defaults.DEADLINE,
        watch_queries: float = defaults.WATCH_QUERIES,
        when_down: Literal["wait", "fail"] = "wait",
        judge: Judge | None = None,
        chaos: Chaos | None = None,
        environment: Path = None,
    ) -> None:
        super().__init__(
            conninfo,
            connection_class=connection_class,
            kwargs=kwargs,
            min_size=min_size,
            max_size=max_size,
            open=open,
            configure=configure,
            check=check,
            reset=reset,
            name=name,
            timeout=timeout,
            max_waiting=max_waiting,
            max_lifetime=max_lifetime,
            max_idle=max_idle,
            reconnect_timeout=reconnect_timeout,
            reconnect_failed=reconnect_failed,
            num_workers=num_workers,
            connect_timeout=connect_timeout,
            callback_timeout=callback_timeout,
            tcp_settings=tcp_settings,
            leak_after=leak_after,
            deadline=deadline,
            watch_queries=watch_queries,
            when_down=when_down,
            judge=judge,
            chaos=chaos,
            environment=environment,
        )

    async def check(self) -> None:
        """Do nothing: no connection rests here."""
