"""Lanes: the same work through one pool each, by threads or by tasks."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from math import inf
from threading import Lock, Thread
from time import monotonic
from typing import Any

import psycopg
import psycopg_pool

import everpool
from everpool import Outcome

from .books import Told
from .deeds import Deed
from .faults import POOL_WIDE, Fault
from .strike import Striker
from .trial import Trial

__all__ = ["LANES", "WORKERS", "Lane", "LaneSpec"]

WORKERS = 8  # threads or tasks of a lane, and connections of its pool

# A session that is cut when it is younger delays what replaces it (`everpool.core.connector`):
# right for a pool, but the cuts here are to come fast.
GROWN = 0.25

DEADLINE = 40.0  # seconds for a deed that is given no other: longer than any outage here
ASK_AGAIN = 30.0  # seconds for `CommitUnknown.resolve`
NAIVE_TRIES = 4  # once, and three times more


@dataclass(frozen=True, slots=True)
class LaneSpec:
    """What a lane is.

    :ivar name: in the report.
    :ivar mode: ``commit=`` of everpool's `run`; empty for psycopg_pool with a naive loop.
    :ivar tasks: whether tasks do the work, not threads.
    """

    name: str
    mode: str
    tasks: bool


LANES = (
    LaneSpec("xid, threads", "xid", False),
    LaneSpec("xid, asyncio", "xid", True),
    LaneSpec("token, threads", "token", False),
    LaneSpec("token, asyncio", "token", True),
    LaneSpec("naive retry", "", False),
)


class Lane(ABC):
    """The work of one pool.

    :ivar deadline: the pool's own, in seconds.
    :ivar done: how many deeds are over.
    :ivar errors: what should not have happened in the lane itself.
    """

    def __init__(
        self,
        spec: LaneSpec,
        conninfo: str,
        striker: Striker,
        deeds: Iterable[Deed],
        faults: Iterable[Fault],
        note: Callable[[Told], None],
        pool_wide: bool,
    ) -> None:
        self.spec = spec
        self.deadline = POOL_WIDE if pool_wide else inf
        self.striker = striker
        self.done = 0
        self.errors: list[BaseException] = []
        self.under_way: dict[int, Trial] = {}
        self._conninfo = conninfo
        self._deeds = deque(deeds)
        self._number = len(self._deeds)
        self._faults = deque(faults)
        self._planned = len(self._faults)
        self._note = note
        self._lock = Lock()
        self._first_seen: dict[int, float] = {}
        self._begun = 0

    @property
    def number(self) -> int:
        """How many deeds there are in all."""
        return self._number

    @abstractmethod
    def start(self) -> None: ...

    @abstractmethod
    def join(self, timeout: float) -> bool:
        """Wait until all is done; tell whether it was."""

    def add(self, fault: Fault) -> None:
        """Bring this fault down next."""
        with self._lock:
            self._faults.appendleft(fault)
            self._planned += 1

    def give_back(self, fault: Fault) -> None:
        """It could not be brought down; it is still to be."""
        with self._lock:
            self._faults.appendleft(fault)

    def is_grown(self, pid: int) -> bool:
        now = monotonic()
        return now - self._first_seen.setdefault(pid, now) >= GROWN

    def _next(self) -> tuple[Deed, Fault | None] | None:
        """The next deed, and what is to befall it: faults come evenly over the deeds."""
        with self._lock:
            if not self._deeds:
                return None
            self._begun += 1
            given = self._planned - len(self._faults)
            due = self._begun * self._planned > given * self._number
            fault = self._faults.popleft() if due and self._faults else None
            return self._deeds.popleft(), fault

    def _told(
        self, trial: Trial, error: BaseException | None, first: Outcome | None, last: Any
    ) -> None:
        how = "" if error is None else type(error).__name__
        deed, at = trial.deed, monotonic()
        had = (trial.deadline or DEADLINE) if self.spec.mode else inf
        overdue = (trial.freed or at) - trial.began - had
        self._note(
            Told(
                self.spec.name,
                deed.work,
                last,
                trial.began,
                at,
                trial.struck,
                trial.tries,
                first,
                how,
                deed.keyed,
                overdue,
            )
        )

    def _ended(self, trial: Trial) -> None:
        trial.over()
        with self._lock:
            self.under_way.pop(id(trial), None)
            self.done += 1


def settings(lane: Lane, trial: Trial) -> dict[str, Any]:
    """Keyword arguments of `run` or `attempts`."""
    deed = trial.deed
    deadline = trial.deadline or DEADLINE
    commit: Any = lane.spec.mode
    if deed.keyed:
        commit = everpool.Token(f"work {deed.work}", work=repr(deed))
    level = psycopg.IsolationLevel.SERIALIZABLE if deed.serializable else None
    how = {"commit": commit, "isolation_level": level, "attempts": 4}
    return how if deadline == lane.deadline else {**how, "deadline": deadline}


class ThreadLane(Lane):
    """Threads and an `everpool.ConnectionPool`."""

    def make_pool(self) -> Any:
        return everpool.ConnectionPool(
            self._conninfo,
            min_size=WORKERS,
            max_size=WORKERS,
            timeout=DEADLINE,
            deadline=self.deadline,
            open=True,
        )

    def start(self) -> None:
        self._pool = self.make_pool()
        self._threads = [
            Thread(target=self._work, name=f"torture {self.spec.name}", daemon=True)
            for _ in range(WORKERS)
        ]
        for thread in self._threads:
            thread.start()

    def join(self, timeout: float) -> bool:
        until = monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, until - monotonic()))
        if any(thread.is_alive() for thread in self._threads):
            return False
        self._pool.close()
        return True

    def _work(self) -> None:
        try:
            while (next_one := self._next()) is not None:
                trial = Trial(self, *next_one)
                self.under_way[id(trial)] = trial
                try:
                    self._do(trial)
                finally:
                    self._ended(trial)
        except BaseException as error:
            self.errors.append(error)

    def _do(self, trial: Trial) -> None:
        how = settings(self, trial)
        try:
            if trial.deed.inline:
                for attempt in self._pool.attempts(**how):
                    with attempt as conn:
                        perform(trial, conn)
            else:
                self._pool.run(lambda conn: perform(trial, conn), **how)
        except everpool.CommitUnknown as ex:
            first = ex.outcome
            trial.over()
            self._told(trial, ex, first, ex.resolve(ASK_AGAIN))
        except Exception as ex:
            self._told(trial, ex, None, getattr(ex, "outcome", None))
        else:
            self._told(trial, None, None, Outcome.COMMITTED)


class TaskLane(Lane):
    """Tasks and an `everpool.AsyncConnectionPool`, in a loop of its own."""

    def start(self) -> None:
        self._interrupted: list[asyncio.Task[None]] = []
        self._thread = Thread(target=self._run, name=f"torture {self.spec.name}", daemon=True)
        self._thread.start()

    def join(self, timeout: float) -> bool:
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as error:
            self.errors.append(error)

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        async with everpool.AsyncConnectionPool(
            self._conninfo,
            min_size=WORKERS,
            max_size=WORKERS,
            timeout=DEADLINE,
            deadline=self.deadline,
            open=False,
        ) as pool:
            self._pool: Any = pool
            await asyncio.gather(*(self._work() for _ in range(WORKERS)))
            await asyncio.gather(*self._interrupted)

    async def _later(self, trial: Trial, error: BaseException, attempt: Any) -> None:
        """What became of it, the attempt will know."""
        until = monotonic() + ASK_AGAIN
        while attempt.outcome is Outcome.UNKNOWN and monotonic() < until:
            await asyncio.sleep(0.02)
        self._told(trial, error, Outcome.UNKNOWN, attempt.outcome)

    async def _work(self) -> None:
        while (next_one := self._next()) is not None:
            trial = Trial(self, *next_one)
            self.under_way[id(trial)] = trial
            # A task of its own, because it may be cancelled.
            task = asyncio.create_task(self._do(trial))
            trial.interrupt = partial(self._loop.call_soon_threadsafe, task.cancel)
            try:
                await task
            finally:
                self._ended(trial)

    async def _do(self, trial: Trial) -> None:
        how = settings(self, trial)
        try:
            if trial.deed.inline:
                async for attempt in self._pool.attempts(**how):
                    async with attempt as conn:
                        await aperform(trial, conn)
            else:
                await self._pool.run(lambda conn: aperform(trial, conn), **how)
        except everpool.CommitUnknown as ex:
            first = ex.outcome
            trial.over()
            self._told(trial, ex, first, await ex.resolve(ASK_AGAIN))
        except asyncio.CancelledError as ex:
            outcome = getattr(ex, "outcome", None)
            attempt = getattr(ex, "attempt", None)
            if outcome is Outcome.UNKNOWN and attempt is not None:
                self._interrupted.append(asyncio.create_task(self._later(trial, ex, attempt)))
            else:
                self._told(trial, ex, None, outcome)
        except Exception as ex:
            self._told(trial, ex, None, getattr(ex, "outcome", None))
        else:
            self._told(trial, None, None, Outcome.COMMITTED)


class NaiveLane(ThreadLane):
    """psycopg_pool, and a loop that tries again after an `OperationalError`.

    What it is told in the end, it takes for the truth: a return for "committed", an exception for
    "not done".
    """

    def make_pool(self) -> Any:
        return psycopg_pool.ConnectionPool(
            self._conninfo, min_size=WORKERS, max_size=WORKERS, timeout=DEADLINE, open=True
        )

    def _do(self, trial: Trial) -> None:
        for count in range(1, NAIVE_TRIES + 1):
            try:
                with self._pool.connection() as conn:
                    perform(trial, conn)
            except psycopg.OperationalError as ex:
                if count == NAIVE_TRIES:
                    self._told(trial, ex, None, Outcome.ROLLED_BACK)
            except Exception as ex:
                self._told(trial, ex, None, Outcome.ROLLED_BACK)
                return
            else:
                self._told(trial, None, None, Outcome.COMMITTED)
                return


def perform(trial: Trial, conn: Any) -> int:
    """Do the deed; the function that `run` is given."""
    for statement, values in trial.statements(conn.info.backend_pid):
        try:
            conn.execute(statement, values)
        except psycopg.errors.DivisionByZero:
            pass  # this is the mistake that swallows an error
    return trial.deed.work


async def aperform(trial: Trial, conn: Any) -> int:
    """As `perform`, for tasks."""
    for statement, values in trial.statements(conn.info.backend_pid):
        try:
            await conn.execute(statement, values)
        except psycopg.errors.DivisionByZero:
            pass
    return trial.deed.work


def make_lane(spec: LaneSpec, *args: Any) -> Lane:
    """A lane of the class that its work needs."""
    kind = TaskLane if spec.tasks else ThreadLane if spec.mode else NaiveLane
    return kind(spec, *args)
