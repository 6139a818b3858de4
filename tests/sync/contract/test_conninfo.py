# Generated from tests/aio/contract/test_conninfo.py by `python tools/async_to_sync.py`.
# Do not edit: change that file and run `make generate`.

"""Where connections come from: conninfo, kwargs and the connection class."""

from __future__ import annotations

from typing import Any

import pytest
from psycopg import Connection, Cursor
from psycopg.rows import dict_row

from tests.support.threads import eventually, scalar


class OwnConnection(Connection[Any]):
    """A class of the user's own."""


class OwnCursor(Cursor[Any]):
    """A cursor class of the user's own."""


def application_name(pool: Any) -> Any:
    with pool.connection(timeout=5) as conn:
        return scalar(conn, "show application_name")


def test_kwargs_are_passed_to_connect(make_any: Any) -> None:
    kwargs = {
        "autocommit": True,
        "row_factory": dict_row,
        "cursor_factory": OwnCursor,
        "prepare_threshold": None,
    }
    with make_any(kwargs=kwargs) as pool:
        with pool.connection(timeout=5) as conn:
            assert conn.autocommit is True
            assert conn.prepare_threshold is None
            cur = conn.execute("select 1 as one")
            assert isinstance(cur, OwnCursor)
            assert cur.fetchone() == {"one": 1}


def test_kwargs_win_over_the_conninfo(make_any: Any) -> None:
    with make_any(kwargs={"application_name": "from-kwargs"}) as pool:
        assert application_name(pool) == "from-kwargs"


def test_the_conninfo_may_be_empty_and_all_be_in_kwargs(make_any: Any) -> None:
    from psycopg.conninfo import conninfo_to_dict

    with make_any(conninfo="", kwargs=conninfo_to_dict(make_any.dsn)) as pool:
        assert application_name(pool) == conninfo_to_dict(make_any.dsn)["application_name"]


def test_a_callable_conninfo_is_called_at_every_connect(make: Any) -> None:
    calls = []

    def conninfo() -> str:
        calls.append(1)
        return f"{make.dsn} application_name=call-{len(calls)}"

    with make(conninfo=conninfo) as pool:
        assert application_name(pool) == "call-1"
        assert application_name(pool) == "call-1"
        pool.drain()
        assert application_name(pool) == "call-2"
    assert len(calls) == 2


def test_callable_kwargs_are_called_at_every_connect(make: Any) -> None:
    calls = []

    def kwargs() -> dict[str, Any]:
        calls.append(1)
        return {"application_name": f"call-{len(calls)}"}

    with make(kwargs=kwargs) as pool:
        assert application_name(pool) == "call-1"
        pool.drain()
        assert application_name(pool) == "call-2"
    assert len(calls) == 2


def test_null_pools_call_them_at_every_connect_too(make_null: Any) -> None:
    calls = []

    def conninfo() -> str:
        calls.append("conninfo")
        return make_null.dsn

    def kwargs() -> dict[str, Any]:
        calls.append("kwargs")
        return {"application_name": f"call-{calls.count('kwargs')}"}

    with make_null(conninfo=conninfo, kwargs=kwargs) as pool:
        assert application_name(pool) == "call-1"
        assert application_name(pool) == "call-2"
    assert sorted(calls) == ["conninfo"] * 2 + ["kwargs"] * 2


@pytest.mark.parametrize("parameter", ["conninfo", "kwargs"])
def test_a_callable_that_raises_is_a_failed_attempt_and_is_asked_again(
    make: Any, parameter: str
) -> None:
    calls = []

    def broken_once() -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("no secret at hand")
        return make.dsn if parameter == "conninfo" else {}

    with make(**{parameter: broken_once}) as pool:
        with pool.connection(timeout=10) as conn:
            assert scalar(conn, "select 1") == 1
        assert len(calls) == 2
        assert pool.get_stats()["connections_num"] == 2


def test_kwargs_may_be_changed_before_opening(make_any: Any) -> None:
    pool = make_any(kwargs={})
    pool.kwargs["autocommit"] = True
    with pool, pool.connection(timeout=5) as conn:
        assert conn.autocommit is True


def test_kwargs_may_be_changed_while_open_for_the_connections_to_come(make: Any) -> None:
    with make(kwargs={"application_name": "before"}) as pool:
        assert application_name(pool) == "before"
        pool.kwargs["application_name"] = "after"
        assert application_name(pool) == "before"
        pool.drain()
        assert application_name(pool) == "after"


def test_the_conninfo_may_be_replaced_while_open(make: Any) -> None:
    with make(conninfo=f"{make.dsn} application_name=before") as pool:
        assert application_name(pool) == "before"
        pool.conninfo = f"{make.dsn} application_name=after"
        pool.drain()
        assert application_name(pool) == "after"


def test_kwargs_and_conninfo_may_be_replaced_by_callables_while_open(make: Any) -> None:
    with make() as pool:
        pool.wait(5)
        pool.conninfo = lambda: make.dsn
        pool.kwargs = lambda: {"application_name": "replaced"}
        pool.drain()
        assert application_name(pool) == "replaced"


@pytest.mark.parametrize("kind", ["static", "callable"])
def test_the_users_objects_are_never_written_to(make_any: Any, kind: str) -> None:
    settings = {"application_name": "mine"}
    before = dict(settings)
    with make_any(kwargs=settings if kind == "static" else lambda: settings) as pool:
        assert application_name(pool) == "mine"
        if kind == "static":
            assert pool.kwargs is settings
        assert pool.conninfo is make_any.dsn
    assert settings == before


def test_kwargs_that_may_not_be_written_to_will_do(make_any: Any) -> None:
    class Frozen(dict[str, Any]):
        def __setitem__(self, key: str, value: Any) -> None:
            raise AssertionError(f"the pool wrote {key}")

        def setdefault(self, key: str, default: Any = None) -> Any:
            raise AssertionError(f"the pool wrote {key}")

        def update(self, *args: Any, **kwargs: Any) -> None:
            raise AssertionError("the pool wrote")

    with make_any(kwargs=Frozen(application_name="frozen")) as pool:
        assert application_name(pool) == "frozen"


def test_connections_are_of_the_class_asked_for(make_any: Any) -> None:
    with make_any(connection_class=OwnConnection) as pool:
        assert pool.connection_class is OwnConnection
        with pool.connection(timeout=5) as conn:
            assert type(conn) is OwnConnection
        conn = pool.getconn(5)
        assert type(conn) is OwnConnection
        pool.putconn(conn)


def test_a_parametrized_connection_class_will_do(make_any: Any) -> None:
    with make_any(
        connection_class=Connection[dict[str, Any]], kwargs={"row_factory": dict_row}
    ) as pool:
        with pool.connection(timeout=5) as conn:
            cur = conn.execute("select 2 as two")
            assert cur.fetchone() == {"two": 2}


def test_connections_are_made_by_the_connect_of_their_class(make_any: Any) -> None:
    seen = []

    class Recording(Connection[Any]):
        @classmethod
        def connect(cls, conninfo: str = "", **kwargs: Any) -> Any:
            seen.append((conninfo, kwargs.get("application_name")))
            return super().connect(conninfo, **kwargs)

    with make_any(connection_class=Recording, kwargs={"application_name": "seen"}) as pool:
        with pool.connection(timeout=5) as conn:
            assert type(conn) is Recording
    assert len(seen) == 1
    assert seen[0][0].startswith(make_any.dsn)
    assert seen[0][1] == "seen"


def test_the_connection_class_may_be_replaced_while_open(make: Any) -> None:
    with make() as pool:
        pool.wait(5)
        pool.connection_class = OwnConnection
        pool.drain()
        with pool.connection(timeout=5) as conn:
            assert type(conn) is OwnConnection


def test_a_lent_connection_names_its_pool_and_a_resting_one_does_not(make: Any) -> None:
    with make() as pool:
        with pool.connection(timeout=5) as conn:
            assert conn._pool is pool
        eventually(lambda: pool.get_stats()["pool_available"] == 1)
        assert conn._pool is None
        assert not conn.closed
