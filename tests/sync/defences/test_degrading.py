# Generated from tests/aio/defences/test_degrading.py by `python tools/async_to_sync.py`.
# Do not edit: change that file and run `make generate`.

"""What callers get while the pool cannot serve them: soon, with the reason and when to come again."""

from __future__ import annotations

import pickle
from time import monotonic
from typing import Any

import pytest

import everpool
from everpool import PoolSaturated, PoolTimeout, PoolUnavailable, Refused, TooManyRequests, events
from everpool.lab import FIN, FaultProxy
from tests.support.threads import Worker, eventually, gather, scalar, sleep, spawn
from tests.sync.defences.measure import is_whole, request


def refusal(pool: Any, timeout: float | None = None) -> tuple[Any, float]:
    """What a caller is told, and how long it took."""
    start = monotonic()
    with pytest.raises(Refused) as caught:
        request(pool, timeout)
    return caught.value, monotonic() - start


def hold(pool: Any, seconds: float, timeout: float = 30.0) -> None:
    with pool.connection(timeout) as conn:
        scalar(conn, "select pg_sleep(%s)", seconds)


@pytest.mark.parametrize("fault", ["refuse", "hang"])
def test_a_pool_that_fails_tells_the_cause_within_a_reconnect_period(
    make: Any, proxy: FaultProxy, fault: str, figure: Any
) -> None:
    with make(2, when_down="fail", timeout=30.0) as pool:
        pool.wait(10)
        getattr(proxy, fault)()
        proxy.cut(FIN)
        eventually(lambda: len(pool.snapshot().deaths) == 2)
        longest = 0.0
        for _ in range(20):
            ex, took = refusal(pool)
            longest = max(longest, took)
            assert isinstance(ex, PoolUnavailable) and isinstance(ex, PoolTimeout)
            assert ex.code == "down" and 0 < ex.retry_after < 5
            assert "of 2 connections" in ex.picture
            sleep(0.02)
        figure("refused after, s", longest, 1.0)
        heard: list[Any] = []
        pool.subscribe(heard.append, events.Recovered, events.StateChanged)
        proxy.heal()
        eventually(lambda: pool.snapshot().state == "up", timeout=4)
        request(pool)
        eventually(lambda: any(isinstance(h, events.Recovered) for h in heard))


@pytest.mark.alone
def test_a_queue_that_cannot_be_served_in_time_is_refused_at_once(make: Any) -> None:
    with make(2) as pool:
        pool.wait(10)
        workers: list[Worker] = [spawn(hold, pool, 0.5) for _ in range(30)]  # 7.5 s of work
        eventually(lambda: pool.snapshot().vitals.saturated, timeout=3)
        assert pool.health().checks[2].status.value == "warn"
        sleep(2.2)
        ex, took = refusal(pool, 1.0)
        assert isinstance(ex, PoolSaturated) and isinstance(ex, PoolTimeout)
        assert ex.code == "saturated" and took < 0.2
        assert 1 < ex.retry_after < 8
        assert "a second are served" in str(ex)
        gather(*workers, timeout=30)
        assert pool.snapshot().refusals == {"saturated": 1}
        eventually(lambda: not pool.snapshot().vitals.saturated)


def test_every_refusal_says_when_to_come_again_and_survives_pickling(
    make: Any, proxy: FaultProxy
) -> None:
    with make(1, max_waiting=1) as pool:
        pool.wait(10)
        conn = pool.getconn()
        late = spawn(refusal, pool, 0.3)
        eventually(lambda: pool.snapshot().waiting == 1)
        full, took = refusal(pool)
        assert isinstance(full, TooManyRequests) and full.code == "full" and took < 0.1
        timeout, _ = late.result()
        assert isinstance(timeout, PoolTimeout) and timeout.code == "timeout"
        pool.putconn(conn)
    closed, _ = refusal(pool)
    assert isinstance(closed, everpool.PoolClosed) and closed.code == "closed"
    for ex in (full, timeout):
        again = pickle.loads(pickle.dumps(ex))
        assert type(again) is type(ex) and str(again) == str(ex)
        assert (again.code, again.retry_after, again.picture) == (
            ex.code,
            ex.retry_after,
            ex.picture,
        )
        assert ex.retry_after > 0 and "1 of 1 connections" in ex.picture


def test_a_pause_holds_callers_and_resuming_serves_them(make: Any) -> None:
    with make(2) as pool:
        pool.wait(10)
        conn = pool.getconn()
        pool.pause()
        assert pool.snapshot().state == "paused" and pool.health().ready.ok
        callers = [spawn(request, pool, 10) for _ in range(3)]
        pool.putconn(conn)
        sleep(0.3)
        assert not any(caller.done for caller in callers)
        ex, _ = refusal(pool, 0.2)
        assert ex.code == "timeout"
        pool.resume()
        gather(*callers)
        eventually(lambda: is_whole(pool, 2))
        assert pool._direct


def test_health_is_read_in_any_state(make: Any, proxy: FaultProxy) -> None:
    pool = make(2)
    health = pool.health()
    assert health.state.value == "new" and not health.started.ok and health.live.ok
    with pool:
        pool.wait(10)
        health = pool.health()
        assert (health.status.value, health.state.value) == ("pass", "up")
        assert health.live.ok and health.started.ok and health.ready.ok
        proxy.refuse()
        proxy.cut(FIN)
        eventually(lambda: pool.health().state.value == "down")
        health = pool.health()
        assert health.status.value == "fail" and health.live.ok
        assert health.ready.ok and health.ready.status.value == "warn"
        told = " ".join(check.text for check in health.checks) + health.why + health.ready.why
        assert "127.0.0.1" not in told and "refused" in health.checks[0].detail
        proxy.accept()
        eventually(lambda: pool.health().state.value == "up")
    health = pool.health()
    assert health.state.value == "closed" and not health.ready.ok and health.live.ok


def test_errors_are_called_what_they_are_caught_by() -> None:
    for code, kind in [("timeout", PoolTimeout), ("full", TooManyRequests)]:
        error = everpool.errors.refused(code, "", 1.0, "")
        assert isinstance(error, kind) and type(error).__name__ == kind.__name__
