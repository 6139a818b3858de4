# Generated from tests/aio/defences/test_work_wire.py by `python tools/async_to_sync.py`.
# Do not edit: change that file and run `make generate`.

"""Keys where they cannot be written or spelled; ends of sessions that are taken for answers."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from everpool import ConnectionPool, Token
from everpool.lab import COMMITTED, RST, CutBefore, FaultProxy, Message, PostgresServer, fatal
from everpool.work.token import SCHEMA

from .work import Insert


def done_twice(conn: Any) -> None:
    conn.execute("INSERT INTO done VALUES (1)")


def test_a_key_in_a_read_only_transaction_is_refused(make: Any, insert: Insert) -> None:
    with make(1) as pool:
        with pytest.raises(ValueError):
            pool.run(insert, 1, commit=Token(f"reads {insert.table.name}"), read_only=True)
    with make(1, kwargs={"autocommit": True}, configure=ro) as pool:
        with pytest.raises(ValueError, match="conn.read_only"):
            pool.run(nothing, commit=Token(f"reads2 {insert.table.name}"))


def ro(conn: Any) -> None:
    conn.set_read_only(True)


def nothing(conn: Any) -> int:
    return 1


def test_a_key_that_meets_a_standby_goes_to_the_primary(server: Any) -> None:
    with PostgresServer() as primary:
        with psycopg.connect(primary.dsn, autocommit=True) as conn:
            conn.execute(SCHEMA)
            conn.execute("CREATE TABLE done (id int)")
        with primary.standby() as standby, FaultProxy(standby.host, standby.port) as proxy:
            pool = ConnectionPool(proxy.via(standby.dsn), min_size=1, max_size=1, open=False)
            with pool:
                pool.wait(10)
                proxy.retarget(primary.host, primary.port)
                pool.run(done_twice, commit=Token("moved"))


def test_a_response_may_have_characters_that_the_client_lacks(make: Any, insert: Insert) -> None:
    def work(conn: Any) -> str:
        return "→"

    with make(1, kwargs={"autocommit": True, "client_encoding": "latin1"}) as pool:
        k = Token(f"l {insert.table.name}")
        assert pool.run(work, commit=k) == "→"
        assert pool.run(work, commit=k) == "→"


def test_a_key_may_have_characters_that_the_client_lacks(make: Any, insert: Insert) -> None:
    def work(conn: Any) -> str:
        return "x"

    with make(1, kwargs={"autocommit": True, "client_encoding": "latin1"}) as pool:
        assert pool.run(work, commit=Token(f"→ {insert.table.name}")) == "x"


@pytest.mark.parametrize("code", ["XX000", "58000", "25P03", "08P01"])
def test_whatever_ends_the_resolvers_session_is_no_answer(
    make: Any, proxy: FaultProxy, insert: Insert, code: str
) -> None:
    with make(2) as pool:
        proxy.on(COMMITTED, CutBefore(RST))
        proxy.on(Message("client", "Query", contains=b"txid_status"), CutBefore(fatal(code)))
        pool.run(insert, 1)
        assert insert.table.rows() == [1]
