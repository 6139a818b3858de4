"""What is known of one pool, as far as the conditions need it. Pure: no I/O, no clock."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

from ..events import (
    Cause,
    CommitResolved,
    Cut,
    Happening,
    Leaked,
    Learned,
    OpenFailed,
    Recovered,
    ServerChanged,
    Trouble,
)
from ..snapshot import Durations, Snapshot

# More than any condition needs to see, and a storm of cuts must not fill the memory.
MOST_REMEMBERED = 1000

# Looks at the histogram of waits kept for each span that a condition looks back over.
LOOKS = 12

# Refusals of callers who waited, or would have: they belong to the slowest.
_WAITED = ("timeout", "saturated")


class Evidence:
    """Gathered from happenings (`hear`) and snapshots (`look`) of one pool.

    :ivar snapshot: the last one; there must have been one before a condition judges.
    :ivar cuts: the last cuts, oldest first.
    :ivar rejection: the last rejected attempt to connect.
    :ivar dropped: when connections were dropped without being returned.
    :ivar unknown: the last commits of unknown outcome.
    :ivar older: the last changes to an older history of the database.
    :ivar contradictions: by setting, what was learned against the owner's value.

    :param span: how far back the waits are remembered, in seconds.
    """

    def __init__(self, span: float = 60.0) -> None:
        self.snapshot: Snapshot | None = None
        self.cuts: deque[Cut] = deque(maxlen=MOST_REMEMBERED)
        self.rejection: OpenFailed | None = None
        self.dropped: deque[float] = deque(maxlen=MOST_REMEMBERED)
        self.unknown: deque[float] = deque(maxlen=MOST_REMEMBERED)
        self.older: deque[ServerChanged] = deque(maxlen=MOST_REMEMBERED)
        self.contradictions: dict[str, Learned] = {}
        self._span = span
        self._waits: deque[tuple[float, Durations]] = deque()

    def hear(self, happening: Happening) -> None:
        """Take note of a happening. What is no evidence is passed over."""
        match happening:
            case Cut(cause=Cause(style="deadline")):
                pass  # we ended it
            case Cut():
                self.cuts.append(happening)
            case OpenFailed(trouble=Trouble.REJECTED):
                self.rejection = happening
            case Recovered():
                self.rejection = None
            case Leaked(dropped=True):
                self.dropped.append(happening.at)
            case CommitResolved(outcome="unknown"):
                self.unknown.append(happening.at)
            case ServerChanged(why="older timeline"):
                self.older.append(happening)
            case Learned(contradicts=True):
                self.contradictions[happening.setting] = happening
            case Learned():
                self.contradictions.pop(happening.setting, None)

    def look(self, snapshot: Snapshot) -> None:
        """Take note of how the pool is."""
        self.snapshot = snapshot
        waits = _with_refused(snapshot)
        if snapshot.state == "down":
            self._waits.clear()  # callers wait for the database, not for each other
        if not self._waits or snapshot.at - self._waits[-1][0] >= self._span / LOOKS:
            self._waits.append((snapshot.at, waits))
        while len(self._waits) > 1 and self._waits[1][0] <= snapshot.at - self._span:
            self._waits.popleft()

    def recent_waits(self) -> Durations:
        """How long callers waited within the span, or since the pool was down; those who were
        refused for it count as longer than all others."""
        assert self.snapshot is not None
        return _with_refused(self.snapshot).minus(self._waits[0][1])


def _with_refused(snapshot: Snapshot) -> Durations:
    wait = snapshot.wait
    refused = sum(snapshot.refusals.get(why, 0) for why in _WAITED)
    return replace(wait, counts=(*wait.counts[:-1], wait.counts[-1] + refused))
