# Generated from tests/aio/defences/test_promoted.py by `python tools/async_to_sync.py`.
# Do not edit: change that file and run `make generate`.

"""A standby is promoted under the sessions of a pool: they stay, and write from the next transaction on."""

from __future__ import annotations

from typing import Any

import psycopg

from everpool import ConnectionPool, Token
from everpool.lab import RST, CutAfter, FaultProxy, Message, PostgresServer
from everpool.lab.frames import Frame
from everpool.work.token import SCHEMA


def _ends_with_commit(frame: Frame) -> bool:
    return frame.body.rstrip(b"\0").endswith(b"COMMIT")


THE_COMMIT = Message("client", "Query", where=_ends_with_commit)

MODES: tuple[Any, ...] = ("xid", "token", Token("order"))


def insert(conn: Any, number: int) -> int:
    conn.execute("INSERT INTO work VALUES (%s)", (number,))
    return number


def test_the_first_transaction_after_a_promotion_is_committed_once() -> None:
    """The server says that it is a standby no more with its first answer, which is that to BEGIN."""
    with PostgresServer() as primary:
        with psycopg.connect(primary.dsn, autocommit=True) as conn:
            conn.execute("CREATE TABLE work (id int)")
            conn.execute(SCHEMA)
        with primary.standby() as standby, FaultProxy(standby.host, standby.port) as proxy:
            pools: list[Any] = [
                ConnectionPool(proxy.via(standby.dsn), min_size=1, open=False) for _ in MODES
            ]
            for pool in pools:
                pool.open(wait=True)
            standby.promote()
            with psycopg.connect(standby.dsn, autocommit=True) as view:
                for number, (pool, commit) in enumerate(zip(pools, MODES, strict=True)):
                    proxy.on(THE_COMMIT, CutAfter(RST))
                    assert pool.run(insert, number, commit=commit) == number
                    rows = view.execute("SELECT count(*) FROM work WHERE id = %s", (number,))
                    assert rows.fetchone() == (1,), commit
            for pool in pools:
                pool.close()
