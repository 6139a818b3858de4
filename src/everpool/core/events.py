"""What happened, for logs and listeners: plain facts, without passwords or SQL.

Each happening has ``at``, the time on the pool's clock (``time.monotonic``), in seconds, and a
``name`` that does not change from version to version. All durations are seconds. ``number``
is the pool's own number of a connection, never used twice.

What text there is comes from a server, or from libpq: one line, cut and escaped, but it may
name hosts and users.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .verdict import Cause, Trouble


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that happened to a pool."""

    name: ClassVar[str] = "happening"

    at: float


@dataclass(frozen=True, slots=True)
class Opened(Happening):
    """A connection was opened; ``took`` counts from the decision to its being usable."""

    name: ClassVar[str] = "connection.opened"

    number: int
    took: float


@dataclass(frozen=True, slots=True)
class OpenFailed(Happening):
    """An attempt to connect failed after ``took``; the next may start in ``retry_in`` seconds."""

    name: ClassVar[str] = "connection.open_failed"

    number: int
    trouble: Trouble
    text: str
    retry_in: float
    took: float = 0.0


@dataclass(frozen=True, slots=True)
class Lent(Happening):
    """A connection was lent, ``waited`` after it was asked for. Only for those who ask."""

    name: ClassVar[str] = "connection.lent"

    number: int
    waited: float


@dataclass(frozen=True, slots=True)
class Returned(Happening):
    """A connection came back, ``held`` after it was lent. Only for those who ask."""

    name: ClassVar[str] = "connection.returned"

    number: int
    held: float


@dataclass(frozen=True, slots=True)
class Cut(Happening):
    """A connection ended that we had not closed.

    ``cause.style`` is how, ``cause.sqlstate`` and ``cause.text`` what was said. ``silent_for``
    is the time since the server was last heard on it, ``age`` the time since it was opened,
    ``lent`` whether somebody held it.
    """

    name: ClassVar[str] = "connection.cut"

    number: int
    cause: Cause
    silent_for: float
    age: float
    lent: bool


@dataclass(frozen=True, slots=True)
class Retired(Happening):
    """The pool closed a connection of its own accord."""

    name: ClassVar[str] = "connection.retired"

    number: int
    why: str
    age: float


@dataclass(frozen=True, slots=True)
class Pinged(Happening):
    """A ping was answered after ``took``; ``late`` if the connection had become suspect."""

    name: ClassVar[str] = "connection.pinged"

    number: int
    took: float
    late: bool


@dataclass(frozen=True, slots=True)
class Suspected(Happening):
    """A ping has not been answered within ``limit``."""

    name: ClassVar[str] = "connection.suspected"

    number: int
    limit: float
    silent_for: float


@dataclass(frozen=True, slots=True)
class Leaked(Happening):
    """A connection has been lent for ``lent_for``, longer than ``leak_after``, or was dropped
    by its borrower without being returned (``dropped``; it is replaced)."""

    name: ClassVar[str] = "connection.leaked"

    number: int
    lent_for: float
    dropped: bool


@dataclass(frozen=True, slots=True)
class StateChanged(Happening):
    """The pool's state changed. ``before`` and ``after`` are values of `Condition`."""

    name: ClassVar[str] = "pool.state"

    before: str
    after: str
    why: str


@dataclass(frozen=True, slots=True)
class Recovered(Happening):
    """A connection was opened after ``down_for`` without: caches and fallbacks may switch."""

    name: ClassVar[str] = "pool.recovered"

    down_for: float


@dataclass(frozen=True, slots=True)
class QueueChanged(Happening):
    """Callers began to wait for long (``saturated``), or no longer do.

    ``waiting`` callers wait, the first of them for ``longest``, and every connection is in use.
    """

    name: ClassVar[str] = "pool.queue"

    saturated: bool
    waiting: int
    longest: float


@dataclass(frozen=True, slots=True)
class Slept(Happening):
    """This process did not run for ``seconds``: suspended, frozen or starved."""

    name: ClassVar[str] = "pool.slept"

    seconds: float


@dataclass(frozen=True, slots=True)
class Paused(Happening):
    """Nothing is lent until the pool is resumed."""

    name: ClassVar[str] = "pool.paused"


@dataclass(frozen=True, slots=True)
class Resumed(Happening):
    """Lending goes on, after a pause of ``paused_for``."""

    name: ClassVar[str] = "pool.resumed"

    paused_for: float


@dataclass(frozen=True, slots=True)
class Drained(Happening):
    """All connections are to be replaced: those at rest now, those lent when they return."""

    name: ClassVar[str] = "pool.drained"


@dataclass(frozen=True, slots=True)
class Closed(Happening):
    """The pool was closed. The last happening, save the ends of connections."""

    name: ClassVar[str] = "pool.closed"


@dataclass(frozen=True, slots=True)
class Retried(Happening):
    """A transaction failed and is repeated: its ``attempt`` (the first repetition is 2), why
    (an SQLSTATE or a cause), and the pause before it."""

    name: ClassVar[str] = "work.retried"

    attempt: int
    why: str
    pause: float


@dataclass(frozen=True, slots=True)
class CommitResolved(Happening):
    """A COMMIT without an answer was looked into: ``outcome`` is ``"committed"``,
    ``"committed_locally_only"``, ``"rolled_back"`` or ``"unknown"``."""

    name: ClassVar[str] = "work.commit_resolved"

    outcome: str
    took: float


@dataclass(frozen=True, slots=True)
class ListenerGap(Happening):
    """A listener may have missed notifications that were sent in ``seconds``; it listens again."""

    name: ClassVar[str] = "work.listener_gap"

    seconds: float
    why: str


@dataclass(frozen=True, slots=True)
class Learned(Happening):
    """What the deaths of connections taught: a ``setting`` goes from ``before`` to ``after``.

    ``contradicts`` if the owner's own setting stands against it and is kept.
    """

    name: ClassVar[str] = "pool.learned"

    setting: str
    before: float
    after: float
    why: str
    contradicts: bool
