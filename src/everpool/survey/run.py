"""A survey for real: carries out what the plan decides, and notes what happens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field

from .. import ping
from ..core.environment import SILENCE
from ..watch import Watch
from .books import Books
from .evidence import Evidence
from .facts import Facts, ask
from .observation import BUSY, IDLE, OUTAGE, Limits, Observation
from .plan import Decision, Phase, Planner, Probe
from .wire import Target, Unreachable, Wire, clock

__all__ = ["Progress", "Result", "Unreachable", "survey"]

# An answer takes milliseconds; five seconds are for a path that loses packets. What does not
# answer by then, while others do, never will.
PING_LIMIT = 5.0

# The last questions have to be over when the budget is: they get up to this share of it.
LAST_SHARE = 0.1

# Refused connects are tried again a little later; after so many in a row there is nobody.
MOST_REFUSALS = 5
RETRY_AFTER = 0.5

# How often progress is told where nothing happens.
TELL_EVERY = 0.5


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a survey is. Times are seconds of the survey.

    :param expected: when it will be over, as far as can be told.
    :param latest: when it will be over at the latest.
    :param open: connections that are open, or being opened or closed.
    """

    now: float
    began: float
    expected: float
    latest: float
    open: int
    observations: Sequence[Observation]
    evidence: Evidence
    facts: Facts


@dataclass(slots=True)
class Result:
    """What a survey saw.

    :param facts: what the server says of itself.
    :param seconds: how long it has taken, earlier runs included.
    :param complete: it was neither interrupted nor out of time.
    :param trouble: why it ended early, where it could not go on; it names no host.
    """

    limits: Limits
    facts: Facts = field(default_factory=Facts)
    observations: list[Observation] = field(default_factory=list)
    seconds: float = 0.0
    complete: bool = False
    trouble: str = ""


async def survey(
    conninfo: str,
    limits: Limits,
    *,
    earlier: Result | None = None,
    ping_limit: float = PING_LIMIT,
    tell: Callable[[Progress], None] | None = None,
    stop: asyncio.Event | None = None,
) -> Result:
    """Measure what cuts connections on the way to a database.

    :param conninfo: a libpq conninfo or URL.
    :param earlier: the result of an earlier run, to go on from.
    :param ping_limit: how long an answer may take before it counts as none, in seconds.
    :param tell: called now and then with the progress.
    :param stop: ends the survey when set; what was left alone is asked first.
    :raises Unreachable: the first connection could not be opened.
    """
    run = _Run(conninfo, limits, earlier or Result(limits), ping_limit, tell, stop)
    return await run.all()


class _Run:
    def __init__(
        self,
        conninfo: str,
        limits: Limits,
        earlier: Result,
        ping_limit: float,
        tell: Callable[[Progress], None] | None,
        stop: asyncio.Event | None,
    ) -> None:
        self._target = Target(conninfo, limits.max_idle)
        self._limits = limits
        self._ping_limit = min(ping_limit, LAST_SHARE * limits.longest)
        self._tell = tell
        self._stop = stop or asyncio.Event()
        self._earlier = earlier.seconds
        self._zero = clock() - earlier.seconds
        self._books = Books(earlier.observations)
        self._facts = earlier.facts
        self._wires: dict[int, Wire] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._opening: dict[int, asyncio.Task[None]] = {}
        self._news = asyncio.Event()
        self._heard = 0.0  # when the last ping was sent that was answered
        self._refusals = 0
        self._not_before = 0.0
        self._trouble = ""
        self._told = 0.0
        self._failure: BaseException | None = None  # a mistake of ours, in a task

    def _now(self) -> float:
        return clock() - self._zero

    # -- the whole ----------------------------------------------------------------------------

    async def all(self) -> Result:
        loop = asyncio.get_running_loop()
        self._watch = Watch()
        loop.add_reader(self._watch.fileno(), self._news.set)
        stopping = asyncio.create_task(self._await_stop())
        asking = asyncio.create_task(self._ask_facts())
        complete = False
        try:
            await asyncio.wait([asking, stopping], return_when=asyncio.FIRST_COMPLETED)
            if asking.done():
                self._facts = asking.result()
                deadline = self._earlier + self._limits.longest - self._ping_limit
                self._planner = Planner(self._limits, deadline, tcp=not self._facts.unix)
                await self._go()
                complete = not (self._stop.is_set() or self._trouble or self._now() >= deadline)
        finally:
            stopping.cancel()
            asking.cancel()
            await asyncio.wait([asking, stopping])
            await self._end()
            loop.remove_reader(self._watch.fileno())
            self._watch.close()
        return Result(
            self._limits,
            self._facts,
            self._books.observations,
            self._now(),
            complete,
            self._trouble,
        )

    async def _ask_facts(self) -> Facts:
        conn = await self._target.connect(IDLE)
        wire = Wire(conn, self._watch, 0)
        try:
            self._target.settle_on(conn)
            return await ask(conn)
        finally:
            await wire.close()

    async def _go(self) -> None:
        while True:
            if self._failure is not None:
                raise self._failure
            self._news.clear()
            for link, hung in self._watch.wait(0):
                slot = link.slot()
                if slot is not None and slot.number in self._wires:
                    self._seen(self._books.probes[slot.number], hung)
            now = self._now()
            self._judge(now)
            decision = self._planner.decide(
                self._books.observations,
                list(self._books.probes.values()),
                now,
                stopping=self._stop.is_set() or bool(self._trouble),
            )
            self._show(decision, now)
            if decision.done:
                return
            self._carry_out(decision, now)
            await self._sleep(self._wake(decision, now) - self._now())

    def _wake(self, decision: Decision, now: float) -> float:
        """When to look again, though nothing may have happened."""
        probes = self._books.probes.values()
        moments = [p.asked_at + self._ping_limit for p in probes if p.phase is Phase.ASKED]
        if self._not_before > now:
            moments.append(self._not_before)
        return min([now + TELL_EVERY, decision.wake, *moments])

    async def _sleep(self, seconds: float) -> None:
        """Until there is news, but no longer than that."""
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await self._news.wait()
        except TimeoutError:
            pass

    async def _await_stop(self) -> None:
        await self._stop.wait()
        self._news.set()

    async def _end(self) -> None:
        """Close everything, and wait until it is closed."""
        for probe in list(self._books.probes.values()):
            if probe.kind == BUSY and probe.phase in (Phase.RESTING, Phase.ASKED):
                self._books.finish(probe)
                self._close(probe)
            elif probe.phase is not Phase.CLOSING:
                self._books.dropped(probe)
                self._close(probe)
        for task in self._opening.values():
            task.cancel()
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _spawn(
        self, probe: Probe, work: Callable[[Probe], Coroutine[None, None, None]]
    ) -> asyncio.Task[None]:
        task = asyncio.create_task(work(probe))
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._news.set()
        if not task.cancelled() and self._failure is None:
            self._failure = task.exception()

    # -- what is decided ----------------------------------------------------------------------

    def _carry_out(self, decision: Decision, now: float) -> None:
        for number in decision.close:
            probe = self._books.probes[number]
            self._books.dropped(probe)
            self._close(probe)
        for number in decision.ask:
            probe = self._books.probes[number]
            if probe.phase is Phase.RESTING:
                self._ask(probe)
        if now < self._not_before:
            return
        for kind, rest in decision.open:
            probe = self._books.open(kind, rest, now)
            self._opening[probe.number] = self._spawn(probe, self._open)

    async def _open(self, probe: Probe) -> None:
        probe.began = self._now()
        try:
            conn = await self._target.connect(probe.kind)
        except Unreachable as error:
            self._books.gone(probe)
            self._refusals += 1
            self._not_before = self._now() + RETRY_AFTER * self._refusals
            if self._refusals >= MOST_REFUSALS:
                self._trouble = f"no more connections could be opened: {error.kind}"
            return
        finally:
            del self._opening[probe.number]
        self._refusals = 0
        wire = Wire(conn, self._watch, probe.number)
        if probe.phase is not Phase.OPENING:  # not wanted any more
            await wire.close()
            self._books.gone(probe)
            return
        self._wires[probe.number] = wire
        self._books.opened(probe, self._now() - wire.silence)

    def _close(self, probe: Probe) -> None:
        if probe.number in self._wires:  # else it is still being opened, and sees to itself
            self._spawn(probe, self._close_wire)

    async def _close_wire(self, probe: Probe) -> None:
        await self._wires.pop(probe.number).close()
        self._books.gone(probe)

    def _ask(self, probe: Probe) -> None:
        wire = self._wires[probe.number]
        # Sending would provoke a reset, which destroys the last words of who has hung up.
        if wire.dead:
            self._died(probe)
            return
        self._books.asked(probe, self._now())
        if not wire.ask():
            self._died(probe)

    # -- what happens -------------------------------------------------------------------------

    def _seen(self, probe: Probe, hung: bool) -> None:
        wire = self._wires[probe.number]
        if probe.phase is Phase.ASKED:
            answer = wire.answer()
            if answer is ping.Answer.PONG:
                self._heard = max(self._heard, probe.asked_at)
                self._books.answered(probe, self._now())
                if probe.kind != BUSY:
                    self._close(probe)
            elif answer is ping.Answer.DEAD:
                self._died(probe)
        elif probe.phase is Phase.RESTING and hung and wire.dead:
            self._died(probe)

    def _died(self, probe: Probe) -> None:
        self._books.ended(probe, self._now(), *self._wires[probe.number].ending())
        self._close(probe)

    def _judge(self, now: float) -> None:
        """An answer that does not come is silence only if others came meanwhile."""
        for probe in list(self._books.probes.values()):
            if probe.phase is Phase.ASKED and now >= probe.asked_at + self._ping_limit:
                if self._heard > probe.asked_at:
                    self._books.ended(probe, now, SILENCE)
                    self._close(probe)
                else:
                    self._spawn(probe, self._compare)
                    probe.phase = Phase.JUDGED

    async def _compare(self, probe: Probe) -> None:
        """Let a fresh connection, in the place of one that does not answer, say if anybody does."""
        await self._wires.pop(probe.number).close()
        try:
            conn = await self._target.connect(IDLE)
        except Unreachable:
            outcome = OUTAGE
        else:
            outcome = SILENCE
            await Wire(conn, self._watch, probe.number).close()
        self._books.ended(probe, self._now(), outcome)
        self._books.gone(probe)

    def _show(self, decision: Decision, now: float) -> None:
        if self._tell is None or (now < self._told + TELL_EVERY and not decision.done):
            return
        self._told = now
        latest = self._earlier + self._limits.longest
        self._tell(
            Progress(
                now=now,
                began=self._earlier,
                expected=min(latest, decision.expected),
                latest=latest,
                open=len(self._books.probes),
                observations=self._books.observations,
                evidence=self._planner.evidence(
                    self._books.observations, self._books.probes.values()
                ),
                facts=self._facts,
            )
        )
