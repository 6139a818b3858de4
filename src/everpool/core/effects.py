"""What the core asks the shells to do. An effect is an order, never a question."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .queue import Waiter
from .slot import Slot

if TYPE_CHECKING:
    from .deadlines import Bound
    from .inflight import Inquiry


@dataclass(frozen=True, slots=True)
class Open:
    """Connect; answer with ``opened`` or ``open_failed``."""

    slot: Slot


@dataclass(frozen=True, slots=True)
class Abandon:
    """Stop this attempt if that can be done; answer as for ``Open`` whenever it ends."""

    slot: Slot


@dataclass(frozen=True, slots=True)
class Ping:
    """Send a ping; answer with ``pong`` or ``hung_up``."""

    slot: Slot


@dataclass(frozen=True, slots=True)
class Close:
    """Read its last words if it is DEAD, close it, answer with ``closed``."""

    slot: Slot


@dataclass(frozen=True, slots=True)
class Cancel:
    """A loan is at its deadline: cancel its query; answer with ``end`` if none is in flight."""

    bound: Bound


@dataclass(frozen=True, slots=True)
class Abort:
    """Shut the socket down under the borrower, who still holds the connection."""

    slot: Slot


@dataclass(frozen=True, slots=True)
class LookInto:
    """Look at these loans; answer with ``looked``."""

    slots: tuple[Slot, ...]


@dataclass(frozen=True, slots=True)
class Inquire:
    """Ask the server about these queries, on a connection beside the pool's; answer with
    ``answered``, ``unreachable`` or ``unclear``."""

    inquiry: Inquiry


@dataclass(frozen=True, slots=True)
class Dismiss:
    """Share the connection beside the pool's no more, and stop making one."""


@dataclass(frozen=True, slots=True)
class Wake:
    """The waiter has been given a slot or a refusal."""

    waiter: Waiter


@dataclass(frozen=True, slots=True)
class ReconnectFailed:
    """The outage has lasted another ``reconnect_timeout``: call the user's callback."""


@dataclass(frozen=True, slots=True)
class Tell:
    """Tell what has happened (``happenings``, in their order) to logs and listeners."""


Effect = (
    Open
    | Abandon
    | Ping
    | Close
    | Cancel
    | Abort
    | LookInto
    | Inquire
    | Dismiss
    | Wake
    | ReconnectFailed
    | Tell
)
