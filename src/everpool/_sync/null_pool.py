# Generated from src/everpool/_async/null_pool.py by `python tools/async_to_sync.py`.
# Do not edit: change that file and run `make generate`.

"""The null pool: opens a connection for each request, lends what returns to who waits."""

from __future__ import annotations

from typing import Any

import psycopg_pool
from psycopg_pool.abc import CT

from .pool import ConnectionPool


class NullConnectionPool(ConnectionPool[CT], psycopg_pool.NullConnectionPool[CT]):
    """A pool that keeps no connection at rest, as `psycopg_pool.NullConnectionPool`.

    It limits how many exist at once (``max_size``, 0 for no limit), connects under the same
    deadline and the same care for a server in trouble as `ConnectionPool`, and hands a
    returned connection to the next who waits.
    """

    _pooled = False

    def __init__(self, conninfo: Any = "", *, min_size: int = 0, **settings: Any) -> None:
        settings["close_returns"] = False  # a null pool closes what is returned
        super().__init__(conninfo, min_size=min_size, **settings)

    def check(self) -> None:
        """Do nothing: no connection rests here."""
