"""Starting the keeper process, which see, and talking to it."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from everpool.lab import _keeper

__all__ = ["KeeperHandle", "ServerError", "start_keeper"]

_IDENTITIES = ("namespace", "drop")  # what root becomes, in the order they are tried


class ServerError(RuntimeError):
    """The server could not be started or controlled; the message ends with the tail of its log."""


class KeeperHandle:
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


def start_keeper(bin_dir: Path, config: Mapping[str, Any]) -> KeeperHandle:
    """Start a keeper under the first identity this machine allows."""
    refusals = []
    for identity in _IDENTITIES if os.geteuid() == 0 else ("self",):
        home = shared_tmp() if identity == "drop" else None
        root = Path(tempfile.mkdtemp(prefix="everpool-lab-", dir=home))
        try:
            programs = bin_dir
            if identity == "drop":
                programs = _readable_copy(bin_dir, root)
                os.chown(root, _keeper.NOBODY, _keeper.NOBODY)
            return KeeperHandle(programs, root, identity, config)
        except BaseException as error:
            shutil.rmtree(root, ignore_errors=True)
            if not isinstance(error, ServerError):
                raise
            refusals.append(str(error))
    raise ServerError("; ".join(refusals))


def _open_to_all(path: Path) -> bool:
    """Tell whether any user may pass through every directory down to *path*."""
    return all(step.stat().st_mode & 0o001 for step in (path, *path.parents))


def shared_tmp() -> str | None:
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
