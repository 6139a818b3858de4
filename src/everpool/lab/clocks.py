"""What the mere passing of time does to a connection: idle cuts, age cuts, heartbeats."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from everpool.lab.faults import FIN, Reason, Style

__all__ = ["AgeCut", "Clocks", "Heartbeat", "IdleCut"]


@dataclass(frozen=True, slots=True)
class IdleCut:
    """Cut when no byte came either way for *after* seconds, whether a request is in hand or not."""

    after: float
    style: Style = FIN


@dataclass(frozen=True, slots=True)
class AgeCut:
    """Cut *after* seconds after the connection was accepted, however busy it is.

    With *between_requests*, one with a login, a request or a transaction in hand is cut as soon as
    that is done.
    """

    after: float
    style: Style = FIN
    between_requests: bool = False


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Send an established session a ParameterStatus nobody asked for, every *every* seconds."""

    every: float
    name: str = "application_name"
    value: str = ""


_Rule = TypeVar("_Rule", IdleCut, AgeCut, Heartbeat)


class Timed(Protocol):
    """What the clocks need to know of a connection."""

    opened: float
    last_bytes: float

    def cut(self, style: Style, reason: Reason) -> bool: ...
    def is_busy(self) -> bool: ...
    def beat(self, name: str, value: str) -> None: ...


class Clocks:
    """The running clocks of one connection."""

    def __init__(self, loop: asyncio.AbstractEventLoop, link: Timed) -> None:
        self._loop = loop
        self._link = link
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._overdue: AgeCut | None = None

    def set_idle(self, rule: IdleCut | None) -> None:
        """Start, change or (``None``) stop the idle cut."""
        self._stop("idle")
        if rule:
            self._at("idle", self._link.last_bytes + rule.after, self._on_idle, rule)

    def set_age(self, rule: AgeCut | None) -> None:
        """Start, change or (``None``) stop the age cut."""
        self._stop("age")
        self._overdue = None
        if rule:
            self._at("age", self._link.opened + rule.after, self._on_age, rule)

    def set_heartbeat(self, rule: Heartbeat | None) -> None:
        """Start, change or (``None``) stop the heartbeat."""
        self._stop("heartbeat")
        if rule:
            self._at("heartbeat", self._loop.time() + rule.every, self._on_beat, rule)

    def overdue(self) -> AgeCut | None:
        """Return the age cut that waits for the request in hand, once."""
        rule, self._overdue = self._overdue, None
        return rule

    def stop(self) -> None:
        """Stop all clocks."""
        for name in list(self._timers):
            self._stop(name)
        self._overdue = None

    def _on_idle(self, rule: IdleCut) -> None:
        due = self._link.last_bytes + rule.after
        if due > self._loop.time():  # bytes came since the timer was set
            self._at("idle", due, self._on_idle, rule)
        else:
            self._link.cut(rule.style, "idle")

    def _on_age(self, rule: AgeCut) -> None:
        if rule.between_requests and self._link.is_busy():
            self._overdue = rule
        else:
            self._link.cut(rule.style, "age")

    def _on_beat(self, rule: Heartbeat) -> None:
        self._link.beat(rule.name, rule.value)
        self.set_heartbeat(rule)

    def _at(self, name: str, when: float, call: Callable[[_Rule], None], rule: _Rule) -> None:
        self._timers[name] = self._loop.call_at(when, call, rule)

    def _stop(self, name: str) -> None:
        if timer := self._timers.pop(name, None):
            timer.cancel()
