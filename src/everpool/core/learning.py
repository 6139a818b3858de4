"""What the pool follows: its keepalive and lifetimes, as set, or as the deaths taught it.

A setting that was given is kept, and told of if it contradicts what was learned. One that was
not is tightened below what was learned, and relaxed again when that is refuted. A pool whose
pings keep everything alive learns nothing more, so now and then it makes an *experiment*: one
connection at rest, never the last, goes unpinged for longer than the believed idle cut, or is
kept, not to be lent, beyond the believed age. Its death is a sample, and no loss.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf
from typing import Any

from .books import Books
from .events import Learned
from .learn import EXPERIMENT, MOST_EVENTS, TOGETHER, Belief, Learner, Limit
from .policy import Policy
from .rules import KEEPALIVE_SHARE, LIFETIME_SHARE, seconds
from .slot import Slot
from .verdict import Cause

# Lifetimes end up to a twentieth early, as psycopg_pool's do, keepalives up to a quarter: enough
# to spread the work of a pool that was filled at one moment.
LIFETIME_JITTER = 0.05
KEEPALIVE_JITTER = 0.25

# Successive multiples of the golden ratio, modulo one, fall into the largest gap left by those
# before them: lifetimes of connections opened together end evenly spread, none near another.
GOLDEN = 0.6180339887498949

# However short what was learned: a ping a second is all that a path may cost.
LEAST_LEARNED = 1.0

# Changes smaller than this are noise, not worth a line in the log.
WORTH_TELLING = 0.1

# One experiment an hour, beyond what is believed: far enough to be outside of the deaths' spread.
EXPERIMENT_EVERY = 3600.0
BEYOND_IDLE = 1.5
BEYOND_AGE = 1.2

# When all that a death belongs to is known: others that died with it, connects that fail.
SETTLED_AFTER = 2 * TOGETHER
SETTLED_AT_LAST = 3 * TOGETHER  # where one dies after the other

# An answer so much later proves nothing about a silence: that was an outage.
PROVEN_WITHIN = 2.0

# How connections end that teaches something: not misuse, nor what libpq refuses.
TEACHING = frozenset({"FIN", "RST", "FATAL", "silence"})


class Learning(Books):
    __slots__ = (
        "_adopt_at",
        "_adopt_by",
        "_contradicted",
        "_doubted",
        "_experiment_at",
        "_phase",
        "_random",
        "_slept_at",
        "experiments",
        "keepalive",
        "learner",
        "lifetime",
    )

    def __init__(self, policy: Policy, now: float, random: Callable[[], float]) -> None:
        super().__init__(policy, now, random)
        self._random = random
        self._phase = random()
        self.learner = Learner()
        self.keepalive = policy.keepalive  # as followed
        self.lifetime = policy.max_lifetime
        # When silent ones were asked that were closed unproven, when last heard, and their age.
        self._doubted: list[tuple[float, float, float]] = []
        self._contradicted: dict[str, float] = {}  # what the owner has been told, by setting
        self._adopt_at = self._adopt_by = inf
        self._slept_at = -inf  # what was heard before it says nothing of the path
        self._experiment_at = now + EXPERIMENT_EVERY
        self.experiments = 0

    # -- evidence -----------------------------------------------------------------------------

    def _learn_of_death(self, slot: Slot, cause: Cause, lent: bool, now: float) -> None:
        """A connection has ended: a sample."""
        if not self._learns() or cause.style not in TEACHING or self.connector.trouble is not None:
            return
        heard_at = max(slot.heard_at, slot.since)
        if heard_at < self._slept_at:
            return
        tested = not lent and slot.sent_at > heard_at
        silence = (slot.sent_at if tested else slot.died_at) - heard_at
        age = slot.died_at - slot.opened_at
        if not lent and not (cause.concerns_all and not cause.says_idle):
            if slot.experiment == "idle" and self.learner.idle.confirmed(silence, now):
                return
            if slot.experiment == "age" and self.learner.age.confirmed(age, now):
                return
        seen = not tested and cause.style != "silence"  # else it was found, some time after
        self.learner.died(
            heard_at=heard_at,
            found_at=slot.died_at,
            silence=silence,
            age=age,
            exact=self.policy.watch and seen,
            lent=lent,
            style=cause.kind,
            declared=cause.says_idle,
        )
        self._adopt_soon(now)

    def _learn_of_doubt(self, slot: Slot, now: float) -> None:
        """A silent connection is closed, because its place is needed: perhaps it was dead."""
        if self._learns() and not slot.experiment:
            heard_at = max(slot.heard_at, slot.since)
            self._doubted.append((slot.sent_at, heard_at, now - slot.opened_at))
            del self._doubted[:-MOST_EVENTS]

    def _learn_of_proof(self, sent_at: float, now: float) -> None:
        """Something sent at ``sent_at`` was answered: what was asked before and was not is dead."""
        if not self._doubted:
            return
        proven = [doubt for doubt in self._doubted if doubt[0] <= sent_at]
        self._doubted = [doubt for doubt in self._doubted if doubt[0] > sent_at]
        for asked_at, heard_at, age in proven:
            if now - asked_at <= PROVEN_WITHIN:
                self.learner.died(
                    heard_at=heard_at,
                    found_at=asked_at,
                    silence=asked_at - heard_at,
                    age=age,
                    exact=False,
                    lent=False,
                    style="silence",
                    declared=False,
                )
                self._adopt_soon(now)

    def _learn_of_life(self, slot: Slot, now: float) -> None:
        """A ping was answered; ``slot`` is still as it was before."""
        silence = slot.sent_at - max(slot.heard_at, slot.since)
        if silence >= self.learner.idle.shortest and self.learner.idle.lived(
            silence, now, EXPERIMENT if slot.experiment == "idle" else 1
        ):
            self._adopt(now)
        if slot.experiment == "idle":
            slot.experiment = ""

    def _learn_of_end(self, slot: Slot, now: float) -> None:
        """The pool closes a connection; it lived as long as it was heard."""
        weight = EXPERIMENT if slot.experiment == "age" else 1
        if self.learner.age.lived(slot.heard_at - slot.opened_at, now, weight):
            self._adopt(now)

    def _learn_of_outage(self, began_at: float, now: float) -> None:
        """An attempt to connect that began then has failed."""
        self.learner.outage(now, began_at)
        self._adopt_soon(now)

    def taught(self, saved: Mapping[str, Any], elapsed: float, now: float) -> None:
        """Begin with what another pool had found, so many seconds ago."""
        self.learner.load(saved, now, elapsed)
        self._adopt(now)

    def _learns(self) -> bool:
        return self.policy.learn and self.policy.pooled

    # -- following ----------------------------------------------------------------------------

    def _adopt_soon(self, now: float) -> None:
        """Follow what is believed when all that belongs to this moment is known."""
        if self._adopt_at == inf:
            self._adopt_by = now + SETTLED_AT_LAST
        self._adopt_at = min(now + SETTLED_AFTER, self._adopt_by)
        self._wake_at(self._adopt_at)

    def _adopt(self, now: float) -> None:
        """Follow what is believed now."""
        keepalive, lifetime = self.keepalive, self.lifetime
        idle, age = self.beliefs() if self._learns() else (None, None)
        self.keepalive = self._followed("keepalive", keepalive, idle, KEEPALIVE_SHARE, now)
        self.lifetime = self._followed("max_lifetime", lifetime, age, LIFETIME_SHARE, now)
        if self.keepalive != keepalive:
            for slot in self.slots:
                slot.keepalive = self._keepalive()
                slot.experiment = ""
        if self.lifetime < lifetime:
            for slot in self.slots:
                end = max(now, slot.opened_at + self._lifetime())
                slot.expires_at = min(slot.expires_at, end)
        if (self.keepalive, self.lifetime) != (keepalive, lifetime):
            self._experiment_at = now + EXPERIMENT_EVERY
            self.hasten(now)
        self._adopt_at = inf

    def beliefs(self) -> tuple[Belief | None, Belief | None]:
        """The idle cut and the maximum age that are believed in."""
        policy, told = self.policy, self._contradicted
        return self.learner.beliefs(
            self.keepalive < policy.keepalive or "keepalive" in told,
            self.lifetime < policy.max_lifetime or "max_lifetime" in told,
        )

    def _followed(
        self, name: str, current: float, belief: Belief | None, share: float, now: float
    ) -> float:
        """The value to follow for one setting; told if it changes."""
        own: float = getattr(self.policy, name)
        taught = own if belief is None else min(own, max(LEAST_LEARNED, share * belief.value))
        if self.policy.reason(name).origin in ("given", "changed"):
            self._contradict(name, own, taught, belief, share, now)
            return own
        if name == "keepalive" and own == inf:
            return own  # a ping would keep the database awake
        if taught == current or (belief is not None and not _differs(taught, current)):
            return current
        if belief is not None:
            why = _evidence(name, belief, share)
        else:
            why = "connections live longer now, or the deaths it stood on are long ago"
            self._limit(name).withdrawn()
        self._tell(Learned(now, name, current, taught, why, False))
        return taught

    def _contradict(
        self,
        name: str,
        own: float,
        taught: float,
        belief: Belief | None,
        share: float,
        now: float,
    ) -> None:
        """Tell the owner, once, that a setting of his stands against what was learned."""
        told = self._contradicted.get(name, own)
        if belief is None or taught >= own:
            if self._contradicted.pop(name, None) is not None:
                self._limit(name).withdrawn()
                self._tell(Learned(now, name, own, own, "nothing speaks against it now", False))
        elif _differs(taught, told):
            self._contradicted[name] = taught
            self._tell(Learned(now, name, own, taught, _evidence(name, belief, share), True))

    def _limit(self, name: str) -> Limit:
        return self.learner.idle if name == "keepalive" else self.learner.age

    def follow(self, policy: Policy, now: float) -> None:
        """Go on under other settings."""
        old = self.policy
        self.policy = policy
        if policy.keepalive != old.keepalive:
            self.keepalive = policy.keepalive
            for slot in self.slots:
                slot.keepalive = self._keepalive()
        if policy.max_lifetime != old.max_lifetime:
            self.lifetime = policy.max_lifetime
            for slot in self.slots:
                slot.expires_at = min(slot.expires_at, now + self._lifetime())
        self._adopt(now)

    def hasten(self, now: float) -> None:
        """Something that upkeep goes by has changed: look at all again."""
        raise NotImplementedError

    # -- experiments --------------------------------------------------------------------------

    def _experiment(self, now: float) -> None:
        """Let one connection at rest try out what is believed, if anything is."""
        self._experiment_at = now + EXPERIMENT_EVERY
        self.learner.forget(now)
        self._adopt(now)
        idle, age = self._believed()
        if len(self.idle) < 2:
            return
        # Who would not ask before lending must not be left with a connection that may be dead.
        if idle is not None and self.policy.verify_after < idle.value:
            length = BEYOND_IDLE * idle.value
            for slot in self.idle:  # the first rests longest, and is lent last
                if slot.expires_at - now > length and not slot.experiment:
                    slot.keepalive, slot.experiment = length, "idle"
                    self.experiments += 1
                    break
        if age is not None and not any(slot.experiment == "age" for slot in self.slots):
            oldest = min(self.idle, key=lambda slot: slot.opened_at)
            if not oldest.experiment:
                oldest.experiment = "age"
                self.experiments += 1

    def _believed(self) -> tuple[Belief | None, Belief | None]:
        """The beliefs that are followed: about the idle cut and about the age."""
        idle, age = self.beliefs()
        return (
            idle if self.keepalive < self.policy.keepalive else None,
            age if self.lifetime < self.policy.max_lifetime else None,
        )

    def _ends_at(self, slot: Slot) -> float:
        """When a connection at rest is to be retired for its age."""
        if slot.experiment == "age":
            _, age = self._believed()
            if age is not None:
                return slot.opened_at + BEYOND_AGE * age.value
        return slot.expires_at

    # -- spreading ----------------------------------------------------------------------------

    def _lifetime(self) -> float:
        self._phase = (self._phase + GOLDEN) % 1.0
        return self.lifetime * (1.0 - LIFETIME_JITTER * self._phase)

    def _keepalive(self) -> float:
        return self.keepalive * (1.0 - KEEPALIVE_JITTER * self._random())


def _differs(value: float, before: float) -> bool:
    if inf in (value, before):
        return value != before
    return abs(value - before) > WORTH_TELLING * before


def _evidence(name: str, belief: Belief, share: float) -> str:
    """Why a setting follows, with the numbers."""
    what = "an idle cut" if name == "keepalive" else "a maximum age"
    after = "silence" if name == "keepalive" else "life"
    lived = f"{belief.outlived} lived longer since" if belief.outlived else "none lived longer"
    deaths, events = belief.deaths, belief.events
    return (
        f"{deaths} connection{'s' * (deaths > 1)} ended ({belief.style}) at {events} separate"
        f" moment{'s' * (events > 1)} after {seconds(round(belief.value, 1))} of {after} or little more, and {lived}: that is"
        f" {what}, and {share:g} of it is safe"
    )
