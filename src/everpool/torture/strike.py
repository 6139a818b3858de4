"""Bringing a fault down on the connection that a transaction is on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from threading import Event
from time import monotonic, sleep
from typing import LiteralString

import psycopg

from everpool.lab import (
    COMMIT,
    COMMITTED,
    READY,
    RST,
    Answer,
    CutAfter,
    CutBefore,
    Drop,
    FaultProxy,
    Hold,
    Rule,
    ServerError,
    Style,
)
from everpool.lab.faults import Action, Direction, Message
from everpool.lab.frames import Frame, error_response

from .faults import CUTTING, SILENT, Fault, Kind

__all__ = ["Blow", "Striker"]

_RULES: dict[Kind, tuple[Message, Callable[[Style], Action]]] = {
    Kind.BEFORE_COMMIT: (COMMIT, CutBefore),
    Kind.AFTER_COMMIT: (COMMIT, CutAfter),
    Kind.BEFORE_COMMITTED: (COMMITTED, CutBefore),
    Kind.AFTER_COMMITTED: (COMMITTED, CutAfter),
    Kind.BEFORE_READY: (READY, CutBefore),
    Kind.FORGOTTEN_BEGIN: (READY, CutAfter),
    Kind.SILENT_COMMIT: (COMMIT, CutBefore),
    Kind.SILENT_COMMITTED: (COMMITTED, CutBefore),
}
_AT_ONCE = frozenset((Kind.FORGOTTEN_COMMIT, Kind.FORGOTTEN_WORK, Kind.SILENT_WORK))
_WAITING_FOR_STANDBY = frozenset((Kind.SYNC_CANCEL, Kind.SYNC_TERMINATE, Kind.SYNC_CUT))

_SILENCE = 0.15  # seconds of silence before it is ended by a reset
_ABANDONED = 1.0  # seconds until a backend that still waits for its standby is ended
_PATIENCE = 5.0  # seconds to wait for a COMMIT to come by; one that never comes is no fault
_KEEPALIVE = 6.0  # seconds after which a server learns by itself that a client is gone
_HANDS = 24  # scripts that may be played at once


class Blow:
    """A fault that is under way."""

    def __init__(self, fault: Fault, rule: Rule | None = None) -> None:
        self.fault = fault
        self._rule = rule

    def verdict(self) -> None:
        """The pool has decided: let a COMMIT go that is held back, and wait for no more."""
        rule, self._rule = self._rule, None
        if rule is None:
            return
        if isinstance(rule.action, Hold):
            if self.fault.kind is Kind.SILENT_LATE and not rule.hits:
                rule.remove()  # the deadline came first: no COMMIT of anybody else's is meant
            elif self.fault.kind is not Kind.LATE:
                rule.release()
        else:
            rule.remove()


class Striker:
    """Strikes connections through one proxy.

    :param kill: kills the backend with a process id.
    :param admin: gives a connection to the server that does not go through the proxy.
    """

    def __init__(
        self,
        proxy: FaultProxy,
        kill: Callable[[int], None],
        admin: Callable[[], psycopg.Connection],
    ) -> None:
        self._proxy = proxy
        self._kill = kill
        self._admin = admin
        self._hands = ThreadPoolExecutor(_HANDS, "torture-hand")
        self._forsaken: deque[tuple[float, int]] = deque()
        self.errors: list[BaseException] = []

    def close(self) -> None:
        """Wait until all that was begun has been played."""
        self._hands.shutdown()
        if self.errors:
            raise self.errors[0]

    def strike(self, fault: Fault, pid: int, interrupt: Callable[[], object] | None = None) -> Blow:
        """Bring it down on the connection of this backend, where its COMMIT, or the statement that
        is meant, comes next.

        :param interrupt: cancels the task that is at it.
        """
        try:
            link = self._proxy.find(backend_pid=pid)
        except LookupError:  # it is gone already
            return Blow(fault)
        kind, style, proxy = fault.kind, fault.style, self._proxy
        if kind in CUTTING and not style.server_told:
            self._forsaken.append((monotonic() + _KEEPALIVE, pid))
        if kind in (Kind.TO_SERVER, Kind.TO_CLIENT, Kind.WORK, Kind.NEXT):
            direction: Direction = "to_client" if kind is Kind.TO_CLIENT else "to_server"
            with suppress(LookupError):
                proxy.cut_at_byte(fault.count, style, direction=direction, link=link)
            self._end_silence(style, link)
            return Blow(fault)
        if kind is Kind.SILENT_WORK and fault.count % 2:  # executed, but not answered to the end
            return Blow(fault, proxy.on(READY, CutBefore(style), link=link))
        if kind in _AT_ONCE:
            with suppress(LookupError):
                proxy.cut(style, link=link)
            return Blow(fault)
        if kind in _RULES:
            message, action = _RULES[kind]
            rule = proxy.on(message, action(style), link=link)
            if kind not in SILENT:
                self._end_silence(style, link)
            return Blow(fault, rule)
        if kind is Kind.SILENT_LATE:
            return Blow(fault, proxy.on(COMMIT, Hold(), link=link))
        if kind in (Kind.LATE, Kind.AFTER_VERDICT):
            rule = proxy.on(COMMIT, Hold(), link=link)
            self._play(self._hold, fault, rule, link)
            return Blow(fault, rule)
        if kind is Kind.INTERRUPT_ASKING:
            rule = proxy.on(
                COMMITTED, CutBefore(replace(RST, server_told=style.server_told)), link=link
            )
            self._play(self._while_asking, fault, rule, interrupt)
            return Blow(fault, rule)
        if kind is Kind.POOLER:
            error = error_response("08006", "server conn crashed?", severity="ERROR")
            return Blow(fault, proxy.on(COMMITTED, Answer(error), link=link))
        if kind in (Kind.DEFERRED, Kind.SWALLOWED):
            return Blow(fault)
        passed = Event()

        def note(frame: Frame) -> bool:
            passed.set()
            return False

        # A rule that never acts: it sees COMMIT pass.
        rule = proxy.on(replace(COMMIT, where=note), Drop(), link=link)
        self._play(self._at_commit, fault, rule, passed, link, pid, interrupt)
        return Blow(fault)

    def reap(self) -> None:
        """End the sessions whose client has been gone for long, as a server's keepalive does."""
        now, pids = monotonic(), []
        while self._forsaken and self._forsaken[0][0] < now:
            pids.append(self._forsaken.popleft()[1])
        if pids:
            alive = {info.backend_pid for info in self._proxy.links()}
            gone = [pid for pid in pids if pid not in alive]
            self._play(
                self._ask, "SELECT pg_terminate_backend(pid) FROM unnest(%s::int[]) AS pid", gone
            )

    # -- Scripts, each in a thread of its own ----------------------------------------------------

    def _play(self, script: Callable[..., None], *args: object) -> None:
        def play() -> None:
            try:
                script(*args)
            except (LookupError, psycopg.Error, ServerError):
                pass  # the connection, or the server, was gone before
            except BaseException as error:
                self.errors.append(error)

        self._hands.submit(play)

    def _end_silence(self, style: Style, link: int) -> None:
        if style.kind == "silence":
            self._play(self._reset, style, link)

    def _reset(self, style: Style, link: int) -> None:
        sleep(_SILENCE)
        self._proxy.cut(replace(RST, server_told=style.server_told), link=link)

    def _hold(self, fault: Fault, rule: Rule, link: int) -> None:
        try:
            rule.wait(_PATIENCE)
        except TimeoutError:
            rule.release()
            return
        style = fault.style
        if style.kind == "silence":  # which would swallow what is held
            style = replace(RST, server_told=style.server_told)
        try:
            self._proxy.cut(style, link=link)
        finally:
            if fault.kind is Kind.LATE:
                sleep(fault.delay)
                rule.release()

    def _while_asking(
        self, fault: Fault, rule: Rule, interrupt: Callable[[], object] | None
    ) -> None:
        try:
            rule.wait(_PATIENCE)
        except TimeoutError:
            return
        sleep(fault.delay)
        assert interrupt is not None
        interrupt()

    def _at_commit(
        self,
        fault: Fault,
        rule: Rule,
        passed: Event,
        link: int,
        pid: int,
        interrupt: Callable[[], object] | None,
    ) -> None:
        seen = passed.wait(_PATIENCE)
        rule.remove()
        if not seen:
            return
        if fault.kind in _WAITING_FOR_STANDBY:
            self._until_it_waits(pid)
        else:
            sleep(fault.delay)
        match fault.kind:
            case Kind.TERMINATE | Kind.SYNC_TERMINATE:
                self._ask("SELECT pg_terminate_backend(%s)", pid)
            case Kind.CANCEL_QUERY | Kind.SYNC_CANCEL:
                self._ask("SELECT pg_cancel_backend(%s)", pid)
            case Kind.SYNC_CUT:
                self._proxy.cut(fault.style, link=link)
                if fault.style.kind == "silence":
                    self._reset(fault.style, link)
                sleep(_ABANDONED)
                self._ask(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE pid = %s AND wait_event = 'SyncRep'",
                    pid,
                )
            case Kind.KILL:
                self._kill(pid)
            case Kind.INTERRUPT:
                assert interrupt is not None
                interrupt()

    def _until_it_waits(self, pid: int) -> None:
        """Return when this backend waits for its standby: what comes sooner, it may ignore."""
        until = monotonic() + _PATIENCE
        with self._admin() as conn:
            while monotonic() < until:
                query = "SELECT wait_event FROM pg_stat_activity WHERE pid = %s"
                if conn.execute(query, (pid,)).fetchone() in (None, ("SyncRep",)):
                    return
                sleep(0.01)

    def _ask(self, statement: LiteralString, value: int | list[int]) -> None:
        with self._admin() as conn:
            conn.execute(statement, (value,))
