"""Deadlines: when the work that holds a connection must be over, and what ends it.

A loan may have a deadline. At that moment its query is cancelled, so that the server stops
working on it; the borrower gets the server's answer and may return the connection sound. What
has not come back a grace later loses its connection: the place is free at that moment, whatever
the borrower is waiting for, and the replacement is on its way.

A loan is known by the moment it began (``slot.since``). Those that end as most do take a fast
door that knows of no deadline, so what has been returned since is found here, and left alone.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

from .effects import Abort, Cancel
from .events import Cut
from .failover import Failover
from .policy import Policy
from .slot import Event, Slot, State
from .table import LENT
from .verdict import Cause

# A query that is cancelled, at its deadline or by its user: time for the server to say so, before
# the socket is shut down. A sound one answers in milliseconds; longer would keep the caller
# waiting for one that may not be there.
CANCEL_GRACE = 0.25

# How a connection ends that we shut down because the work on it was not over in time. It says
# nothing about the path.
DEADLINE = Cause("deadline")


class Bound:
    """One loan and its deadline, in seconds on the core's clock."""

    __slots__ = ("cancelling", "committing", "ended", "ends_at", "since", "slot", "until")

    def __init__(self, slot: Slot, until: float) -> None:
        self.slot = slot
        self.since = slot.since
        self.until = until
        self.ends_at = inf  # when the connection is shut down; set when the deadline has come
        self.ended = False  # it has been
        self.committing = False  # the borrower is leaving, with a COMMIT: it is not cancelled
        self.cancelling: Any = None  # the cancel request under way, for the shells

    @property
    def overdue(self) -> bool:
        """Whether the deadline came before the connection was returned."""
        return self.ends_at < inf

    @property
    def current(self) -> bool:
        """Whether the loan goes on, on a connection that lives."""
        return self.slot.state is LENT and self.slot.since == self.since


class Deadlines(Failover):
    __slots__ = ("bounds", "deadlines")

    def __init__(self, policy: Policy, now: float, random: Callable[[], float]) -> None:
        super().__init__(policy, now, random)
        self.bounds: dict[Slot, Bound] = {}
        self.deadlines = {"cancelled": 0, "ended": 0}

    def bind(self, slot: Slot, until: float) -> Bound:
        """The work on this connection must be over then. It is the loan's only deadline."""
        bound = Bound(slot, until)
        if until < inf:
            self.bounds[slot] = bound
            self._wake_at(until)
        else:
            self.bounds.pop(slot, None)
        return bound

    def unbind(self, slot: Slot) -> None:
        """The borrower returns the connection."""
        bound = self.bounds.pop(slot, None)
        if bound is not None and bound.overdue and not bound.ended:
            self.deadlines["cancelled"] += 1

    def end(self, bound: Bound, now: float) -> None:
        """The loan is not over in time: its connection is shut down, and no longer counts."""
        slot = bound.slot
        if not bound.current:
            return
        bound.ends_at = min(bound.ends_at, now)
        bound.ended = True
        self.effects.append(Abort(slot))
        # Not ``_died``: the path is not to blame, and the connector need not be careful.
        self._fire(slot, Event.DIED)
        slot.died_at = now
        slot.cause = DEADLINE
        self.deadlines["ended"] += 1
        self.cuts[DEADLINE.kind] += 1
        silent, age = now - max(slot.heard_at, slot.since), now - slot.opened_at
        self._tell(Cut(now, slot.number, DEADLINE, silent, age, True))
        self._refill(now)

    def _watch_deadlines(self, now: float) -> None:
        for slot, bound in list(self.bounds.items()):
            if slot.since != bound.since or slot.state not in (LENT, State.CORPSE):
                del self.bounds[slot]  # returned
            elif slot.state is State.CORPSE:
                continue
            elif now >= bound.ends_at:
                self.end(bound, now)
            elif now < bound.until:
                self._wake_at(bound.until)
            else:
                if not bound.overdue:
                    # From now on, not from the deadline: if we come late, so may the answer.
                    bound.ends_at = now + CANCEL_GRACE
                    self.effects.append(Cancel(bound))
                self._wake_at(bound.ends_at)
