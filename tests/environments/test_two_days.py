"""Two quiet days on every path of the catalogue, with the settings that follow from it."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest

from everpool import environments
from everpool.core.environment import Environment
from everpool.core.policy import SETTINGS, Policy, build
from tests.core.random_paths import HOUR, long_sleeps, visit
from tests.core.simulation import Path, World

# Sparse enough that every connection idles for as long as the pool lets it.
EVERY = 300.0


def cutting() -> list[Environment]:
    return [
        entry.facts
        for entry in environments.entries().values()
        if (entry.facts.idle_cut or inf) < inf or (entry.facts.max_age or inf) < inf
    ]


def two_days(facts: Environment, policy: Policy, hours: float = 48.0, **server: Any) -> World:
    settings = {name: getattr(policy, name) for name in SETTINGS}
    world = World(seed=1, checking=False, reasons=policy.reasons, **settings)
    # How it ends them is not always known: then in the worst way, in silence.
    world.path = Path(facts.idle_cut or inf, facts.max_age or inf, facts.kill or "silence")
    visit(world, EVERY)
    with long_sleeps():
        world.run(hours * HOUR)
    return world


def served(world: World) -> None:
    """Nobody noticed anything."""
    done = [caller for caller in world.callers if caller.state != "waiting"]
    assert len(done) > 150
    assert {caller.state for caller in done} <= {"done", "holding"}
    assert world.lent_dead == world.broken == 0
    assert max(caller.waited for caller in done) < 0.5


@pytest.mark.parametrize("facts", cutting(), ids=lambda facts: facts.name)
def test_under_the_settings_that_follow_nothing_is_cut(facts: Environment) -> None:
    world = two_days(facts, build(environment=(facts,)))
    served(world)
    assert world.path_cuts == 0


@pytest.mark.parametrize(
    "facts",
    [facts for facts in cutting() if (facts.idle_cut or inf) >= 60],
    ids=lambda facts: facts.name,
)
def test_the_defaults_survive_it_too(facts: Environment) -> None:
    world = two_days(facts, Policy(), hours=16.0)
    served(world)
    if (facts.max_age or inf) > Policy().max_lifetime:
        assert world.path_cuts == 0


@pytest.mark.parametrize("kill", ["fin", "rst", "rst-next", "silence", "fatal"])
def test_without_them_the_same_path_cuts(kill: str) -> None:
    """What the tests above could not see otherwise."""
    facts = Environment(idle_cut=350.0, kill=kill)
    world = two_days(facts, Policy(keepalive=inf, verify_after=inf, max_idle=inf, learn=False))
    assert world.path_cuts > 100
    if kill in ("rst-next", "silence"):
        assert world.lent_dead > 20


def test_a_database_that_sleeps_is_let_sleep() -> None:
    facts = environments.find("neon").facts
    world = two_days(facts, build(environment=(facts,)), hours=1.0)
    world.run(1000.0)
    for caller in [c for c in world.callers if c.state == "holding"]:
        world.release(caller)
    world._heap.clear()
    pings = len(world.pinged)
    world.run(90.0)
    assert not world.conns and not world.machine.slots
    world.run(3 * HOUR)
    assert not world.conns and len(world.pinged) == pings
