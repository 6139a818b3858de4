"""What an error means for the work in hand and for the pool, and what follows: one table.

Judged by SQLSTATE and phase, never by exception class: psycopg's classes say little (3D000 is a
ProgrammingError, 25006 an InternalError), and a lost connection has no SQLSTATE at all. Failed
*connects* are judged in `verdict`, by text, because psycopg gives nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from .outcome import Outcome


class Phase(StrEnum):
    """How far the work had come when it failed."""

    LENT = "before send"  # the connection was lent, nothing of the work was sent
    WORK = "in transaction"  # a transaction is open, its COMMIT has not been sent
    COMMIT = "commit sent"
    AUTOCOMMIT = "autocommit"  # there is no transaction, each statement commits itself


class Meaning(StrEnum):
    """What a failure is about."""

    CONNECTION = "this connection"
    SIBLINGS = "siblings are suspect"
    ALL_DEAD = "all connections are dead"
    GOING = "the server is going"
    WRONG_ROLE = "the server is read-only"
    OVERLOADED = "the server lacks a resource"
    CONFIGURATION = "configuration"
    CONTENTION = "contention"
    WORK = "the work's own fault"


class Repeat(StrEnum):
    """Whether the whole transaction may be tried again."""

    NEVER = "never"
    ONCE = "once"
    YES = "yes"


@dataclass(frozen=True, slots=True)
class Failure:
    """What is known of a failure, in a form without words.

    :ivar sqlstate: the error's SQLSTATE; empty if there is none.
    :ivar lost: the connection is over: libpq says so, or its peer has hung up.
    :ivar fatal: the server or a pooler called it FATAL or PANIC, whatever became of the session.
    :ivar notice: SQLSTATE of a warning that announced an end (57P01, 57P02), if one came: a
        crash is told by a notice, and then the connection is simply gone.
    :ivar routine: the function of the server that raised it, which no translation changes.
    :ivar tag: the command tag with which a COMMIT was answered.
    :ivar chosen: the transaction is read-only by the caller's choice, or the server is no
        standby: then 25006 says nothing of the server's role.
    """

    phase: Phase
    sqlstate: str = ""
    lost: bool = False
    fatal: bool = False
    notice: str = ""
    routine: str = ""
    tag: str = ""
    chosen: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What follows from a failure.

    :ivar evict: the connection must not be used again.
    :ivar suspect: every other connection is tested before it is lent.
    :ivar repeat: whether the transaction may be repeated: by `run` and `attempts` only, and
        never while ``outcome`` is unknown.
    :ivar outcome: what became of the transaction; ``UNKNOWN`` asks for it to be resolved.
    """

    meaning: Meaning
    evict: bool
    suspect: bool
    repeat: Repeat
    outcome: Outcome

    def replace(self, *, repeat: Repeat | None = None, evict: bool | None = None) -> Verdict:
        """The same with another answer to what is a matter of opinion."""
        return replace(
            self,
            repeat=self.repeat if repeat is None else Repeat(repeat),
            evict=self.evict if evict is None else evict,
        )


_M, _NEVER, _ONCE, _YES = Meaning, Repeat.NEVER, Repeat.ONCE, Repeat.YES

# (meaning, whether the connection goes, whether a transaction that has not been committed may be
# repeated). A key of five characters is an SQLSTATE, of two its class. Siblings are suspected
# for the meanings in SUSPECTING.
TABLE: dict[str, tuple[Meaning, bool, Repeat]] = {
    "": (_M.SIBLINGS, True, _YES),  # the connection is gone, and nobody said why
    "08": (_M.SIBLINGS, True, _YES),
    "08004": (_M.CONFIGURATION, True, _NEVER),
    "08P01": (_M.CONNECTION, True, _NEVER),  # out of step with the server; a pooler's: see below
    "23": (_M.WORK, False, _NEVER),
    "25006": (_M.WRONG_ROLE, True, _ONCE),  # unless the caller chose it
    "25P03": (_M.CONNECTION, True, _NEVER),  # the application held it for too long, and would
    "25P04": (_M.CONNECTION, True, _NEVER),  # again
    "26000": (_M.CONNECTION, True, _ONCE),  # a prepared statement that another session has:
    "42P05": (_M.CONNECTION, True, _ONCE),  # behind a pooler; a new connection has none
    "28": (_M.CONFIGURATION, True, _NEVER),
    "3D000": (_M.CONFIGURATION, True, _NEVER),
    "40001": (_M.CONTENTION, False, _YES),
    "40P01": (_M.CONTENTION, False, _YES),
    "53": (_M.OVERLOADED, False, _NEVER),
    "53300": (_M.OVERLOADED, True, _YES),  # a pooler's word for its server's lack of room
    "57P01": (_M.GOING, True, _YES),
    "57P02": (_M.ALL_DEAD, True, _YES),
    "57P03": (_M.GOING, True, _YES),
    "57P04": (_M.CONFIGURATION, True, _NEVER),
    "57P05": (_M.CONNECTION, True, _YES),
    "58": (_M.OVERLOADED, False, _NEVER),
    "58000": (_M.SIBLINGS, True, _YES),  # PgCat's word for a server that goes
    "XX": (_M.CONNECTION, True, _NEVER),
}
_OTHERS = (_M.WORK, False, _NEVER)

SUSPECTING = frozenset((_M.SIBLINGS, _M.ALL_DEAD, _M.GOING, _M.WRONG_ROLE))

# "cached plan must not change result type": 0A000 with this routine, and only then.
_CACHED_PLAN = "RevalidateCachedQuery"

# Answers to COMMIT that leave it open what became of it: a lost connection or server under any of
# its names (poolers say 08xxx, 57Pxx or 58000 of their server's), the two that say so themselves
# (08007, 40003), and a server or pooler that has lost its mind (XX).
_OPEN = ("08", "40003", "57P", "58000", "XX")


def judge(failure: Failure) -> Verdict:
    """What a failure means, and what follows from it."""
    code = failure.sqlstate
    if failure.lost and failure.notice and (not code or code.startswith("08")):
        code = failure.notice  # the end that was announced
    meaning, evict, repeat = TABLE.get(code) or TABLE.get(code[:2]) or _OTHERS
    if (not code and not failure.lost) or (code == "25006" and failure.chosen):  # the caller's own
        meaning, evict, repeat = _OTHERS
    if code == "0A000" and failure.routine == _CACHED_PLAN:
        meaning, evict, repeat = _M.CONNECTION, True, _ONCE
    if failure.fatal or failure.lost:
        # Even where the session goes on (PgCat): nobody knows in which state.
        evict = True
        if meaning is _M.WORK and failure.fatal:
            meaning = _M.CONNECTION
        if code == "08P01":  # PgBouncer's for whatever it has to say, its server's death above all
            meaning, repeat = _M.SIBLINGS, _YES
    elif code == "08P01" and failure.phase is Phase.LENT:  # another connection may be in step
        repeat = _YES
    outcome = _outcome(failure)
    if outcome is Outcome.UNKNOWN or failure.phase is Phase.AUTOCOMMIT:
        repeat = _NEVER
    if failure.tag == "ROLLBACK":  # a statement had failed, and its error was swallowed
        meaning, repeat = _M.WORK, _NEVER
    # A dropped database is a matter of configuration, and of all connections.
    suspect = meaning in SUSPECTING or code == "57P04"
    return Verdict(meaning, evict, suspect, repeat, outcome)


def _outcome(failure: Failure) -> Outcome:
    if failure.phase is Phase.LENT:
        return Outcome.NOT_STARTED
    if failure.phase is Phase.WORK:
        return Outcome.ROLLED_BACK
    sure = failure.tag == "ROLLBACK" or (
        bool(failure.sqlstate)
        and not failure.lost
        and not failure.fatal
        and not failure.sqlstate.startswith(_OPEN)
    )
    return Outcome.ROLLED_BACK if sure else Outcome.UNKNOWN


def concerns_all(sqlstate: str) -> bool:
    """Whether an end with this SQLSTATE is news about the other connections too."""
    return bool(sqlstate) and judge(Failure(Phase.LENT, sqlstate, lost=True)).suspect
