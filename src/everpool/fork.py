"""After a fork, the child's copies of the parent's sockets must never be used, or closed.

libpq in the child would write into the parent's sessions, and closing a connection would say
goodbye on the parent's socket. So the child puts a dead socket over every inherited one,
touches nothing that the kernel shares between the two (the epoll, the sockets' state), and
each pool starts anew on first use.
"""

from __future__ import annotations

import os
import socket
from typing import Any
from weakref import WeakSet

from .watch import Watch

_pools: WeakSet[Any] = WeakSet()


def register(pool: Any) -> None:
    """Call ``pool._after_fork()`` in every forked child."""
    _pools.add(pool)


def bury(watch: Watch, descriptors: list[int]) -> None:
    """In the child: put a dead socket over the watch's duplicates and other descriptors."""
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours:
        for link in watch.links():
            link.replace_by(ours.fileno())
        for descriptor in descriptors:
            os.dup2(ours.fileno(), descriptor, inheritable=False)
    watch.close()


def _after_fork() -> None:
    for pool in list(_pools):
        pool._after_fork()


os.register_at_fork(after_in_child=_after_fork)
