"""The database seen from the other side: who is connected to it, and away with them."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from time import monotonic, sleep

import psycopg
from psycopg.conninfo import make_conninfo

_names = count(1)


class Database:
    """A test's own view of the server.

    `dsn` carries an application name that no other test has, so `pids` sees this test's connections only. It looks
    through a connection of its own and blocks for the millisecond that takes, in tasks too.
    """

    def __init__(self, server_dsn: str) -> None:
        self.application_name = f"contract-{next(_names)}"
        self.dsn = make_conninfo(server_dsn, application_name=self.application_name)
        self._admin = psycopg.connect(
            server_dsn, autocommit=True, application_name="contract-admin"
        )

    def close(self) -> None:
        self._admin.close()

    def pids(self) -> set[int]:
        """The backends that serve this test's connections now."""
        rows = self._admin.execute(
            "select pid from pg_stat_activity where application_name = %s", (self.application_name,)
        )
        return {pid for (pid,) in rows}

    def state(self, pid: int) -> str | None:
        """What `pg_stat_activity` says the backend is doing, or None when it is gone."""
        row = self._admin.execute(
            "select state from pg_stat_activity where pid = %s", (pid,)
        ).fetchone()
        return row[0] if row else None

    def kill(self, *pids: int) -> None:
        """Terminate the backends and wait until their processes are gone, and so their sockets.

        They leave `pg_stat_activity` a little earlier. The server runs on this machine.
        """
        for pid in pids:
            self._admin.execute("select pg_terminate_backend(%s)", (pid,))
        deadline = monotonic() + 5
        while any(Path(f"/proc/{pid}").exists() for pid in pids):
            assert monotonic() < deadline, f"the backends {pids} did not end"
            sleep(0.002)

    def execute(self, query: str) -> None:
        self._admin.execute(query)
