"""What became of a transaction."""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    """What became of a transaction. Each value is true whenever it is told.

    ``NOT_STARTED``: no transaction was begun, so nothing was done. ``ROLLED_BACK``: nothing of it
    exists, and nothing will. ``COMMITTED``: the server said so, or a later look proved it.
    ``COMMITTED_LOCALLY_ONLY``: committed on the server that was asked, whose wait for its
    synchronous standby was broken off; a failover may lose it. ``UNKNOWN``: the COMMIT was sent
    and nobody could tell yet what became of it.
    """

    NOT_STARTED = "not_started"
    ROLLED_BACK = "rolled_back"
    COMMITTED = "committed"
    COMMITTED_LOCALLY_ONLY = "committed_locally_only"
    UNKNOWN = "unknown"
