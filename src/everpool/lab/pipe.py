"""One direction of a relayed connection: an ordered queue of bytes and moments.

A moment (a *mark*) is a function that runs when everything queued before it has been handed to the
kernel. That is how "cut after this message" and "close when all is delivered" stay in order with
bytes that are still under way.

Latency is a delay line, not a pause: each piece gets a due time of its own when it is put in, so a
slow path keeps its throughput, as a long cable does. Everything runs in callbacks of one event
loop; nothing here waits, so nothing needs to be cancelled.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Gate", "Pipe", "Road"]

# A sender is stopped when this much waits for a receiver: memory is bounded, and back-pressure
# reaches the sender. It must exceed latency times throughput, or a delay line would throttle: 4 MiB
# at 100 ms is 40 MiB/s.
_FULL = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Road:
    """How one direction carries bytes.

    Each piece takes *latency* plus up to *jitter* seconds and overtakes nothing. No more than
    *drip_bytes* leave every *drip_every* seconds; 0 bytes is no limit.
    """

    latency: float = 0.0
    jitter: float = 0.0
    drip_bytes: int = 0
    drip_every: float = 0.0


class Gate:
    """A point in the queue that nothing passes until it is opened."""

    __slots__ = ("is_open",)

    def __init__(self) -> None:
        self.is_open = False


class Pipe:
    """Bytes on their way to *sink*, which may be attached later."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_room: Callable[[], None]) -> None:
        self.road = Road()
        self.buffered = 0
        self.taken = 0  # bytes put in, since the pipe was made
        self.dead = False  # nothing is taken or delivered any more
        self.deaf = False  # silently drop what is put in
        self.stopped = False  # keep what is put in, deliver nothing
        self._loop = loop
        self._sink: socket.socket | None = None
        self._on_room = on_room
        self._items: deque[tuple[float, bytes | Callable[[], None] | Gate]] = deque()
        self._next_drip = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._writing = False
        self._running = False

    @property
    def full(self) -> bool:
        """The sender should be stopped; ``on_room`` is called when it may go on."""
        return self.buffered > _FULL

    def attach(self, sink: socket.socket) -> None:
        """Deliver to *sink*, a non-blocking socket, from now on."""
        self._sink = sink
        self.run()

    def put(self, data: bytes) -> None:
        """Queue *data* behind everything else."""
        if self.dead or self.deaf or not data:
            return
        self.taken += len(data)
        self.buffered += len(data)
        self._append(data)

    def mark(self, moment: Callable[[], None]) -> None:
        """Call *moment* when everything queued so far is delivered; never, if the pipe dies."""
        if not self.dead:
            self._append(moment)

    def gate(self) -> Gate:
        """Keep back what is queued from now on until the returned gate is open and run() called."""
        gate = Gate()
        if not self.dead:
            self._append(gate)
        return gate

    def purge(self) -> None:
        """Forget everything that is queued."""
        self._items.clear()
        was_full, self.buffered = self.full, 0
        if was_full:
            self._on_room()

    def kill(self) -> None:
        """Take and deliver nothing any more. Must precede closing the sink."""
        self.dead = True
        self.purge()
        self._stop_waiting()
        self._sink = None

    def run(self) -> None:
        """Deliver all that may be delivered now, and arrange for the rest."""
        if self._running:  # a mark called us: the loop below goes on anyway
            return
        self._running = True
        try:
            self._deliver()
        finally:
            self._running = False

    def _append(self, item: bytes | Callable[[], None] | Gate) -> None:
        road = self.road
        due = 0.0
        if road.latency or road.jitter:
            due = self._loop.time() + road.latency + random.random() * road.jitter
        self._items.append((due, item))
        self.run()

    def _deliver(self) -> None:
        while self._items and not self._writing and not self.stopped and not self.dead:
            due, item = self._items[0]
            if isinstance(item, Gate):
                if not item.is_open:
                    return
                self._items.popleft()
                continue
            if due and self._must_wait(due):
                return
            if isinstance(item, bytes):
                if not self._send(due, item):
                    return
            else:
                self._items.popleft()
                item()

    def _send(self, due: float, data: bytes) -> bool:
        """Send as much of the head as may go now; tell whether to go on with the queue."""
        sink, road = self._sink, self.road
        if sink is None:
            return False
        if road.drip_bytes and self._must_wait(self._next_drip):
            return False
        try:
            sent = sink.send(data[: road.drip_bytes] if road.drip_bytes else data)
        except (BlockingIOError, InterruptedError):
            self._writing = True
            self._loop.add_writer(sink.fileno(), self._writable)
            return False
        except OSError:
            self.kill()  # the receiver is gone; the reader of that socket notices too and says so
            return False
        if road.drip_bytes:
            self._next_drip = self._loop.time() + road.drip_every
        was_full = self.full
        self.buffered -= sent
        self._items.popleft()
        if sent < len(data):
            self._items.appendleft((due, data[sent:]))
        if was_full and not self.full:
            self._on_room()
        return True

    def _must_wait(self, until: float) -> bool:
        if until <= self._loop.time():
            return False
        if self._timer is not None and self._timer.when() > until:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = self._loop.call_at(until, self._on_time)
        return True

    def _on_time(self) -> None:
        self._timer = None
        self.run()

    def _writable(self) -> None:
        self._stop_writing()
        self.run()

    def _stop_writing(self) -> None:
        if self._writing and self._sink is not None:
            self._loop.remove_writer(self._sink.fileno())
        self._writing = False

    def _stop_waiting(self) -> None:
        self._stop_writing()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
