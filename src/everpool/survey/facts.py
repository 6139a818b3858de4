"""What the server says of itself. Nothing of the user's is read."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import asdict, dataclass, field, fields
from hashlib import sha256
from typing import Any, Self

import psycopg
from psycopg import AsyncConnection

from ..text import printable

# What may end a connection, or keep one alive, by the server's own settings.
SETTINGS = (
    "idle_session_timeout",
    "idle_in_transaction_session_timeout",
    "transaction_timeout",
    "tcp_keepalives_idle",
)

# For all questions together; what is not answered by then is not known.
PATIENCE = 10.0


@dataclass(frozen=True, slots=True)
class Facts:
    """What was learnt of the server; ``None``: not known.

    :param server: a fingerprint of host, port and database, to know them again by.
    :param version: PostgreSQL's, as the server tells it.
    :param role: ``"primary"`` or ``"standby"``.
    :param pooler: whether something else answers in the server's place: the process number that
        it gave at the login is not that of the session.
    :param unix: connected through a Unix socket: nothing is on the path.
    :param tls: whether the connection is encrypted.
    :param addresses: how many the host's name has.
    :param settings: settings of the server that concern connections, as ``SHOW`` gives them.
    """

    server: str = ""
    version: str | None = None
    role: str | None = None
    pooler: bool | None = None
    unix: bool = False
    tls: bool = False
    addresses: int | None = None
    settings: dict[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def read(cls, data: Any) -> Self:
        """Take them from JSON.

        :raises ValueError: they are none.
        """
        if not isinstance(data, dict) or set(data) - {f.name for f in fields(cls)}:
            raise ValueError("the facts have other fields")
        if not isinstance(data.get("server", ""), str):
            raise ValueError("the server's fingerprint is no text")
        return cls(**data)


async def ask(conn: AsyncConnection[Any]) -> Facts:
    """Ask over a connection in autocommit. What is refused is not known."""
    info = conn.info
    unix = info.host.startswith(("/", "@"))
    known: dict[str, Any] = {
        "server": sha256(f"{info.host}:{info.port}/{info.dbname}".encode()).hexdigest()[:16],
        "version": _short(info.parameter_status("server_version")),
        "unix": unix,
        "tls": bool(conn.pgconn.ssl_in_use),
    }
    settings: dict[str, str] = {}
    try:
        async with asyncio.timeout(PATIENCE):
            for name in SETTINGS:
                if (value := await _one(conn, f"SHOW {name}")) is not None:
                    settings[name] = _short(str(value)) or ""
            standby = await _one(conn, "SELECT pg_is_in_recovery()")
            if isinstance(standby, bool):
                known["role"] = "standby" if standby else "primary"
            process = await _one(conn, "SELECT pg_backend_pid()")
            if isinstance(process, int):
                known["pooler"] = process != info.backend_pid
            if not unix:
                known["addresses"] = await _addresses(info.host, info.port)
    except (TimeoutError, psycopg.Error, OSError):
        pass  # the rest is not known
    return Facts(**known, settings=settings)


async def _one(conn: AsyncConnection[Any], question: str) -> Any:
    """The one value that answers a question, or None if it is refused."""
    try:
        row = await (await conn.execute(question)).fetchone()
    except psycopg.Error:
        if conn.broken:
            raise
        return None
    return row[0] if row else None


async def _addresses(host: str, port: int) -> int:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return len({address[4][0] for address in found})


def _short(text: str | None) -> str | None:
    return None if text is None else printable(text)
