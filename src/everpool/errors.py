"""Exceptions. All derive from psycopg_pool's, so code that catches those keeps working."""

from __future__ import annotations

from psycopg_pool import PoolClosed, PoolTimeout, TooManyRequests

__all__ = ["PoolClosed", "PoolTimeout", "PoolUnavailable", "TooManyRequests"]


class PoolUnavailable(PoolTimeout):
    """The database rejects the pool's connections, and waiting would not help.

    Raised at once, instead of after the timeout, while no connection exists and the server
    (or libpq) gave a reason that only a person can mend: a wrong password, a missing role or
    database, TLS refused. The pool goes on trying, ever more rarely, at most every 30 s.
    """

    __module__ = "everpool"
