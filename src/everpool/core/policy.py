"""All settings of a pool: frozen, validated, each with its default and the reason for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from math import inf, isnan
from typing import Any

from .environment import Environment
from .rules import Setting, contradictions, follow, seconds


class _DefaultInt(int):
    """A default, told from the same number given explicitly by being this very object."""

    __slots__ = ()


class _DefaultFloat(float):
    """As `_DefaultInt`."""

    __slots__ = ()


# psycopg_pool's, kept.
MIN_SIZE = _DefaultInt(4)
TIMEOUT = _DefaultFloat(30.0)
MAX_WAITING = _DefaultInt(0)
MAX_LIFETIME = _DefaultFloat(3600.0)
MAX_IDLE = _DefaultFloat(600.0)
RECONNECT_TIMEOUT = _DefaultFloat(300.0)
NUM_WORKERS = _DefaultInt(3)

# Below one minute, the shortest idle cut met in the field (Fly's proxy, common HAProxy
# templates), with room for the jitter, which only ever shortens it.
KEEPALIVE = _DefaultFloat(45.0)

# HikariCP's precedent: a connection heard from within half a second is lent unasked.
VERIFY_AFTER = _DefaultFloat(0.5)

# Looking costs 0.3 µs; within this time a connection in use has been looked at by its user.
PEEK_AFTER = _DefaultFloat(0.05)

# Beyond 16 at once little is gained: see `connector`.
MAX_CONNECTING = _DefaultInt(16)

# libpq itself would wait for ever, psycopg 130 s; serverless databases wake within ten.
CONNECT_TIMEOUT = _DefaultFloat(10.0)

# A callback is a few round trips; ten seconds of them is a hang.
CALLBACK_TIMEOUT = _DefaultFloat(10.0)

# Ten minutes is long for a request and short for a night; told once for each loan.
LEAK_AFTER = _DefaultFloat(600.0)

# How long work may take only its owner knows.
DEADLINE = _DefaultFloat(inf)

# It opens a connection beside max_size, so nobody has it unasked.
WATCH_QUERIES = _DefaultFloat(inf)

# TCP keepalives find a vanished peer within 60 s of silence and keep NAT entries alive; the user
# timeout ends a request into the void after 30 s (a shorter one cuts slow but living COPYs).
KEEPALIVES_IDLE = _DefaultFloat(30.0)
KEEPALIVES_INTERVAL = _DefaultFloat(10.0)
KEEPALIVES_COUNT = _DefaultInt(3)
TCP_USER_TIMEOUT = _DefaultFloat(30.0)

Number = int | float


@dataclass(frozen=True, slots=True)
class Reason:
    """Where a setting came from, and why it is as it is.

    :param origin: ``"default"``, ``"given"``, ``"environment"``, ``"changed"`` (at run time) or
        ``"learned"``.
    """

    origin: str
    why: str


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
    :param learn: infer from the deaths of connections what cuts them, and follow it.
    :param max_connecting: connection attempts in flight at once.
    :param connect_timeout: limit of one attempt *for each host*, where neither conninfo nor
        environment sets ``connect_timeout``.
    :param callback_timeout: limit of one ``configure`` or ``reset`` callback and of the
        rollback of a connection returned in a transaction.
    :param tcp_settings: add TCP keepalives and ``tcp_user_timeout`` to each connect, except
        those the user has set.
    :param keepalives_idle, keepalives_interval, keepalives_count, tcp_user_timeout: what
        ``tcp_settings`` adds.
    :param leak_after: tell of a connection that has been lent for so long.
    :param deadline: end the work of a borrower that is not over so long after the connection was
        asked for.
    :param watch_queries: when a query in flight has heard nothing for so long, ask the server on a
        connection of its own whether anybody still works on it.
    :param when_down: what callers get while nothing can be lent because the database cannot be
        reached: ``"wait"`` until their timeout, or ``"fail"`` at once, with the cause.
    :param pooled: keep returned connections (False: the null pools).
    :param reasons: why, for each setting that is not simply the default.
    :param environment: what is on the path to the database, as far as it was told.
    """

    min_size: int = MIN_SIZE
    max_size: int = MIN_SIZE
    timeout: float = TIMEOUT
    max_waiting: int = MAX_WAITING
    max_lifetime: float = MAX_LIFETIME
    max_idle: float = MAX_IDLE
    reconnect_timeout: float = RECONNECT_TIMEOUT
    num_workers: int = NUM_WORKERS

    keepalive: float = KEEPALIVE
    verify_after: float = VERIFY_AFTER
    peek_after: float = PEEK_AFTER
    watch: bool = True
    learn: bool = True
    max_connecting: int = MAX_CONNECTING
    connect_timeout: float = CONNECT_TIMEOUT
    callback_timeout: float = CALLBACK_TIMEOUT
    tcp_settings: bool = True
    keepalives_idle: float = KEEPALIVES_IDLE
    keepalives_interval: float = KEEPALIVES_INTERVAL
    keepalives_count: int = KEEPALIVES_COUNT
    tcp_user_timeout: float = TCP_USER_TIMEOUT
    leak_after: float = LEAK_AFTER
    deadline: float = DEADLINE
    watch_queries: float = WATCH_QUERIES
    when_down: str = "wait"
    pooled: bool = True

    reasons: Mapping[str, Reason] = field(default_factory=dict, compare=False, repr=False)
    environment: tuple[Environment, ...] = field(default=(), compare=False, repr=False)

    def __post_init__(self) -> None:
        for name in SETTINGS:
            value = getattr(self, name)
            if name in _LEAST:
                _check_number(name, value, *_LEAST[name])
            elif name == "when_down":
                if value not in ("wait", "fail"):
                    raise ValueError(f'when_down must be "wait" or "fail", not {value!r}')
            elif not isinstance(value, bool):
                raise TypeError(f"{name} must be True or False, not {value!r}")

    @property
    def most(self) -> float:
        """``max_size`` as a limit: a null pool's 0 means none."""
        return self.max_size if self.pooled or self.max_size else inf

    def reason(self, name: str) -> Reason:
        """Where a setting came from, and why it is as it is."""
        found = self.reasons.get(name)
        if found is not None:
            return found
        if name == "max_size" and self.max_size == self.min_size:
            return Reason("default", "as min_size")
        if name in ("min_size", "max_size") and not self.pooled and not getattr(self, name):
            return Reason("default", "a null pool keeps none, and opens as many as are wanted")
        if getattr(self, name) == DEFAULTS[name]:
            return Reason("default", _WHY.get(name, "the default"))
        return Reason("given", "given")

    def explain(self) -> str:
        """Every setting and why it is as it is, a line each; what contradicts comes last.

        ::

            keepalive 140 s: 0.4 × the 350 s idle cut of aws-nlb
        """
        lines = [
            f"{name} {shown(name, getattr(self, name))}: {self._why(name)}"
            for name in SETTINGS
            if name != "pooled"
        ]
        return "\n".join([*lines, *(f"warning: {text}" for text in self.contradictions)])

    def _why(self, name: str) -> str:
        if name in _TCP and not self.tcp_settings:
            return "not used, because tcp_settings is False"
        ours = " (if the conninfo does not set it)" if name in (*_TCP, "connect_timeout") else ""
        return self.reason(name).why + ours

    @property
    def contradictions(self) -> tuple[str, ...]:
        """What is wrong with settings that were given, or changed, in this environment."""
        if not self.environment:
            return ()
        settings = {name: getattr(self, name) for name in SETTINGS}
        given = {k: v for k, v in settings.items() if self.reason(k).origin in _OWNERS}
        return tuple(contradictions(self.environment, given, settings, DEFAULTS))

    def changed(self, **values: Any) -> Policy:
        """The same with other values, changed at run time.

        :raises TypeError: a value is of the wrong kind.
        :raises ValueError: a value is out of range.
        """
        why = Reason("changed", "changed at run time")
        return replace(self, **values, reasons={**self.reasons, **dict.fromkeys(values, why)})


SETTINGS = tuple(f.name for f in fields(Policy) if f.compare)
DEFAULTS: Mapping[str, Any] = {f.name: f.default for f in fields(Policy) if f.compare}

_OWNERS = ("given", "changed")
_TCP = ("keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout")

_WHY = {
    "keepalive": "the default, below the shortest idle cut that is usual, 60 s",
    "verify_after": "the default: what was heard so lately is lent unasked",
    "keepalives_idle": "the default: a vanished peer is found within a minute",
    "tcp_user_timeout": "the default: a request into the void ends, a slow COPY does not",
}

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
    "keepalives_idle": (0, False, False),
    "keepalives_interval": (0, False, False),
    "keepalives_count": (1, True, True),
    "tcp_user_timeout": (0, False, False),
    "leak_after": (0, False, False),
    "deadline": (0, False, False),
    "watch_queries": (0, False, False),
}


def _check_number(name: str, value: Any, least: float, inclusive: bool, whole: bool) -> None:
    kinds = int if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds):
        kind = "a whole number" if whole else "a number of seconds"
        raise TypeError(f"{name} must be {kind}, not {value!r}")
    if isnan(value) or value < least or (value == least and not inclusive):
        bound = "at least" if inclusive else "more than"
        raise ValueError(f"{name} must be {bound} {least:g}, not {value!r}")


def shown(name: str, value: Any) -> str:
    """A setting's value as people read it."""
    if isinstance(value, bool) or not isinstance(value, Number):
        return str(value)
    if _LEAST[name][2]:
        return str(value)
    return "never" if value == inf else seconds(value)


def build(*, pooled: bool = True, environment: Sequence[Environment] = (), **given: Any) -> Policy:
    """Make a policy of constructor arguments, in an environment.

    What is one of the default objects above was not given. What was given wins over what follows
    from the environment, and that over the defaults. Two settings that were both given must not
    contradict each other; one that contradicts the environment is told in ``contradictions``.

    :param environment: what is on the path to the database.
    :raises TypeError: a value is of the wrong kind.
    :raises ValueError: a value is out of range, or two explicit settings contradict.
    """
    given = {k: v for k, v in given.items() if v is not DEFAULTS[k]}
    if given.get("max_size", 0) is None:
        del given["max_size"]
    if not pooled and given.get("min_size") == 0:
        del given["min_size"]  # the only one there is
    derived: dict[str, Setting] = follow(environment, DEFAULTS)
    if not pooled:
        derived.pop("min_size", None)
    values = {k: setting.value for k, setting in derived.items()}
    values.update(given)
    min_size = values.setdefault("min_size", MIN_SIZE if pooled else 0)
    if "max_size" not in values:
        values["max_size"] = min_size or (MIN_SIZE if pooled and "min_size" in derived else 0)
    reasons = {
        k: Reason("default" if setting.value == DEFAULTS[k] else "environment", setting.why)
        for k, setting in derived.items()
    }
    if given.get("watch") is False:  # then nobody hears them end
        values["verify_after"] = given.get("verify_after", VERIFY_AFTER)
        reasons.pop("verify_after", None)
    reasons.update(dict.fromkeys(given, Reason("given", "given")))
    policy = Policy(**values, pooled=pooled, reasons=reasons, environment=tuple(environment))
    check_sizes(policy.min_size, policy.max_size, pooled)
    keepalive, lifetime = given.get("keepalive"), given.get("max_lifetime")
    if keepalive is not None and lifetime is not None and inf > keepalive >= lifetime:
        raise ValueError(
            f"keepalive={keepalive!r} must be less than max_lifetime={lifetime!r}:"
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
