"""The work: transfers and increments, each of which leaves a trace each time it is done."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

__all__ = ["ACCOUNTS", "BALANCE", "COUNTERS", "SCHEMA", "Deed", "make_deeds", "statements"]

ACCOUNTS = 400  # of each lane: lanes do not wait for each other's locks
COUNTERS = 200
_LANES = 8  # at most
BALANCE = 1_000_000

# The ledger has no unique constraint: work that is done twice is to be seen, not refused.
SCHEMA = f"""
CREATE TABLE accounts (id int PRIMARY KEY, balance bigint NOT NULL);
INSERT INTO accounts SELECT i, {BALANCE} FROM generate_series(0, {_LANES * ACCOUNTS - 1}) AS i;
CREATE TABLE counters (id int PRIMARY KEY, n bigint NOT NULL);
INSERT INTO counters SELECT i, 0 FROM generate_series(0, {_LANES * COUNTERS - 1}) AS i;
CREATE TABLE ledger (work bigint NOT NULL, try int NOT NULL, source int, target int,
 amount bigint, counter int);
CREATE INDEX ON ledger (work);
CREATE TABLE strict (id int UNIQUE DEFERRABLE INITIALLY DEFERRED);
INSERT INTO strict VALUES (1);
"""

Statement = tuple[str, tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Deed:
    """A piece of work that is to be done once.

    :ivar work: its number; no other has it, except a twin: the same work asked for twice.
    :ivar source, target, amount: of a transfer; an increment has a `counter`.
    :ivar keyed: it has an idempotency key.
    :ivar inline: it is done by ``attempts``, not by ``run``.
    :ivar serializable: its transaction is.
    """

    work: int
    source: int
    target: int
    amount: int
    counter: int | None
    keyed: bool = False
    inline: bool = False
    serializable: bool = False


def make_deeds(random: Random, lane: int, first: int, number: int, *, token: bool) -> list[Deed]:
    """*number* deeds of a lane; where there are tokens, some of them twins under one key."""
    accounts = range(lane * ACCOUNTS, (lane + 1) * ACCOUNTS)
    counters = range(lane * COUNTERS, (lane + 1) * COUNTERS)
    deeds: list[Deed] = []
    work = first
    while len(deeds) < number:
        source, target = random.sample(accounts, 2)
        if random.random() < 0.95 and source > target:  # the others may deadlock
            source, target = target, source
        counter = random.choice(counters) if random.random() < 0.5 else None
        keyed = token and random.random() < 0.1
        inline = not keyed and random.random() < 0.3
        serializable = random.random() < 0.05
        deed = Deed(
            work, source, target, random.randint(1, 99), counter, keyed, inline, serializable
        )
        deeds.append(deed)
        if keyed and random.random() < 0.5 and len(deeds) < number:
            deeds.append(deed)
        work += 1
    return deeds


def statements(deed: Deed, count: int) -> Iterator[Statement]:
    """What the deed does, when it is tried for the *count*-th time."""
    if deed.counter is None:
        move = "UPDATE accounts SET balance = balance + %s WHERE id = %s"
        yield move, (-deed.amount, deed.source)
        yield move, (deed.amount, deed.target)
        yield (
            "INSERT INTO ledger (work, try, source, target, amount) VALUES (%s, %s, %s, %s, %s)",
            (deed.work, count, deed.source, deed.target, deed.amount),
        )
    else:
        yield "UPDATE counters SET n = n + 1 WHERE id = %s", (deed.counter,)
        yield (
            "INSERT INTO ledger (work, try, counter) VALUES (%s, %s, %s)",
            (deed.work, count, deed.counter),
        )
