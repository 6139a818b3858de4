"""One pool's way to the database: a proxy of its own, and workers that send it the requests."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from time import monotonic
from typing import Any, Literal

import everpool
from everpool.demo.contestants import TIMEOUT, Contestant
from everpool.lab import FIN, RST, SILENCE, FaultProxy, PostgresServer
from everpool.lab.faults import Cut

__all__ = ["AGE_CUT", "IDLE_CUT", "WORKERS", "Lane", "Outcome", "Seen", "View"]

# Seconds that stand for hours: users of the proxy played here met its cuts after about six.
IDLE_CUT = 3.0
AGE_CUT = 6.0

WORKERS = 8

# About as long as the queries of a page take. If they took no time at all, two connections would
# do all the work.
_QUERY = "select pg_sleep(0.01)"

# Seconds. The news of a cut takes that long to be everywhere: on its way through the sockets, and
# until the threads that wait for it have had their turn.
_NEWS = 0.010

Outcome = Literal["ok", "failed", "in hand", "pending"]


@dataclass(slots=True)
class Request:
    """One request; the worker that sends it fills it in. Times are of :func:`time.monotonic`."""

    due: float
    lent_at: float | None = None
    """When the pool handed over a connection."""
    backend_pid: int = 0
    """Which connection that was."""
    ended: float | None = None
    error: Exception | None = None

    def outcome(self, cuts: Sequence[Cut]) -> Outcome:
        """Tell how it went; *cuts* are the cuts of its lane."""
        if self.ended is None:
            return "pending"
        if self.error is None:
            return "ok"
        lent_at = self.lent_at
        if lent_at is not None and any(
            cut.backend_pid == self.backend_pid and cut.at >= lent_at - _NEWS for cut in cuts
        ):
            return "in hand"  # no pool could know when it lent the connection
        return "failed"


@dataclass(frozen=True, slots=True)
class Seen:
    """One request as it stands. Times are seconds since the beginning."""

    due: float
    ended: float | None
    outcome: Outcome
    error: tuple[str, str] | None
    """Class and text."""


@dataclass(frozen=True, slots=True)
class View:
    """A lane at one moment. Times are seconds since the beginning."""

    contestant: Contestant
    at: float
    requests: list[Seen]
    """Those that were due by then, in order."""
    cuts: list[tuple[float, str]]
    """When the proxy cut a connection, and why: ``idle`` or ``age``."""
    opened: int
    """Connections opened so far."""
    own: everpool.Snapshot | None
    """What the pool itself knows, if it is one of ours."""


class Lane:
    """See the module. Between :meth:`open` and :meth:`close`, everything runs in threads."""

    def __init__(self, contestant: Contestant, server: PostgresServer, *, silent: bool) -> None:
        self.contestant = contestant
        self._silent = silent
        self._requests: list[Request] = []
        self._start = 0.0
        self._proxy = FaultProxy(server.host, server.port)
        self._dsn = server.dsn
        self._exit = ExitStack()
        self._stop = threading.Event()
        self._turn = threading.Lock()
        self._next = 0
        self._workers: list[threading.Thread] = []

    def open(self) -> None:
        """Open the pool and wait until it has its connections."""
        self._exit.enter_context(self._proxy)
        self._proxy.idle_cut(IDLE_CUT, SILENCE if self._silent else FIN)
        self._proxy.age_cut(AGE_CUT, FIN, between_requests=True)
        self._pool = self.contestant.make(self._proxy.via(self._dsn))
        self._exit.callback(self._pool.close, timeout=1.0)
        self._exit.callback(self._send_workers_home)
        self._pool.open(wait=True, timeout=20.0)

    def begin(self, start: float, dues: Sequence[float]) -> None:
        """Send the requests: *dues* are seconds after *start*. Again when those before are done."""
        self._start = start
        with self._turn:
            self._requests = [Request(start + due) for due in dues]
            self._next = 0
        self._workers = [
            threading.Thread(target=self._work, name=f"everpool-demo-{number}", daemon=True)
            for number in range(WORKERS)
        ]
        for worker in self._workers:
            worker.start()

    @property
    def pool(self) -> Any:
        """The pool, once the lane is open."""
        return self._pool

    def look(self) -> View:
        """Tell how things stand."""
        stats = self._proxy.stats()
        now, start = monotonic(), self._start
        return View(
            contestant=self.contestant,
            at=now - start,
            requests=[
                Seen(
                    request.due - start,
                    None if request.ended is None else request.ended - start,
                    request.outcome(stats.cuts),
                    None if request.error is None else _describe(request.error),
                )
                for request in self._requests
                if request.due <= now
            ],
            cuts=[(cut.at - start, cut.reason) for cut in stats.cuts],
            opened=stats.accepted,
            own=self._pool.snapshot() if isinstance(self._pool, everpool.ConnectionPool) else None,
        )

    def is_done(self) -> bool:
        """Tell whether every request has been answered, one way or the other."""
        return all(request.ended is not None for request in self._requests)

    def close(self) -> None:
        """Leave nothing behind, whatever is stuck."""
        self._exit.close()

    def _send_workers_home(self) -> None:
        self._stop.set()
        self._proxy.refuse()  # no pool shall open another connection while it is closed
        if not self.is_done():
            self._proxy.cut(RST)  # frees those that wait for an answer
        deadline = monotonic() + 1.0  # daemons, so that one which waits longer keeps nobody
        for worker in self._workers:
            worker.join(max(0.0, deadline - monotonic()))

    def _work(self) -> None:
        while (request := self._take()) is not None:
            if self._stop.wait(max(0.0, request.due - monotonic())):
                return
            try:
                with self._pool.connection(timeout=TIMEOUT) as conn:
                    request.backend_pid = conn.info.backend_pid
                    request.lent_at = monotonic()
                    conn.execute(_QUERY)
            except Exception as error:
                request.error = error
            request.ended = monotonic()

    def _take(self) -> Request | None:
        with self._turn:
            if self._next == len(self._requests):
                return None
            self._next += 1
            return self._requests[self._next - 1]


def _describe(error: Exception) -> tuple[str, str]:
    """Class and first line: libpq goes on with advice."""
    text = str(error).strip()
    return type(error).__name__, text.splitlines()[0] if text else ""
