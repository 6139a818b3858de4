"""Cuts on purpose, so that a program can test what it does about them."""

from __future__ import annotations

import logging
from enum import StrEnum
from random import Random
from typing import Any

import psycopg

from ..core.verdict import Cause
from .flight import Flight

logger = logging.getLogger("everpool.chaos")


class Strike(StrEnum):
    """When a transaction's connection is cut."""

    FIRST = "before the first statement"
    BEFORE = "before COMMIT is sent"
    DURING = "after COMMIT was sent, before it is answered"
    AFTER = "after COMMIT was answered, before the answer is read"


class Chaos:
    """Make a pool cut its own connections, as the path to the database would.

    For tests and rehearsals: ``ConnectionPool(…, chaos=Chaos(0.05, seed=1))``. Of the
    transactions of `run` and `attempts`, and of the blocks of `connection`, that share loses its
    connection at one of the four moments of `Strike`, each as often as the others. What the
    program meets is what it would meet in production: errors, outcomes, repetitions.

    :param probability: of a cut in each transaction, 0 to 1.
    :param seed: the same seed and the same order of transactions give the same cuts.
    :ivar strikes: how many cuts were made, by `Strike`.
    """

    def __init__(self, probability: float, seed: int | None = None) -> None:
        if not 0 <= probability <= 1:
            raise ValueError(f"Chaos: probability={probability}: must be between 0 and 1")
        self.probability = probability
        self.strikes = dict.fromkeys(Strike, 0)
        self._random = Random(seed)
        self._moments = tuple(Strike)

    def draw(self) -> Strike | None:
        """Whether and when the next transaction is struck."""
        # One number for both questions: threads may come between two.
        drawn = self._random.random()
        if drawn >= self.probability:
            return None
        return self._moments[int(drawn / self.probability * len(self._moments))]

    def cut(self, slot: Any, strike: Strike) -> None:
        """Cut a lent connection."""
        self.strikes[strike] += 1
        slot.cause = Cause("chaos")
        slot.link.abort()
        logger.info("connection %s is cut on purpose, %s", slot.number, strike)

    def commit(self, flight: Flight, slot: Any, strike: Strike) -> Flight:
        """The flight of a COMMIT, cut at its moment."""
        if strike is Strike.AFTER:
            yield from flight
            self.cut(slot, strike)
            raise psycopg.OperationalError("the answer to COMMIT was lost")
        waits = next(flight)  # it has been sent
        self.cut(slot, strike)
        while True:
            ready = yield waits
            try:
                waits = flight.send(ready)
            except StopIteration as stop:
                results: list[Any] = stop.value
                return results
