"""Work that writes: a table of the test's own, and rows in it."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import psycopg

from everpool.lab import Message
from everpool.work.token import SCHEMA

INSERT = Message("client", ("Query", "Parse"), contains=b"INSERT INTO work_")


class Table:
    """A table of the test's own, seen past the proxy."""

    def __init__(self, dsn: str) -> None:
        self.name = f"work_{uuid4().hex[:12]}"
        self._conn = psycopg.connect(dsn, autocommit=True)
        self._conn.execute(f"CREATE TABLE {self.name} (id int)")
        self._conn.execute(SCHEMA)

    def rows(self) -> list[int]:
        return [row[0] for row in self._conn.execute(f"SELECT id FROM {self.name} ORDER BY id")]

    def execute(self, query: str) -> Any:
        return self._conn.execute(query)

    def close(self) -> None:
        self._conn.execute(f"DROP TABLE IF EXISTS {self.name}")
        self._conn.close()


class Insert:
    """The work: a row. Counts how often it was asked to."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.calls = 0

    async def __call__(self, conn: Any, number: int) -> int:
        self.calls += 1
        await conn.execute(f"INSERT INTO {self.table.name} VALUES ({number})")
        return number
