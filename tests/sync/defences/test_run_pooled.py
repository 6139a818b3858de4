# Generated from tests/aio/defences/test_run_pooled.py by `python tools/async_to_sync.py`.
# Do not edit: change that file and run `make generate`.

"""Transactions behind a real PgBouncer in transaction mode: cut before it, and behind it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from everpool import ConnectionPool
from everpool.lab import COMMIT, COMMITTED, RST, CutAfter, CutBefore, FaultProxy, PostgresServer
from everpool.work.token import SCHEMA
from tests.support.programs import PgBouncer, pgbouncer
from tests.support.threads import gather, spawn

CUTS = [(COMMIT, CutBefore(RST)), (COMMIT, CutAfter(RST)), (COMMITTED, CutBefore(RST))]
MODES = ("xid", "token")


class Way:
    """A client's proxy, PgBouncer, the server's proxy, the server."""

    def __init__(self, server: PostgresServer, before: FaultProxy, behind: FaultProxy, dsn: str):
        self.before, self.behind, self.dsn = before, behind, dsn
        self.table = f"pooled_{uuid4().hex[:12]}"
        self._conn = psycopg.connect(server.dsn, autocommit=True)
        self._conn.execute(f"CREATE TABLE {self.table} (id int)")
        self._conn.execute(SCHEMA)

    def rows(self) -> list[int]:
        return [row[0] for row in self._conn.execute(f"SELECT id FROM {self.table} ORDER BY id")]

    def close(self) -> None:
        self._conn.execute(f"DROP TABLE {self.table}")
        self._conn.close()


@pytest.fixture(scope="module")
def bouncer(server: PostgresServer) -> Iterator[tuple[FaultProxy, PgBouncer]]:
    with FaultProxy(server.host, server.port) as behind:
        settings = {"default_pool_size": 5, "server_login_retry": 0}
        dsn = behind.via(server.dsn)
        with pgbouncer(dsn, pool_mode="transaction", settings=settings) as bouncer:
            yield behind, bouncer


@pytest.fixture
def way(server: PostgresServer, bouncer: tuple[FaultProxy, PgBouncer]) -> Iterator[Way]:
    behind, program = bouncer
    with FaultProxy(target_port=program.port) as before:
        way = Way(server, before, behind, before.via(program.dsn))
        yield way
        way.close()


@pytest.mark.parametrize("where", ["before", "behind"])
@pytest.mark.parametrize("commit", MODES)
@pytest.mark.parametrize(("message", "action"), CUTS)
def test_a_commit_is_counted_once(
    way: Way, where: str, commit: Any, message: Any, action: Any
) -> None:
    def insert(conn: Any, number: int) -> int:
        conn.execute(f"INSERT INTO {way.table} VALUES ({number})")
        return number

    with ConnectionPool(way.dsn, min_size=2, max_size=4, open=False) as pool:
        pool.run(insert, 0, commit=commit)
        proxy: FaultProxy = getattr(way, where)
        rule = proxy.on(message, action)
        assert pool.run(insert, 1, commit=commit) == 1
        assert rule.hits == 1
        assert way.rows() == [0, 1]


def test_many_at_once(way: Way) -> None:
    def insert(conn: Any, number: int) -> int:
        conn.execute(f"INSERT INTO {way.table} VALUES ({number})")
        return number

    with ConnectionPool(way.dsn, min_size=4, max_size=8, open=False) as pool:
        rules = [
            proxy.on(message, action, skip=skip)
            for skip, (proxy, (message, action)) in enumerate(
                (proxy, cut) for proxy in (way.before, way.behind) for cut in CUTS
            )
        ]
        numbers = range(1, 41)
        workers = [
            spawn(pool.run, insert, number, commit=MODES[number % 2], attempts=10)
            for number in numbers
        ]
        assert gather(*workers) == list(numbers)
        assert way.rows() == list(numbers)
        assert sum(rule.hits for rule in rules) >= 4
