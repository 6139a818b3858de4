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
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

NOBODY = 65534
_CLONE_NEWUSER = 0x10000000
_PR_SET_PDEATHSIG = 1
_TICK = 0.5  # seconds between looks at the parent
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
        command = [
            self.bin / "initdb", "-D", self.data, "-U", self.config["user"], "-E", "UTF8",
            "--locale=C", "--no-sync", "-A", "scram-sha-256" if self.config["password"] else "trust"
        ]  # fmt: skip
        secret = self.root / "secret"
        try:
            if self.config["password"]:
                secret.touch(mode=0o600)
                secret.write_text(self.config["password"] + "\n")
                command.append(f"--pwfile={secret}")
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=self.timeout,
                stdin=subprocess.DEVNULL,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise KeeperError(f"initdb: {error}") from None
        finally:
            secret.unlink(missing_ok=True)
        if done.returncode:
            raise KeeperError(f"initdb failed: {(done.stdout + done.stderr).strip()[-2000:]}")
        # In the file rather than on the command line, where ALTER SYSTEM could not override it.
        with (self.data / "postgresql.conf").open("a") as conf:
            for name, value in self.config["settings"].items():
                conf.write("{} = '{}'\n".format(name, str(value).replace("'", "''")))

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
            time.sleep(0.005)

    def down(self, mode: str) -> None:
        """End the postmaster and its backends; *mode* is PostgreSQL's ``fast`` or ``immediate``."""
        process, self.process = self.process, None
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGCONT)
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

    def remove(self) -> None:
        """End the server and remove everything it wrote."""
        self.down("immediate")
        shutil.rmtree(self.root, ignore_errors=True)

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
            if order["do"] == "stop":
                break
            try:
                _answer({"pid": _obey(keeper, order)})
            except KeeperError as error:
                _answer({"error": str(error)})
    finally:
        keeper.remove()


def _obey(keeper: Keeper, order: dict[str, Any]) -> int:
    match order["do"]:
        case "init":
            keeper.init()
        case "up":
            return keeper.up(int(order["port"]))
        case "down":
            keeper.down(order["mode"])
        case unknown:
            raise KeeperError(f"unknown order {unknown!r}")
    return 0


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
    serve()
