"""PgBouncer, the pool that many have between them and the server."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from everpool.lab._handle import shared_tmp

from .process import HOST, Program, find, running

__all__ = ["PgBouncer", "pgbouncer"]


def pgbouncer(
    server_dsn: str, pool_mode: str = "session", settings: Mapping[str, object] | None = None
) -> AbstractContextManager[PgBouncer]:
    """A PgBouncer in front of a server, with *settings* added to its section ``[pgbouncer]``.

    It lets the user of *server_dsn* in without a password, to the console ``pgbouncer`` too, and is not run as root,
    which it refuses.
    """
    path = find("pgbouncer", "pgbouncer")

    def make(directory: Path) -> PgBouncer:
        return PgBouncer(path, directory, server_dsn, {"pool_mode": pool_mode, **(settings or {})})

    return running(make, directory=shared_tmp())


class PgBouncer(Program):
    """A running PgBouncer."""

    def __init__(
        self, path: str, directory: Path, server_dsn: str, settings: Mapping[str, object]
    ) -> None:
        super().__init__(path, directory, ports=1, unprivileged=True)
        self._server = conninfo_to_dict(server_dsn)
        self._settings = settings

    @property
    def dsn(self) -> str:
        """The server as PgBouncer shows it."""
        return make_conninfo(
            host=HOST, port=self.port, user=self._server["user"], dbname=self._server["dbname"]
        )

    def arguments(self) -> list[str]:
        user, password = self._server["user"], self._server.get("password", "")
        settings = {
            "listen_addr": HOST,
            "listen_port": self.port,
            "unix_socket_dir": "",
            "auth_type": "trust",
            "auth_file": self.directory / "users",
            "admin_users": user,
            **self._settings,
        }
        lines = [
            "[databases]",
            f"* = host={self._server['host']} port={self._server['port']}",
            "[pgbouncer]",
            *(f"{name} = {value}" for name, value in settings.items()),
        ]
        (self.directory / "users").write_text(f'"{user}" "{password}"\n')
        (self.directory / "pgbouncer.ini").write_text("\n".join(lines) + "\n")
        return ["pgbouncer.ini"]

    def ready(self) -> None:
        socket.create_connection((HOST, self.port), timeout=10.0).close()
