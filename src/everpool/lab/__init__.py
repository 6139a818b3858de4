"""A laboratory for connections: a PostgreSQL server, and every way to cut a connection to it.

For the tests of programs as much as for our own. It needs the standard library and, for the server,
PostgreSQL's programs on this machine.

* :class:`PostgresServer` starts a server, gives it standbys, crashes it, and leaves nothing behind.
* :class:`FaultProxy` stands between a client and a server and breaks connections: now, by the
  clock, by the message.
* :class:`everpool.lab.netns.PrivateNetwork` loses packets, which a proxy cannot.
* :mod:`everpool.lab.frames` reads and builds PostgreSQL's messages.
"""

from everpool.lab.binaries import BinariesNotFound, find_binaries
from everpool.lab.faults import (
    COMMIT,
    COMMITTED,
    FIN,
    READY,
    RST,
    RST_NEXT,
    SILENCE,
    STARTUP,
    Answer,
    Cut,
    CutAfter,
    CutBefore,
    Drop,
    Hold,
    Message,
    Style,
    fatal,
)
from everpool.lab.proxy import FaultProxy
from everpool.lab.relay import LinkInfo, Stats
from everpool.lab.rules import Rule
from everpool.lab.server import PostgresServer, ServerError, Standby

__all__ = [
    "COMMIT",
    "COMMITTED",
    "FIN",
    "READY",
    "RST",
    "RST_NEXT",
    "SILENCE",
    "STARTUP",
    "Answer",
    "BinariesNotFound",
    "Cut",
    "CutAfter",
    "CutBefore",
    "Drop",
    "FaultProxy",
    "Hold",
    "LinkInfo",
    "Message",
    "PostgresServer",
    "Rule",
    "ServerError",
    "Standby",
    "Stats",
    "Style",
    "fatal",
    "find_binaries",
]
