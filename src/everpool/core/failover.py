"""Failover: what server a connection leads to, and which connections must not be lent for it.

A pool is told of three things: who answers a new connection (``identified``), that a statement was
refused because the server is read-only (``wrong_role``), and that its program writes
(``claims_writes``, ``told_role``).

**A pool that writes lends no standby**, and this costs a loan nothing, because it need not be
looked at there: a session can be promoted, but never demoted. PostgreSQL becomes a standby only by
starting as one, which ends its sessions. So what was found when the connection was opened holds
until a ping finds it better, and all that rest are pinged (a new generation) when the pool learns
that it writes; until then neither door lends them. Each connection passes `_settle` after that.

**A pool that only reads** may live on standbys, and one mistaken INSERT must not close it. So a
refused write proves that the pool writes only if it has ever reached a primary. If it has not, the
connection alone goes, and one attempt looks for a primary among the hosts (``wants_primary``).
"""

from __future__ import annotations

from collections.abc import Callable

from .effects import Close
from .events import ServerChanged
from .history import History
from .incarnation import Incarnation
from .policy import Policy
from .slot import Slot
from .supply import Supply
from .table import PRESENT
from .verdict import Cause, Trouble

A_STANDBY = "the server is a standby"

# What libpq's ``target_session_attrs`` says of a program: these need a server that takes writes.
WRITING = ("read-write", "primary")


class Failover(Supply):
    __slots__ = (
        "_met_primary",
        "_seeking",
        "_tolerant",
        "asks",
        "claimed",
        "history",
        "pooler",
        "writes",
    )

    def __init__(self, policy: Policy, now: float, random: Callable[[], float]) -> None:
        super().__init__(policy, now, random)
        self.history = History()
        self.asks = True  # whether new connections are asked who the server is
        self.pooler = False  # the server's process is not the one the connect told of
        self.writes = False  # standbys are not lent
        self.claimed = False  # the program has tried to write
        self._tolerant = False  # the user said which servers will do, and did not say "primary"
        self._met_primary = False
        self._seeking = False  # the next attempt looks for a primary

    # -- what is told -------------------------------------------------------------------------

    def identified(self, slot: Slot, now: float) -> str:
        """The shell has set ``incarnation`` and ``standby`` of a new connection.

        :returns: why the connection must not be used; empty if it may.
        """
        incarnation = slot.incarnation
        if slot.standby:
            return f"{A_STANDBY}, and this pool writes" if self.writes else ""
        if incarnation is not None and not incarnation.standby:
            self._gather(incarnation)
            if refusal := self.history.refusal(incarnation, now):
                return refusal
            self._believe(incarnation, now)
        if slot.standby is False:
            self._meet_primary(now)
        return ""

    def wrong_role(self, slot: Slot, now: float) -> None:
        """A lent connection refused a write because its server is a standby.

        It is discarded when it is returned; its siblings are tested before they are lent.
        """
        slot.cause = Cause("demoted", "25006", A_STANDBY)
        slot.why = "demoted"
        self.claims_writes(now)
        self._seeking = not self.writes
        self.suspect_all(now)

    def claims_writes(self, now: float) -> None:
        """The program writes through this pool, or tries to."""
        self.claimed = True
        if self._met_primary and not self._tolerant:
            self._write(now)

    def told_role(self, attributes: str, now: float) -> None:
        """What the user's ``target_session_attrs`` says; empty if nothing."""
        self._tolerant = bool(attributes) and attributes not in WRITING
        if attributes in WRITING:
            self._write(now)
        elif self._tolerant:
            self.writes = False

    @property
    def wants_primary(self) -> bool:
        """Whether the next attempt shall pass over standbys where there are several hosts."""
        return self.writes or self._seeking

    # -- what follows -------------------------------------------------------------------------

    def _meet_primary(self, now: float) -> None:
        self._met_primary, self._seeking = True, False
        if self.claimed and not self._tolerant:
            self._write(now)

    def _write(self, now: float) -> None:
        if not self.writes:
            self.writes = True
            if any(slot.standby for slot in self.slots):
                self.suspect_all(now)

    def _gather(self, incarnation: Incarnation) -> None:
        """Before somebody else is believed: when was each server last heard on what is here?"""
        if self.history.is_news(incarnation):
            for slot in self.slots:
                if slot.incarnation is not None and slot.state in PRESENT:
                    self.history.heard(slot.incarnation, max(slot.heard_at, slot.since))

    def _believe(self, incarnation: Incarnation, now: float) -> None:
        news = self.history.is_news(incarnation)
        change = self.history.meet(incarnation, now)
        if change is not None:
            before, after = change.before, change.after
            self._tell(
                ServerChanged(
                    now,
                    before.system,
                    before.timeline,
                    after.system,
                    after.timeline,
                    change.why,
                )
            )
        if news and any(s.incarnation not in (None, incarnation) for s in self.slots):
            self.suspect_all(now)

    # -- where it shows -----------------------------------------------------------------------

    def open_failed(
        self, slot: Slot, now: float, text: str, trouble: Trouble, *, abandoned: bool = False
    ) -> None:
        self._seeking = False  # no primary is to be had: a standby will do until the next write
        super().open_failed(slot, now, text, trouble, abandoned=abandoned)

    def pong(self, slot: Slot, now: float) -> None:
        """As `Supply.pong`; the shell has set ``standby`` anew where the server tells."""
        incarnation = slot.incarnation
        if slot.standby is False and not self._met_primary:
            self._meet_primary(now)
        if incarnation is not None and self.history.newer(incarnation):
            # An older timeline was accepted while this one was silent: a mistake, it lives.
            self._believe(incarnation, now)
        super().pong(slot, now)

    def _settle(self, slot: Slot, now: float) -> None:
        # What was lent since the last suspicion may have been promoted: `Supply` has it tested.
        tested = slot.generation == self.generation
        if slot.cause is not None or (self.writes and slot.standby and tested):
            if slot.cause is None:
                slot.cause = Cause("demoted", text=A_STANDBY)
            self.effects.append(Close(slot))
            self._died(slot, now)
        elif slot.incarnation is not None and self.history.outdated(slot.incarnation):
            self._retire(slot, now, "older timeline")
        else:
            super()._settle(slot, now)

    def _retire(self, slot: Slot, now: float, why: str) -> None:
        self._note(slot)
        super()._retire(slot, now, why)

    def _died(self, slot: Slot, now: float) -> None:
        self._note(slot)
        super()._died(slot, now)

    def _note(self, slot: Slot) -> None:
        """When its server was last heard: the slot will not be here to be asked."""
        if slot.incarnation is not None:
            self.history.heard(slot.incarnation, max(slot.heard_at, slot.since))
