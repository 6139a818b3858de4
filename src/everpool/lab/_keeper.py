"""The process that owns a lab server, and outlives whoever asked for it.

It starts, restarts and ends PostgreSQL. It is run as a script, in a session of its own, and uses
nothing but the standard library. Its parent speaks to it in lines of JSON over its standard input
and is answered over its standard output. End of input, or another parent than the one that started
it, means the parent is gone, however it went: the server is ended and its directory removed.

A separate process, for three reasons. Nothing of the parent's has to run when the parent is killed.
The parent may start servers from a short-lived thread: the kernel's parent-death signal fires when
the *thread* that forked ends, so only a process with a single thread can lean on it. And changing
identity is simple in a process that does nothing else.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

NOBODY = 65534
_CLONE_NEWUSER = 0x10000000
_PR_SET_PDEATHSIG = 1
_TICK = 0.5  # seconds between looks at the parent
_LOOK = 0.005  # seconds between looks at what is waited for
# Of enum DBState in the control file, where it follows eight bytes of identifier and two versions:
# so since PostgreSQL 9.
_STATE_AT = 16
_IN_ARCHIVE_RECOVERY = 5
_IN_PRODUCTION = 6
_LINUX = sys.platform == "linux"
_libc = ctypes.CDLL(None, use_errno=True)


class KeeperError(Exception):
    """What the parent is told in ``error``."""


def enter_user_namespace() -> None:
    """Become an ordinary user to all we start, while files stay owned by who we are."""
    uid, gid = os.geteuid(), os.getegid()
    if _libc.unshare(_CLONE_NEWUSER):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{NOBODY} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{NOBODY} {gid} 1")


def drop_privileges() -> None:
    """Become the user nobody, for good."""
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)


_BECOME: dict[str, Callable[[], None]] = {
    "namespace": enter_user_namespace,
    "drop": drop_privileges,
    "self": lambda: None,
}


def _die_with_keeper() -> None:
    # The keeper itself may be killed. SIGQUIT is PostgreSQL's immediate shutdown: no backend stays
    # behind.
    if _LINUX:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT)


def _processes() -> dict[int, tuple[int, str]]:
    """Parent and state (``T`` is stopped) of every process that has not ended, by process id."""
    found = {}
    if not _LINUX:
        listed = subprocess.run(
            ["ps", "-A", "-o", "pid=,ppid=,stat="], capture_output=True, text=True, check=True
        ).stdout
        rows = [line.split() for line in listed.splitlines()]
    else:
        rows = []
        for name in filter(str.isdigit, os.listdir("/proc")):
            with suppress(OSError):  # it has ended
                stat = Path(f"/proc/{name}/stat").read_text(errors="replace")
                state, parent = stat.rpartition(")")[2].split()[:2]
                rows.append([name, parent, state])
    for pid, parent, state in rows:
        if state[0] not in "ZX":
            found[int(pid)] = (int(parent), state[0])
    return found


def _send(pids: Iterable[int], signum: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signum)


class Keeper:
    """One server directory and, at most times, one running postmaster in it."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.bin = Path(config["bin"])
        self.root = Path(config["root"])
        self.data = self.root / "data"
        self.log = self.root / "server.log"
        self.timeout = float(config["timeout"])
        self.process: subprocess.Popen[bytes] | None = None

    def init(self) -> None:
        """Create the database cluster."""
        arguments = [
            "-D", self.data, "-U", self.config["user"], "-E", "UTF8",
            "--locale=C", "--no-sync", "-A", "scram-sha-256" if self.config["password"] else "trust"
        ]  # fmt: skip
        secret = self.root / "secret"
        try:
            if self.config["password"]:
                secret.touch(mode=0o600)
                secret.write_text(self.config["password"] + "\n", encoding="utf-8")
                arguments.append(f"--pwfile={secret}")
            self._run("initdb", *arguments)
        finally:
            secret.unlink(missing_ok=True)
        # In the file rather than on the command line, where ALTER SYSTEM could not override it.
        self._configure("postgresql.conf")

    def copy(self, primary: list[str]) -> None:
        """Copy the cluster of a running server, and follow that server from then on.

        *primary* are the options of PostgreSQL's programs that lead to it.
        """
        self._run("pg_basebackup", *primary, "-D", self.data, "-c", "fast", "-X", "stream", "-N")
        (self.data / "standby.signal").touch()
        # What ALTER SYSTEM said to the primary came along; the last word in that file wins.
        self._configure("postgresql.auto.conf")

    def await_streaming(self, primary: list[str], name: str) -> None:
        """Wait until the primary has the standby *name* among those that have caught up."""
        name = name.replace("'", "''")
        # Until its first report, a standby is asynchronous whatever synchronous_standby_names says.
        question = (
            f"SELECT 'caught up' FROM pg_stat_replication WHERE application_name = '{name}'"
            " AND state = 'streaming' AND flush_lsn IS NOT NULL"
        )
        ask = ["psql", *primary, "-d", "postgres", "-XAtc", question]
        self._await(lambda: "caught up" in self._run(*ask), "not following its primary")

    def up(self, port: int) -> int:
        """Start the postmaster, wait until it accepts connections, return its process id."""
        if self.process is not None and self.process.poll() is None:
            return self.process.pid
        pid_file = self.data / "postmaster.pid"
        with self.log.open("ab") as log:
            began = log.tell()
            self.process = subprocess.Popen(
                [self.bin / "postgres", "-D", self.data, "-p", str(port)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=_die_with_keeper,
            )  # fmt: skip
        deadline = time.monotonic() + self.timeout
        while True:
            if self.process.poll() is not None:
                raise KeeperError(f"the server ended at once:\n{self._log_since(began)}")
            try:
                lines = pid_file.read_text().split("\n")
            except OSError:
                lines = []
            # The eighth line tells the state; the first says whose file it is.
            if len(lines) > 7 and lines[7].strip() == "ready" and lines[0] == str(self.process.pid):
                return self.process.pid
            if time.monotonic() > deadline:
                self.down("immediate")
                raise KeeperError(f"not ready within {self.timeout:g} s:\n{self._log_since(began)}")
            time.sleep(_LOOK)

    def down(self, mode: str) -> None:
        """End the postmaster and its backends; *mode* is PostgreSQL's ``fast`` or ``immediate``."""
        process, self.process = self.process, None
        if process is None or process.poll() is not None:
            return
        _send((*self._children(process.pid), process.pid), signal.SIGCONT)
        process.send_signal(signal.SIGINT if mode == "fast" else signal.SIGQUIT)
        try:
            process.wait(self.timeout)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGQUIT)
            try:
                process.wait(10.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def crash(self) -> None:
        """Kill the postmaster and all its backends; return when none is left."""
        process = self._running()
        self._stop(process.pid)  # it starts no more, and leaves no process id to be used again
        children = self._children(process.pid)
        _send((*children, process.pid), signal.SIGKILL)
        process.wait()
        self.process = None
        self._await(lambda: not _processes().keys() & children, "still ending after SIGKILL")

    def kill(self, backend: int) -> None:
        """Kill one backend; return when it is gone."""
        self._check(backend)
        os.kill(backend, signal.SIGKILL)
        self._await(lambda: backend not in _processes(), "still ending after SIGKILL")

    def freeze(self, backend: int) -> None:
        """Stop one backend, or with 0 all and the postmaster; return when they stand still."""
        if backend:
            self._check(backend)
            self._stop(backend)
        else:
            postmaster = self._running().pid
            self._stop(postmaster)  # the others cannot become more
            self._stop(*self._children(postmaster))

    def thaw(self, backend: int) -> None:
        """Undo :meth:`freeze`."""
        if backend:
            self._check(backend)
            os.kill(backend, signal.SIGCONT)
        else:
            postmaster = self._running().pid
            _send((*self._children(postmaster), postmaster), signal.SIGCONT)

    def promote(self) -> None:
        """Make a standby a primary; return when it takes writes.

        As ``pg_ctl promote`` does, which looks at the result ten times a second only.
        """
        process = self._running()
        if self._state() != _IN_ARCHIVE_RECOVERY:
            raise KeeperError("the server follows no primary: there is nothing to promote")
        (self.data / "promote").touch()
        process.send_signal(signal.SIGUSR1)
        self._await(lambda: self._state() == _IN_PRODUCTION, "still a standby")

    def remove(self) -> None:
        """End the server and remove everything it wrote."""
        self.down("immediate")
        shutil.rmtree(self.root, ignore_errors=True)

    def _running(self) -> subprocess.Popen[bytes]:
        if self.process is None or self.process.poll() is not None:
            raise KeeperError("the server is down")
        return self.process

    def _children(self, postmaster: int) -> set[int]:
        return {pid for pid, (parent, _) in _processes().items() if parent == postmaster}

    def _check(self, backend: int) -> None:
        if backend not in self._children(self._running().pid):
            raise KeeperError(f"process {backend} is no backend of this server")

    def _stop(self, *pids: int) -> None:
        _send(pids, signal.SIGSTOP)

        def stopped() -> bool:
            processes = _processes()
            return all(processes[pid][1] == "T" for pid in pids if pid in processes)

        self._await(stopped, "still moving after SIGSTOP")

    def _state(self) -> int:
        control = (self.data / "global" / "pg_control").read_bytes()
        return int.from_bytes(control[_STATE_AT : _STATE_AT + 4], sys.byteorder)

    def _await(self, condition: Callable[[], bool], otherwise: str) -> None:
        deadline = time.monotonic() + self.timeout
        while not condition():
            if self.process is not None and self.process.poll() is not None:
                raise KeeperError(f"the server has ended:\n{self._log_since(0)}")
            if time.monotonic() > deadline:
                raise KeeperError(f"{otherwise} after {self.timeout:g} s:\n{self._log_since(0)}")
            time.sleep(_LOOK)

    def _run(self, program: str, *arguments: str | Path) -> str:
        try:
            done = subprocess.run(
                [self.bin / program, *arguments],
                capture_output=True,
                text=True,
                timeout=self.timeout,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PGPASSWORD": self.config["password"] or ""},
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise KeeperError(f"{program}: {error}") from None
        if done.returncode:
            raise KeeperError(f"{program} failed: {(done.stdout + done.stderr).strip()[-2000:]}")
        return done.stdout

    def _configure(self, file: str) -> None:
        with (self.data / file).open("a", encoding="utf-8") as conf:
            for name, value in self.config["settings"].items():
                text = str(value).replace("\\", r"\\").replace("'", "''")
                conf.write(f"{name} = '{text}'\n")

    def _log_since(self, offset: int) -> str:
        with self.log.open("rb") as log:
            log.seek(offset)
            return log.read().decode(errors="replace").strip()[-2000:]


def serve() -> None:
    """Take orders until told to stop, or until nobody is left to give any."""
    parent = os.getppid()
    lines = _Lines(parent)
    first = lines.next()
    if first is None:
        return
    config = json.loads(first)
    keeper = Keeper(config)
    try:
        try:
            _BECOME[config["identity"]]()
        except OSError as error:
            _answer({"error": f"cannot become an ordinary user ({config['identity']}): {error}"})
            return
        _answer({"pid": os.getpid()})
        while (line := lines.next()) is not None:
            order = json.loads(line)
            what = order.pop("do")
            if what == "stop":
                break
            try:
                _answer({"pid": getattr(keeper, what)(**order) or 0})
            except (KeeperError, OSError) as error:
                _answer({"error": str(error)})
    finally:
        keeper.remove()


def _answer(reply: dict[str, Any]) -> None:
    with suppress(BrokenPipeError):  # the parent is gone; the end of its input says so next
        os.write(1, json.dumps(reply).encode() + b"\n")


class _Lines:
    """Lines of standard input; ``None`` when the parent is gone.

    A forked child of the parent holds our input open, so its end alone would not do.
    """

    def __init__(self, parent: int) -> None:
        self._parent = parent
        self._buffer = b""

    def next(self) -> str | None:
        while b"\n" not in self._buffer:
            if os.getppid() != self._parent:
                return None
            if not select.select([0], [], [], _TICK)[0]:
                continue
            data = os.read(0, 65536)
            if not data:
                return None
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\n", 1)
        return line.decode()


def _leave(signum: int, frame: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(0)


if __name__ == "__main__":
    # A handler, not SIG_IGN, which PostgreSQL would inherit. An interrupt is the parent's business;
    # being told to end is ours as well, and serve() removes everything on its way out.
    signal.signal(signal.SIGINT, lambda signum, frame: None)
    signal.signal(signal.SIGTERM, _leave)
    # PGSSLMODE and the like are meant for the caller's connections, and libpq in a standby or in
    # pg_basebackup would heed them.
    for variable in [name for name in os.environ if name.startswith("PG")]:
        del os.environ[variable]
    serve()
