# Generated from tests/aio/defences/test_suspicion.py by `python tools/async_to_sync.py`.
# Do not edit: change that file and run `make generate`.

"""Pings: who is tested when, what a lost one means, and what a late answer is worth."""

from __future__ import annotations

from time import monotonic
from typing import Any

import pytest

from everpool import clock
from everpool.lab import SILENCE, Drop, FaultProxy, Hold, fatal
from tests.support.database import Database
from tests.support.threads import eventually, scalar, sleep, spawn
from tests.sync.defences.measure import PING, Pings, at_rest, cuts, is_whole, request, states


def test_a_connection_not_heard_from_for_verify_after_is_asked_before_it_is_lent(
    make: Any, proxy: FaultProxy
) -> None:
    with make(1, verify_after=0.3) as pool:
        pool.wait(10)
        pings = Pings(proxy)
        request(pool)
        request(pool)
        assert sum(pings.counts.values()) == 0
        sleep(0.35)
        request(pool)
        assert sum(pings.counts.values()) == 1
        request(pool)
        assert sum(pings.counts.values()) == 1


def test_a_ping_before_lending_has_time_for_the_round_trips_of_a_long_way(
    make: Any, proxy: FaultProxy, database: Database
) -> None:
    proxy.latency(0.2)
    with make(2) as pool:
        pool.wait(10)
        eventually(lambda: is_whole(pool, 2))
        pids = database.pids()
        for _ in range(2):
            sleep(0.6)
            start = monotonic()
            with pool.connection() as conn:
                assert monotonic() - start > 0.39  # it was asked
                assert conn.info.backend_pid in pids
            eventually(lambda: at_rest(pool) == 2)
        assert not cuts(pool)
        assert database.pids() == pids


def test_a_lost_ping_has_its_siblings_tested_before_they_are_lent(
    make: Any, proxy: FaultProxy, database: Database
) -> None:
    with make(4, 8) as pool:
        pool.wait(10)
        eventually(lambda: is_whole(pool, 4))
        sleep(0.6)
        pids = database.pids()
        # The one lent next falls silent, and only it.
        silent = pool._machine.idle[-1].conn.info.backend_pid
        proxy.cut(SILENCE, link=proxy.find(backend_pid=silent))
        pings = Pings(proxy)
        _, waited = request(pool)
        assert waited < 0.5
        eventually(lambda: is_whole(pool, 4))
        siblings = pids - {silent}
        assert all(pings.counts[proxy.find(backend_pid=pid)] for pid in siblings)
        assert cuts(pool) == {"silence": 1}
        assert siblings < database.pids()


def test_a_late_answer_revives_all_that_a_spike_of_latency_had_silenced(
    make: Any, proxy: FaultProxy, database: Database
) -> None:
    with make(4, 8) as pool:
        pool.wait(10)
        eventually(lambda: is_whole(pool, 4))
        sleep(0.6)
        pids = database.pids()
        proxy.silence(late=True)
        caller = spawn(request, pool, 10)
        eventually(lambda: states(pool)["suspect"] == 4)
        assert not caller.done
        proxy.heal()
        caller.result()
        eventually(lambda: at_rest(pool) == sum(states(pool).values()))
        assert pids <= database.pids()
        assert not cuts(pool)


def test_a_late_answer_serves_the_caller_who_asked(make: Any, proxy: FaultProxy) -> None:
    with make(1, 1) as pool:
        pool.wait(10)
        sleep(0.6)
        old = pool._machine.idle[-1].conn.info.backend_pid
        rule = proxy.on(PING, Hold())
        caller = spawn(request, pool, 10)
        eventually(lambda: rule.hits)
        sleep(0.05)
        rule.release()
        _, waited = caller.result()
        assert waited < 0.25
        with pool.connection() as conn:
            assert conn.info.backend_pid == old


def test_an_administrators_shutdown_of_one_has_all_siblings_tested_before_they_are_lent(
    make: Any, proxy: FaultProxy, database: Database
) -> None:
    with make(5, 8, verify_after=60.0) as pool:
        pool.wait(10)
        eventually(lambda: is_whole(pool, 5))
        links = [link.number for link in proxy.links()]
        old = database.pids()
        rules = [proxy.on(PING, Hold(), link=number) for number in links[1:]]
        proxy.cut(fatal("57P01"), link=links[0])
        eventually(lambda: sum(rule.hits for rule in rules) == 4)
        assert states(pool)["testing"] == 4
        # Nobody gets one that has not answered yet.
        with pool.connection() as conn:
            assert conn.info.backend_pid not in old
        for rule in rules:
            rule.release()
        eventually(lambda: at_rest(pool) >= 5)
        assert len(old & database.pids()) == 4
        assert sum(cuts(pool).values()) == 1


def test_a_connection_lent_at_the_time_is_tested_when_it_returns(
    make: Any, proxy: FaultProxy
) -> None:
    with make(2) as pool:
        pool.wait(10)
        with pool.connection() as conn:
            kept = proxy.find(backend_pid=conn.info.backend_pid)
            (other,) = {link.number for link in proxy.links()} - {kept}
            pings = Pings(proxy)
            proxy.cut(fatal("57P01"), link=other)
            eventually(lambda: cuts(pool))
            assert scalar(conn, "select 1") == 1
            assert not pings.counts[kept]
        eventually(lambda: pings.counts[kept] == 1)
        eventually(lambda: is_whole(pool, 2))


def test_an_idle_session_timeout_of_one_says_nothing_about_its_siblings(
    make: Any, proxy: FaultProxy
) -> None:
    with make(3) as pool:
        pool.wait(10)
        eventually(lambda: is_whole(pool, 3))
        pings = Pings(proxy)
        proxy.cut(fatal("57P05"), link=proxy.links()[0].number)
        eventually(lambda: cuts(pool) and is_whole(pool, 3))
        assert not pings.counts


def test_after_a_suspend_all_connections_are_tested_before_they_are_lent(
    make: Any, proxy: FaultProxy, database: Database, monkeypatch: Any, caplog: Any
) -> None:
    caplog.set_level("WARNING")
    with make(4, 8, verify_after=60.0, keepalive=1000.0) as pool:
        pool.wait(10)
        eventually(lambda: is_whole(pool, 4))
        old = database.pids()
        links = [link.number for link in proxy.links()]
        rules = [proxy.on(PING, Hold(), link=number) for number in links]
        asleep = clock._suspended() + 600.0
        monkeypatch.setattr(clock, "_suspended", lambda: asleep)
        # The background looks at the clock at its next turn, which something that happens brings.
        proxy.inject(b"", link=links[0])
        pool._background.alarm(monotonic())
        eventually(lambda: sum(rule.hits for rule in rules) == 4)
        with pool.connection() as conn:
            assert conn.info.backend_pid not in old
        for rule in rules:
            rule.release()
        eventually(lambda: at_rest(pool) >= 4)
        assert old <= database.pids()  # nobody is killed for the machine's sleep
        assert "suspended for 600.0 s" in caplog.text
        assert not cuts(pool)


@pytest.mark.alone
def test_a_caller_right_after_a_suspend_gets_no_connection_that_was_not_tested(
    make: Any, proxy: FaultProxy, database: Database, monkeypatch: Any
) -> None:
    with make(3, keepalive=1000.0) as pool:
        pool.wait(10)
        eventually(lambda: is_whole(pool, 3))
        sleep(0.6)
        proxy.cut(SILENCE)  # forgotten by the way, while the machine slept
        asleep = clock._suspended() + 3600.0
        monkeypatch.setattr(clock, "_suspended", lambda: asleep)
        _, waited = request(pool)
        assert waited < 0.5
        eventually(lambda: is_whole(pool, 3))


def test_check_replaces_what_does_not_answer_and_keeps_the_rest(
    make: Any, proxy: FaultProxy, database: Database
) -> None:
    with make(3) as pool:
        pool.wait(10)
        eventually(lambda: is_whole(pool, 3))
        old = database.pids()
        proxy.cut(SILENCE, link=proxy.links()[1].number)
        pool.check()
        eventually(lambda: cuts(pool) == {"silence": 1})
        eventually(lambda: is_whole(pool, 3))
        assert len(old & {link.backend_pid for link in proxy.links()}) == 2


def test_without_proof_silence_is_not_death_for_ten_seconds(
    make: Any, proxy: FaultProxy, database: Database
) -> None:
    """A server that stalls must not find its whole pool reconnecting."""
    with make(2, 4) as pool:
        pool.wait(10)
        eventually(lambda: is_whole(pool, 2))
        old = database.pids()
        rules = [proxy.on(PING, Drop(), link=link.number) for link in proxy.links()]
        proxy.hang()
        pool.check()
        eventually(lambda: states(pool)["suspect"] == 2)
        sleep(2)
        assert states(pool)["suspect"] == 2
        assert not cuts(pool)
        assert database.pids() == old
        assert all(rule.hits for rule in rules)
        proxy.heal()
