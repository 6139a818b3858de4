"""Connections at rest are kept alive, and leave when they are old, without anybody's help."""

from __future__ import annotations

from time import monotonic
from typing import Any

import pytest

from everpool.lab import FIN, FaultProxy
from tests.aio.defences.measure import Pings, at_rest, cuts, is_whole, request
from tests.support.aio import eventually, sleep
from tests.support.database import Database

pytestmark = pytest.mark.anyio


@pytest.mark.alone
async def test_keepalives_reach_every_idle_connection_in_each_interval_so_that_none_is_cut(
    make: Any, proxy: FaultProxy
) -> None:
    # One after the other, twenty pings would take four seconds here.
    proxy.latency(0.1)
    async with make(20, keepalive=0.5) as pool:
        await pool.wait(10)
        await eventually(lambda: at_rest(pool) >= 10)
        pings = Pings(proxy)
        proxy.idle_cut(1.0, FIN)
        await sleep(5)
        assert not proxy.stats().cuts
        assert len(pings.counts) == 20
        # Intervals are up to a quarter shorter, and begin when the answer is in; a machine that
        # is busy elsewhere stretches them.
        assert all(4 <= count <= 14 for count in pings.counts.values()), pings.counts


async def test_requests_take_no_notice_of_keepalives(make: Any, proxy: FaultProxy) -> None:
    async with make(4, keepalive=0.1) as pool:
        await pool.wait(10)
        until = monotonic() + 1
        waits = []
        while monotonic() < until:
            waits.append((await request(pool))[1])
            await sleep(0.01)
        assert sorted(waits)[len(waits) // 2] < 0.02
        assert not cuts(pool)


async def test_without_keepalive_nothing_is_sent(make: Any, proxy: FaultProxy) -> None:
    async with make(2, keepalive=float("inf")) as pool:
        await pool.wait(10)
        await eventually(lambda: is_whole(pool, 2))
        idle = {link.number: link for link in proxy.links()}
        await sleep(0.5)
        assert all(link.idle > 0.4 for link in proxy.links())
        assert {link.number for link in proxy.links()} == set(idle)


@pytest.mark.alone
async def test_idle_connections_leave_at_the_end_of_their_lifetime_after_their_replacement_has_come(
    make: Any, proxy: FaultProxy, database: Database
) -> None:
    async with make(3, 6, max_lifetime=1.0) as pool:
        await pool.wait(10)
        await eventually(lambda: at_rest(pool) >= 3)
        old = database.pids()
        least = 3
        start = monotonic()
        while old & database.pids():
            least = min(least, at_rest(pool))
            assert monotonic() - start < 2
            await sleep(0.005)
        assert monotonic() - start < 1.3
        assert least == 3
        assert not cuts(pool)
        assert all(link.age < 1.3 for link in proxy.links())


@pytest.mark.alone
async def test_at_max_size_an_old_idle_connection_gives_its_place_one_at_a_time(
    make: Any, proxy: FaultProxy, database: Database
) -> None:
    async with make(3, 3, max_lifetime=1.0) as pool:
        await pool.wait(10)
        await eventually(lambda: is_whole(pool, 3))
        old = database.pids()
        least = 3
        start = monotonic()
        while old & database.pids():
            least = min(least, at_rest(pool))
            assert pool._machine.counted <= 3
            assert monotonic() - start < 2
            await sleep(0.002)
        assert monotonic() - start < 1.3
        assert least >= 2
        await eventually(lambda: at_rest(pool) == 3)
        assert proxy.stats().max_open <= 4  # the goodbye to one may cross the hello of the next
