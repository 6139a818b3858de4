"""The engine: carries out what the core orders, and tells it what happened.

One method for each order (``_order_*``), one turn of the background (``_turn``), and what the
connecting and resetting jobs do in the pool. Everything here runs outside the mutex except the calls of the core.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping
from math import inf
from random import random
from threading import RLock
from time import monotonic, time
from typing import TYPE_CHECKING, Any, ClassVar, Generic
from weakref import ref

import psycopg
from psycopg.pq import TransactionStatus
from psycopg_pool.abc import ACT

from .. import ping
from ..clock import SuspendClock
from ..conninfo import hosts, redact
from ..core import effects as order
from ..core.health import Condition
from ..core.machine import Machine
from ..core.policy import Policy
from ..core.slot import Slot, State
from ..core.supply import SILENCE
from ..core.verdict import Cause, Trouble, judge_connect
from ..runtime import aio as rt
from ..subscriptions import Hub
from ..watch import DEAD, Link, Watch
from ..work.failing import brief, told
from .identifying import CannotTell, ask, in_hot_standby
from .jobs import (
    cancel_job,
    close_unowned,
    connect_job,
    give_back_job,
    reconnect_failed_job,
    reset_job,
)

logger = logging.getLogger("everpool")

IDLE = TransactionStatus.IDLE
UNKNOWN = TransactionStatus.UNKNOWN
INTRANS = TransactionStatus.INTRANS
INERROR = TransactionStatus.INERROR
ACTIVE = TransactionStatus.ACTIVE

# The background's next turn after an internal error: soon, but not in a loop.
AFTER_ERROR = 0.1


if TYPE_CHECKING:
    from .listening import AsyncListening


class Guard:
    """A deadline for a call that waits on a connection: then its socket is shut down."""

    __slots__ = ("deadline", "fired", "link")

    def __init__(self, link: Link, deadline: float) -> None:
        self.link = link
        self.deadline = deadline
        self.fired = False


class AsyncEngine(Generic[ACT]):
    """The part of a pool that does things. ``AsyncConnectionPool`` adds the part people call."""

    name: str
    conninfo: Any
    kwargs: Any
    connection_class: type[ACT]
    _configure: Any
    _hub: Hub
    _hinted: bool  # whether the log has said what the host's name gives away
    _lessons: Mapping[str, Any] | None  # what `findings` of an earlier pool returned
    _forked = False  # in a child that has not used the pool yet
    _reset: Any

    def _assemble(self, policy: Policy) -> None:
        """Make what exists before the pool is opened, and again in a forked child."""
        self._policy = policy
        self._mutex = rt.Mutex()
        self._reading = RLock()  # of what the fast paths depend on
        self._machine = Machine(policy, monotonic(), random)
        self._machine.closed, self._machine.condition = True, Condition.CLOSED
        self._background: rt.Background | None = None
        self._jobs: dict[Slot, rt.Job | None] = {}
        self._guards: set[Guard] = set()
        self._resetting: set[Slot] = set()
        self._vanished: deque[Slot] = deque()
        self._forsaken: deque[AsyncListening] = deque()  # whose listeners have been collected
        self._clock = SuspendClock()
        self._probing = False  # whether the background's next turn is to look for news
        self._turned_at = self._due = monotonic()  # the background's last turn, and its next

    def _new_machine(self, policy: Policy) -> Machine:
        machine, lessons = Machine(policy, monotonic(), random), self._lessons
        if lessons is not None:
            machine.taught(lessons, max(0.0, time() - lessons["saved_at"]), monotonic())
        return machine

    def _start(self) -> None:
        self._watch = Watch()
        self._machine = self._new_machine(self._policy)
        self._background = rt.Background(self.name, self._watch, ref(self))
        self._background.start(self._policy.num_workers)
        self._forked = False
        with self._mutex:
            self._machine.tick(monotonic())
        self._perform()

    def _stop(self) -> list[Any]:
        """Close all that rests and stop what runs; return what to wait for."""
        with self._mutex:
            self._machine.close(monotonic())
        self._perform()
        self._hub.write(inf)
        background, self._background = self._background, None
        return background.stop() if background else []

    # -- orders -------------------------------------------------------------------------------

    def _perform(self) -> None:
        """Carry out the core's orders, and those that follow from doing so.

        What an order finds out it only tells the core: the loop here sees to what follows.
        """
        machine = self._machine
        orders: list[order.Effect] = []
        done = 0
        try:
            while machine.effects:
                done = 0
                with self._mutex:
                    orders, machine.effects = machine.effects, []
                while done < len(orders):
                    effect = orders[done]
                    self._ORDERS[type(effect)](self, effect)
                    done += 1
            background = self._background
            if background is not None:
                background.alarm(machine.next_wake)
        except BaseException as ex:
            # What was interrupted is done again; a mistake of ours must not be.
            done += isinstance(ex, Exception)
            with self._mutex:
                machine.effects[:0] = orders[done:]
            self._recover()
            raise

    # After an interruption an order may come twice, or before the core could confirm it: each
    # looks at the state of what it concerns.

    def _order_open(self, effect: order.Open) -> None:
        slot, background = effect.slot, self._background
        if slot in self._jobs or slot.state not in (State.OPENING, State.DISOWNED):
            return  # begun already
        try:
            if background is None:
                raise RuntimeError("the pool was closed")
            job = background.connect(connect_job, ref(self), slot)
            with self._mutex:
                if slot.state in (State.OPENING, State.DISOWNED):  # else it is done already
                    self._jobs.setdefault(slot, job)
        except RuntimeError as ex:  # the interpreter is going: no threads, no tasks
            with self._mutex:
                self._machine.open_failed(slot, monotonic(), str(ex), Trouble.GONE)

    def _order_abandon(self, effect: order.Abandon) -> None:
        job = self._jobs.get(effect.slot)
        if job is not None:
            job.stop()

    def _order_ping(self, effect: order.Ping) -> None:
        slot = effect.slot
        link, conn = slot.link, slot.conn
        if link is None:
            return  # closed meanwhile, by another thread
        with link.mutex:
            if slot.state not in (State.TESTING, State.SUSPECT) or link.pinged_at == slot.sent_at:
                return  # closed meanwhile, or sent already
            link.pinged_at = slot.sent_at
            if link.peek() == DEAD:
                sent = False  # sending would provoke a reset, which destroys its last words
            elif not rt.seize(conn.lock):
                logger.warning(
                    "connection %s of pool %r is still used by a caller who returned it: discarded",
                    slot.number,
                    self.name,
                )
                slot.cause = Cause("misuse", text="used after it was returned")
                sent = False
            else:
                sent = ping.send(conn, link)
        if not sent:
            self._hung_up(slot)

    def _order_close(self, effect: order.Close) -> None:
        slot = effect.slot
        link, conn = slot.link, slot.conn
        if slot.state not in (State.CLOSING, State.DEAD):
            return
        if link is not None:
            dead = slot.state is State.DEAD
            with link.mutex:
                link.anchor = None
                pinging = link.pinging
                if dead and slot.cause is None:
                    slot.cause = self._last_words(slot, conn, link)
                if pinging:
                    ping.give_up(conn, link)
                    conn.lock.release()  # a caller who still uses it waits for this
                if dead or slot.why == "silent, place needed":
                    link.abort()
                link.close()
                misused = slot.cause is not None and slot.cause.style == "misuse"
                if not misused:
                    close_unowned(conn)
        slot.conn = slot.link = None
        with self._mutex:
            if slot.state in (State.CLOSING, State.DEAD):
                cause = slot.cause if slot.state is State.DEAD else None
                self._machine.closed_by(slot, monotonic(), cause)

    def _last_words(self, slot: Slot, conn: Any, link: Link) -> Cause:
        if slot.why == SILENCE:
            return Cause("silence")
        if conn is None:
            return Cause(link.ending())
        return ping.last_words(conn, link)

    def _order_cancel(self, effect: order.Cancel) -> None:
        bound, background = effect.bound, self._background
        link = bound.slot.link
        anchor = link and link.anchor  # None if it was closed meanwhile, by another thread
        conn = anchor and anchor()
        with self._mutex:
            if bound.cancelling is not None or bound.committing or not bound.current:
                # A server that waits for its standby would answer a COMMIT that is cancelled as
                # if it were safe; it gets the grace to answer by itself.
                return
            # Only read; the borrower makes the calls. It is kept up to date by what he reads.
            if conn is None or conn.pgconn.transaction_status != ACTIVE:
                return self._machine.end(bound, monotonic())
            bound.cancelling = cancelling = rt.Waiter(monotonic(), bound.ends_at)
        try:
            if background is None:
                raise RuntimeError("the pool was closed")
            background.connect(cancel_job, conn, cancelling)  # the workers may all be busy
        except RuntimeError:  # no thread for it: the connection will be ended
            cancelling.gone = True

    def _order_abort(self, effect: order.Abort) -> None:
        link = effect.slot.link
        if link is not None and effect.slot.state in (State.CORPSE, State.DEAD):
            link.abort()
        bound = self._machine.bounds.get(effect.slot)
        if bound is not None and bound.cancelling is not None:
            bound.cancelling.wake()  # who returns it need not wait for that

    def _order_wake(self, effect: order.Wake) -> None:
        if effect.waiter.gone:
            effect.waiter.wake()

    def _order_reconnect_failed(self, effect: order.ReconnectFailed) -> None:
        background = self._background
        if background is not None:
            background.work(reconnect_failed_job, ref(self))

    def _order_tell(self, effect: order.Tell) -> None:
        hub, background = self._hub, self._background
        hub.publish(self._machine.happenings)
        hub.dispatch(rt.spawn)
        if True:  # ASYNC
            hub.man()
        else:
            if background is None:
                hub.man()
            elif hub.short:
                background.alarm(monotonic())  # its thread starts the dispatchers
        if background is not None:
            background.alarm(hub.log_due)
        else:
            hub.write(inf)  # what a closed pool gets back is told at once

    _ORDERS: ClassVar[dict[type, Callable[[AsyncEngine[Any], Any], None]]] = {
        order.Open: _order_open,
        order.Abandon: _order_abandon,
        order.Ping: _order_ping,
        order.Close: _order_close,
        order.Cancel: _order_cancel,
        order.Abort: _order_abort,
        order.Wake: _order_wake,
        order.ReconnectFailed: _order_reconnect_failed,
        order.Tell: _order_tell,
    }

    # -- what happens -------------------------------------------------------------------------

    def _turn(self, ready: list[tuple[Link, bool]]) -> float:
        """One turn of the background: what the watch saw, then what is due.

        Answers are read before anything is judged late, so a delay of our own is never
        mistaken for silence. Returns when the next turn is due.
        """
        machine = self._machine
        try:
            for link, hung in ready:
                try:
                    self._seen(link, hung)
                except Exception:  # the others' hang-ups are told only once
                    logger.exception("pool %r: internal error in the watch", self.name)
            while self._vanished:
                with self._mutex:
                    machine.vanished(self._vanished.popleft(), monotonic())
            while self._forsaken and (background := self._background) is not None:
                background.work(give_back_job, self._forsaken.popleft())
            now = monotonic()
            # After an interruption a turn is due since ever.
            gap = self._clock.gap(now, machine.next_wake if machine.next_wake > -inf else now)
            if gap is not None:
                with self._mutex:
                    machine.slept(gap, now)
            self._fire_guards(now)
            if self._probing:
                self._probing = False
                with self._mutex:
                    machine.probe(now)
            if now >= machine.next_wake:
                with self._mutex:
                    machine.tick(now)
            self._perform()
            if now >= self._hub.log_due:
                if True:  # ASYNC
                    self._hub.write(now)
                else:
                    self._hub.write_aside(now)
            if False:  # ASYNC
                self._hub.man()
            guards = (guard.deadline for guard in list(self._guards))
            self._turned_at = now
            self._due = min([machine.next_wake, self._hub.log_due, *guards])
            return self._due
        except Exception:
            # The background must outlive any mistake of ours: rebuild, and say so.
            logger.exception("pool %r: internal error in the background", self.name)
            with self._mutex:
                machine.reconcile()
            return monotonic() + AFTER_ERROR

    def _seen(self, link: Link, hung: bool) -> None:
        slot = link.slot()
        if slot is None:
            return
        if link.pinging:
            self._collect(slot, link)
        elif hung and self._policy.watch and link.peek() == DEAD:
            self._hung_up(slot)

    def _collect(self, slot: Slot, link: Link) -> None:
        with link.mutex:
            if not link.pinging or slot.state not in (State.TESTING, State.SUSPECT):
                return
            answer = ping.collect(slot.conn, link)
            if answer is ping.Answer.PONG:
                slot.conn.lock.release()
        if answer is ping.Answer.PONG:
            with self._mutex:
                if slot.standby is not None and (standby := in_hot_standby(slot.conn)) is not None:
                    slot.standby = standby
                self._machine.pong(slot, monotonic())
                if link.news:
                    slot.checked_at = 0.0  # the next lending has something to deliver
        elif answer is ping.Answer.DEAD:
            self._hung_up(slot)

    def _hung_up(self, slot: Slot) -> None:
        with self._mutex:
            self._machine.hung_up(slot, monotonic())

    def _fire_guards(self, now: float) -> None:
        for guard in list(self._guards):
            if now >= guard.deadline:
                guard.fired = True
                self._guards.discard(guard)
                guard.link.abort()

    def _recover(self, waiter: rt.Waiter | None = None) -> None:
        """Make the books true after an interruption in the middle of a transition.

        What is still to be done, the background does.

        :param waiter: who was interrupted, if that was somebody who wanted a connection.
        """
        with self._mutex:
            if waiter is not None:
                self._machine.abandon(waiter, monotonic())
            self._machine.reconcile()
        background = self._background
        if background is not None:
            for slot in list(self._machine.slots):
                if slot.state is State.RETURNING and slot not in self._resetting:
                    background.work(reset_job, ref(self), slot)
            background.rouse()

    # -- connecting ---------------------------------------------------------------------------

    async def _join(self, slot: Slot, conn: Any) -> None:
        """Make a new connection one of the pool's: its link, the user's configuration."""
        link = self._watch.add(conn.pgconn.socket, slot)
        slot.conn, slot.link = conn, link
        conn._slot = slot
        if type(conn).wait is rt.STOCK.wait:
            conn.wait = rt.interruptible_wait(conn, link)
        else:
            link.doubtful = True  # nobody notes what is unanswered
        if type(conn).cancel_safe is rt.STOCK.cancel_safe:
            conn.cancel_safe = rt.brief_cancel(conn, link)
        await self._identify(slot, conn, link)
        if self._configure:
            conn._pool = self
            limit = self._policy.callback_timeout
            try:
                await self._bounded(self._configure, conn, link, monotonic() + limit)
            except TimeoutError:
                raise psycopg.OperationalError(
                    f"configure callback did not end within callback_timeout={limit:g} s"
                ) from None
            _demand_idle(conn, "configure", self._configure)
        conn._pool = None
        link.anchor = ref(conn, _vanish(ref(self), slot))
        with self._mutex:
            self._jobs.pop(slot, None)
            conn._created_at = monotonic()
            self._machine.opened(slot, conn._created_at)
            conn._expire_at = slot.expires_at
            if link.news:
                slot.checked_at = 0.0  # the first lending has something to deliver
        link.listen(False)  # a hang-up seen while nobody cared is told again
        self._perform()

    async def _identify(self, slot: Slot, conn: Any, link: Link) -> None:
        """Find out whom a new connection leads to.

        :raises OperationalError: it is not to be used, or was lost.
        """
        machine = self._machine
        if machine.asks:
            limit = self._policy.callback_timeout
            try:
                await self._bounded(_introduce, conn, link, monotonic() + limit)
            except CannotTell as ex:
                machine.asks = not ex.for_good
            except TimeoutError:
                raise psycopg.OperationalError(
                    "the server accepted the connection, but did not answer a query within"
                    f" callback_timeout={limit:g} s"
                ) from None
            else:
                # A pooler hands each transaction to another server, and may be saturated, when
                # the answer takes as long as a place in its queue: it is asked only once.
                machine.pooler = not slot.direct
                machine.asks = slot.direct
        if not machine.pooler:  # what a pooler says of it may be long past
            slot.standby = in_hot_standby(conn)
            if slot.standby is None and slot.incarnation is not None:
                slot.standby = slot.incarnation.standby
        with self._mutex:
            refusal = machine.identified(slot, monotonic())
        self._perform()
        if refusal:
            raise psycopg.OperationalError(refusal)

    def _hint(self, conninfo: str, kwargs: dict[str, Any]) -> None:
        """Say so, once, if the host's name gives an environment away that nobody has told of."""
        if self._hinted or not logger.isEnabledFor(logging.INFO):
            return
        self._hinted = True
        try:
            for host in hosts(conninfo, kwargs):
                from ..environments import hint_for  # the catalogue takes its time to load

                if found := hint_for(host, self._policy):
                    logger.info("pool %r: %s", self.name, found)
                    break
        except Exception as ex:  # no connection shall fail for it
            logger.debug("pool %r: no hint: %s", self.name, brief(ex))

    def _connect_failed(
        self, slot: Slot, job: rt.Job, ex: BaseException, conninfo: str, kwargs: dict[str, Any]
    ) -> None:
        if slot.link is not None:
            slot.link.close()
        slot.conn = slot.link = None
        stopped = isinstance(ex, rt.STOPPED)
        trouble, text = Trouble.GONE, type(ex).__name__
        try:
            pgconn = getattr(ex, "pgconn", None)
            text = redact("cancelled" if stopped else told(ex), conninfo, kwargs)
            trouble = judge_connect(
                f"{ex} {text}",  # what is told may be shortened
                needs_password=bool(pgconn and pgconn.needs_password),
                connected_before=self._machine.connector.successes > 0,
            )
        finally:  # whatever the user's values and exceptions are, the slot is accounted for
            self._open_failed(slot, text, trouble, abandoned=stopped and job.stopping)

    def _open_failed(
        self, slot: Slot, text: str, trouble: Trouble, *, abandoned: bool = False
    ) -> None:
        with self._mutex:
            self._jobs.pop(slot, None)
            self._machine.open_failed(slot, monotonic(), text, trouble, abandoned=abandoned)
        self._perform()

    async def _reset_returned(self, slot: Slot) -> None:
        """Run the user's ``reset`` on a returned connection, in the background."""
        with self._mutex:
            if slot.state is not State.RETURNING or slot in self._resetting:
                return  # ordered twice, after an interruption
            self._resetting.add(slot)
        conn, limit = slot.conn, self._policy.callback_timeout
        sound = False
        try:
            await self._bounded(self._reset, conn, slot.link, monotonic() + limit)
            _demand_idle(conn, "reset", self._reset)
            sound = True
        except Exception as ex:
            logger.warning("pool %r: error resetting connection: %s", self.name, brief(ex))
        finally:
            with self._mutex:
                self._resetting.discard(slot)
                if sound:
                    self._machine.worked(slot, monotonic())
                else:
                    dead = conn.pgconn.transaction_status == UNKNOWN
                    self._machine.discard(slot, monotonic(), "reset failed", dead=dead)
            self._perform()

    # -- bounded calls ------------------------------------------------------------------------

    async def _bounded(
        self, call: Callable[..., Any], conn: Any, link: Link, deadline: float
    ) -> None:
        """Make a call of the user's on a connection, and end it at the deadline.

        At the deadline the socket is shut down, which ends whatever waits on it, and the call
        is cancelled where that is possible. A callback in a thread that waits for something
        other than its connection cannot be ended.

        :raises TimeoutError: the deadline came first.
        """
        guard = Guard(link, deadline)
        self._guards.add(guard)
        background = self._background
        if background is not None:
            background.alarm(deadline)
        try:
            await rt.bounded(call, conn, deadline)
        except Exception as ex:
            if guard.fired:
                raise TimeoutError from ex
            raise
        finally:
            self._guards.discard(guard)
        if guard.fired:
            raise TimeoutError


def _vanish(pool_ref: ref[Any], slot: Slot) -> Callable[[Any], None]:
    """What to do when a connection is collected: only note it, this may run anywhere."""

    def vanish(_: Any) -> None:
        pool = pool_ref()
        if pool is not None and slot.state in (State.LENT, State.CORPSE, State.RETURNING):
            pool._vanished.append(slot)
            pool._watch.ring()

    return vanish


async def _introduce(conn: Any) -> None:
    slot = conn._slot
    session, slot.incarnation = await ask(conn)
    slot.direct = session.pid == conn.pgconn.backend_pid
    slot.session = session if slot.direct else None


def _demand_idle(conn: Any, kind: str, callback: Any) -> None:
    """:raises ProgrammingError: a callback left its connection in a transaction."""
    status = conn.pgconn.transaction_status
    if status != IDLE:
        raise psycopg.ProgrammingError(
            f"connection left in status {TransactionStatus(status).name} by {kind} function"
            f" {callback}: discarded"
        )
