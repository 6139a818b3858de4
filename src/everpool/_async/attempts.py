"""Attempts at one transaction, as a loop: when to try again, and when no more."""

from __future__ import annotations

import sys
from collections.abc import Coroutine
from math import inf
from os import getpid
from random import random
from time import monotonic
from typing import TYPE_CHECKING, Any, Generic, Self

from psycopg_pool.abc import ACT

from ..core.budget import pause
from ..core.events import Retried
from ..core.judgement import Failure, Meaning, Repeat, Verdict
from ..core.outcome import Outcome
from ..errors import DeadlineExceeded, exceeded
from ..runtime import aio as rt
from ..work.begin import Begin, Begun
from ..work.failing import mark, misused
from ..work.loops import Place, place
from .attempt import AsyncAttempt

if TYPE_CHECKING:
    from .working import AsyncWorking


class AsyncAttempts(Generic[ACT]):
    """The attempts at one transaction: an iterator that ends when it is committed.

    :ivar until: when all must be over, on the monotonic clock; ``inf`` for never.
    :ivar failure: what the last attempt ended with.
    """

    # Defaults of the class: most transactions change none of them.
    failure: BaseException | None = None
    abandoned: Begun | None = None  # what began on a connection that was lost, with its session
    loop: Place | None = None  # where the next round was asked for
    met = False  # another transaction under the same key
    _last: AsyncAttempt[ACT] | None = None
    _over = False
    _pause = 0.0
    _spent: frozenset[Meaning] = frozenset()  # reasons that are good for one repetition only

    def __init__(
        self, pool: AsyncWorking[ACT], how: Begin, most: int, deadline: float, inline: bool
    ) -> None:
        self.pool = pool
        self.how = how
        self.until = monotonic() + deadline if deadline < inf else inf
        self.inline = inline  # the body is a block that we cannot call again
        self._most = most
        self._deadline = deadline
        self.pid = getpid()

    def __aiter__(self) -> Self:
        if self._over or self._last is not None:
            raise misused(
                "a loop of attempts was begun twice",
                "each transaction needs a `pool.attempts()` of its own",
                Outcome.NOT_STARTED,
            )
        return self

    if True:  # ASYNC

        def __anext__(self) -> Coroutine[Any, Any, AsyncAttempt[ACT]]:
            # Not a coroutine: its caller is who has to be looked at.
            if self.inline:
                self.loop = place(sys._getframe(1))
            return self._next()
    else:

        def __next__(self) -> AsyncAttempt[ACT]:
            if self.inline:
                self.loop = place(sys._getframe(1))
            return self._next()

    async def _next(self) -> AsyncAttempt[ACT]:
        last = self._last
        if last is None:
            if self._over:
                raise StopAsyncIteration
            self._last = AsyncAttempt(self, 1)
        elif not last.entered:
            raise misused(
                "an attempt was not entered",
                "the loop's body must be `with attempt as conn:`, or `async with`",
                Outcome.NOT_STARTED,
            )
        elif not last.repeat:
            # Leaves no cycle of references to the collector, transaction after transaction.
            self._over, self._last = True, None
            raise StopAsyncIteration
        else:
            self._last = await self.another(last)
        return self._last

    async def another(self, last: AsyncAttempt[ACT]) -> AsyncAttempt[ACT]:
        """The attempt after one that is to be repeated, when it is time for it."""
        try:
            await rt.sleep(self._pause)
        except BaseException as ex:
            self.end_abandoned()
            mark(ex, last.outcome)
            raise
        return AsyncAttempt(self, last.number + 1)

    def patience(self) -> float:
        """Seconds to wait for a connection.

        :raises DeadlineExceeded: none are left.
        """
        left = self.until - monotonic()
        if left <= 0:
            raise self.exceeded(Outcome.ROLLED_BACK if self.failure else Outcome.NOT_STARTED)
        return min(self.pool._policy.timeout, left)

    def end_abandoned(self) -> None:
        """No attempt follows that would end it."""
        abandoned, self.abandoned = self.abandoned, None
        if abandoned is not None and getpid() == self.pid:  # else it is the parent's, and alive
            self.pool._end_aside(abandoned)

    def exceeded(self, outcome: Outcome) -> DeadlineExceeded:
        """What to raise when time is up."""
        late = exceeded(self.pool.name, self._deadline, outcome)
        late.__cause__ = self.failure
        return late

    def affords(
        self, verdict: Verdict, failure: Failure, error: BaseException, number: int
    ) -> bool:
        """Whether the work is tried again after the attempt `number`; why not is noted."""
        if verdict.repeat is Repeat.NEVER:
            return False
        if getpid() != self.pid:
            return False  # a forked child: the transaction is its parent's
        now = monotonic()
        wait = pause(number, random)
        why = failure.sqlstate or "connection lost"
        if number >= self._most:
            left_out = f"attempt {number} of {self._most} failed"
        elif verdict.repeat is Repeat.ONCE and verdict.meaning in self._spent:
            left_out = f"{why} again"
        elif now + wait >= self.until:
            left_out = f"no time is left of the deadline of {self._deadline:g} s"
        elif not self.pool._spend(verdict.meaning, now):
            left_out = "the pool's budget for repetitions is spent: too much fails"
        else:
            self._spent |= {verdict.meaning}
            self._pause, self.failure = wait, error
            self.pool._tell(Retried(now, number + 1, why, wait))
            return True
        error.add_note(f"everpool: not repeated: {left_out}")
        return False


def checked_attempts(attempts: Any) -> int:
    """
    :raises ValueError, TypeError: it is no number of attempts.
    """
    if isinstance(attempts, bool) or not isinstance(attempts, int):
        raise TypeError(f"attempts must be a whole number, not {attempts!r}")
    if attempts < 1:
        raise ValueError(f"attempts={attempts}: at least 1 is needed; 1 is to try once")
    return attempts


def checked_deadline(deadline: Any) -> float:
    """
    :raises ValueError, TypeError: it is no number of seconds.
    """
    if deadline is None:
        return inf
    if isinstance(deadline, bool) or not isinstance(deadline, int | float):
        raise TypeError(f"deadline must be a number of seconds, not {deadline!r}")
    if not deadline > 0:
        raise ValueError(f"deadline={deadline}: must be more than 0 seconds")
    return float(deadline)
