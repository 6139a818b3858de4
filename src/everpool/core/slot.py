"""The life of one physical connection, as a table of states and events.

A *slot* is the pool's record of one connection, from the decision to open it until its socket
is closed. ``LIFE`` below is the only place that says what may follow what; everything else in
the pool asks it. The state also names the **owner**: the one party that may call libpq on the
connection. Nobody else touches it, which is why no call here ever needs to wait for another.

========== ======= ==================== ==========================================================
state      counted owner                meaning
========== ======= ==================== ==========================================================
OPENING    yes     the connect job      an attempt is in flight, within its patience
DISOWNED   yes     the connect job      an attempt past its patience; a late success is adopted
IDLE       yes     nobody               at rest, may be lent
TESTING    yes     the pinger           a ping is in flight, within its limit
SUSPECT    yes     the pinger           the ping is past its limit; a late pong still saves it
LENT       yes     the borrower         lent, or granted to a waiter who has not woken yet
RETURNING  yes     a worker             returned; rolling back or running the ``reset`` callback
CORPSE     no      the borrower         lent, but its death has been seen (or it was ended at the
                                        loan's deadline); replaced already
CLOSING    yes     the closer           healthy or unproven, being closed by us
DEAD       no      the closer           its death has been seen; its last words are being read
GONE       no      nobody               the socket is closed; the record is about to be dropped
========== ======= ==================== ==========================================================

*Counted* slots are those that ``max_size`` limits. A connection whose death was seen holds no
place: the server has forgotten it, and its replacement must not wait for the funeral.
"""

from __future__ import annotations

from enum import Enum
from typing import Any

from .incarnation import Incarnation, Session
from .verdict import Cause


class State(Enum):
    OPENING = "opening"
    DISOWNED = "disowned"
    IDLE = "idle"
    TESTING = "testing"
    SUSPECT = "suspect"
    LENT = "lent"
    RETURNING = "returning"
    CORPSE = "corpse"
    CLOSING = "closing"
    DEAD = "dead"
    GONE = "gone"

    # Enum's own hash goes through the name in Python; states are dictionary keys everywhere.
    __hash__ = object.__hash__


class Event(Enum):
    OPENED = "opened"  # the connect job succeeded
    FAILED = "failed"  # the connect job failed
    OVERDUE = "overdue"  # a connect or a ping is past its limit
    TAKE = "take"  # lent
    GIVE = "give"  # returned in a state that needs no work
    WORK = "work"  # returned, needs a rollback or a reset
    PING = "ping"  # a ping is being sent
    PONG = "pong"  # it was answered
    DIED = "died"  # a hang-up, an error, or silence with proof
    RETIRE = "retire"  # we close it: too old, unneeded, unproven
    CLOSED = "closed"  # the closer is done

    __hash__ = object.__hash__


LIFE: dict[State, dict[Event, State]] = {
    State.OPENING: {
        Event.OPENED: State.IDLE,
        Event.FAILED: State.GONE,
        Event.OVERDUE: State.DISOWNED,
    },
    State.DISOWNED: {
        Event.OPENED: State.IDLE,
        Event.FAILED: State.GONE,
    },
    State.IDLE: {
        Event.TAKE: State.LENT,
        Event.PING: State.TESTING,
        Event.DIED: State.DEAD,
        Event.RETIRE: State.CLOSING,
    },
    State.TESTING: {
        Event.PONG: State.IDLE,
        Event.OVERDUE: State.SUSPECT,
        Event.DIED: State.DEAD,
        Event.RETIRE: State.CLOSING,
    },
    State.SUSPECT: {
        Event.PONG: State.IDLE,
        Event.DIED: State.DEAD,
        Event.RETIRE: State.CLOSING,
    },
    State.LENT: {
        Event.GIVE: State.IDLE,
        Event.WORK: State.RETURNING,
        Event.PING: State.TESTING,
        Event.DIED: State.CORPSE,
        Event.RETIRE: State.CLOSING,
    },
    State.RETURNING: {
        Event.GIVE: State.IDLE,
        Event.DIED: State.CORPSE,
        Event.RETIRE: State.CLOSING,
    },
    State.CORPSE: {Event.RETIRE: State.DEAD},
    State.CLOSING: {Event.CLOSED: State.GONE},
    State.DEAD: {Event.CLOSED: State.GONE},
    State.GONE: {},
}

COUNTED = {state: int(state not in (State.CORPSE, State.DEAD, State.GONE)) for state in State}


class IllegalTransition(AssertionError):
    """The pool asked for something the table of life does not know: a bug in everpool."""


class Slot:
    """The record of one connection. All times are seconds on the core's clock.

    ``conn`` and ``link`` belong to the rooms above: the connection itself while it is *not*
    lent (a lent one is its borrower's; see the shells), and the I/O handle of the watch.
    """

    __slots__ = (
        "__weakref__",
        "asked_at",
        "began_at",
        "cause",
        "checked_at",
        "conn",
        "died_at",
        "direct",
        "experiment",
        "expires_at",
        "generation",
        "given_up_at",
        "heard_at",
        "incarnation",
        "keepalive",
        "leaked",
        "link",
        "number",
        "opened_at",
        "renewing",
        "sent_at",
        "session",
        "since",
        "standby",
        "state",
        "waiter",
        "why",
    )

    def __init__(self, number: int, now: float, generation: int) -> None:
        self.number = number
        self.state = State.OPENING
        self.since = now  # when the present state began (for LENT and IDLE: lent, rested since)
        self.generation = generation  # the suspicion it has been tested against
        self.began_at = now  # when the decision to open it fell: what it was configured by
        self.opened_at = now
        self.expires_at = 0.0
        self.died_at = 0.0  # when its death was seen
        self.experiment = ""  # what it tries out, "idle" or "age": see `learning`
        self.heard_at = now  # when the server was last heard on it, as far as we know
        self.checked_at = now  # when it was last peeked at
        self.keepalive = 0.0  # its own jittered interval
        self.sent_at = 0.0  # when the ping in flight was sent
        self.given_up_at = 0.0  # TESTING: when it becomes suspect; SUSPECT: when given up
        self.leaked = 0.0  # the ``since`` of the loan that has been told of as a leak
        self.asked_at = 0.0  # when the server was last asked about the query in flight
        self.renewing = False  # its replacement has been asked for
        self.waiter: Any = None  # whom it was granted to, until they wake
        self.why = ""  # why it is being closed
        self.cause: Cause | None = None  # what killed it, if its owner knows
        self.session: Session | None = None  # at the server, if it is this connection's own
        self.incarnation: Incarnation | None = None  # whom it leads to; None if nobody can tell
        self.standby: bool | None = None  # whether that is a standby; None if nobody can tell
        self.direct = False  # the server's process is known to be ours alone: no pooler between
        self.conn: Any = None
        self.link: Any = None

    def __repr__(self) -> str:
        return f"<Slot {self.number} {self.state.value}>"
