"""Packets that vanish. No proxy can do that: its kernel acknowledges what it swallows.

    with PrivateNetwork() as net, PostgresServer() as server:
        conn = psycopg.connect(server.dsn)
        net.drop(server.port)        # nothing arrives any more, either way, and nobody is told
        net.heal()

The network is a namespace with nothing in it but a loopback of its own, and a packet filter there
does the dropping. The machine's own network is not touched. The *thread* that enters moves into the
namespace, and what it starts from then on, threads and processes, is born there; so servers, pools
and event loops must be started inside. The namespace lasts as long as somebody is in it: there is
nothing to clean up, and nothing remains after a crash.

It takes Linux, the ``nft`` program and the right to make network namespaces: root, or any user,
where the system allows it, for a program run under ``unshare --user --map-root-user --net``.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import threading
from types import TracebackType
from typing import Literal, Self

__all__ = ["PrivateNetwork", "Unavailable"]

_CLONE_NEWNET = 0x40000000
_SIOCSIFFLAGS = 0x8914
_IFF_UP_RUNNING = 0x1 | 0x40
_TIMEOUT = 10.0  # seconds for one run of nft, which takes milliseconds

# Packets are dropped on arrival. Dropped on departure, the sender's own kernel would know.
_TABLE = """
table inet lab {
    counter gone { }
    chain arriving { type filter hook input priority 0; policy accept; }
}
"""


class Unavailable(RuntimeError):
    """This machine, or this user, has no private networks; the message says why."""


class PrivateNetwork:
    """A loopback of one's own with a packet filter; a context manager.

    The thread that entered must leave it. Raises :class:`Unavailable` on entering. *port* in all
    methods is the server's TCP port. Faults add up until :meth:`heal`; they concern connections
    that stand and new ones alike.
    """

    def __init__(self) -> None:
        self._home = -1
        self._inside = -1
        self._thread = 0

    def drop(
        self, port: int, direction: Literal["both", "to_server", "to_client"] = "both"
    ) -> None:
        """Let packets vanish: the path is cut and neither end is told."""
        if direction in ("both", "to_server"):
            self._add(f"tcp dport {port} counter name gone drop")
        if direction in ("both", "to_client"):
            self._add(f"tcp sport {port} counter name gone drop")

    def lose(self, port: int, percent: int) -> None:
        """Let *percent* of 100 packets vanish, at random, in both directions."""
        for match in ("dport", "sport"):
            self._add(
                f"tcp {match} {port} numgen random mod 100 < {percent} counter name gone drop"
            )

    def reject(self, port: int) -> None:
        """Reset connections at the client's next packet, as a path that forgot them does."""
        self._add(f"tcp dport {port} counter name gone reject with tcp reset")

    def heal(self) -> None:
        """End all faults.

        What was lost on the way is sent again by the kernels, when their timers say so.
        """
        self._nft("flush chain inet lab arriving")

    @property
    def gone(self) -> int:
        """Number of packets that vanished or were rejected so far."""
        found = re.search(r"packets (\d+)", self._nft("list counter inet lab gone"))
        return int(found.group(1)) if found else 0

    def __enter__(self) -> Self:
        if sys.platform != "linux":
            raise Unavailable("private networks need Linux")
        if shutil.which("nft") is None:
            raise Unavailable(
                "the program nft is not installed (distributions package it as nftables)"
            )
        self._home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            # Returning home is a right of its own, which a user namespace lacks over the network
            # of the machine: better known before leaving.
            _system("setns", self._home, _CLONE_NEWNET)
            _system("unshare", _CLONE_NEWNET)
        except OSError as error:
            os.close(self._home)
            raise Unavailable(f"no right to make a network namespace: {error.strerror}") from None
        self._thread = threading.get_ident()
        self._inside = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _raise_loopback()
            self._nft(_TABLE)
        except BaseException as error:
            self._leave()
            if isinstance(error, OSError | subprocess.SubprocessError):
                raise Unavailable(f"the private network cannot be set up: {error}") from None
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._leave()

    def _leave(self) -> None:
        if threading.get_ident() != self._thread:
            raise RuntimeError("a private network is left by the thread that entered it")
        _system("setns", self._home, _CLONE_NEWNET)
        os.close(self._home)
        os.close(self._inside)
        self._home = self._inside = -1

    def _add(self, rule: str) -> None:
        self._nft(f"add rule inet lab arriving {rule}")

    def _nft(self, script: str) -> str:
        """Run a script of nft inside, from whatever thread."""
        if self._inside < 0:
            raise RuntimeError("the private network was not entered")
        result: list[subprocess.CompletedProcess[str] | BaseException] = []

        # In a thread of its own, which goes inside for that purpose: the caller may be a thread
        # that is not.
        def run() -> None:
            try:
                _system("setns", self._inside, _CLONE_NEWNET)
                result.append(
                    subprocess.run(
                        ["nft", "-f", "-"],
                        input=script,
                        capture_output=True,
                        text=True,
                        timeout=_TIMEOUT,
                    )
                )
            except BaseException as error:
                result.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        (outcome,) = result
        if isinstance(outcome, BaseException):
            raise outcome
        if outcome.returncode:
            raise OSError(f"nft: {outcome.stderr.strip()}")
        return outcome.stdout


def _system(call: str, *arguments: int) -> None:
    """Call a function of the C library that Python has from 3.12 on only."""
    if getattr(ctypes.CDLL(None, use_errno=True), call)(*arguments):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP_RUNNING))
