"""What a listener yields when notifications may have been lost."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Gap:
    """Notifications that were sent in the last ``seconds`` may be lost; from now on none is.

    Who keeps a table's state reads the table again.

    :ivar seconds: how long ago the listener was last known to receive everything.
    :ivar why: what happened, in one line. A server's text is in it, if it gave one.
    """

    seconds: float
    why: str


Gap.__module__ = "everpool"
