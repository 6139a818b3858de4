"""What is compared, on which server, and with how much patience."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import psycopg_pool

from .server import Durable

SyncPool = psycopg_pool.ConnectionPool[Any]
AsyncPool = psycopg_pool.AsyncConnectionPool[Any]


@dataclass(frozen=True)
class Library:
    """One side of the comparison: where its two pool classes come from."""

    name: str
    version: str
    threads: type[SyncPool]
    tasks: type[AsyncPool]


def load(name: str) -> Library:
    """The library called `name`: ``everpool`` or ``psycopg_pool``."""
    if name == "psycopg_pool":
        return Library(
            name,
            psycopg_pool.__version__,
            psycopg_pool.ConnectionPool,
            psycopg_pool.AsyncConnectionPool,
        )
    import everpool

    return Library(
        name, everpool.__version__, everpool.ConnectionPool, everpool.AsyncConnectionPool
    )


@dataclass(frozen=True)
class Effort:
    """How many rounds, and how large the cases are."""

    loops: int = 300
    rounds: int = 400
    slow_rounds: int = 15
    turn: float = 0.15
    """Seconds of a round of ``busy-neighbour``: thirty turns of the interpreter."""
    rested: int = 64
    rest: float = 0.08
    per_thread: int = 250
    per_task: int = 10
    bursts: int = 5
    callers: int = 100
    warm: int = 4
    most: int = 50
    hold: float = 0.1
    connect: float = 0.1
    settle: float = 0.5
    """Seconds between the last connect and the measurement, for the idle cases."""
    idle: int = 100
    window: float = 60.0
    """Seconds of idleness. everpool pings what was silent for 34 to 45 s."""
    held: int = 200
    quiet: float = 6.0
    """Seconds between the last connect and the reading of the memory."""
    sizes: tuple[int, int] = (10, 1_000)
    waiters: tuple[int, ...] = (100, 1_000, 10_000)
    selects: int = 100
    inserts: int = 10
    insert_rounds: int = 100


FULL = Effort()
QUICK = Effort(rounds=100, slow_rounds=5, bursts=2, window=10.0, insert_rounds=30)
TINY = Effort(
    loops=50,
    rounds=2,
    slow_rounds=2,
    turn=0.02,
    rested=4,
    rest=0.06,
    per_thread=5,
    per_task=5,
    bursts=1,
    callers=8,
    warm=2,
    most=8,
    hold=0.01,
    connect=0.01,
    settle=0.05,
    idle=4,
    window=0.3,
    held=8,
    quiet=0.05,
    sizes=(2, 8),
    waiters=(10, 20),
    selects=5,
    inserts=2,
    insert_rounds=2,
)


@dataclass(frozen=True)
class Setup:
    """What every case is given."""

    dsn: str
    ours: Library
    theirs: Library
    effort: Effort
    durable: Durable
    """The server for what has to reach the disk."""


@dataclass(frozen=True)
class Figure:
    """What a case found."""

    value: float
    """What is compared with the figure asked for."""
    ours: float
    theirs: float | None
    unit: str
    """Of `ours` and `theirs`."""
    statistic: str
    detail: Mapping[str, Any] = field(default_factory=dict)
    void: str | None = None
    """Why the figure does not count although it was taken, or None."""


@dataclass(frozen=True)
class Case:
    """One line of the table."""

    name: str
    title: str
    asked: float
    """The most that `Figure.value` may be."""
    run: Callable[[Setup], Figure]
    measure: str = "ratio"
