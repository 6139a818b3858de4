"""PostgreSQL connections that outlive the cloud.

A connection pool for psycopg 3, for threads and asyncio, that replaces psycopg_pool by one
changed import line::

    from everpool import ConnectionPool  # was: from psycopg_pool import ConnectionPool
"""

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._async.null_pool import AsyncNullConnectionPool
    from ._async.pool import AsyncConnectionPool
    from ._sync.null_pool import NullConnectionPool
    from ._sync.pool import ConnectionPool
    from .core.environment import Environment
    from .core.gap import Gap
    from .core.health import Health
    from .core.judgement import Failure, Meaning, Phase, Repeat, Verdict
    from .core.outcome import Outcome
    from .errors import (
        CommitRolledBack,
        CommitUnknown,
        DeadlineExceeded,
        PoolClosed,
        PoolSaturated,
        PoolTimeout,
        PoolUnavailable,
        Refused,
        SettingWarning,
        TokenConflict,
        TokenTableMissing,
        TooManyRequests,
        TransactionMisuse,
    )
    from .snapshot import Death, Lesson, Snapshot
    from .work.chaos import Chaos
    from .work.token import Token

__version__ = "0.1.0"

__all__ = [
    "AsyncConnectionPool",
    "AsyncNullConnectionPool",
    "Chaos",
    "CommitRolledBack",
    "CommitUnknown",
    "ConnectionPool",
    "DeadlineExceeded",
    "Death",
    "Environment",
    "Failure",
    "Gap",
    "Health",
    "Lesson",
    "Meaning",
    "NullConnectionPool",
    "Outcome",
    "Phase",
    "PoolClosed",
    "PoolSaturated",
    "PoolTimeout",
    "PoolUnavailable",
    "Refused",
    "Repeat",
    "SettingWarning",
    "Snapshot",
    "Token",
    "TokenConflict",
    "TokenTableMissing",
    "TooManyRequests",
    "TransactionMisuse",
    "Verdict",
]

# Where each name is. It is loaded when it is first used: psycopg takes a fifth of a second, and
# `everpool check`, which a platform runs every few seconds, has no use for it.
_PLACES = {
    "AsyncConnectionPool": "._async.pool",
    "AsyncNullConnectionPool": "._async.null_pool",
    "Chaos": ".work.chaos",
    "CommitRolledBack": ".errors",
    "CommitUnknown": ".errors",
    "ConnectionPool": "._sync.pool",
    "DeadlineExceeded": ".errors",
    "Death": ".snapshot",
    "Environment": ".core.environment",
    "Failure": ".core.judgement",
    "Gap": ".core.gap",
    "Health": ".core.health",
    "Lesson": ".snapshot",
    "Meaning": ".core.judgement",
    "NullConnectionPool": "._sync.null_pool",
    "Outcome": ".core.outcome",
    "Phase": ".core.judgement",
    "PoolClosed": ".errors",
    "PoolSaturated": ".errors",
    "PoolTimeout": ".errors",
    "PoolUnavailable": ".errors",
    "Refused": ".errors",
    "Repeat": ".core.judgement",
    "SettingWarning": ".errors",
    "Snapshot": ".snapshot",
    "Token": ".work.token",
    "TokenConflict": ".errors",
    "TokenTableMissing": ".errors",
    "TooManyRequests": ".errors",
    "TransactionMisuse": ".errors",
    "Verdict": ".core.judgement",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_PLACES[name], __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


# Who configures no logging hears nothing from a library.
logging.getLogger("everpool").addHandler(logging.NullHandler())
