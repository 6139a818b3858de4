# Generated from tests/aio/defences/test_mass_death.py by `python tools/async_to_sync.py`.
# Do not edit: change that file and run `make generate`.

"""All idle connections are cut, and nobody notices."""

from __future__ import annotations

from time import monotonic
from typing import Any

import pytest

from everpool.lab import FIN, RST, SILENCE, FaultProxy, Style, fatal
from tests.support.database import Database
from tests.support.threads import eventually, gather, sleep, spawn
from tests.sync.defences.measure import at_rest, bare_connect, is_whole, request, states

SIZE = 20
LATENCY = 0.05
CUTS = [FIN, RST, fatal("57P01"), fatal("57P05")]


@pytest.mark.parametrize("noticed", [False, True], ids=["call at once", "call when noticed"])
@pytest.mark.parametrize("style", CUTS, ids=str)
def test_twenty_idle_connections_cut_at_once_cost_no_caller_an_error_and_the_first_little_time(
    make: Any, proxy: FaultProxy, dsn: str, style: Style, noticed: bool, figure: Any
) -> None:
    with make(SIZE) as pool:
        pool.wait(10)
        proxy.latency(LATENCY)
        bare = bare_connect(dsn)
        # What is lent within verify_after of a word from the server is lent unasked.
        sleep(0.5)
        assert proxy.cut(style) == SIZE
        if noticed:
            eventually(lambda: at_rest(pool) == 0, every=0.001)
        callers = [spawn(request, pool) for _ in range(SIZE)]
        _, first = gather(*callers)[0]
        figure("first caller, in bare connects", first / bare, 2)
        eventually(lambda: is_whole(pool, SIZE))


def test_twenty_silenced_connections_cost_no_caller_an_error_and_are_all_replaced_in_a_second(
    make: Any, proxy: FaultProxy, database: Database, figure: Any
) -> None:
    with make(SIZE) as pool:
        pool.wait(10)
        eventually(lambda: is_whole(pool, SIZE))
        old = {link.number for link in proxy.links()}
        sleep(0.6)
        assert proxy.cut(SILENCE) == SIZE
        start = monotonic()
        callers = [spawn(request, pool) for _ in range(SIZE)]
        _, first = gather(*callers)[0]
        figure("first caller, s", first, 0.5)
        eventually(lambda: states(pool)["idle"] == SIZE, every=0.001)
        took = monotonic() - start
        figure("all replaced, s", took, 1)
        new = {link.number for link in proxy.links() if link.state == "open"}
        assert len(new) == SIZE
        assert not new & old
        eventually(lambda: is_whole(pool, SIZE))


def test_one_caller_who_meets_silence_has_all_silent_connections_replaced(
    make: Any, proxy: FaultProxy, figure: Any
) -> None:
    with make(SIZE) as pool:
        pool.wait(10)
        eventually(lambda: is_whole(pool, SIZE))
        old = {link.number for link in proxy.links()}
        sleep(0.6)
        proxy.cut(SILENCE)
        start = monotonic()
        _, first = request(pool)
        figure("first caller, s", first, 0.5)
        eventually(
            lambda: not old & {link.number for link in proxy.links()} and at_rest(pool) == SIZE,
            every=0.001,
        )
        took = monotonic() - start
        figure("all replaced, s", took, 1)


@pytest.mark.parametrize("style", [FIN, RST, fatal("57P05"), SILENCE], ids=str)
def test_an_idle_cut_every_second_is_never_seen_by_requests(
    make: Any, proxy: FaultProxy, dsn: str, style: Style, figure: Any
) -> None:
    latency, rounds = 0.02, 3
    with make(SIZE) as pool:
        pool.wait(10)
        proxy.latency(latency)
        bare = bare_connect(dsn)
        proxy.idle_cut(1.0, style)
        slowest = 0.0
        for _ in range(rounds):
            sleep(1.5)
            start = monotonic()
            request(pool)
            slowest = max(slowest, monotonic() - start)
        assert len(proxy.stats().cuts) >= rounds * SIZE / 2
        most = 0.6 if style is SILENCE else 2 * bare
        figure("slowest request, s", slowest, most)
