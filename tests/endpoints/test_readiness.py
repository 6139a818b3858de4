"""Leaving and coming back, in virtual time."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from everpool import ConnectionPool, NullConnectionPool, PoolTimeout
from everpool.core.health import Condition, Status
from everpool.endpoints import Endpoints, Readiness
from everpool.lab import FaultProxy, PostgresServer
from tests.support.threads import eventually

from .pools import CLOSED, DOWN, SATURATED, Pretended

STRICT = Readiness(strict=True)


class Process:
    """A process with one pool, asked every few seconds whether it is ready."""

    def __init__(
        self, readiness: Readiness, random: Callable[[], float] = lambda: 0.0, every: float = 1.0
    ) -> None:
        self.now = 1000.0
        self.pool = Pretended()
        self.every = every
        self._changed = 0.0
        self._endpoints = Endpoints(
            self.pool,  # type: ignore[arg-type]
            readiness=readiness,
            clock=lambda: self.now,
            random=random,
        )

    def become(self, **changes: object) -> None:
        self._changes, self._changed = changes, self.now
        self.pool.become(**changes)

    def ready(self) -> bool:
        self.pool.become(**{**self._changes, "since": self.now - self._changed})
        return self._endpoints.reply("GET", "/ready").code == 200

    def until(self, ready: bool, most: float = 200.0) -> float | None:
        """Probe until it answers so; how long that took, or None."""
        began = self.now
        while self.now - began <= most:
            if self.ready() is ready:
                return self.now - began
            self.now += self.every
        return None


def test_by_default_it_stays_however_long_the_database_is_away() -> None:
    process = Process(Readiness())
    process.become(**DOWN)
    assert process.until(False, 3600.0) is None


def test_strict_it_leaves_after_a_while_and_says_why() -> None:
    process = Process(STRICT)
    process.become(**DOWN)
    assert process.until(False) == STRICT.after
    reply = process._endpoints.reply("GET", "/ready")
    assert reply.body == b'{"status": "fail", "code": "down", "retry_after": 1}'


def test_a_fleet_does_not_leave_together() -> None:
    dice = Random(1)
    left = []
    for _ in range(200):
        process = Process(STRICT, dice.random, every=0.5)
        process.become(**DOWN)
        left.append(process.until(False))
    assert min(left) >= STRICT.after
    assert max(left) <= STRICT.after + STRICT.spread + 0.5
    halves = [
        sum(left_at <= STRICT.after + share * STRICT.spread for left_at in left)
        for share in (0.25, 0.5, 0.75)
    ]
    for count, expected in zip(halves, (50, 100, 150), strict=True):
        assert abs(count - expected) <= 25


def test_the_chance_is_drawn_once_for_each_outage() -> None:
    drawn = []

    def draw() -> float:
        drawn.append(0.5)
        return 0.5

    process = Process(STRICT, draw)
    process.become(**DOWN)
    assert process.until(False) == STRICT.after + STRICT.spread / 2
    process.become()
    process.until(True)
    process.become(**DOWN)
    process.until(False)
    assert drawn == [0.5, 0.5]


def test_rare_probes_count_the_time_that_the_pool_has_been_down() -> None:
    process = Process(STRICT, every=2.0)
    process.become(**DOWN)
    process.now += 20.0  # nobody looked
    assert process.until(False) == 4.0  # the third look


def test_a_short_outage_and_flapping_do_not_make_it_leave() -> None:
    process = Process(STRICT)
    for _ in range(50):
        process.become(**DOWN)
        assert process.until(False, STRICT.after - 2.0) is None
        process.become()
        assert process.until(False, 2.0) is None


def test_it_comes_back_after_a_while_of_being_well() -> None:
    process = Process(STRICT)
    process.become(**DOWN)
    assert process.until(False)
    process.become()
    assert process.until(True, STRICT.back_after - 1.0) is None
    process.become(**DOWN)  # not yet
    assert process.until(True, 30.0) is None
    process.become()
    assert process.until(True) == STRICT.back_after


def test_coming_back_takes_several_looks() -> None:
    process = Process(STRICT, every=20.0)
    process.become(**DOWN)
    assert process.until(False)
    process.become()
    assert process.until(True) == 20.0 * (STRICT.looks - 1)


@pytest.mark.parametrize("readiness", [Readiness(), STRICT])
def test_a_saturated_pool_does_not_make_it_leave_and_is_told_apart(readiness: Readiness) -> None:
    process = Process(readiness)
    process.become(**SATURATED)
    assert process.until(False, 600.0) is None
    reply = process._endpoints.reply("GET", "/ready")
    assert reply.body == b'{"status": "warn", "code": "saturated"}'


@pytest.mark.parametrize("readiness", [Readiness(), STRICT])
def test_a_closed_pool_leaves_at_once(readiness: Readiness) -> None:
    process = Process(readiness)
    process.become(**CLOSED)
    assert process.until(False) == 0.0


def test_a_pool_that_nobody_tries_does_not_keep_it_away_for_ever() -> None:
    # A null pool, or one of min_size=0: without traffic it never tries again.
    process = Process(STRICT)
    process.become(**{**DOWN, "error_age": 60.0})
    assert process.until(False)
    process.become(**{**DOWN, "error_age": 91.0})
    assert process.until(True) == STRICT.back_after
    assert b'"warn", "code": "down"' in process._endpoints.reply("GET", "/ready").body


@pytest.mark.parametrize("kind", [ConnectionPool, NullConnectionPool])
def test_such_a_pool_says_so_by_itself(
    kind: Any, server: PostgresServer, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("everpool.core.health.STALE_AFTER", 1.0)
    with kind(proxy.via(server.dsn), min_size=0, max_size=2, timeout=0.2) as pool:
        proxy.refuse()
        with pytest.raises(PoolTimeout):
            pool.getconn()
        assert pool.health().status is Status.FAIL
        proxy.accept()
        health = eventually(lambda: (h := pool.health()).status is Status.WARN and h)
        assert health.state is Condition.DOWN
        assert health.why.endswith("1 s ago, untried since")
        pool.putconn(pool.getconn(5))
        assert pool.health().state is Condition.UP


@pytest.mark.parametrize(
    "wrong", [{"after": -1}, {"spread": float("nan")}, {"back_after": -0.1}, {"looks": 0}]
)
def test_wrong_numbers_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Readiness(**wrong)  # type: ignore[arg-type]
