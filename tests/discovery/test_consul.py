"""Consul, by a stand-in for its agent: no real one can be had here."""

from __future__ import annotations

import json
import logging
from time import monotonic
from typing import Any

import pytest

from everpool import ConnectionPool
from everpool.core.health import Status
from everpool.discovery import Consul, Instance, Registrar
from everpool.discovery.instance import Report
from everpool.lab import PostgresServer
from tests.discovery.consul_agent import ConsulAgent
from tests.support.threads import eventually


def test_registered_with_a_ttl_check_and_taken_back(
    agent: ConsulAgent, orders: Instance, pool: ConnectionPool
) -> None:
    with Registrar(Consul(agent.url, ttl=15), orders, pool) as registrar:
        eventually(lambda: registrar.standing.registered)
        assert agent.status(orders.id) == "passing"
        service = agent.services[orders.id]
        assert (service["Name"], service["Address"], service["Port"]) == (
            "orders",
            "10.0.0.7",
            8000,
        )
        assert service["Check"]["TTL"] == "15000ms"
        assert service["Check"]["DeregisterCriticalServiceAfter"] == "600000ms"
        assert registrar.standing.status == "pass"
        assert registrar.standing.told_ago < 5
    assert agent.services == {}
    assert not registrar.standing.registered


@pytest.mark.parametrize(("warn", "word"), [("warning", "warning"), ("passing", "passing")])
def test_a_warning_is_what_was_chosen_and_a_closed_pool_is_withdrawn(
    agent: ConsulAgent, orders: Instance, pool: ConnectionPool, warn: Any, word: str
) -> None:
    with Registrar(Consul(agent.url, warn=warn), orders, pool) as registrar:
        eventually(lambda: registrar.standing.registered)
        began = monotonic()
        pool.pause()
        eventually(lambda: registrar.standing.status == "warn")
        assert monotonic() - began < 1.5
        assert agent.status(orders.id) == word
        assert agent.check(orders.id).output == "the pool is paused"  # type: ignore[union-attr]
        pool.close()
        eventually(lambda: agent.services == {})


def test_a_pool_that_is_not_open_yet_is_critical_and_then_passing(
    agent: ConsulAgent, orders: Instance, server: PostgresServer
) -> None:
    pool = ConnectionPool(server.dsn, min_size=1, open=False)
    with Registrar(Consul(agent.url), orders, pool) as registrar:
        eventually(lambda: registrar.standing.registered)
        assert agent.status(orders.id) == "critical"
        with pool:
            eventually(lambda: agent.status(orders.id) == "passing")


def test_the_worst_of_several_pools_counts(
    agent: ConsulAgent, orders: Instance, pool: ConnectionPool
) -> None:
    unopened = ConnectionPool(open=False)
    with Registrar(Consul(agent.url), orders, pool, unopened) as registrar:
        eventually(lambda: registrar.standing.registered)
        assert agent.status(orders.id) == "critical"


def test_the_check_is_kept_from_expiring(
    agent: ConsulAgent, orders: Instance, pool: ConnectionPool
) -> None:
    with Registrar(Consul(agent.url, ttl=1), orders, pool) as registrar:
        eventually(lambda: registrar.standing.registered)
        began = len(agent.requests)
        eventually(lambda: len(agent.requests) >= began + 9)
        check = agent.check(orders.id)
        assert check is not None
        assert check.history == ["passing"]
        times = [request.at for request in agent.requests[began:]]
        assert (times[-1] - times[0]) / (len(times) - 1) > 0.24


def test_without_reports_it_is_critical_and_then_gone(agent: ConsulAgent, orders: Instance) -> None:
    """The stand-in itself: what a process that was killed leaves behind."""
    entry = Consul(agent.url, ttl=15).entry(orders)
    entry.register(Report(Status.PASS, "ready", 0.0))
    agent.pass_time(14)
    assert agent.status(orders.id) == "passing"
    agent.pass_time(2)
    assert agent.status(orders.id) == "critical"
    agent.pass_time(600)
    assert agent.status(orders.id) is None


@pytest.mark.parametrize("old", [False, True], ids=["404", "500"])
def test_registered_anew_when_the_agent_forgot(
    orders: Instance, pool: ConnectionPool, old: bool
) -> None:
    with ConsulAgent(old=old) as agent:
        with Registrar(Consul(agent.url, ttl=1.5), orders, pool) as registrar:
            eventually(lambda: registrar.standing.registered)
            agent.wipe()
            eventually(lambda: agent.status(orders.id) == "passing", timeout=2)
            agent.wipe()  # and is not missed at the end either
        assert not registrar.standing.registered
        assert registrar.standing.error == ""


def test_an_agent_that_knew_a_dead_instance_tells_of_the_living_one(
    agent: ConsulAgent, orders: Instance, pool: ConnectionPool
) -> None:
    """A new definition of a check leaves its old status; see the agent's source."""
    with Registrar(Consul(agent.url), orders, pool) as registrar:
        eventually(lambda: registrar.standing.registered)
        agent.pass_time(20)
        assert agent.status(orders.id) == "critical"
        with Registrar(Consul(agent.url), orders, pool) as second:
            eventually(lambda: second.standing.registered)
            assert agent.status(orders.id) == "passing"


def test_an_agent_that_is_away_is_waited_for(
    agent: ConsulAgent, orders: Instance, pool: ConnectionPool, caplog: Any
) -> None:
    caplog.set_level(logging.INFO, "everpool.discovery")
    agent.down()
    with Registrar(Consul(agent.url, ttl=3), orders, pool) as registrar:
        eventually(lambda: registrar.standing.failures >= 3)
        assert not registrar.standing.registered
        assert registrar.standing.error == "Connection refused"
        agent.up()
        eventually(lambda: agent.status(orders.id) == "passing")
        eventually(lambda: registrar.standing.registered)
        assert registrar.standing.failures == 0
    refused = [r for r in caplog.records if "Connection refused" in r.getMessage()]
    assert len(refused) == 1  # however often it was tried


def test_the_token_is_sent_and_never_shown(
    orders: Instance, pool: ConnectionPool, caplog: Any
) -> None:
    caplog.set_level(logging.DEBUG)
    with ConsulAgent(token="hunter2") as agent:
        with Registrar(Consul(agent.url, token="hunter2"), orders, pool) as registrar:
            eventually(lambda: registrar.standing.registered)
        with Registrar(Consul(agent.url, token="hunter3"), orders, pool) as registrar:
            eventually(lambda: registrar.standing.failures)
            assert registrar.standing.error == "HTTP 403: Permission denied"
        agent.echo = True  # an agent that babbles
        with Registrar(Consul(agent.url, token="hunter2"), orders, pool) as registrar:
            eventually(lambda: registrar.standing.failures)
            assert "***" in registrar.standing.error
            assert len(registrar.standing.error) < 250
    for shown in (caplog.text, str(registrar.standing), repr(vars(registrar))):
        assert "hunter" not in shown


def test_neither_proxies_nor_redirects_get_the_token(
    agent: ConsulAgent, orders: Instance, pool: ConnectionPool, monkeypatch: Any
) -> None:
    with ConsulAgent() as elsewhere:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, elsewhere.url)
        monkeypatch.setenv("no_proxy", "")
        agent.redirect_to = elsewhere.url
        with Registrar(Consul(agent.url, token="hunter2"), orders, pool) as registrar:
            eventually(lambda: registrar.standing.failures)
            assert registrar.standing.error.startswith("HTTP 307")
        assert agent.requests
        assert elsewhere.requests == []


def test_nothing_is_told_that_is_nobodys_business(
    agent: ConsulAgent, orders: Instance, server: PostgresServer
) -> None:
    with ConnectionPool(
        "host=127.0.0.1 port=1 user=alice password=hunter2 dbname=secrets", min_size=1
    ) as pool:
        with Registrar(Consul(agent.url), orders, pool, by="health") as registrar:
            eventually(lambda: registrar.standing.status == "fail")
        told = "".join(request.body for request in agent.requests)
        assert "cannot be reached" in told
        for part in ("127.0.0.1", "alice", "hunter2", "secrets", server.dsn):
            assert part not in told
        outputs = [json.loads(r.body)["Output"] for r in agent.requests if "check" in r.path]
        assert all(len(output) <= 200 for output in outputs)
