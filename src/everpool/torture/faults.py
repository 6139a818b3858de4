"""The faults: their kinds, and a plan of them made from a seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from random import Random

from everpool.lab import FIN, RST, RST_NEXT, SILENCE, Style, fatal

__all__ = ["CUTTING", "INTERRUPTING", "POOL_WIDE", "SILENT", "Fault", "Kind", "make_faults"]


class Kind(StrEnum):
    """What befalls a transaction."""

    TO_SERVER = "cut in COMMIT"
    """After so many bytes of the message with COMMIT have reached the server."""
    TO_CLIENT = "cut in its answer"
    BEFORE_COMMIT = "cut before COMMIT"
    AFTER_COMMIT = "cut after COMMIT"
    BEFORE_COMMITTED = "cut before the answer"
    AFTER_COMMITTED = "cut after the answer"
    BEFORE_READY = "cut before ReadyForQuery"
    WORK = "cut in a statement"
    NEXT = "cut in the next BEGIN"
    FORGOTTEN_COMMIT = "reset at COMMIT"
    """The path forgets the connection; whoever sends next, here COMMIT, is answered by a reset."""
    FORGOTTEN_WORK = "reset at a statement"
    FORGOTTEN_BEGIN = "reset at the next BEGIN"
    SILENT_COMMIT = "silence before COMMIT"
    """All is acknowledged, nothing delivered, and nobody ends that but the deadline."""
    SILENT_COMMITTED = "silence after COMMIT"
    """As `SILENT_COMMIT`, once the server has committed."""
    SILENT_LATE = "silence, COMMIT late"
    """As `SILENT_COMMIT`, but COMMIT is delivered when the pool has decided."""
    SILENT_WORK = "silence in a statement"
    LATE = "COMMIT late"
    """It is held back while the client is cut off, and delivered soon after."""
    AFTER_VERDICT = "COMMIT after the verdict"
    """As `LATE`, but delivered when the pool has already decided."""
    TERMINATE = "backend terminated"
    CANCEL_QUERY = "COMMIT cancelled by another"
    SYNC_CANCEL = "wait for standby cancelled"
    SYNC_TERMINATE = "wait for standby terminated"
    SYNC_CUT = "wait for standby cut"
    POOLER = "pooler says 08006"
    """The server commits, and a pooler in between answers with an error of its own."""
    DEFERRED = "COMMIT refused"
    """A deferred constraint is violated: the server answers COMMIT with 23505."""
    SWALLOWED = "error swallowed"
    INTERRUPT = "task cancelled"
    INTERRUPT_ASKING = "task cancelled, answer lost"
    """While the pool asks what became of its COMMIT."""
    KILL = "backend killed (SIGKILL)"


_SHARES: dict[Kind, int] = {
    Kind.TO_SERVER: 24,
    Kind.TO_CLIENT: 24,
    Kind.BEFORE_COMMIT: 4,
    Kind.AFTER_COMMIT: 6,
    Kind.BEFORE_COMMITTED: 4,
    Kind.AFTER_COMMITTED: 3,
    Kind.BEFORE_READY: 3,
    Kind.WORK: 8,
    Kind.NEXT: 4,
    Kind.FORGOTTEN_COMMIT: 4,
    Kind.FORGOTTEN_WORK: 2,
    Kind.FORGOTTEN_BEGIN: 3,
    Kind.SILENT_COMMIT: 2,
    Kind.SILENT_COMMITTED: 2,
    Kind.SILENT_LATE: 1,
    Kind.SILENT_WORK: 2,
    Kind.LATE: 8,
    Kind.AFTER_VERDICT: 6,
    Kind.TERMINATE: 3,
    Kind.CANCEL_QUERY: 1,
    Kind.SYNC_CANCEL: 1,
    Kind.SYNC_TERMINATE: 1,
    Kind.SYNC_CUT: 1,
    Kind.POOLER: 2,
    Kind.DEFERRED: 1,
    Kind.SWALLOWED: 1,
    Kind.INTERRUPT: 2,
    Kind.INTERRUPT_ASKING: 3,
}

CUTTING = frozenset(
    (
        Kind.TO_SERVER,
        Kind.TO_CLIENT,
        Kind.BEFORE_COMMIT,
        Kind.AFTER_COMMIT,
        Kind.BEFORE_COMMITTED,
        Kind.AFTER_COMMITTED,
        Kind.BEFORE_READY,
        Kind.WORK,
        Kind.NEXT,
        Kind.FORGOTTEN_COMMIT,
        Kind.FORGOTTEN_WORK,
        Kind.FORGOTTEN_BEGIN,
        Kind.SILENT_COMMIT,
        Kind.SILENT_COMMITTED,
        Kind.SILENT_WORK,
        Kind.LATE,
        Kind.AFTER_VERDICT,
        Kind.SYNC_CUT,
        Kind.INTERRUPT_ASKING,
    )
)
"""Those in which the proxy cuts the connection."""

INTERRUPTING = frozenset((Kind.INTERRUPT, Kind.INTERRUPT_ASKING))
"""Those that befall tasks only."""

SILENT = frozenset((Kind.SILENT_COMMIT, Kind.SILENT_COMMITTED, Kind.SILENT_LATE, Kind.SILENT_WORK))
"""Those that nobody ends but the deadline: psycopg_pool, which has none, would wait for ever."""

_FORGOTTEN = frozenset((Kind.FORGOTTEN_COMMIT, Kind.FORGOTTEN_WORK, Kind.FORGOTTEN_BEGIN))

# A closed and a reset connection are the most frequent ways; silence takes longest to play.
_STYLES = (FIN, FIN, FIN, RST, RST, RST, SILENCE, fatal("57P01"), fatal("08006"))
_ONE_SIDED = 0.15  # share of the cuts of which the server is not told

# Seconds that a transaction has that meets with silence. The shortest leaves no time to find out
# what became of its COMMIT, the longer ones do.
_DEADLINES = (0.2, 0.35, 0.7, 1.0)
POOL_WIDE = 0.5
"""Seconds: the deadline of a pool as a whole, for those that are given none of their own."""

# Bytes on the wire. COMMIT alone is a message of 12; with a token in front it has about 110. Its
# answer is CommandComplete (12) and ReadyForQuery (6), after one more CommandComplete (16).
_COMMIT = {False: 12, True: 112}
_ANSWER = {False: 18, True: 34}


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of the plan.

    :ivar style: how the connection is cut, where it is.
    :ivar count: bytes that still pass before the cut; or which statement it is.
    :ivar delay: seconds between what sets it off and what follows.
    :ivar deadline: seconds that the transaction has; None if it may take its time.
    """

    kind: Kind
    style: Style
    count: int
    delay: float
    deadline: float | None = None


def make_faults(
    random: Random, number: int, *, token: bool, tasks: bool, deadlines: bool, pool_wide: bool
) -> list[Fault]:
    """The faults for one lane, in order.

    :param token: a token goes with each COMMIT.
    :param tasks: the lane's work is done by tasks, which can be cancelled.
    :param deadlines: its pool knows deadlines;
    :param pool_wide: and has one for all.
    """
    without = frozenset[Kind]() if tasks else INTERRUPTING
    if not deadlines:
        without |= SILENT
    shares = {kind: share for kind, share in _SHARES.items() if kind not in without}
    kinds = random.choices(list(shares), list(shares.values()), k=number)
    return [_fault(kind, random, token, pool_wide) for kind in kinds]


def _fault(kind: Kind, random: Random, token: bool, pool_wide: bool) -> Fault:
    style, one_sided = random.choice(_STYLES), _ONE_SIDED
    if kind in SILENT or kind in _FORGOTTEN:  # a path that tells one end nothing tells none
        style, one_sided = SILENCE if kind in SILENT else RST_NEXT, 0.5
    if random.random() < one_sided:
        style = replace(style, server_told=False)
    counts: dict[Kind, Callable[[], int]] = {
        Kind.TO_SERVER: lambda: random.randint(0, _COMMIT[token]),
        Kind.TO_CLIENT: lambda: random.randint(0, _ANSWER[token]),
        Kind.WORK: lambda: random.randint(0, 600),
        Kind.NEXT: lambda: _COMMIT[token] + random.randint(1, 120),
        Kind.FORGOTTEN_WORK: lambda: random.randint(0, 5),
        Kind.SILENT_WORK: lambda: random.randint(0, 11),
    }
    count = counts[kind]() if kind in counts else 0
    longest = 0.03 if kind is Kind.INTERRUPT_ASKING else 0.005
    longest = 0.5 if kind is Kind.LATE and random.random() < 0.5 else longest
    delay, deadline = random.random() * longest, None
    if kind in SILENT:
        own = random.choice(_DEADLINES)
        deadline = POOL_WIDE if pool_wide and random.random() < 0.5 else own
    return Fault(kind, style, count, delay, deadline)
