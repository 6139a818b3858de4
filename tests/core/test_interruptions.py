"""An exception out of nowhere, at any line of the core: nothing is lost that reconcile can't find.

A signal handler may raise between any two instructions (Ctrl-C, a worker's time limit). Here
each line that the core executes in a busy half minute is interrupted once, and the shell does
what ``Machine.reconcile`` asks of it. Afterwards everybody must have been served, and the
pool must be whole.
"""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import pytest

from everpool.core import books, deadlines, machine, queue, supply, table, upkeep
from everpool.core.deadlines import Bound
from everpool.core.machine import Machine
from everpool.core.queue import Waiter
from everpool.core.slot import Slot, State

from .simulation import TERMINATED, World

FILES = {module.__file__ for module in (books, deadlines, machine, queue, supply, table, upkeep)}


class Interrupted(BaseException):
    pass


class Interrupter:
    """Raises once, at the n-th line of the core."""

    def __init__(self, at: int) -> None:
        self.met: list[str] = []  # the lines executed, in order
        self.at = at
        self.where = ""

    def __call__(self, frame: FrameType, event: str, arg: Any) -> Any:
        return self.line if frame.f_code.co_filename in FILES else None

    def line(self, frame: FrameType, event: str, arg: Any) -> Any:
        if event == "line":
            self.met.append(f"{frame.f_code.co_name}:{frame.f_lineno}")
            if len(self.met) == self.at:
                self.where = self.met[-1]
                raise Interrupted
        return self.line


class FragileMachine(Machine):
    """Every call may be interrupted; then the shell's rules are followed."""

    def tick(self, now: float) -> None:
        try:
            super().tick(now)
        except Interrupted:
            self.reconcile()

    def take(self, now: float) -> Slot | None:
        try:
            return super().take(now)
        except Interrupted:
            self.reconcile()
            return super().take(now)

    def give(self, slot: Slot, now: float) -> Waiter | None:
        try:
            return super().give(slot, now)
        except Interrupted:
            self.reconcile()
            return None

    def acquire(self, waiter: Waiter, now: float, **how: bool) -> None:
        try:
            super().acquire(waiter, now, **how)
        except Interrupted:
            self.give_up(waiter, now)

    def doubt(self, slot: Slot, waiter: Waiter, now: float, **how: bool) -> None:
        try:
            super().doubt(slot, waiter, now, **how)
        except Interrupted:
            self.give_up(waiter, now)

    def give_up(self, waiter: Waiter, now: float) -> None:
        super().abandon(waiter, now)
        self.reconcile()
        caller = waiter.caller  # type: ignore[attr-defined]
        caller.state, caller.ended = "gone", now

    def abandon(self, waiter: Waiter, now: float) -> None:
        try:
            super().abandon(waiter, now)
        except Interrupted:
            super().abandon(waiter, now)
            self.reconcile()

    def discard(
        self,
        slot: Slot,
        now: float,
        why: str = "unusable",
        *,
        dead: bool = False,
        returned: bool = False,
    ) -> None:
        try:
            super().discard(slot, now, why, dead=dead, returned=returned)
        except Interrupted:
            super().discard(slot, now, why, dead=dead)
            self.reconcile()

    def worked(self, slot: Slot, now: float) -> None:
        try:
            super().worked(slot, now)
        except Interrupted:
            if slot.state is State.RETURNING:
                super().worked(slot, now)
            self.reconcile()

    def opened(self, slot: Slot, now: float) -> None:
        try:
            super().opened(slot, now)
        except Interrupted:
            self.reconcile()
            if slot.state in (State.OPENING, State.DISOWNED):
                super().opened(slot, now)

    def pong(self, slot: Slot, now: float) -> None:
        try:
            super().pong(slot, now)
        except Interrupted:
            self.reconcile()
            super().pong(slot, now)

    def hung_up(self, slot: Slot, now: float) -> None:
        try:
            super().hung_up(slot, now)
        except Interrupted:
            self.reconcile()
            super().hung_up(slot, now)

    def bind(self, slot: Slot, until: float) -> Bound:
        try:
            return super().bind(slot, until)
        except Interrupted:
            self.reconcile()
            return super().bind(slot, until)

    def unbind(self, slot: Slot) -> None:
        try:
            super().unbind(slot)
        except Interrupted:
            super().unbind(slot)
            self.reconcile()

    def closed_by(self, slot: Slot, now: float, cause: Any) -> None:
        try:
            super().closed_by(slot, now, cause)
        except Interrupted:
            self.reconcile()
            if slot.state in (State.CLOSING, State.DEAD):
                super().closed_by(slot, now, cause)


def busy_half_minute(interrupter: Interrupter) -> World:
    world = World(
        machine=FragileMachine,
        checking=False,
        wake_takes=0.001,
        min_size=2,
        max_size=3,
        max_lifetime=8.0,
        keepalive=3.0,
        max_idle=4.0,
    )
    sys.settrace(interrupter)
    try:
        for number in range(8):
            world.hold(0.003)
            if number % 3 == 0:
                for caller in [c for c in world.callers if c.state == "holding"]:
                    world.release_with_work(caller)
            world.run(0.004)
        world.run(4.0)
        world.cut(list(world.conns.values())[:1], TERMINATED)
        left = [world.hold(0.01, timeout=1.0) for _ in range(6)]
        world.run(0.002)
        if left[-1].state == "waiting":
            world.abandon(left[-1])
        bound = [c for c in (world.request(), world.request()) if c.state == "holding"]
        for caller in bound:
            world.bind(caller, 0.2, busy=caller is bound[0])
        world.run(0.5)
        for caller in [c for c in bound if c.state == "holding"]:
            world.release(caller)
        world.cut_in_silence(list(world.conns.values())[:1])
        world.run(1.0)
        caller = world.request()
        world.run(0.5)
        if caller.state == "holding":
            world.release_broken(caller)
        world.run(6.0)
    finally:
        sys.settrace(None)
    return world


def is_whole(world: World) -> None:
    for caller in [c for c in world.callers if c.state == "holding"]:
        world.release(caller)
    world.run(40.0)
    stuck = [c for c in world.callers if c.state in ("waiting", "holding")]
    assert not stuck, f"{stuck} are stuck"
    world.check()
    assert 2 <= world.count(State.IDLE, State.TESTING) <= 3
    last = world.hold(0.01)
    world.run(1.0)
    assert last.state == "done"


def test_the_half_minute_ends_well_uninterrupted():
    is_whole(busy_half_minute(Interrupter(-1)))


def moments(met: list[str]) -> list[int]:
    """When to interrupt: each line the first, the last and a middle time it is executed."""
    when: dict[str, list[int]] = {}
    for number, line in enumerate(met, 1):
        when.setdefault(line, []).append(number)
    return sorted({n for ns in when.values() for n in (ns[0], ns[len(ns) // 2], ns[-1])})


@pytest.mark.parametrize("part", range(4))
def test_an_interruption_at_any_line_loses_nothing(part):
    uninterrupted = Interrupter(-1)
    busy_half_minute(uninterrupted)
    assert len(set(uninterrupted.met)) > 250
    for at in moments(uninterrupted.met)[part::4]:
        interrupter = Interrupter(at)
        try:
            is_whole(busy_half_minute(interrupter))
        except BaseException as error:
            error.add_note(f"interrupted at line {at} of the run: {interrupter.where}")
            raise
