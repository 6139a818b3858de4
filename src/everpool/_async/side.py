"""The connection beside the pools': one for each place that they lead to, shared by all of them.

Shared by all pools of threads of a process, and by all pools of one event loop. It goes with the pool
that made it: whoever has closed his pool does not expect its role in his database any more, which he
might want to drop. The others make another one when they need it. Between, it is the one's whose
**turn** it is: only he makes it, asks on it, closes it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable
from threading import RLock
from time import monotonic
from typing import Any
from weakref import WeakSet, ref

from ..runtime import aio as rt
from .jobs import close_unowned

# Who waits for his turn looks so often: a question takes a few milliseconds, and two pools rarely
# ask at once.
STEP = 0.01


class Side:
    """
    :ivar place: by which others find it; None if they are not to.
    :ivar how: what the connection was made with.
    :ivar conn: None if there is none at the moment.
    :ivar taken: it is somebody's turn.
    """

    __slots__ = ("__weakref__", "_maker", "conn", "how", "place", "pools", "taken")

    def __init__(self, place: Hashable) -> None:
        self.place = place
        self.how: Hashable = None
        self.conn: Any = None
        self._maker: ref[Any] | None = None
        self.taken = False
        self.pools: WeakSet[Any] = WeakSet()

    async def take(self, seconds: float, unwanted: Callable[[], bool]) -> bool:
        """Wait so long for the turn, which must be given back; False if it did not come."""
        limit = monotonic() + seconds
        while True:
            with _lock:
                free, conn = not self.taken, self._left_behind()
                if free:
                    self.taken = True
            close_unowned(conn)
            if free:
                return True
            if monotonic() >= limit or unwanted():
                return False
            await rt.sleep(STEP)

    def made(self, conn: Any, how: Hashable, pool: Any) -> None:
        """A new connection, made in our turn."""
        self.conn, self.how, self._maker = conn, how, ref(pool)

    def give_back(self) -> None:
        with _lock:
            self.taken = False
            conn = self._left_behind()
        close_unowned(conn)

    def leave(self, pool: Any) -> None:
        """Share it no more."""
        with _lock:
            self.pools.discard(pool)
            conn = self._left_behind()
        close_unowned(conn)

    def _left_behind(self) -> Any:
        """What is to be closed: a connection that nobody uses, and whose maker has left."""
        maker = self._maker and self._maker()
        if self.taken or (maker is not None and maker in self.pools):
            return None
        conn, self.conn = self.conn, None
        return conn

    def drop(self) -> None:
        """Close the connection, in our turn: it is of no use any more."""
        conn, self.conn = self.conn, None
        close_unowned(conn)


# Of all sides; loops in several threads share the module. Reentrant: the collector may run under it,
# and find a task of a loop that is gone, which gives its turn back.
_lock = RLock()
_sides: WeakSet[Side] = WeakSet()


def join(place: Hashable, pool: Any) -> Side:
    """Share the one at this place, or begin one."""
    with _lock:
        side = next((side for side in _sides if side.place == place), None)
        if side is None:
            side = Side(place)
            _sides.add(side)
        side.pools.add(pool)
    return side


def _after_fork() -> None:
    global _lock, _sides
    _lock, _sides = RLock(), WeakSet()


os.register_at_fork(after_in_child=_after_fork)
