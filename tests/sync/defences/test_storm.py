# Generated from tests/aio/defences/test_storm.py by `python tools/async_to_sync.py`.
# Do not edit: change that file and run `make generate`.

"""When everything fails, repetitions must not make it worse; when it is over, they must be there."""

from __future__ import annotations

from collections import Counter
from typing import Any

import psycopg
import pytest

from everpool import ConnectionPool, Outcome
from everpool.lab import FIN, CutBefore, FaultProxy, Message, Style, fatal
from everpool.lab.frames import Frame
from tests.support.threads import eventually, gather, spawn
from tests.sync.defences.measure import is_whole

SIZE = 4
CALLERS = 8
WORK = "SELECT 'work of the storm'"
WORK_SENT = Message("client", ("Query", "Parse"), contains=b"work of the storm")
CONFLICT = "DO $$ BEGIN RAISE SQLSTATE '40001'; END $$"


class Counted:
    """Counts the transactions that a server sees, at a proxy before it."""

    def __init__(self, proxy: FaultProxy) -> None:
        self.begun = 0
        # A rule that never applies, so that nothing is changed.
        begin = Message("client", "Query", where=self._count)
        proxy.on(begin, CutBefore(FIN), times=None)

    def _count(self, frame: Frame) -> bool:
        self.begun += frame.body.startswith(b"BEGIN")
        return False


def work(conn: Any, statement: str) -> None:
    conn.execute(statement, prepare=False)  # the proxy knows it by its text


def transactions(pool: ConnectionPool[Any], number: int, statement: str) -> int:
    """Run transactions by some callers at once; return how many were committed."""

    outcomes: Counter[Outcome] = Counter()

    def caller() -> None:
        for _ in range(number // CALLERS):
            try:
                pool.run(work, statement)
                outcomes[Outcome.COMMITTED] += 1
            except psycopg.OperationalError as ex:
                outcomes[ex.outcome] += 1  # type: ignore[attr-defined]

    gather(*[spawn(caller) for _ in range(CALLERS)], timeout=60)
    assert outcomes.keys() <= {Outcome.COMMITTED, Outcome.ROLLED_BACK}
    return outcomes[Outcome.COMMITTED]


def test_when_every_transaction_conflicts_the_load_stays_that_of_first_attempts(
    make: Any, proxy: FaultProxy, figure: Any
) -> None:
    with make(SIZE) as pool:
        counted = Counted(proxy)
        before, stormy = 160, 400
        # What busy times have earned must not be spent on the storm.
        assert transactions(pool, before, WORK) == before
        assert transactions(pool, stormy, CONFLICT) == 0
        figure("transactions seen, of first attempts", (counted.begun - before) / stormy, 1.1)
        still_repeats(pool, counted)


@pytest.mark.parametrize("style", [FIN, fatal("57P01")], ids=str)
def test_when_every_connection_is_cut_the_load_stays_that_of_first_attempts(
    make: Any, proxy: FaultProxy, style: Style, figure: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The pauses between connects would be a defence too, and make half a minute of this.
    monkeypatch.setattr("everpool.core.supply.YOUNG", 0.0)
    with make(SIZE) as pool:
        pool.wait(10)
        counted, stormy = Counted(proxy), 160
        cuts = proxy.on(WORK_SENT, CutBefore(style), times=None)
        assert transactions(pool, stormy, WORK) == 0
        cuts.remove()
        figure("transactions seen, of first attempts", counted.begun / stormy, 1.1)
        assert transactions(pool, 24, WORK) == 24
        proxy.on(WORK_SENT, CutBefore(style))
        counted.begun = 0
        assert transactions(pool, CALLERS, WORK) == CALLERS
        assert counted.begun == CALLERS + 1
        eventually(lambda: is_whole(pool, SIZE))


def still_repeats(pool: ConnectionPool[Any], counted: Counted) -> None:
    """The storm is over: the next conflict is repeated, when something has succeeded."""
    assert transactions(pool, CALLERS, WORK) == CALLERS
    counted.begun = calls = 0

    def conflicts_once(conn: Any) -> None:
        nonlocal calls
        calls += 1
        work(conn, CONFLICT if calls == 1 else WORK)

    pool.run(conflicts_once)
    assert (calls, counted.begun) == (2, 2)
