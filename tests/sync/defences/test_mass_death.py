# Generated from tests/aio/defences/test_mass_death.py by `python tools/async_to_sync.py`.
# Do not edit: change that file and run `make generate`.

"""All idle connections are cut, and nobody notices."""

from __future__ import annotations

import os
from time import monotonic
from typing import Any

import pytest

from everpool.lab import FIN, RST, SILENCE, FaultProxy, Style, fatal
from tests.support.threads import eventually, gather, sleep, spawn
from tests.sync.defences.measure import at_rest, bare_connect, best_of, is_whole, request

SIZE = 20
LATENCY = 0.05
LONG = os.environ.get("EVERPOOL_TEST_LONG") == "1"
CUTS = [FIN, RST, fatal("57P01"), fatal("57P05")]


@pytest.mark.parametrize("noticed", [False, True], ids=["call at once", "call when noticed"])
@pytest.mark.parametrize("style", CUTS, ids=str)
def test_twenty_idle_connections_cut_at_once_cost_no_error_and_little_time(
    make: Any, proxy: FaultProxy, dsn: str, style: Style, noticed: bool, figure: Any
) -> None:
    with make(SIZE) as pool:
        pool.wait(10)

        def first_caller() -> float:
            bare = bare_connect(dsn)
            eventually(lambda: is_whole(pool, SIZE))
            # What is lent within verify_after of a word from the server is lent unasked.
            sleep(0.5)
            assert proxy.cut(style) == SIZE
            if noticed:
                eventually(lambda: at_rest(pool) == 0, every=0.001)
            callers = [spawn(request, pool) for _ in range(SIZE)]
            _, first = gather(*callers)[0]
            return first / bare

        proxy.latency(LATENCY)
        figure("first caller, in bare connects", best_of(first_caller, 2), 2)
        eventually(lambda: is_whole(pool, SIZE))


@pytest.mark.parametrize("callers", [1, SIZE])
def test_twenty_silenced_connections_cost_no_error_and_are_all_replaced_in_a_second(
    make: Any, proxy: FaultProxy, callers: int, figure: Any
) -> None:
    with make(SIZE) as pool:
        pool.wait(10)
        firsts: list[float] = []

        def until_replaced() -> float:
            eventually(lambda: is_whole(pool, SIZE))
            sleep(0.6)
            old = {link.number for link in proxy.links()}
            assert proxy.cut(SILENCE) == SIZE
            start = monotonic()
            results = gather(*[spawn(request, pool) for _ in range(callers)])
            firsts.append(results[0][1])
            eventually(
                lambda: at_rest(pool) == SIZE and not old & {link.number for link in proxy.links()},
                every=0.001,
            )
            return monotonic() - start

        figure("all replaced, s", best_of(until_replaced, 1), 1)
        figure("first caller, s", min(firsts), 0.5)
        eventually(lambda: is_whole(pool, SIZE))


@pytest.mark.parametrize("style", [FIN, RST, fatal("57P05"), SILENCE], ids=str)
def test_requests_never_see_an_idle_cut_every_second(
    make: Any, proxy: FaultProxy, dsn: str, style: Style, figure: Any
) -> None:
    rounds = 3 if LONG else 2
    with make(SIZE) as pool:
        pool.wait(10)
        proxy.latency(0.02)
        bare = bare_connect(dsn)
        proxy.idle_cut(1.0, style)

        def slowest() -> float:
            took = 0.0
            for _ in range(rounds):
                sleep(1.5)
                start = monotonic()
                request(pool)
                took = max(took, monotonic() - start)
            return took

        most = 0.6 if style is SILENCE else 2 * bare
        figure("slowest request, s", best_of(slowest, most), most)
        assert len(proxy.stats().cuts) >= rounds * SIZE / 2
