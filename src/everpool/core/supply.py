"""Supply: how connections come, are doubted, tested, given up and replaced.

The shells report what happens to connections that nobody holds (``opened``, ``open_failed``,
``hung_up``, ``pong``, ``closed_by``); ``_settle`` finds a place for each sound one, and
``_refill`` asks for what is short.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable
from math import inf

from .connector import YOUNG
from .effects import Close, Ping, ReconnectFailed, Wake
from .events import Cut, Opened, OpenFailed, Pinged, Recovered, Retired
from .learning import Learning
from .policy import Policy
from .queue import Refusal, Waiter
from .slot import Event, Slot, State
from .table import ESTABLISHED, IDLE, LENT, PRESENT, rested_since
from .verdict import Cause, Trouble

# Why a slot was given up without a word.
SILENCE = "silence"

# A reconnect_timeout of zero would call the user's callback in a loop.
LEAST_RECONNECT_TIMEOUT = 0.05


class Supply(Learning):
    __slots__ = (
        "_answered",
        "_answered_at",
        "_failed_until",
        "_renewing",
        "drained_at",
        "generation",
    )

    def __init__(self, policy: Policy, now: float, random: Callable[[], float]) -> None:
        super().__init__(policy, now, random)
        self.generation = 0  # raised with each suspicion that concerns all
        self.drained_at = -inf
        # The proof of silence: the latest sending that was answered, and when it was.
        self._answered = self._answered_at = -inf
        self._renewing = False  # whether any slot may be waiting for its replacement
        self._failed_until = inf  # when the outage has lasted another reconnect_timeout

    # -- connecting ---------------------------------------------------------------------------

    def opened(self, slot: Slot, now: float) -> None:
        """The attempt succeeded; the shell has set ``conn`` and ``link``."""
        started = slot.since
        took = now - started
        trouble, down_since = self.connector.trouble, self.connector.down_since
        self.connector.succeeded(took)
        self.connecting += took
        self.creations.record(took)
        self.heard_at = now
        self.roundtrip.seed(took / 4)  # a connect is about four round trips
        slot.opened_at = slot.since = slot.heard_at = slot.checked_at = now
        slot.why = ""
        slot.generation = self.generation
        slot.expires_at = now + self._lifetime()
        slot.keepalive = self._keepalive()
        self._fire(slot, Event.OPENED)
        self._tell(Opened(now, slot.number, took))
        if trouble is not None:
            self._failed_until, self.last_error = inf, None
            self._tell(Recovered(now, now - down_since))
        waited = self.waited
        self._settle(slot, now)
        if not self.pooled:  # who waits for a connection of his own does not queue
            self.waited_alone += min(took, self.waited - waited)
        self._proven(started, now)
        self._renewed(now)
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
        wanted = bool(self.queue.live or self.hopes)
        retry_in = self.connector.failed(now, trouble, wanted)
        self._wake_at(self.connector.not_before)
        self._tell(OpenFailed(now, slot.number, trouble, text, retry_in, now - slot.since))
        if trouble in (Trouble.GONE, Trouble.SILENT):
            self._learn_of_outage(slot.since, now)
        if fine_before and trouble is Trouble.GONE:
            self.suspect_all(now)
        self._refill(now)

    def closed_by(self, slot: Slot, now: float, cause: Cause | None) -> None:
        """The closer is done; ``cause`` is what killed it, or None if we did."""
        lent = slot.why not in ("", SILENCE)  # only an owner's discard says more
        self._fire(slot, Event.CLOSED)
        age = now - slot.opened_at
        if cause is None:
            self.retired[slot.why] += 1
            self._tell(Retired(now, slot.number, slot.why, age))
            self._learn_of_end(slot, now)
        elif cause.style != "deadline":  # that was told when it happened
            self.cuts[cause.kind] += 1
            self.cuts_lent += lent
            self.recent_cuts.append((now, lent))
            silent = now - max(slot.heard_at, slot.since)
            self._tell(Cut(now, slot.number, cause, silent, age, lent))
            self._learn_of_death(slot, cause, lent, now)
            if cause.concerns_all:
                self.suspect_all(now)
        self._refill(now)

    # -- what is short, and where what comes goes ---------------------------------------------

    def _refill(self, now: float) -> None:
        """Open what is short, as far as the connector permits and ``max_size`` has room."""
        if self.hopes:
            self._fulfil()
        self._judge(now)
        if self.closed:
            return
        if self.hopeless(now):
            self._refuse_all(now, self._rejection(now))
        tally, policy = self.tally, self.policy
        suspects = tally[State.SUSPECT]
        opening, disowned = tally[State.OPENING], tally[State.DISOWNED]
        # Who queued for the pong of a connection that failed the test takes another's.
        while self.idle and self._demand() > tally[State.TESTING]:
            self._ping(self.idle.pop(), now)
        # Pings in flight will serve those who wait, unless pings are being lost.
        coming = opening + (0 if suspects else tally[State.TESTING])
        wanted = self._demand() - coming
        have = self.counted - tally[State.CLOSING] - disowned - suspects
        floor = policy.min_size - have
        if self._renewing:
            floor += sum(slot.renewing for slot in self.idle)
        if self.hopes and self._tries_one():
            floor = max(floor, 1 - opening - self._sound())
        short = max(wanted, floor)
        if short <= 0:
            if not opening and self.connector.trouble is None:
                self.connector.satisfied()
            return
        permitted = self.connector.permits(now, opening, disowned)
        if permitted <= 0:
            if self.connector.trouble is not None:
                self._outlast(now)
            if now < self.connector.not_before:
                self._wake_at(self.connector.not_before)
            return
        if self.counted >= self.most:
            if suspects and not self.idle and not opening and not tally[State.CLOSING]:
                self._sacrifice(now)
            return
        for _ in range(int(min(short, permitted, self.most - self.counted))):
            self._open(now)

    def _open(self, now: float) -> None:
        self._add(now, self.generation)
        self.connects += 1
        self._wake_at(now + self.connector.patience)

    def _settle(self, slot: Slot, now: float) -> None:
        """A sound connection, IDLE but not yet in ``idle``: hand it over, let it rest or go."""
        if self.closed:
            self._retire(slot, now, "pool closed")
        elif now >= slot.expires_at and (self._demand() or now >= self._ends_at(slot)):
            self._retire(slot, now, "max_lifetime")
        elif slot.began_at <= self.drained_at:
            self._retire(slot, now, "drained")
        elif self._excess() > 0:
            self._retire(slot, now, "resized")
        elif not self.pooled and not self.queue.live:
            self._retire(slot, now, "null pool")
        elif slot.generation != self.generation:
            self._ping(slot, now)
        elif self._demand():
            waiter = self.queue.first()
            self._served(now - waiter.since)
            self.effects.append(Wake(waiter))
            self._fire(slot, Event.TAKE)
            slot.since = now
            slot.waiter = waiter
            waiter.slot = slot
            self.queue.leave(waiter)
        else:
            insort(self.idle, slot, key=rested_since)

    def _retire(self, slot: Slot, now: float, why: str) -> None:
        """Close a connection that nobody holds. The caller has taken it out of ``idle``."""
        slot.why = why
        slot.since = now
        self.effects.append(Close(slot))
        self._fire(slot, Event.RETIRE)

    def _renewed(self, now: float) -> None:
        """A fresh connection came to rest: the oldest that waits to be replaced may go."""
        renewing = [slot for slot in self.idle if slot.renewing]
        if renewing and self._present() > self.policy.min_size:
            oldest = min(renewing, key=lambda slot: slot.expires_at)
            self.idle.remove(oldest)
            self._retire(oldest, now, "max_lifetime")

    # -- dying, and being doubted -------------------------------------------------------------

    def hung_up(self, slot: Slot, now: float) -> None:
        """The connection's death has been seen: by the watch, the peek or the pinger."""
        if slot.state is IDLE:
            self.idle.remove(slot)
        if slot.state in (IDLE, State.TESTING, State.SUSPECT):
            self.lost += 1
            self.effects.append(Close(slot))
            self._died(slot, now)
        elif slot.state in (LENT, State.RETURNING):
            self._died(slot, now)
        else:
            return
        self._refill(now)

    def _died(self, slot: Slot, now: float) -> None:
        self._fire(slot, Event.DIED)
        slot.died_at = now
        self.connector.wounded()
        if now - slot.opened_at < YOUNG:
            self.connector.died_young(now)

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
        late = slot.state is State.SUSPECT
        self._fire(slot, Event.PONG)
        self.roundtrip.sample(now - slot.sent_at)
        self._learn_of_life(slot, now)
        slot.heard_at = slot.checked_at = self.heard_at = now
        self._tell(Pinged(now, slot.number, now - slot.sent_at, late))
        slot.generation = self.generation
        slot.keepalive = self._keepalive()
        self._settle(slot, now)
        self._proven(slot.sent_at, now)
        if self.queue.live or self.hopes:
            self._refill(now)
        else:
            self._judge(now)

    def _ping(self, slot: Slot, now: float) -> None:
        """The caller has taken it out of ``idle``."""
        slot.sent_at = now
        slot.given_up_at = now + self.roundtrip.limit
        self._wake_at(slot.given_up_at)
        self.effects.append(Ping(slot))
        self._fire(slot, Event.PING)

    def _proven(self, sent_at: float, now: float) -> None:
        """Something sent at ``sent_at`` was answered: what stays silent since then is dead.

        After a stall the answers come one after another, so each gets a ping's time more.
        """
        if sent_at <= self._answered:
            return
        self._answered, self._answered_at = sent_at, now
        self._learn_of_proof(sent_at, now)
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

    def _sacrifice(self, now: float) -> None:
        """The pool is full of silent connections: the one silent longest gives its place."""
        suspects = [slot for slot in self.slots if slot.state is State.SUSPECT]
        slot = min(suspects, key=lambda slot: slot.sent_at)
        if slot.sent_at <= self._answered:  # proven: given up in a moment anyway
            slot.why = SILENCE
            self.hung_up(slot, now)
        else:
            self._learn_of_doubt(slot, now)
            self._retire(slot, now, "silent, place needed")

    # -- refusing -----------------------------------------------------------------------------

    def hopeless(self, now: float) -> bool:
        """Whether who wants a connection is told now that there is none.

        Nothing is there to be lent, an attempt to connect has failed, and the next is not due.
        Always if the server rejects us, because a person has to help; for a server that is
        away only under ``when_down="fail"``, and then also while an attempt is under way, and
        beside connections that do not answer: a late pong is what ``"wait"`` waits for.
        """
        connector = self.connector
        if connector.trouble is None:
            return False
        hopes: tuple[State, ...] = ESTABLISHED
        trying = 0
        if connector.trouble is not Trouble.REJECTED:
            if self.policy.when_down != "fail":
                return False
            trying = self.tally[State.OPENING] + self.tally[State.DISOWNED]
            hopes = PRESENT
        if now >= connector.not_before and not trying:
            return False
        return not sum(self.tally[state] for state in hopes)

    def _rejection(self, now: float) -> Refusal:
        trouble = self.connector.trouble
        rejected = trouble is Trouble.REJECTED
        when, text = self.last_error or (self.connector.down_since, "")
        if not text and trouble is not None:
            text = f"the server is {trouble.value}"
        age = f" ({now - when:.1f} s ago)" if now - when > 0.05 else ""
        return Refusal("rejected" if rejected else "down", f"{text}{age}", self.retry_after(now))

    def _refuse(
        self,
        waiter: Waiter,
        now: float,
        refusal: Refusal,
        *,
        queued: bool = False,
        hoping: bool = False,
    ) -> None:
        """Give up one who waits, for a connection or (``hoping``) for a condition."""
        if not hoping:
            self.errors += 1
            self.refusals[refusal.code] += 1
            self.waited_in_vain += now - waiter.since
        self.effects.append(Wake(waiter))
        waiter.refusal = refusal
        if queued:
            self.queue.leave(waiter)
        waiter.gone = True

    def _refuse_all(self, now: float, refusal: Refusal) -> None:
        """Refuse who queues; who hopes for a condition too, unless time may still bring it."""
        for waiter in self.queue.waiting():
            self._refuse(waiter, now, refusal, queued=True)
        if refusal.code == "down":
            return  # a program may start before its database
        for _, waiter in self.hopes:
            self._refuse(waiter, now, refusal, hoping=True)
        self.hopes.clear()

    def _outlast(self, now: float) -> None:
        """An attempt failed or hangs: has the outage lasted another ``reconnect_timeout``?"""
        timeout = max(self.policy.reconnect_timeout, LEAST_RECONNECT_TIMEOUT)
        if self.connector.trouble is None:
            self._failed_until = now + timeout
        elif now >= self._failed_until:
            self._failed_until = now + timeout
            self.effects.append(ReconnectFailed())
        self._wake_at(self._failed_until)

    def _tries_one(self) -> bool:
        """Whether who waits for the pool to be full waits for one connection: its size says none,
        because it is a null pool's, or follows from an environment that sleeps."""
        policy = self.policy
        derived = not policy.min_size and policy.reason("min_size").origin == "environment"
        return derived or not policy.pooled

    # -- counting -----------------------------------------------------------------------------

    def _sound(self) -> int:
        """Connections that are there and not in doubt: a keepalive under way is no doubt."""
        doubted = sum(
            s.state is State.TESTING and s.generation != self.generation for s in self.slots
        )
        return self._present() - doubted
