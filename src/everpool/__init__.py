"""PostgreSQL connections that outlive the cloud.

A connection pool for psycopg 3, for threads and asyncio, that replaces psycopg_pool by one
changed import line::

    from everpool import ConnectionPool  # was: from psycopg_pool import ConnectionPool
"""

import logging

from ._async.null_pool import AsyncNullConnectionPool
from ._async.pool import AsyncConnectionPool
from ._sync.null_pool import NullConnectionPool
from ._sync.pool import ConnectionPool
from .core.health import Health
from .errors import (
    PoolClosed,
    PoolSaturated,
    PoolTimeout,
    PoolUnavailable,
    Refused,
    TooManyRequests,
)
from .snapshot import Death, Snapshot

__version__ = "0.1.0"

__all__ = [
    "AsyncConnectionPool",
    "AsyncNullConnectionPool",
    "ConnectionPool",
    "Death",
    "Health",
    "NullConnectionPool",
    "PoolClosed",
    "PoolSaturated",
    "PoolTimeout",
    "PoolUnavailable",
    "Refused",
    "Snapshot",
    "TooManyRequests",
]

# Who configures no logging hears nothing from a library.
logging.getLogger("everpool").addHandler(logging.NullHandler())
