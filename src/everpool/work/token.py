"""The table of tokens: what makes the outcome of a COMMIT certain, whatever was lost.

A transaction writes its token in the same message as COMMIT: both arrive, or neither. Whoever
wants to know the outcome inserts the same token as aborted. The primary key decides: whoever
comes first, and a COMMIT that arrives later dies on it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from hashlib import sha256
from os import urandom
from time import time_ns
from typing import Any
from uuid import UUID

from psycopg.pq import Escaping

from ..core.incarnation import Incarnation
from ..errors import TokenConflict, TokenTableMissing
from ..identity import SYSTEM, TIMELINE

TABLE = "everpool.commits"
_TABLE = TABLE.encode()

# The unique index that the caller's keys are in.
KEYS = "commits_key"

# An escape of NUL, and not a backslash before "u0000".
_has_nul = re.compile(r"(?<!\\)(?:\\\\)*\\u0000").search

# An idempotency key is a name, not a document.
LONGEST_KEY = 200

# Seconds a token is kept: as long as anybody may still ask what became of it, or repeat the key.
KEPT = 7 * 86400

# Of old tokens, so many are deleted in one statement: some milliseconds of work.
SWEPT_AT_ONCE = 1000

SCHEMA = """\
CREATE SCHEMA IF NOT EXISTS everpool;

CREATE TABLE IF NOT EXISTS everpool.commits (
    token uuid PRIMARY KEY,
    outcome text NOT NULL CHECK (outcome IN ('committed', 'aborted')),
    key text,
    work text,
    response jsonb,
    at timestamptz NOT NULL DEFAULT now()
);

COMMENT ON TABLE everpool.commits IS
    'One row for each transaction committed under a token. Rows of 7 days and more may go.';

CREATE UNIQUE INDEX IF NOT EXISTS commits_key ON everpool.commits (key) WHERE key IS NOT NULL;

CREATE INDEX IF NOT EXISTS commits_at ON everpool.commits USING brin (at);
"""

GRANT = """
GRANT USAGE ON SCHEMA everpool TO {role};

GRANT SELECT, INSERT, DELETE ON everpool.commits TO {role};
"""

# Whether the table is there and may be read: asked with a pool's first BEGIN in this mode.
CHECK = b"SELECT 1 FROM " + _TABLE + b" LIMIT 0"

_UNUSABLE = {
    "42P01": "does not exist",
    "3F000": "does not exist",
    "42501": "may not be used by this role",
    "42703": "has not the columns it should have",
}


@dataclass(frozen=True, slots=True)
class Token:
    """An idempotency key of your own, for ``pool.run(…, commit=Token("order-4711"))``.

    The work is done once for each key, however often and from wherever it is asked for: a second
    `run` under the key returns what the first returned, without calling the function. What the
    function returns is stored with the key, as JSON, for at least seven days.

    :param key: 1 to 200 characters, chosen before the work is first tried, and kept by whoever
        may try again.
    :param work: what the key is for, in any words that differ for different work (the request's
        body, say). Only its SHA-256 is stored. The key used for other work is a `TokenConflict`.
    :raises ValueError: the key is empty, too long, or contains NUL.
    """

    key: str = field(repr=False)
    work: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        if {type(self.key), type(self.work)} != {str}:
            raise TypeError("Token: key and work must be strings")
        if not 0 < len(self.key) <= LONGEST_KEY or "\0" in self.key:
            raise ValueError(
                f"Token: a key has 1 to {LONGEST_KEY} characters, none of them NUL;"
                f" this one has {len(self.key)}"
            )

    @property
    def fingerprint(self) -> str:
        return sha256(self.work.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class Stored:
    """What was found under a key: the work was done, and this is what it returned."""

    response: Any = field(repr=False)


def fresh() -> str:
    """A new token: time first (as UUID version 7), so that the index grows at its end."""
    raw = bytearray((time_ns() // 1_000_000).to_bytes(6, "big") + urandom(10))
    raw[6] = raw[6] & 0x0F | 0x70
    raw[8] = raw[8] & 0x3F | 0x80
    return str(UUID(bytes=bytes(raw)))


def lookup(token: Token) -> bytes:
    """The query for what is stored under a key; its answer is read with `stored`.

    The response comes as UTF-8 in hexadecimal digits: the client's encoding may lack characters
    that it has.
    """
    return (
        b"SELECT work, pg_catalog.encode(pg_catalog.convert_to(response::pg_catalog.text, 'UTF8'),"
        b" 'hex') FROM %s WHERE key OPERATOR(pg_catalog.=) %s"
    ) % (_TABLE, _text(token.key))


def stored(result: Any, token: Token) -> Stored | None:
    """
    :raises TokenConflict: the key was used for other work.
    """
    if not result.ntuples:
        return None
    work, response = result.get_value(0, 0), result.get_value(0, 1)
    if (work or b"").decode() != token.fingerprint:
        raise TokenConflict(
            "this idempotency key was used for different work, which is committed:"
            " use a new key for new work (Token(key, work=…) says what the key is for)"
        )
    return Stored(None if response is None else json.loads(bytes.fromhex(response.decode())))


def write(pgconn: Any, token: str, key: Token | None, response: str | None) -> bytes:
    """The statement that makes a transaction committed under its token."""
    if key is None:
        return b"INSERT INTO %s (token, outcome) VALUES ('%s', 'committed')" % (
            _TABLE,
            token.encode(),
        )
    values = [_text(key.key), _text(key.fingerprint)]
    values.append(b"NULL" if response is None else _literal(pgconn, response))
    return (
        b"INSERT INTO %s (token, outcome, key, work, response) VALUES ('%s', 'committed', %s)"
        % (_TABLE, token.encode(), b", ".join(values))
    )


def age(token: str) -> float:
    """Seconds since a token was made, by this machine's clock."""
    made = int.from_bytes(UUID(token).bytes[:6], "big")
    return (time_ns() // 1_000_000 - made) / 1000


def fence(token: str, incarnation: Incarnation | None, lock_timeout: float) -> bytes:
    """The statements that decide a token as aborted unless it is decided, and tell how it is.

    Committed at once: the fence must hold on this server only, for as long as sessions live,
    so it waits for no standby.

    :param incarnation: of the server that the transaction ran on, if known: another system, or
        an older history of the same one, has no say, and writes nothing.
    """
    here = ""
    if incarnation is not None:
        here = (
            f" WHERE {SYSTEM} OPERATOR(pg_catalog.=) '{incarnation.system}'::bigint AND"
            f" {TIMELINE} COLLATE \"C\" OPERATOR(pg_catalog.>=) '{incarnation.timeline:08X}'::text"
        )
    return (
        "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;"
        f"SET LOCAL lock_timeout = {round(1000 * lock_timeout)};"
        "SET LOCAL synchronous_commit = local;"
        f"INSERT INTO {TABLE} (token, outcome) SELECT '{token}'::pg_catalog.uuid, 'aborted'{here}"
        " ON CONFLICT (token) DO NOTHING;"
        f"SELECT outcome FROM {TABLE} WHERE token OPERATOR(pg_catalog.=) '{token}';COMMIT"
    ).encode()


SWEEP = (
    b"DELETE FROM %s WHERE token OPERATOR(pg_catalog.=) ANY (SELECT token FROM %s WHERE at"
    b" OPERATOR(pg_catalog.<) (pg_catalog.now() OPERATOR(pg_catalog.-) interval '%d s')"
    b" LIMIT %d FOR UPDATE SKIP LOCKED)"
) % (_TABLE, _TABLE, KEPT, SWEPT_AT_ONCE)


def unusable(sqlstate: str | None) -> TokenTableMissing | None:
    """The error to raise when the table cannot be used; None if that is not what is wrong."""
    if (why := _UNUSABLE.get(sqlstate or "")) is None:
        return None
    return TokenTableMissing(
        f'commit="token" needs the table {TABLE}, which {why} ({sqlstate}). Nothing was done.'
        " Create it with `everpool migrate DSN [--grant ROLE]` (`everpool migrate` shows the SQL)"
    )


def met() -> TokenConflict:
    """What to tell who met another transaction under the same key once more."""
    return TokenConflict(
        "another transaction was committed under this idempotency key at the same moment: ask"
        " again, and get what it returned"
    )


def as_json(response: Any) -> str:
    """
    :raises TypeError: it cannot be stored.
    """
    try:
        text = json.dumps(response, allow_nan=False)
    except (TypeError, ValueError) as ex:
        raise TypeError(
            "under an idempotency key, a function must return what can be stored as JSON;"
            f" {type(response).__name__} cannot: nothing was committed"
        ) from ex
    if _has_nul(text):
        raise TypeError("PostgreSQL stores no NUL in JSON: nothing was committed")
    return text


def is_done_by_another(error: Any) -> bool:
    """Whether a COMMIT failed because another transaction committed under the same key."""
    return getattr(error, "sqlstate", None) == "23505" and error.diag.constraint_name == KEYS


def _literal(pgconn: Any, text: str) -> bytes:
    return bytes(Escaping(pgconn).escape_literal(text.encode(pgconn._encoding)))


def _text(text: str) -> bytes:
    """SQL: a text of any characters, whatever encoding the client has chosen."""
    digits = text.encode().hex().encode()
    return b"pg_catalog.convert_from(pg_catalog.decode('%s', 'hex'), 'UTF8')" % digits
