"""What ends connections on the way to a database: the facts that settings follow from.

An *environment* is one thing on the path, or the server itself: a proxy, a balancer, a NAT, a
pooler. What is known of many stands in `everpool.environments`; what follows from them is
`rules`' to say.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import inf

FIN = "fin"  # closed in good order, without a word
RST = "rst"  # reset at the moment of the cut
RST_NEXT = "rst-next"  # forgotten: the next packet is answered by a reset
SILENCE = "silence"  # forgotten: packets vanish
FATAL = "fatal"  # a server or pooler says why, then closes
KILLS = (FIN, RST, RST_NEXT, SILENCE, FATAL)

# What a connection at rest cannot be told: only sending something finds out.
UNHEARD = frozenset({RST_NEXT, SILENCE})

PACKETS = "packets"  # whatever forwards packets: TCP keepalives count as activity
BYTES = "bytes"  # whatever reads the stream: only payload does
ACTIVITIES = (PACKETS, BYTES)

# Seconds that make sense: a limit of less than a hundredth is a fault, one of a thousand years none.
LEAST = 0.01
LONGEST = 3e10

KEPT = "kept"  # connections go on, to the new server
CUT = "cut"  # connections are ended, and told
LOST = "lost"  # connections stop answering: nobody tells
FAILOVERS = (KEPT, CUT, LOST)


@dataclass(frozen=True, slots=True)
class Environment:
    """One thing on the path. ``None`` means "not known", ``inf`` "never".

    :param idle_cut: seconds without activity after which a connection is ended.
    :param max_age: seconds after which a connection is ended, however busy.
    :param kill: how it is ended: ``"fin"``, ``"rst"``, ``"rst-next"`` (nothing is said, the next
        packet is answered by a reset), ``"silence"`` (packets vanish) or ``"fatal"`` (the reason
        is given first).
    :param activity: what counts against ``idle_cut``: ``"packets"`` (TCP keepalives too) or
        ``"bytes"`` (only payload, so only a ping helps).
    :param failover: what happens to connections when the server changes: ``"kept"``, ``"cut"``
        or ``"lost"`` (they stop answering, in silence).
    :param sleeps_after: seconds without use after which the database goes to sleep.
    :param name: what explanations call it.
    :raises ValueError: a value is out of range, or none of those above.
    :raises TypeError: a time is no number.
    """

    idle_cut: float | None = None
    max_age: float | None = None
    kill: str | None = None
    activity: str | None = None
    failover: str | None = None
    sleeps_after: float | None = None
    name: str = "the environment"

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None:
                continue
            if field.name in _CHOICES:
                choices = _CHOICES[field.name]
                if value not in choices:
                    listed = ", ".join(repr(choice) for choice in choices)
                    raise ValueError(f"{field.name} must be one of {listed}, not {value!r}")
            elif field.name == "name":
                if not isinstance(value, str) or not value.isprintable() or not value:
                    raise ValueError(f"name must be a printable text, not {value!r}")
            elif isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeError(f"{field.name} must be a number of seconds, not {value!r}")
            elif not (LEAST <= value <= LONGEST or value == inf):
                raise ValueError(
                    f"{field.name} must be between {LEAST:g} and {LONGEST:g} seconds, or infinite,"
                    f" not {value!r}"
                )


_CHOICES = {"kill": KILLS, "activity": ACTIVITIES, "failover": FAILOVERS}
