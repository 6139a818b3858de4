"""What a rejected attempt to connect tells: whose turn it is to mend it.

As with the pool's own judgement, there is only text to go by. Names are taken out first: a
database called "tokens" says nothing about a token.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Refusal:
    """``credentials``: something that expires or is rotated, rather than a mistaken setting."""

    kind: str
    credentials: bool
    summary: str
    advice: str


OTHER = Refusal(
    "other",
    False,
    "The database refuses this program's connections",
    "See that the database and the role exist and may log in, that pg_hba.conf lets this machine"
    " in, and that the connection settings are right. The pool's log has the server's words.",
)

CERTIFICATE = Refusal(
    "certificate",
    True,
    "A certificate is refused, or has expired",
    "See when the server's certificate, its authority's and this program's own expire, and whether"
    " sslrootcert, sslcert and the host name fit.",
)

TOKEN = Refusal(
    "token",
    True,
    "The access token is refused, or has expired",
    "See whether this machine can still fetch tokens (role, metadata service, clock), and whether"
    " a new one is used for each new connection.",
)

TLS = Refusal(
    "tls",
    True,
    "Server and program cannot agree on TLS",
    "Compare sslmode and the permitted protocol versions with what the server offers.",
)

EXPIRED = Refusal(
    "password expired",
    True,
    "The password has expired",
    "Set a new password for the role (VALID UNTIL), and give it to this program.",
)

# PostgreSQL tells a wrong password and an expired one in the same words.
PASSWORD = Refusal(
    "password",
    True,
    "The password is refused: wrong, rotated or expired",
    "See whether the password was rotated, and whether the role's VALID UNTIL has passed. A new"
    " password has to reach this program.",
)

# The first that fits counts. pg_hba.conf's refusals mention TLS in passing.
_KINDS: tuple[tuple[re.Pattern[str], Refusal], ...] = tuple(
    (re.compile(pattern), refusal)
    for pattern, refusal in (
        (r"pg_hba\.conf", OTHER),
        (r"does not exist|no such (user|database)|not permitted to log in", OTHER),
        (r"certificate|does not match host name|unknown ca\b", CERTIFICATE),
        (r"password.*\bexpired|expired password", EXPIRED),
        (r"\btokens?\b|\biam\b|\bjwt\b|\boauth|\bentra\b|pam authentication", TOKEN),
        (r"\b(ssl|tls)", TLS),
        (r"password|authentication failed|no credentials for", PASSWORD),
    )
)


def refusal_of(text: str) -> Refusal:
    """Judge the text of a rejected attempt."""
    plain = re.sub(r"\"[^\"]*\"|'[^']*'", "…", text.lower())
    return next((refusal for pattern, refusal in _KINDS if pattern.search(plain)), OTHER)
