"""The generator of the sync side, shown by what it makes of small sources."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from textwrap import dedent

import pytest

ROOT = Path(__file__).resolve().parents[2]


def load():
    """``tools`` is a folder of programs, not a package."""
    spec = importlib.util.spec_from_file_location(
        "async_to_sync", ROOT / "tools" / "async_to_sync.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


a2s = load()
SRC, TESTS = a2s.TREES


def sync(source: str, tree=SRC, **kwargs) -> str:
    return a2s.convert(dedent(source), tree, **kwargs)


def case(source: str, expected: str, tree=SRC, **kwargs) -> None:
    assert sync(source, tree, **kwargs) == dedent(expected)


# --- keywords


def test_keywords():
    case(
        """\
        async def f(pool):
            async with pool.connection() as conn, pool.other() as other:
                async for row in conn.stream("select 1"):
                    await g(row)
            return [x async for x in other if await x.ok()]
        """,
        """\
        def f(pool):
            with pool.connection() as conn, pool.other() as other:
                for row in conn.stream("select 1"):
                    g(row)
            return [x for x in other if x.ok()]
        """,
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("(await f()).x", "f().x"),
        ("not await f()", "not f()"),
        ("return_(await f(), *(await g()))", "return_(f(), *g())"),
        ("(await (yield))", "(yield)"),
        ("[await f() for f in fs]", "[f() for f in fs]"),
        ("lambda: (await f)", "lambda: f"),
        ("(await f\n    .g())", "(f\n    .g())"),
        ("(await f(\n    1))", "f(\n    1)"),
    ],
)
def test_await_keeps_only_the_parentheses_it_needs(before, after):
    assert sync(f"async def f():\n    x = {before}\n") == f"def f():\n    x = {after}\n"


def test_comments_and_layout_survive():
    text = """\
        # first

        x = 1  # beside


        async def f():  # why
            # above
            y = {
                "a": 1,  # one
            }
            # at the end

        # last
        """
    case(text, dedent(text).replace("async ", ""))


# --- names


def test_names_everywhere():
    case(
        """\
        from psycopg import AsyncConnection as Conn, AsyncCursor
        class Pool(AsyncConnectionPool):
            async def __aenter__(self): return self
            async def __aexit__(self, *args): await self.stack.aclose()
        x = psycopg.AsyncConnection.connect(AsyncConnectionPool=1)
        """,
        """\
        from psycopg import Connection as Conn, Cursor
        class Pool(ConnectionPool):
            def __enter__(self): return self
            def __exit__(self, *args): self.stack.close()
        x = psycopg.Connection.connect(ConnectionPool=1)
        """,
    )


def test_names_are_whole_words():
    case(
        "MyAsyncConnectionX = AsyncConnections = 1\n", "MyAsyncConnectionX = AsyncConnections = 1\n"
    )


def test_two_imported_names_that_become_one():
    case(
        "from psycopg import AsyncConnection, Connection\nx = AsyncConnection, Connection\n",
        "from psycopg import Connection\nx = Connection, Connection\n",
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("from ..runtime import aio as rt", "from ..runtime import threads as rt"),
        ("from ..runtime.aio import Lock", "from ..runtime.threads import Lock"),
        ("from everpool.runtime import aio", "from everpool.runtime import threads"),
        ("from everpool.runtime.aio import Lock", "from everpool.runtime.threads import Lock"),
        ("import everpool.runtime.aio as rt", "import everpool.runtime.threads as rt"),
        ("from .. import _async", "from .. import _sync"),
        ("from .pool import AsyncConnectionPool", "from .pool import ConnectionPool"),
        ("from . import pool", "from . import pool"),
        ("import everpool._async.pool", "import everpool._sync.pool"),
        ("from everpool._async.base import X", "from everpool._sync.base import X"),
        ("from psycopg_pool.pool_async import X", "from psycopg_pool.pool import X"),
        ("from other import aio", "from other import aio"),
        ("from .runtime import aio", "from .runtime import aio"),
    ],
)
def test_modules(before, after):
    case(before + "\n", after + "\n")


def test_relative_imports_start_from_the_folder_of_the_module():
    case(
        "from ...runtime import aio\n",
        "from ...runtime import threads\n",
        package="everpool._async.deeper",
    )


def test_modules_of_the_tests():
    case(
        """\
        import tests.aio.helpers
        from tests.aio.conftest import x
        from tests.support import aio as support
        from ..support.aio import Server
        x = tests.support.aio.Server
        """,
        """\
        import tests.sync.helpers
        from tests.sync.conftest import x
        from tests.support import threads as support
        from ..support.threads import Server
        x = tests.support.threads.Server
        """,
        TESTS,
    )


# --- text


def test_docstrings_messages_and_comments():
    case(
        '''\
        """Use `AsyncConnectionPool` of `everpool._async`, see `everpool.runtime.aio`.

        The caller must await the answer::

            async with AsyncConnectionPool() as pool:
                await pool.wait()
        """
        # then await pool.close()
        log(f"AsyncConnectionPool {x!r} is closed", "AsyncConnection", b"AsyncCursor")
        ''',
        '''\
        """Use `ConnectionPool` of `everpool._sync`, see `everpool.runtime.threads`.

        The caller must await the answer::

            with ConnectionPool() as pool:
                pool.wait()
        """
        # then pool.close()
        log(f"ConnectionPool {x!r} is closed", "Connection", b"Cursor")
        ''',
    )


# --- annotations


def test_annotations():
    case(
        """\
        CB = Callable[[AsyncConnection], Awaitable[None]]
        def f(a: "Awaitable[int]", b: "Callable[[], Awaitable[AsyncConnection[Any]]]") -> Awaitable[X]: ...
        c: Coroutine[Any, Any, dict[str, int]]
        d: collections.abc.Awaitable[int] | int
        e: AsyncGenerator[int, None]
        f: AsyncIterator["AsyncConnection"]
        g: Literal["not an expression"]
        """,
        """\
        CB = Callable[[Connection], None]
        def f(a: "int", b: "Callable[[], Connection[Any]]") -> X: ...
        c: dict[str, int]
        d: int | int
        e: Generator[int, None, None]
        f: Iterator["Connection"]
        g: Literal["not an expression"]
        """,
    )


# --- branches


def test_true_branch_keeps_its_else():
    case(
        """\
        def f():
            # above
            if True:  # ASYNC
                a()  # gone
            else:
                # kept
                b()
                c()
                # at the end
            d()
        """,
        """\
        def f():
            # above
            # kept
            b()
            c()
            # at the end
            d()
        """,
    )


def test_true_branch_without_else_goes():
    case(
        """\
        a()
        # about the branch
        if True:  # ASYNC: tasks only
            import asyncio
        b()
        """,
        """\
        a()
        b()
        """,
    )


def test_false_branch_keeps_its_body():
    case(
        """\
        class X:
            if False:  # ASYNC
                async def f(self):
                    await g()
            else:
                def f(self): ...
        """,
        """\
        class X:
            def f(self):
                g()
        """,
    )


def test_a_block_left_empty_passes():
    case("def f():\n    if True:  # ASYNC\n        a()\n", "def f():\n    pass\n")


def test_branches_in_branches():
    case(
        """\
        if x:
            a()
        elif y:
            if False:  # ASYNC
                if z:
                    if True:  # ASYNC
                        b()
                    else:
                        c()
        """,
        """\
        if x:
            a()
        elif y:
            if z:
                c()
        """,
    )


def test_an_ordinary_if_is_left_alone():
    text = "if True:\n    a()\nelse:\n    b()\n"
    case(text, text)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("if x:  # ASYNC\n    a()\n", "only True or False"),
        ("if True:  # ASYNC\n    a()\nelif x:\n    b()\n", "elif"),
        ("a()  # ASYNC\n", "elsewhere"),
        ("if True: a()  # ASYNC\n", "elsewhere"),
        ("def f(:\n", "broken.py"),
    ],
)
def test_what_cannot_be_understood_is_refused(source, message):
    with pytest.raises(a2s.ConversionError, match=message):
        a2s.convert(source, SRC, name="broken.py")


# --- imports and markers


def test_imports_that_only_dropped_code_used_go():
    case(
        """\
        \"\"\"About asyncio.\"\"\"
        import asyncio
        import os, anyio
        from collections.abc import Awaitable, Callable
        from never import used
        if TYPE_CHECKING:
            from typing import Coroutine
        def f(x: Callable[[], Awaitable[os.PathLike]], y: "Coroutine[Any, Any, int]"):
            if True:  # ASYNC
                asyncio.sleep(anyio.x)
        """,
        """\
        \"\"\"About asyncio.\"\"\"
        import os
        from collections.abc import Callable
        from never import used
        def f(x: Callable[[], os.PathLike], y: "int"):
            pass
        """,
    )


def test_markers_of_async_tests_go():
    case(
        """\
        pytestmark = pytest.mark.anyio

        @pytest.mark.anyio
        @pytest.mark.slow
        async def test_a(): ...

        @pytest.mark.anyio()
        class TestB: ...
        """,
        """\

        @pytest.mark.slow
        def test_a(): ...

        class TestB: ...
        """,
        TESTS,
    )
    case(
        "pytestmark = [pytest.mark.anyio, pytest.mark.slow]\n",
        "pytestmark = [pytest.mark.slow]\n",
        TESTS,
    )


# --- files


@pytest.fixture
def repository(tmp_path):
    source = tmp_path / "src/everpool/_async"
    (source / "deeper").mkdir(parents=True)
    (source / "__init__.py").write_text("")
    (source / "pool.py").write_text(
        '"""A pool."""\n\nfrom psycopg import AsyncConnection, rows\n\n\n'
        "async def f(a,\n      b): return rows, AsyncConnection\n"
    )
    (source / "deeper/leaf.py").write_text("from ...runtime import aio as rt\n\nrt.x()\n")
    tests = tmp_path / "tests/aio"
    tests.mkdir(parents=True)
    (tests / "conftest.py").write_text("async def f(): ...\n")
    (tmp_path / "pyproject.toml").write_text("[tool.ruff]\nline-length = 100\n")
    return tmp_path


def test_write_then_check(repository):
    assert len(a2s.check(repository)) == 4
    assert len(a2s.write(repository)) == 4
    assert a2s.check(repository) == []
    assert a2s.write(repository) == []

    pool = (repository / "src/everpool/_sync/pool.py").read_text()
    assert pool == (
        "# Generated from src/everpool/_async/pool.py by `python tools/async_to_sync.py`.\n"
        "# Do not edit: change that file and run `make generate`.\n\n"
        '"""A pool."""\n\nfrom psycopg import Connection, rows\n\n\n'
        "def f(a, b):\n    return rows, Connection\n"
    )
    leaf = (repository / "src/everpool/_sync/deeper/leaf.py").read_text()
    assert "from ...runtime import threads as rt\n" in leaf
    assert (repository / "tests/sync/conftest.py").exists()


def test_check_finds_an_edit(repository, capsys):
    a2s.write(repository)
    pool = repository / "src/everpool/_sync/pool.py"
    pool.write_text(pool.read_text().replace("def f", "def g"))
    (problem,) = a2s.check(repository)
    assert "-def g" in problem
    assert "+def f" in problem
    assert a2s.main(["--check", "--root", str(repository)]) == 1
    assert "make generate" in capsys.readouterr().out
    assert "def g" in pool.read_text()


def test_check_finds_a_missing_file(repository):
    a2s.write(repository)
    (repository / "src/everpool/_sync/pool.py").unlink()
    assert a2s.check(repository) == [
        "src/everpool/_sync/pool.py: missing, its source has not been converted"
    ]


def test_a_lost_source_takes_the_generated_file_with_it(repository):
    a2s.write(repository)
    (repository / "src/everpool/_async/pool.py").unlink()
    assert a2s.check(repository) == ["src/everpool/_sync/pool.py: has no source"]
    assert a2s.write(repository) == ["removed src/everpool/_sync/pool.py"]
    assert a2s.check(repository) == []


def test_a_file_written_by_hand_is_not_removed(repository):
    stranger = repository / "tests/sync/test_mine.py"
    stranger.parent.mkdir()
    stranger.write_text("x = 1\n")
    with pytest.raises(a2s.ConversionError, match="written by hand"):
        a2s.write(repository)
    assert stranger.exists()


def test_an_error_is_one_line(repository, capsys):
    (repository / "src/everpool/_async/pool.py").write_text("x = 1  # ASYNC\n")
    assert a2s.main(["--check", "--root", str(repository)]) == 2
    assert capsys.readouterr().err.startswith("error: src/everpool/_async/pool.py: ")
