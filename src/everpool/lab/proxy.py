"""A TCP proxy that knows PostgreSQL's messages and breaks connections as environments do.

    with PostgresServer() as server, FaultProxy(server.host, server.port) as proxy:
        conn = psycopg.connect(proxy.via(server.dsn))
        proxy.cut(RST)                                   # now
        proxy.idle_cut(5.0, SILENCE)                     # by the clock
        proxy.on(COMMIT, CutAfter(FIN))                  # by the message

The proxy runs in an event loop and a thread of its own, also when used from asyncio: a fault then
comes on time while the loop under test is busy, stalled or closed, and the same calls serve threads
and tasks. All methods are plain functions, may be called from any thread and return when what they
say has been done, after some tens of microseconds. What waits comes in two kinds,
:meth:`FaultProxy.wait` and :meth:`FaultProxy.wait_async`.

It is a proxy: it acknowledges what it swallows. For packets that vanish unacknowledged see
:mod:`everpool.lab.netns`. TLS passes through unread; on such a connection only the faults that need
no message work.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit, urlunsplit

from everpool.lab.clocks import AgeCut, Heartbeat, IdleCut
from everpool.lab.faults import FIN, Action, Direction, Message, Style
from everpool.lab.loopthread import LoopThread
from everpool.lab.relay import LinkInfo, Relay, Stats
from everpool.lab.rules import Rule

__all__ = ["FaultProxy"]

_T = TypeVar("_T")


class FaultProxy:
    """A proxy in front of one server; a context manager, ``with`` and ``async with`` alike.

    *port* 0 chooses a free port, which the proxy keeps until it is closed, also while it refuses
    connections.

    In all methods *link* selects one connection by its number (see :meth:`links` and :meth:`find`)
    and raises
    :class:`LookupError` if it is gone. Without it, the method means every live connection and,
    where it sets how things are from now on, every new one as well. Styles may be given as text,
    such as ``"fatal:57P05"``. Times are in seconds.
    """

    def __init__(
        self,
        target_host: str = "127.0.0.1",
        target_port: int = 5432,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.host = host
        self.port = port
        self._target = (target_host, target_port)
        self._thread: LoopThread | None = None
        self._relay: Relay | None = None
        self._last_stats = Stats()
        self._changed = threading.Condition()
        self._version = 0

    # -- Life ----------------------------------------------------------------------------------

    def start(self) -> Self:
        """Begin to listen. Raises :class:`OSError` when the port is taken."""
        if self._thread is not None:
            raise RuntimeError("the proxy is started already")
        thread = LoopThread("everpool-lab-proxy")
        try:
            self._relay = thread.call(
                Relay, thread.loop, self.host, self.port, self._target, self._note_change
            )
        except BaseException:
            thread.stop()
            raise
        self._thread = thread
        self.port = self._relay.port
        return self

    def close(self) -> None:
        """Close every connection and the listener; does nothing when closed.

        :meth:`stats` keeps its last answer. Raises what a callback of the proxy, or a rule's
        predicate, raised while it ran.
        """
        thread, self._thread = self._thread, None
        relay, self._relay = self._relay, None
        if thread is not None and relay is not None:
            self._last_stats = thread.call(relay.stats)
            thread.call(relay.close)
            thread.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self.start()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def via(self, conninfo: str) -> str:
        """Return *conninfo*, an address or ``key=value`` pairs, led through this proxy."""
        if "://" not in conninfo:
            # Of two equal keys, the later one counts.
            return f"{conninfo} host={self.host} port={self.port}"
        parts = urlsplit(conninfo)
        user, at, _ = parts.netloc.rpartition("@")
        host = f"[{self.host}]" if ":" in self.host else self.host
        return urlunsplit(parts._replace(netloc=f"{user}{at}{host}:{self.port}"))

    # -- Faults of the moment ------------------------------------------------------------------

    def cut(self, style: Style | str = FIN, *, link: int | None = None) -> int:
        """Cut now; return how many connections were cut. New ones are not concerned."""
        return self._do(lambda relay: relay.cut(_style(style), link))

    def inject(self, data: bytes, *, link: int | None = None) -> None:
        """Deliver messages to clients as if the server had sent them, between two of its own.

        ``error_response("57P05", "…") + ready_for_query()`` of :mod:`everpool.lab.frames` is a
        FATAL that ends nothing. Without *link*, clients in the middle of their login are left out.
        """
        self._do(lambda relay: relay.inject(data, link))

    # -- How things are from now on ------------------------------------------------------------

    def refuse(self) -> None:
        """Close the listener: connects are refused. Live connections go on."""
        self._do(Relay.refuse)

    def accept(self) -> None:
        """Listen again, on the same port."""
        self._do(Relay.accept)

    def hang(self) -> None:
        """Accept new connections and answer none, until :meth:`heal`.

        Those still waiting by then are connected.
        """
        self._do(Relay.hang)

    def silence(self, *, late: bool = False, link: int | None = None) -> None:
        """Acknowledge everything and deliver nothing, until :meth:`heal`; new connections hang.

        What is swallowed is lost, unless *late*: then it is delivered on healing, as after a short
        loss of the network that retransmission repairs. For a silence that concerns only live
        connections, and is recorded as a cut, use ``cut(SILENCE)``.
        """
        self._do(lambda relay: relay.silence(late, link))

    def heal(self, *, link: int | None = None) -> None:
        """End every silence, hang, refusal, latency, drip and byte limit. Rules and clocks stay."""
        self._do(lambda relay: relay.heal(link))

    def latency(
        self,
        seconds: float,
        *,
        jitter: float = 0.0,
        direction: Direction = "both",
        link: int | None = None,
    ) -> None:
        """Deliver each piece *seconds* later, plus up to *jitter*, in order, at any throughput.

        ``both`` means that much each way: a round trip takes twice as long.
        """
        self._do(lambda relay: _change_road(relay, direction, link, latency=seconds, jitter=jitter))

    def drip(
        self,
        count: int,
        every: float,
        *,
        direction: Direction = "to_client",
        link: int | None = None,
    ) -> None:
        """Deliver no more than *count* bytes every *every* seconds; 0 bytes lifts the limit."""
        self._do(
            lambda relay: _change_road(relay, direction, link, drip_bytes=count, drip_every=every)
        )

    def cut_at_byte(
        self,
        count: int,
        style: Style | str = FIN,
        *,
        direction: Direction = "to_client",
        link: int | None = None,
    ) -> None:
        """Cut when *count* more bytes were delivered in *direction*.

        New connections count from their first byte.
        """
        self._do(lambda relay: relay.set_fuse(count, _style(style), direction, link))

    def idle_cut(
        self, after: float | None, style: Style | str = FIN, *, link: int | None = None
    ) -> None:
        """Cut a connection without a byte either way for *after* seconds; ``None`` ends that."""
        rule = None if after is None else IdleCut(after, _style(style))
        self._do(lambda relay: relay.set_idle(rule, link))

    def age_cut(
        self,
        after: float | None,
        style: Style | str = FIN,
        *,
        between_requests: bool = False,
        link: int | None = None,
    ) -> None:
        """Cut a connection *after* seconds after it was accepted, however busy; ``None`` ends that.

        With *between_requests*, one with a login, request or transaction in hand is cut as soon as
        that is done.
        """
        rule = None if after is None else AgeCut(after, _style(style), between_requests)
        self._do(lambda relay: relay.set_age(rule, link))

    def heartbeat(
        self,
        every: float | None,
        name: str = "application_name",
        value: str = "",
        *,
        link: int | None = None,
    ) -> None:
        """Send clients a ParameterStatus unasked, every *every* seconds; ``None`` ends that."""
        rule = None if every is None else Heartbeat(every, name, value)
        self._do(lambda relay: relay.set_heartbeat(rule, link))

    def retarget(self, host: str, port: int) -> None:
        """Lead new connections to another server, as a failover behind a name does."""
        self._target = (host, port)
        self._do(lambda relay: setattr(relay, "target", (host, port)))

    def on(
        self,
        message: Message,
        action: Action,
        *,
        link: int | None = None,
        skip: int = 0,
        times: int | None = 1,
    ) -> Rule:
        """Act when *message* comes by.

        The first *skip* ones pass, then *times* are acted on (``None``: all). When several rules
        match, the oldest acts alone.
        """
        rule = self._do(lambda relay: relay.add_rule(message, action, link, skip, times))
        rule.on_release = lambda: self._do(lambda relay: relay.release(rule))
        rule.on_remove = lambda: self._do(lambda relay: relay.remove_rule(rule))
        return rule

    # -- What happened -------------------------------------------------------------------------

    def stats(self) -> Stats:
        """Return the counts and cuts so far."""
        return self._last_stats if self._relay is None else self._do(Relay.stats)

    def links(self) -> list[LinkInfo]:
        """Return the connections whose client has not gone, in the order they came."""
        return self._do(Relay.infos)

    def find(self, *, backend_pid: int | None = None, client_port: int | None = None) -> int:
        """Return the number of the connection with this backend, or from this port of the client.

        Raises :class:`LookupError`.
        """
        for info in self.links():
            if (backend_pid is None or info.backend_pid == backend_pid) and client_port in (
                None,
                info.client_port,
            ):
                return info.number
        raise LookupError(
            f"no open connection with backend_pid={backend_pid}, client_port={client_port}"
        )

    def wait(self, condition: Callable[[Stats], bool], timeout: float = 10.0) -> Stats:
        """Block until *condition* holds, and return the stats it held for.

        Raises :class:`TimeoutError` after *timeout* seconds.
        """
        deadline = time.monotonic() + timeout
        seen = -1

        def news() -> bool:
            return self._version != seen

        while True:
            seen = self._version
            stats = self.stats()
            if condition(stats):
                return stats
            with self._changed:
                if not self._changed.wait_for(news, deadline - time.monotonic()):
                    raise TimeoutError(f"not within {timeout:g} s: {stats}")

    async def wait_async(self, condition: Callable[[Stats], bool], timeout: float = 10.0) -> Stats:
        """As :meth:`wait`, for tasks; *condition* runs in another thread."""
        return await asyncio.to_thread(self.wait, condition, timeout)

    # -- Inside --------------------------------------------------------------------------------

    def _do(self, act: Callable[[Relay], _T]) -> _T:
        if self._thread is None or self._relay is None:
            raise RuntimeError("the proxy is not running")
        relay = self._relay

        def caught_up() -> _T:
            relay.catch_up()
            return act(relay)

        return self._thread.call(caught_up)

    def _note_change(self) -> None:
        with self._changed:
            self._version += 1
            self._changed.notify_all()


def _style(style: Style | str) -> Style:
    return Style.parse(style) if isinstance(style, str) else style


def _change_road(relay: Relay, direction: Direction, link: int | None, **changes: Any) -> None:
    for name in ("to_server", "to_client") if direction == "both" else (direction,):
        relay.set_road(name, replace(relay.road(name, link), **changes), link)
