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


class Trial:
    """How the deed's function sees itself: what to execute, and when it is struck.

    :ivar tries: how often the function was called.
    :ivar struck: what was brought down on it.
    :ivar interrupt: cancels the task that is at it, from any thread; None if it is a thread.
    """

    def __init__(self, lane: Lane, deed: Deed, fault: Fault | None) -> None:
        self.deed = deed
        self.began = monotonic()
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
        if fault is not None and fault.kind is Kind.WORK:
            self._strike(fault, pid)
        yield from statements(self.deed, self.tries)
        if fault is None or fault.kind is Kind.WORK:
            return
        if fault.kind in _WAITING:
            yield "SET LOCAL synchronous_commit = on", ()
        if fault.kind is Kind.DEFERRED:
            yield "INSERT INTO strict VALUES (1)", ()
        if fault.kind is Kind.SWALLOWED:
            yield "SELECT 1/0", ()
        self._strike(fault, pid)

    def over(self) -> None:
        """The caller knows what became of it."""
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
