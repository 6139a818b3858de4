"""What an error means, and what follows from it.

psycopg gives no SQLSTATE for a failed connect, only libpq's text, so connects are judged by
text. The texts known here are PostgreSQL's and libpq's English ones; anything else counts as
transient, because trying again is the mistake that costs least. Deaths carry an SQLSTATE when
the server (or a pooler) managed to say why before it closed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from .judgement import concerns_all


class Trouble(Enum):
    """Why no connection can be opened, by what should be done about it."""

    GONE = "unreachable"  # refused, reset, unknown: try again soon, one at a time
    SILENT = "silent"  # attempts hang: try again soon, at most two at a time
    CROWDED = "too many connections"  # the server is well; back off and lend what is idle
    REJECTED = "rejected"  # password, role, database, TLS: trying fast makes it worse


# Fragments of server and libpq messages (English) after which only a person can help.
_REJECTED = (
    "password authentication failed",
    "no password supplied",
    "authentication failed for user",
    "no pg_hba.conf entry",
    "pg_hba.conf rejects",
    "circuit breaker open",  # Supabase's pooler, after repeated bad logins
    "is not permitted to log in",
    "certificate verify failed",
    "alert certificate",  # the server refuses ours: expired, revoked, required
    "alert bad certificate",
    "alert unsupported certificate",
    "alert unknown ca",
    "requires a valid client certificate",
    "server does not support ssl",
    "but ssl was required",
    "permission denied for database",
    "is not currently accepting connections",
    "conninfo cannot be parsed",  # our own words for whatever libpq says of it
    "invalid connection option",
    "invalid uri",
    "invalid dsn",
    "bad value for connect_timeout",
    "unsupported frontend protocol",
    "does not match host name",
    "root certificate file",
    "sasl authentication failed",  # PgBouncer, like the next two
    "no such user",
    "no such database",
    "tenant or user not found",  # Supabase's pooler
    "has no credentials for the role",  # the RDS proxy
)

# An option's value that libpq does not understand, or a server's setting that the server does not.
_MISTAKEN = re.compile(
    r"invalid (\w+ value|port number)\b|invalid value for parameter|unrecognized configuration param"
).search

_CROWDED = (
    "too many clients already",
    "too many connections",
    "remaining connection slots are reserved",
    "no more connections allowed",
    "max clients reached",  # Supabase's pooler, like the next
    "max client connections reached",
)
_UNRESOLVED = ("failed to resolve host", "could not translate host name")
_RESOLVER_DOWN = ("temporary failure in name resolution", "[errno -3]")


def judge_connect(text: str, *, needs_password: bool = False, connected_before: bool) -> Trouble:
    """Judge a failed connect by the text of its error.

    A host name that does not resolve is a mistake in the settings if no connection ever
    succeeded, and a passing fault of the resolver afterwards, or if it says so itself.
    """
    low = text.lower()
    if any(fragment in low for fragment in _CROWDED):
        return Trouble.CROWDED
    if needs_password or any(fragment in low for fragment in _REJECTED) or _MISTAKEN(low):
        return Trouble.REJECTED
    if "does not exist" in low and ("role" in low or "database" in low or "user" in low):
        return Trouble.REJECTED
    if any(fragment in low for fragment in _RESOLVER_DOWN):
        return Trouble.GONE
    if not connected_before and any(fragment in low for fragment in _UNRESOLVED):
        return Trouble.REJECTED
    if "timeout expired" in low or "connection timed out" in low:
        return Trouble.SILENT
    return Trouble.GONE


# What libpq and psycopg say when the network, or whatever forwards on it, gave no answer.
_NO_ANSWER = (
    "timeout expired",
    "timed out",
    "connection refused",
    "connection reset by peer",
    "server closed the connection unexpectedly",
    "no route to host",
    "host is down",
    "network is unreachable",
)


def nobody_answered(text: str) -> bool:
    """Whether a connect failed because no server answered, at each host that was tried.

    Unlike in `judge_connect` the unknown is not: queries in flight are ended for this.
    """
    failures = text.lower().split("\n- ")  # psycopg tells of each host so
    return "fatal:" not in text.lower() and all(
        any(fragment in failure for fragment in _NO_ANSWER) for failure in failures
    )


@dataclass(frozen=True, slots=True)
class Cause:
    """How a connection ended: ``style`` says what was seen, the rest what was said.

    ``style`` is one of ``"FATAL"`` (the server or a pooler gave a reason), ``"FIN"``,
    ``"RST"``, ``"silence"`` (pings went unanswered while others were answered, or a query for
    which its server does not work any more), ``"error"``
    (libpq refused to go on), ``"demoted"`` (the server turned read-only under us),
    ``"deadline"`` (we ended it under its borrower, whose work was not over in time).
    """

    style: str
    sqlstate: str = ""
    text: str = ""

    @property
    def kind(self) -> str:
        """The cause without its words, for counting: ``"FIN"``, ``"FATAL 57P05"``.

        An SQLSTATE that is none of PostgreSQL's is not repeated: a server that makes up ever new
        ones must not make labels.
        """
        if not self.sqlstate:
            return self.style
        return f"{self.style} {self.sqlstate if self.sqlstate in _KNOWN else 'of another kind'}"

    @property
    def says_idle(self) -> bool:
        """Whether the server or a pooler said that the connection was cut for being idle."""
        return self.sqlstate == "57P05" or bool(_SAYS_IDLE(self.text.lower()))

    @property
    def concerns_all(self) -> bool:
        """Whether this death is news about the other connections too."""
        return self.style == "demoted" or concerns_all(self.sqlstate)

    def __str__(self) -> str:
        said = " ".join(part for part in (self.sqlstate, self.text) if part)
        return f"{self.style} ({said})" if said else self.style


# PgBouncer, Odyssey, PgDog, Pgpool. A server's text may name a database, so words are not enough.
_SAYS_IDLE = re.compile(
    r"client_idle_timeout|(due to|exceeded) idle timeout|disconnecting idle client|client_idle_limit"
).search

# PostgreSQL's in the classes that end connections; poolers use the same ones.
_KNOWN = frozenset(
    """
    08000 08001 08003 08004 08006 08007 08P01
    25000 25001 25002 25003 25004 25005 25006 25007 25008 25P01 25P02 25P03 25P04
    28000 28P01 3D000 40000 40001 40002 40003 40P01 53000 53100 53200 53300 53400
    57000 57014 57P01 57P02 57P03 57P04 57P05 58000 58030 58P01 58P02 58P03 XX000 XX001 XX002
    """.split()  # noqa: SIM905
)
