"""One relayed connection: two sockets, a pipe each way, and what can befall them.

A link lives in the thread of its proxy's loop and is made of callbacks. States: ``open``;
``silent`` (cut by silence, may be cut again); ``forgotten`` (the next packet of the client is
answered by a reset); ``closing`` (the client was told and has not left); ``closed`` (for the
client; the server's side may linger until all held for it is delivered).
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from everpool.lab.clocks import Clocks
from everpool.lab.dialogue import Dialogue
from everpool.lab.faults import Answer, Cut, CutAfter, CutBefore, Drop, Hold, Reason, Style
from everpool.lab.frames import Frame, ServerReader, error_response, parameter_status
from everpool.lab.pipe import Gate, Pipe
from everpool.lab.rules import Rule

__all__ = ["Fuse", "Host", "Link", "State"]

State = Literal["open", "silent", "forgotten", "closing", "closed"]
# Messages of the server that say where the session stands. (No client's message has these letters.)
_TELLING = frozenset((b"Z", b"G", b"K"))
_CHUNK = 256 * 1024
_LINGER_0 = struct.pack("ii", 1, 0)


@dataclass(slots=True)
class Fuse:
    """Cut when *left* more bytes have been delivered in one direction."""

    left: int
    style: Style


class Host(Protocol):
    """What a link needs from the proxy it belongs to."""

    loop: asyncio.AbstractEventLoop

    def rule_for(self, link: int, sender: str, frame: Frame) -> Rule | None: ...
    def held(self, rule: Rule, gate: Gate, pipe: Pipe) -> None: ...
    def record(self, cut: Cut) -> None: ...
    def changed(self, link: Link) -> None: ...


class Link:
    """See the module. *connect* to the server is called once the link is wanted, not before."""

    def __init__(self, host: Host, number: int, client: socket.socket, client_port: int) -> None:
        self.number = number
        self.state: State = "open"
        self.dialogue = Dialogue()
        self.opened = self.last_bytes = host.loop.time()
        self.client_port = client_port
        self.fuses: dict[Pipe, Fuse] = {}
        self.clocks = Clocks(host.loop, self)
        self._host = host
        self._loop = host.loop
        self._client: socket.socket | None = client
        self._server: socket.socket | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._connect_begun = False
        self._server_told = True
        self._client_told = False
        self._reading: set[socket.socket] = set()
        self.to_server = Pipe(self._loop, self._client_may_send)
        self.to_client = Pipe(self._loop, self._server_may_send)
        self.to_client.attach(client)
        self._read(client, self._client_readable)

    # -- What the proxy asks about -------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """The client is connected, and has not been told otherwise."""
        return self.state not in ("closing", "closed")

    @property
    def connecting(self) -> bool:
        """The client waits for its first ReadyForQuery."""
        return self.is_open and not (
            self.dialogue.ready or self.dialogue.cancel or self.dialogue.opaque
        )

    @property
    def finished(self) -> bool:
        """Neither side has a socket."""
        return self._client is None and self._server is None and self._connecting is None

    def is_busy(self) -> bool:
        """A login, a request or a transaction is in hand."""
        return self.dialogue.in_hand or self.connecting

    # -- What is done to it --------------------------------------------------------------------

    def connect(self, host: str, port: int) -> None:
        """Begin to connect to the server, unless that was begun before."""
        if not self._connect_begun and self.state == "open":
            self._connect_begun = True
            self._connecting = self._loop.create_task(self._connect(host, port))

    def cut(self, style: Style, reason: Reason) -> bool:
        """Cut in this style; tell whether there was anything to cut."""
        if self.state not in ("open", "silent") or (
            self.state == "silent" and style.kind == "silence"
        ):
            return False
        # Read before anything is sent: what a client does from here on, it does with a connection
        # about to be cut.
        at, now = time.monotonic(), self._loop.time()
        if self.dialogue.opaque and style.kind == "fatal":
            style = Style("fin", server_told=style.server_told)
        in_hand = self.dialogue.in_hand
        self._server_told = style.server_told
        self.clocks.stop()
        self.fuses.clear()
        self.to_client.deaf = self.to_server.deaf = False
        self._act_out(style)
        idle, age = now - self.last_bytes, now - self.opened
        pid = self.dialogue.backend_pid
        self._host.record(Cut(self.number, at, style, reason, idle, age, in_hand, pid))
        self._host.changed(self)
        return True

    def silence(self) -> None:
        """Acknowledge and drop everything from now on, both ways."""
        for pipe in (self.to_server, self.to_client):
            pipe.deaf = True
            pipe.purge()

    def heal(self) -> None:
        """Carry bytes again."""
        if self.state == "silent":
            self.state = "open"
        if self.state != "open":
            return
        if self.to_client.deaf:
            self.dialogue.forget()
        for pipe in (self.to_server, self.to_client):
            pipe.deaf = pipe.stopped = False
            pipe.run()
        if self._connect_begun and self._server is None and self._connecting is None:
            self._pass_on_the_end()  # the server hung up in the meantime

    def inject(self, data: bytes) -> None:
        """Deliver *data* to the client between two messages, as if the server had sent it."""
        if self.state == "open":
            self.to_client.put(data)

    def beat(self, name: str, value: str) -> None:
        """Deliver a ParameterStatus to the client, if its login is through."""
        if self.dialogue.ready and not self.dialogue.opaque:
            self.inject(parameter_status(name, value))

    def destroy(self) -> None:
        """Close both sides at once."""
        self.clocks.stop()
        self._close_client()
        self._close_server()

    # -- Cutting -------------------------------------------------------------------------------

    def _act_out(self, style: Style) -> None:
        match style.kind:
            case "silence":
                self.state = "silent"
                self.silence()
            case "rst-next":
                self.state = "forgotten"
                self.to_client.deaf = True
                self.to_client.purge()
                self._leave_server()
            case "rst":
                self._reset_client()
                self._leave_server()
            case "fin" | "fatal":
                self.state = "closing"
                self.to_client.stopped = False
                if style.kind == "fatal":
                    self.to_client.put(error_response(style.sqlstate, style.message))
                self.to_client.mark(self._half_close_client)
                self.to_client.deaf = True
                self._leave_server()

    def _half_close_client(self) -> None:
        self._client_told = True
        _quietly(self._client, lambda sock: sock.shutdown(socket.SHUT_WR))

    def _reset_client(self) -> None:
        if self._client is not None:
            # A close with unread input, or with a linger of zero, is a reset. Shutting the read
            # side first makes sure that nothing that still arrives can turn this into an orderly
            # end.
            _quietly(self._client, lambda sock: sock.shutdown(socket.SHUT_RD))
            _quietly(
                self._client,
                lambda sock: sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0),
            )
        self._close_client()

    def _leave_server(self) -> None:
        """Tell the server, behind all that is on its way to it, that the client is gone."""
        if not self._server_told:
            return
        self.to_server.stopped = False
        if self._server is None and (self._connecting is None or not self.to_server.buffered):
            self._close_server()
            return
        self.to_server.mark(
            lambda: _quietly(self._server, lambda sock: sock.shutdown(socket.SHUT_WR))
        )
        self.to_server.run()

    # -- The client's side ---------------------------------------------------------------------

    def _client_readable(self) -> None:
        assert self._client is not None
        data = self._receive(self._client)
        if data is None:
            return
        if self.state == "forgotten":
            self._reset_client()
        elif not data:
            self._client_left()
        elif self.state == "closing":
            if self._client_told:  # as a kernel answers data for a socket that was closed
                self._reset_client()
        else:
            self.last_bytes = self._loop.time()
            before = self._milestones()
            self._relay("client", self.dialogue.from_client(data), self.to_server)
            if before != self._milestones():
                self._host.changed(self)
            if self.to_server.full and self._client is not None:
                self._pause(self._client)

    def _client_left(self) -> None:
        was_closing = self.state == "closing"
        self._close_client()
        if not was_closing:
            self._leave_server()

    def _client_may_send(self) -> None:
        if self._client is not None:
            self._read(self._client, self._client_readable)

    def _close_client(self) -> None:
        self.state = "closed"
        self.clocks.stop()
        self.to_client.kill()
        client, self._client = self._client, None
        self._close(client)

    # -- The server's side ---------------------------------------------------------------------

    async def _connect(self, host: str, port: int) -> None:
        sock = None
        try:
            found = await self._loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            family, kind, protocol, _, address = found[0]
            sock = socket.socket(family, kind, protocol)
            sock.setblocking(False)
            await self._loop.sock_connect(sock, address)
        except OSError:
            self._connecting = None
            if sock is not None:
                sock.close()
            # What a relay in front of a dead server does: it has accepted, so it can only hang up.
            self._reset_client()
            self._host.changed(self)
            return
        except asyncio.CancelledError:
            if sock is not None:
                sock.close()
            raise
        self._connecting = None
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._server = sock
        self._read(sock, self._server_readable)
        self.to_server.attach(sock)

    def _server_readable(self) -> None:
        assert self._server is not None
        data = self._receive(self._server)
        if data is None:
            return
        if not data:
            self._server_left()
            return
        self.last_bytes = self._loop.time()
        self._relay("server", self.dialogue.from_server(data), self.to_client)
        if self.to_client.full and self._server is not None:
            self._pause(self._server)

    def _server_left(self) -> None:
        self._close_server()
        if self.state == "open" and not self.to_client.deaf:
            self.to_client.mark(self._pass_on_the_end)

    def _pass_on_the_end(self) -> None:
        if self.state == "open":
            self.state = "closing"
            self.clocks.stop()
            self._half_close_client()
            self._host.changed(self)

    def _server_may_send(self) -> None:
        if self._server is not None:
            self._read(self._server, self._server_readable)

    def _close_server(self) -> None:
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
        self.to_server.kill()
        server, self._server = self._server, None
        self._close(server)

    def _milestones(self) -> tuple[bool, bool]:
        return self.connecting, self.dialogue.started

    # -- Relaying ------------------------------------------------------------------------------

    def _relay(self, sender: str, frames: list[Frame], pipe: Pipe) -> None:
        """Pass whole messages on, acting out the rules they set off."""
        plain = bytearray()  # messages no rule is interested in travel together
        for frame in frames:
            rule = self._host.rule_for(self.number, sender, frame)
            if rule is None and frame.tag not in _TELLING:
                plain += frame.data
                continue
            self._put(pipe, bytes(plain))
            plain.clear()
            if rule is None:
                self._deliver(pipe, frame)
            else:
                self._apply(rule, frame, pipe)
        self._put(pipe, bytes(plain))

    def _deliver(self, pipe: Pipe, frame: Frame) -> None:
        """Pass one message on; what the server says counts once it has left for the client."""
        self._put(pipe, frame.data)
        if pipe is self.to_client and not pipe.deaf:
            pipe.mark(lambda: self._delivered(frame))

    def _delivered(self, frame: Frame) -> None:
        before = self._milestones()
        self.dialogue.delivered(frame)
        if before != self._milestones():
            self._host.changed(self)
        if self.state == "open" and not self.is_busy() and (rule := self.clocks.overdue()):
            self.cut(rule.style, "age")

    def _apply(self, rule: Rule, frame: Frame, pipe: Pipe) -> None:
        action = rule.action
        if not isinstance(action, CutBefore | CutAfter):
            rule.count()
        match action:
            case CutBefore(style):
                self._cut_when_delivered(pipe, style, "message", rule.count)
            case CutAfter(style):
                self._deliver(pipe, frame)
                self._cut_when_delivered(pipe, style, "message", rule.count)
            case Hold():
                self._host.held(rule, pipe.gate(), pipe)
                self._deliver(pipe, frame)
            case Answer(data, then):
                for answer in ServerReader().feed(data):
                    self._deliver(self.to_client, answer)
                if then is not None:
                    self._cut_when_delivered(self.to_client, then, "message")
            case Drop():
                pass

    def _put(self, pipe: Pipe, data: bytes) -> None:
        fuse = self.fuses.get(pipe)
        if fuse is None or not data:
            pipe.put(data)
            return
        pipe.put(data[: fuse.left])
        fuse.left -= len(data)
        if fuse.left <= 0:
            self._cut_when_delivered(pipe, fuse.style, "byte")

    def _cut_when_delivered(
        self, pipe: Pipe, style: Style, reason: Reason, first: Callable[[], None] = lambda: None
    ) -> None:
        def moment() -> None:
            first()  # whoever sees the cut can rely on its having been counted
            self.cut(style, reason)

        pipe.mark(moment)
        # What follows must not get through, and must not be answered. A cut that has already
        # happened stays.
        if self.state == "open":
            pipe.deaf = True

    # -- Sockets -------------------------------------------------------------------------------

    def _receive(self, sock: socket.socket) -> bytes | None:
        """Return what arrived, ``b""`` at the end or after a reset, ``None`` when there was
        nothing."""
        try:
            return sock.recv(_CHUNK)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:
            return b""

    def _read(self, sock: socket.socket, callback: Callable[[], None]) -> None:
        self._loop.add_reader(sock.fileno(), callback)
        self._reading.add(sock)

    def _pause(self, sock: socket.socket) -> None:
        if sock in self._reading:
            self._reading.discard(sock)
            self._loop.remove_reader(sock.fileno())

    def _close(self, sock: socket.socket | None) -> None:
        if sock is not None:
            self._pause(sock)
            sock.close()
        self._host.changed(self)


def _quietly(sock: socket.socket | None, act: Callable[[socket.socket], None]) -> None:
    """Do something to a socket that may be gone, or whose peer may be."""
    try:
        if sock is not None:
            act(sock)
    except OSError:
        pass
