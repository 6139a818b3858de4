"""What may have become of a call that the server has not answered.

Whoever loses a connection in the middle of a call must know whether that call may have committed
something. psycopg does not tell: ``Transaction.status`` says COMMITTED before COMMIT is sent. What
was being done is read from the frames of the generator that did it, afterwards: a call that is
answered costs nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from traceback import walk_tb
from types import FrameType
from typing import Any

from psycopg.pq import ConnStatus

# psycopg's generators that end a transaction, or may.
_COMMITS = frozenset({"_commit_gen", "_tpc_prepare_gen", "_tpc_finish_gen"})
_ROLLS_BACK = "_rollback_gen"

# Statements that commit, or may. A text that only mentions such a word is suspected in vain.
_COMMITTING = re.compile(r"\b(commit|end|prepare\s+transaction|call|do)\b", re.IGNORECASE).search


def may_have_committed(conn: Any, gen: Any, error: BaseException) -> bool:
    """Whether a call whose connection was lost may have committed. False only if it cannot have.

    :param gen: what was waited for; *error* is what that ended with.
    """
    names, commits = set(), False
    for frame in _frames(gen, error):
        name = frame.f_code.co_name
        names.add(name)
        if name in _COMMITS:  # psycopg's transaction may be a savepoint
            commits |= getattr(frame.f_locals.get("self"), "_outer_transaction", True)
        query = frame.f_locals.get("query") if name.endswith("_gen") else None
        if query is not None and _COMMITTING(query if isinstance(query, str) else repr(query)):
            return True
    if _ROLLS_BACK in names:
        return False
    if conn._pipeline is not None or commits:
        return True
    return bool(conn._autocommit) and not conn._num_transactions


def _frames(gen: Any, error: BaseException) -> Iterator[FrameType]:
    """Of the generator: where it raised, or where it still stands."""
    for frame, _ in walk_tb(error.__traceback__):
        yield frame
    while gen is not None:
        standing = getattr(gen, "gi_frame", None)
        if standing is not None:
            yield standing
        gen = getattr(gen, "gi_yieldfrom", None)


def lost(conn: Any) -> bool:
    """Whether libpq has given the connection up."""
    return bool(conn.pgconn.status != ConnStatus.OK)
