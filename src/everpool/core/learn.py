"""What the deaths of connections teach about the path: its idle cut and its maximum age.

Each death of a connection says "somewhere up to here there is a limit", each one that outlived
the same says "not here". Three things make a limit of deaths:

* **Enough of them, and independent.** A reset that a ping finds may be as old as the connection's
  last sign of life, so one restart can kill many connections that are found dead one by one. How
  many events there must have been is the least number of moments that hit every such interval
  ("last heard" to "found dead"). Three are needed; one, if the server said itself what it was.
* **Alike.** What is seen to die at one moment after silences (or at ages) that differ much did not
  die of them. A restart, a failover. Nor does what was busy die of idleness.
* **Not outlived.** A connection that answers after a longer silence speaks against a limit below.
  Each death stands until it has been outlived often; the last that are enough, together, as long
  as most of those that went so far died.

A death that is followed by refused connections belongs to an outage, and is forgotten.
"""

from __future__ import annotations

import re
from bisect import insort
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

# Events needed before a limit is believed: two may be chance, and each costs connections.
ENOUGH = 3

# Deaths so near each other are one event: a mass death is seen within milliseconds, and told late
# by a busy machine.
TOGETHER = 1.0

# How far apart the silences of deaths by one idle cut may be: pings are jittered by a quarter, and
# only bound a silent cut from above. A maximum age is a timer of somebody's, swept now and then.
IDLE_WINDOW = 1.5
AGE_WINDOW = 1.1

# A death that has been outlived so often speaks no more. By silences: in a pool of four, two
# rounds of pings, for where only some of the paths are cut. By ages: nobody outlives a maximum age.
# An experiment made for the purpose counts as several, since only few are made.
MOST_OUTLIVED_SILENCES = 8
MOST_OUTLIVED_AGES = 2
EXPERIMENT = 4

# Where a cut comes and goes, or concerns some paths only, beliefs would come and go with it: each
# time it takes twice as much to refute them, until it takes some 32 hours of experiments.
MOST_PATIENCE = 128

# Connections remembered that lived long: many times what refutes a limit.
MOST_LIVES = 256

# Events remembered for each limit, and for how long: a week sees every cycle of a business.
MOST_EVENTS = 32
FORGOTTEN_AFTER = 7 * 86400.0

# Failed attempts to connect so soon after deaths make an outage of them.
OUTAGE = 10.0

# Below this nothing is learned: cuts so early are faults, not limits. The shortest idle cut in use
# is a minute, the shortest age ten; a pool that follows shorter ones would only reconnect.
LEAST_IDLE = 1.0
LEAST_AGE = 5.0

# A connection says something of age only if it was heard in the second half of its life.
LIVELY = 0.5


@dataclass(slots=True)
class Event:
    """Deaths at one moment. Times are seconds on the core's clock.

    :ivar alive_at: when the last of them was still known to be alive.
    :ivar found_at: when the first was found dead.
    :ivar seen_at: when it was last confirmed.
    :ivar least, most: the shortest and longest silence, or age, that they were known to reach.
    :ivar bound: the silence, or age, by which all of them were dead.
    :ivar age: the age of the youngest of them.
    :ivar style: how they ended, as in `Cause.kind`.
    :ivar deaths: how many.
    :ivar outlived: how often a connection has outlived the least since.
    :ivar declared: the server said itself that this was the reason.
    :ivar counts: one of them may have died of this; otherwise they are only remembered as long as
        others may turn out to have died with them.
    :ivar void: something else ended them.
    """

    alive_at: float
    found_at: float
    seen_at: float
    least: float
    most: float
    bound: float
    age: float
    style: str
    deaths: int = 1
    outlived: int = 0
    declared: bool = False
    counts: bool = True
    void: bool = False

    @property
    def sound(self) -> bool:
        return self.counts and not self.void

    @property
    def exact(self) -> bool:
        """They were seen to die, not found dead."""
        return self.alive_at >= self.found_at

    def add(self, other: Event) -> None:
        """Another death, of the same moment."""
        self.deaths += other.deaths
        self.alive_at = max(self.alive_at, min(other.alive_at, self.found_at))
        self.least, self.most = min(self.least, other.least), max(self.most, other.most)
        self.bound, self.age = max(self.bound, other.bound), min(self.age, other.age)
        self.declared |= other.declared
        self.counts |= other.counts
        self.void |= other.void


@dataclass(frozen=True, slots=True)
class Belief:
    """A limit that is believed in, and the evidence.

    :param value: seconds: the least silence, or age, of the deaths it stands on.
    :param style: how connections end, as in `Cause.kind`.
    :param deaths: how many connections have died of it.
    :param events: at how many independent moments, at least.
    :param outlived: how often a connection lived on beyond it since.
    :param since, last_at: when the first of them was found, and the last was or was confirmed.
    """

    value: float
    style: str
    deaths: int
    events: int
    outlived: int
    since: float
    last_at: float


class Limit:
    """Evidence for one limit."""

    __slots__ = ("_lives", "_most_outlived", "_window", "events", "shortest")

    def __init__(self, window: float, most_outlived: int) -> None:
        self._window = window
        self._most_outlived = most_outlived
        self.events: list[Event] = []  # in the order they were found
        self.shortest = float("inf")  # what must be outlived to speak against any to come
        # Those who lived so long: when, how long, and how much that counts.
        self._lives: deque[tuple[float, float, int]] = deque(maxlen=MOST_LIVES)

    def died(self, event: Event) -> None:
        """Note a death."""
        together = [e for e in self.events if abs(event.found_at - e.found_at) <= TOGETHER]
        for other in reversed(together):
            if other.exact is event.exact and (event.exact or self._alike(other, event)):
                other.add(event)
                other.void |= not self._alike(other, event)
                break
        else:
            if self.events and not together and not self.events[-1].sound:
                self.events.pop()  # its moment is over
            # One that died while lent is told of when it is returned, however late.
            insort(self.events, event, key=lambda e: e.found_at)
            del self.events[:-MOST_EVENTS]
        self._count()

    def _alike(self, one: Event, other: Event) -> bool:
        return max(one.most, other.most) <= self._window * min(one.least, other.least)

    def lived(self, length: float, now: float, weight: int = 1) -> bool:
        """A connection lived so long; whether that refutes anything."""
        if length < self.shortest:
            return False
        self._lives.append((now, length, weight))
        refuted = False
        for event in self.events:
            if event.bound <= length:
                event.outlived += weight
                refuted |= event.outlived > self._most_outlived
        if refuted:
            self.events = [e for e in self.events if e.outlived <= self._most_outlived]
            self._count()
        return refuted

    def confirmed(self, length: float, now: float) -> bool:
        """An experiment ended in death after so long; whether that confirms anything."""
        confirmed = [event for event in self.events if event.bound <= length]
        if confirmed:
            self._lives.clear()
        for event in confirmed:
            event.seen_at, event.outlived = now, max(0, event.outlived - EXPERIMENT)
        return bool(confirmed)

    def forget(self, now: float, *, since: float) -> None:
        """Forget what is too old, and what was found from ``since`` on."""
        oldest = now - FORGOTTEN_AFTER
        self.events = [e for e in self.events if e.found_at < since and e.seen_at >= oldest]
        self._count()

    def withdrawn(self) -> None:
        """What was believed was refuted: should it come back, that will take twice as much."""
        self._most_outlived = min(2 * self._most_outlived, MOST_PATIENCE)

    def load(self, events: list[Event], now: float) -> None:
        """Begin with these."""
        self.events = sorted(events, key=lambda e: e.found_at)
        most = max(self.events, key=lambda e: e.outlived, default=None)
        if most is not None:
            self._lives.append((now, most.bound, most.outlived))
        self.forget(now, since=float("inf"))

    def belief(self, young: float = float("inf"), kept: bool = False) -> Belief | None:
        """The least limit that enough deaths of connections younger than ``young`` agree on.

        :param kept: it is followed already: then only what refutes each death ends it, or a cut
            of some paths only would be believed and doubted in turns.
        """
        sound = [event for event in self.events if event.sound and event.age < young]
        sound.sort(key=lambda event: event.least)
        for index, first in enumerate(sound):
            group = [e for e in sound[index:] if e.least <= self._window * first.least]
            latest = _latest(group)
            if not latest:
                continue
            outlived = self._outlived(latest)
            # Of those that went so far, half at least must have died.
            if kept or outlived <= min(self._most_outlived, sum(e.deaths for e in latest)):
                return Belief(
                    value=min(event.least for event in latest),
                    style=max(group, key=lambda e: e.deaths).style,
                    deaths=sum(event.deaths for event in group),
                    events=_independent(group),
                    outlived=outlived,
                    since=min(event.found_at for event in group),
                    last_at=max(event.seen_at for event in group),
                )
        return None

    def _outlived(self, events: Sequence[Event]) -> int:
        """How often the least of these was outlived since the first of them."""
        since = min(event.found_at for event in events)
        bound = min(event.bound for event in events)
        return sum(weight for at, length, weight in self._lives if at > since and length >= bound)

    def _count(self) -> None:
        least = min((e.bound for e in self.events), default=float("inf"))
        self.shortest = least / self._window


class Learner:
    """What is known of a path's limits, from the connections that died and those that lived."""

    __slots__ = ("age", "idle")

    def __init__(self) -> None:
        self.idle = Limit(IDLE_WINDOW, MOST_OUTLIVED_SILENCES)
        self.age = Limit(AGE_WINDOW, MOST_OUTLIVED_AGES)

    def beliefs(
        self, idle_kept: bool = False, age_kept: bool = False
    ) -> tuple[Belief | None, Belief | None]:
        """The idle cut and the maximum age, as far as they are believed in; see `Limit.belief`."""
        age = self.age.belief(kept=age_kept)
        # What was old enough to die of its age says nothing of its silence.
        young = age.value / AGE_WINDOW if age else float("inf")
        return self.idle.belief(young, idle_kept), age

    def died(
        self,
        *,
        heard_at: float,
        found_at: float,
        silence: float,
        age: float,
        exact: bool,
        lent: bool,
        style: str,
        declared: bool,
    ) -> None:
        """Note the death of a connection.

        :param heard_at: when it was last heard.
        :param found_at: when it was found dead.
        :param silence, age: how long it had been silent and how old it was, at most.
        :param exact: it was seen to die, not found dead.
        :param lent: somebody held it.
        :param declared: the server said that it was cut for being idle.
        """
        alive_at = found_at if exact else heard_at
        # Of one found dead by a ping only the last sign of life is sure.
        lived = age if exact else age - (found_at - heard_at)
        if exact and not lent:
            self.idle.lived(silence / IDLE_WINDOW, found_at)
        self.age.lived(lived / AGE_WINDOW, found_at)
        idle = not lent and silence >= LEAST_IDLE
        believed, _ = self.beliefs()
        lively = lived >= LEAST_AGE and (lent or silence <= LIVELY * age) and not declared
        if idle and believed is not None and silence >= believed.value:
            lively = False  # explained already

        def event(least: float, bound: float, **more: bool) -> Event:
            return Event(alive_at, found_at, found_at, least, least, bound, age, style, **more)

        self.idle.died(event(silence, silence, declared=declared, void=not idle))
        self.age.died(event(lived, age, counts=lively))

    def outage(self, now: float, began_at: float) -> None:
        """An attempt to connect that began then has failed: what died just before died of that."""
        for limit in (self.idle, self.age):
            limit.forget(now, since=began_at - OUTAGE)

    def forget(self, now: float) -> None:
        """Forget what is too old."""
        for limit in (self.idle, self.age):
            limit.forget(now, since=float("inf"))

    def save(self, now: float) -> dict[str, Any]:
        """All evidence as plain data, with times as seconds ago; see `load`."""
        return {
            "version": 1,
            "idle": [_saved(event, now) for event in self.idle.events if event.sound],
            "age": [_saved(event, now) for event in self.age.events if event.sound],
        }

    def load(self, saved: Mapping[str, Any], now: float, elapsed: float = 0.0) -> None:
        """Take over what `save` gave, so many seconds ago, perhaps in another process, and
        `checked` has seen.
        """
        for limit, events in ((self.idle, saved["idle"]), (self.age, saved["age"])):
            limit.load([_loaded(event, now - elapsed) for event in events], now)


def _latest(events: Sequence[Event]) -> list[Event]:
    """The last ones that are enough; none if all together are not."""
    latest: list[Event] = []
    for event in sorted(events, key=lambda e: e.found_at, reverse=True):
        latest.append(event)
        if event.declared or _independent(latest) >= ENOUGH:
            return latest
    return []


def _independent(events: Iterable[Event]) -> int:
    """The least number of moments at which something must have happened to explain these."""
    count, moment = 0, -float("inf")
    for event in sorted(events, key=lambda e: e.found_at):
        if event.alive_at >= moment:
            count, moment = count + 1, event.found_at
    return count


def checked(saved: Any) -> dict[str, Any]:
    """What `Learner.save` gave, and a pool has dated (``saved_at``), from wherever it has been.

    :raises TypeError: it is no mapping.
    :raises ValueError: it is nothing that can be used.
    """
    if not isinstance(saved, Mapping):
        raise TypeError(
            "learn must be True, False, None, or a mapping that findings() of a pool returned,"
            f" not {type(saved).__name__}"
        )
    try:
        if saved["version"] != 1 or isinstance(saved["version"], bool):
            raise ValueError("its version is not known here")
        return {
            "version": 1,
            "saved_at": _number(saved["saved_at"]),
            "idle": [_checked_event(e, LEAST_IDLE) for e in saved["idle"][-MOST_EVENTS:]],
            "age": [_checked_event(e, LEAST_AGE) for e in saved["age"][-MOST_EVENTS:]],
        }
    except (KeyError, TypeError, ValueError, OverflowError) as ex:
        raise ValueError(
            "these are no findings of a pool that can be used, so it begins with nothing"
            f" ({type(ex).__name__}: {str(ex)[:80]!r})"
        ) from None


def _checked_event(saved: Any, least: float) -> dict[str, Any]:
    found: dict[str, Any] = {name: _number(saved[name]) for name in _NUMBERS}
    found.update({name: int(_number(saved[name])) for name in ("deaths", "outlived")})
    found.update(style=saved["style"], declared=saved["declared"] is True)
    in_order = 0 <= found["seen_at"] <= found["found_at"] <= found["alive_at"]
    if not in_order or not least <= found["least"] <= found["most"] <= found["bound"]:
        raise ValueError("its times are in no possible order")
    if found["deaths"] < 1 or found["outlived"] < 0:
        raise ValueError("its counts are not possible")
    if not (isinstance(found["style"], str) and _STYLE(found["style"])):
        raise ValueError("nothing ends like that")
    return found


def _number(value: Any) -> float:
    """:raises TypeError, ValueError: it is no number that a count or a time could be."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("a number is missing")
    if not abs(value) <= MOST_NUMBER:
        raise ValueError("a number is out of range")
    return value


# Seconds since 1970 are less, and so is anything that a pool counts or measures.
MOST_NUMBER = 1e11

# As `Cause.kind` has it.
_STYLE = re.compile(r"FIN|RST|silence|FATAL( [0-9A-Z]{5}| of another kind)?").fullmatch

_TIMES = ("alive_at", "found_at", "seen_at")
_NUMBERS = (*_TIMES, "least", "most", "bound", "age")


def _saved(event: Event, now: float) -> dict[str, Any]:
    plain = asdict(event)
    del plain["counts"], plain["void"]
    return plain | {name: now - plain[name] for name in _TIMES}


def _loaded(saved: Mapping[str, Any], then: float) -> Event:
    return Event(**{**saved, **{name: then - saved[name] for name in _TIMES}})
