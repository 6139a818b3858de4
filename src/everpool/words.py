"""Happenings in plain words, one line each, and how much they matter."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from .core import events as e
from .core.health import Condition

DEBUG, INFO, WARNING, ERROR = logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR


def level(happening: e.Happening) -> int:
    """How much a happening matters, as a level of `logging`."""
    return _RULES[type(happening)][0](happening)


def describe(happening: e.Happening) -> str:
    """A happening in one line. A server's text is in it, if it gave one."""
    return _RULES[type(happening)][1](happening)


def duration(seconds: float) -> str:
    """``0.004`` as ``"4 ms"``, ``350.2`` as ``"350 s"``."""
    if seconds < 0.0995:
        return f"{1000 * seconds:.3g} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    return f"{seconds:.0f} s" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _cut(cut: e.Cut) -> str:
    how = "was cut while lent" if cut.lent else "was cut while idle, and is replaced"
    silent, age = duration(cut.silent_for), duration(cut.age)
    return f"connection {cut.number} {how}: {cut.cause}, after {silent} of silence, {age} old"


def _failed(failed: e.OpenFailed) -> str:
    soon = duration(failed.retry_in)
    return f"error connecting: {failed.text} ({failed.trouble.value}; next attempt in {soon})"


def _leaked(leaked: e.Leaked) -> str:
    if leaked.dropped:
        return f"connection {leaked.number} was dropped without being returned, and is replaced"
    held = duration(leaked.lent_for)
    return f"connection {leaked.number} has been lent for {held}: was it forgotten?"


def _state(changed: e.StateChanged) -> str:
    why = f" ({changed.why})" if changed.why else ""
    return f"the pool was {changed.before} and is {changed.after}{why}"


def _queue(changed: e.QueueChanged) -> str:
    if not changed.saturated:
        return "callers no longer wait for long"
    longest = duration(changed.longest)
    return f"saturated: every connection is in use, {changed.waiting} wait, the first for {longest}"


def _slept(slept: e.Slept) -> str:
    how = f"was suspended for {slept.seconds:.1f} s" if slept.seconds else "was starved"
    return f"this process {how}: all connections are tested"


def _learned(learned: e.Learned) -> str:
    if learned.before == learned.after:
        return f"{learned.setting}={learned.before:g} s is kept: {learned.why}"
    change = f"{learned.setting} from {learned.before:g} s to {learned.after:g} s"
    if learned.contradicts:
        return f"{learned.setting}={learned.before:g} s is kept, but {learned.why}: {change} is due"
    return f"learned: {change}, because {learned.why}"


def _state_level(changed: e.StateChanged) -> int:
    if changed.after in (Condition.CLOSED.value, Condition.PAUSED.value):
        return DEBUG  # told by a happening of its own
    return WARNING if changed.after == Condition.DOWN.value else INFO


def _constant(level: int) -> Callable[[Any], int]:
    return lambda happening: level


_RULES: dict[type[e.Happening], tuple[Callable[[Any], int], Callable[[Any], str]]] = {
    e.Opened: (
        _constant(DEBUG),
        lambda h: f"connection {h.number} opened in {duration(h.took)}",
    ),
    e.OpenFailed: (_constant(WARNING), _failed),
    e.Lent: (
        _constant(DEBUG),
        lambda h: f"connection {h.number} lent after {duration(h.waited)}",
    ),
    e.Returned: (
        _constant(DEBUG),
        lambda h: f"connection {h.number} returned after {duration(h.held)}",
    ),
    e.Cut: (lambda h: WARNING if h.lent else INFO, _cut),
    e.Retired: (
        _constant(DEBUG),
        lambda h: f"connection {h.number} closed at the age of {duration(h.age)}: {h.why}",
    ),
    e.Pinged: (
        lambda h: INFO if h.late else DEBUG,
        lambda h: (
            f"connection {h.number} answered {'late, ' if h.late else ''}after {duration(h.took)}"
        ),
    ),
    e.Suspected: (
        _constant(INFO),
        lambda h: f"connection {h.number} is suspect: no answer within {duration(h.limit)}",
    ),
    e.Leaked: (_constant(WARNING), _leaked),
    e.StateChanged: (_state_level, _state),
    e.Recovered: (_constant(WARNING), lambda h: f"connected again after {duration(h.down_for)}"),
    e.QueueChanged: (lambda h: WARNING if h.saturated else INFO, _queue),
    e.Slept: (_constant(WARNING), _slept),
    e.Paused: (_constant(INFO), lambda h: "the pool is paused"),
    e.Resumed: (_constant(INFO), lambda h: f"resumed after {duration(h.paused_for)}"),
    e.Drained: (_constant(INFO), lambda h: "all connections are to be replaced"),
    e.Closed: (_constant(INFO), lambda h: "the pool is closed"),
    e.Retried: (
        _constant(INFO),
        lambda h: f"attempt {h.attempt} after {duration(h.pause)}, because of {h.why}",
    ),
    e.CommitResolved: (
        lambda h: ERROR if h.outcome == "unknown" else WARNING,
        lambda h: f"a COMMIT without an answer: {h.outcome}, known after {duration(h.took)}",
    ),
    e.ListenerGap: (
        _constant(WARNING),
        lambda h: f"a listener may have missed notifications of {duration(h.seconds)}: {h.why}",
    ),
    e.Learned: (lambda h: WARNING if h.contradicts else INFO, _learned),
}
