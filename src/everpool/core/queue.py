"""Those who wait for a connection: first come, first served, and nobody past a deadline."""

from __future__ import annotations

from collections import deque
from typing import Protocol

from .slot import Slot


class Refusal:
    """Why a waiter gets nothing: ``code`` for programs, ``text`` for people.

    ``retry_after`` is when asking again makes sense, in seconds; 0 for never.
    """

    __slots__ = ("code", "retry_after", "text")

    def __init__(self, code: str, text: str, retry_after: float) -> None:
        self.code = code
        self.text = text
        self.retry_after = retry_after


class Waiter(Protocol):
    """What the core knows of a waiter; the shells make it sleep and wake.

    A hand-over is one assignment, to ``slot``. The core sets ``slot`` or ``refusal``, never
    both, and never after ``gone``.
    """

    deadline: float
    since: float
    slot: Slot | None
    refusal: Refusal | None
    gone: bool

    def wake(self) -> None: ...


class Queue:
    """FIFO with O(1) departure: who leaves early stays as a mark and is skipped.

    ``live`` counts those still waiting; ``soonest`` is a lower bound of their deadlines,
    lowered by each arrival and made exact by each ``expire``.
    """

    __slots__ = ("_waiters", "live", "soonest")

    def __init__(self) -> None:
        self._waiters: deque[Waiter] = deque()
        self.live = 0
        self.soonest = float("inf")

    def waiting(self) -> list[Waiter]:
        return [w for w in list(self._waiters) if not w.gone]

    def join(self, waiter: Waiter, *, first: bool = False) -> None:
        """Wait; ``first``: before all others."""
        if first:
            self._waiters.appendleft(waiter)
        else:
            self._waiters.append(waiter)
        self.live += 1
        if waiter.deadline < self.soonest:
            self.soonest = waiter.deadline

    def first(self) -> Waiter:
        """Who is to be served next. Only when ``live`` is not zero."""
        return self._waiters[0]  # ``leave`` keeps no mark in front

    def leave(self, waiter: Waiter) -> bool:
        """Stop waiting, served or not; False if the waiter had left already."""
        if waiter.gone:
            return False
        waiter.gone = True
        self.live -= 1
        waiters = self._waiters
        while waiters and waiters[0].gone:
            waiters.popleft()
        if not waiters:
            self.soonest = float("inf")
        elif len(waiters) > 2 * self.live + 64:
            self._waiters = deque(self.waiting())
        return True

    def expired(self, now: float) -> list[Waiter]:
        """All whose deadline has come; they are still in the queue."""
        if now < self.soonest:
            return []
        late, self.soonest = [], float("inf")
        for waiter in self.waiting():
            if waiter.deadline <= now:
                late.append(waiter)
            else:
                self.soonest = min(self.soonest, waiter.deadline)
        return late

    def rebuild(self) -> None:
        """Make the indices true again: who has a slot or a refusal waits no more."""
        for waiter in self._waiters:
            if waiter.slot is not None or waiter.refusal is not None:
                waiter.gone = True
        self._waiters = deque(self.waiting())
        self.live = len(self._waiters)
        self.soonest = min((waiter.deadline for waiter in self._waiters), default=float("inf"))
