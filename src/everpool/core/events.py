"""What happened, for logs and listeners: plain facts, without passwords or SQL."""

from __future__ import annotations

from dataclasses import dataclass

from .verdict import Cause, Trouble


@dataclass(frozen=True, slots=True)
class Opened:
    """A connection was opened."""

    number: int
    took: float


@dataclass(frozen=True, slots=True)
class OpenFailed:
    """An attempt to connect failed; the next may start in ``retry_in`` seconds."""

    number: int
    trouble: Trouble
    text: str
    retry_in: float


@dataclass(frozen=True, slots=True)
class Recovered:
    """A connection was opened after ``down_for`` seconds without."""

    down_for: float


@dataclass(frozen=True, slots=True)
class Cut:
    """A connection ended that we had not closed.

    ``silent_for`` is the time since the server was last heard on it, ``age`` the time since it
    was opened, ``lent`` whether somebody held it.
    """

    number: int
    cause: Cause
    silent_for: float
    age: float
    lent: bool


@dataclass(frozen=True, slots=True)
class Retired:
    """The pool closed a connection of its own accord."""

    number: int
    why: str
    age: float


@dataclass(frozen=True, slots=True)
class Slept:
    """This process did not run for ``seconds``: suspended, frozen or starved."""

    seconds: float


Happening = Opened | OpenFailed | Recovered | Cut | Retired | Slept
