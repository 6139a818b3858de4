"""Upkeep: what becomes due as time passes.

Deadlines, attempts past their patience, pings past their limit, lifetimes, idle times,
keepalives: ``tick`` does what is due and says when to come again.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from .effects import Abandon, Abort
from .events import Leaked, QueueChanged, Slept, Suspected
from .health import RECENT, SATURATED_AFTER
from .inflight import InFlight
from .policy import Policy
from .queue import Refusal
from .slot import Event, Slot, State
from .supply import SILENCE
from .table import PRESENT
from .verdict import Trouble

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

# In these states nobody counts from when the present loan began.
RESTING = (State.IDLE, State.TESTING, State.SUSPECT)

# Those due that found no room in one round of keepalives try again so much later.
PAUSE = 0.05


class Upkeep(InFlight):
    __slots__ = ("_leak_at", "_measured", "_ping_at", "_retire_at", "saturated")

    def __init__(self, policy: Policy, now: float, random: Callable[[], float]) -> None:
        super().__init__(policy, now, random)
        self._retire_at = self._ping_at = now  # when to look at all that rest
        self._leak_at = now  # and at all that is lent
        self.saturated = False  # the first in the queue waits for long, every connection in use
        self._measured = (now, 0)  # when and at how many returns ``rate`` was measured last

    def hasten(self, now: float) -> None:
        self._retire_at = self._ping_at = now
        self._wake_at(now)

    def tick(self, now: float) -> None:
        """Do what has become due, and set ``next_wake``."""
        self.next_wake = now + LONGEST_SLEEP
        for waiter in self.queue.expired(now):
            self._refuse(waiter, now, self.late(now), queued=True)
        self._wake_at(self.queue.soonest)
        for hope in list(self.hopes):
            if hope[1].deadline <= now:
                self._refuse(hope[1], now, self.late(now), hoping=True)
                self.hopes.remove(hope)
            else:
                self._wake_at(hope[1].deadline)
        if self.closed:
            while self.idle:  # only after an interruption
                self._retire(self.idle.pop(), now, "pool closed")
            return
        self._watch_attempts(now)
        self._watch_pings(now)
        if self.bounds:
            self._watch_deadlines(now)
        if now >= self._retire_at:
            self._retire_old(now)
        if now >= self._ping_at:
            self._keep_alive(now)
        if now >= self._leak_at:
            self._find_leaks(now)
        if now >= self._look_at:
            self._look(now)
        if now >= self._adopt_at:
            self._adopt(now)
        self._wake_at(self._adopt_at)
        if now >= self._experiment_at:
            self._experiment(now)
        self._watch_queue(now)
        self._forgive(now)
        self._wake_at(self._retire_at)
        self._wake_at(self._ping_at)
        self._wake_at(self._leak_at)
        self._wake_at(self._look_at)
        self._refill(now)

    def slept(self, seconds: float, now: float) -> None:
        """This process stood still: every silence and every age has grown unseen.

        ``seconds`` is what the core's clock has missed. What is in flight gets its whole time
        again: nothing is given up for an answer that we came late to read.
        """
        self._slept_at = now
        for slot in self.slots:
            if slot.state in RESTING:
                slot.since -= seconds
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
        if self.inquiry is not None:
            self.inquiry.void = True
        self.history.slept(seconds)
        self._retire_at = self._ping_at = now
        self._tell(Slept(now, seconds))
        self.suspect_all(now)

    def reconcile(self) -> None:
        super().reconcile()
        self._renewing = True
        self._adopt_at = -inf
        for slot in self.slots:
            if not slot.experiment:
                slot.keepalive = min(slot.keepalive, self.keepalive)
        for slot, bound in self.bounds.items():
            if bound.ended and slot.state is State.CORPSE:
                self.effects.append(Abort(slot))  # perhaps again
        # The next tick finds what else was left undone.
        self.next_wake = self._retire_at = self._ping_at = self._leak_at = -inf

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
                        limit = slot.given_up_at - slot.sent_at
                        slot.given_up_at = slot.sent_at + SUSPECT_CEILING
                        self._give_up_soon(slot, now)
                        self._fire(slot, Event.OVERDUE)
                        silent = now - max(slot.heard_at, slot.since)
                        self._tell(Suspected(now, slot.number, limit, silent))
                        lost = True
                    else:
                        self._wake_at(slot.given_up_at)
            if lost:
                self.connector.wounded()
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

    def _forgive(self, now: float) -> None:
        """Forget a failed attempt that nobody has wanted to repeat, if the server answers others.

        Without this a pool that could not grow once would stay in doubt until it grows. A
        rejection stays: it concerns new connections only, and the old ones do not disprove it.
        """
        connector = self.connector
        if connector.trouble in (None, Trouble.REJECTED) or self.last_error is None:
            return
        failed_at = self.last_error[0]
        trying = self.tally[State.OPENING] + self.tally[State.DISOWNED]
        if not trying and now - failed_at > RECENT and self.heard_at > failed_at:
            connector.forgive()
            self.last_error, self._failed_until = None, inf

    def _retire_old(self, now: float) -> None:
        policy = self.policy
        lead = min(RENEWAL_LEAD, RENEWAL_LEAD_SHARE * self.lifetime)
        self._renewed(now)
        spare = self._spare()
        excess = self._excess()
        for slot in list(self.idle):
            expires_at = self._ends_at(slot)
            if now >= expires_at:
                why = "max_lifetime"
            elif excess > 0:
                why = "resized"
            elif spare > 0 and now >= slot.since + policy.max_idle:
                why = "max_idle"
            elif now >= expires_at - lead and not slot.renewing:
                if self.counted < self.most:
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
        due = now + min(LONGEST_SLEEP, max(PAUSE, min(lead, policy.max_idle)))
        if self.idle:
            end = min(self._ends_at(slot) for slot in self.idle)
            due = min(due, end, max(now + lead / 8, end - lead))
            if spare > 0:
                due = min(due, self.idle[0].since + policy.max_idle)
        self._retire_at = due

    def _spare(self) -> int:
        """How many connections there are beyond min_size, but those about to be replaced."""
        renewing = sum(slot.renewing for slot in self.slots if slot.state in PRESENT)
        self._renewing = renewing > 0
        return self._present() - renewing - self.policy.min_size

    def _keep_alive(self, now: float) -> None:
        interval = self.keepalive
        soon = now + min(COALESCE, interval / 16)
        due: list[tuple[float, int, Slot]] = []
        again = now + interval / 8  # those now lent come back unseen
        for slot in self.idle:
            when = max(slot.since, slot.heard_at) + slot.keepalive
            if when <= soon:
                due.append((when, slot.number, slot))
            else:
                again = min(again, when)
        # At most half of those at rest, so that a caller finds one that is not under test.
        testing = self.tally[State.TESTING]
        room = max(1, (len(self.idle) + testing) // 2) - testing
        # Longest due first: in the order of rest the last would starve where room is short.
        for _, _, slot in sorted(due)[: max(0, room)]:
            self.idle.remove(slot)
            self._ping(slot, now)
        self._ping_at = again if len(due) <= room else now + PAUSE

    # -- those who wait, and those who hold ---------------------------------------------------

    def late(self, now: float) -> Refusal:
        """The refusal of one whose time is up."""
        return Refusal("timeout", self.picture(now), self.retry_after(now))

    def longest_wait(self, now: float) -> float:
        """How long the first in the queue has waited, in seconds."""
        if not self.queue.live:
            return 0.0
        try:
            return now - self.queue.first().since
        except IndexError:  # asked without the shells' lock, and the last has just left
            return 0.0

    def _watch_queue(self, now: float) -> None:
        """Is the pool saturated, and how fast do connections come back then?

        The rate counts only from one look to the next while callers wait at both: then every
        connection is in use in between, and what comes back is what can be served.
        """
        longest = self.longest_wait(now)
        full = self.counted >= self.most and self.connector.trouble is None
        saturated = longest >= SATURATED_AFTER and full and self.paused_at is None
        at, returns = self._measured
        if not saturated:
            self.rate = 0.0
        elif self.saturated and now - at >= SATURATED_AFTER:
            self.rate = (self.returns - returns) / (now - at)
        if not self.saturated or now - at >= SATURATED_AFTER:
            self._measured = now, self.returns
        if saturated is not self.saturated:
            self.saturated = saturated
            self._tell(QueueChanged(now, saturated, self.queue.live, longest))
        if self.queue.live:
            self._wake_at(now + SATURATED_AFTER)

    def _find_leaks(self, now: float) -> None:
        """Tell once of each loan that lasts too long."""
        limit = self.policy.leak_after
        if limit == inf:
            self._leak_at = inf
            return
        self._leak_at = now + min(LONGEST_SLEEP, limit)  # loans begin unseen
        for slot in self.slots:
            if slot.state is State.LENT and slot.leaked != slot.since:
                if now >= slot.since + limit:
                    slot.leaked = slot.since
                    self.leaks["held"] += 1
                    self._tell(Leaked(now, slot.number, now - slot.since, False))
                else:
                    self._leak_at = min(self._leak_at, slot.since + limit)
