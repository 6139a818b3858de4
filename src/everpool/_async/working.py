"""Work that survives the cut: `run`, `attempts`, `listen`."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import lru_cache, wraps
from inspect import (
    CO_ASYNC_GENERATOR,
    CO_COROUTINE,
    CO_GENERATOR,
    isasyncgenfunction,
    isawaitable,
    iscoroutine,
    isgeneratorfunction,
)
from math import inf
from time import monotonic
from types import FunctionType
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, TypeVar
from weakref import WeakSet, ref

from psycopg import IsolationLevel
from psycopg_pool.abc import ACT

from ..core.budget import CONTENTION_SHARE, SHARE, Budget
from ..core.events import CommitResolved, Happening
from ..core.judgement import Failure, Meaning, Verdict, judge
from ..core.outcome import Outcome
from ..core.policy import Policy
from ..errors import CommitUnknown
from ..runtime import aio as rt
from ..subscriptions import is_async
from ..watch import Link
from ..work.begin import Begin, Begun, Learned, Mode
from ..work.failing import brief, cause_of
from ..work.token import Token
from .attempt import AsyncAttempt
from .attempts import AsyncAttempts, checked_attempts, checked_deadline
from .ending import END_WITHIN, end_job
from .engine import INERROR, INTRANS, UNKNOWN
from .lending import _note_cause
from .listener import HEARTBEAT, AsyncListener
from .reporting import AsyncReporting
from .resolving import RESOLVE_FOR, find_out, resolve_job
from .sweeping import next_sweep, sweep_job

logger = logging.getLogger("everpool")

P = ParamSpec("P")
T = TypeVar("T")

Commit = Literal["xid", "token", "off"] | Token
"""How to find out what became of a COMMIT whose answer was lost; see `AsyncConnectionPool.run`."""

Judge = Callable[[Failure, Verdict], Verdict | None]

# Most of what can fail at once does: every connection of a null pool without a limit.
NO_LIMIT = 100


class AsyncWorking(AsyncReporting[ACT]):
    _judge: Judge | None
    _ears: WeakSet[rt.Ear]

    if TYPE_CHECKING:
        _direct: bool
        _limited: bool
        _own_doors: bool
        _plain: bool
        _patience: float

        def connection(self, timeout: float | None = None) -> AbstractAsyncContextManager[ACT]: ...

        async def getconn(self, timeout: float | None = None) -> ACT: ...

        async def putconn(self, conn: ACT) -> None: ...

        async def _borrow(self, timeout: float | None, deadline: float | None) -> ACT: ...

        async def _lend(
            self, timeout: float | None, until: float = inf, *, first: bool = False
        ) -> ACT: ...

    def _assemble(self, policy: Policy) -> None:
        super()._assemble(policy)
        now = monotonic()
        self._learned = Learned()
        self._sweep_at = next_sweep(now)
        # Sessions to be ended, and until when that is tried. A job is at it: none is left of one
        # that ended before its time, or was never begun.
        self._left: list[tuple[Begun, float]] = []
        self._ending: WeakSet[rt.Job] = WeakSet()
        self._ending_on: Link | None = None
        self._successes = 0
        self._budgets = {
            Meaning.CONTENTION: Budget(CONTENTION_SHARE, now),
            Meaning.SIBLINGS: Budget(SHARE, now),
        }

    def _stop(self) -> list[Any]:
        link = self._ending_on
        if link is not None:
            link.abort()  # soon nothing bounds it any more, and nobody waits for its answer
        return super()._stop()

    async def run(
        self,
        fn: Callable[..., Awaitable[T]],
        *args: Any,
        isolation_level: IsolationLevel | None = None,
        read_only: bool | None = None,
        deferrable: bool | None = None,
        attempts: int = 3,
        deadline: float | None = None,
        commit: Commit = "xid",
    ) -> T:
        """Run a function in one transaction, which is committed once.

        ``fn(conn, *args)`` is called with a connection on which the transaction has begun, and
        may be called again: after a lost connection, a failover, a serialization failure or a
        deadlock, whenever it is certain that nothing was committed. What it does besides the
        transaction is then done again. psycopg's ``conn.transaction()`` works inside, as
        savepoints; ``conn.commit()`` does not.

        :param isolation_level, read_only, deferrable: of the transaction; default: the
            connection's. A read-only transaction is cheaper: nothing of it can be lost.
        :param attempts: how often to try, the first time included.
        :param deadline: seconds until all must be over: waiting for a connection, all attempts,
            and finding out what became of a COMMIT. Default: the pool's.
        :param commit: how to find out what became of a COMMIT whose answer was lost.
            ``"xid"``: ask the server about the transaction's number; no preparation, certain
            except after a crash or failover of the server. ``"token"``: write a token with each
            COMMIT, into a table (``everpool migrate``); certain. A `Token`: the same under an
            idempotency key of your own. ``"off"``: do not ask.
        :returns: what the function returned.
        :raises CommitUnknown: it could not be found out; its ``resolve()`` asks again.
        :raises CommitRolledBack: the function swallowed an error that ended its transaction.
        :raises DeadlineExceeded: time is up.
        :raises TransactionMisuse: the function did what it should have left to ``run``.
        :raises TypeError, ValueError: an argument cannot be.
        :raises Refused: there was no connection; see `connection`.

        What the function raises comes through. All have ``outcome``: see `Outcome`. An
        interruption has ``attempt``, too, whose ``outcome`` may become known later.
        """
        _check_function(fn)
        how = _how(isolation_level, read_only, deferrable, commit)
        work = AsyncAttempts(self, how, checked_attempts(attempts), self._within(deadline), False)
        result: Any = None
        call: Callable[..., Any] = fn
        attempt = AsyncAttempt(work, 1)
        while True:
            async with attempt as conn:
                if how.key is None or attempt.stored is None:
                    result = call(conn, *args)
                    if True:  # ASYNC
                        if not isawaitable(result):
                            raise TypeError(
                                f"run() of an async pool needs a coroutine function: {fn!r}"
                            )
                        result = await result
                    else:
                        if result is not None and iscoroutine(result):
                            result.close()
                            raise TypeError(
                                f"run() of a pool for threads needs a plain function: {fn!r}"
                            )
                    if how.key is not None:
                        attempt.keep(result)
                else:
                    result = attempt.stored.response
            if not attempt.repeat:
                return result  # type: ignore[no-any-return]
            attempt = await work.another(attempt)

    def attempts(
        self,
        *,
        isolation_level: IsolationLevel | None = None,
        read_only: bool | None = None,
        deferrable: bool | None = None,
        attempts: int = 3,
        deadline: float | None = None,
        commit: Literal["xid", "token", "off"] = "xid",
    ) -> AsyncAttempts[ACT]:
        """As `run`, with the transaction as a block in place of a function::

            async for attempt in pool.attempts():
                async with attempt as conn:
                    await conn.execute("…")

        The loop ends when the block's transaction is committed. Nothing should follow the block
        in the loop: it would be executed after failed attempts too. ``return`` from inside the
        block is possible; a COMMIT that fails then is raised, not repeated.

        Parameters and exceptions are those of `run`, except that an idempotency key needs `run`.
        """
        if isinstance(commit, Token):
            raise TypeError("an idempotency key needs run(), which can return what was stored")
        how = _how(isolation_level, read_only, deferrable, commit)
        deadline = self._within(deadline)
        return AsyncAttempts(self, how, checked_attempts(attempts), deadline, True)

    def transactional(
        self, **settings: Any
    ) -> Callable[[Callable[Concatenate[ACT, P], Awaitable[T]]], Callable[P, Awaitable[T]]]:
        """Decorator: make ``fn(conn, …)`` a function of ``…`` that is run by `run`::

            @pool.transactional(isolation_level=IsolationLevel.SERIALIZABLE)
            async def transfer(conn, source, target, amount): ...

            await transfer("a", "b", 100)

        :param settings: the keyword arguments of `run`.
        """
        unknown = settings.keys() - _SETTINGS
        if unknown:
            raise TypeError(f"transactional() knows no {', '.join(sorted(unknown))}")

        def decorate(
            fn: Callable[Concatenate[ACT, P], Awaitable[T]],
        ) -> Callable[P, Awaitable[T]]:
            _check_function(fn)

            @wraps(fn)
            async def transaction(*args: P.args, **kwargs: P.kwargs) -> T:
                def call(conn: ACT) -> Awaitable[T]:
                    return fn(conn, *args, **kwargs)

                return await self.run(call, **settings)

            return transaction

        return decorate

    def listen(self, *channels: str, heartbeat: float = HEARTBEAT) -> AsyncListener:
        """Listen for notifications, on a connection of the pool, for as long as it takes.

        ::

            async with pool.listen("jobs") as notes:
                async for note in notes:
                    ...  # a `psycopg.Notify`, or a `Gap`

        It survives cuts: on another connection it listens anew, and yields a `Gap` where
        notifications may have been lost. It ends when it or the pool is closed.

        :param channels: their names, as `NOTIFY` has them in quotes: case matters.
        :param heartbeat: seconds between two notifications that the listener sends to itself,
            by which it notices that its connection is dead; ``inf`` for none.
        :raises ValueError: no channel, a name that is none, or a heartbeat that is not positive.
        """
        listener = AsyncListener(self, channels, heartbeat)
        with self._mutex:
            self._ears.add(listener.ear)
        return listener

    # -- what attempts need -------------------------------------------------------------------

    def _within(self, deadline: float | None) -> float:
        return self._policy.deadline if deadline is None else checked_deadline(deadline)

    def _judged(self, failure: Failure) -> Verdict:
        """What follows from a failure: by the table, and by the owner's ``judge``."""
        verdict = judge(failure)
        if self._judge is not None:
            try:
                other = self._judge(failure, verdict)
                if other is not None and verdict.outcome is not Outcome.UNKNOWN:
                    return verdict.replace(repeat=other.repeat, evict=other.evict or failure.lost)
            except Exception as ex:
                logger.exception("pool %r: judge: %s", self.name, brief(ex))
        return verdict

    def _spend(self, meaning: Meaning, now: float) -> bool:
        budget = self._budgets.get(meaning) or self._budgets[Meaning.SIBLINGS]
        with self._mutex:
            most = self._machine.most
            return budget.spend(now, most if most < inf else NO_LIMIT, self._successes)

    def _sweep(self) -> None:
        """Have old tokens deleted now and then; called with each that is written."""
        now = monotonic()
        if now >= self._sweep_at:
            self._sweep_at = next_sweep(now)
            self._aside(sweep_job)

    def _tell(self, happening: Happening) -> None:
        with self._mutex:
            self._machine.tell(happening)
        self._perform()

    async def _part_with(
        self, conn: Any, error: BaseException, failure: Failure, verdict: Verdict
    ) -> None:
        """Take a connection back after a failure, in the state in which that left it."""
        slot = conn._slot
        try:
            if verdict.meaning is Meaning.WRONG_ROLE and not failure.lost:
                self._wrong_role(slot, conn)
            if failure.lost:
                _note_cause(slot, cause_of(error))
                with self._mutex:
                    self._machine.hung_up(slot, monotonic())
                self._discard(slot, conn, "lost in use", returned=True)
            elif verdict.evict and slot.cause is None:  # a demoted one is told of as such
                self._discard(slot, conn, "unfit after an error", returned=True)
            else:
                status = conn.pgconn.transaction_status
                if status in (INTRANS, INERROR):
                    status = await self._roll_back(conn, slot)
                if status == UNKNOWN:
                    self._discard(slot, conn, "not rolled back", returned=True)
                else:
                    await self.putconn(conn)
        except BaseException:
            if conn._pool is self:
                self._discard(slot, conn, "interrupted", returned=True)
            raise
        if verdict.suspect:
            with self._mutex:
                self._machine.suspect_all(monotonic())
            self._perform()

    async def _resolve(self, begun: Begun, until: float) -> Outcome:
        """Find out what became of a COMMIT, and tell."""
        now = monotonic()
        outcome = await find_out(self, begun, until if until < inf else now + RESOLVE_FOR)
        ended = monotonic()
        self._tell(CommitResolved(ended, outcome.value, ended - now))
        return outcome

    def _resolve_aside(self, begun: Begun, attempt: Any) -> None:
        self._aside(resolve_job, begun, attempt)

    def _end_aside(self, begun: Begun) -> None:
        """Have the session of a lost transaction ended, if it is still there.

        Not behind a pooler: its sessions are its own, and it ends what its client has left.
        """
        if self._background is None or begun.session is None:
            return
        with self._mutex:
            self._left.append((begun, monotonic() + END_WITHIN))
            begin = not self._ending
        if begin and (job := self._aside(end_job)) is not None:
            self._ending.add(job)

    def _aside(self, call: Callable[..., Any], *args: Any) -> rt.Job | None:
        """Have something done in the background, if that is possible: no caller shall fail for it,
        or lose the error that he is about to get."""
        background = self._background
        if background is None:
            return None
        try:
            return background.connect(call, ref(self), *args)
        except RuntimeError as ex:  # the interpreter, or the loop, is going
            logger.info("pool %r: nothing is done in the background: %s", self.name, ex)
            return None

    async def _ask_again(self, ex: CommitUnknown, timeout: float) -> Outcome:
        """`CommitUnknown.resolve`."""
        if ex.outcome is Outcome.UNKNOWN:
            ex.outcome = await self._resolve(ex._begun, monotonic() + timeout)
        return ex.outcome


_SETTINGS = frozenset(
    ("isolation_level", "read_only", "deferrable", "attempts", "deadline", "commit")
)


# Of a function that does not simply run when it is called.
if True:  # ASYNC
    _SPECIAL = CO_GENERATOR | CO_ASYNC_GENERATOR
else:
    _SPECIAL = CO_GENERATOR | CO_ASYNC_GENERATOR | CO_COROUTINE


def _check_function(fn: Any) -> None:
    """
    :raises TypeError: it cannot be run as a transaction.
    """
    if isinstance(fn, FunctionType) and not fn.__code__.co_flags & _SPECIAL and not fn.__dict__:
        return  # as are most: `inspect` would take 3 µs to say so
    if not callable(fn):
        raise TypeError(f"run() needs a function that takes a connection, not {fn!r}")
    if isgeneratorfunction(fn) or isasyncgenfunction(fn):
        raise TypeError(f"run() cannot run a generator function, which does nothing yet: {fn!r}")
    if False:  # ASYNC
        if is_async(fn):
            raise TypeError(
                f"run() of a pool for threads cannot run a coroutine function: {fn!r};"
                " AsyncConnectionPool can"
            )


def _how(
    isolation_level: IsolationLevel | None,
    read_only: bool | None,
    deferrable: bool | None,
    commit: Commit,
) -> Begin:
    """
    :raises TypeError, ValueError: an argument cannot be.
    """
    level = None if isolation_level is None else IsolationLevel(isolation_level)
    if isinstance(commit, Token):
        if read_only:
            raise ValueError("an idempotency key has to be written: read_only=True cannot")
        return Begin(level, read_only, deferrable, Mode.TOKEN, commit)
    if commit not in ("xid", "token", "off"):
        raise ValueError(f'commit={commit!r}: must be "xid", "token", "off" or a Token')
    return _known_how(level, read_only, deferrable, commit)


@lru_cache(maxsize=256)
def _known_how(
    level: IsolationLevel | None, read_only: bool | None, deferrable: bool | None, commit: str
) -> Begin:
    return Begin(level, read_only, deferrable, Mode(commit))
