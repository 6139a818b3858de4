"""A PostgreSQL server for a test or a demonstration, gone without a trace afterwards.

    with PostgresServer() as server:
        psycopg.connect(server.dsn)

It listens on a free port of the loopback only, keeps its files in a temporary directory, trades
durability for speed, and ends together with the process that started it, whatever ends that one
(measured: exception, interrupt, SIGTERM, SIGKILL). It needs no privilege and no account. As root,
which PostgreSQL refuses, it runs in a user namespace of its own, or where the kernel does not allow
that, as the user nobody.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import quote

from everpool.lab import _keeper
from everpool.lab.binaries import find_binaries, server_version
from everpool.lab.ports import free_port

__all__ = ["PostgresServer", "ServerError", "StopMode"]

StopMode = Literal["fast", "immediate"]

_HOST = "127.0.0.1"
_USER = _DATABASE = "postgres"
_PORT_ATTEMPTS = 5
_IDENTITIES = ("namespace", "drop")  # what root becomes, in the order they are tried

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


class ServerError(RuntimeError):
    """The server could not be started or controlled; the message ends with the tail of its log."""


class PostgresServer:
    """A PostgreSQL server of one's own; a context manager.

    *settings* are added to ``postgresql.conf``. With *password* the superuser ``postgres`` logs in
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
        self._timeout = timeout
        self._lock = threading.RLock()
        self._keeper: _KeeperHandle | None = None

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
            bin_dir = find_binaries(self._asked_bin)
            config = {
                "user": self.user,
                "password": self.password,
                "settings": self._settings,
                "timeout": self._timeout,
            }
            self._keeper = _start_keeper(bin_dir, config)
            try:
                self.version = server_version(bin_dir)
                self._keeper.order({"do": "init"})
                self._first_up()
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

        ``fast`` says goodbye to every client (57P01) and writes a checkpoint; ``immediate`` is a
        crash.
        """
        with self._lock:
            self._running().order({"do": "down", "mode": mode})
            self._running().postmaster = 0

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

    def _running(self) -> _KeeperHandle:
        if self._keeper is None:
            raise ServerError("the server is not started")
        return self._keeper

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


class _KeeperHandle:
    """Our end of the line to the keeper process, which see."""

    def __init__(self, bin_dir: Path, root: Path, identity: str, config: Mapping[str, Any]) -> None:
        self.root = root
        self.postmaster = 0
        self._patience = 3 * float(config["timeout"]) + 15.0
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", _keeper.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=root,
            start_new_session=True,  # an interrupt typed at the terminal is not for the server
            bufsize=0,
        )
        self._finalizer = weakref.finalize(self, _end_keeper, self._process, root, os.getpid())
        try:
            self.order({**config, "bin": str(bin_dir), "root": str(root), "identity": identity})
        except BaseException:
            self.end()
            raise

    def order(self, message: Mapping[str, Any]) -> int:
        """Send one order; return the process id it is answered with. Raises ServerError."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
        except OSError:
            raise ServerError("the process that keeps the server has died") from None
        reply = json.loads(self._line())
        if "error" in reply:
            raise ServerError(reply["error"])
        return int(reply["pid"])

    def end(self) -> None:
        self._finalizer()

    def log_tail(self, lines: int) -> str:
        try:
            text = (self.root / "server.log").read_text(errors="replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-lines:])

    def _line(self) -> bytes:
        assert self._process.stdout is not None
        deadline = time.monotonic() + self._patience
        line = b""
        while not line.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._process.stdout], [], [], left)[0]:
                raise ServerError(f"no answer within {self._patience:g} s\n{self.log_tail(20)}")
            data = os.read(self._process.stdout.fileno(), 65536)
            if not data:
                raise ServerError(
                    f"the process that keeps the server has died\n{self.log_tail(20)}"
                )
            line += data
        return line


def _end_keeper(process: subprocess.Popen[bytes], root: Path, owner: int) -> None:
    # A forked child inherits this object, and must not end its parent's server when it exits.
    if os.getpid() != owner:
        return
    assert process.stdin is not None and process.stdout is not None
    with suppress(OSError):  # it has ended already
        process.stdin.write(b'{"do": "stop"}\n')
    process.stdin.close()
    try:
        process.wait(30.0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()
    shutil.rmtree(root, ignore_errors=True)


def _start_keeper(bin_dir: Path, config: Mapping[str, Any]) -> _KeeperHandle:
    """Start a keeper under the first identity this machine allows."""
    refusals = []
    for identity in _IDENTITIES if os.geteuid() == 0 else ("self",):
        home = _shared_tmp() if identity == "drop" else None
        root = Path(tempfile.mkdtemp(prefix="everpool-lab-", dir=home))
        try:
            programs = bin_dir
            if identity == "drop":
                programs = _readable_copy(bin_dir, root)
                os.chown(root, _keeper.NOBODY, _keeper.NOBODY)
            return _KeeperHandle(programs, root, identity, config)
        except BaseException as error:
            shutil.rmtree(root, ignore_errors=True)
            if not isinstance(error, ServerError):
                raise
            refusals.append(str(error))
    raise ServerError("; ".join(refusals))


def _open_to_all(path: Path) -> bool:
    """Tell whether any user may pass through every directory down to *path*."""
    return all(step.stat().st_mode & 0o001 for step in (path, *path.parents))


def _shared_tmp() -> str | None:
    candidates = [tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm"]
    return next(
        (name for name in candidates if os.path.isdir(name) and _open_to_all(Path(name).resolve())),
        None,
    )


def _readable_copy(bin_dir: Path, root: Path) -> Path:
    """Return *bin_dir*, or a copy under *root* when other users cannot reach it.

    The whole installation is copied, since the programs find their other files relative to
    themselves; with it the directory that wheels keep their libraries in, ``<package>.libs``.
    """
    if _open_to_all(bin_dir):
        return bin_dir
    prefix = bin_dir.parent
    sources = [prefix]
    for package in (prefix, *prefix.parents):
        libraries = package.with_name(f"{package.name}.libs")
        if package.name and libraries.is_dir():
            sources = [package, libraries]
            break
    target = root / "programs"
    for source in sources:
        shutil.copytree(source, target / source.name, symlinks=True)
    for path in (target, *target.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
    return target / bin_dir.relative_to(sources[0].parent)
