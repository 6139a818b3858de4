"""Classes derived from the pools, as users and frameworks write them."""

from __future__ import annotations

from typing import Any, ClassVar

import psycopg_pool
import pytest
from psycopg import AsyncConnection

from tests.support.aio import eventually, scalar

pytestmark = pytest.mark.anyio


async def test_connection_goes_through_getconn_and_putconn_of_a_subclass(make_any: Any) -> None:
    log: list[Any] = []

    class Own(make_any.cls):
        async def getconn(self, timeout: float | None = None) -> Any:
            log.append(("get", timeout))
            return await super().getconn(timeout)

        async def putconn(self, conn: Any) -> None:
            log.append(("put", conn))
            await super().putconn(conn)

    make_any.cls = Own
    async with make_any() as pool:
        async with pool.connection(timeout=4.5) as conn:
            assert await scalar(conn, "select 1") == 1
            assert log == [("get", 4.5)]
        assert log == [("get", 4.5), ("put", conn)]
        log.clear()
        with pytest.raises(ZeroDivisionError):
            async with pool.connection():
                raise ZeroDivisionError
        assert [what for what, _ in log] == ["get", "put"]
        assert log[0] == ("get", None)


async def test_a_subclass_may_prepare_each_connection_it_lends(make: Any) -> None:
    class Marking(make.cls):
        async def getconn(self, timeout: float | None = None) -> Any:
            conn = await super().getconn(timeout)
            await conn.execute("set timezone = 'Asia/Tokyo'")
            await conn.commit()
            return conn

    make.cls = Marking
    async with make() as pool, pool.connection(timeout=5) as conn:
        assert await scalar(conn, "show timezone") == "Asia/Tokyo"


async def test_a_subclass_may_override_only_putconn(make: Any) -> None:
    given_back = []

    class Own(make.cls):
        async def putconn(self, conn: Any) -> None:
            given_back.append(conn)
            await super().putconn(conn)

    make.cls = Own
    async with make() as pool:
        async with pool.connection(timeout=5) as conn:
            pass
        assert given_back == [conn]
        await eventually(lambda: pool.get_stats()["pool_available"] == 1)


async def test_close_returns_goes_through_putconn_of_a_subclass(make: Any) -> None:
    given_back = []

    class Own(make.cls):
        async def putconn(self, conn: Any) -> None:
            given_back.append(conn)
            await super().putconn(conn)

    make.cls = Own
    async with make(close_returns=True) as pool:
        conn = await pool.getconn(5)
        await conn.close()
        assert given_back == [conn]


async def test_a_subclass_may_add_parameters_and_attributes(make_any: Any) -> None:
    class Own(make_any.cls):
        def __init__(self, conninfo: str, *, flavour: str, **kwargs: Any) -> None:
            self.flavour = flavour
            super().__init__(conninfo, **kwargs)

    make_any.cls = Own
    async with make_any(flavour="mint") as pool:
        assert pool.flavour == "mint"
        assert "Own" in repr(pool)
        assert isinstance(pool, psycopg_pool.AsyncConnectionPool)
        async with pool.connection(timeout=5) as conn:
            assert await scalar(conn, "select 1") == 1


async def test_a_subclass_whose_constructor_fails_leaves_nothing_to_complain_about(
    make_any: Any,
) -> None:
    import gc

    class Own(make_any.cls):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Own(make_any.dsn, open=False)
    gc.collect()


async def test_the_error_and_warning_texts_name_the_subclass(make_any: Any) -> None:
    class Fancy(make_any.cls):
        pass

    make_any.cls = Fancy
    pool = make_any(open=None)
    with pytest.warns(Warning, match="Fancy"):
        async with pool.connection(timeout=5) as conn:
            await conn.execute("select 1")
    await pool.close()


async def test_any_object_may_hang_on_a_pool(make_any: Any) -> None:
    """Pools have no `__slots__`, and references to them may be weak."""
    import weakref

    pool = make_any()
    pool.mine = 1
    assert pool.mine == 1
    assert weakref.ref(pool)() is pool
    assert hash(pool) == hash(pool)
    assert pool == pool


async def test_a_parametrized_class_can_be_called_and_derived_from(make_any: Any) -> None:
    class Own(make_any.cls[Any]):
        pass

    for cls in (make_any.cls[Any], Own):
        async with cls(make_any.dsn, min_size=0, max_size=1, open=False) as pool:
            assert isinstance(pool, make_any.cls)
            async with pool.connection(timeout=5) as conn:
                assert await scalar(conn, "select 1") == 1


async def test_an_instance_whose_getconn_was_wrapped_lends_through_the_wrapper(
    make_any: Any,
) -> None:
    """As tests and instruments do it, without a class."""
    log = []

    pool = make_any()
    original = pool.getconn

    async def wrapper(timeout: float | None = None) -> Any:
        log.append(timeout)
        return await original(timeout)

    pool.getconn = wrapper
    async with pool:
        async with pool.connection(timeout=4.5) as conn:
            assert await scalar(conn, "select 1") == 1
        assert log == [4.5]


class Bookkeeping(AsyncConnection[Any]):
    """A connection class that does something of its own at the end of each block."""

    ends: ClassVar[list[str]] = []

    async def commit(self) -> None:
        self.ends.append("commit")
        await super().commit()

    async def rollback(self) -> None:
        self.ends.append("rollback")
        await super().rollback()


async def use_well_and_badly(pool: Any) -> list[str]:
    Bookkeeping.ends.clear()
    async with pool.connection(timeout=5) as conn:
        await conn.execute("select 1")
    with pytest.raises(ZeroDivisionError):
        async with pool.connection(timeout=5) as conn:
            await conn.execute("select 1")
            raise ZeroDivisionError
    return Bookkeeping.ends


async def test_a_block_ends_with_the_commit_and_rollback_of_the_connection_class(
    make_any: Any,
) -> None:
    async with make_any(connection_class=Bookkeeping) as pool:
        assert await use_well_and_badly(pool) == ["commit", "rollback"]


async def test_a_connection_class_set_while_open_is_honoured_in_the_same_way(make: Any) -> None:
    async with make() as pool:
        await pool.wait(5)
        pool.connection_class = Bookkeeping
        await pool.drain()
        assert await use_well_and_badly(pool) == ["commit", "rollback"]


async def test_a_block_is_the_block_of_the_connection_class(make_any: Any) -> None:
    ends = []

    class Own(AsyncConnection[Any]):
        async def __aenter__(self) -> Any:
            ends.append("entered")
            return await super().__aenter__()

        async def __aexit__(self, *exc: Any) -> None:
            ends.append("left")
            await super().__aexit__(*exc)

    async with make_any(connection_class=Own) as pool:
        async with pool.connection(timeout=5) as conn:
            await conn.execute("select 1")
    assert ends == ["entered", "left"]
