"""The proxy's inside: a listener, its links, the rules and settings, and what has happened.

Everything here runs in one thread, that of the loop. :mod:`everpool.lab.proxy` is the door for all
other threads.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from everpool.lab.clocks import AgeCut, Heartbeat, IdleCut
from everpool.lab.faults import Action, Cut, Direction, Hold, Message, Style
from everpool.lab.frames import Frame
from everpool.lab.link import Fuse, Link, State
from everpool.lab.pipe import Gate, Pipe, Road
from everpool.lab.ports import listening_socket
from everpool.lab.rules import Rule

__all__ = ["LinkInfo", "Relay", "Stats"]


@dataclass(frozen=True, slots=True)
class LinkInfo:
    """One connection through the proxy, at one moment. Times are seconds."""

    number: int
    """Counts from 1 in the order of acceptance; names the connection in all methods."""
    state: State
    client_port: int
    backend_pid: int
    """Process id of the server's backend; 0 before the login is through."""
    ready: bool
    """The login is through."""
    in_hand: bool
    """A request is unanswered, or a transaction is open."""
    idle: float
    age: float


@dataclass(frozen=True, slots=True)
class Stats:
    """What has happened at a proxy so far."""

    accepted: int = 0
    """TCP connections accepted, cancel requests included."""
    cancels: int = 0
    """How many of them carried a cancel request."""
    open: int = 0
    """Sessions that have begun their login and were not ended by either side or told of an end."""
    max_open: int = 0
    connecting: int = 0
    """Connections that wait for their first ReadyForQuery; a cancel request, until it is known."""
    max_connecting: int = 0
    closing: int = 0
    """Connections whose client was told of the end and has not closed its socket."""
    cuts: tuple[Cut, ...] = ()

    @property
    def cuts_in_hand(self) -> int:
        """How many cuts met a request in hand."""
        return sum(cut.in_hand for cut in self.cuts)


class Relay:
    """See the module."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        host: str,
        port: int,
        target: tuple[str, int],
        notify: Callable[[], None],
    ) -> None:
        self.loop = loop
        self.target = target
        self.links: dict[int, Link] = {}
        self._notify = notify
        self._listener: socket.socket | None = listening_socket(host, port)
        self._address = (host, int(self._listener.getsockname()[1]))
        self._rules: list[Rule] = []
        self._gates: list[tuple[Rule, Gate, Pipe]] = []
        self._roads = {"to_server": Road(), "to_client": Road()}
        self._fuses: dict[str, tuple[int, Style]] = {}
        self._idle: IdleCut | None = None
        self._age: AgeCut | None = None
        self._heartbeat: Heartbeat | None = None
        self._hanging = False
        self._accepted = self._max_open = self._max_connecting = 0
        self._cancels: set[int] = set()
        self._cuts: list[Cut] = []
        self._listen()

    @property
    def port(self) -> int:
        return self._address[1]

    # -- Coming and going ----------------------------------------------------------------------

    def accept(self) -> None:
        """Listen, if not listening."""
        if self._listener is None:
            self._listener = listening_socket(*self._address)
            self._listen()

    def refuse(self) -> None:
        """Close the listener."""
        if self._listener is not None:
            self.loop.remove_reader(self._listener.fileno())
            self._listener.close()
            self._listener = None

    def close(self) -> None:
        """Close the listener and every connection."""
        self.refuse()
        for link in list(self.links.values()):
            link.destroy()

    def _listen(self) -> None:
        assert self._listener is not None
        self.loop.add_reader(self._listener.fileno(), self.catch_up)

    def catch_up(self) -> None:
        """Accept all that waits to be accepted.

        To its client a connection stands before anybody has accepted it. Called first by every
        method of the proxy, this keeps that from being visible.
        """
        while self._listener is not None:
            try:
                client, address = self._listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionAbortedError:
                continue
            client.setblocking(False)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._accepted += 1
            link = Link(self, self._accepted, client, address[1])
            self.links[link.number] = link
            self._settle_in(link)
            self.changed(link)

    def _settle_in(self, link: Link) -> None:
        for direction, pipe in _pipes(link, "both"):
            pipe.road = self._roads[direction]
            if direction in self._fuses:
                link.fuses[pipe] = Fuse(*self._fuses[direction])
        self._wind(link)
        if not self._hanging:
            link.connect(*self.target)

    def _wind(self, link: Link) -> None:
        link.clocks.set_idle(self._idle)
        link.clocks.set_age(self._age)
        link.clocks.set_heartbeat(self._heartbeat)

    # -- Faults --------------------------------------------------------------------------------

    def cut(self, style: Style, number: int | None) -> int:
        return sum(link.cut(style, "asked") for link in self._chosen(number))

    def inject(self, data: bytes, number: int | None) -> None:
        for link in self._chosen(number):
            if link.dialogue.ready or number is not None:
                link.inject(data)

    def silence(self, late: bool, number: int | None) -> None:
        for link in self._chosen(number):
            if late:
                link.to_client.stopped = link.to_server.stopped = True
            else:
                link.silence()
        if number is None:
            self._hanging = True

    def hang(self) -> None:
        self._hanging = True

    def heal(self, number: int | None) -> None:
        if number is None:
            self._hanging = False
            self._fuses.clear()
            self.accept()
        self.set_road("both", Road(), number)
        for link in self._chosen(number):
            link.fuses.clear()
            was_silent = link.state == "silent"
            link.heal()
            link.connect(*self.target)
            if was_silent:
                self._wind(link)

    def set_road(self, direction: Direction, road: Road, number: int | None) -> None:
        if number is None:
            for name in _names(direction):
                self._roads[name] = road
        for link in self._chosen(number):
            for _, pipe in _pipes(link, direction):
                pipe.road = road
                pipe.run()

    def road(self, direction: Direction, number: int | None) -> Road:
        name = _names(direction)[0]
        if number is None:
            return self._roads[name]
        return next(pipe.road for link in self._chosen(number) for _, pipe in _pipes(link, name))

    def set_fuse(self, count: int, style: Style, direction: Direction, number: int | None) -> None:
        if number is None:
            self._fuses.update(dict.fromkeys(_names(direction), (count, style)))
        for link in self._chosen(number):
            for _, pipe in _pipes(link, direction):
                link.fuses[pipe] = Fuse(count, style)

    def set_idle(self, rule: IdleCut | None, number: int | None) -> None:
        if number is None:
            self._idle = rule
        for link in self._live(number):
            link.clocks.set_idle(rule)

    def set_age(self, rule: AgeCut | None, number: int | None) -> None:
        if number is None:
            self._age = rule
        for link in self._live(number):
            link.clocks.set_age(rule)

    def set_heartbeat(self, rule: Heartbeat | None, number: int | None) -> None:
        if number is None:
            self._heartbeat = rule
        for link in self._live(number):
            link.clocks.set_heartbeat(rule)

    # -- Rules ---------------------------------------------------------------------------------

    def add_rule(
        self, message: Message, action: Action, number: int | None, skip: int, times: int | None
    ) -> Rule:
        rule = Rule(message, action, link=number, skip=skip, times=times)
        self._rules.append(rule)
        return rule

    def remove_rule(self, rule: Rule) -> None:
        rule.active = False
        self._rules = [other for other in self._rules if other.active]

    def release(self, rule: Rule) -> None:
        self.remove_rule(rule)
        mine = [entry for entry in self._gates if entry[0] is rule]
        self._gates = [entry for entry in self._gates if entry[0] is not rule]
        for _, gate, pipe in mine:
            gate.is_open = True
            pipe.run()

    def rule_for(self, link: int, sender: str, frame: Frame) -> Rule | None:
        for rule in self._rules:
            if rule.applies(link, sender, frame):
                if not rule.active and not isinstance(rule.action, Hold):
                    self.remove_rule(rule)
                return rule
        return None

    def held(self, rule: Rule, gate: Gate, pipe: Pipe) -> None:
        self._gates.append((rule, gate, pipe))

    # -- What happened -------------------------------------------------------------------------

    def record(self, cut: Cut) -> None:
        self._cuts.append(cut)

    def changed(self, link: Link) -> None:
        if link.dialogue.cancel:
            self._cancels.add(link.number)
        if link.finished:
            self.links.pop(link.number, None)
        self._max_open = max(self._max_open, self._open())
        self._max_connecting = max(self._max_connecting, self._connecting())
        self._notify()

    def stats(self) -> Stats:
        return Stats(
            accepted=self._accepted,
            cancels=len(self._cancels),
            open=self._open(),
            max_open=self._max_open,
            connecting=self._connecting(),
            max_connecting=self._max_connecting,
            closing=sum(link.state == "closing" for link in self.links.values()),
            cuts=tuple(self._cuts),
        )

    def _open(self) -> int:
        return sum(link.is_open and link.dialogue.started for link in self.links.values())

    def _connecting(self) -> int:
        return sum(link.connecting for link in self.links.values())

    def infos(self) -> list[LinkInfo]:
        now = self.loop.time()
        return [
            LinkInfo(
                number=link.number,
                state=link.state,
                client_port=link.client_port,
                backend_pid=link.dialogue.backend_pid,
                ready=link.dialogue.ready,
                in_hand=link.dialogue.in_hand,
                idle=now - link.last_bytes,
                age=now - link.opened,
            )
            for link in self.links.values()
            if link.state != "closed"
        ]

    def _chosen(self, number: int | None) -> list[Link]:
        if number is None:
            return list(self.links.values())
        if number not in self.links:
            raise LookupError(f"no open connection has the number {number}")
        return [self.links[number]]

    def _live(self, number: int | None) -> list[Link]:
        return [link for link in self._chosen(number) if link.state == "open"]


def _names(direction: Direction) -> tuple[Direction, ...]:
    return ("to_server", "to_client") if direction == "both" else (direction,)


def _pipes(link: Link, direction: Direction) -> Iterable[tuple[str, Pipe]]:
    both = {"to_server": link.to_server, "to_client": link.to_client}
    return [(name, both[name]) for name in _names(direction)]
