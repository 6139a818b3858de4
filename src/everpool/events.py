"""What happens to a pool: the types that ``pool.subscribe`` delivers, and `describe`.

::

    from everpool.events import Cut, Recovered, describe

    def tell(happening):
        print(describe(happening))

    with pool.subscribe(tell, Cut, Recovered):
        ...
"""

from .core.events import (
    Closed,
    CommitResolved,
    Cut,
    Drained,
    Happening,
    Leaked,
    Learned,
    Lent,
    ListenerGap,
    Opened,
    OpenFailed,
    Paused,
    Pinged,
    QueueChanged,
    Recovered,
    Resumed,
    Retired,
    Retried,
    Returned,
    Slept,
    StateChanged,
    Suspected,
)
from .core.health import Condition
from .core.verdict import Cause, Trouble
from .subscriptions import Listener, Subscription
from .words import describe

__all__ = [
    "Cause",
    "Closed",
    "CommitResolved",
    "Condition",
    "Cut",
    "Drained",
    "Happening",
    "Leaked",
    "Learned",
    "Lent",
    "Listener",
    "ListenerGap",
    "OpenFailed",
    "Opened",
    "Paused",
    "Pinged",
    "QueueChanged",
    "Recovered",
    "Resumed",
    "Retired",
    "Retried",
    "Returned",
    "Slept",
    "StateChanged",
    "Subscription",
    "Suspected",
    "Trouble",
    "describe",
]
