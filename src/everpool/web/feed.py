"""One sampler for all who watch, which rests while nobody does.

Five times a second it takes a snapshot of each pool, adds what happened since the one before,
and puts the message into the queue of each client. A client that does not keep up loses its
place, and its browser comes back by itself: nothing piles up here, and nobody waits for anybody.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import signal
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from time import monotonic, time
from typing import Any

from everpool import AsyncConnectionPool, ConnectionPool

from ..events import Happening, Subscription
from ..snapshot import SettingView, Snapshot
from .facts import Json, death_facts, happening_facts, pool_facts, setting_facts

AnyPool = ConnectionPool[Any] | AsyncConnectionPool[Any]

# Seconds between samples: fast enough to look alive. One of ten connections takes 0.2 ms and has
# 2 kB, one of eighty 0.5 ms and 5 kB.
INTERVAL = 0.2

# Messages that a client may be behind: five seconds.
BEHIND = 25

# Happenings kept for those who come later, and the most that one message carries: as many as a
# snapshot remembers.
REMEMBERED = 200

# Seconds. The recent waits are those of the last minute.
WINDOW = 60.0


class Watched:
    """A pool under watch."""

    def __init__(self, pool: AnyPool) -> None:
        self.pool = pool
        self.log: deque[tuple[int, Happening]] = deque(maxlen=REMEMBERED)
        self._fresh: deque[Happening] = deque(maxlen=REMEMBERED)
        self._earlier: deque[Snapshot] = deque()
        self._subscription: Subscription | None = None
        self._sequence = 0

    def begin(self) -> None:
        self._subscription = self.pool.subscribe(self._fresh.append)
        snapshot = self.pool.snapshot()
        self._earlier = deque([snapshot])
        self._note(snapshot.happenings)

    def end(self) -> None:
        if self._subscription is not None:
            self._subscription.close()
        self._earlier.clear()
        self._fresh.clear()

    def sample(self) -> Sample:
        snapshot, health = self.pool.snapshot(), self.pool.health()
        before = self._sequence
        self._note([self._fresh.popleft() for _ in range(len(self._fresh))])
        # One snapshot a second is enough to count a minute by.
        if snapshot.at - self._earlier[-1].at >= 1.0:
            self._earlier.append(snapshot)
        while len(self._earlier) > 1 and snapshot.at - self._earlier[1].at >= WINDOW:
            self._earlier.popleft()
        new = [entry for entry in self.log if entry[0] > before]
        earlier = self._earlier[0]
        return Sample(
            snapshot=snapshot,
            new=new,
            remembered=list(self.log),
            facts=lambda details: pool_facts(snapshot, health, earlier, details),
        )

    def _note(self, happenings: list[Happening]) -> None:
        """Number what is new. The pool's memory and the subscription share their objects."""
        known = {id(happening) for _, happening in self.log}
        for happening in happenings:
            if id(happening) not in known:
                self._sequence += 1
                self.log.append((self._sequence, happening))


@dataclass(frozen=True, slots=True)
class Sample:
    """A pool at one moment, for those with consent and those without."""

    snapshot: Snapshot
    new: list[tuple[int, Happening]]
    remembered: list[tuple[int, Happening]]
    facts: Callable[[bool], Json]

    def change(self, details: bool) -> Json:
        return self.facts(details) | {"happenings": _told(self.new, details)}

    def whole(self, details: bool) -> Json:
        snapshot = self.snapshot
        return self.facts(details) | {
            "happenings": _told(self.remembered, details),
            "ended": [death_facts(death, snapshot.at) for death in snapshot.deaths],
            "settings": setting_facts(snapshot.settings),
        }


class Client:
    """One who watches: a bounded queue of messages; None is the end."""

    def __init__(self, details: bool) -> None:
        self.details = details
        self.queue: asyncio.Queue[str | None] = asyncio.Queue(BEHIND)

    def offer(self, message: str) -> None:
        try:
            self.queue.put_nowait(message)
        except asyncio.QueueFull:
            self.drop()

    def drop(self) -> None:
        while not self.queue.empty():
            self.queue.get_nowait()
        self.queue.put_nowait(None)


class Feed:
    """See the module. Belongs to one event loop."""

    def __init__(
        self, pools: tuple[AnyPool, ...], note: str, is_ending: Callable[[], bool]
    ) -> None:
        self.clients: set[Client] = set()
        self._watched = [Watched(pool) for pool in pools]
        self._note = note
        self._is_ending = is_ending
        # Tells a page whether it still talks to the same process.
        self._generation = secrets.token_hex(4)
        self._count = 0
        self._settings: list[list[SettingView]] = []
        self._task: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        return self._task is not None

    def join(self, client: Client) -> None:
        """Begin to tell a client; the first thing that it is told is everything."""
        if self._task is None:
            for watched in self._watched:
                watched.begin()
            self._task = asyncio.get_running_loop().create_task(self._run())
        samples = self._take(only_news=True)
        about = {
            "generation": self._generation,
            "details": client.details,
            "note": self._note,
            "interval": INTERVAL,
            "pools": [sample.whole(client.details) for sample in samples],
        }
        self.clients.add(client)
        client.offer(self._message("hello", about))

    def leave(self, client: Client) -> None:
        self.clients.discard(client)
        if not self.clients and self._task is not None:
            self._task.cancel()
            self._task = None
            for watched in self._watched:
                watched.end()

    def drop_all(self) -> None:
        """End all streams."""
        for client in list(self.clients):
            client.drop()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL)
            if self._is_ending():
                self.drop_all()
            else:
                self._take()

    def _take(self, only_news: bool = False) -> list[Sample]:
        """Take a sample of each pool, and tell all clients.

        :param only_news: not if there is nothing that the next sample would not have as well. Or
            who comes with many others at once, after a restart, would be sent a message for each
            of them before it can read one, and lose its place.
        """
        samples = [watched.sample() for watched in self._watched]
        settings = [sample.snapshot.settings for sample in samples]
        changed = settings != self._settings
        if only_news and not changed and not any(sample.new for sample in samples):
            return samples
        self._settings = settings
        messages: dict[bool, str] = {}
        for client in list(self.clients):
            details = client.details
            if details not in messages:
                tell = Sample.whole if changed else Sample.change
                pools = [tell(sample, details) for sample in samples]
                messages[details] = self._message("tick", {"pools": pools})
            client.offer(messages[details])
        return samples

    def _message(self, event: str, data: Json) -> str:
        self._count += 1
        name = f"{self._generation}-{self._count}"
        # JSON of one line, so that nothing in it can begin another field or message.
        return f"id: {name}\nevent: {event}\ndata: {to_json(clocks() | data)}\n\n"


def _told(happenings: list[tuple[int, Happening]], details: bool) -> list[Json]:
    return [happening_facts(number, happening, details) for number, happening in happenings]


def picture(pools: tuple[AnyPool, ...], details: bool) -> Json:
    """All pools at this moment, without watching them."""
    found = []
    for pool in pools:
        snapshot = pool.snapshot()
        remembered = list(enumerate(snapshot.happenings, 1))
        facts = partial(pool_facts, snapshot, pool.health(), snapshot)
        found.append(Sample(snapshot, [], remembered, facts).whole(details))
    return clocks() | {"details": details, "pools": found}


def clocks() -> Json:
    """The pool's clock, and the one on the wall, at this moment."""
    return {"at": round(monotonic(), 4), "wall": round(time(), 4)}


def to_json(data: Json) -> str:
    return json.dumps(data, allow_nan=False, separators=(",", ":"))


def server_is_ending() -> bool:
    """uvicorn waits for all open responses before it tells the application that it ends.

    A stream has no end, so an open page would hold up each restart. uvicorn is known here by
    its signal handler, a method of the server.
    """
    handler = signal.getsignal(signal.SIGTERM)
    return getattr(getattr(handler, "__self__", None), "should_exit", False) is True
