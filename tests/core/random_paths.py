"""Random paths to a database, for judging what a pool learns on them.

    python -m tests.core.random_paths 10000

runs so many and prints what came of it. Each path has an idle cut between 30 s and 24 h (evenly on a
logarithmic scale), one of five ways to end connections, restarts, failovers and noise, a pool of 2 to
8 connections and little traffic or none. The pool begins with a keepalive of 600 s, because one of
less than a minute would look right without learning anything.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from multiprocessing import Pool
from typing import Any

from everpool.core import upkeep
from everpool.core.policy import Reason
from everpool.core.verdict import Cause

from .simulation import TERMINATED, Path, World

HOUR = 3600.0
DAY = 24 * HOUR
START = 600.0

KINDS = ("fin", "rst", "fatal", "rst-next", "silence")

# What is not given may be changed by what is learned.
FREE = {name: Reason("environment", "") for name in ("keepalive", "max_lifetime")}


@contextmanager
def long_sleeps(seconds: float = 300.0) -> Iterator[None]:
    """In virtual time nothing needs to look every five seconds whether the process was suspended."""
    before, upkeep.LONGEST_SLEEP = upkeep.LONGEST_SLEEP, seconds
    try:
        yield
    finally:
        upkeep.LONGEST_SLEEP = before


def pool_on(path: Path, seed: int, **policy: Any) -> World:
    """A pool on a path, free to learn."""
    settings = {"keepalive": START, "min_size": 4, "max_size": 4, "reasons": FREE, **policy}
    world = World(seed=seed, checking=False, **settings)
    world.path = path
    return world


def visit(world: World, every: float) -> None:
    """Requests at random, so many seconds apart on average."""

    def come() -> None:
        world.hold(world.random.uniform(0.001, 0.1))
        world.after(world.random.expovariate(1 / every), come)

    world.after(world.random.expovariate(1 / every), come)


def restart(world: World, *, silent: bool = False, down_for: float = 1.0) -> None:
    """The server goes and comes back: all connections end, new ones are refused meanwhile."""
    if silent:
        for conn in world.alive:
            conn.silenced = True
    else:
        world.cut(world.alive, TERMINATED)
    world.server.refused = True
    world.after(down_for, lambda: setattr(world.server, "refused", False))


def at_random(world: World, a_day: float, what: Any) -> None:
    """Something that happens so often a day, at any moment."""
    if a_day:

        def happen() -> None:
            what()
            world.after(world.random.expovariate(a_day / DAY), happen)

        world.after(world.random.expovariate(a_day / DAY), happen)


def trouble(world: World, restarts: float, failovers: float, flaps: float) -> None:
    """Restarts, silent failovers and deaths of single connections, so many a day."""
    random_ = world.random
    at_random(world, restarts, lambda: restart(world, down_for=random_.uniform(0.05, 20.0)))
    at_random(world, failovers, lambda: restart(world, silent=True, down_for=30.0))

    def flap() -> None:
        if world.alive:
            world.cut([random_.choice(world.alive)], Cause("RST"))

    at_random(world, flaps, flap)


@dataclass(frozen=True)
class Outcome:
    """What came of one path."""

    seed: int
    cut: float
    kill: str
    keepalive: float
    least: float  # the lowest keepalive on the way
    lifetime: float  # the lowest lifetime on the way
    relaxed: float  # what it was after a day and a half without the cut
    lent_dead: int
    broken: int


def live(seed: int, *, cut: float | None = None) -> Outcome:
    """A day and a half on a random path, or on one with this cut, and as long after the cut went."""
    dice = random.Random(seed)
    if cut is None:
        cut = 30.0 * (DAY / 30.0) ** dice.random()
    kill = dice.choice(KINDS)
    size = dice.randint(2, 8)
    with long_sleeps():
        world = pool_on(Path(idle_cut=cut, kill=kill), seed, min_size=size, max_size=size)
        if dice.random() < 0.5:
            visit(world, dice.uniform(20.0, 600.0))
        trouble(world, dice.choice([0, 1, 4]), dice.choice([0, 0, 1]), dice.choice([0, 2, 8]))
        least, lifetime = START, inf
        for _ in range(36):
            world.run(HOUR)
            least = min(least, world.machine.keepalive)
            lifetime = min(lifetime, world.machine.lifetime)
        keepalive = world.machine.keepalive
        world.path = Path()
        world.run(36 * HOUR)
    # A request in hand may be cut by a restart or a flap; that is not the path's idle cut.
    return Outcome(
        seed,
        cut,
        kill,
        keepalive,
        least,
        lifetime,
        world.machine.keepalive,
        world.lent_dead,
        world.broken,
    )


def main(count: int) -> None:
    with Pool() as workers:
        outcomes = list(workers.imap_unordered(live, range(count), chunksize=20))
    needed = [o for o in outcomes if o.cut < START]
    below = [o for o in outcomes if o.keepalive < o.cut]
    relaxed = [o for o in needed if o.relaxed > 0.9 * START]
    write = sys.stdout.write
    write(f"paths: {len(outcomes)}, of which {len(needed)} with a cut below {START:g} s\n")
    write(f"keepalive below the cut: {len(below)} ({len(below) / len(outcomes):.2%})\n")
    write(
        f"  where the cut is below {START:g} s: {sum(o in below for o in needed) / len(needed):.2%}\n"
    )
    write(f"relaxed a day and a half after the cut went: {len(relaxed) / len(needed):.2%}\n")
    idle = [o for o in outcomes if o.cut >= START]
    write(
        f"tightened though no cut asked for it: {sum(o.keepalive < START for o in idle)} of {len(idle)}\n"
    )
    write(
        f"lifetime tightened though nothing asked for it: {sum(o.lifetime < 3600 for o in outcomes)}\n"
    )
    write(f"loans of connections that were dead: {sum(o.lent_dead for o in outcomes)}\n")
    failed = [o for o in outcomes if o.keepalive >= o.cut]
    write(f"not below, by kind: {dict(Counter(o.kill for o in failed))}\n")
    for outcome in failed[:10]:
        write(f"  {outcome}\n")
    unrelaxed = [o for o in needed if o.relaxed <= 0.9 * START]
    for outcome in unrelaxed[:10]:
        write(f"  not relaxed: {outcome}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]))
