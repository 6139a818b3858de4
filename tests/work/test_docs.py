"""What docs/transactions.md shows is run, as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import psycopg

from everpool import ConnectionPool
from everpool.lab import PostgresServer
from everpool.work.token import SCHEMA

PAGE = Path(__file__).parents[2] / "docs" / "transactions.md"


def test_the_examples(server: PostgresServer) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert len(blocks) == 6
    with psycopg.connect(server.dsn, autocommit=True) as conn:
        conn.execute("CREATE TABLE accounts (id text PRIMARY KEY, balance int)")
        try:
            conn.execute("INSERT INTO accounts VALUES ('ann', 1000), ('bob', 0)")
            conn.execute(SCHEMA)
            conn.execute("DELETE FROM everpool.commits WHERE key = 'order-4711'")
            with ConnectionPool(server.dsn, min_size=1) as pool:
                names: dict[str, Any] = {"pool": pool}
                for block in blocks:
                    exec(compile(block, str(PAGE), "exec"), names)
            rows = conn.execute("SELECT * FROM accounts ORDER BY id").fetchall()
            assert rows == [("ann", 1000 - 100 - 50 + 150 - 10 - 20), ("bob", 180)]
        finally:
            conn.execute("DROP TABLE accounts")
    with ConnectionPool(server.dsn, judge=names["judge"], chaos=names["chaos"]) as pool:
        assert pool.run(lambda conn: conn.execute("SELECT 7").fetchone()) == (7,)
