"""Real surveys through the fault proxy, with seconds for hours."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import psycopg
import pytest

from everpool.lab import FaultProxy, PostgresServer
from everpool.survey.findings import Findings, find
from everpool.survey.observation import Limits
from everpool.survey.run import Progress, Result, Unreachable, survey

from ..support.figures import Figures

# On a busy machine the last refinement may come late: the budget is not what is tested here.
LIMITS = Limits(connections=10, max_idle=4.0, budget=30.0)
PING_LIMIT = 1.0

IDLE, AGE = 2.0, 3.0
WORLDS = {"idle": (IDLE, None), "age": (None, AGE), "both": (IDLE, AGE), "none": (None, None)}


@contextmanager
def proxies(server: PostgresServer, count: int) -> Iterator[list[FaultProxy]]:
    with ExitStack() as stack:
        yield [stack.enter_context(FaultProxy(server.host, server.port)) for _ in range(count)]


async def measured(proxy: FaultProxy, server: PostgresServer) -> Result:
    return await survey(proxy.via(server.dsn), LIMITS, ping_limit=PING_LIMIT)


@pytest.mark.parametrize(
    "styles", [("fin", "silence"), ("rst", "rst-next"), ("fatal:57P05", "fatal:08P01")]
)
def test_every_style_by_idleness_by_age_by_both_and_by_neither(
    server: PostgresServer, styles: tuple[str, str], figure: Figures
) -> None:
    cases = [(style, world) for style in styles for world in WORLDS]
    with proxies(server, len(cases)) as through:
        for proxy, (style, world) in zip(through, cases, strict=True):
            idle, age = WORLDS[world]
            proxy.idle_cut(idle, style)
            proxy.age_cut(age, style)

        async def all_of_them() -> list[Result]:
            return await asyncio.gather(*(measured(proxy, server) for proxy in through))

        results = asyncio.run(all_of_them())
        for result, proxy, (style, world) in zip(results, through, cases, strict=True):
            where = f"{style} {world}"
            found = find(result.observations, LIMITS)
            idle, age = WORLDS[world]
            assert result.complete, where
            assert proxy.stats().max_open <= LIMITS.connections, where
            check(found, style, idle, age, where)
            for name, seen, real in (("idle", found.idle, idle), ("age", found.age, age)):
                if seen is not None and real is not None:
                    figure(f"survey, {where}: {name} off by", abs(seen.value / real - 1), 0.1)


def check(found: Findings, style: str, idle: float | None, age: float | None, where: str) -> None:
    kill, _, sqlstate = style.partition(":")
    assert (found.idle is None) == (idle is None), where
    assert (found.age is None) == (age is None), where
    for seen, real in ((found.idle, idle), (found.age, age)):
        if seen is not None:
            assert seen.value == pytest.approx(real, rel=0.1), where
            assert (seen.kill, seen.sqlstate) == (kill, sqlstate), where
            assert seen.count > 1, where
    if idle is None:
        assert found.idle_survived > 0.7 * min(age or LIMITS.max_idle, LIMITS.max_idle), where
    else:
        assert found.activity == "bytes", where
    if age is None:
        assert found.age_survived >= LIMITS.max_idle, where
    assert (found.restarts, found.outages, found.unexplained) == (0, 0, ()), where


def test_a_restart_is_no_cut(server: PostgresServer, proxy: FaultProxy) -> None:
    async def run() -> Result:
        task = asyncio.create_task(measured(proxy, server))
        await asyncio.sleep(1.5)
        proxy.cut("fatal:57P01")
        return await task

    result = asyncio.run(run())
    found = find(result.observations, LIMITS)
    assert (found.idle, found.age, found.restarts) == (None, None, 1)
    assert found.idle_survived > 0.9 * LIMITS.max_idle
    assert result.complete


def test_an_outage_is_no_cut(server: PostgresServer, proxy: FaultProxy) -> None:
    async def run() -> Result:
        task = asyncio.create_task(
            survey(proxy.via(server.dsn) + "?connect_timeout=2", LIMITS, ping_limit=PING_LIMIT)
        )
        await asyncio.sleep(1.5)
        proxy.silence()
        return await task

    result = asyncio.run(run())
    found = find(result.observations, LIMITS)
    assert (found.idle, found.age) == (None, None)
    assert found.outages > 0
    assert "no more connections could be opened" in result.trouble
    assert not result.complete


def test_it_goes_on_where_it_was_stopped(server: PostgresServer, proxy: FaultProxy) -> None:
    proxy.idle_cut(IDLE, "rst-next")

    async def run(earlier: Result | None, seconds: float) -> Result:
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(seconds, stop.set)
        return await survey(
            proxy.via(server.dsn), LIMITS, earlier=earlier, ping_limit=PING_LIMIT, stop=stop
        )

    first = asyncio.run(run(None, 1.6))
    assert not first.complete
    lived = find(first.observations, LIMITS).idle_survived
    assert 1.2 < lived < 1.8  # those left alone were asked in the end
    began = time.monotonic()
    second = asyncio.run(run(first, 60.0))
    assert second.complete
    assert second.seconds == pytest.approx(first.seconds + time.monotonic() - began, abs=0.5)
    check(find(second.observations, LIMITS), "rst-next", IDLE, None, "resumed")
    rests = [o.quiet for o in second.observations if o.kind == "idle" and o.began > first.seconds]
    assert min(rests) > 0.97 * lived  # nothing is measured twice
    assert proxy.stats().max_open <= LIMITS.connections


def test_the_server_has_never_more_either(server: PostgresServer, proxy: FaultProxy) -> None:
    limits = Limits(connections=5, max_idle=1.5)
    proxy.idle_cut(0.5, "rst-next")
    with psycopg.connect(server.dsn, autocommit=True) as admin:
        admin.execute(f"CREATE ROLE surveyor LOGIN CONNECTION LIMIT {limits.connections}")
        try:
            dsn = f"host={proxy.host} port={proxy.port} user=surveyor dbname=postgres"
            result = asyncio.run(survey(dsn, limits, ping_limit=PING_LIMIT))
        finally:
            admin.execute("DROP ROLE surveyor")
    assert len(result.observations) > 2 * limits.connections
    assert proxy.stats().max_open == limits.connections
    assert "too many connections" not in server.log_tail(400)


@pytest.mark.alone
def test_progress_is_told(server: PostgresServer, proxy: FaultProxy) -> None:
    told: list[Progress] = []

    async def run() -> Result:
        return await survey(proxy.via(server.dsn), Limits(4, 1.5), tell=told.append)

    result = asyncio.run(run())
    assert result.complete
    assert [p.now for p in told] == sorted(p.now for p in told)
    assert all(p.now <= p.expected <= p.latest == 4.5 for p in told)
    assert all(p.open <= 4 for p in told)
    assert told[1].expected == pytest.approx(1.5, abs=0.3)


def test_it_reads_only_what_the_server_says_of_itself(server: PostgresServer) -> None:
    with psycopg.connect(server.dsn, autocommit=True) as admin:
        admin.execute("ALTER DATABASE postgres SET log_statement = 'all'")
        try:
            asyncio.run(survey(server.dsn, Limits(4, 0.5)))
        finally:
            admin.execute("ALTER DATABASE postgres RESET log_statement")
    said = [line for line in server.log_tail(400).splitlines() if "statement: " in line]
    asked = {line.partition("statement: ")[2] for line in said if "ALTER" not in line}
    assert {"SHOW idle_session_timeout", "SELECT pg_is_in_recovery()"} <= asked
    assert all(q == "" or q.startswith(("SHOW ", "SELECT pg_")) for q in asked)


def test_nobody_there(server: PostgresServer, proxy: FaultProxy) -> None:
    proxy.refuse()
    with pytest.raises(Unreachable, match="refused"):
        asyncio.run(survey(proxy.via(server.dsn), LIMITS))


def test_a_conninfo_that_cannot_be_parsed_is_not_repeated() -> None:
    with pytest.raises(Unreachable) as refusal:
        asyncio.run(survey("host=x passwort=geheim", LIMITS))
    assert "geheim" not in str(refusal.value)
