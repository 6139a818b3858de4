"""What the constructor takes, refuses and shows."""

from __future__ import annotations

import re
from typing import Any

import psycopg
import psycopg_pool
import pytest

pytestmark = pytest.mark.anyio


async def test_a_pool_without_arguments_has_the_documented_defaults(module: Any) -> None:
    pool = module.AsyncConnectionPool(open=False)
    assert (pool.min_size, pool.max_size) == (4, 4)
    assert pool.timeout == 30.0
    assert pool.max_waiting == 0
    assert pool.max_lifetime == 3600.0
    assert pool.max_idle == 600.0
    assert pool.reconnect_timeout == 300.0
    assert pool.num_workers == 3
    assert pool.close_returns is False
    assert pool.closed is True


async def test_a_null_pool_without_arguments_is_unbounded(module: Any) -> None:
    pool = module.AsyncNullConnectionPool(open=False)
    assert (pool.min_size, pool.max_size) == (0, 0)


@pytest.mark.parametrize(
    ("min_size", "max_size", "shown"),
    [(2, None, (2, 2)), (2, 2, (2, 2)), (2, 5, (2, 5)), (0, 3, (0, 3)), (1, 100, (1, 100))],
)
async def test_sizes_are_taken_as_given(
    make: Any, min_size: int, max_size: int | None, shown: tuple[int, int]
) -> None:
    pool = make(min_size, max_size)
    assert (pool.min_size, pool.max_size) == shown


@pytest.mark.parametrize(("min_size", "max_size"), [(-1, None), (-1, 2), (3, 2), (0, 0), (0, None)])
async def test_impossible_sizes_are_refused(make: Any, min_size: int, max_size: int | None) -> None:
    with pytest.raises(ValueError, match="min_size|max_size"):
        make.cls(make.dsn, min_size=min_size, max_size=max_size, open=False)


@pytest.mark.parametrize(("min_size", "max_size"), [(1, None), (1, 1), (1, 5), (0, -1)])
async def test_impossible_sizes_are_refused_by_null_pools(
    make_null: Any, min_size: int, max_size: int | None
) -> None:
    with pytest.raises(ValueError, match="min_size|max_size"):
        make_null.cls(make_null.dsn, min_size=min_size, max_size=max_size, open=False)


@pytest.mark.parametrize("num_workers", [0, -1])
async def test_at_least_one_worker_is_asked_for(make_any: Any, num_workers: int) -> None:
    with pytest.raises(ValueError, match="num_workers"):
        make_any(num_workers=num_workers)
    assert make_any(num_workers=1).num_workers == 1


async def test_the_pool_takes_its_conninfo_by_position_and_all_else_by_name(make_any: Any) -> None:
    assert make_any.cls("dbname=x", open=False).conninfo == "dbname=x"
    with pytest.raises(TypeError):
        make_any.cls("dbname=x", psycopg.AsyncConnection)


async def test_settings_can_be_read_back_from_the_attributes_they_are_named_after(
    make_any: Any,
) -> None:
    kwargs = {"autocommit": True}
    pool = make_any(
        kwargs=kwargs,
        name="readable",
        timeout=1.5,
        max_waiting=7,
        max_lifetime=100.0,
        max_idle=50.0,
        reconnect_timeout=20.0,
        num_workers=2,
    )
    assert pool.conninfo == make_any.dsn
    assert pool.kwargs is kwargs
    assert pool.connection_class is psycopg.AsyncConnection
    assert pool.name == "readable"
    assert pool.timeout == 1.5
    assert pool.max_waiting == 7
    assert pool.max_lifetime == 100.0
    assert pool.max_idle == 50.0
    assert pool.reconnect_timeout == 20.0
    assert pool.num_workers == 2


async def test_pools_without_a_name_get_a_sequential_one(make_any: Any) -> None:
    names = [make_any().name for _ in range(3)]
    numbers = []
    for name in names:
        match = re.fullmatch(r"pool-(\d+)", name)
        assert match, name
        numbers.append(int(match[1]))
    assert numbers == [numbers[0], numbers[0] + 1, numbers[0] + 2]


async def test_the_repr_shows_class_and_name(make_any: Any) -> None:
    text = repr(make_any(name="brisk"))
    assert make_any.cls.__name__ in text
    assert "'brisk'" in text


async def test_the_repr_and_the_errors_keep_the_password(make_any: Any) -> None:
    pool = make_any(conninfo="host=127.0.0.1 password=sesame", name="secretive")
    assert "sesame" not in repr(pool)
    with pytest.raises(psycopg_pool.PoolClosed) as caught:
        await pool.getconn()
    assert "sesame" not in str(caught.value)


async def test_a_pool_is_an_instance_of_psycopgs_class(make_any: Any) -> None:
    pool = make_any()
    assert isinstance(pool, psycopg_pool.AsyncConnectionPool)
    assert isinstance(pool, psycopg_pool.AsyncNullConnectionPool) is make_any.null


async def test_a_pool_that_was_never_opened_can_be_closed_and_dropped(make_any: Any) -> None:
    pool = make_any()
    await pool.close()
    assert pool.closed
    del pool


async def test_infinite_times_are_allowed(make: Any) -> None:
    async with make(max_lifetime=float("inf")) as pool:
        async with pool.connection(timeout=5) as conn:
            await conn.execute("select 1")
