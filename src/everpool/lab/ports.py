"""Choosing a TCP port that stays ours while nobody listens on it.

Port 0 gives a port of the *ephemeral* range, the one outgoing connections take their own port from.
A lab closes its listeners on purpose (a refusing proxy, a restarting server), and in that time a
client may be given just that port: the listener cannot come back, or, on the loopback, a connect to
the closed port meets itself and succeeds. So ports are taken from below the ephemeral range.

Nor may another lab on this machine take it meanwhile. Labs that run side by side, such as the workers
of a parallel test run, are given ranges of their own: ``EVERPOOL_LAB_PORTS=20000-21999``, from the
first port to the last.
"""

from __future__ import annotations

import errno
import os
import random
import socket
from pathlib import Path

__all__ = ["free_port", "listening_socket"]

_RANGE_FILE = Path("/proc/sys/net/ipv4/ip_local_port_range")
# IANA's dynamic ports begin at 49152, Linux's ephemeral range at 32768: the lower is the safe guess
# elsewhere.
_DEFAULT_CEILING = 32768
_FLOOR = 10240
_ATTEMPTS = 200


def _range() -> range:
    """The ports to choose from.

    :raises ValueError: ``EVERPOOL_LAB_PORTS`` is no range.
    """
    chosen = os.environ.get("EVERPOOL_LAB_PORTS")
    if not chosen:
        return range(_FLOOR, _ceiling())
    first, _, last = chosen.partition("-")
    if not (first.isdecimal() and last.isdecimal() and 0 < int(first) <= int(last) < 65536):
        raise ValueError(f"EVERPOOL_LAB_PORTS={chosen!r}: must be two ports, as in 20000-21999")
    return range(int(first), int(last) + 1)


def _ceiling() -> int:
    try:
        low = int(_RANGE_FILE.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return _DEFAULT_CEILING
    return low if low > _FLOOR + 1000 else _DEFAULT_CEILING


def listening_socket(host: str, port: int = 0, *, backlog: int = 1024) -> socket.socket:
    """Return a listening, non-blocking TCP socket on *host*.

    *port* 0 chooses a free port below the ephemeral range. Raises :class:`OSError` when the port is
    taken, or when no free one was found, :class:`ValueError` when ``EVERPOOL_LAB_PORTS`` is no range.
    """
    if port:
        return _listen(host, port, backlog)
    ports = _range()
    for _ in range(_ATTEMPTS):
        try:
            return _listen(host, random.choice(ports), backlog)
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
    raise OSError(errno.EADDRINUSE, f"no free port found on {host} in {ports[0]}..{ports[-1]}")


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port on *host* that was free a moment ago, and not an ephemeral one."""
    with listening_socket(host) as sock:
        return int(sock.getsockname()[1])


def _listen(host: str, port: int, backlog: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Without it, connections of the last listener in TIME_WAIT keep the port for a minute.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(backlog)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock
