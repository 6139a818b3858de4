"""All idle connections are cut, and nobody notices."""

from __future__ import annotations

import os
from time import monotonic
from typing import Any

import pytest

from everpool.lab import FIN, RST, SILENCE, FaultProxy, Style, fatal
from tests.aio.defences.measure import at_rest, bare_connect, best_of, is_whole, request
from tests.support.aio import eventually, gather, sleep, spawn

pytestmark = pytest.mark.anyio

SIZE = 20
LATENCY = 0.05
LONG = os.environ.get("EVERPOOL_TEST_LONG") == "1"
CUTS = [FIN, RST, fatal("57P01"), fatal("57P05")]


@pytest.mark.parametrize("noticed", [False, True], ids=["call at once", "call when noticed"])
@pytest.mark.parametrize("style", CUTS, ids=str)
async def test_twenty_idle_connections_cut_at_once_cost_no_error_and_little_time(
    make: Any, proxy: FaultProxy, dsn: str, style: Style, noticed: bool, figure: Any
) -> None:
    async with make(SIZE) as pool:
        await pool.wait(10)

        async def first_caller() -> float:
            bare = await bare_connect(dsn)
            await eventually(lambda: is_whole(pool, SIZE))
            # What is lent within verify_after of a word from the server is lent unasked.
            await sleep(0.5)
            assert proxy.cut(style) == SIZE
            if noticed:
                await eventually(lambda: at_rest(pool) == 0, every=0.001)
            callers = [spawn(request, pool) for _ in range(SIZE)]
            _, first = (await gather(*callers))[0]
            return first / bare

        proxy.latency(LATENCY)
        figure("first caller, in bare connects", await best_of(first_caller, 2), 2)
        await eventually(lambda: is_whole(pool, SIZE))


@pytest.mark.parametrize("callers", [1, SIZE])
async def test_twenty_silenced_connections_cost_no_error_and_are_all_replaced_in_a_second(
    make: Any, proxy: FaultProxy, callers: int, figure: Any
) -> None:
    async with make(SIZE) as pool:
        await pool.wait(10)
        firsts: list[float] = []

        async def until_replaced() -> float:
            await eventually(lambda: is_whole(pool, SIZE))
            await sleep(0.6)
            old = {link.number for link in proxy.links()}
            assert proxy.cut(SILENCE) == SIZE
            start = monotonic()
            results = await gather(*[spawn(request, pool) for _ in range(callers)])
            firsts.append(results[0][1])
            await eventually(
                lambda: at_rest(pool) == SIZE and not old & {link.number for link in proxy.links()},
                every=0.001,
            )
            return monotonic() - start

        figure("all replaced, s", await best_of(until_replaced, 1), 1)
        figure("first caller, s", min(firsts), 0.5)
        await eventually(lambda: is_whole(pool, SIZE))


@pytest.mark.parametrize("style", [FIN, RST, fatal("57P05"), SILENCE], ids=str)
async def test_requests_never_see_an_idle_cut_every_second(
    make: Any, proxy: FaultProxy, dsn: str, style: Style, figure: Any
) -> None:
    rounds = 3 if LONG else 2
    async with make(SIZE) as pool:
        await pool.wait(10)
        proxy.latency(0.02)
        bare = await bare_connect(dsn)
        proxy.idle_cut(1.0, style)

        async def slowest() -> float:
            took = 0.0
            for _ in range(rounds):
                await sleep(1.5)
                start = monotonic()
                await request(pool)
                took = max(took, monotonic() - start)
            return took

        most = 0.6 if style is SILENCE else 2 * bare
        figure("slowest request, s", await best_of(slowest, most), most)
        assert len(proxy.stats().cuts) >= rounds * SIZE / 2
