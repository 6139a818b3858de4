"""Settings are checked when the pool is made; TCP settings reach the connections, and yield to the user's own."""

from __future__ import annotations

from math import inf, nan
from pathlib import Path
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from everpool import AsyncConnectionPool
from everpool.conninfo import prepare, tcp_settings
from everpool.core.policy import Policy
from everpool.lab import PostgresServer
from tests.aio.defences.measure import is_whole
from tests.support.aio import eventually

pytestmark = pytest.mark.anyio

TCP_SETTINGS = {name: str(value) for name, value in tcp_settings(Policy()).items()}

SECONDS = [
    "timeout",
    "max_lifetime",
    "max_idle",
    "reconnect_timeout",
    "keepalive",
    "verify_after",
    "peek_after",
    "connect_timeout",
    "callback_timeout",
]
COUNTS = ["min_size", "max_size", "max_waiting", "num_workers", "max_connecting"]


def build(**settings: Any) -> Any:
    return AsyncConnectionPool("dbname=x", open=False, **settings)


@pytest.mark.parametrize("name", SECONDS)
@pytest.mark.parametrize("value", [-1, -0.5, nan])
async def test_a_time_out_of_range_is_refused_by_name_and_range(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"{name} must be (at least|more than) 0, not {value}"):
        build(**{name: value})


@pytest.mark.parametrize("name", ["keepalive", "connect_timeout", "callback_timeout"])
async def test_a_time_of_zero_is_refused_where_it_makes_no_sense(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be more than 0, not 0"):
        build(**{name: 0})


@pytest.mark.parametrize("name", SECONDS)
@pytest.mark.parametrize("value", ["5", True, object(), [1]], ids=["text", "bool", "any", "list"])
async def test_a_time_of_the_wrong_kind_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=f"{name} must be a number of seconds, not "):
        build(**{name: value})


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("value", ["5", 2.5, True], ids=["text", "fraction", "bool"])
async def test_a_count_of_the_wrong_kind_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=f"{name} must be a whole number, not "):
        build(**{name: value})


@pytest.mark.parametrize("name", COUNTS)
async def test_a_count_below_zero_is_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least [01], not -1"):
        build(**{name: -1})


@pytest.mark.parametrize("name", ["watch", "tcp_settings"])
async def test_a_switch_takes_true_and_false_only(name: str) -> None:
    with pytest.raises(TypeError, match=f"{name} must be True or False, not 1"):
        build(**{name: 1})


async def test_an_unknown_setting_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="max_idel"):
        build(max_idel=3)


async def test_two_explicit_settings_must_not_contradict_each_other() -> None:
    with pytest.raises(ValueError, match=r"keepalive=60.* max_lifetime=50"):
        build(keepalive=60, max_lifetime=50)
    with pytest.raises(ValueError, match="max_size must be greater or equal"):
        build(min_size=5, max_size=4)


async def test_a_default_yields_to_what_was_set() -> None:
    build(max_lifetime=20)
    build(keepalive=5000)
    build(keepalive=inf, max_lifetime=20)


@pytest.mark.parametrize("name", [name for name in SECONDS if name != "connect_timeout"])
async def test_infinity_switches_off(name: str) -> None:
    build(**{name: inf})


async def test_settings_changed_later_are_checked_too() -> None:
    pool = build()
    with pytest.raises(ValueError, match="max_idle must be at least 0"):
        pool.max_idle = -1
    with pytest.raises(TypeError, match="timeout must be a number"):
        pool.timeout = "soon"
    assert pool.max_idle == 600


# -- TCP settings ------------------------------------------------------------------------------


def parameters(conn: Any) -> dict[str, str]:
    found = conn.info.get_parameters()
    return {name: found[name] for name in TCP_SETTINGS if name in found}


async def test_connections_carry_the_tcp_settings_and_a_connect_timeout(
    make: Any, server: PostgresServer
) -> None:
    async with make(1, conninfo=server.conninfo) as pool:
        async with pool.connection() as conn:
            assert parameters(conn) == TCP_SETTINGS
            assert conn.info.get_parameters()["connect_timeout"] == "10"


async def test_the_users_objects_are_not_written_to(make: Any, server: PostgresServer) -> None:
    kwargs: dict[str, Any] = {"autocommit": True}
    async with make(1, conninfo=server.conninfo, kwargs=kwargs) as pool:
        await pool.wait(10)
        assert pool.conninfo == server.conninfo
        assert pool.kwargs is kwargs
        assert kwargs == {"autocommit": True}


async def test_what_the_conninfo_sets_stays(make: Any, server: PostgresServer) -> None:
    conninfo = make_conninfo(server.conninfo, keepalives_idle=7, connect_timeout=5)
    async with make(1, conninfo=conninfo) as pool:
        async with pool.connection() as conn:
            assert parameters(conn) == {**TCP_SETTINGS, "keepalives_idle": "7"}
            assert conn.info.get_parameters()["connect_timeout"] == "5"


async def test_what_the_keyword_arguments_set_stays(make: Any, server: PostgresServer) -> None:
    kwargs = {"tcp_user_timeout": 9000}
    async with make(1, conninfo=server.conninfo, kwargs=kwargs) as pool:
        async with pool.connection() as conn:
            assert parameters(conn) == {**TCP_SETTINGS, "tcp_user_timeout": "9000"}


async def test_what_the_environment_sets_stays(
    make: Any, server: PostgresServer, monkeypatch: Any
) -> None:
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "4")
    async with make(1, conninfo=server.conninfo) as pool:
        async with pool.connection() as conn:
            found = conn.info.get_parameters()
            assert found.get("connect_timeout", "4") == "4"


@pytest.mark.parametrize("named_by", ["conninfo", "environment"])
async def test_what_a_service_file_sets_stays(
    make: Any, server: PostgresServer, monkeypatch: Any, tmp_path: Path, named_by: str
) -> None:
    service = tmp_path / "service.conf"
    service.write_text("[here]\nkeepalives_count=8\nconnect_timeout=6\n")
    monkeypatch.setenv("PGSERVICEFILE", str(service))
    conninfo = server.conninfo
    if named_by == "conninfo":
        conninfo += " service=here"
    else:
        monkeypatch.setenv("PGSERVICE", "here")
    async with make(1, conninfo=conninfo) as pool:
        async with pool.connection() as conn:
            assert parameters(conn)["keepalives_count"] == "8"
            assert parameters(conn)["keepalives_idle"] == "30"
            assert conn.info.get_parameters()["connect_timeout"] == "6"


async def test_without_tcp_settings_none_are_added(make: Any, server: PostgresServer) -> None:
    async with make(1, conninfo=server.conninfo, tcp_settings=False) as pool:
        async with pool.connection() as conn:
            assert not parameters(conn)
        await eventually(lambda: is_whole(pool, 1))


@pytest.mark.parametrize("conninfo", ["", "host=/run/postgresql", "host=/tmp,@abstract"])
async def test_unix_sockets_get_no_tcp_settings(conninfo: str, monkeypatch: Any) -> None:
    monkeypatch.delenv("PGHOST", raising=False)
    found = conninfo_to_dict(prepare(conninfo, {}, Policy()))
    assert not set(found) & set(TCP_SETTINGS)


@pytest.mark.parametrize(
    "conninfo", ["host=example.org", "hostaddr=10.0.0.1", "host=/tmp,example.org"]
)
async def test_everything_else_gets_them(conninfo: str) -> None:
    found = conninfo_to_dict(prepare(conninfo, {}, Policy()))
    assert set(TCP_SETTINGS) <= set(found)


async def test_keepalives_switched_off_stay_off() -> None:
    found = conninfo_to_dict(prepare("host=example.org keepalives=0", {}, Policy()))
    assert not set(found) & set(TCP_SETTINGS)
