"""The pool's mind: events in, with the time; effects out.

``Machine`` decides everything and does nothing. The shells call one method for each thing that
happens, under their lock, then carry out ``effects`` outside it. Here are the callers' events
and the owner's orders; `supply` has what happens to connections, `upkeep` what becomes due,
`table` the truth they all stand on.

Two methods are *doors* for the hot path, ``take`` and ``give``: plain code, no effects in the
common case, proven equal to the events by the property tests.
"""

from __future__ import annotations

from .effects import Abandon, Close
from .policy import Policy
from .queue import Refusal, Waiter
from .slot import Event, Slot, State
from .table import IDLE, LENT
from .upkeep import Upkeep


class Machine(Upkeep):
    __slots__ = ()

    # -- the doors ----------------------------------------------------------------------------

    def take(self, now: float) -> Slot | None:
        """Lend the connection that rested least, if any rests. The caller looks at it."""
        idle = self.idle
        while idle:
            slot = idle.pop()
            if now < slot.expires_at:
                slot.state = LENT
                slot.since = now
                return slot
            self._retire(slot, now, "max_lifetime")
        return None

    def give(self, slot: Slot, now: float) -> Waiter | None:
        """Take back a connection that needs no work; return who was given it, to be woken."""
        self.used += now - slot.since
        if slot.state is LENT and slot.generation == self.generation and now < slot.expires_at:
            if self.queue.live:
                waiter = self.queue.first()
                self.waited += now - waiter.since
                slot.since = now
                slot.waiter = waiter
                waiter.slot = slot
                self.queue.leave(waiter)
                return waiter
            if self.policy.pooled:
                slot.state = IDLE
                slot.since = now
                self.idle.append(slot)
                return None
        self._give_unusual(slot, now)
        return None

    # -- asking -------------------------------------------------------------------------------

    def acquire(self, waiter: Waiter, now: float) -> None:
        """``take`` had nothing: wait in the queue, or be refused at once."""
        if self.closed:
            return self._refuse(waiter, now, Refusal("closed", "the pool is closed"))
        limit = self.policy.max_waiting
        if limit and self.waiting >= limit:
            text = f"{self.waiting} requests waiting already, max_waiting={limit}"
            return self._refuse(waiter, now, Refusal("full", text))
        if self.connector.trouble is not None and self._hopeless(now):
            return self._refuse(waiter, now, self._rejection(now))
        full = self.counted >= self.most
        self.queued += full or self.policy.pooled
        self.queue.join(waiter)
        if waiter.deadline < self.next_wake:
            self.next_wake = waiter.deadline
        if not full or self.tally[State.SUSPECT]:
            self.connector.hurry(now)
            self._refill(now)

    def abandon(self, waiter: Waiter, now: float) -> None:
        """The waiter stops waiting (deadline, cancellation); a slot granted to it returns."""
        if self.queue.leave(waiter):
            self.errors += 1
            self.waited += now - waiter.since
        elif waiter.slot is not None and waiter.slot.conn is not None:
            self.errors += 1
            slot, waiter.slot = waiter.slot, None
            slot.waiter = None
            if slot.state is LENT:
                self._fire(slot, Event.GIVE)
                self._settle(slot, now)
                self._refill(now)
            else:
                self.discard(slot, now)

    def doubt(self, slot: Slot, waiter: Waiter, now: float) -> None:
        """Nobody has heard from this connection for too long: ping it, and queue its taker.

        The taker gets the first pong or the first fresh connection, whichever comes.
        """
        if self.closed or slot.state is not LENT:
            self.discard(slot, now)
        else:
            self._ping(slot, now)
        self.acquire(waiter, now)

    def wait_until_full(self, waiter: Waiter, now: float) -> None:
        """Wake the waiter when the pool has ``min_size`` connections that are not in doubt.

        A null pool, which keeps none, opens one connection to see whether it can.
        """
        if self.closed:
            return self._refuse(waiter, now, Refusal("closed", "the pool is closed"))
        if self._hopeless(now):
            return self._refuse(waiter, now, self._rejection(now))
        before = self.connector.successes
        if self.policy.pooled:
            self._hope(lambda: self._sound() >= self.policy.min_size, waiter)
        else:
            self._hope(lambda: self._sound() > 0 or self.connector.successes > before, waiter)
        self.connector.hurry(now)
        return self._refill(now)

    def wait_until_tested(self, waiter: Waiter, now: float) -> None:
        """Test all connections at rest; wake the waiter when none is under test."""
        self.suspect_all(now)
        self._hope(lambda: not self.tally[State.TESTING], waiter)

    # -- returning ----------------------------------------------------------------------------

    def keeps(self) -> bool:
        """Whether a connection returned now would be used again."""
        return not self.closed and (self.policy.pooled or self.queue.live > 0)

    def work(self, slot: Slot, now: float) -> bool:
        """The connection came back but needs work first; False if it is beyond that."""
        self.used += now - slot.since
        if slot.state is not LENT:
            self.discard(slot, now)
            return False
        self._fire(slot, Event.WORK)
        return True

    def worked(self, slot: Slot, now: float) -> None:
        """The work is done and the connection is idle."""
        if slot.state is not State.RETURNING:
            return self.discard(slot, now)
        self._fire(slot, Event.GIVE)
        slot.heard_at = slot.checked_at = slot.since = now
        self._settle(slot, now)
        self._refill(now)

    def found_dead(self, slot: Slot, now: float) -> None:
        """The taker's look found the connection dead before it was lent."""
        self.lost += 1
        self.discard(slot, now, "", dead=True)

    def discard(self, slot: Slot, now: float, why: str = "unusable", *, dead: bool = False) -> None:
        """The owner is done with a connection that must not be lent again.

        ``dead``: libpq itself says that the connection is over.
        """
        if slot.state in (LENT, State.RETURNING) and dead:
            self._died(slot)
        if slot.state is State.CORPSE or slot.state in (LENT, State.RETURNING):
            slot.waiter = None
            slot.why = why
            self.effects.append(Close(slot))
            self._fire(slot, Event.RETIRE)
        self._refill(now)

    def vanished(self, slot: Slot, now: float) -> None:
        """The borrower dropped the connection without returning it, and it has been collected."""
        if slot.conn is None and slot.state in (LENT, State.CORPSE):
            self.bad_returns += 1
            self.discard(slot, now, "dropped without being returned")

    def _give_unusual(self, slot: Slot, now: float) -> None:
        if slot.state is not LENT:
            self.discard(slot, now)
        else:
            self._fire(slot, Event.GIVE)
            slot.since = now
            self._settle(slot, now)
        self._refill(now)

    # -- the owner's orders -------------------------------------------------------------------

    def change(self, policy: Policy, now: float) -> None:
        """Go on under other settings."""
        old, self.policy = self.policy, policy
        self.most = policy.most
        self.connector.most = self._most_at_once()
        for slot in self.slots:
            if policy.keepalive != old.keepalive:
                slot.keepalive = self._keepalive()
            if policy.max_lifetime != old.max_lifetime:
                slot.expires_at = min(slot.expires_at, now + self._lifetime())
        if self._excess() > 0:
            self.generation += 1  # shuts the door for returns: they are counted
        self._retire_at = self._ping_at = now
        self._wake_at(now)
        self._refill(now)

    def drain(self, now: float) -> None:
        """Replace every connection: the resting at once, the lent when they return."""
        self.drained_at = now
        self.generation += 1
        idle, self.idle = self.idle, []
        for slot in idle:
            self._retire(slot, now, "drained")
        self._refill(now)

    def close(self, now: float) -> None:
        """Refuse who waits, close what rests, stop what connects. Lent ones close on return."""
        self.closed = True
        self.generation += 1  # the door for returns is shut: they are closed
        self._refuse_all(now, Refusal("closed", "the pool is closed"))
        self.idle.clear()
        for slot in list(self.slots):
            if slot.state in (IDLE, State.TESTING, State.SUSPECT):
                self._retire(slot, now, "pool closed")
            elif slot.state in (State.OPENING, State.DISOWNED):
                self.effects.append(Abandon(slot))
