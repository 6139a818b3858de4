"""etcd, which says who leads."""

from __future__ import annotations

from contextlib import AbstractContextManager

from .process import HOST, Program, find, running

__all__ = ["etcd"]


def etcd() -> AbstractContextManager[Program]:
    """An etcd of one member. Its `json` answers ``/v3/kv/range`` and the like, keys and values in base 64."""
    path = find("etcd", "etcd-server")
    return running(lambda directory: _Etcd(path, directory, ports=2))


class _Etcd(Program):
    def arguments(self) -> list[str]:
        peer = f"http://{HOST}:{self.ports[1]}"
        return [
            "--name=test",
            f"--data-dir={self.directory}/data",
            f"--listen-client-urls={self.url}",
            f"--advertise-client-urls={self.url}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=test={peer}",
        ]

    def ready(self) -> None:
        if self.json("/health").get("health") != "true":
            raise OSError("it has no leader yet")
