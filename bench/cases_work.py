"""The comparisons of transactions: ``run`` beside psycopg_pool's ``connection()``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from time import perf_counter
from typing import Any

import psycopg

from everpool.work.token import SCHEMA, TABLE

from . import cases_asyncio, cases_threads
from .harness import Leg, alternate, private
from .setup import Case, Figure, Setup

INSERT = "INSERT INTO everpool_bench (value) VALUES (1)"
SELECT = "SELECT 1"

Legs = tuple[Leg, Leg]


@contextmanager
def tables(dsn: str) -> Iterator[None]:
    """The tables that the work writes to, for as long as the block lasts."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        had = conn.execute("SELECT to_regclass(%s)", (TABLE,)).fetchone() != (None,)
        conn.execute("DROP TABLE IF EXISTS everpool_bench")
        conn.execute("CREATE TABLE everpool_bench (id bigserial PRIMARY KEY, value int)")
        conn.execute(SCHEMA)
    try:
        yield
    finally:
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute("DROP TABLE everpool_bench")
            if not had:
                conn.execute(f"DROP TABLE {TABLE}")


def execute(conn: Any, statement: str) -> None:
    conn.execute(statement)


def run(pool: Any, loops: int, statement: str, **settings: Any) -> float:
    """Seconds per transaction of one statement, by ``run``."""
    start = perf_counter()
    for _ in range(loops):
        pool.run(execute, statement, **settings)
    return (perf_counter() - start) / loops


def lend(pool: Any, loops: int, statement: str) -> float:
    """The same by ``connection()``."""
    start = perf_counter()
    for _ in range(loops):
        with pool.connection() as conn:
            execute(conn, statement)
    return (perf_counter() - start) / loops


async def aexecute(conn: Any, statement: str) -> None:
    await conn.execute(statement)


async def arun(pool: Any, loops: int, statement: str, **settings: Any) -> float:
    start = perf_counter()
    for _ in range(loops):
        await pool.run(aexecute, statement, **settings)
    return (perf_counter() - start) / loops


async def alend(pool: Any, loops: int, statement: str) -> float:
    start = perf_counter()
    for _ in range(loops):
        async with pool.connection() as conn:
            await aexecute(conn, statement)
    return (perf_counter() - start) / loops


@contextmanager
def threads(
    setup: Setup, dsn: str, loops: int, statement: str, settings: dict[str, Any]
) -> Iterator[Legs]:
    with (
        cases_threads.opened(setup.ours, dsn, 4) as ours,
        cases_threads.opened(setup.theirs, dsn, 4) as theirs,
    ):
        mine = lend if setup.ours is setup.theirs else partial(private(run), **settings)
        yield (
            lambda: mine(ours, loops, statement),
            lambda: lend(theirs, loops, statement),
        )


@contextmanager
def tasks(
    setup: Setup, dsn: str, loops: int, statement: str, settings: dict[str, Any]
) -> Iterator[Legs]:
    with (
        asyncio.Runner() as runner,
        cases_asyncio.opened(runner, setup.ours, dsn, 4) as ours,
        cases_asyncio.opened(runner, setup.theirs, dsn, 4) as theirs,
    ):
        mine = alend if setup.ours is setup.theirs else partial(private(arun), **settings)
        yield (
            lambda: runner.run(mine(ours, loops, statement)),
            lambda: runner.run(alend(theirs, loops, statement)),
        )


def insert(world: Any, commit: str) -> Callable[[Setup], Figure]:
    def compare(setup: Setup) -> Figure:
        effort, dsn = setup.effort, setup.durable.dsn
        with tables(dsn), world(setup, dsn, effort.inserts, INSERT, {"commit": commit}) as legs:
            return alternate(*legs, effort.insert_rounds).median("µs")

    return compare


def select(world: Any) -> Callable[[Setup], Figure]:
    def compare(setup: Setup) -> Figure:
        effort, loops = setup.effort, setup.effort.selects
        with world(setup, setup.dsn, loops, SELECT, {"read_only": True}) as legs:
            return alternate(*legs, effort.rounds).best("µs")

    return compare


CASES = tuple(
    case
    for name, world in (("threads", threads), ("asyncio", tasks))
    for case in (
        Case(f"run-xid-{name}", f"run, one insert, {name}", 1.15, insert(world, "xid")),
        Case(f"run-token-{name}", f"the same with a token, {name}", 1.50, insert(world, "token")),
        Case(f"run-read-only-{name}", f"run, read-only, one select, {name}", 1.0, select(world)),
    )
)
