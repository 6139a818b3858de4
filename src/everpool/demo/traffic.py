"""The requests: when each is due. One list, made from a seed, is played to every pool."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import cycle
from random import Random
from typing import Literal

__all__ = ["LEAST_SECONDS", "Kind", "Spell", "make_requests", "make_spells"]

# A busy spell, a quiet one, and what comes after it.
LEAST_SECONDS = 7.0

Kind = Literal["busy", "quiet", "few"]

# Seconds. A quiet spell is longer than the idle cut. A busy one is short, so that all connections
# fall idle before they are old, or long, so that they grow old in use.
_DAY: tuple[tuple[Kind, float], ...] = (
    ("busy", 2.0),
    ("quiet", 4.0),
    ("busy", 8.0),
    ("quiet", 4.0),
    ("few", 7.0),
    ("busy", 3.0),
)

_VISITS = 5.0  # a second, while it is busy
_FEW = 0.8  # a second, while there are few
_REQUESTS = (1, 1, 2, 3, 6)  # of one visit, at once, as the parts of a page come


@dataclass(frozen=True, slots=True)
class Spell:
    """A time with many visitors, few or none. Seconds since the beginning."""

    begin: float
    end: float
    kind: Kind


def make_spells(seconds: float) -> list[Spell]:
    """Return the spells that fill *seconds*.

    They do not end quiet: what a quiet spell has done shows only after it.
    """
    spells: list[Spell] = []
    now = 0.0
    for kind, length in cycle(_DAY):
        if now >= seconds:
            break
        spells.append(Spell(now, min(now + length, seconds), kind))
        now += length
    if spells[-1].kind == "quiet":
        spells.pop()
        spells[-1] = replace(spells[-1], end=seconds)
    return spells


def make_requests(spells: list[Spell], seed: int) -> list[float]:
    """Return when each request is due, in seconds since the beginning, in order."""
    random = Random(seed)
    return [due for spell in spells for due in _visits(spell, random)]


def _visits(spell: Spell, random: Random) -> Iterator[float]:
    if spell.kind == "quiet":
        return
    rate, sizes = (_VISITS, _REQUESTS) if spell.kind == "busy" else (_FEW, (1,))
    now = spell.begin
    while now < spell.end - 0.1:
        for _ in range(random.choice(sizes)):
            yield now
        now += random.expovariate(rate)
