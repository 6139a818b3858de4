"""The run itself: a server, three lanes, one clock."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from time import monotonic, sleep

from everpool.demo.contestants import CONTESTANTS, TIMEOUT
from everpool.demo.lane import Lane, View
from everpool.demo.traffic import Spell, make_requests, make_spells
from everpool.lab import PostgresServer

__all__ = ["Moment", "Plan", "Stage", "play"]

_LOOK = 0.1  # seconds between looks at what happens
_GRACE = TIMEOUT + 0.5  # seconds that a request in hand at the end is still waited for


@dataclass(frozen=True)
class Plan:
    """What is to be played."""

    seconds: float
    seed: int = 1
    silent: bool = False

    @cached_property
    def spells(self) -> list[Spell]:
        return make_spells(self.seconds)

    @cached_property
    def dues(self) -> list[float]:
        return make_requests(self.spells, self.seed)


@dataclass(frozen=True)
class Moment:
    """What is to be seen at one moment of a run."""

    plan: Plan
    at: float
    """Seconds since the beginning."""
    done: bool
    views: tuple[View, ...]
    postgresql: str
    """The server's version."""


Stage = Callable[[Moment], None]


def play(plan: Plan, show: Stage) -> Moment:
    """Play *plan*, call *show* ten times a second, and return how it ended.

    Everything that was started has ended when this returns or raises.

    :raises everpool.lab.BinariesNotFound: there is no PostgreSQL on this machine.
    :raises everpool.lab.ServerError: it does not start.
    """
    for name in ("everpool", "psycopg.pool"):  # the screen tells what they would log
        logging.getLogger(name).addHandler(logging.NullHandler())
    with ExitStack() as stack:
        server = stack.enter_context(PostgresServer())
        lanes = [Lane(contestant, server, silent=plan.silent) for contestant in CONTESTANTS]
        for lane in lanes:
            stack.callback(lane.close)
            lane.open()
        start = monotonic()
        for lane in lanes:
            lane.begin(start, plan.dues)
        while True:
            at = monotonic() - start
            done = at >= plan.seconds and (
                at >= plan.seconds + _GRACE or all(lane.is_done() for lane in lanes)
            )
            views = tuple(lane.look() for lane in lanes)
            moment = Moment(plan, at, done, views, server.version)
            show(moment)
            if done:
                return moment
            sleep(_LOOK)
