"""Outages, pauses and crowds in any order: counters never fall, and afterwards all is well."""

from __future__ import annotations

import random
from math import inf
from typing import Any

import pytest

from .simulation import PASSWORD_TEXT, World


def counters(world: World) -> tuple[int, ...]:
    machine = world.machine
    queued = machine.brief_waits + sum(machine.waits.counts)
    return machine.waits_none(), queued, machine.returns, machine.errors, machine.lost


def disturb(world: World, choose: random.Random) -> None:
    """One of the things that happen to pools."""
    match choose.randrange(16):
        case 0 | 1 | 2 | 3 | 4 | 5:
            world.hold(choose.choice([0.01, 0.3, 3.0]), timeout=choose.choice([0.2, 1.0, 5.0]))
        case 6:
            world.cut(share=0.5)
        case 7:
            world.cut_in_silence(list(world.conns.values())[:1])
        case 8:
            world.pause()
        case 9 | 10:
            world.resume()
        case 11:
            setattr(world.server, choose.choice(["refused", "silent"]), True)
        case 12:
            world.server.rejecting = choose.choice([None, PASSWORD_TEXT])
        case 13:
            world.server.room = choose.choice([1, inf, inf])
        case _:
            world.heal()
    world.run(choose.choice([0.003, 0.05, 0.5, 2.0]))


@pytest.mark.parametrize("when_down", ["wait", "fail"])
@pytest.mark.parametrize("size", [(0, 3), (3, 3), (1, 5), (0, 0), (0, 2)])
@pytest.mark.parametrize("seed", range(5))
def test_whatever_happens(seed: int, size: tuple[int, int], when_down: str) -> None:
    choose = random.Random(seed)
    options: dict[str, Any] = {"max_waiting": choose.choice([0, 5]), "leak_after": 5.0}
    least, most = size
    pooled = size not in [(0, 0), (0, 2)]
    world = World(
        seed=seed, min_size=least, max_size=most, pooled=pooled, when_down=when_down, **options
    )
    before = counters(world)
    for _ in range(400):
        disturb(world, choose)
        now = counters(world)
        assert all(a <= b for a, b in zip(before, now, strict=True))
        assert world.machine.errors == sum(world.machine.refusals.values())
        before = now
    world.resume()
    world.heal()
    world.server.room = inf
    world.run(150.0)
    assert all(caller.state != "waiting" for caller in world.callers)
    for _ in range(3):  # in a pool that need not be full only those who ask make it connect
        last = world.hold(0.01, timeout=5.0)
        world.run(3.0)
    assert last.state == "done" and world.machine.condition.value == "up"
