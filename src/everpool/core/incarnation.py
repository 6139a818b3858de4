"""Which life of which server: what transaction numbers and histories are true within."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Incarnation:
    """One uninterrupted life of one server.

    PostgreSQL gives a transaction number again after a crash whose log was not flushed, and after
    the promotion of an asynchronous standby: what ``pg_xact_status`` says is only true within one
    incarnation. All four fields are needed: a crash whose postmaster survives changes
    ``reset`` alone. A reset of the statistics by hand looks like a crash, which errs on the safe
    side.

    :ivar system: the cluster's system identifier; copies of a cluster share it.
    :ivar timeline: of its write-ahead log, raised by each promotion; 0 on a standby.
    :ivar started: when the postmaster started, in microseconds since 1970.
    :ivar reset: when the statistics were last reset, in the same unit; 0 if never.
    """

    system: int
    timeline: int
    started: int
    reset: int

    @property
    def standby(self) -> bool:
        return self.timeline == 0


@dataclass(frozen=True, slots=True)
class Session:
    """One session of a server: a process id, which is given again, and when its backend started,
    in microseconds since 1970, which together name no other."""

    pid: int
    started: int
