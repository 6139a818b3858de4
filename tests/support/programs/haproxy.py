"""HAProxy, which stands between a pool and its servers."""

from __future__ import annotations

import socket
from contextlib import AbstractContextManager
from pathlib import Path

from .process import Program, find, running

__all__ = ["HAProxy", "haproxy"]

_ADMIN = "admin"


def haproxy(config_text: str) -> AbstractContextManager[HAProxy]:
    """An HAProxy with this configuration, which says where to listen: take ports from ``everpool.lab.ports``.

    Sections ``defaults``, ``listen`` and so on are the test's; the stats socket for `HAProxy.command` is there.
    """
    path = find("haproxy", "haproxy")
    files = {
        "admin.cfg": f"global\n    stats socket unix@{_ADMIN} level admin\n",
        "haproxy.cfg": config_text,
    }
    return running(lambda directory: HAProxy(path, directory, ports=0), files)


class HAProxy(Program):
    """A running HAProxy."""

    def command(self, text: str) -> str:
        """What HAProxy answers to a command such as ``disable server backend/name``."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(10.0)
            sock.connect(str(Path(self.directory, _ADMIN)))
            sock.sendall(text.encode() + b"\n")
            with sock.makefile("rb") as answer:
                return answer.read().decode().strip()

    def arguments(self) -> list[str]:
        return ["-db", "-f", "admin.cfg", "-f", "haproxy.cfg"]

    def ready(self) -> None:
        self.command("show info")
