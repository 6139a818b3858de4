"""Whatever happens, in whatever order: what must always hold, and the two doors are equal.

Two worlds live the same life. In one the machine is the real one, in the other its two fast
doors are replaced by the events they stand for. After each event each world is checked by
``World.check``; after each step the two are compared, state by state.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from everpool.core.machine import Machine
from everpool.core.slot import State
from everpool.core.verdict import Cause

from .doors import PlainMachine
from .simulation import PASSWORD_TEXT, TERMINATED, Caller, Server, World

SETTINGS = settings(
    max_examples=100,
    stateful_step_count=40,
    deadline=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)

SHORT = st.sampled_from([0.0, 0.001, 0.01, 0.1, 0.3, 1.0])
LONG = st.sampled_from([3.0, 10.0, 60.0, 700.0])


def picture_of(world: World) -> dict[str, Any]:
    """All that two machines with equal doors must agree on."""
    machine = world.machine
    tally = {s: n for s, n in machine.tally.items() if s not in (State.IDLE, State.LENT)}
    tally[State.IDLE] = machine.tally[State.IDLE] + machine.tally[State.LENT]
    return {
        "now": world.now,
        "idle": [slot.number for slot in machine.idle],
        "slots": {
            slot.number: (*tuple(getattr(slot, name) for name in ("state", "since", "generation", "opened_at", "expires_at", "heard_at", "checked_at", "keepalive", "sent_at", "given_up_at", "renewing", "why")), slot.waiter and slot.waiter.caller.number)
            for slot in machine.slots
        },
        "tally": tally,
        "counted": machine.counted,
        "queue": [waiter.caller.number for waiter in machine.queue.waiting()],
        "live": machine.queue.live,
        "soonest": machine.queue.soonest,
        "wake": machine.next_wake,
        "counters": (
            machine.requests, machine.queued, machine.errors, machine.waited, machine.used,
            machine.connects, machine.connect_errors, machine.lost, machine.bad_returns,
            dict(machine.deadlines), dict(machine.cuts),
            machine.brief_uses, machine.uses.counts, machine.brief_waits, machine.waits.counts,
        ),
        "connector": tuple(
            getattr(machine.connector, name) for name in machine.connector.__slots__
            if name != "_random"
        ),
        "bounds": [
            (slot.number, bound.until, bound.ends_at, bound.ended)
            for slot, bound in machine.bounds.items()
        ],
        "ended": (world.cancels, world.aborts),
        "callers": [(c.state, c.ended, c.tries) for c in world.callers],
        "told": len(world.told),
        "opens": world.opens,
        "pinged": world.pinged,
    }  # fmt: skip


class Lives(RuleBasedStateMachine):
    """Random lives of a pool."""

    worlds: list[World]

    @initialize(
        seed=st.integers(0, 1000),
        sizes=st.sampled_from([(0, 1), (1, 1), (0, 3), (2, 3), (4, 4), (3, 8), (6, 20)]),
        pooled=st.booleans() | st.just(True),
        max_waiting=st.sampled_from([0, 0, 0, 3]),
        keepalive=st.sampled_from([45.0, 2.0, inf]),
        max_lifetime=st.sampled_from([3600.0, 20.0, inf]),
        max_idle=st.sampled_from([600.0, 5.0, 0.0]),
        verify_after=st.sampled_from([0.5, 0.0, inf]),
        max_connecting=st.sampled_from([1, 4, 16]),
        connect_takes=st.sampled_from([0.001, 0.02, 0.5, 3.0]),
        ping_takes=st.sampled_from([0.0005, 0.05, 0.4]),
        close_takes=st.sampled_from([0.0, 0.001, 1.0]),
        wake_takes=st.sampled_from([0.0, 0.002, 0.2]),
        watch_takes=st.sampled_from([0.002, 0.3, inf]),
        abandon_takes=st.sampled_from([0.0, 0.1, None]),
        late_answers=st.booleans(),
    )
    def begin(self, seed, sizes, pooled, wake_takes, **others):
        names = Server.__dataclass_fields__.keys() & others.keys()
        script = {name: others.pop(name) for name in names}
        min_size, max_size = sizes if pooled else (0, sizes[0])
        self.worlds = [
            World(
                seed=seed,
                machine=machine,
                server=Server(**script),
                wake_takes=wake_takes,
                min_size=min_size,
                max_size=max_size,
                pooled=pooled,
                **others,
            )
            for machine in (Machine, PlainMachine)
        ]

    def each(self, action: Callable[[World], Any]) -> None:
        for world in self.worlds:
            action(world)

    def pick(self, world: World, state: str, number: int) -> Caller | None:
        there = [c for c in world.callers if c.state == state]
        return there[number % len(there)] if there else None

    def with_caller(self, state: str, number: int, action: Callable[[World, Caller], Any]) -> None:
        for world in self.worlds:
            caller = self.pick(world, state, number)
            if caller is not None:
                action(world, caller)

    # callers

    @rule(timeout=st.sampled_from([0.0, 0.1, 1.0, 5.0, 30.0, inf]))
    def acquire(self, timeout):
        self.each(lambda world: world.request(timeout))

    @rule(count=st.integers(2, 12), hold=SHORT, timeout=st.sampled_from([0.2, 5.0]))
    def burst(self, count, hold, timeout):
        for _ in range(count):
            self.each(lambda world: world.hold(hold, timeout))

    @rule(number=st.integers(0, 99))
    def release(self, number):
        self.with_caller("holding", number, World.release)

    @rule(number=st.integers(0, 99))
    def release_broken(self, number):
        self.with_caller("holding", number, World.release_broken)

    @rule(number=st.integers(0, 99), takes=SHORT)
    def release_with_work(self, number, takes):
        self.with_caller("holding", number, lambda w, c: w.release_with_work(c, takes))

    @rule(
        number=st.integers(0, 99), seconds=st.sampled_from([0.0, 0.2, 2.0, inf]), busy=st.booleans()
    )
    def bind(self, number, seconds, busy):
        self.with_caller("holding", number, lambda w, c: w.bind(c, seconds, busy=busy))

    @rule(number=st.integers(0, 99))
    def drop(self, number):
        self.with_caller("holding", number, World.drop)

    @rule(number=st.integers(0, 99))
    def abandon(self, number):
        self.with_caller("waiting", number, World.abandon)

    @rule()
    def wait_full(self):
        self.each(World.wait_full)

    # time

    @rule(seconds=SHORT)
    def advance(self, seconds):
        self.each(lambda world: world.run(seconds))

    @rule(seconds=LONG)
    def advance_far(self, seconds):
        self.each(lambda world: world.run(seconds))

    @rule()
    def tick(self):
        self.each(World.tick)

    @rule(seconds=st.sampled_from([0.0, 1.0, 100.0, 5000.0]))
    def sleep(self, seconds):
        self.each(lambda world: world.slept(seconds))

    @rule(seconds=st.sampled_from([1.0, 30.0]))
    def be_frozen(self, seconds):
        """The process does not run; everything comes late, answers first."""

        def freeze(world: World) -> None:
            world.now += seconds
            world.run(0.0)

        self.each(freeze)

    # faults

    @rule(share=st.sampled_from([1.0, 0.5, 0.2]), said=st.booleans())
    def cut(self, share, said):
        cause = TERMINATED if said else Cause("FIN")
        self.each(lambda world: world.cut(cause=cause, share=share))

    @rule(every=st.integers(1, 3))
    def cut_in_silence(self, every):
        self.each(lambda world: world.cut_in_silence(list(world.conns.values())[::every]))

    @rule(how=st.sampled_from(["silent", "refused", "rejecting", "crowded"]))
    def break_down(self, how):
        for world in self.worlds:
            if how == "rejecting":
                world.server.rejecting = PASSWORD_TEXT
            elif how == "crowded":
                world.server.room = 1
            else:
                setattr(world.server, how, True)

    @rule()
    def heal(self):
        for world in self.worlds:
            world.server.room = inf
            world.heal()

    # failover

    @rule(timeline=st.integers(0, 3), system=st.sampled_from([7, 7, 8]), started=st.integers(1, 2))
    def lead_elsewhere(self, timeline, system, started):
        for world in self.worlds:
            world.leads_to(timeline, system, started)

    @rule(every=st.integers(1, 3))
    def promote(self, every):
        for world in self.worlds:
            world.promote(list(world.conns.values())[::every])

    @rule(number=st.integers(0, 99))
    def refuse_write(self, number):
        self.with_caller("holding", number, World.refuse_write)

    @rule()
    def write(self):
        self.each(World.claims_writes)

    # orders

    @precondition(lambda self: self.worlds[0].machine.policy.pooled)
    @rule(sizes=st.sampled_from([(0, 1), (1, 2), (4, 4), (2, 10)]))
    def resize(self, sizes):
        self.each(lambda world: world.resize(*sizes))

    @rule()
    def drain(self):
        self.each(World.drain)

    @rule(dice=st.integers(0, 9))
    def close(self, dice):
        if dice == 0:
            self.each(World.close)

    @rule()
    def reconcile(self):
        """Needless, and so without consequence."""
        for world in self.worlds:
            world.machine.reconcile()
            world.settle()

    # truths

    @invariant()
    def the_doors_are_equal_to_the_events(self):
        if hasattr(self, "worlds"):
            one, other = map(picture_of, self.worlds)
            assert one == other

    def teardown(self):
        """When all is well again, all come to rest, nobody waits, and the pool is full."""
        if not hasattr(self, "worlds"):
            return
        world = self.worlds[0]
        world.server.room = inf
        world.server.abandon_takes = 0.0
        world.server.connect_takes = min(world.server.connect_takes, 0.5)
        world.heal()
        for _ in range(200):
            for caller in [c for c in world.callers if c.state == "holding"]:
                world.release(caller)
            world.run(0.5)
        assert not [c for c in world.callers if c.state in ("waiting", "filling", "holding")]
        machine = world.machine
        if machine.closed:
            assert not machine.slots and not world.conns
        else:
            present = world.count(State.IDLE, State.TESTING)
            assert present >= machine.policy.min_size - 1
            assert machine.counted <= machine.policy.most


TestLives = Lives.TestCase
TestLives.settings = SETTINGS
TestLives.pytestmark = [pytest.mark.timeout(300)]  # 20 s of computing, on a machine at rest
