"""The null pool: opens a connection for each request, lends what returns to who waits."""

from __future__ import annotations

from typing import Any

import psycopg_pool
from psycopg_pool.abc import ACT

from .pool import AsyncConnectionPool


class AsyncNullConnectionPool(AsyncConnectionPool[ACT], psycopg_pool.AsyncNullConnectionPool[ACT]):
    """A pool that keeps no connection at rest, as `psycopg_pool.AsyncNullConnectionPool`.

    It limits how many exist at once (``max_size``, 0 for no limit), connects under the same
    deadline and the same care for a server in trouble as `AsyncConnectionPool`, and hands a
    returned connection to the next who waits.
    """

    _pooled = False

    def __init__(self, conninfo: Any = "", *, min_size: int = 0, **settings: Any) -> None:
        settings["close_returns"] = False  # a null pool closes what is returned
        super().__init__(conninfo, min_size=min_size, **settings)

    async def check(self) -> None:
        """Do nothing: no connection rests here."""
