"""One round: a server and its standby, a proxy, the lanes, and what befalls the server."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from random import Random
from time import monotonic, sleep
from typing import Any, LiteralString

import psycopg

from everpool.lab import RST, FaultProxy, PostgresServer
from everpool.work.token import SCHEMA as TOKENS

from .books import Books, History, money
from .deeds import SCHEMA, make_deeds
from .faults import Fault, Kind, make_faults
from .lanes import Lane, LaneSpec, make_lane
from .strike import Striker

__all__ = ["Event", "Plan", "Round", "play"]

_SETTINGS: dict[str, object] = {
    "max_connections": 500,
    "deadlock_timeout": "100ms",
    # Who asks for `synchronous_commit = on` waits for a standby that never comes; all others get
    # what is called `on` where there is no such standby.
    "synchronous_standby_names": "nobody",
    "synchronous_commit": "local",
    # A client that is cut off without the server's knowledge leaves its locks.
    "idle_in_transaction_session_timeout": "2s",
    "wal_keep_size": "256MB",
}
_LOOK = 0.05  # seconds between looks
_AUDIT = 0.5  # seconds between comparisons of what was told with the tables
_DRAIN = 1.0  # seconds within which callers have noticed what the old primary still answered
_HUNG = 90.0  # seconds after which a deed will never end
# Who was to end a wait for a standby may have met a server that was just being replaced.
_FREE = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
 WHERE wait_event = 'SyncRep' AND state_change < now() - interval '3 s'"""
_FIRST_WORK = 1_000_000


@dataclass(frozen=True, slots=True)
class Event:
    """What befalls the server, when the lanes have come so far.

    :ivar kind: ``"kill"``, ``"crash"`` or ``"promotion"``.
    :ivar at: the share of all deeds.
    :ivar lane: whose COMMIT is struck by a ``kill``.
    :ivar split: at a promotion, the old primary lives on for a while.
    :ivar seconds: how long the outage is, or replication behind.
    """

    kind: str
    at: float
    lane: int
    split: bool
    seconds: float


@dataclass(frozen=True)
class Plan:
    """A round before it is played. The same seed and number make the same plan."""

    seed: int
    number: int
    specs: tuple[LaneSpec, ...]
    deeds: int
    faults: int
    kills: int
    crashes: int
    promotion: bool

    def random(self, *what: object) -> Random:
        return Random(f"{self.seed}/{self.number}/{what}")

    def faults_of(self, spec: LaneSpec) -> list[Fault]:
        return make_faults(
            self.random("faults", spec.name),
            self.faults,
            token=spec.mode == "token",
            tasks=spec.tasks,
            deadlines=bool(spec.mode),
            pool_wide=self.pool_wide(spec),
        )

    def pool_wide(self, spec: LaneSpec) -> bool:
        """Whether the lane's pool has a deadline for all, in this round: threads' and tasks' in
        turn. (One that has none takes another, faster way.)"""
        return bool(spec.mode) and spec.tasks == (self.number % 2 == 0)

    def events(self) -> list[Event]:
        random = self.random("events")
        last = 0.7 if self.promotion else 0.9
        lanes = len(self.specs)

        def event(kind: str, at: float) -> Event:
            length = 0.05 + 0.4 * random.random()
            return Event(kind, at, random.randrange(lanes), random.random() < 0.5, length)

        events = [event("kill", random.uniform(0.1, 0.9)) for _ in range(self.kills)]
        events += [event("crash", random.uniform(0.1, 0.9)) for _ in range(self.crashes)]
        if self.promotion:
            events.append(event("promotion", random.uniform(0.5, last)))
        return sorted(events, key=lambda each: each.at)


@dataclass
class Round:
    """A round that is being played, or was."""

    plan: Plan
    books: Books = field(default_factory=Books)
    cuts: int = 0
    events: list[str] = field(default_factory=list)
    spans: list[tuple[float, float]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    hung: list[str] = field(default_factory=list)
    behind: int = 0
    history: History | None = None
    seconds: float = 0.0
    version: str = ""

    def disturbed(self, began: float, at: float) -> bool:
        """Whether the server was not one and the same for the whole of this time."""
        return any(begin < at and began < end for begin, end in self.spans)


class _Stage:
    """What a round is played on."""

    def __init__(self, plan: Plan, show: Callable[[int], None], stack: ExitStack) -> None:
        self.round = Round(plan)
        self.plan = plan
        self.show = show
        self.primary = self.server = stack.enter_context(PostgresServer(_SETTINGS))
        self.round.version = self.server.version
        with psycopg.connect(self.server.dsn, autocommit=True) as conn:
            conn.execute(SCHEMA)
            conn.execute(TOKENS)
        self.standby: Any = None
        if plan.promotion:
            self.wire = stack.enter_context(FaultProxy(self.server.host, self.server.port))
            source = f"{self.wire.via(self.server.conninfo)} application_name=standby1"
            self.standby = stack.enter_context(
                self.server.standby({"primary_conninfo": source, **_SETTINGS})
            )
        self.proxy = stack.enter_context(FaultProxy(self.server.host, self.server.port))
        self.striker = Striker(self.proxy, self._kill, self.admin)
        self.history: History | None = None
        self.since = 0.0
        self.until: float | None = None
        self._audited = 0.0
        self.lanes = [self._lane(index, spec) for index, spec in enumerate(plan.specs)]

    def _lane(self, index: int, spec: LaneSpec) -> Lane:
        plan = self.plan
        first = _FIRST_WORK * (10 * plan.number + index + 1)
        deeds = make_deeds(
            plan.random("deeds", spec.name),
            index,
            first,
            plan.deeds,
            token=spec.mode == "token",
        )
        conninfo = self.proxy.via(self.server.dsn)
        return make_lane(
            spec,
            conninfo,
            self.striker,
            deeds,
            plan.faults_of(spec),
            self.round.books.note,
            plan.pool_wide(spec),
        )

    def admin(self) -> psycopg.Connection:
        """A connection past the proxy."""
        return psycopg.connect(self.server.dsn, autocommit=True, connect_timeout=5)

    def _kill(self, pid: int) -> None:
        begin = monotonic()
        self.server.kill_backend(pid)
        self._patient().close()
        self.round.spans.append((begin, monotonic()))
        self.round.events.append("backend killed")

    def _patient(self) -> psycopg.Connection:
        """As `admin`, waiting for a server that recovers."""
        until = monotonic() + 30.0
        while True:
            try:
                return self.admin()
            except psycopg.OperationalError:
                if monotonic() > until:
                    raise
                sleep(0.02)

    def _asked(self, query: LiteralString, *values: object) -> Any:
        """One value, of a server that a backend killed just now may throw into recovery."""
        until = monotonic() + 30.0
        while True:
            try:
                with self._patient() as conn:
                    row = conn.execute(query, values).fetchone()
                assert row is not None
                return row[0]
            except psycopg.OperationalError:
                if monotonic() > until:
                    raise

    # -- The play --------------------------------------------------------------------------------

    def run(self) -> None:
        for lane in self.lanes:
            lane.start()
        events = self.plan.events()
        total = sum(lane.number for lane in self.lanes)
        quiet_since, last = monotonic(), -1
        while True:
            done = sum(lane.done for lane in self.lanes)
            self.show(done)
            if done != last:
                quiet_since, last = monotonic(), done
            if (
                done >= total
                or monotonic() - quiet_since > _HUNG
                or any(lane.errors for lane in self.lanes)
            ):
                break
            while events and done >= events[0].at * total:
                self._befall(events.pop(0))
            self._audit()
            self.striker.reap()
            sleep(_LOOK)
        for lane in self.lanes:
            if lane.errors:
                raise lane.errors[0]
            if not lane.join(1.0 if done < total else 40.0):
                self.round.hung += [
                    f"{lane.spec.name}: {trial.deed.work} ({trial.struck or 'no fault'}, try {trial.tries})"
                    for trial in lane.under_way.values()
                ]

    def _befall(self, event: Event) -> None:
        match event.kind:
            case "kill":
                lane = self.lanes[event.lane]
                lane.add(Fault(Kind.KILL, RST, 0, event.seconds / 100))
            case "crash":
                begin = monotonic()
                self.server.crash()
                sleep(event.seconds)
                self.server.up()
                self.round.spans.append((begin, monotonic()))
                self.round.events.append("postmaster killed")
            case "promotion":
                self._promote(event)

    def _promote(self, event: Event) -> None:
        self.wire.silence()
        before = self._asked("SELECT pg_current_wal_insert_lsn()")
        sleep(event.seconds)
        begin = monotonic()
        query = "SELECT (pg_current_wal_insert_lsn() - %s::pg_lsn)::bigint"
        self.round.behind = self._asked(query, before)
        standby = self.standby
        if event.split:
            standby.promote()
            self.since = monotonic()
            self.proxy.retarget(standby.host, standby.port)
            sleep(event.seconds)
            self.primary.crash()
        else:
            self.primary.crash()
            standby.promote()
        sleep(_DRAIN)
        self.server = standby
        self.until = monotonic()
        self.since = self.since or self.until
        self.proxy.retarget(standby.host, standby.port)
        self.round.spans.append((begin, monotonic()))
        self.round.events.append("promotion" + (", old primary alive" if event.split else ""))

    # -- The checks ------------------------------------------------------------------------------

    def _audit(self) -> None:
        """What was just told has to be true at once, not only in the end."""
        now = monotonic()
        if now < self._audited + _AUDIT:
            return
        self._audited = now
        try:
            with self.admin() as conn:
                conn.execute(_FREE)
                fresh = self.round.books.fresh()
                if self.until is not None:  # the rest is a matter of history
                    fresh = [told for told in fresh if told.at > self.until]
                # Of twins one may have done it before the other was told that it has not.
                fresh = [told for told in fresh if not told.keyed]
                rows = _rows(conn, [told.work for told in fresh])
        except psycopg.OperationalError:  # a server that recovers; the end will tell
            return
        self.round.books.check(fresh, rows, None)

    def judge(self) -> None:
        """Compare everything with the tables, once nothing can come any more."""
        books = self.round.books
        if self.until is not None:
            self.primary.up()
            with psycopg.connect(self.primary.dsn, autocommit=True) as conn:
                self.history = History(self.since, self.until, _rows(conn))
        with self._patient() as conn:
            if not self.round.hung:
                _until_alone(conn)
            rows = _rows(conn)
            self.round.wrong += money(conn)
        books.check(books.told, rows, self.history)
        self.round.history = self.history
        told = {each.work for each in books.told}
        self.round.wrong += [f"work {work} done, nobody was told" for work in rows.keys() - told]


def play(plan: Plan, show: Callable[[int], None]) -> Round:
    """Play a round; *show* is told how many deeds are done, again and again."""
    for name in ("everpool", "psycopg.pool"):
        logging.getLogger(name).addHandler(logging.NullHandler())
    began = monotonic()
    with ExitStack() as stack:
        stage = _Stage(plan, show, stack)
        stage.run()
        stage.striker.close()
        stage.round.cuts = len(stage.proxy.stats().cuts)
        stage.proxy.close()
        stage.judge()
    stage.round.seconds = monotonic() - began
    return stage.round


def _rows(conn: Any, works: list[int] | None = None) -> dict[int, int]:
    where = "" if works is None else " WHERE work = ANY(%s)"
    values = () if works is None else (works,)
    query = f"SELECT work, count(*) FROM ledger{where} GROUP BY work"
    return dict(conn.execute(query, values).fetchall())


def _until_alone(conn: Any) -> None:
    """Wait until every other session has ended: what was on its way has arrived."""
    until = monotonic() + 20.0
    while monotonic() < until:
        row = conn.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        ).fetchone()
        if not row[0]:
            return
        sleep(0.02)
    raise RuntimeError("sessions are left on the server after all pools were closed")
