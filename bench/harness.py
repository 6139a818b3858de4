"""Rounds that take turns, and what is made of their times."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median, quantiles
from types import FunctionType
from typing import Any, TypeVar, cast

from .setup import Figure

F = TypeVar("F", bound=Callable[..., Any])

Leg = Callable[[], float]
"""One round of one side; returns seconds per unit of work."""


@dataclass
class Rounds:
    """The times of both sides, in seconds, in the order in which they were taken."""

    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)

    def best(self, unit: str, **detail: Any) -> Figure:
        """Compare the best round of each side."""
        return self._figure(min, "best", unit, detail)

    def median(self, unit: str, void: str | None = None, **detail: Any) -> Figure:
        """Compare the median rounds."""
        return self._figure(median, "median", unit, detail, void)

    def quartile(self, unit: str, **detail: Any) -> Figure:
        """Compare the lower quartiles: for rounds that chance can make too short as well."""
        return self._figure(lower_quartile, "lower quartile", unit, detail)

    def _figure(
        self,
        reduce: Callable[[list[float]], float],
        name: str,
        unit: str,
        detail: dict[str, Any],
        void: str | None = None,
    ) -> Figure:
        ours, theirs = reduce(self.ours), reduce(self.theirs)
        pairs = [mine / other for mine, other in zip(self.ours, self.theirs, strict=True)]
        low, high = min(pairs), max(pairs)
        if len(pairs) >= 4:
            low, _, high = quantiles(pairs, n=4)
        scale = SCALES[unit]
        return Figure(
            value=ours / theirs,
            ours=ours * scale,
            theirs=theirs * scale,
            unit=unit,
            statistic=f"{name} of {len(pairs)}",
            detail={"ratio_of_pairs": [low, high], **detail},
            void=void,
        )


SCALES = {"µs": 1e6, "s": 1.0}


def lower_quartile(times: list[float]) -> float:
    """The time that a quarter of the rounds undercut."""
    return quantiles(times, n=4, method="inclusive")[0]


def alternate(ours: Leg, theirs: Leg, rounds: int) -> Rounds:
    """Run both sides in turns, the first of each round being last in the next."""
    result = Rounds()
    ours(), theirs()  # caches, specialised bytecode, grown stacks
    with frozen_heap():
        for number in range(rounds):
            turns = [(ours, result.ours), (theirs, result.theirs)]
            for leg, times in turns if number % 2 == 0 else reversed(turns):
                gc.collect()
                times.append(leg())
    return result


@contextmanager
def frozen_heap() -> Iterator[None]:
    """Keep what exists out of the collector's sight, so that it costs neither side."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def private(function: F) -> F:
    """A copy of `function` with bytecode of its own.

    The interpreter rewrites bytecode for the types it meets there. Shared between two pool
    classes it would settle on neither.
    """
    assert isinstance(function, FunctionType)
    copy = FunctionType(
        function.__code__.replace(),
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return cast(F, copy)
