"""One deed being done, by whatever pool, and the fault that befalls it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import monotonic
from typing import TYPE_CHECKING

from .deeds import Deed, Statement, statements
from .faults import Fault, Kind
from .strike import Blow

if TYPE_CHECKING:
    from .lanes import Lane

__all__ = ["Trial"]

_WAITING = frozenset((Kind.SYNC_CANCEL, Kind.SYNC_TERMINATE, Kind.SYNC_CUT))
_IN_STATEMENT = frozenset((Kind.WORK, Kind.FORGOTTEN_WORK, Kind.SILENT_WORK))


class Trial:
    """How the deed's function sees itself: what to execute, and when it is struck.

    :ivar tries: how often the function was called.
    :ivar deadline: seconds it has; None if its pool has none for it.
    :ivar struck: what was brought down on it.
    :ivar freed: when its caller knew what became of it, or that nobody knows yet.
    :ivar interrupt: cancels the task that is at it, from any thread; None if it is a thread.
    """

    def __init__(self, lane: Lane, deed: Deed, fault: Fault | None) -> None:
        self.deed = deed
        self.deadline = None if fault is None else fault.deadline
        self.began = monotonic()
        self.freed: float | None = None
        self.tries = 0
        self.struck: Kind | None = None
        self.interrupt: Callable[[], object] | None = None
        self._lane = lane
        self._fault = fault
        self._blow: Blow | None = None

    def statements(self, pid: int) -> Iterator[Statement]:
        """What is to be executed on the backend with this process id."""
        self.tries += 1
        if self._blow is not None:
            self._blow.verdict()
        fault = self._take(pid)
        todo = [*statements(self.deed, self.tries)]
        if fault is not None and fault.kind in _IN_STATEMENT:
            which = 0 if fault.kind is Kind.WORK else fault.count // 2 % len(todo)
            yield from todo[:which]
            self._strike(fault, pid)
            yield from todo[which:]
            return
        yield from todo
        if fault is None:
            return
        if fault.kind in _WAITING:
            yield "SET LOCAL synchronous_commit = on", ()
        if fault.kind is Kind.DEFERRED:
            yield "INSERT INTO strict VALUES (1)", ()
        if fault.kind is Kind.SWALLOWED:
            yield "SELECT 1/0", ()
        self._strike(fault, pid)

    def over(self) -> None:
        """The caller knows what became of it, or that nobody knows yet."""
        if self.freed is None:
            self.freed = monotonic()
        if self._blow is not None:
            self._blow.verdict()
        self._give_back()

    def _take(self, pid: int) -> Fault | None:
        """The fault, if this session is old enough to be struck."""
        if self._fault is None or not self._lane.is_grown(pid):
            return None
        fault, self._fault = self._fault, None
        return fault

    def _give_back(self) -> None:
        fault, self._fault = self._fault, None
        if fault is not None:
            self._lane.give_back(fault)

    def _strike(self, fault: Fault, pid: int) -> None:
        self.struck = fault.kind
        self._blow = self._lane.striker.strike(fault, pid, self.interrupt)
