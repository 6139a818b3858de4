"""Queries in flight: those nobody works on any more are ended, the slow ones left alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from types import SimpleNamespace
from typing import Any

import pytest

from everpool.core.effects import Dismiss, Inquire, LookInto
from everpool.core.events import Cut
from everpool.core.incarnation import Incarnation
from everpool.core.inflight import LEAST_BETWEEN, LINGER, LOOKS, Inquiry, Sight
from everpool.core.slot import Slot, State
from everpool.core.verdict import nobody_answered

from .simulation import Caller, World

PERIOD = 10.0
STEP = PERIOD / LOOKS
CONNECT = 10.0  # how long it takes to find out that nothing can be reached

SERVER = Incarnation(system=7, timeline=3, started=100, reset=50)


@dataclass
class Asked:
    """The server that is asked, and how it answers."""

    takes: float = 0.02
    server: Incarnation = SERVER
    gone: set[int] = field(default_factory=set)
    reachable: bool = True


class Watched(World):
    """A world whose shell looks and asks."""

    def __init__(self, *, direct: bool = True, **policy: Any) -> None:
        policy.setdefault("watch_queries", PERIOD)
        super().__init__(**policy)
        self.direct = direct
        self.asked = Asked()
        self.looks: list[float] = []
        self.inquiries: list[tuple[float, int]] = []
        self.lost = False  # whether nobody begins what is ordered
        self.leads_to(SERVER.timeline, SERVER.system, SERVER.started)
        self.server.incarnation = SERVER
        self.run(1.0)

    def query(self, caller: Caller) -> Caller:
        assert caller.slot is not None
        caller.busy = True
        self.conns[caller.slot].heard_at = self.now
        return caller

    def queries(self, count: int = 1) -> list[Caller]:
        return [self.query(caller) for caller in self.borrow(count)]

    def byte(self, caller: Caller) -> None:
        assert caller.slot is not None
        self.conns[caller.slot].heard_at = self.now

    def sights(self, slots: Any) -> dict[Slot, Sight]:
        found = {}
        for slot in slots:
            caller = self.holders.get(slot)
            if caller is not None and caller.busy and slot.state is State.LENT:
                conn = self.conns[slot]
                silence = self.now - conn.heard_at
                found[slot] = Sight(silence, conn.number if self.direct else 0)
        return found

    def _carry_out(self, effect: Any) -> None:
        match effect:
            case LookInto(slots):
                self.looks.append(self.now)
                self.machine.looked(self.sights(slots), self.now)
            case Inquire(inquiry):
                self.inquiries.append((self.now, len(inquiry.loans)))
                if not self.lost:
                    self._ask(inquiry)
            case Dismiss():
                self.machine.side = None
            case _:
                super()._carry_out(effect)

    def _ask(self, inquiry: Inquiry) -> None:
        inquiry.begun = True
        asked = self.asked
        self.after(asked.takes if asked.reachable else CONNECT, lambda: self._verdict(inquiry))

    def _verdict(self, inquiry: Inquiry) -> None:
        machine, asked = self.machine, self.asked
        sights = self.sights(inquiry.loans)
        if not asked.reachable:
            machine.unreachable(inquiry, sights, self.now)
        else:
            if not inquiry.done:
                machine.side = SimpleNamespace(conn="a connection")
            alive = {*inquiry.loans.values()} - asked.gone
            machine.answered(inquiry, alive, asked.server, sights, self.now)
        self.settle()


def watched(size: int = 1, **settings: Any) -> Watched:
    world = Watched(min_size=size, max_size=size, **settings)
    for slot in world.machine.slots:
        slot.direct = world.direct
    return world


def conn_of(world: Watched, caller: Caller) -> int:
    assert caller.slot is not None
    return world.conns[caller.slot].number


def test_off_by_default_nothing_is_ever_looked_at():
    world = watched(watch_queries=inf)
    world.queries()
    world.run(10_000.0)
    assert not world.looks and not world.inquiries and not world.machine.side_connections
    assert world.machine._look_at == inf


def test_a_slow_query_is_left_alone_and_asked_about_once_a_period():
    world = watched()
    [caller] = world.queries()
    world.run(10 * PERIOD)
    assert caller.state == "holding" and not world.aborts
    assert 7 <= len(world.inquiries) <= 10
    gaps = [b[0] - a[0] for a, b in zip(world.inquiries, world.inquiries[1:], strict=False)]
    assert min(gaps) >= PERIOD


def test_a_query_nobody_works_on_is_ended_soon_after_a_period_and_its_place_is_free():
    world = watched()
    [caller] = world.queries()
    world.asked.gone = {conn_of(world, caller)}
    began, slot = world.now, caller.slot
    waiting = world.request(timeout=60.0)
    world.run(PERIOD + STEP + world.asked.takes + world.server.connect_takes + 0.01)
    [(at, number)] = world.aborts
    assert slot is not None and number == slot.number and slot.state is State.CORPSE
    assert began + PERIOD < at <= began + PERIOD + STEP + world.asked.takes
    assert waiting.state == "holding"
    world.release(caller)
    world.run(1.0)
    [cut] = world.tell_of(Cut)
    assert (cut.cause.style, cut.lent) == ("silence", True)
    assert PERIOD <= cut.silent_for <= PERIOD + STEP + 1.0
    assert world.machine.cuts == {"silence": 1} and world.machine.cuts_lent == 1


def test_the_silence_of_a_query_begins_with_the_last_byte_not_with_the_loan():
    world = watched()
    [caller] = world.borrow()
    world.run(5 * PERIOD)
    world.query(caller)
    world.asked.gone = {conn_of(world, caller)}
    world.run(PERIOD + 2 * STEP)
    world.release(caller)
    world.run(1.0)
    [cut] = world.tell_of(Cut)
    assert PERIOD <= cut.silent_for <= PERIOD + 2 * STEP + 1.0


def test_a_short_period_looks_no_more_often_than_it_must():
    world = watched(watch_queries=0.01)
    world.queries()
    world.run(10.0)
    assert len(world.looks) <= 10.0 / LEAST_BETWEEN + 1


@pytest.mark.parametrize(
    ("server", "ended"),
    [
        (Incarnation(7, 3, 200, 50), True),  # restarted
        (Incarnation(7, 4, 200, 50), True),  # replaced by a standby
        (Incarnation(7, 4, 100, 50), False),  # promoted: the same processes go on
        (Incarnation(7, 3, 100, 60), False),  # its statistics were reset
        (Incarnation(7, 2, 200, 50), False),  # an old primary
        (Incarnation(7, 0, 200, 50), False),  # a standby, of several hosts
        (Incarnation(8, 3, 200, 50), False),  # somebody else
    ],
)
def test_another_incarnation_has_no_such_process_where_it_is_the_same_server(server, ended):
    world = watched()
    [caller] = world.queries()
    world.asked.server = server
    slot = caller.slot
    assert slot is not None
    world.run(1.5 * PERIOD)
    assert world.inquiries and bool(world.aborts) is ended


def test_of_a_standby_only_its_own_processes_are_known():
    world = watched()
    [caller] = world.queries()
    slot = caller.slot
    assert slot is not None
    slot.incarnation = Incarnation(7, 0, 100, 50)
    world.asked.server = Incarnation(7, 0, 200, 50)
    world.run(1.5 * PERIOD)
    assert not world.aborts
    world.asked.server, world.asked.gone = slot.incarnation, {conn_of(world, caller)}
    world.run(1.5 * PERIOD)
    assert world.aborts


@pytest.mark.parametrize(
    ("server", "certain"),
    [
        (SERVER, True),
        (Incarnation(7, 4, 100, 60), True),  # promoted, its statistics reset
        (Incarnation(7, 3, 200, 50), False),  # restarted, or a copy
        (Incarnation(8, 3, 100, 50), False),
    ],
)
def test_what_others_were_answered_concerns_the_same_life_of_the_same_server(server, certain):
    one, two = (Slot(number, 0.0, 0) for number in range(2))
    one.incarnation = two.incarnation = SERVER
    assert Inquiry({one: 1, two: 2}, 0.0).concerns(server) is certain
    two.incarnation = None
    assert not Inquiry({one: 1, two: 2}, 0.0).concerns(server)


def test_a_server_out_of_reach_ends_what_is_still_silent_after_a_connect_s_time():
    world = watched(3)
    silent, speaks, returned = world.queries(3)
    world.asked.reachable = False
    numbers = silent.slot.number
    world.run(PERIOD + STEP + 1.0)
    assert world.inquiries and not world.aborts
    world.byte(speaks)
    world.release(returned)
    again = world.query(world.borrow()[0])
    world.run(CONNECT)
    assert [number for _, number in world.aborts] == [numbers]
    assert again.state == speaks.state == "holding"


def test_behind_a_pooler_a_missing_process_proves_nothing_but_no_answer_does():
    world = watched(direct=False)
    [caller] = world.queries()
    world.asked.gone = {conn_of(world, caller)}
    world.asked.server = Incarnation(7, 3, 200, 50)
    world.run(3 * PERIOD)
    assert world.inquiries and not world.aborts
    world.asked.reachable = False
    world.run(2 * PERIOD + CONNECT)
    assert world.aborts


def test_what_says_a_byte_while_it_is_asked_about_lives():
    world = watched()
    world.asked.takes = 1.0
    [caller] = world.queries()
    world.asked.gone = {conn_of(world, caller)}
    world.run_while(lambda: not world.inquiries)
    world.run(0.5)
    world.byte(caller)
    world.run(2.0)
    assert not world.aborts and caller.state == "holding"


def test_many_queries_are_one_question():
    world = watched(20)
    world.queries(20)
    world.run(PERIOD + STEP + 0.1)
    assert [count for _, count in world.inquiries] == [20]
    assert world.machine.side_connections == 1


def test_without_a_query_in_flight_nobody_is_asked():
    world = watched()
    world.borrow()
    world.run(5 * PERIOD)
    assert world.looks and not world.inquiries


def test_a_process_that_stood_still_takes_nobody_s_silence_for_proof():
    world = watched()
    world.queries()
    world.asked.reachable = False
    world.run(PERIOD + STEP + 1.0)
    world.slept(60.0)
    world.run(CONNECT)
    assert len(world.inquiries) == 1 and not world.aborts
    world.run(2 * PERIOD + CONNECT)
    assert world.aborts, "asked again"


def test_the_side_connection_goes_when_nothing_has_been_asked_for_a_while():
    world = watched()
    [caller] = world.queries()
    world.run(PERIOD + STEP + 1.0)
    assert world.machine.side_connections == 1
    world.release(caller)
    world.run(2 * PERIOD - 2.0)
    assert world.machine.side_connections == 1 and max(LINGER, 2 * PERIOD) == 2 * PERIOD
    world.run(4.0)
    assert world.machine.side_connections == 0


@pytest.mark.parametrize("asking", [False, True])
def test_closing_the_pool_closes_the_side_connection_and_ends_nothing(asking):
    world = watched()
    [caller] = world.queries()
    world.run(PERIOD + STEP + 1.0)
    assert world.machine.side_connections == 1
    world.asked.gone = {conn_of(world, caller)}
    if asking:
        world.asked.takes = 5.0
        world.run_while(lambda: len(world.inquiries) < 2)
    world.close()
    assert world.machine.side_connections == 0
    world.run(5 * PERIOD)
    assert not world.aborts and len(world.inquiries) == 1 + asking
    assert world.machine.side_connections == 0


def test_a_question_that_was_interrupted_is_asked_again():
    world = watched()
    world.lost = True
    world.queries()
    world.run(PERIOD + STEP)
    assert len(world.inquiries) == 1
    world.lost = False
    world.machine.reconcile()
    world.run(2 * STEP)
    assert len(world.inquiries) == 2
    world.run(PERIOD + STEP)
    assert len(world.inquiries) == 3


def test_what_was_found_silent_is_not_taken_for_seen_to_die(monkeypatch):
    world = watched()
    samples: list[dict[str, Any]] = []
    monkeypatch.setattr(
        type(world.machine.learner), "died", lambda self, **sample: samples.append(sample)
    )
    [caller] = world.queries()
    world.asked.gone = {conn_of(world, caller)}
    world.run(PERIOD + STEP + 1.0)
    world.release(caller)
    world.run(1.0)
    [sample] = samples
    assert sample["lent"] and not sample["exact"] and sample["style"] == "silence"
    assert sample["silence"] == pytest.approx(PERIOD, abs=STEP + 1.0)


TIMEOUT = "connection timeout expired"
REFUSED = 'connection to server at "10.0.0.1", port 5432 failed: Connection refused'


@pytest.mark.parametrize(
    ("text", "nobody"),
    [
        (TIMEOUT, True),
        (REFUSED, True),
        ("server closed the connection unexpectedly\n\tThis probably means", True),
        (f"{REFUSED}\nMultiple attempts failed:\n- host: a: {TIMEOUT}\n- host: b: {REFUSED}", True),
        (f"{REFUSED}\nMultiple attempts failed:\n- host: a: odd\n- host: b: {REFUSED}", False),
        ("connection failed: FATAL:  the database system is starting up", False),
        ("FATAL:  sorry, too many clients already", False),
        ("FATAL:  canceling authentication due to timeout: timed out", False),
        ("failed to resolve host 'db': [Errno -2] Name or service not known", False),
        ("", False),
    ],
)
def test_only_where_nobody_answered_is_nobody_there(text, nobody):
    assert nobody_answered(text) is nobody
