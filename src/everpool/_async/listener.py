"""Listening for notifications, across the deaths of connections.

Nothing is lost unknowingly: on each new connection the listener LISTENs, and yields a `Gap` before
anything that came on it. A silent death is noticed by a heartbeat: the listener notifies itself on
a channel of its own, and what has been sent before that must have arrived before it.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncIterator
from secrets import token_hex
from threading import Lock
from time import monotonic
from types import TracebackType
from typing import Any, Self

import psycopg

from ..clock import time_awake_or_not
from ..core.events import ListenerGap
from ..core.gap import Gap
from ..errors import PoolClosed, PoolTimeout, TooManyRequests
from ..runtime import aio as rt
from .listening import FAILURES, AsyncListening

logger = logging.getLogger("everpool")

# Few paths cut a connection that is silent for less, and it costs the server nothing.
HEARTBEAT = 15.0

# A server that stalls at a checkpoint, or whose queue of notifications is locked by others, is
# not dead. Who asks for a shorter heartbeat wants to know sooner.
ANSWER_LIMIT = 5.0

# Between two attempts to listen: the pool paces its connects itself, but refuses at once.
RETRY_PAUSE = 1.0
RETRY_PAUSE_MOST = 5.0

# A loop that listens within this time of its beginning has no gap to tell of.
START_GRACE = 1.0

# PostgreSQL cuts longer names.
LONGEST_NAME = 63


class AsyncListener(AsyncIterator["psycopg.Notify | Gap"]):
    """What ``pool.listen()`` returns: an iterator over `psycopg.Notify` and `Gap`.

    Also a context manager. Entering it waits until the server has the LISTEN, so that what is read
    from tables inside misses nothing; leaving it gives the connection back at once. A loop without
    it gives the connection back when it is interrupted while it waits, or when the listener is
    collected.
    """

    def __init__(self, pool: Any, channels: tuple[str, ...], heartbeat: float) -> None:
        self._listening: AsyncListening | None = None
        if not channels:
            raise ValueError("listen() needs the name of a channel")
        for name in channels:
            if not name or "\0" in name or len(name.encode()) > LONGEST_NAME:
                raise ValueError(f"no name of a channel: {name!r} (1 to {LONGEST_NAME} bytes)")
        if not heartbeat > 0:
            raise ValueError(f"heartbeat must be positive seconds, or inf: {heartbeat!r}")
        self.ear = rt.Ear()
        self._pool = pool
        self._channels = tuple(dict.fromkeys(channels))
        self._private = f"everpool_{token_hex(8)}"
        self._heartbeat = heartbeat
        self._busy = Lock()  # held by who iterates or closes; nobody ever waits for it
        self._kept = False  # inside `with`: an interruption leaves the connection to its end
        self._over = False
        self._ready: deque[psycopg.Notify | Gap] = deque()
        self._warned = ""
        self._lost = ""  # why a Gap is due, if one is
        self._listened = False
        # On the clock that does not stop in suspend: when the last heartbeat was sent that came
        # back, so that all that was sent before has come; and when the next is due.
        self._sound_at: float | None = None
        self._beat_at = 0.0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> psycopg.Notify | Gap:
        """The next notification, or a `Gap`.

        :raises StopAsyncIteration: the listener or the pool has been closed.
        :raises psycopg.NotSupportedError: a pooler in transaction mode is on the way.
        :raises psycopg.Error: the server refuses the first LISTEN.
        :raises PoolClosed: the pool is not open when it begins.
        """
        self._claim()
        try:
            if self._sound_at is None:
                self._sound_at = time_awake_or_not()
            while not self._ready:
                if not await self._go_on():
                    raise StopAsyncIteration
            return self._ready.popleft()
        except BaseException as ex:
            if not self._kept or isinstance(ex, StopAsyncIteration):
                await self._leave("the iteration was interrupted")
            raise
        finally:
            await self._release()

    async def __aenter__(self) -> Self:
        self._claim()
        try:
            while not self._listened and await self._go_on():
                pass
            self._kept = True
        except BaseException:
            await self._leave("interrupted")
            raise
        finally:
            await self._release()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End, and give the connection back; from elsewhere too: who waits for the next is done."""
        self._over = True
        self.ear.ring()
        if self._busy.acquire(blocking=False):  # else who iterates sees to it
            try:
                await self._leave("closed")
                self._ready.clear()
            finally:
                self._busy.release()

    def __del__(self) -> None:
        # This may run anywhere: only note it.
        if self._listening is not None and not self._pool._closed:
            self._pool._forsaken.append(self._listening)
            self._pool._watch.ring()

    def _claim(self) -> None:
        if not self._busy.acquire(blocking=False):
            raise RuntimeError("somebody else waits for this listener: let each have its own")

    async def _release(self) -> None:
        self._busy.release()
        if self._over and self._listening is not None:
            await self.aclose()  # it came while we were busy

    async def _leave(self, why: str) -> None:
        listening = self._listening
        if listening is None:
            return
        self._lost = why
        try:
            await listening.give_back()
        finally:
            self._listening = None
            self._ready.extend(listening.collect())

    # -- the steps ----------------------------------------------------------------------------

    async def _go_on(self) -> bool:
        """Take one step; False if it is over."""
        if self._over or self.ear.rung:
            return False
        if self._listening is None:
            await self._begin()
        else:
            await self._hear(self._listening)
        return True

    async def _begin(self) -> None:
        """Listen on another connection; return without one if that must be tried again."""
        conn = await self._borrow()
        if conn is None:
            return
        limit = min(self._heartbeat, ANSWER_LIMIT)
        sent_at = time_awake_or_not()
        listening = AsyncListening(self._pool, conn, self._channels, self._private, limit, self.ear)
        try:
            await listening.begin()
        except FAILURES as ex:
            refused = listening.idle
            why = listening.give_up(ex)
            if isinstance(ex, psycopg.NotSupportedError) or (refused and not self._listened):
                self._over = True
                raise
            self._lost = self._lost or why
            if refused:
                self._warn(f"cannot listen: {why}")
                await self.ear.listen(None, RETRY_PAUSE)
            return
        except BaseException as ex:
            listening.give_up(ex)
            raise
        self._listening = listening
        now = time_awake_or_not()
        if self._sound_at is not None:
            if not self._listened and now - self._sound_at > START_GRACE:
                self._lost = self._lost or "listening began late"
            if self._lost:
                self._tell(Gap(now - self._sound_at, self._lost))
        self._lost, self._listened = "", True
        self._sound(listening, sent_at)
        self._ready.extend(listening.collect())

    async def _borrow(self) -> Any:
        pool = self._pool
        if not self._listened:
            pool._usable()  # never opened, or another loop's: that is a mistake to tell of
        try:
            return await pool._lend(None)  # the pool's deadline is not meant for it
        except PoolClosed:
            self._over = True
        except (PoolTimeout, TooManyRequests) as ex:
            pause = getattr(ex, "retry_after", 0.0)
            self._lost = self._lost or "no connection could be had"
            await self.ear.listen(None, min(max(pause, RETRY_PAUSE), RETRY_PAUSE_MOST))
        return None

    async def _hear(self, listening: AsyncListening) -> None:
        """Wait until something has come, or a heartbeat is due."""
        try:
            now = time_awake_or_not()
            await listening.wait(self._beat_at - now)
            if now >= self._beat_at:
                await listening.beat()
                self._sound(listening, now)
        except FAILURES as ex:
            self._ready.extend(listening.collect())  # what has come is told before the gap
            self._listening, self._warned = None, ""
            self._lost = listening.give_up(ex)
            if isinstance(ex, psycopg.NotSupportedError):
                self._over = True
                raise
        self._ready.extend(listening.collect())

    def _sound(self, listening: AsyncListening, sent_at: float) -> None:
        """Our own notification has come back."""
        self._sound_at, self._beat_at = sent_at, time_awake_or_not() + self._heartbeat
        if not listening.proven and not self.ear.rung:
            self._warn("a pooler is on the way, and no second connection to try its mode with")

    # -- telling ------------------------------------------------------------------------------

    def _tell(self, gap: Gap) -> None:
        self._ready.append(gap)
        pool = self._pool
        with pool._mutex:
            pool._machine._tell(ListenerGap(monotonic(), gap.seconds, gap.why))
        pool._perform()

    def _warn(self, text: str) -> None:
        if text != self._warned:
            self._warned = text
            logger.warning("pool %r: a listener: %s", self._pool.name, text)
