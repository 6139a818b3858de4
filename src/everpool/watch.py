"""The death watch: sees hang-ups in milliseconds, and costs a checkout nothing.

Every connection's socket is duplicated once, for its whole life, and the duplicate registered
in one epoll for hang-ups only, edge-triggered. Data never wakes it, except on a socket under
ping. All that the pool does to a socket outside libpq (watching, peeking, shutting down) goes
through the duplicate: a descriptor number that libpq has closed may already belong to a
stranger, the duplicate cannot.
"""

from __future__ import annotations

import os
import select
import socket
from struct import Struct
from threading import Lock
from typing import TYPE_CHECKING
from weakref import ref

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .core.slot import Slot

_HANGUP = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
_QUIET = _HANGUP | select.EPOLLET
# Level-triggered: what one read leaves unread must be told again.
_LISTENING = _HANGUP | select.EPOLLIN

# In Linux's struct tcp_info: the state is the first byte, the milliseconds since data last
# arrived the 32 bits at offset 52.
_TCP_INFO_SIZE = 56
_read_tcp_info = Struct("=B51xI").unpack
_ESTABLISHED, _CLOSE_WAIT = 1, 8

# Linux's SO_MEMINFO: the first 32 bits are the bytes that the receive queue occupies.
_SO_MEMINFO = 55

# What a server said that matters for how its connection ended: a crash sends a warning and then
# a reason, and a little may come between.
MOST_VERDICTS = 8

DEAD = -1.0

# Notifications kept for the next borrower of one connection; of more, the oldest go.
MOST_NEWS = 10_000


class _Duplicate(socket.socket):
    """A duplicate that goes quietly: a program may end without closing its pool."""

    def __del__(self) -> None:
        self.close()


class Bell:
    """Wakes who waits on an epoll. Its descriptor lives as long as anybody holds the bell.

    No lock: it is rung from finalizers, which may run anywhere, and closed in forked children,
    where a lock may be held by a thread that is not there.
    """

    def __init__(self) -> None:
        self.descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def ring(self) -> None:
        os.eventfd_write(self.descriptor, 1)

    def __del__(self) -> None:
        os.close(self.descriptor)


class Link:
    """The pool's own handle on one connection's socket.

    ``mutex`` is held during each of the pool's own libpq calls on the connection (send a ping,
    collect a pong, read the last words, close): different threads may do them in turn.
    """

    __slots__ = (
        "_socket",
        "_tcp",
        "_watch",
        "anchor",
        "answered",
        "descriptor",
        "mutex",
        "news",
        "pinged_at",
        "pinging",
        "saved_handler",
        "slot",
        "verdicts",
    )

    def __init__(self, watch: Watch, descriptor: int, slot: Slot) -> None:
        self._socket = _Duplicate(fileno=os.dup(descriptor))
        self._tcp = self._socket.family != socket.AF_UNIX and hasattr(socket, "TCP_INFO")
        self._watch = watch
        self.descriptor = self._socket.fileno()
        self.slot = ref(slot)
        self.mutex = Lock()
        self.pinging = False
        self.pinged_at = 0.0
        self.answered = False  # the answer to the ping has come, if not its end
        # Lists, and bounded by who appends: an empty deque takes 0.7 KiB.
        self.news: list[object] = []  # notifications read by pings, for the next borrower
        self.anchor: object = None  # tells when a borrower has dropped the connection
        self.saved_handler: object = None
        self.verdicts: list[tuple[str, str, str]] = []  # severity, SQLSTATE, text

    def peek(self) -> float:
        """Seconds since data last arrived, or ``DEAD``. No round trip; the GIL is kept.

        Where the kernel does not tell the silence (Unix sockets, other systems) it is 0: such
        a connection is dead only if it has hung up.
        """
        if self._tcp:
            try:
                info = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_SIZE)
            except OSError:
                return DEAD  # closed meanwhile, or another file after a fork
            state, silence = _read_tcp_info(info)
            return silence / 1000 if state == _ESTABLISHED else DEAD
        poll = select.poll()
        poll.register(self.descriptor, getattr(select, "POLLRDHUP", 0))
        return DEAD if poll.poll(0) else 0.0  # a closed descriptor polls as invalid: dead

    def silence(self) -> float:
        """Seconds since data last arrived, also on a dead connection; 0 where nobody knows."""
        try:
            info = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_SIZE)
        except (OSError, AttributeError):
            return 0.0
        return float(_read_tcp_info(info)[1]) / 1000 if self._tcp else 0.0

    def unread(self) -> bool:
        """Whether something has arrived that nobody has read yet. The GIL is kept.

        A server that ends a connection says why some milliseconds before it hangs up.
        """
        if self._tcp:
            try:
                info = self._socket.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 4)
            except OSError:
                pass  # not the Linux we know
            else:
                return any(info)
        poll = select.poll()
        poll.register(self.descriptor, select.POLLIN)
        return bool(poll.poll(0))

    def ending(self) -> str:
        """How the peer ended the connection: ``"FIN"`` or ``"RST"``; ``"error"`` if it did not."""
        try:
            info = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
        except (OSError, AttributeError):
            return "FIN" if self.peek() == DEAD else "error"  # not TCP, or not Linux
        return {_CLOSE_WAIT: "FIN", _ESTABLISHED: "error"}.get(info[0], "RST")

    def listen(self, on: bool) -> None:
        """Report data too (``on``), as for a socket under ping, or hang-ups only.

        What is true at the moment of the call is reported again.
        """
        self._watch._set(self.descriptor, _LISTENING if on else _QUIET)

    def abort(self) -> None:
        """End the connection under whoever uses it, from any thread: their call fails at once."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # over already

    def close(self) -> None:
        """Forget the socket. The connection itself stays as it is."""
        self._watch._forget(self)
        self._socket.close()

    def replace_by(self, descriptor: int) -> None:
        """Put another open file under the duplicate (after a fork)."""
        os.dup2(descriptor, self.descriptor, inheritable=False)


class Watch:
    """One epoll over all links of a pool, and a bell to wake who waits on it."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._bell: Bell | None = Bell()
        self._epoll.register(self._bell.descriptor, select.EPOLLIN | select.EPOLLET)
        self._links: dict[int, Link] = {}

    def fileno(self) -> int:
        """The epoll's own descriptor: readable when ``wait`` has something to tell."""
        return self._epoll.fileno()

    def add(self, descriptor: int, slot: Slot) -> Link:
        """Watch a connection's socket.

        :raises OSError: out of descriptors.
        """
        link = Link(self, descriptor, slot)
        self._epoll.register(link.descriptor, _QUIET)
        self._links[link.descriptor] = link
        return link

    def wait(self, timeout: float) -> list[tuple[Link, bool]]:
        """The links with news, and whether each has hung up; at most ``timeout`` seconds."""
        ready = []
        for descriptor, events in self._epoll.poll(timeout):
            link = self._links.get(descriptor)
            if link is not None:
                ready.append((link, bool(events & _HANGUP)))
        return ready

    def ring(self) -> None:
        """Make ``wait`` return now. From anywhere: threads, finalizers."""
        bell = self._bell
        if bell is not None:
            bell.ring()

    @property
    def closed(self) -> bool:
        return self._bell is None

    def close(self) -> None:
        """Release every descriptor; the connections themselves stay as they are."""
        self._bell = None
        self._epoll.close()
        for link in list(self._links.values()):
            link._socket.close()
        self._links.clear()

    def links(self) -> Iterable[Link]:
        return list(self._links.values())

    def _set(self, descriptor: int, events: int) -> None:
        try:
            self._epoll.modify(descriptor, events)
        except (OSError, ValueError):
            pass  # closed meanwhile, with the pool

    def _forget(self, link: Link) -> None:
        if self._links.pop(link.descriptor, None) is not None:
            try:
                self._epoll.unregister(link.descriptor)
            except (OSError, ValueError):
                pass  # closed meanwhile, with the pool
