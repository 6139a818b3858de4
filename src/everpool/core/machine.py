"""The pool's mind: events in, with the time; effects out.

``Machine`` decides everything and does nothing. The shells call one method for each thing that
happens, under their lock, then carry out ``effects`` outside it. Two methods are *doors* for
the hot path, ``take`` and ``give``: plain code, no effects in the common case, proven equal to
the events by the property tests.

The slot table (``slots`` and their states) is the only truth. ``idle``, ``tally`` and
``counted`` are indices over it; ``reconcile`` rebuilds them after any interruption.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable
from dataclasses import replace
from math import inf

from .connector import Connector
from .effects import Abandon, Close, Effect, Open, Ping, ReconnectFailed, Tell, Wake
from .events import Cut, Opened, OpenFailed, Recovered, Retired, Slept
from .policy import Policy
from .queue import Queue, Refusal, Waiter
from .roundtrip import RoundTrip
from .slot import COUNTED, LIFE, Event, IllegalTransition, Slot, State
from .verdict import Cause, Trouble

IDLE, LENT = State.IDLE, State.LENT
_PRESENT = (State.IDLE, State.TESTING, State.LENT, State.RETURNING)
_ESTABLISHED = (*_PRESENT, State.SUSPECT)

# Lifetimes end up to a tenth early, keepalives up to a quarter: enough to spread the work of
# a pool that was filled at one moment.
LIFETIME_JITTER = 0.1
KEEPALIVE_JITTER = 0.25

# Successive multiples of the golden ratio, modulo one, fall into the largest gap left by those
# before them: lifetimes of connections opened together end evenly spread, none near another.
GOLDEN = 0.6180339887498949

# The replacement of an old connection is asked for so long before the old one must go.
RENEWAL_LEAD = 30.0
RENEWAL_LEAD_SHARE = 0.05

# Without proof that others are answered, a silent connection is given up after ten seconds:
# a server that stalls for less must not find its whole pool reconnecting.
SUSPECT_CEILING = 10.0

# The background looks at everything at least so often, whatever it has been told: long enough
# to cost nothing, short enough to notice a suspended process soon.
LONGEST_SLEEP = 5.0

# Keepalives due within so long of each other go out together: one wake-up instead of many.
COALESCE = 0.5

# Those due that found no room in one round of keepalives try again so much later.
PAUSE = 0.05


def _rested_since(slot: Slot) -> float:
    return slot.since


class Machine:
    def __init__(self, policy: Policy, now: float, random: Callable[[], float]) -> None:
        self.policy = policy
        self.slots: dict[Slot, None] = {}  # the table: a set that keeps its order
        self.idle: list[Slot] = []  # oldest rest first; lent from the end
        self.tally = dict.fromkeys(State, 0)  # IDLE and LENT only right as a sum: see the doors
        self.counted = 0  # slots that max_size limits
        self.queue = Queue()
        self.fullness: list[Waiter] = []  # who waits for min_size connections
        self.effects: list[Effect] = []
        self.next_wake = now  # when the next tick is due
        self.closed = False
        self.generation = 0
        self.drained_at = -inf
        self.last_error: tuple[float, str] | None = None

        # Counters, for statistics.
        self.requests = self.queued = self.errors = 0
        self.waited = self.used = self.connecting = 0.0
        self.connects = self.connect_errors = self.lost = self.bad_returns = 0

        self.connector = Connector(self._most_at_once(), random)
        self.connector.wounded()  # a new pool starts slowly: its first caller is served first
        self.roundtrip = RoundTrip()
        self._random = random
        self._phase = random()
        self._numbers = 0
        # The proof of silence: the latest sending that was answered, and when it was.
        self._answered = self._answered_at = -inf
        self._retire_at = self._ping_at = now  # when to look at all that rest
        self._renewing = False  # whether any slot may be waiting for its replacement
        self._failed_until = inf  # when the outage has lasted another reconnect_timeout

    # -- the doors ----------------------------------------------------------------------------

    def take(self, now: float) -> Slot | None:
        """Lend the connection that rested least, if any rests. The caller looks at it."""
        self.requests += 1
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

    # -- callers ------------------------------------------------------------------------------

    def acquire(self, waiter: Waiter, now: float) -> None:
        """``take`` had nothing: wait in the queue, or be refused at once."""
        if self.closed:
            return self._refuse(waiter, now, Refusal("closed", "the pool is closed"))
        limit = self.policy.max_waiting
        if limit and self.queue.live >= limit:
            text = f"{self.queue.live} requests waiting already, max_waiting={limit}"
            return self._refuse(waiter, now, Refusal("full", text))
        if self._hopeless(now):
            return self._refuse(waiter, now, self._rejection(now))
        self.queued += 1
        self.queue.join(waiter)
        self._wake_at(waiter.deadline)
        if self.counted < self.policy.most or self.tally[State.SUSPECT]:
            self.connector.hurry(now)
            self._refill(now)

    def abandon(self, waiter: Waiter, now: float) -> None:
        """The waiter stops waiting (deadline, cancellation); a slot granted to it returns."""
        if waiter in self.fullness:
            self.fullness.remove(waiter)
            waiter.gone = True
        elif self.queue.leave(waiter):
            self.errors += 1
            self.waited += now - waiter.since
        elif waiter.slot is not None:
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

    # -- connecting ---------------------------------------------------------------------------

    def opened(self, slot: Slot, now: float) -> None:
        """The attempt succeeded; the shell has set ``conn`` and ``link``."""
        started = slot.since
        took = now - started
        trouble, down_since = self.connector.trouble, self.connector.down_since
        self.connector.succeeded(took)
        self.connecting += took
        self.roundtrip.seed(took / 4)  # a connect is about four round trips
        slot.opened_at = slot.since = slot.heard_at = slot.checked_at = now
        slot.why = ""
        slot.generation = self.generation
        slot.expires_at = now + self._lifetime()
        slot.keepalive = self._keepalive()
        self._fire(slot, Event.OPENED)
        self._tell(Opened(slot.number, took))
        if trouble is not None:
            self._failed_until = inf
            self._tell(Recovered(now - down_since))
        self._settle(slot, now)
        self._proven(started, now)
        self._renewed(now)
        if not self.policy.pooled:
            self._serve_fullness()
        self._refill(now)

    def open_failed(
        self, slot: Slot, now: float, text: str, trouble: Trouble, *, abandoned: bool = False
    ) -> None:
        """The attempt failed. ``abandoned``: because we stopped it."""
        self._fire(slot, Event.FAILED)
        if abandoned:
            return self._refill(now)
        self.connect_errors += 1
        self.last_error = (now, text)
        fine_before = self.connector.trouble is None
        self._outlast(now)
        wanted = bool(self.queue.live or self.fullness)
        retry_in = self.connector.failed(now, trouble, wanted)
        self._wake_at(self.connector.not_before)
        self._tell(OpenFailed(slot.number, trouble, text, retry_in))
        if fine_before and trouble is Trouble.GONE:
            self.suspect_all(now)
        self._refill(now)

    # -- dying --------------------------------------------------------------------------------

    def hung_up(self, slot: Slot, now: float) -> None:
        """The connection's death has been seen: by the watch, the peek or the pinger."""
        if slot.state is IDLE:
            self.idle.remove(slot)
        if slot.state in (IDLE, State.TESTING, State.SUSPECT):
            self.lost += 1
            self.effects.append(Close(slot))
            self._died(slot)
        elif slot.state in (LENT, State.RETURNING):
            self._died(slot)
        else:
            return
        self._refill(now)

    def closed_by(self, slot: Slot, now: float, cause: Cause | None) -> None:
        """The closer is done; ``cause`` is what killed it, or None if we did."""
        lent = slot.why not in ("", SILENCE)  # only an owner's discard says more
        self._fire(slot, Event.CLOSED)
        age = now - slot.opened_at
        if cause is None:
            self._tell(Retired(slot.number, slot.why, age))
        else:
            self._tell(Cut(slot.number, cause, now - max(slot.heard_at, slot.since), age, lent))
            if cause.concerns_all:
                self.suspect_all(now)
        self._refill(now)

    def suspect_all(self, now: float) -> None:
        """Something concerns all connections: none is lent again before it has been tested."""
        self.generation += 1
        idle, self.idle = self.idle, []
        for slot in idle:
            self._ping(slot, now)

    def pong(self, slot: Slot, now: float) -> None:
        """The ping was answered."""
        if slot.state not in (State.TESTING, State.SUSPECT):
            return
        self._fire(slot, Event.PONG)
        self.roundtrip.sample(now - slot.sent_at)
        slot.heard_at = slot.checked_at = now
        slot.generation = self.generation
        slot.keepalive = self._keepalive()
        self._settle(slot, now)
        self._proven(slot.sent_at, now)
        if self.queue.live or self.fullness:
            self._refill(now)

    # -- time ---------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Do what has become due, and set ``next_wake``."""
        self.next_wake = now + LONGEST_SLEEP
        for waiter in self.queue.expired(now):
            self._refuse(waiter, now, Refusal("timeout", self.picture(now)), queued=True)
        self._wake_at(self.queue.soonest)
        for waiter in list(self.fullness):
            if waiter.deadline <= now:
                self._refuse(waiter, now, Refusal("timeout", self.picture(now)))
                self.fullness.remove(waiter)
            else:
                self._wake_at(waiter.deadline)
        if self.closed:
            while self.idle:  # only after an interruption
                self._retire(self.idle.pop(), now, "pool closed")
            return
        self._watch_attempts(now)
        self._watch_pings(now)
        if now >= self._retire_at:
            self._retire_old(now)
        if now >= self._ping_at:
            self._keep_alive(now)
        self._wake_at(self._retire_at)
        self._wake_at(self._ping_at)
        self._refill(now)

    def slept(self, seconds: float, now: float) -> None:
        """This process stood still: every silence and every age has grown unseen.

        ``seconds`` is what the core's clock has missed. What is in flight gets its whole time
        again: nothing is given up for an answer that we came late to read.
        """
        for slot in self.slots:
            slot.heard_at -= seconds
            slot.checked_at -= seconds
            slot.opened_at -= seconds
            slot.expires_at -= seconds
            if slot.state is State.OPENING:
                slot.since = now
            elif slot.state is State.TESTING:
                slot.sent_at, slot.given_up_at = now, now + self.roundtrip.limit
            elif slot.state is State.SUSPECT:
                slot.sent_at, slot.given_up_at = now, now + SUSPECT_CEILING
        self.drained_at -= seconds
        self._retire_at = self._ping_at = now
        self._tell(Slept(seconds))
        self.suspect_all(now)

    def wait_until_full(self, waiter: Waiter, now: float) -> None:
        """Wake the waiter when the pool has ``min_size`` connections that are not in doubt."""
        if self.closed:
            return self._refuse(waiter, now, Refusal("closed", "the pool is closed"))
        if self._full():
            self.effects.append(Wake(waiter))
            waiter.gone = True
            return
        if self._hopeless(now):
            return self._refuse(waiter, now, self._rejection(now))
        self.fullness.append(waiter)
        self._wake_at(waiter.deadline)
        self.connector.hurry(now)
        self._refill(now)

    # -- the owner's orders -------------------------------------------------------------------

    def change(self, policy: Policy, now: float) -> None:
        """Go on under other settings."""
        old, self.policy = self.policy, policy
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

    def resize(self, min_size: int, max_size: int, now: float) -> None:
        self.change(replace(self.policy, min_size=min_size, max_size=max_size), now)

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

    def reconcile(self) -> None:
        """Make the indices true again after an interruption in mid-transition.

        What makes this possible is the order of writing: an effect is noted before the table
        confirms it (one that the table does not confirm is struck here), and a hand-over is
        the one assignment to ``waiter.slot``. A slot that was lent to nobody (its connection
        still here, no waiter to claim it) rests again. Those granted one are woken once more.

        The shell repeats an interrupted ``discard``, and calls ``abandon`` for a waiter whose
        ``acquire`` or ``doubt`` was interrupted, before it calls this.
        """
        self.slots = {slot: None for slot in self.slots if slot.state is not State.GONE}
        self.queue.rebuild()
        self.fullness = [waiter for waiter in self.fullness if not waiter.gone]
        noted, self.effects = self.effects, []
        for effect in noted:
            if self._confirmed(effect) and effect not in self.effects:
                self.effects.append(effect)
        for slot in self.slots:
            if slot.waiter is not None and slot.waiter.slot is not slot:
                slot.waiter = None
            if slot.state is LENT and slot.conn is not None:
                if slot.waiter is None:
                    slot.state = IDLE
                else:
                    self.effects.append(Wake(slot.waiter))
        self.idle = sorted((s for s in self.slots if s.state is IDLE), key=_rested_since)
        self.tally = dict.fromkeys(State, 0)
        for slot in self.slots:
            self.tally[slot.state] += 1
        self.counted = sum(COUNTED[slot.state] for slot in self.slots)
        self._renewing = True
        self.next_wake = self._retire_at = (
            self._ping_at
        ) = -inf  # the next tick finds what else was left undone

    def _confirmed(self, effect: Effect) -> bool:
        match effect:
            case Open(slot):
                return slot in self.slots and slot.state in (State.OPENING, State.DISOWNED)
            case Ping(slot):
                return slot.state in (State.TESTING, State.SUSPECT)
            case Close(slot):
                return slot.state in (State.CLOSING, State.DEAD)
            case Wake(waiter):
                return waiter.gone
            case _:
                return True

    # -- what a person may know ---------------------------------------------------------------

    def picture(self, now: float) -> str:
        """One line that says why somebody waits."""
        lent = [now - slot.since for slot in self.slots if slot.state is LENT]
        parts = [f"{self.counted} of {self.policy.max_size} connections"]
        if lent:
            parts.append(f"{len(lent)} lent, the longest for {max(lent):.1f} s")
        for state in (State.OPENING, State.TESTING, State.SUSPECT, State.RETURNING):
            if count := self.tally[state]:
                parts.append(f"{count} {state.value}")
        if hung := self.tally[State.DISOWNED]:
            parts.append(f"{hung} connecting for long without an answer")
        parts.append(f"{self.queue.live} waiting")
        if self.last_error and self.connector.trouble:
            when, text = self.last_error
            parts.append(f"last connect error, {now - when:.1f} s ago: {text}")
        return ", ".join(parts)

    # -- inside -------------------------------------------------------------------------------

    def _fire(self, slot: Slot, event: Event) -> None:
        old = slot.state
        try:
            new = LIFE[old][event]
        except KeyError:
            raise IllegalTransition(f"{slot!r} knows no {event.value!r}") from None
        slot.state = new
        self.tally[old] -= 1
        self.tally[new] += 1
        self.counted += COUNTED[new] - COUNTED[old]
        if new is State.GONE:
            self.slots.pop(slot, None)

    def _tell(self, happening: Cut | OpenFailed | Opened | Recovered | Retired | Slept) -> None:
        self.effects.append(Tell(happening))

    def _wake_at(self, when: float) -> None:
        self.next_wake = min(self.next_wake, when)

    def _most_at_once(self) -> int:
        if self.policy.pooled:
            return self.policy.max_connecting
        return self.policy.max_size or 1 << 30  # null pools: as many as may exist

    def _hopeless(self, now: float) -> bool:
        """The server rejects us, it is not yet time to ask again, and nothing else can come."""
        connector = self.connector
        if connector.trouble is not Trouble.REJECTED or now >= connector.not_before:
            return False
        return not sum(self.tally[state] for state in _ESTABLISHED)

    def _present(self) -> int:
        """Connections that are there and not in doubt, at rest or in use."""
        return sum(self.tally[state] for state in _PRESENT)

    def _excess(self) -> float:
        """How many must go after max_size was lowered."""
        return self.counted - self.tally[State.CLOSING] - self.policy.most

    def _spare(self) -> int:
        """How many connections there are beyond min_size, but those about to be replaced."""
        renewing = sum(slot.renewing for slot in self.slots if slot.state in _PRESENT)
        self._renewing = renewing > 0
        return self._present() - renewing - self.policy.min_size

    def _lifetime(self) -> float:
        self._phase = (self._phase + GOLDEN) % 1.0
        return self.policy.max_lifetime * (1.0 - LIFETIME_JITTER * self._phase)

    def _keepalive(self) -> float:
        return self.policy.keepalive * (1.0 - KEEPALIVE_JITTER * self._random())

    def _refuse(
        self, waiter: Waiter, now: float, refusal: Refusal, *, queued: bool = False
    ) -> None:
        self.errors += 1
        self.waited += now - waiter.since
        self.effects.append(Wake(waiter))
        waiter.refusal = refusal
        if queued:
            self.queue.leave(waiter)
        waiter.gone = True

    def _refuse_all(self, now: float, refusal: Refusal) -> None:
        for waiter in self.queue.waiting():
            self._refuse(waiter, now, refusal, queued=True)
        for waiter in self.fullness:
            self._refuse(waiter, now, refusal)
        self.fullness.clear()

    def _rejection(self, now: float) -> Refusal:
        when, text = self.last_error or (now, "")
        age = f" ({now - when:.1f} s ago)" if now - when > 0.05 else ""
        return Refusal("rejected", f"{text}{age}")

    def _retire(self, slot: Slot, now: float, why: str) -> None:
        """Close a connection that nobody holds. The caller has taken it out of ``idle``."""
        slot.why = why
        slot.since = now
        self.effects.append(Close(slot))
        self._fire(slot, Event.RETIRE)

    def _died(self, slot: Slot) -> None:
        self._fire(slot, Event.DIED)
        self.connector.wounded()

    def _ping(self, slot: Slot, now: float) -> None:
        """The caller has taken it out of ``idle``."""
        slot.sent_at = now
        slot.given_up_at = now + self.roundtrip.limit
        self._wake_at(slot.given_up_at)
        self.effects.append(Ping(slot))
        self._fire(slot, Event.PING)

    def _settle(self, slot: Slot, now: float) -> None:
        """A sound connection, IDLE but not yet in ``idle``: hand it over, let it rest or go."""
        if self.closed:
            self._retire(slot, now, "pool closed")
        elif now >= slot.expires_at:
            self._retire(slot, now, "max_lifetime")
        elif slot.opened_at <= self.drained_at:
            self._retire(slot, now, "drained")
        elif self._excess() > 0:
            self._retire(slot, now, "resized")
        elif not self.policy.pooled and not self.queue.live:
            self._retire(slot, now, "null pool")
        elif slot.generation != self.generation:
            self._ping(slot, now)
        elif self.queue.live:
            waiter = self.queue.first()
            self.waited += now - waiter.since
            self.effects.append(Wake(waiter))
            self._fire(slot, Event.TAKE)
            slot.since = now
            slot.waiter = waiter
            waiter.slot = slot
            self.queue.leave(waiter)
        else:
            insort(self.idle, slot, key=_rested_since)

    def _give_unusual(self, slot: Slot, now: float) -> None:
        if slot.state is not LENT:
            self.discard(slot, now)
        else:
            self._fire(slot, Event.GIVE)
            slot.since = now
            self._settle(slot, now)
        self._refill(now)

    def _refill(self, now: float) -> None:
        """Open what is short, as far as the connector permits and ``max_size`` has room."""
        if self.closed:
            return
        if self._hopeless(now):
            self._refuse_all(now, self._rejection(now))
        if self.fullness and self._full():
            self._serve_fullness()
        tally, policy = self.tally, self.policy
        suspects = tally[State.SUSPECT]
        opening, disowned = tally[State.OPENING], tally[State.DISOWNED]
        # Who queued for the pong of a connection that failed the test takes another's.
        while self.idle and self.queue.live > tally[State.TESTING]:
            self._ping(self.idle.pop(), now)
        # Pings in flight will serve those who wait, unless pings are being lost.
        coming = opening + (0 if suspects else tally[State.TESTING])
        wanted = self.queue.live - coming
        have = self.counted - tally[State.CLOSING] - disowned - suspects
        floor = policy.min_size - have
        if self._renewing:
            floor += sum(slot.renewing for slot in self.idle)
        if self.fullness and not policy.pooled:
            floor = 1 - opening
        short = max(wanted, floor)
        if short <= 0:
            if not opening and self.connector.trouble is None:
                self.connector.satisfied()
            return
        permitted = self.connector.permits(now, opening, disowned)
        if permitted <= 0:
            if now < self.connector.not_before:
                self._wake_at(self.connector.not_before)
            return
        if self.counted >= policy.most:
            if suspects and not self.idle and not opening and not tally[State.CLOSING]:
                self._sacrifice(now)
            return
        for _ in range(int(min(short, permitted, policy.most - self.counted))):
            self._open(now)

    def _open(self, now: float) -> None:
        self._numbers += 1
        slot = Slot(self._numbers, now, self.generation)
        self.effects.append(Open(slot))
        self.slots[slot] = None
        self.tally[State.OPENING] += 1
        self.counted += 1
        self.connects += 1
        self._wake_at(now + self.connector.patience)

    def _sacrifice(self, now: float) -> None:
        """The pool is full of silent connections: the one silent longest gives its place."""
        suspects = [slot for slot in self.slots if slot.state is State.SUSPECT]
        self._retire(min(suspects, key=lambda slot: slot.sent_at), now, "silent, place needed")

    def _proven(self, sent_at: float, now: float) -> None:
        """Something sent at ``sent_at`` was answered: what stays silent since then is dead.

        After a stall the answers come one after another, so each gets a ping's time more.
        """
        if sent_at <= self._answered:
            return
        self._answered, self._answered_at = sent_at, now
        if self.tally[State.SUSPECT]:
            for slot in self.slots:
                if slot.state is State.SUSPECT:
                    self._give_up_soon(slot, now)

    def _give_up_soon(self, slot: Slot, now: float) -> None:
        """Set when to give up a suspect: sooner if its silence is proven."""
        if slot.sent_at <= self._answered:
            proven = max(now, self._answered_at + self.roundtrip.usual)
            slot.given_up_at = min(slot.given_up_at, proven)
        self._wake_at(slot.given_up_at)

    def _outlast(self, now: float) -> None:
        """An attempt failed or hangs: has the outage lasted another ``reconnect_timeout``?"""
        timeout = max(self.policy.reconnect_timeout, LEAST_RECONNECT_TIMEOUT)
        if self.connector.trouble is None:
            self._failed_until = now + timeout
        elif now >= self._failed_until:
            self._failed_until = now + timeout
            self.effects.append(ReconnectFailed())

    def _full(self) -> bool:
        """Lent connections count; a null pool, which keeps none, must have proven it can."""
        sound = self._present() - self.tally[State.TESTING]
        return sound >= (self.policy.min_size if self.policy.pooled else 1)

    def _serve_fullness(self) -> None:
        for waiter in self.fullness:
            self.effects.append(Wake(waiter))
            waiter.gone = True
        self.fullness.clear()

    def _renewed(self, now: float) -> None:
        """A fresh connection came to rest: the oldest that waits to be replaced may go."""
        renewing = [slot for slot in self.idle if slot.renewing]
        if renewing and self._present() > self.policy.min_size:
            oldest = min(renewing, key=lambda slot: slot.expires_at)
            self.idle.remove(oldest)
            self._retire(oldest, now, "max_lifetime")

    # -- what becomes due ---------------------------------------------------------------------

    def _watch_attempts(self, now: float) -> None:
        patience = self.connector.patience
        if self.tally[State.OPENING]:
            for slot in list(self.slots):
                if slot.state is State.OPENING:
                    if now >= slot.since + patience:
                        self._fire(slot, Event.OVERDUE)
                        self._outlast(now)
                        self.connector.hung(now)
                    else:
                        self._wake_at(slot.since + patience)
        if self.tally[State.DISOWNED] > 1:
            hung = [slot for slot in self.slots if slot.state is State.DISOWNED]
            hung.sort(key=lambda slot: slot.number)
            for slot in hung[1:]:
                if not slot.why:
                    slot.why = "no answer"
                    self.effects.append(Abandon(slot))

    def _watch_pings(self, now: float) -> None:
        if self.tally[State.TESTING]:
            lost = False
            for slot in list(self.slots):
                if slot.state is State.TESTING:
                    if now >= slot.given_up_at:
                        slot.given_up_at = slot.sent_at + SUSPECT_CEILING
                        self._give_up_soon(slot, now)
                        self._fire(slot, Event.OVERDUE)
                        lost = True
                    else:
                        self._wake_at(slot.given_up_at)
            if lost:
                # None of its siblings is lent before it has been tested too.
                self.suspect_all(now)
                self.roundtrip.lost()
        if self.tally[State.SUSPECT]:
            for slot in list(self.slots):
                if slot.state is State.SUSPECT:
                    if now >= slot.given_up_at:
                        slot.why = SILENCE
                        self.hung_up(slot, now)
                    else:
                        self._wake_at(slot.given_up_at)

    def _retire_old(self, now: float) -> None:
        policy = self.policy
        lead = min(RENEWAL_LEAD, RENEWAL_LEAD_SHARE * policy.max_lifetime)
        self._renewed(now)
        spare = self._spare()
        excess = self._excess()
        for slot in list(self.idle):
            if now >= slot.expires_at:
                why = "max_lifetime"
            elif excess > 0:
                why = "resized"
            elif spare > 0 and now >= slot.since + policy.max_idle:
                why = "max_idle"
            elif now >= slot.expires_at - lead and not slot.renewing:
                if self.counted < policy.most:
                    if spare <= 0:
                        slot.renewing = self._renewing = True
                    continue
                if self.queue.live or self.tally[State.CLOSING] or self.tally[State.OPENING]:
                    continue
                if self.connector.trouble is not None:
                    continue
                why = "max_lifetime"
            else:
                continue
            spare -= not slot.renewing
            excess -= 1
            self.idle.remove(slot)
            self._retire(slot, now, why)
        # Connections now lent come back unseen: look again before one can be overdue by much.
        due = now + min(LONGEST_SLEEP, max(PAUSE, lead))
        if self.idle:
            end = min(slot.expires_at for slot in self.idle)
            due = min(due, end, max(now + lead / 8, end - lead))
            if spare > 0:
                due = min(due, self.idle[0].since + policy.max_idle)
        self._retire_at = due

    def _keep_alive(self, now: float) -> None:
        interval = self.policy.keepalive
        soon = now + min(COALESCE, interval / 16)
        due, again = [], now + interval / 8  # those now lent come back unseen
        for slot in self.idle:
            when = max(slot.since, slot.heard_at) + slot.keepalive
            if when <= soon:
                due.append(slot)
            else:
                again = min(again, when)
        # At most half of those at rest, so that a caller finds one that is not under test.
        testing = self.tally[State.TESTING]
        room = max(1, (len(self.idle) + testing) // 2) - testing
        for slot in due[: max(0, room)]:
            self.idle.remove(slot)
            self._ping(slot, now)
        self._ping_at = again if len(due) <= room else now + PAUSE


SILENCE = "silence"

# A reconnect_timeout of zero would call the user's callback in a loop.
LEAST_RECONNECT_TIMEOUT = 0.05
