"""Surveys of what people really have on their path, with small timeouts."""

from __future__ import annotations

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest

from everpool.lab import PostgresServer
from everpool.lab.ports import free_port
from everpool.survey.findings import find
from everpool.survey.observation import Limits
from everpool.survey.run import Result, survey
from everpool.survey.words import findings as in_words

from ..support.programs.haproxy import haproxy
from ..support.programs.pgbouncer import pgbouncer

LIMITS = Limits(connections=8, max_idle=3.6, budget=30.0)


def surveyed(dsn: str) -> Result:
    result = asyncio.run(survey(dsn, LIMITS, ping_limit=1.0))
    assert result.complete
    return result


def test_haproxy_counts_bytes_and_says_nothing(server: PostgresServer) -> None:
    port = free_port("127.0.0.1")
    config = f"""
defaults
    mode tcp
    timeout connect 2s
    timeout client 2s
    timeout server 2s
listen postgres
    bind 127.0.0.1:{port}
    server one {server.host}:{server.port}
"""
    with haproxy(config):
        result = surveyed(f"host=127.0.0.1 port={port} user=postgres dbname=postgres")
    found = find(result.observations, LIMITS)
    assert found.idle is not None
    assert found.idle.value == pytest.approx(2.0, rel=0.1)
    assert found.idle.figure == 2.0
    assert found.idle.kill == "fin"
    assert found.activity == "bytes"
    assert found.age is None
    assert not result.facts.pooler


def test_pgbouncer_says_why(server: PostgresServer) -> None:
    with pgbouncer(server.dsn, "transaction", {"client_idle_timeout": 2}) as pooler:
        result = surveyed(pooler.dsn)
    found = find(result.observations, LIMITS)
    assert found.idle is not None
    # It looks at its clocks three times a second, and then all that are late end together.
    assert 1.9 < found.idle.least <= found.idle.most < 2.0 + 0.34 + 0.2
    assert found.idle.kill == "fatal"
    assert (found.idle.sqlstate, found.idle.text) == ("08P01", "client_idle_timeout")
    assert found.activity == "bytes"
    assert found.age is None
    assert result.facts.pooler


@pytest.mark.alone
def test_a_unix_socket_has_no_keepalives() -> None:
    with TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o777)  # the server may run as somebody else
        settings = {"unix_socket_directories": folder, "idle_session_timeout": "1s"}
        with PostgresServer(settings) as server:
            limits = Limits(connections=6, max_idle=1.5)
            dsn = f"host={folder} port={server.port} user=postgres dbname=postgres"
            result = asyncio.run(survey(dsn, limits))
    found = find(result.observations, limits)
    assert result.complete
    assert {o.kind for o in result.observations} == {"idle", "busy"}
    assert found.idle is not None
    assert found.idle.value == pytest.approx(1.0, rel=0.1)
    assert found.idle.sqlstate == "57P05"
    assert (result.facts.unix, result.facts.addresses) == (True, None)
    assert not [line for line in in_words(found, result) if "keepalives" in line]


def test_the_server_itself(server: PostgresServer) -> None:
    with psycopg.connect(server.dsn, autocommit=True) as admin:
        admin.execute("ALTER DATABASE postgres SET idle_session_timeout = '2s'")
        try:
            result = surveyed(server.dsn)
        finally:
            admin.execute("ALTER DATABASE postgres RESET idle_session_timeout")
    found = find(result.observations, LIMITS)
    assert found.idle is not None
    assert found.idle.value == pytest.approx(2.0, rel=0.1)
    assert (found.idle.kill, found.idle.sqlstate) == ("fatal", "57P05")
    assert found.activity == "bytes"
    assert found.age is None
    facts = result.facts
    assert facts.settings["idle_session_timeout"] == "2s"
    assert (facts.role, facts.unix, facts.tls, facts.pooler) == ("primary", False, False, False)
    assert "That is the server's own idle_session_timeout = 2s." in in_words(found, result)
