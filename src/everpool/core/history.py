"""The histories of the servers met, and which of them is no longer believed.

Each promotion begins a new *timeline*. A server on an older timeline than one that still answers
is an old primary that does not know it was replaced: what is written there is lost. One that is
older than what was *last* seen, long after that fell silent, is what a restore from a backup looks
like; refusing it for ever would keep the pool down until somebody restarts the program.
"""

from __future__ import annotations

from dataclasses import dataclass

from .incarnation import Incarnation

# An older timeline is refused for so long after the newer one was last heard: longer than a
# failover takes (half a minute, the slow ones a minute), shorter than a restore.
MEMORY = 60.0

# Behind one name live one or two systems; the bound is for names that give a new one each time.
MOST_SYSTEMS = 8


@dataclass(slots=True)
class Life:
    """One system: the newest incarnation seen, and when one of that timeline was last heard."""

    newest: Incarnation
    heard_at: float


@dataclass(frozen=True, slots=True)
class Change:
    """Another history than before answers; ``why`` as in `ServerChanged`."""

    before: Incarnation
    after: Incarnation
    why: str


class History:
    """What is remembered of the servers met. Standbys are none of its concern: timeline 0."""

    __slots__ = ("_latest", "_lives")

    def __init__(self) -> None:
        self._lives: dict[int, Life] = {}  # by system identifier
        self._latest: Incarnation | None = None  # whom the last new connection led to

    def is_news(self, incarnation: Incarnation) -> bool:
        """Whether `meet` will do more than note that this incarnation answers."""
        return incarnation != self._latest

    def outdated(self, incarnation: Incarnation) -> bool:
        """Whether a newer timeline of the same system has taken its place."""
        life = self._lives.get(incarnation.system)
        return life is not None and 0 < incarnation.timeline < life.newest.timeline

    def newer(self, incarnation: Incarnation) -> bool:
        """Whether it is of a newer timeline than the one believed in."""
        life = self._lives.get(incarnation.system)
        return life is not None and incarnation.timeline > life.newest.timeline

    def heard(self, incarnation: Incarnation, at: float) -> None:
        """A connection to this incarnation was heard at this time."""
        life = self._lives.get(incarnation.system)
        if life is not None and incarnation.timeline == life.newest.timeline:
            life.heard_at = max(life.heard_at, at)

    def refusal(self, incarnation: Incarnation, now: float) -> str:
        """Why this incarnation is not believed now; empty if it is."""
        if not self.outdated(incarnation):
            return ""
        life = self._lives[incarnation.system]
        silent = now - life.heard_at
        if silent >= MEMORY:
            return ""
        return (
            f"the server is on timeline {incarnation.timeline}, but one on timeline"
            f" {life.newest.timeline} of the same system answered {silent:.1f} s ago: an old"
            f" primary that was replaced? It is accepted in {MEMORY - silent:.0f} s, unless the"
            " newer one is heard again"
        )

    def meet(self, incarnation: Incarnation, now: float) -> Change | None:
        """Believe an incarnation that is not refused; return what has changed, if anybody
        should hear of that. A restart of the same server is no change."""
        lives, latest = self._lives, self._latest
        life = lives.get(incarnation.system)
        before, why = latest, ""
        if life is not None and incarnation.timeline != life.newest.timeline:
            before = life.newest
            why = "promotion" if incarnation.timeline > before.timeline else "older timeline"
        elif latest is not None and incarnation.system != latest.system:
            # Two systems that answer in turns behind one name are told of once.
            fresh = life is None or now - life.heard_at >= MEMORY
            why = "other system" if fresh else ""
        self._latest = incarnation
        lives[incarnation.system] = Life(incarnation, now)
        if len(lives) > MOST_SYSTEMS:
            del lives[min(lives, key=lambda system: lives[system].heard_at)]
        if why and before is not None:
            return Change(before, incarnation, why)
        return None

    def slept(self, seconds: float) -> None:
        """So much time went by unseen."""
        for life in self._lives.values():
            life.heard_at -= seconds
