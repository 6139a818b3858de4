"""A world in virtual time for the pure core: a fake shell, a fake server, fake callers.

``World`` owns a ``Machine`` and carries out its effects the way a real shell does, against a
server and a network that do what the test's script says. Nothing sleeps: the clock jumps from
one scheduled event to the next, so six hours pass in a second, and everything random comes
from one seed, so every run can be repeated.

After every event ``World.check`` compares the machine with what must always hold.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf
from typing import Any

from everpool.core.deadlines import Bound
from everpool.core.effects import (
    Abandon,
    Abort,
    Cancel,
    Close,
    Open,
    Ping,
    ReconnectFailed,
    Tell,
    Wake,
)
from everpool.core.events import Cut, Happening, Opened, OpenFailed, Retired
from everpool.core.incarnation import Incarnation
from everpool.core.machine import Machine
from everpool.core.policy import Policy
from everpool.core.queue import Refusal
from everpool.core.slot import COUNTED, Slot, State
from everpool.core.supply import SILENCE
from everpool.core.verdict import Cause, Trouble

PASSWORD_TEXT = 'FATAL:  password authentication failed for user "joe"'
REFUSED_TEXT = "connection failed: Connection refused"
CROWDED_TEXT = "FATAL:  sorry, too many clients already"

TERMINATED = Cause("FATAL", "57P01", "terminating connection due to administrator command")


class Conn:
    """A fake connection: what the server, the network and the kernel know of it."""

    def __init__(self, number: int, now: float) -> None:
        self.number = number
        self.heard_at = now  # when data last arrived
        self.cause: Cause | None = None  # set: a hang-up the kernel can see
        self.born_at = now
        self.silenced = False  # cut so that nothing will ever arrive again
        self.standby: bool | None = None  # what its server is, if that is known
        self.forgotten = False  # cut so that only the next packet is answered, by a reset

    @property
    def dead(self) -> bool:
        return self.cause is not None

    @property
    def usable(self) -> bool:
        return not (self.dead or self.silenced or self.forgotten)

    def __repr__(self) -> str:
        return f"<Conn {self.number}>"


class SimWaiter:
    """One wait of a caller, as the core sees it."""

    _numbers = 0

    def __init__(self, caller: Caller, deadline: float, since: float) -> None:
        self.caller = caller
        self.deadline = deadline
        self.since = since
        self.slot: Slot | None = None
        self.refusal: Refusal | None = None
        self.gone = False
        self.woken = False
        self.joined = 0  # the order of joining, set by the world

    def wake(self) -> None:
        self.woken = True

    def __repr__(self) -> str:
        return f"<Waiter of {self.caller.number}>"


class Caller:
    """One request: waits, holds, returns. ``state`` tells where it is."""

    def __init__(self, number: int, now: float, timeout: float) -> None:
        self.number = number
        self.began = now
        self.deadline = now + timeout
        self.state = "waiting"  # "holding", "refused", "gone", "done"
        self.waiter: SimWaiter | None = None
        self.slot: Slot | None = None
        self.conn: Conn | None = None
        self.refusal: Refusal | None = None
        self.ended: float | None = None  # when the wait ended
        self.tries = 0
        self.bound: Bound | None = None
        self.busy = False  # waits for the answer to a query, and returns with it
        self.on_lent: Callable[[], None] | None = None

    @property
    def waited(self) -> float:
        assert self.ended is not None, f"caller {self.number} still waits"
        return self.ended - self.began

    def __repr__(self) -> str:
        return f"<Caller {self.number} {self.state}>"


@dataclass
class Server:
    """The script of server and network; change it at any moment."""

    connect_takes: float = 0.020
    ping_takes: float = 0.001
    refuse_takes: float = 0.001
    close_takes: float = 0.0005
    cancel_takes: float = 0.002  # until a cancelled query is answered
    watch_takes: float = 0.002  # from a visible cut to the watch's report; inf: no watch
    connect_timeout: float = 10.0  # when the connect library gives up by itself
    refused: bool = False
    silent: bool = False
    late_answers: bool = True  # what hung during a silence is answered after it
    late_spread: float = 0.0  # within so many seconds
    rejecting: str | None = None  # the text it rejects logins with
    room: float = inf  # how many connections the server admits
    abandon_takes: float | None = 0.0  # None: attempts cannot be stopped
    incarnation: Incarnation | None = None  # None: it cannot tell who it is
    standby: bool | None = None


@dataclass(frozen=True)
class Path:
    """What the path does to connections: `inf` for never. Change ``World.path`` at any moment."""

    idle_cut: float = inf
    max_age: float = inf
    kill: str = "rst"


KILLERS = {"fin": Cause("FIN"), "rst": Cause("RST"), "fatal": Cause("FATAL", "08P01", "closed")}


class World:
    """Virtual time, a machine, a shell that obeys it, and a server that may not."""

    def __init__(
        self,
        *,
        seed: int = 0,
        machine: type[Machine] = Machine,
        server: Server | None = None,
        checking: bool = True,
        wake_takes: float = 0.0,
        **policy: Any,
    ) -> None:
        self.random = random.Random(seed)
        self.now = 1000.0
        self.server = server or Server()
        self.path = Path()
        self.policy = Policy(**policy)
        self.machine = machine(self.policy, self.now, random.Random(seed + 1).random)
        self.checking = checking
        self.wake_takes = wake_takes
        self._heap: list[tuple[float, int, Callable[[], object]]] = []
        self._order = 0
        self._ticked_at = self._ticks_there = 0.0  # ticks at one and the same moment
        self._numbers = 0
        self._joined = 0
        self._waiting: list[SimWaiter] = []  # in the order of joining, for the FIFO check
        self._oversize: float = self.policy.most
        self.ticks = 0

        self.conns: dict[Slot, Conn] = {}
        self.attempts: dict[Slot, float] = {}  # slot -> when it began
        self.pings: dict[Slot, float] = {}
        self.closers: set[Slot] = set()
        self.workers: set[Slot] = set()
        self.callers: list[Caller] = []
        self.holders: dict[Slot, Caller] = {}

        # What happened, for assertions.
        self.told: list[tuple[float, Happening]] = []
        self.callbacks: list[float] = []  # when ReconnectFailed came
        self.opens: list[float] = []  # when attempts began
        self.pinged: list[tuple[float, int]] = []
        self.lent_dead = 0  # loans of connections that the path had ended
        self.broken = 0  # loans that the path ended
        self.path_cuts = 0
        self.most_outstanding = 0
        self.cancels: list[tuple[float, int]] = []
        self.aborts: list[tuple[float, int]] = []
        self.filled: list[tuple[float, SimWaiter]] = []

    # -- time ---------------------------------------------------------------------------------

    def at(self, when: float, action: Callable[[], object]) -> None:
        self._order += 1
        heapq.heappush(self._heap, (max(self.now, when), self._order, action))

    def after(self, delay: float, action: Callable[[], object]) -> None:
        if delay != inf:
            self._order += 1
            heapq.heappush(self._heap, (self.now + delay, self._order, action))

    def run(self, seconds: float) -> None:
        self.run_until(self.now + seconds)

    def run_until(self, end: float) -> None:
        machine, heap = self.machine, self._heap
        while True:
            due = machine.next_wake
            if heap and (heap[0][0] <= due or heap[0][0] <= self.now):
                if heap[0][0] > end:
                    break
                # Answers are delivered before ticks.
                when, _, action = heapq.heappop(heap)
                self.now = max(self.now, when)
                action()
            else:
                if due > end:
                    break
                self.now = max(self.now, due)
                if due == self._ticked_at:
                    self._ticks_there += 1
                    assert self._ticks_there < 20, f"ticks without end at {self.now}"
                else:
                    self._ticked_at, self._ticks_there = due, 1
                self.tick()
        self.now = end

    def run_while(self, condition: Callable[[], bool], limit: float = 60.0) -> None:
        """Run event by event until the condition no longer holds."""
        end = self.now + limit
        while condition():
            due = max(self.machine.next_wake, self.now)
            event = self._heap[0][0] if self._heap else inf
            assert min(due, event) <= end, "the condition outlived the limit"
            self.run_until(min(due, event))

    def tick(self) -> None:
        self.ticks += 1
        self.machine.tick(self.now)
        if self.checking:
            for waiter in self.machine.queue.waiting():
                assert waiter.deadline > self.now, "a waiter outlived its deadline"
            for bound in self.machine.bounds.values():
                assert self.machine.closed or not bound.current or bound.ends_at > self.now, (
                    "a loan outlived its grace"
                )
        self.settle()

    # -- the shell ----------------------------------------------------------------------------

    def settle(self) -> None:
        """Carry out the effects of the last call, and check the machine."""
        while self.machine.effects:
            effects, self.machine.effects = self.machine.effects, []
            for effect in effects:
                self._carry_out(effect)
        if self.checking:
            self.check()

    def _carry_out(self, effect: Any) -> None:
        match effect:
            case Wake(waiter):
                assert isinstance(waiter, SimWaiter)
                waiter.wake()
                self.after(self.wake_takes, lambda: self._woken(waiter))
            case Ping(slot):
                self._begin_ping(slot)
            case Close(slot):
                assert slot.state in (State.CLOSING, State.DEAD)
                self.pings.pop(slot, None)
                self.closers.add(slot)
                self.after(self.server.close_takes, lambda: self._closed(slot))
            case Open(slot):
                self._begin_attempt(slot)
            case Cancel(bound):
                self._cancel(bound)
            case Abort(slot):
                assert slot.state in (State.CORPSE, State.DEAD)
                self.aborts.append((self.now, slot.number))
                self.conns[slot].cause = Cause("error")
            case Abandon(slot):
                if self.server.abandon_takes is not None:
                    self.after(
                        self.server.abandon_takes,
                        lambda: self._attempt_fails(slot, "stopped", Trouble.SILENT, True),
                    )
            case ReconnectFailed():
                self.callbacks.append(self.now)
            case Tell():
                happenings = self.machine.happenings
                while happenings:
                    self.told.append((self.now, happenings.popleft()))
            case _:
                raise AssertionError(f"unknown effect {effect!r}")

    def _cancel(self, bound: Bound) -> None:
        slot = bound.slot
        caller, conn = self.holders[slot], self.conns[slot]
        self.cancels.append((self.now, slot.number))
        if not caller.busy:
            self.machine.end(bound, self.now)
        elif conn.usable and not self.server.silent:
            self.after(
                self.server.cancel_takes,
                lambda: caller.slot is slot and self.release(caller),
            )

    # connecting

    def _begin_attempt(self, slot: Slot) -> None:
        machine, server = self.machine, self.server
        self.opens.append(self.now)
        self.attempts[slot] = self.now
        outstanding = len(self.attempts)
        self.most_outstanding = max(self.most_outstanding, outstanding)
        if self.checking and machine.connector.trouble is not None:
            young = sum(s.state is State.OPENING for s in self.attempts)
            assert young == 1, "more than one attempt within its patience in trouble"
        limit = self.now + server.connect_timeout
        if server.silent:
            self.at(limit, lambda: self._attempt_fails(slot, "timeout expired", Trouble.SILENT))
        elif server.refused:
            self.after(
                server.refuse_takes, lambda: self._attempt_fails(slot, REFUSED_TEXT, Trouble.GONE)
            )
        else:
            self.after(server.connect_takes, lambda: self._attempt_ends(slot))
            self.at(limit, lambda: self._attempt_fails(slot, "timeout expired", Trouble.SILENT))

    def _attempt_ends(self, slot: Slot) -> None:
        server = self.server
        if slot not in self.attempts or server.silent:
            return
        if server.refused:
            return self._attempt_fails(slot, REFUSED_TEXT, Trouble.GONE)
        if server.rejecting:
            return self._attempt_fails(slot, server.rejecting, Trouble.REJECTED)
        if sum(not c.dead for c in self.conns.values()) >= server.room:
            return self._attempt_fails(slot, CROWDED_TEXT, Trouble.CROWDED)
        del self.attempts[slot]
        self._numbers += 1
        conn = Conn(self._numbers, self.now)
        self.conns[slot] = slot.link = slot.conn = conn
        self._watch_idleness(conn)
        if self.path.max_age < inf:
            self.after(self.path.max_age, lambda: self._grow_old(conn))
        slot.incarnation, slot.standby = server.incarnation, server.standby
        conn.standby = server.standby
        if refusal := self.machine.identified(slot, self.now):
            del self.conns[slot]
            slot.link = slot.conn = None
            self.machine.open_failed(slot, self.now, refusal, Trouble.GONE)
        else:
            self.machine.opened(slot, self.now)
        self.settle()

    # the path

    def _watch_idleness(self, conn: Conn) -> None:
        """Cut it for its silence, if it is due; look again when it might be."""
        cut = self.path.idle_cut
        if not conn.usable or conn not in self.conns.values():
            return
        if self.now >= conn.heard_at + cut:
            self._end(conn)
        else:
            self.at(conn.heard_at + min(cut, 1e9), lambda: self._watch_idleness(conn))

    def _grow_old(self, conn: Conn) -> None:
        here = conn.usable and conn in self.conns.values()
        if here and self.now >= conn.born_at + self.path.max_age:
            self._end(conn)

    def _end(self, conn: Conn) -> None:
        self.path_cuts += 1
        if self.path.kill in KILLERS:
            self.cut([conn], KILLERS[self.path.kill])
        elif self.path.kill == "silence":
            conn.silenced = True
        else:
            conn.forgotten = True

    def _attempt_fails(
        self, slot: Slot, text: str, trouble: Trouble, abandoned: bool = False
    ) -> None:
        if self.attempts.pop(slot, None) is not None:
            self.machine.open_failed(slot, self.now, text, trouble, abandoned=abandoned)
            self.settle()

    # pinging and closing

    def _begin_ping(self, slot: Slot) -> None:
        assert slot.state is State.TESTING and slot not in self.pings
        assert slot.conn is not None, "a ping on a connection that somebody holds"
        self.pings[slot] = self.now
        self.pinged.append((self.now, slot.number))
        conn = self.conns[slot]
        self.after(self.server.ping_takes, lambda: self._answer_ping(slot, conn))

    def _answer_ping(self, slot: Slot, conn: Conn) -> None:
        if self.server.silent or conn.silenced or slot not in self.pings:
            return
        del self.pings[slot]
        if conn.forgotten:
            conn.cause = Cause("RST")
        if conn.dead:
            self.machine.hung_up(slot, self.now)
        else:
            conn.heard_at = self.now
            slot.standby = conn.standby
            self.machine.pong(slot, self.now)
        self.settle()

    def _closed(self, slot: Slot) -> None:
        conn = self.conns.pop(slot)
        self.closers.remove(slot)
        cause = None
        if slot.state is State.DEAD:
            seen = Cause("silence") if slot.why == SILENCE else (conn.cause or Cause("error"))
            cause = slot.cause or seen
        slot.conn = slot.link = None
        self.machine.closed_by(slot, self.now, cause)
        self.settle()

    # callers

    def request(self, timeout: float = 30.0) -> Caller:
        caller = Caller(len(self.callers) + 1, self.now, timeout)
        self.callers.append(caller)
        self.machine.requests += 1
        self._try(caller)
        return caller

    def _try(self, caller: Caller) -> None:
        machine, now = self.machine, self.now
        caller.tries += 1
        waiter = SimWaiter(caller, caller.deadline, now)
        while True:
            slot = machine.take(now) if machine.paused_at is None else None
            if slot is None:
                self._join(waiter)
                machine.acquire(waiter, now)
                break
            assert slot.conn is not None, "an idle slot without its connection"
            if now - slot.checked_at >= machine.policy.peek_after:
                conn = self.conns[slot]
                if conn.dead:
                    machine.hung_up(slot, now)
                    machine.discard(slot, now)
                    continue
                slot.heard_at, slot.checked_at = max(slot.heard_at, conn.heard_at), now
                if now - slot.heard_at > machine.policy.verify_after:
                    self._join(waiter)
                    machine.doubt(slot, waiter, now)
                    break
            assert now < slot.expires_at, "an expired connection was lent"
            self._lend(caller, slot)
            break
        self.settle()

    def _join(self, waiter: SimWaiter) -> None:
        self._joined += 1
        waiter.joined = self._joined
        waiter.caller.waiter = waiter
        self._waiting.append(waiter)

    def _lend(self, caller: Caller, slot: Slot) -> None:
        assert slot.state is State.LENT and slot not in self.holders
        caller.conn, slot.conn = slot.conn, None
        assert caller.conn is not None, "a lent slot without its connection"
        self.lent_dead += not caller.conn.usable
        slot.waiter = None
        caller.slot = slot
        caller.state = "holding"
        caller.ended = self.now
        self.holders[slot] = caller
        if caller.on_lent is not None:
            caller.on_lent()

    def _woken(self, waiter: SimWaiter) -> None:
        caller = waiter.caller
        if caller.state == "filling":
            caller.state, caller.refusal = "filled", waiter.refusal
            self.filled.append((self.now, waiter))
        if caller.waiter is not waiter or caller.state != "waiting":
            return
        if waiter.refusal is not None:
            caller.state, caller.refusal, caller.ended = "refused", waiter.refusal, self.now
        elif waiter.slot is not None:
            slot, waiter.slot = waiter.slot, None
            caller.waiter = None
            if slot.state is State.LENT:
                self._lend(caller, slot)
            else:
                self.machine.discard(slot, self.now)
                self._try(caller)
        else:
            raise AssertionError("woken for nothing")
        if self.checking:
            self.check()

    def _let_go(self, caller: Caller) -> Slot:
        assert caller.state == "holding" and caller.slot is not None
        slot, caller.slot = caller.slot, None
        conn, caller.conn = caller.conn, None
        del self.holders[slot]
        caller.state = "done"
        if caller.bound is not None:
            self.machine.unbind(slot)
        slot.conn = conn
        return slot

    def release(self, caller: Caller) -> None:
        """Return the connection; one that is seen to be broken is discarded."""
        slot = self._let_go(caller)
        conn = self.conns[slot]
        self.broken += not conn.usable
        if conn.dead:
            self.machine.discard(slot, self.now, dead=True, returned=True)
        else:
            if not (self.server.silent or conn.silenced):
                conn.heard_at = self.now
            waiter = self.machine.give(slot, self.now)
            if waiter is not None:
                assert isinstance(waiter, SimWaiter)
                waiter.wake()
                self.after(self.wake_takes, lambda: self._woken(waiter))
        self.settle()

    def bind(self, caller: Caller, seconds: float, *, busy: bool = True) -> Bound:
        """Give the caller's loan a deadline."""
        assert caller.slot is not None
        caller.busy = busy
        caller.bound = self.machine.bind(caller.slot, self.now + seconds)
        self.settle()
        return caller.bound

    def release_broken(self, caller: Caller) -> None:
        self.machine.discard(self._let_go(caller), self.now, returned=True)
        self.settle()

    def release_with_work(self, caller: Caller, takes: float = 0.002) -> None:
        slot = self._let_go(caller)
        if self.machine.work(slot, self.now):
            self.workers.add(slot)
            self.after(takes, lambda: self._worked(slot))
        self.settle()

    def _worked(self, slot: Slot) -> None:
        self.workers.remove(slot)
        if self.conns[slot].dead:
            self.machine.discard(slot, self.now, dead=True)
        else:
            self.machine.worked(slot, self.now)
        self.settle()

    def drop(self, caller: Caller) -> None:
        """The borrower forgets the connection; the garbage collector finds it."""
        slot = self._let_go(caller)
        slot.conn = None
        self.machine.vanished(slot, self.now)
        self.settle()

    def abandon(self, caller: Caller) -> None:
        """Cancel a waiting caller; it may have been granted a slot already."""
        assert caller.state == "waiting" and caller.waiter is not None
        caller.state, caller.ended = "gone", self.now
        self.machine.abandon(caller.waiter, self.now)
        self.settle()

    def hold(self, seconds: float, timeout: float = 30.0) -> Caller:
        """A caller that returns what it gets after so long."""
        caller = self.request(timeout)

        def lent() -> None:
            self.after(seconds, lambda: caller.state == "holding" and self.release(caller))

        if caller.state == "holding":
            lent()
        else:
            caller.on_lent = lent
        return caller

    def borrow(self, count: int = 1) -> list[Caller]:
        """Callers that hold a connection now."""
        callers = [self.request() for _ in range(count)]
        self.run_while(lambda: any(c.state == "waiting" for c in callers))
        assert all(c.state == "holding" for c in callers)
        return callers

    def wait_full(self, timeout: float = 30.0) -> SimWaiter:
        caller = Caller(0, self.now, timeout)
        waiter = SimWaiter(caller, caller.deadline, self.now)
        caller.waiter = waiter
        caller.state = "filling"
        self.machine.wait_until_full(waiter, self.now)
        self.settle()
        return waiter

    # -- faults -------------------------------------------------------------------------------

    def cut(
        self, conns: list[Conn] | None = None, cause: Cause | None = None, *, share: float = 1.0
    ) -> list[Conn]:
        """Hang up on connections (default: all); the watch sees it."""
        chosen = [c for c in self.conns.values() if not c.dead] if conns is None else conns
        if share < 1.0:
            chosen = [c for c in chosen if self.random.random() < share]
        for conn in chosen:
            conn.cause = cause or Cause("RST")
            self.after(self.server.watch_takes, lambda conn=conn: self._seen(conn))
        return chosen

    def _seen(self, conn: Conn) -> None:
        for slot, here in list(self.conns.items()):
            if here is conn and not conn.silenced:
                self.pings.pop(slot, None)
                self.machine.hung_up(slot, self.now)
                self.settle()

    def cut_in_silence(self, conns: list[Conn] | None = None) -> list[Conn]:
        """Make a middlebox forget connections: nothing will ever be heard on them again."""
        chosen = list(self.conns.values()) if conns is None else conns
        for conn in chosen:
            conn.silenced = True
        return chosen

    def heal(self) -> None:
        """Server and network are well again; what hung is answered late, if they may."""
        server = self.server
        was_silent, server.silent = server.silent, False
        server.refused, server.rejecting = False, None
        if was_silent and server.late_answers:
            for slot in list(self.attempts):
                self.after(server.connect_takes, lambda slot=slot: self._attempt_ends(slot))
            for slot in list(self.pings):
                self.after(
                    server.ping_takes + server.late_spread * self.random.random(),
                    lambda slot=slot, conn=self.conns[slot]: self._answer_ping(slot, conn),
                )

    # -- the owner's orders -------------------------------------------------------------------

    def resize(self, min_size: int, max_size: int) -> None:
        policy = replace(self.machine.policy, min_size=min_size, max_size=max_size)
        self.machine.change(policy, self.now)
        self._oversize = max(self._oversize, self.machine.counted)
        self.settle()

    # failover

    def leads_to(self, timeline: int, system: int = 7, started: int = 1) -> None:
        """New connections reach this server; timeline 0 is a standby."""
        self.server.standby = timeline == 0
        self.server.incarnation = Incarnation(system, timeline, started, 0)

    def promote(self, conns: list[Conn]) -> None:
        for conn in conns:
            if conn.standby is not None:
                conn.standby = False

    def refuse_write(self, caller: Caller) -> None:
        """25006 on what this caller holds; he returns it."""
        slot = caller.slot
        assert slot is not None
        if slot.state is State.LENT:
            self.machine.wrong_role(slot, self.now)
            self.settle()
        self.release(caller)

    def claims_writes(self) -> None:
        self.machine.claims_writes(self.now)
        self.settle()

    def drain(self) -> None:
        self.machine.drain(self.now)
        self.settle()

    def pause(self) -> None:
        self.machine.pause(self.now)
        self.settle()

    def resume(self) -> None:
        self.machine.resume(self.now)
        self.settle()

    def close(self) -> None:
        self.machine.close(self.now)
        self.settle()

    def slept(self, seconds: float) -> None:
        self.machine.slept(seconds, self.now)
        self.settle()

    # -- what must always hold ----------------------------------------------------------------

    def check(self) -> None:
        machine = self.machine
        slots, idle, queue = machine.slots, machine.idle, machine.queue

        # The indices agree with the table.
        states = [slot.state for slot in slots]
        assert len(idle) == len(set(idle)) and set(idle) == {
            s for s in slots if s.state is State.IDLE
        }, "idle is not the set of IDLE slots"
        for slot in idle:
            assert not (machine.writes and slot.standby), "a standby rests in a pool that writes"
            assert slot.cause is None, "a demoted connection rests"
            old = slot.incarnation is not None and machine.history.outdated(slot.incarnation)
            assert not old, "a connection to an old primary rests"
        assert all(a.since <= b.since for a, b in itertools.pairwise(idle)), "idle order"
        doors = (State.IDLE, State.LENT)
        for state in State:
            if state not in (*doors, State.GONE):
                assert machine.tally[state] == states.count(state), f"tally of {state}"
        assert sum(machine.tally[s] for s in doors) == sum(states.count(s) for s in doors)
        assert State.GONE not in states
        assert machine.counted == sum(COUNTED[state] for state in states), "counted"

        # max_size holds, except just after it was lowered.
        self._oversize = max(machine.policy.most, min(self._oversize, machine.counted))
        assert machine.counted <= self._oversize, f"{machine.counted} connections"

        # Every slot is in the hands its state names, in no other, and none is forgotten.
        for slot in slots:
            hands = [
                slot in self.attempts,
                slot in self.pings,
                slot in self.closers,
                slot in self.workers,
                slot in self.holders,
                slot.waiter is not None,
            ]
            names = ["attempt", "ping", "closer", "worker", "holder", "grant"]
            found = [name for name, there in zip(names, hands, strict=True) if there]
            assert found == OWNER[slot.state] or (
                slot.state in (State.LENT, State.CORPSE)
                and len(found) == 1
                and found[0] in ("holder", "grant", "worker")
            ), f"{slot} is in the hands of {found}"
            if slot.waiter is not None:
                assert slot.waiter.slot is slot and slot.waiter.gone
            if slot in self.holders:
                assert slot.conn is None and self.holders[slot].conn is not None
        for slot in (*self.attempts, *self.conns):
            assert slot in slots, f"{slot} has left the table with its connection"

        # The queue: nobody waits beside a resting connection, unless for the pong of another
        # that was taken before it; none is served out of turn; no deadline is forgotten.
        if queue.live and idle and not machine.closed:
            tested = machine.tally[State.TESTING]
            assert queue.live <= tested or machine.paused_at is not None, (
                "somebody waits while a connection rests"
            )
        waiting = queue.waiting()
        assert queue.live == len(waiting)
        assert all(w.slot is None and w.refusal is None for w in waiting)
        granted = [w for w in self._waiting if w.slot is not None]
        assert all(w.slot.since < w.slot.expires_at for w in granted), "an expired one granted"
        self._waiting = [w for w in self._waiting if not w.gone]
        assert waiting == self._waiting, "the queue is not in the order of joining"
        if granted and waiting:
            assert max(w.joined for w in granted) < waiting[0].joined, "served out of turn"
        if waiting:
            assert machine.next_wake <= min(w.deadline for w in waiting), "a deadline unwatched"
        for bound in machine.bounds.values():
            due = bound.ends_at if bound.overdue else bound.until
            assert machine.next_wake <= due or machine.closed or not bound.current, "unwatched"
        assert machine.next_wake <= self.now + 5.0 or machine.closed

        # Whoever waits in a pool that has room waits for something.
        moving = (State.OPENING, State.TESTING, State.RETURNING, State.CLOSING)
        held_up = machine.connector.trouble or self.now < machine.connector.not_before
        held_up = held_up or machine.paused_at is not None
        if waiting and machine.counted < machine.policy.most and not held_up:
            assert any(machine.tally[s] for s in moving), "waiting for nothing"

    # -- for assertions -----------------------------------------------------------------------

    def count(self, *states: State) -> int:
        return sum(slot.state in states for slot in self.machine.slots)

    def tell_of(self, kind: type[Happening]) -> list[Any]:
        return [happening for _, happening in self.told if isinstance(happening, kind)]

    @property
    def retired(self) -> list[Retired]:
        return self.tell_of(Retired)

    @property
    def cuts(self) -> list[Cut]:
        return self.tell_of(Cut)

    @property
    def failures(self) -> list[OpenFailed]:
        return self.tell_of(OpenFailed)

    @property
    def successes(self) -> list[Opened]:
        return self.tell_of(Opened)

    @property
    def alive(self) -> list[Conn]:
        return [c for c in self.conns.values() if not c.dead and not c.silenced]


OWNER: dict[State, list[str]] = {
    State.OPENING: ["attempt"],
    State.DISOWNED: ["attempt"],
    State.IDLE: [],
    State.TESTING: ["ping"],
    State.SUSPECT: ["ping"],
    State.LENT: ["holder"],
    State.RETURNING: ["worker"],
    State.CORPSE: ["holder"],
    State.CLOSING: ["closer"],
    State.DEAD: ["closer"],
    State.GONE: [],
}


def started(seed: int = 0, **options: Any) -> World:
    """A world whose pool has filled up to ``min_size``."""
    world = World(seed=seed, **options)
    world.run(5.0)
    return world
