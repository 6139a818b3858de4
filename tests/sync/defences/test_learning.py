# Generated from tests/aio/defences/test_learning.py by `python tools/async_to_sync.py`.
# Do not edit: change that file and run `make generate`.

"""A pool behind a cut that nobody told it of, on real sockets; time is compressed ten times."""

from __future__ import annotations

import json
import logging
import os
import warnings
from math import inf
from time import monotonic, time
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

import everpool
from everpool import (
    ConnectionPool,
    Environment,
    NullConnectionPool,
    SettingWarning,
    environments,
)
from everpool.events import Learned
from everpool.lab import FaultProxy, PostgresServer
from tests.support.database import Database
from tests.support.threads import eventually, gather, is_async, sleep, spawn
from tests.sync.defences.measure import request

LONG = os.environ.get("EVERPOOL_TEST_LONG") == "1"

# A tenth of twenty seconds, and a path that gives the pool a tenth of its default keepalive
# without anybody's having given one.
CUT = 2.0
USUAL = Environment(idle_cut=4.5 / 0.4, kill="fin", max_age=inf, name="a wrong guess")
SIZE = 4
GENERATIONS = 3


class Behind:
    """A pool behind a proxy of its own that cuts what idles."""

    def __init__(self, server: PostgresServer, dsn: str, style: str) -> None:
        self.proxy = FaultProxy(server.host, server.port)
        self.style = style
        self._dsn = dsn
        self.told: list[Learned] = []
        self.waits: list[float] = []
        self.cut_before = 0

    def live(self) -> None:
        with self.proxy:
            self.proxy.idle_cut(CUT, self.style)
            pool: Any = ConnectionPool(
                self.proxy.via(self._dsn),
                min_size=SIZE,
                environment=USUAL,
                kwargs={"autocommit": True},
                open=False,
            )
            with pool:
                assert pool.policy.keepalive == 4.5
                with pool.subscribe(self.told.append, Learned):
                    self._visit(pool, lambda: bool(self.told), 30.0)
                    self._visit_for(pool, 0.5)  # what was nearly due may go before its ping
                    self.cut_before = self._cuts()
                    self._visit_for(pool, 2.5 * CUT)
                self.snapshot = pool.snapshot()
                self.findings = pool.findings()

    def _cuts(self) -> int:
        return len(self.proxy.stats().cuts)

    def _visit_for(self, pool: Any, seconds: float) -> None:
        until = monotonic() + seconds
        self._visit(pool, lambda: monotonic() > until, 30.0)

    def _visit(self, pool: Any, done: Any, limit: float) -> None:
        until = monotonic() + limit
        while not done():
            assert monotonic() < until, f"{self.style}: learned nothing"
            _, waited = request(pool)
            self.waits.append(waited)
            sleep(0.15)


@pytest.mark.skipif(not is_async and not LONG, reason="20 s: with EVERPOOL_TEST_LONG=1")
@pytest.mark.timeout(120)
def test_nobody_notices_and_the_third_generation_is_the_last(
    server: PostgresServer, database: Database
) -> None:
    lives = [
        Behind(server, database.dsn, style)
        for style in ("fin", "rst", "fatal:08P01", "rst-next", "silence")
    ]
    gather(*(spawn(life.live) for life in lives), timeout=90)
    for life in lives:
        told = life.told[0]
        assert told.setting == "keepalive" and not told.contradicts
        assert told.after < CUT < told.before == 4.5, (life.style, told)
        assert life.cut_before <= GENERATIONS * SIZE, (life.style, life.cut_before)
        late = life.proxy.stats().cuts[life.cut_before :]
        assert not late, (life.style, told, [(c.at - told.at, c.idle, c.age) for c in late])
        # A ping that is lost in silence costs a quarter of a second.
        assert max(life.waits) < 1.0, (life.style, sorted(life.waits)[-3:])
        (lesson,) = life.snapshot.learned
        assert lesson.fact == "idle_cut" and lesson.followed and lesson.events >= GENERATIONS
        (setting,) = (s for s in life.snapshot.settings if s.name == "keepalive")
        # The pings that follow a silent cut's discovery may show that it is shorter still.
        assert all(later.after < later.before for later in life.told)
        assert (setting.value, setting.origin) == (life.told[-1].after, "learned")
        assert json.loads(json.dumps(life.findings)) == life.findings


def test_what_was_found_is_handed_to_the_next_pool(
    server: PostgresServer, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "everpool")
    findings = {
        "version": 1,
        "saved_at": 0,
        "age": [],
        "idle": [
            {
                "alive_at": ago,
                "found_at": ago,
                "seen_at": ago,
                "least": 20.0,
                "most": 20.0,
                "bound": 20.0,
                "age": 20.0,
                "style": "RST",
                "deaths": 1,
                "outlived": 0,
                "declared": False,
            }
            for ago in (300.0, 200.0, 100.0)
        ],
    }
    findings["saved_at"] = time() - 3600
    with ConnectionPool(database.dsn, learn=findings, open=False) as pool:
        assert pool.snapshot().learned[0].last_ago == pytest.approx(3700, abs=5)
        assert pool._machine.keepalive == 8.0
        eventually(lambda: "learned: keepalive from 45 s to 8 s" in caplog.text)
        again = pool.findings()
        assert len(again["idle"]) == 3
    assert findings["idle"][0]["alive_at"] == 300.0  # the caller's own is left alone
    findings["saved_at"] = 0  # half a century ago
    with ConnectionPool(database.dsn, learn=findings, open=False) as pool:
        assert pool._machine.keepalive == 45.0


def test_what_cannot_be_used_is_warned_of_and_the_pool_begins_with_nothing() -> None:
    for nonsense in ({}, {"version": 2, "idle": [], "age": [], "saved_at": 0}):
        with pytest.warns(SettingWarning, match="begins with nothing") as caught:
            pool: Any = ConnectionPool("", learn=nonsense, open=False)
        assert caught[0].filename == __file__
        assert pool.policy.learn and not pool.findings()["idle"]
    assert ConnectionPool("", learn=None, open=False).policy.learn  # nothing found yet
    for wrong in ("yes", 3, [1]):
        with pytest.raises(TypeError, match="learn must be True, False, None, or a mapping"):
            ConnectionPool("", learn=wrong, open=False)  # type: ignore[arg-type]


class TestEnvironment:
    def test_a_name_gives_settings_and_their_reasons(self) -> None:
        pool: Any = ConnectionPool("", environment="aws-nlb", open=False)
        assert pool.policy.keepalive == 140
        assert "keepalive 140 s: 0.4 × the 350 s idle cut of aws-nlb" in pool.policy.explain()
        (setting,) = (s for s in pool.snapshot().settings if s.name == "keepalive")
        assert (setting.value, setting.origin) == (140, "environment")
        assert setting.why == "0.4 × the 350 s idle cut of aws-nlb"

    def test_several_and_one_s_own(self) -> None:
        own = Environment(idle_cut=100, kill="rst")
        pool: Any = ConnectionPool("", environment=["aws-nlb", own], open=False)
        assert pool.policy.keepalive == 40

    def test_a_sleeper_gets_a_pool_that_may_be_empty(self) -> None:
        pool: Any = ConnectionPool("", environment="neon", open=False)
        assert (pool.min_size, pool.max_size, pool.max_idle) == (0, 4, 60)
        assert pool.get_stats()["pool_min"] == 0

    def test_a_name_that_is_none(self) -> None:
        with pytest.raises(ValueError, match="'aws-nbl': did you mean aws-nlb"):
            ConnectionPool("", environment="aws-nbl", open=False)
        with pytest.raises(TypeError, match="an environment must be a name"):
            ConnectionPool("", environment=3, open=False)  # type: ignore[arg-type]

    def test_a_conninfo_given_by_mistake_is_not_repeated(self) -> None:
        for mistake in ("postgresql://joe:hunter2@h/d", "host=h password=hunter2"):
            with pytest.raises(ValueError, match="withheld") as caught:
                ConnectionPool("", environment=mistake, open=False)
            assert "hunter2" not in str(caught.value)

    def test_an_entry_of_the_catalogue_does_as_well(self) -> None:
        entry = environments.find("aws-nlb")
        pool: Any = ConnectionPool("", environment=[entry], open=False)
        assert pool.policy.keepalive == 140

    def test_a_pool_that_keeps_none_tries_one_when_it_is_waited_for(self, dsn: str) -> None:
        broken: Any = ConnectionPool("host=127.0.0.1 port=1", environment="neon", open=False)
        with pytest.raises(everpool.PoolTimeout, match="refused"):
            broken.open(wait=True, timeout=0.5)
        pool: Any = ConnectionPool(dsn, environment="neon", open=False)
        pool.open(wait=True, timeout=10)
        assert pool.snapshot().opened == 1
        pool.close()

    def test_changes_at_run_time_are_checked_too(self, dsn: str) -> None:
        pool: Any = ConnectionPool(dsn, environment="fly-postgres", open=False)
        with pool:
            with pytest.warns(SettingWarning, match="max_lifetime=3600 is not below") as caught:
                pool.max_lifetime = 3600
            assert caught[0].filename == __file__
            assert "warning: max_lifetime=3600" in pool.policy.explain()
            pool.max_lifetime = 300
            pool.max_lifetime = 300  # to set it is to pin it, whatever it was
            assert pool.policy.reason("max_lifetime").origin == "changed"
            assert "warning" not in pool.policy.explain()
        sleeper: Any = ConnectionPool(dsn, environment="neon", open=False)
        with sleeper:
            with pytest.warns(SettingWarning, match="min_size=2 keeps connections open"):
                sleeper.resize(2, 4)

    @pytest.mark.parametrize("null", [False, True])
    def test_a_contradiction_warns_where_the_pool_is_made(self, null: bool) -> None:
        kind: Any = NullConnectionPool if null else ConnectionPool
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            kind("", environment="fly-postgres", max_lifetime=3600.0, open=False)
        (warning,) = caught
        assert warning.category is SettingWarning and warning.filename == __file__
        assert "max_lifetime=3600.0 is not below the 600 s" in str(warning.message)

    def test_without_contradiction_nothing_warns(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            ConnectionPool("", environment="fly-postgres", max_lifetime=300, open=False)
            ConnectionPool("", max_lifetime=20, open=False)

    def test_tcp_settings_follow(self, dsn: str) -> None:
        pool: Any = ConnectionPool(dsn, min_size=1, environment="aws-aurora", open=False)
        with pool, pool.connection() as conn:
            found = conn.info.get_parameters()
            assert found["keepalives_idle"] == "10"
            assert found["keepalives_interval"] == "5"
            assert found["tcp_user_timeout"] == "20000"


class TestHints:
    """A host's name that gives an environment away; the address is the test's own server."""

    def told(self, dsn: str, caplog: pytest.LogCaptureFixture, **settings: Any) -> list[str]:
        caplog.set_level(logging.INFO, "everpool")
        there = conninfo_to_dict(dsn)
        there.update(hostaddr=there["host"], host="ep-cool-1.eu-central-1.aws.neon.tech")
        settings = {"min_size": 2, **settings}
        pool: Any = ConnectionPool(
            make_conninfo("", **there), open=False, name="hinted", **settings
        )
        with pool:
            pool.wait(10)
        return [r.getMessage() for r in caplog.records if "looks like" in r.getMessage()]

    def test_it_is_said_once(self, dsn: str, caplog: pytest.LogCaptureFixture) -> None:
        (line,) = self.told(dsn, caplog)
        assert line.startswith("pool 'hinted': the host's name looks like Neon.")
        assert "environment='neon'" in line and "keepalive never" in line and "awake" in line
        assert "min_size=2 keeps connections open" in line
        assert "ep-cool-1" not in line

    def test_not_to_whom_has_told_the_environment(
        self, dsn: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert not self.told(dsn, caplog, environment="aws-nlb")

    def test_not_to_whom_has_set_all_that_would_follow(
        self, dsn: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        given = {"min_size": 0, "max_size": 4, "keepalive": inf, "max_idle": 60}
        given |= {"connect_timeout": 30, "verify_after": 2}
        assert not self.told(dsn, caplog, **given)

    def test_a_catalogue_that_cannot_be_read_costs_no_connection(
        self, dsn: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*args: Any) -> None:
            raise FileNotFoundError("frozen")

        monkeypatch.setattr("everpool.environments.hint_for", fail)
        assert not self.told(dsn, caplog)
        assert "error connecting" not in caplog.text


def test_all_names_are_public() -> None:
    assert everpool.Environment is Environment
    assert {"Environment", "Lesson", "SettingWarning"} <= set(everpool.__all__)
