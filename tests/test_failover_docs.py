"""What docs/failover.md shows is run, as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from everpool import ConnectionPool
from everpool.lab import PostgresServer

PAGE = Path(__file__).parents[1] / "docs" / "failover.md"


def test_the_examples(server: PostgresServer) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    names: dict[str, Any] = {"ConnectionPool": ConnectionPool, "dsn": server.conninfo}
    try:
        for block in blocks:
            exec(compile(block, str(PAGE), "exec"), names)
        pool = names["pool"]
        pool.wait(10)
        assert pool._machine.writes
        with pool.connection() as conn:
            assert conn.execute("select 1").fetchone() == (1,)
    finally:
        names["pool"].close()
