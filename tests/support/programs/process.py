"""One process: found, started, waited for, ended."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any, TypeVar

import pytest

from everpool.lab.ports import free_port

__all__ = ["HOST", "Program", "ProgramError", "find", "run", "running"]

HOST = "127.0.0.1"

_START = 30.0  # seconds until it answers; most need less than one
_STOP = 10.0  # seconds to end when asked
_PORT_ATTEMPTS = 5
_NOBODY = 65534

# A proxy that the environment names is not for the loopback.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class ProgramError(Exception):
    """The program did not start; the message ends with the tail of what it wrote."""


def find(name: str, package: str) -> str:
    """The path of a program, or a skipped test that names the Debian package."""
    # Debian keeps daemons in sbin, which is not on an ordinary user's path.
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
    found = shutil.which(name, path=path)
    if found is None:
        pytest.skip(f"needs {name} (Debian package {package})")
    return found


def run(command: list[str], stdin: str = "", timeout: float = 30.0) -> tuple[int, str]:
    """Run a program that ends by itself; return its exit code and all it wrote."""
    done = subprocess.run(
        command,
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )
    return done.returncode, done.stdout


class Program:
    """A running program, in a directory of its own.

    `arguments` is asked for the command line, and may write files into `directory` and use `ports`; `ready` is asked
    until it raises no OSError.
    """

    def __init__(self, path: str, directory: Path, ports: int, unprivileged: bool = False) -> None:
        self.path = path
        self.directory = directory
        self.ports = [free_port(HOST) for _ in range(ports)]
        self._unprivileged = unprivileged
        self._process: subprocess.Popen[bytes] | None = None
        self._log = directory / "log"

    def arguments(self) -> list[str]:
        """The command line, without the program's name."""
        raise NotImplementedError

    def ready(self) -> None:
        """Raise an OSError if the program does not answer yet."""
        raise NotImplementedError

    @property
    def port(self) -> int:
        """The port that the program serves."""
        return self.ports[0]

    @property
    def url(self) -> str:
        """The address that the program serves, for those that speak HTTP."""
        return f"http://{HOST}:{self.port}"

    @property
    def pid(self) -> int:
        """The process, to be stopped or killed by a test; 0 when it is down."""
        return self._process.pid if self._process else 0

    def log(self) -> str:
        """All that the program has written."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def get(self, path: str, body: object = None) -> str:
        """What the program answers to a GET, or to a POST of *body* as JSON. Raises URLError, an OSError."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} if data else {}
        request = urllib.request.Request(self.url + path, data=data, headers=headers)
        with _opener.open(request, timeout=10.0) as response:
            return str(response.read().decode())

    def json(self, path: str, body: object = None) -> Any:
        """The same, taken as JSON."""
        return json.loads(self.get(path, body))

    def up(self) -> None:
        """Start the program on its ports; return when it answers. Raises ProgramError."""
        command = [*_prefix(self._unprivileged), self.path, *self.arguments()]
        if self._unprivileged and os.geteuid() == 0:
            for path in (self.directory, *self.directory.rglob("*")):
                os.chown(path, _NOBODY, _NOBODY)
        environment = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self.directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # an interrupt typed at the terminal is not for it
            )
        try:
            self._wait_until_ready(self._process)
        except BaseException:
            self.down()
            raise

    def down(self) -> None:
        """End the program and keep its files. Does nothing when it is down."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.terminate()
            process.send_signal(signal.SIGCONT)  # a test may have stopped it
        try:
            process.wait(_STOP)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = monotonic() + _START
        while True:
            # First this: somebody else may answer on a port that we did not get.
            if process.poll() is not None:
                raise ProgramError(f"{self.path} ended with {process.returncode}:\n{self._tail()}")
            try:
                return self.ready()
            except OSError as ex:
                if monotonic() > deadline:
                    raise ProgramError(f"{self.path} does not answer: {ex}\n{self._tail()}") from ex
            sleep(0.02)

    def _tail(self) -> str:
        return "\n".join(self.log().splitlines()[-20:])


P = TypeVar("P", bound=Program)


@contextmanager
def running(
    make: Callable[[Path], P],
    files: Mapping[str, str] | None = None,
    directory: str | None = None,
) -> Iterator[P]:
    """A program that runs meanwhile, with *files* in its temporary directory, which is made below *directory*."""
    with tempfile.TemporaryDirectory(prefix="everpool-test-", dir=directory) as name:
        for file, text in (files or {}).items():
            Path(name, file).write_text(text)
        program = _start(make, Path(name))
        try:
            yield program
        finally:
            program.down()


def _start(make: Callable[[Path], P], directory: Path) -> P:
    # Between finding a port free and using it, somebody else may have taken it.
    for attempt in range(_PORT_ATTEMPTS):
        program = make(directory)
        try:
            program.up()
            return program
        except ProgramError as error:
            if attempt == _PORT_ATTEMPTS - 1 or "in use" not in str(error).lower():
                raise
    raise AssertionError("not reached")


def _prefix(unprivileged: bool) -> list[str]:
    """What to run a program with, so that it dies with us and, if that is asked for, is not root."""
    prefix = []
    # The kernel sends the signal when the thread that started the program ends.
    if threading.current_thread() is threading.main_thread() and shutil.which("setpriv"):
        prefix = ["setpriv", "--pdeathsig", "KILL"]
    if unprivileged and os.geteuid() == 0:
        prefix = prefix or ["setpriv"]
        prefix += [f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups"]
    return prefix
