"""All settings of a pool: frozen, validated, each with its default and the reason for it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import inf, isnan
from typing import Any

MAX_LIFETIME = 3600.0  # psycopg_pool's default, kept

# Below one minute, the shortest idle cut met in the field (Fly's proxy, common HAProxy
# templates), with room for the jitter, which only ever shortens it.
KEEPALIVE = 45.0

# HikariCP's precedent: a connection heard from within half a second is lent unasked.
VERIFY_AFTER = 0.5

# libpq itself would wait for ever, psycopg 130 s; serverless databases wake within ten.
CONNECT_TIMEOUT = 10.0


# Ten minutes is long for a request and short for a night; told once for each loan.
LEAK_AFTER = 600.0


@dataclass(frozen=True, slots=True)
class Policy:
    """The settings of a pool. Times are seconds; ``inf`` means never.

    The first group is psycopg_pool's, with its meaning and defaults. The second is everpool's:

    :param keepalive: ping each idle connection after so long a silence (jittered by up to
        a quarter, downwards).
    :param verify_after: before lending, ping a connection not heard from for so long.
    :param peek_after: before lending, look at the state of a socket (no round trip, 0.3 µs)
        not looked at for so long.
    :param watch: watch all connections for hang-ups.
    :param max_connecting: connection attempts in flight at once.
    :param connect_timeout: limit of one attempt *for each host*, where neither conninfo nor
        environment sets ``connect_timeout``.
    :param callback_timeout: limit of one ``configure`` or ``reset`` callback and of the
        rollback of a connection returned in a transaction.
    :param tcp_settings: add TCP keepalives and ``tcp_user_timeout`` to each connect, except
        those the user has set.
    :param leak_after: tell of a connection that has been lent for so long.
    :param when_down: what callers get while nothing can be lent because the database cannot be
        reached: ``"wait"`` until their timeout, or ``"fail"`` at once, with the cause.
    :param pooled: keep returned connections (False: the null pools).
    """

    min_size: int = 4
    max_size: int = 4
    timeout: float = 30.0
    max_waiting: int = 0
    max_lifetime: float = MAX_LIFETIME
    max_idle: float = 600.0
    reconnect_timeout: float = 300.0
    num_workers: int = 3

    keepalive: float = KEEPALIVE
    verify_after: float = VERIFY_AFTER
    peek_after: float = 0.05
    watch: bool = True
    max_connecting: int = 16
    connect_timeout: float = CONNECT_TIMEOUT
    callback_timeout: float = 10.0
    tcp_settings: bool = True
    leak_after: float = LEAK_AFTER
    when_down: str = "wait"
    pooled: bool = True

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.name in _LEAST:
                _check_number(field.name, getattr(self, field.name), *_LEAST[field.name])
            elif field.name == "when_down":
                if self.when_down not in ("wait", "fail"):
                    raise ValueError(f'when_down must be "wait" or "fail", not {self.when_down!r}')
            elif not isinstance(getattr(self, field.name), bool):
                raise TypeError(
                    f"{field.name} must be True or False, not {getattr(self, field.name)!r}"
                )

    @property
    def most(self) -> float:
        """``max_size`` as a limit: a null pool's 0 means none."""
        return self.max_size if self.pooled or self.max_size else inf


# name: (least value allowed, whether that value itself is, whole numbers only)
_LEAST: dict[str, tuple[float, bool, bool]] = {
    "min_size": (0, True, True),
    "max_size": (0, True, True),
    "timeout": (0, True, False),
    "max_waiting": (0, True, True),
    "max_lifetime": (0, False, False),
    "max_idle": (0, True, False),
    "reconnect_timeout": (0, True, False),
    "num_workers": (1, True, True),
    "keepalive": (0, False, False),
    "verify_after": (0, True, False),
    "peek_after": (0, True, False),
    "max_connecting": (1, True, True),
    "connect_timeout": (0, False, False),
    "callback_timeout": (0, False, False),
    "leak_after": (0, False, False),
}


def _check_number(name: str, value: Any, least: float, inclusive: bool, whole: bool) -> None:
    kinds = int if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds):
        kind = "a whole number" if whole else "a number of seconds"
        raise TypeError(f"{name} must be {kind}, not {value!r}")
    if isnan(value) or value < least or (value == least and not inclusive):
        bound = "at least" if inclusive else "more than"
        raise ValueError(f"{name} must be {bound} {least:g}, not {value!r}")


def build(
    *,
    min_size: int,
    max_size: int | None,
    max_lifetime: float,
    keepalive: float | None,
    connect_timeout: float | None,
    pooled: bool,
    **others: Any,
) -> Policy:
    """Make a policy of constructor arguments, where ``None`` means "the default".

    Two settings that were both given explicitly must not contradict each other; a default
    yields silently.

    :raises TypeError: a value is of the wrong kind.
    :raises ValueError: a value is out of range, or two explicit settings contradict.
    """
    if max_size is None:
        max_size = min_size
    policy = Policy(
        min_size=min_size,
        max_size=max_size,
        max_lifetime=max_lifetime,
        keepalive=KEEPALIVE if keepalive is None else keepalive,
        connect_timeout=CONNECT_TIMEOUT if connect_timeout is None else connect_timeout,
        pooled=pooled,
        **others,
    )
    check_sizes(min_size, max_size, pooled)
    explicit_lifetime = max_lifetime != MAX_LIFETIME
    if keepalive is not None and explicit_lifetime and inf > keepalive >= max_lifetime:
        raise ValueError(
            f"keepalive={keepalive!r} must be less than max_lifetime={max_lifetime!r}:"
            " no connection would live to its first ping"
        )
    return policy


def check_sizes(min_size: int, max_size: int, pooled: bool) -> None:
    """:raises ValueError: the sizes are no range a pool of this kind can have."""
    _check_number("min_size", min_size, *_LEAST["min_size"])
    _check_number("max_size", max_size, *_LEAST["max_size"])
    if not pooled and min_size:
        raise ValueError(f"null pools must have min_size = 0, not {min_size}")
    if max_size < min_size:
        raise ValueError(
            f"max_size must be greater or equal than min_size={min_size}, not {max_size}"
        )
    if pooled and not max_size:
        raise ValueError("if min_size is 0 max_size must be greater than 0, not 0")
