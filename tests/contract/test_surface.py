"""The names and signatures of psycopg_pool, beside those of everpool.

Nothing here opens a connection. What the names do is tested in `tests/aio/contract`.
"""

from __future__ import annotations

import inspect
from typing import Any

import psycopg
import psycopg_pool
import pytest

import everpool

CLASSES = [
    "ConnectionPool",
    "AsyncConnectionPool",
    "NullConnectionPool",
    "AsyncNullConnectionPool",
]

METHODS = [
    "__init__",
    "connection",
    "getconn",
    "putconn",
    "open",
    "close",
    "wait",
    "check",
    "check_connection",
    "resize",
    "drain",
    "get_stats",
    "pop_stats",
    "reconnect_failed",
]


@pytest.mark.parametrize("name", psycopg_pool.__all__)
def test_all_that_psycopg_pool_exports_everpool_exports(name: str) -> None:
    assert name in everpool.__all__
    assert hasattr(everpool, name)


@pytest.mark.parametrize("name", CLASSES)
def test_the_classes_are_subclasses_of_the_originals(name: str) -> None:
    ours, theirs = getattr(everpool, name), getattr(psycopg_pool, name)
    assert ours is not theirs
    assert issubclass(ours, theirs)
    assert ours.__name__ == name


def test_the_null_classes_are_subclasses_of_our_ordinary_ones() -> None:
    assert issubclass(everpool.NullConnectionPool, everpool.ConnectionPool)
    assert issubclass(everpool.AsyncNullConnectionPool, everpool.AsyncConnectionPool)
    assert not issubclass(everpool.ConnectionPool, psycopg_pool.NullConnectionPool)


@pytest.mark.parametrize("name", ["PoolClosed", "PoolTimeout", "TooManyRequests"])
def test_the_errors_are_caught_by_the_names_of_either_package(name: str) -> None:
    """Code may raise, catch and pickle them by the old names and by the new ones."""
    ours, theirs = getattr(everpool, name), getattr(psycopg_pool, name)
    assert issubclass(ours, theirs)
    assert issubclass(ours, psycopg.OperationalError)


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("method", METHODS)
def test_signatures_keep_every_parameter(name: str, method: str) -> None:
    """The same parameters, in the same order, of the same kind, with the same defaults.

    More may follow, if they can only be given by name and need not be given.
    """
    ours = inspect.signature(getattr(getattr(everpool, name), method)).parameters
    theirs = inspect.signature(getattr(getattr(psycopg_pool, name), method)).parameters

    def shape(parameter: inspect.Parameter) -> tuple[str, Any, Any]:
        return parameter.name, parameter.kind, parameter.default

    shared = [shape(parameter) for parameter in ours.values() if parameter.name in theirs]
    assert shared == [shape(parameter) for parameter in theirs.values()]
    for parameter in ours.values():
        if parameter.name not in theirs:
            assert parameter.kind in (parameter.KEYWORD_ONLY, parameter.VAR_KEYWORD), parameter
            assert parameter.default is not parameter.empty or parameter.kind is (
                parameter.VAR_KEYWORD
            )


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("method", METHODS)
def test_what_was_a_coroutine_is_one_and_what_was_not_is_not(name: str, method: str) -> None:
    """An `async def` may become a function that returns an awaitable; callers see no difference."""
    theirs = getattr(getattr(psycopg_pool, name), method)
    ours = getattr(getattr(everpool, name), method)
    if not inspect.iscoroutinefunction(theirs):
        assert not inspect.iscoroutinefunction(ours)


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("method", METHODS[1:])
def test_methods_are_documented(name: str, method: str) -> None:
    assert inspect.getdoc(getattr(getattr(everpool, name), method))


@pytest.mark.parametrize("name", CLASSES)
def test_check_connection_is_static(name: str) -> None:
    cls = getattr(everpool, name)
    assert isinstance(inspect.getattr_static(cls, "check_connection"), staticmethod)


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("attribute", ["min_size", "max_size", "closed"])
def test_read_only_attributes_stay_so(name: str, attribute: str) -> None:
    pool = getattr(everpool, name)(open=False)
    with pytest.raises(AttributeError):
        setattr(pool, attribute, 1)


@pytest.mark.parametrize("name", CLASSES)
def test_the_classes_are_generic(name: str) -> None:
    cls = getattr(everpool, name)
    connection = psycopg.AsyncConnection if name.startswith("Async") else psycopg.Connection
    assert cls[connection] is not None
    assert cls[connection[Any]](open=False).name


def test_a_coroutine_function_cannot_listen_to_a_pool_of_threads() -> None:
    async def listener(happening: object) -> None: ...

    with pytest.raises(TypeError, match="async pool"):
        everpool.ConnectionPool(open=False).subscribe(listener)
    assert everpool.AsyncConnectionPool(open=False).subscribe(listener).dropped == 0
