"""One probe's connection: opened, watched, asked, read to its last words, closed for good."""

from __future__ import annotations

import asyncio
import time
from math import ceil
from traceback import clear_frames
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg.conninfo import make_conninfo

from .. import ping
from ..conninfo import prepare, redact
from ..core.environment import FATAL, FIN, RST, RST_NEXT
from ..core.policy import build
from ..core.slot import Slot
from ..core.verdict import judge_connect
from ..watch import DEAD, Link, Watch
from .observation import TCP

# A server needs milliseconds to end a session that said goodbye; a second is for a slow path.
GONE_WITHIN = 1.0
LOOK_EVERY = 0.005

# Who does not answer does not confirm an end either; the path gets the time to hear of it.
SETTLE = 0.05

# The kernel's least is one second; what is four times in the shortest documented idle cut is often
# enough.
TCP_INTERVAL_MOST = 15.0
TCP_SHARE = 1 / 40

# psycopg gives each host its connect_timeout; this ends what that does not cover, such as names.
PATIENCE = 60.0

if hasattr(time, "CLOCK_BOOTTIME"):

    def clock() -> float:
        """Seconds that go on while the machine is suspended: the path does not wait for it."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

else:  # pragma: no cover
    clock = time.monotonic


class Unreachable(Exception):
    """No connection could be opened; the text is fit to be shown to who gave the conninfo.

    :param kind: what is wrong, in words that name nobody.
    """

    def __init__(self, text: str, kind: str) -> None:
        super().__init__(text)
        self.kind = kind


class Target:
    """How to connect: the user's conninfo, and what each kind of probe adds.

    :param conninfo: a libpq conninfo or URL.
    :param max_idle: the longest that probes are left alone, in seconds.
    """

    def __init__(self, conninfo: str, max_idle: float) -> None:
        self._given = conninfo
        self._conninfo = prepare(conninfo, {}, build(tcp_settings=False))
        self._interval = max(1, ceil(min(TCP_INTERVAL_MOST, TCP_SHARE * max_idle)))

    def settle_on(self, conn: AsyncConnection[Any]) -> None:
        """Go on with the very server that this connection reached."""
        info = conn.info
        where: dict[str, Any] = {"host": info.host, "port": info.port}
        if info.hostaddr:
            where["hostaddr"] = info.hostaddr
        self._conninfo = make_conninfo(self._conninfo, **where)

    async def connect(self, kind: str) -> AsyncConnection[Any]:
        """Open a connection for a probe of that kind.

        :raises Unreachable: it could not be opened.
        """
        # The kernel's own keepalives and user timeout would be activity, and ends, of our making.
        tcp: dict[str, Any] = {"keepalives": 0, "tcp_user_timeout": 0}
        if kind == TCP:
            tcp |= {
                "keepalives": 1,
                "keepalives_idle": self._interval,
                "keepalives_interval": self._interval,
                "keepalives_count": 9,  # the kernel's default
            }
        try:
            async with asyncio.timeout(PATIENCE):
                return await AsyncConnection.connect(
                    make_conninfo(
                        self._conninfo, fallback_application_name="everpool survey", **tcp
                    ),
                    autocommit=True,
                )
        except (psycopg.Error, OSError, TimeoutError, ValueError) as error:
            # psycopg leaves the socket of an unfinished connect in a reference cycle, open until
            # the next garbage collection: it would count.
            clear_frames(error.__traceback__)
            told = str(error) or f"no connection within {PATIENCE:g} s"
            kind = judge_connect(told, connected_before=True).value
            raise Unreachable(redact(told, self._given, {}), kind) from None


class Wire:
    """A probe's connection under the watch."""

    def __init__(self, conn: AsyncConnection[Any], watch: Watch, number: int) -> None:
        self._conn = conn
        self._slot = Slot(number, 0.0, 0)  # the watch tells of links by their slots
        self.link: Link = watch.add(conn.pgconn.socket, self._slot)

    @property
    def dead(self) -> bool:
        return self.link.peek() == DEAD

    @property
    def silence(self) -> float:
        """Seconds since anything was heard on it."""
        return self.link.silence()

    def ask(self) -> bool:
        """Send a ping; False if the connection is over."""
        return ping.send(self._conn, self.link)

    def answer(self) -> ping.Answer:
        """What has come of the ping."""
        return ping.collect(self._conn, self.link)

    def ending(self) -> tuple[str, str, str]:
        """How a dead connection was ended: the style, and SQLSTATE and text where they were said.

        Who resets a connection while it is being asked answers a packet with a reset.
        """
        asked = self.link.pinging
        cause = ping.last_words(self._conn, self.link)
        if cause.style == "FATAL":
            return FATAL, cause.sqlstate, cause.text
        if cause.style == "FIN":
            return FIN, "", ""
        return (RST_NEXT if asked else RST), "", ""

    async def close(self) -> None:
        """Close it, and return when the server has ended its side too, or does not answer."""
        lost = self.link.pinging
        ping.give_up(self._conn, self.link)
        dead = self.dead
        if lost:
            self.link.abort()
        # Says goodbye, and keeps the socket: the duplicate hears the server leave.
        await self._conn.close()
        if lost:
            await asyncio.sleep(SETTLE)
        elif not dead:
            until = clock() + GONE_WITHIN
            while not self.dead and clock() < until:
                await asyncio.sleep(LOOK_EVERY)
        self.link.close()
