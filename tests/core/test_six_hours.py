"""Six quiet hours must cost next to nothing: the core's own CPU time, in virtual time."""

from __future__ import annotations

import gc
import time

from everpool.core.slot import State

from .simulation import World, started

HOURS = 6


def six_hours() -> tuple[World, float]:
    """20 connections, keepalive on, one request a second, each held for 5 ms."""
    world = started(min_size=20, max_size=20, checking=False)

    def come() -> None:
        world.hold(0.005)
        world.after(1.0, come)

    world.after(1.0, come)
    gc.collect()
    gc.disable()  # what this world remembers for its assertions is not the core's burden
    try:
        began = time.process_time()
        world.run(HOURS * 3600.0)
        return world, time.process_time() - began
    finally:
        gc.enable()


def yardstick() -> float:
    """CPU seconds of a fixed piece of plain Python: 0.08 where six hours take 0.75."""
    began = time.process_time()
    table: dict[int, int] = {}
    for number in range(1_000_000):
        table[number & 1023] = number
        if number < table[number & 1023] - 1:
            break
    return time.process_time() - began


def test_six_hours_take_less_than_a_second():
    # One second, or as much more as this machine is slower at the moment: process time counts
    # what a busy neighbour on the same core costs.
    tries = 0
    while True:
        before = yardstick()
        world, took = six_hours()
        if took < max(1.0, 16 * (before + yardstick()) / 2):
            break
        tries += 1
        assert tries < 5, f"{took:.2f} s"

    # And something happened in them.
    assert len(world.callers) >= HOURS * 3600 - 1
    assert all(c.state == "done" for c in world.callers[:-1])
    assert max(c.waited for c in world.callers[:-1]) <= 0.01
    assert len(world.pinged) >= 20 * HOURS * 3600 / 45 * 0.9  # keepalives
    assert len(world.retired) >= 20 * (HOURS - 1)  # lifetimes
    assert not world.cuts and not world.failures
    world.run(1.0)
    assert world.count(State.IDLE, State.LENT, State.TESTING) == 20 == len(world.machine.slots)
    world.check()
