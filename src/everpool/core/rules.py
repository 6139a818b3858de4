"""The settings that follow from facts: one pure function, every rule with its reason.

Two things are needed against whatever forgets connections. *Activity* that it counts, well
within its limit: a ping counts everywhere, a TCP keepalive only where packets are counted. And
*bounded discovery*, because a keepalive does nothing for what is cut all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from .environment import BYTES, KEPT, LOST, PACKETS, UNHEARD, Environment

# Two pings fit into an idle cut with time to spare, so one may be lost or late.
KEEPALIVE_SHARE = 0.4

# However patient the things that were named: conntrack, NAT and balancers that forget after 240 s
# (Azure) or 350 s (AWS) stand on paths where nobody thinks of them, and a ping costs nothing at
# that pace.
KEEPALIVE_MOST = 140.0

# The rest is for the loans that begin shortly before the end; jitter takes up to a twentieth more.
LIFETIME_SHARE = 0.9

# TCP keepalives cost no round trip of the server's; four of them fit into an idle cut.
TCP_KEEPALIVE_SHARE = 0.25

# Where each end is announced and the watch hears it, only a broken path is silent: it is asked
# after two seconds, which leaves callers of busy pools their round trip.
VERIFY_AFTER_HEARD = 2.0

# A sleeping database: connections leave after a fifth of the time that it needs to fall asleep,
# and a connect waits for the waking, which takes up to about 15 s, and for a slow day.
SLEEPER_IDLE_SHARE = 0.2
SLEEPER_CONNECT_TIMEOUT = 30.0

# After a failover in silence (Aurora fences the old writer): 10 + 3 × 5 s until a query without
# an answer fails, 20 s until one that is not even acknowledged does.
LOST_KEEPALIVES_IDLE = 10.0
LOST_KEEPALIVES_INTERVAL = 5.0
LOST_USER_TIMEOUT = 20.0


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting's value, and why: a clause that goes on after "keepalive 140 s: "."""

    value: Any
    why: str


def follow(path: Sequence[Environment], usual: Mapping[str, Any]) -> dict[str, Setting]:
    """The settings that follow from what is on the path, in any order.

    :param path: what is on the path; the most demanding of each kind counts.
    :param usual: the default of every setting, which holds where nothing asks for another.
    """
    found: dict[str, Setting] = {}
    if not path:
        return found
    sleeper = _least(path, lambda e: e.sleeps_after)
    idle = _least(path, lambda e: e.idle_cut)
    if sleeper:
        found.update(_let_sleep(sleeper, idle))
    else:
        found["keepalive"] = _keepalive(path, idle, usual["keepalive"])
    oldest = _least(path, lambda e: e.max_age)
    if oldest:
        found["max_lifetime"] = _lifetime(oldest, usual["max_lifetime"])
    found["verify_after"] = _verify_after(path, usual["verify_after"])
    found.update(_tcp(path, usual))
    return found


def contradictions(
    path: Sequence[Environment],
    given: Mapping[str, Any],
    settings: Mapping[str, Any],
    usual: Mapping[str, Any],
) -> list[str]:
    """What is wrong with settings that were given, on this path: a sentence each.

    :param given: the settings that were given explicitly.
    :param settings: all settings as they are, the given ones included.
    :param usual: the default of every setting.
    """
    found = []
    follows = follow(path, usual)
    sleeper = _least(path, lambda e: e.sleeps_after)
    idle = _least(path, lambda e: e.idle_cut)
    if idle and not sleeper and "keepalive" in given and settings["keepalive"] >= _cut(idle):
        leaves = settings["min_size"] == 0 and settings["max_idle"] < _cut(idle)
        packets = all(e.activity == PACKETS for e in path if _finite(e.idle_cut))
        kept = packets and settings["tcp_settings"] and settings["keepalives_idle"] < _cut(idle)
        if not leaves and not kept:
            found.append(
                f"keepalive={given['keepalive']!r} is not below the {seconds(_cut(idle))} idle cut"
                f" of {idle.name}: connections at rest will be cut; leave it out to have"
                f" {seconds(follows['keepalive'].value)}"
            )
    oldest = _least(path, lambda e: e.max_age)
    end = oldest.max_age if oldest and oldest.max_age else inf
    if oldest and "max_lifetime" in given and settings["max_lifetime"] >= end:
        found.append(
            f"max_lifetime={given['max_lifetime']!r} is not below the {seconds(end)} after which"
            f" {oldest.name} ends every connection: some will be cut in use;"
            f" {seconds(LIFETIME_SHARE * end)} is safe"
        )
    if sleeper and sleeper.sleeps_after is not None:
        if given.get("min_size", 0) > 0:
            found.append(
                f"min_size={given['min_size']!r} keeps connections open: {sleeper.name} may never"
                " sleep, or cuts them when it does; leave it out to have 0"
            )
        if "keepalive" in given and settings["keepalive"] < inf:
            found.append(
                f"keepalive={given['keepalive']!r} keeps {sleeper.name} awake, which costs; leave"
                " it out to have none"
            )
        if "max_idle" in given and settings["max_idle"] >= sleeper.sleeps_after:
            found.append(
                f"max_idle={given['max_idle']!r} is not below the"
                f" {seconds(sleeper.sleeps_after)} after which {sleeper.name} sleeps: it may never,"
                f" or cuts connections when it does; leave it out to have"
                f" {seconds(follows['max_idle'].value)}"
            )
    lost = [e.name for e in path if e.failover == LOST]
    if lost and not settings["tcp_settings"]:
        found.append(
            f"tcp_settings=False leaves TCP as it is: after a failover connections of {lost[0]} stop"
            " answering, and a query waits up to 15 minutes for that to be noticed"
        )
    return found


def seconds(value: float) -> str:
    """``140.0`` as ``"140 s"``."""
    return f"{value:.10g} s"


def _let_sleep(sleeper: Environment, idle: Environment | None) -> dict[str, Setting]:
    assert sleeper.sleeps_after is not None
    name, end = sleeper.name, seconds(sleeper.sleeps_after)
    leave = Setting(
        SLEEPER_IDLE_SHARE * sleeper.sleeps_after,
        f"{SLEEPER_IDLE_SHARE:g} × the {end} after which {name} sleeps",
    )
    if idle and _share(idle) < leave.value:
        leave = Setting(
            _share(idle),
            f"{KEEPALIVE_SHARE:g} × the {seconds(_cut(idle))} idle cut of {idle.name}: no ping"
            f" holds it off, for {name} to sleep",
        )
    return {
        "keepalive": Setting(inf, f"a ping would keep {name} awake"),
        "min_size": Setting(
            0, f"connections that are kept would keep {name} awake, or be cut when it sleeps"
        ),
        "max_idle": leave,
        "connect_timeout": Setting(SLEEPER_CONNECT_TIMEOUT, f"{name} may have to wake up first"),
    }


def _keepalive(path: Sequence[Environment], idle: Environment | None, usual: float) -> Setting:
    unknown = [e.name for e in path if e.idle_cut is None]
    if idle is None:
        if unknown:
            return Setting(
                usual,
                f"the default, because the idle cut of {unknown[0]} is not known: below the"
                " shortest that is usual, 60 s",
            )
        return Setting(usual, f"the default; {path[0].name} cuts no idle connection by itself")
    share = _share(idle)
    if unknown and share > usual:
        return Setting(
            usual,
            f"the default, because the idle cut of {unknown[0]} is not known; the"
            f" {seconds(_cut(idle))} of {idle.name} would allow {seconds(share)}",
        )
    if KEEPALIVE_SHARE * _cut(idle) > share:
        return Setting(
            KEEPALIVE_MOST,
            f"the longest, for what may be on the path unnamed; the shortest idle cut is"
            f" {seconds(_cut(idle))}, of {idle.name}",
        )
    return Setting(
        share, f"{KEEPALIVE_SHARE:g} × the {seconds(_cut(idle))} idle cut of {idle.name}"
    )


def _lifetime(oldest: Environment, usual: float) -> Setting:
    assert oldest.max_age is not None
    end = seconds(oldest.max_age)
    if LIFETIME_SHARE * oldest.max_age >= usual:
        return Setting(usual, f"the default, below the {end} maximum age of {oldest.name}")
    return Setting(
        LIFETIME_SHARE * oldest.max_age,
        f"{LIFETIME_SHARE:g} × the {end} maximum age of {oldest.name}",
    )


def _verify_after(path: Sequence[Environment], usual: float) -> Setting:
    ending = [e for e in path if not _ends_nothing(e)]
    # An event, a token, a server's other limits: they say nothing of how the path cuts.
    timed = any(_finite(e.idle_cut) or _finite(e.max_age) for e in ending)
    for environment in ending:
        if environment.kill is None:
            return Setting(usual, f"the default; how {environment.name} ends them is not known")
        if environment.kill in UNHEARD or environment.failover == LOST:
            return Setting(usual, f"the default: {environment.name} ends connections in silence")
    if not timed:
        return Setting(usual, f"the default; {path[0].name} cuts no connection after a time")
    return Setting(
        max(usual, VERIFY_AFTER_HEARD),
        f"{' and '.join(e.name for e in ending)} can be heard ending a connection",
    )


def _ends_nothing(environment: Environment) -> bool:
    times = environment.idle_cut, environment.max_age
    return environment.kill is None and environment.failover in (None, KEPT) and times == (inf, inf)


def _tcp(path: Sequence[Environment], usual: Mapping[str, Any]) -> dict[str, Setting]:
    found = {}
    lost = [e.name for e in path if e.failover == LOST]
    if lost:
        why = f"connections of {lost[0]} can be lost in silence"
        found["keepalives_idle"] = Setting(LOST_KEEPALIVES_IDLE, why)
        found["keepalives_interval"] = Setting(LOST_KEEPALIVES_INTERVAL, why)
        found["tcp_user_timeout"] = Setting(LOST_USER_TIMEOUT, why)
    # Where bytes are counted, a TCP keepalive holds nothing off.
    idle = _least([e for e in path if e.activity != BYTES], lambda e: e.idle_cut)
    if idle:
        share = TCP_KEEPALIVE_SHARE * _cut(idle)
        if share < found.get("keepalives_idle", Setting(usual["keepalives_idle"], "")).value:
            found["keepalives_idle"] = Setting(
                share,
                f"{TCP_KEEPALIVE_SHARE:g} × the {seconds(_cut(idle))} idle cut of {idle.name}",
            )
    return found


def _share(idle: Environment) -> float:
    return min(KEEPALIVE_MOST, KEEPALIVE_SHARE * _cut(idle))


def _cut(idle: Environment) -> float:
    assert idle.idle_cut is not None
    return idle.idle_cut


def _finite(value: float | None) -> bool:
    return value is not None and value < inf


def _least(
    path: Sequence[Environment], fact: Callable[[Environment], float | None]
) -> Environment | None:
    """The one with the least of what is known and ends at all."""
    known = [e for e in path if _finite(fact(e))]
    return min(known, key=lambda e: fact(e) or inf, default=None)
