"""The pool's mind: events in, with the time; effects out.

``Machine`` decides everything and does nothing. The shells call one method for each thing that
happens, under their lock, then carry out ``effects`` outside it. Here are the callers' events
and the owner's orders; `supply` has what happens to connections, `upkeep` what becomes due, `books`
what the pool knows of itself as a whole, `table` the truth they all stand on.

Two methods are *doors* for the hot path, ``take`` and ``give``: plain code, no effects in the
common case, proven equal to the events by the property tests.
"""

from __future__ import annotations

from .effects import Abandon, Close
from .events import Closed, Drained, Happening, Leaked, Lent, Paused, Resumed, Returned
from .health import RECENT, SATURATED_AFTER, Vitals
from .policy import Policy
from .queue import Refusal, Waiter
from .slot import Event, Slot, State
from .table import IDLE, LENT
from .upkeep import Upkeep
from .verdict import Trouble

# The queue's pace is an estimate: only who would wait twice as long as he can is refused for it.
VAIN_MARGIN = 2.0

# What is known of the database may be so old before somebody who asks for the pool's health has
# a connection tested: about as long as a Kubernetes probe's period.
PROBE_AFTER = 15.0


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
        held = now - slot.since
        self.used += held
        if held < 0.001:  # BRIEF; to look it up would cost as much as to compare
            self.brief_uses += 1
        else:
            self.uses.record(held)
        if slot.state is LENT and slot.generation == self.generation and now < slot.expires_at:
            if self.queue.live:
                waiter = self.queue.first()
                self._served(now - waiter.since)
                slot.since = now
                slot.waiter = waiter
                waiter.slot = slot
                self.queue.leave(waiter)
                return waiter
            if self.pooled:
                slot.state = IDLE
                slot.since = now
                self.idle.append(slot)
                return None
        self._give_unusual(slot, now)
        return None

    # -- asking -------------------------------------------------------------------------------

    def acquire(
        self, waiter: Waiter, now: float, *, limited: bool = True, first: bool = False
    ) -> None:
        """``take`` had nothing: wait in the queue, or be refused at once.

        :param limited: whether ``max_waiting`` concerns this waiter.
        :param first: wait before all others. For who has to find out what became of a COMMIT:
            those before him may be waiting for what its lost session has locked.
        """
        if self.closed:
            return self._refuse(waiter, now, Refusal("closed", "the pool is closed", 0.0))
        limit = self.policy.max_waiting
        # Who waits for the pong of a connection under test is about to be served.
        if limit and limited and self.waiting - self.tally[State.TESTING] >= limit:
            text = f"{self.waiting} requests waiting, max_waiting={limit}"
            return self._refuse(waiter, now, Refusal("full", text, self.retry_after(now)))
        if self.connector.trouble is not None and self.hopeless(now):
            return self._refuse(waiter, now, self._rejection(now))
        if self.rate and limited and (vain := self._vain(waiter, now)):
            return self._refuse(waiter, now, vain)
        full = self.counted >= self.most
        self.queued += full or self.pooled
        self.queue.join(waiter, first=first)
        soon = now + SATURATED_AFTER
        if waiter.deadline < soon:
            soon = waiter.deadline
        if soon < self.next_wake:
            self.next_wake = soon
        if not full or self.tally[State.SUSPECT]:
            self.connector.hurry(now)
            self._refill(now)

    def _vain(self, waiter: Waiter, now: float) -> Refusal | None:
        """A refusal, if the queue will not have moved so far in time: by a wide margin."""
        wait = (self.queue.live + 1) / self.rate
        left = waiter.deadline - now
        if wait <= VAIN_MARGIN * left:
            return None
        text = (
            f"{self.queue.live} requests wait already and {self.rate:.2g} a second are served:"
            f" {wait:.1f} s to wait, {left:.1f} s left; {self.picture(now)}"
        )
        return Refusal("saturated", text, wait)

    def abandon(self, waiter: Waiter, now: float) -> None:
        """The waiter stops waiting (deadline, cancellation); a slot granted to it returns."""
        if self.queue.leave(waiter):
            self.errors += 1
            self.refusals["gave up" if now < waiter.deadline else "timeout"] += 1
            self.waited_in_vain += now - waiter.since
        elif waiter.slot is not None and waiter.slot.conn is not None:
            self.errors += 1
            self.refusals["gave up"] += 1
            slot, waiter.slot = waiter.slot, None
            slot.waiter = None
            if slot.state is LENT:
                self._fire(slot, Event.GIVE)
                self._settle(slot, now)
                self._refill(now)
            else:
                self.discard(slot, now)

    def doubt(self, slot: Slot, waiter: Waiter, now: float, *, first: bool = False) -> None:
        """Nobody has heard from this connection for too long: ping it, and queue its taker.

        The taker gets the first pong or the first fresh connection, whichever comes.
        """
        if self.closed or slot.state is not LENT:
            self.discard(slot, now)
        else:
            slot.since = slot.heard_at  # it was not used: its rest goes on
            self._ping(slot, now)
        self.acquire(waiter, now, limited=False, first=first)

    def wait_until_full(self, waiter: Waiter, now: float) -> None:
        """Wake the waiter when the pool has ``min_size`` connections that are not in doubt.

        A pool that keeps none, but was not told so by its owner, opens one to see whether it can.
        """
        if self.closed:
            return self._refuse(
                waiter, now, Refusal("closed", "the pool is closed", 0.0), hoping=True
            )
        if self.connector.trouble is Trouble.REJECTED and self.hopeless(now):
            return self._refuse(waiter, now, self._rejection(now), hoping=True)
        before = self.connector.successes
        if not self._tries_one():
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
        return not self.closed and (self.pooled or self.queue.live > 0)

    def work(self, slot: Slot, now: float) -> bool:
        """The connection came back but needs work first; False if it is beyond that."""
        if slot.state is not LENT:
            self.discard(slot, now, returned=True)
            return False
        self._held(now - slot.since)
        self._fire(slot, Event.WORK)
        return True

    def worked(self, slot: Slot, now: float) -> None:
        """The work is done and the connection is idle."""
        if slot.state is not State.RETURNING:
            return self.discard(slot, now)
        self._fire(slot, Event.GIVE)
        slot.heard_at = slot.checked_at = slot.since = self.heard_at = now
        self._settle(slot, now)
        self._refill(now)

    def found_dead(self, slot: Slot, now: float) -> None:
        """The taker's look found the connection dead before it was lent."""
        self.lost += 1
        self.discard(slot, now, "", dead=True)

    def discard(
        self,
        slot: Slot,
        now: float,
        why: str = "unusable",
        *,
        dead: bool = False,
        returned: bool = False,
    ) -> None:
        """The owner is done with a connection that must not be lent again.

        ``dead``: libpq itself says that the connection is over. ``returned``: it was a
        borrower's, and a loan ends here.
        """
        if returned:
            self._held(now - slot.since)
        if slot.state in (LENT, State.RETURNING) and dead:
            self._died(slot, now)
        if slot.state is State.CORPSE or slot.state in (LENT, State.RETURNING):
            slot.waiter = None
            slot.why = why
            self.effects.append(Close(slot))
            self._fire(slot, Event.RETIRE)
        self._refill(now)

    def vanished(self, slot: Slot, now: float) -> None:
        """The borrower dropped the connection without returning it, and it has been collected."""
        if slot.conn is None and slot.state in (LENT, State.CORPSE, State.RETURNING):
            self.bad_returns += 1
            self.leaks["dropped"] += 1
            self._tell(Leaked(now, slot.number, now - slot.since, True))
            self.discard(slot, now, "dropped without being returned", returned=True)

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
        self.follow(policy, now)
        self.most = policy.most
        self.connector.most = self._most_at_once()
        if self._excess() > 0:
            self.generation += 1  # shuts the door for returns: they are counted
        self._retire_at = self._ping_at = self._leak_at = now
        self._wake_at(now)
        self._refill(now)

    def drain(self, now: float) -> None:
        """Replace every connection: the resting at once, the lent when they return."""
        self.drained_at = now
        self._tell(Drained(now))
        self.generation += 1
        idle, self.idle = self.idle, []
        for slot in idle:
            self._retire(slot, now, "drained")
        self._refill(now)

    def pause(self, now: float) -> None:
        """Lend nothing more: who comes waits, what returns rests."""
        if self.paused_at is None and not self.closed:
            self.paused_at = now
            self.generation += 1  # shuts the door for returns: they are not handed over
            for slot in self.idle:
                slot.generation = self.generation
            self._tell(Paused(now))
            self._judge(now)

    def resume(self, now: float) -> None:
        """Lend again, first to those who wait."""
        if self.paused_at is None or self.closed:
            return
        paused_for, self.paused_at = now - self.paused_at, None
        self._tell(Resumed(now, paused_for))
        while self.idle and (self.queue.live or not self.pooled):
            self._settle(self.idle.pop(), now)
        self._refill(now)

    def close(self, now: float) -> None:
        """Refuse who waits, close what rests, stop what connects. Lent ones close on return."""
        if not self.closed:
            self._tell(Closed(now))
        self.closed = True
        self.generation += 1  # the door for returns is shut: they are closed
        self._refuse_all(now, Refusal("closed", "the pool is closed", 0.0))
        self._judge(now)
        self._stop_asking()
        self.idle.clear()
        for slot in list(self.slots):
            if slot.state in (IDLE, State.TESTING, State.SUSPECT):
                self._retire(slot, now, "pool closed")
            elif slot.state in (State.OPENING, State.DISOWNED):
                self.effects.append(Abandon(slot))

    # -- what can be known --------------------------------------------------------------------

    def lent(self, slot: Slot, asked_at: float, now: float) -> None:
        """Tell of a loan; the shell does it for those who asked."""
        self._tell(Lent(now, slot.number, now - asked_at))

    def returned(self, slot: Slot, held: float, now: float) -> None:
        """Tell of a return; the shell does it for those who asked."""
        self._tell(Returned(now, slot.number, held))

    def tell(self, happening: Happening) -> None:
        """Tell of what happened to work in hand, which the shells know."""
        self._tell(happening)

    def vitals(self, now: float, late: float) -> Vitals:
        """The numbers that health is judged by, at the cost of reading them.

        May be called without the shell's lock: each number is true, all together nearly.
        """
        idle = self.idle
        cuts, cuts_lent = self.cuts_within(RECENT, now)
        trouble = self.connector.trouble
        error_at, error = self.last_error or (now, "")
        return Vitals(
            condition=self.condition,
            since=now - self.condition_since,
            trouble=trouble,
            error=error,
            error_age=now - error_at,
            min_size=self.policy.min_size,
            max_size=self.policy.max_size,
            size=self.counted,
            idle=len(idle),
            lent=self.tally[IDLE] + self.tally[LENT] - len(idle),
            waiting=self.waiting,
            longest_wait=self.longest_wait(now),
            saturated=self.saturated,
            heard=now - self._heard(),
            late=late,
            cuts=cuts,
            cuts_lent=cuts_lent,
        )

    def _heard(self) -> float:
        """When the server was last heard; a connection's return is news of it too."""
        try:
            return max(self.heard_at, self.idle[-1].since)
        except IndexError:
            return self.heard_at

    def waits_none(self) -> int:
        """How many requests were served without queueing, since the beginning; never falls."""
        served = self.requests - self.errors - self.queue.live
        queued = self.brief_waits + sum(self.waits.counts)
        self._at_once = max(self._at_once, served - queued)
        return self._at_once

    def stale(self, now: float) -> bool:
        """Whether somebody who asks how the pool is should have a connection tested."""
        resting = self.idle and not self.tally[State.TESTING] and not self.closed
        return bool(resting) and now - self._heard() > PROBE_AFTER

    def probe(self, now: float) -> None:
        """Have the connection that rested longest pinged, if that is still wanted.

        Its answer is news of the database, so a thousand who ask cause one ping.
        """
        if self.stale(now):
            index = next((i for i, s in enumerate(self.idle) if not s.experiment), 0)
            self._ping(self.idle.pop(index), now)
