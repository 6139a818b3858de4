"""Which findings become alerts, and when a notice is due. Pure: time is an argument.

An alert is *pending* from when its condition is found, *firing* once that has lasted for the
condition's ``after``, and *resolved* once the condition has been gone for its ``clear``. What
comes back earlier never left. Notices tell of all that changed since the last one; between two
of them lies `group_interval` at least, whatever happens.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from math import inf

from .conditions import Condition, Finding
from .notice import Alert, Notice

Key = tuple[Hashable, str]


@dataclass(slots=True)
class _Track:
    """One condition of one pool, from its first finding until it is resolved."""

    pool: str
    condition: Condition
    finding: Finding
    since: float
    firing: bool = False
    told: bool = False
    clear_since: float | None = None

    def due(self) -> float:
        """When time alone changes something."""
        if not self.firing:
            return self.since + self.condition.after
        return inf if self.clear_since is None else self.clear_since + self.condition.clear

    def alert(self, details: bool, ended: float | None = None) -> Alert:
        return Alert(
            pool=self.pool,
            condition=self.condition.name,
            severity=self.condition.severity,
            title=self.condition.title,
            summary=self.finding.summary,
            advice=self.finding.advice,
            detail=self.finding.detail if details else "",
            started=self.since,
            ended=ended,
            new=not self.told,
        )


class Engine:
    """The alerts of several pools. Times are seconds.

    :param group_wait: a notice waits so long for other alerts to join it.
    :param group_interval: the least time between two notices.
    :param repeat_every: a notice is repeated so long after the last one, while anything fires.
    :param details: whether alerts carry their findings' `detail`.
    """

    def __init__(
        self, *, group_wait: float, group_interval: float, repeat_every: float, details: bool
    ) -> None:
        self._group_wait = group_wait
        self._group_interval = group_interval
        self._repeat_every = repeat_every
        self._details = details
        self._tracks: dict[Key, _Track] = {}
        self._ended: dict[Key, tuple[_Track, float]] = {}
        self._changed_at: float | None = None  # the first change not told yet
        self._last = -inf
        self._count = 0

    def update(
        self, now: float, pool: Hashable, name: str, condition: Condition, finding: Finding | None
    ) -> None:
        """Say what a condition finds now in a pool, which people know by ``name``."""
        key = (pool, condition.name)
        track = self._tracks.get(key)
        if finding is not None:
            if track is None:
                track = self._tracks[key] = _Track(name, condition, finding, now)
            track.finding, track.clear_since = finding, None
            if not track.firing and now >= track.due():
                self._fire(now, key, track)
        elif track is not None:
            if not track.firing:
                del self._tracks[key]
                return
            if track.clear_since is None:
                track.clear_since = now
            if now >= track.due():
                del self._tracks[key]
                self._ended[key] = (track, track.clear_since)
                self._note_change(now)

    def _fire(self, now: float, key: Key, track: _Track) -> None:
        track.firing = True
        if key in self._ended:
            # It came back before anybody was told that it had gone: the same alert goes on.
            before, _ = self._ended.pop(key)
            track.since, track.told = before.since, before.told
        if not track.told:
            self._note_change(now)

    def _note_change(self, now: float) -> None:
        if self._changed_at is None:
            self._changed_at = now

    def forget(self, pool: Hashable) -> None:
        """The pool is no more. That resolves nothing, so nobody is told."""
        self._tracks = {key: track for key, track in self._tracks.items() if key[0] != pool}
        self._ended = {key: ended for key, ended in self._ended.items() if key[0] != pool}

    def firing(self) -> tuple[Alert, ...]:
        """What fires, the worst first."""
        alerts = [t.alert(self._details) for t in self._tracks.values() if t.firing]
        return tuple(sorted(alerts, key=lambda alert: (alert.severity, alert.started)))

    def pending(self) -> tuple[Alert, ...]:
        """What will fire unless it passes."""
        return tuple(t.alert(self._details) for t in self._tracks.values() if not t.firing)

    @property
    def due(self) -> float:
        """When to `update` all and ask for a `notice` next, if nothing happens."""
        return min([self._notice_due(), *(track.due() for track in self._tracks.values())])

    def _notice_due(self) -> float:
        if self._changed():
            assert self._changed_at is not None
            return max(self._changed_at + self._group_wait, self._last + self._group_interval)
        if any(track.firing for track in self._tracks.values()):
            return self._last + self._repeat_every
        return inf

    def _changed(self) -> bool:
        untold = any(track.firing and not track.told for track in self._tracks.values())
        if not untold and not self._ended:
            self._changed_at = None
        return self._changed_at is not None

    def notice(self, now: float) -> Notice | None:
        """The notice that is due, or None. What it tells counts as told."""
        if now < self._notice_due():
            return None
        resolved = [track.alert(self._details, ended) for track, ended in self._ended.values()]
        notice = replace(self.present(now), resolved=tuple(resolved), repeated=not self._changed())
        for track in self._tracks.values():
            track.told = track.told or track.firing
        self._ended.clear()
        self._changed_at, self._last = None, now
        self._count += 1
        return notice

    def present(self, now: float) -> Notice:
        """All that fires now, for those who want it again and again. It counts as no notice."""
        return Notice(id=str(self._count + 1), at=now, firing=self.firing(), resolved=())
