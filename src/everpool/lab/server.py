"""A PostgreSQL server for a test or a demonstration, gone without a trace afterwards.

    with PostgresServer() as server:
        psycopg.connect(server.dsn)

It listens on a free port of the loopback only, keeps its files in a temporary directory, trades
durability for speed, and ends together with the process that started it, whatever ends that one
(measured: exception, interrupt, SIGTERM, SIGKILL). It needs no privilege and no account. As root,
which PostgreSQL refuses, it runs in a user namespace of its own, or where the kernel does not allow
that, as the user nobody.

A second server may follow it:

    with PostgresServer() as primary, primary.standby() as standby:
        primary.crash()
        standby.promote()
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Literal, Self
from urllib.parse import quote

from everpool.lab._handle import KeeperHandle, ServerError, start_keeper
from everpool.lab.binaries import find_binaries, server_version
from everpool.lab.ports import free_port

__all__ = ["PostgresServer", "ServerError", "Standby", "StopMode"]

StopMode = Literal["fast", "immediate"]

_HOST = "127.0.0.1"
_USER = _DATABASE = "postgres"
_PORT_ATTEMPTS = 5

_SETTINGS: dict[str, object] = {
    "listen_addresses": _HOST,
    "unix_socket_directories": "",
    "max_connections": 300,
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "16MB",
    # Memory as files of the data directory: containers are given little of the other kind, and
    # nothing is left behind.
    "dynamic_shared_memory_type": "mmap",
}
_STANDBY_SETTINGS: dict[str, object] = {
    # PostgreSQL's 5 s between attempts to reach a primary that restarts are a long time in a test.
    "wal_retrieve_retry_interval": "100ms",
    # Inherited from the primary, it would hold every commit after a promotion.
    "synchronous_standby_names": "",
}


class PostgresServer:
    """A PostgreSQL server of one's own; a context manager.

    *settings* are added to ``postgresql.conf`` and have the last word: with ``fsync`` and
    ``full_page_writes`` ``on`` the lab's haste is off. With *password* the superuser ``postgres`` logs in
    by SCRAM, without one the server trusts the loopback. *bin_dir* names the directory of
    ``initdb`` and ``postgres``; how they are found otherwise is told in
    :func:`everpool.lab.binaries.find_binaries`. *timeout*, in seconds, bounds each of creating,
    starting and stopping. *port* 0 chooses a free one, which the server keeps for life.

    Methods may be called from any thread.
    """

    host: str
    port: int
    version: str

    def __init__(
        self,
        settings: Mapping[str, object] | None = None,
        *,
        password: str | None = None,
        bin_dir: str | os.PathLike[str] | None = None,
        port: int = 0,
        timeout: float = 60.0,
    ) -> None:
        self.host = _HOST
        self.port = port
        self.user = _USER
        self.password = password
        self.dbname = _DATABASE
        self.version = ""
        self._settings = {**_SETTINGS, **(settings or {})}
        self._asked_bin = bin_dir
        self._standbys = 0
        self._timeout = timeout
        self._lock = threading.RLock()
        self._keeper: KeeperHandle | None = None

    @property
    def dsn(self) -> str:
        """The server as a ``postgresql://`` address, with the password if there is one."""
        secret = f":{quote(self.password, safe='')}" if self.password else ""
        return f"postgresql://{self.user}{secret}@{self.host}:{self.port}/{self.dbname}"

    @property
    def conninfo(self) -> str:
        """The server as ``key=value`` pairs, with the password if there is one."""
        pairs = {"host": self.host, "port": self.port, "user": self.user, "dbname": self.dbname}
        text = " ".join(f"{key}={value}" for key, value in pairs.items())
        if self.password:
            text += " password='{}'".format(self.password.replace("\\", r"\\").replace("'", r"\'"))
        return text

    @property
    def pid(self) -> int:
        """Process id of the postmaster; 0 while there is none."""
        return self._keeper.postmaster if self._keeper else 0

    def start(self) -> Self:
        """Create the cluster and start the server; return when it accepts connections.

        Raises :class:`everpool.lab.binaries.BinariesNotFound` or :class:`ServerError`.
        """
        with self._lock:
            if self._keeper is not None:
                raise ServerError("the server is started already")
            bin_dir = self._asked_bin = find_binaries(self._asked_bin)
            config = {
                "user": self.user,
                "password": self.password,
                "settings": self._settings,
                "timeout": self._timeout,
            }
            self._keeper = start_keeper(bin_dir, config)
            try:
                self.version = server_version(bin_dir)
                self._create(self._keeper)
                self._first_up()
                self._settle(self._keeper)
            except BaseException:
                self.stop()
                raise
        return self

    def stop(self) -> None:
        """End the server at once and remove all its files. Does nothing when it is not started."""
        with self._lock:
            keeper, self._keeper = self._keeper, None
            if keeper is not None:
                keeper.end()

    def down(self, mode: StopMode = "fast") -> None:
        """Shut the server down and keep its files: what follows is an outage, until :meth:`up`.

        ``fast`` says goodbye to every client (57P01) and writes a checkpoint; ``immediate`` still
        says why (57P02) and leaves the data to be recovered. :meth:`crash` says nothing.
        """
        with self._lock:
            keeper = self._running()
            keeper.order({"do": "down", "mode": mode})
            keeper.postmaster = 0

    def crash(self) -> None:
        """Kill every process of the server (SIGKILL), as the death of its machine would.

        Clients see their connections end without a word. What was committed is there again after
        :meth:`up`, even with ``fsync`` off: the machine itself lives on. Returns when no process is
        left. Raises :class:`ServerError` when the server is down.
        """
        with self._lock:
            keeper = self._running()
            keeper.order({"do": "crash"})
            keeper.postmaster = 0

    def kill_backend(self, pid: int) -> None:
        """Kill one backend (SIGKILL), as the kernel does when memory runs out.

        The postmaster lives on, but trusts shared memory no more: it ends every other session
        (57P02), recovers, and for that time refuses connections (57P03). Returns when the backend
        is gone, before all that. Raises :class:`ServerError` when *pid* is no process of this
        server's.
        """
        with self._lock:
            self._running().order({"do": "kill", "backend": pid})

    def freeze(self, backend: int | None = None) -> None:
        """Stop the whole server, or only the process *backend*, where it stands (SIGSTOP).

        Connections stay open and nothing is answered; the kernel goes on accepting new ones.
        Stopping, crashing and taking down work on a frozen server. Raises :class:`ServerError` as
        :meth:`kill_backend` does.
        """
        with self._lock:
            self._running().order({"do": "freeze", "backend": backend or 0})

    def thaw(self, backend: int | None = None) -> None:
        """Let go on what :meth:`freeze` stopped."""
        with self._lock:
            self._running().order({"do": "thaw", "backend": backend or 0})

    def up(self) -> None:
        """End the outage that :meth:`down` began; return when the server accepts connections.

        The port is the same.
        """
        with self._lock:
            keeper = self._running()
            keeper.postmaster = keeper.order({"do": "up", "port": self.port})

    def restart(self, mode: StopMode = "fast", *, pause: float = 0.0) -> None:
        """Shut down, wait *pause* seconds, start again on the same port with the same data."""
        with self._lock:
            self.down(mode)
            time.sleep(pause)
            self.up()

    def standby(
        self, settings: Mapping[str, object] | None = None, *, name: str = "", port: int = 0
    ) -> Standby:
        """Return a standby of this running server, not started yet.

        It begins as a copy of the data and inherits password and settings; *settings* are its own.
        *name* is its ``application_name``, by default ``standby1``, ``standby2`` and so on; no two
        may share one. It is asynchronous unless the primary's ``synchronous_standby_names`` has the
        name:

            with PostgresServer({"synchronous_standby_names": "standby1"}) as primary:
                ...  # a commit would wait here
                with primary.standby() as standby:

        Raises :class:`ServerError` when this server is not started, :class:`ValueError` for a name
        that PostgreSQL would change.
        """
        with self._lock:
            self._running()
            self._standbys += 1
            return Standby(self, settings, name=name or f"standby{self._standbys}", port=port)

    def log_tail(self, lines: int = 20) -> str:
        """Return the last *lines* lines of the server's log; empty when it is not started."""
        with self._lock:
            return self._keeper.log_tail(lines) if self._keeper else ""

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _running(self) -> KeeperHandle:
        if self._keeper is None:
            raise ServerError("the server is not started")
        return self._keeper

    def _create(self, keeper: KeeperHandle) -> None:
        keeper.order({"do": "init"})

    def _settle(self, keeper: KeeperHandle) -> None:
        """Wait, after the first start, for what more than accepting connections is promised."""

    def _first_up(self) -> None:
        # Between finding a port free and using it, somebody else may have taken it.
        chosen = self.port
        for attempt in range(_PORT_ATTEMPTS):
            self.port = chosen or free_port(self.host)
            try:
                self.up()
                return
            except ServerError as error:
                if chosen or attempt == _PORT_ATTEMPTS - 1 or "in use" not in str(error):
                    raise


class Standby(PostgresServer):
    """A server that follows another by streaming and answers queries that only read.

    Made by :meth:`PostgresServer.standby`, started and ended like any server. It goes on following
    through every outage of the primary, who has to stay on its port, and of its own; but for an
    outage of its own during which much is written (16 MB and a checkpoint), give the primary
    ``wal_keep_size``.
    """

    def __init__(
        self,
        primary: PostgresServer,
        settings: Mapping[str, object] | None,
        *,
        name: str,
        port: int,
    ) -> None:
        if not (name.isascii() and name.isprintable() and len(name) < 64):
            raise ValueError(f"a standby's name is up to 63 printable ASCII characters: {name!r}")
        super().__init__(
            password=primary.password,
            bin_dir=primary._asked_bin,
            port=port,
            timeout=primary._timeout,
        )
        self.name = name
        self._way = ["-h", primary.host, "-p", str(primary.port), "-U", primary.user, "-w"]
        source = primary.conninfo + " application_name='{}'".format(
            name.replace("\\", r"\\").replace("'", r"\'")
        )
        self._settings = {**_STANDBY_SETTINGS, "primary_conninfo": source, **(settings or {})}

    def start(self) -> Self:
        """Copy the primary and start; return when connections are accepted and the copy streams.

        Takes about as long as starting a server. Raises :class:`ServerError`.
        """
        return super().start()

    def promote(self) -> None:
        """Make this a primary; return when it takes writes.

        Sessions it has stay, and may write from their next transaction on. The old primary is not
        told. Raises :class:`ServerError` when it is down or no standby any more.
        """
        with self._lock:
            self._running().order({"do": "promote"})

    def _create(self, keeper: KeeperHandle) -> None:
        keeper.order({"do": "copy", "primary": self._way})

    def _settle(self, keeper: KeeperHandle) -> None:
        keeper.order({"do": "await_streaming", "primary": self._way, "name": self.name})
