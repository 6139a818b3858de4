"""Those who wait for a connection: first come, first served, and nobody past a deadline."""

from __future__ import annotations

from collections import deque
from typing import Protocol

from .slot import Slot


class Refusal:
    """Why a waiter gets nothing: ``code`` for programs, ``text`` for people."""

    __slots__ = ("code", "text")

    def __init__(self, code: str, text: str) -> None:
        self.code = code
        self.text = text


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
        return [w for w in self._waiters if not w.gone]

    def join(self, waiter: Waiter) -> None:
        self._waiters.append(waiter)
        self.live += 1
        self.soonest = min(self.soonest, waiter.deadline)

    def next(self) -> Waiter:
        """Take the first who still waits. Only when ``live`` is not zero."""
        while True:
            waiter = self._waiters.popleft()
            if not waiter.gone:
                waiter.gone = True
                self.live -= 1
                return waiter

    def leave(self, waiter: Waiter) -> bool:
        """Give up waiting; False if the waiter was served or refused already."""
        if waiter.gone:
            return False
        waiter.gone = True
        self.live -= 1
        if not self.live:
            self._waiters.clear()
            self.soonest = float("inf")
        return True

    def expire(self, now: float) -> list[Waiter]:
        """Remove and return all whose deadline has come."""
        if now < self.soonest:
            return []
        late, self.soonest = [], float("inf")
        for waiter in self.waiting():
            if waiter.deadline <= now:
                late.append(waiter)
            elif waiter.deadline < self.soonest:
                self.soonest = waiter.deadline
        for waiter in late:
            waiter.gone = True
        self.live -= len(late)
        self._waiters = deque(self.waiting())
        return late

    def dismiss(self) -> list[Waiter]:
        """Remove and return all."""
        everyone = self.waiting()
        for waiter in everyone:
            waiter.gone = True
        self._waiters.clear()
        self.live = 0
        self.soonest = float("inf")
        return everyone
