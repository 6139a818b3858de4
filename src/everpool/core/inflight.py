"""In flight: queries whose answer does not come, and whether it still can.

A query that takes long and one whose server is gone look the same from here: nothing arrives. So
the server is asked, on one connection beside the pool's, about all of them at once. It knows the
process that works on each. What it no longer knows will never be answered, and its connection is
ended; what it knows is slow, and left alone.

Loans begin and end unseen, through the fast doors, so the shells look (``LookInto``) at those that
last. They also look again before anything is ended: what has said a byte meanwhile is alive.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any

from .deadlines import Deadlines
from .effects import Abort, Dismiss, Inquire, LookInto
from .incarnation import Incarnation
from .policy import Policy
from .slot import Slot
from .table import LENT
from .verdict import Cause

# Looks at a loan that lasts, within one ``watch_queries``: a silence is found an eighth late. Each
# costs a microsecond.
LOOKS = 8
LEAST_BETWEEN = 0.05

# The connection beside the pool's is kept for the next question so long, or two periods.
LINGER = 10.0


@dataclass(frozen=True, slots=True)
class Sight:
    """What a look at a loan with a query in flight found.

    :ivar silence: seconds since a byte arrived; nothing lies unread.
    :ivar pid: the server's process; 0 if it is not known to be the borrower's alone.
    """

    silence: float
    pid: int


class Inquiry:
    """One question to the server, about some loans.

    :ivar loans: each with its process, as in `Sight`.
    """

    __slots__ = ("asked_at", "begun", "done", "loans", "void")

    def __init__(self, loans: dict[Slot, int], now: float) -> None:
        self.loans = loans
        self.asked_at = now
        self.begun = False  # the shells' job has taken it
        self.done = False
        self.void = False  # this process stood still meanwhile: silence proves nothing

    def concerns(self, server: Incarnation) -> bool:
        """Whether it is for certain about this server, in its present life, whoever asked it.

        Copies share the ``system``, and a pooler leads some to the one and some to the other.
        """
        lives = [slot.incarnation for slot in self.loans]
        own = server.system, server.started
        return all(life is not None and (life.system, life.started) == own for life in lives)


class InFlight(Deadlines):
    __slots__ = ("_dismiss_at", "_look_at", "inquiry", "side")

    def __init__(self, policy: Policy, now: float, random: Callable[[], float]) -> None:
        super().__init__(policy, now, random)
        self.inquiry: Inquiry | None = None  # under way
        self.side: Any = None  # the shells' share in a connection to ask on; it has a ``conn``
        self._look_at = now
        self._dismiss_at = inf

    # -- looking ------------------------------------------------------------------------------

    def _look(self, now: float) -> None:
        limit = self.policy.watch_queries
        if limit == inf:
            self._look_at = inf
            return
        step = max(LEAST_BETWEEN, limit / LOOKS)
        due = []
        self._look_at = now + max(LEAST_BETWEEN, limit)  # loans begin unseen
        for slot in self.slots:
            if slot.state is LENT:
                when = max(slot.since, slot.asked_at) + limit
                if when <= now:
                    due.append(slot)
                    when = now + step
                self._look_at = min(self._look_at, max(when, now + LEAST_BETWEEN))
        if self.inquiry is not None:
            return
        if due:
            self.effects.append(LookInto(tuple(due)))
        if self.side is not None:
            if now >= self._dismiss_at:
                self.effects.append(Dismiss())
            else:
                self._look_at = min(self._look_at, self._dismiss_at)

    def looked(self, sights: Mapping[Slot, Sight], now: float) -> None:
        """What was found of those to be looked into; without those that wait for no query."""
        limit = self.policy.watch_queries
        loans = {
            slot: sight.pid
            for slot, sight in sights.items()
            if sight.silence > limit and slot.state is LENT
        }
        if loans and self.inquiry is None and not self.closed:
            inquiry = Inquiry(loans, now)
            self.effects.append(Inquire(inquiry))
            self.inquiry = inquiry

    # -- verdicts -----------------------------------------------------------------------------

    def answered(
        self,
        inquiry: Inquiry,
        alive: Collection[int],
        server: Incarnation,
        sights: Mapping[Slot, Sight],
        now: float,
    ) -> None:
        """The server told who it is, and which of the processes it was asked about exist.

        :param sights: of the inquiry's loans, seen after the answer came.
        """
        for slot, pid in self._still(inquiry, sights, now):
            if _is_gone(slot, pid, alive, server):
                self._give_up(slot, sights[slot].silence, now)
        self.unclear(inquiry, now)

    def unreachable(self, inquiry: Inquiry, sights: Mapping[Slot, Sight], now: float) -> None:
        """No connection could be made on the same path, in the time that one may take."""
        if not inquiry.void:
            for slot, _ in self._still(inquiry, sights, now):
                self._give_up(slot, sights[slot].silence, now)
        self.unclear(inquiry, now)

    def unclear(self, inquiry: Inquiry, now: float) -> None:
        """Whatever was found out, it says no more than has been concluded. Ask again later."""
        if not inquiry.done:
            for slot in inquiry.loans:
                slot.asked_at = now
            self._dismiss_at = now + max(LINGER, 2 * self.policy.watch_queries)
            self._finish(inquiry)
        self._refill(now)

    def _still(
        self, inquiry: Inquiry, sights: Mapping[Slot, Sight], now: float
    ) -> list[tuple[Slot, int]]:
        """Those of an inquiry whose query is in flight, without a byte since it was asked about.

        So it is the same query, of the same loan: the next one begins after the answer to this.
        """
        if inquiry.done:
            return []
        # When asked about it had been silent for a period. Half of that is room for clocks that
        # count in steps.
        least = now - inquiry.asked_at + self.policy.watch_queries / 2
        return [
            (slot, pid)
            for slot, pid in inquiry.loans.items()
            if slot in sights and slot.state is LENT and sights[slot].silence >= least
        ]

    def _give_up(self, slot: Slot, silence: float, now: float) -> None:
        slot.heard_at = now - silence
        self.effects.append(Abort(slot))
        slot.cause = Cause("silence")
        self._died(slot, now)

    # -- the connection beside ----------------------------------------------------------------

    @property
    def side_connections(self) -> int:
        """How many there are, beside those that max_size limits."""
        side = self.side
        return int(side is not None and side.conn is not None)

    def _stop_asking(self) -> None:
        """The pool is being closed."""
        if self.inquiry is not None or self.side is not None:
            self.effects.append(Dismiss())
        if self.inquiry is not None:
            self._finish(self.inquiry)

    def _finish(self, inquiry: Inquiry) -> None:
        inquiry.done = True
        if self.inquiry is inquiry:
            self.inquiry = None

    def reconcile(self) -> None:
        super().reconcile()
        inquiry: Any = self.inquiry
        if inquiry is not None and not inquiry.begun:  # perhaps nobody will: a look asks again
            self._finish(inquiry)
            self.effects = [e for e in self.effects if not isinstance(e, Inquire)]
        self._look_at = -inf


def _is_gone(slot: Slot, pid: int, alive: Collection[int], server: Incarnation) -> bool:
    """Whether what answered proves that nobody works on the loan's query any more."""
    then = slot.incarnation
    if not pid or then is None or then.system != server.system:
        return False  # behind a pooler, or not the server that was asked
    if then.started == server.started:
        return pid not in alive  # its statistics may have been reset by hand, so no more is proven
    # Among several servers only a primary has a known successor: itself, restarted, or another.
    return 0 < then.timeline <= server.timeline
