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


@dataclass(frozen=True, slots=True)
class Cause:
    """How a connection ended: ``style`` says what was seen, the rest what was said.

    ``style`` is one of ``"FATAL"`` (the server or a pooler gave a reason), ``"FIN"``,
    ``"RST"``, ``"silence"`` (pings went unanswered while others were answered), ``"error"``
    (libpq refused to go on), ``"demoted"`` (the server turned read-only under us).
    """

    style: str
    sqlstate: str = ""
    text: str = ""

    @property
    def kind(self) -> str:
        """The cause without its words, for counting: ``"FIN"``, ``"FATAL 57P05"``.

        What is no SQLSTATE is not repeated: the server's text must not make labels.
        """
        if not self.sqlstate:
            return self.style
        code = self.sqlstate
        known = code[:2] in _CLASSES and len(code) == 5 and code.isascii() and code.isalnum()
        return f"{self.style} {code if known else 'of another kind'}"

    @property
    def concerns_all(self) -> bool:
        """Whether this death is news about the other connections too."""
        return self.style == "demoted" or self.sqlstate in _CONCERNS_ALL

    def __str__(self) -> str:
        said = " ".join(part for part in (self.sqlstate, self.text) if part)
        return f"{self.style} ({said})" if said else self.style


# Classes of SQLSTATE that end connections: PostgreSQL's own and the poolers'.
_CLASSES = frozenset({"08", "25", "28", "3D", "40", "53", "57", "58", "XX"})

# Admin shutdown, crash shutdown, cannot connect now, database dropped; 08P01 and 08006 and
# 58000 are how PgBouncer, Odyssey and PgCat say that their server or they themselves go.
# Not 57P05 (idle-session timeout): it speaks of one idle connection only.
_CONCERNS_ALL = frozenset({"57P01", "57P02", "57P03", "57P04", "08P01", "08006", "58000"})
