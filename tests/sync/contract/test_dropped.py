# Generated from tests/aio/contract/test_dropped.py by `python tools/async_to_sync.py`.
# Do not edit: change that file and run `make generate`.

"""Pools that nobody closes: dropped objects, and programs that just end."""

from __future__ import annotations

import gc
import logging
import os
import subprocess
import sys
import textwrap
import threading
from time import monotonic
from typing import Any

import pytest

from tests.support.net import refusing_port, silent_port
from tests.support.packages import everpool_only
from tests.support.threads import eventually, scalar, sleep, spawn


def descriptors() -> set[tuple[str, str]]:
    """The open sockets, pipes and epolls of this process."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
        if target.startswith(("socket:", "pipe:", "anon_inode:")):
            found.add((name, target))
    return found


def threads() -> set[threading.Thread]:
    return set(threading.enumerate())


# A pool whose other world's threads linger is not this test's business: only what is new counts.


def test_a_closed_pool_leaves_no_thread_and_no_descriptor(make_any: Any) -> None:
    before = threads(), descriptors()
    with make_any(2) as pool:
        pool.wait(5)
        with pool.connection(timeout=5) as conn:
            conn.execute("select 1")
    del pool, conn
    gc.collect()
    eventually(lambda: threads() <= before[0])
    eventually(lambda: descriptors() <= before[1])


def test_a_closed_pool_without_a_server_leaves_no_thread_and_no_descriptor(make: Any) -> None:
    before = threads(), descriptors()
    with refusing_port() as port:
        with make(2, conninfo=f"host=127.0.0.1 port={port}") as pool:
            sleep(0.1)
    del pool
    gc.collect()
    eventually(lambda: threads() <= before[0])
    eventually(lambda: descriptors() <= before[1])


def test_a_pool_closed_in_mid_connect_leaves_no_thread_and_no_descriptor(
    make: Any, caplog: Any
) -> None:
    # pytest keeps the records; those of the original hold the error, and that the connection.
    caplog.set_level(logging.CRITICAL, logger="psycopg.pool")
    before = threads(), descriptors()
    with silent_port() as port:
        pool = make(2, conninfo=f"host=127.0.0.1 port={port} connect_timeout=2")
        pool.open()
        sleep(0.15)
        pool.close(timeout=3)
    del pool
    gc.collect()
    eventually(lambda: threads() <= before[0])
    eventually(lambda: gc.collect() >= 0 and descriptors() <= before[1])


def test_a_dropped_pool_leaves_no_thread_no_descriptor_and_no_warning(
    make_any: Any, database: Any
) -> None:
    before = threads(), descriptors()
    pool = make_any(2)
    pool.open()
    pool.wait(5)
    with pool.connection(timeout=5) as conn:
        conn.execute("select 1")
    del pool, conn
    gc.collect()
    eventually(lambda: threads() <= before[0])
    eventually(lambda: gc.collect() >= 0 and descriptors() <= before[1])
    eventually(lambda: not database.pids())


@everpool_only("psycopg_pool counts a connection that was taken and dropped as lent for ever")
def test_a_connection_taken_and_dropped_is_replaced(make: Any) -> None:
    import warnings

    with make() as pool:
        conn = pool.getconn(5)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            del conn
            gc.collect()
        with pool.connection(timeout=5) as conn:
            assert scalar(conn, "select 1") == 1


@everpool_only("psycopg_pool waits for its workers, and those for the connect")
def test_a_pool_dropped_in_mid_connect_does_not_block(make: Any) -> None:
    with silent_port() as port:
        pool = make(2, conninfo=f"host=127.0.0.1 port={port} connect_timeout=10")
        pool.open()
        sleep(0.1)
        start = monotonic()
        del pool
        gc.collect()
        assert monotonic() - start < 3


def test_a_pool_waited_for_in_vain_is_not_kept_alive(make: Any, module: Any) -> None:
    import weakref

    pool = make()
    with pool:
        with pool.connection(timeout=5):
            worker = spawn(pool.getconn, 0.05)
            with pytest.raises(module.PoolTimeout):
                worker.result()
    gone = weakref.ref(pool)
    del pool, worker
    eventually(lambda: gc.collect() >= 0 and gone() is None)


# Programs


NAP = "time.sleep(0.1)"


def survives_cancellation(test: Any) -> Any:
    return test


def program(package: str, dsn: str, body: str, cls: str = "ConnectionPool") -> str:
    """A script that makes a pool, does what *body* says, and ends without closing it.

    The last thing it does itself is to print the time.
    """
    sizes = "min_size=0, max_size=2" if "Null" in cls else "min_size=2"
    body = textwrap.dedent(body).strip()
    if "END" not in body:
        body += "\nEND"
    body = body.replace("END", "print(time.monotonic(), flush=True)")
    return "\n".join(
        [
            "import sys, time",
            f"from {package} import {cls}",
            f"pool = {cls}({dsn!r}, {sizes}, open=False)",
            "pool.open()",
            body,
        ]
    )


def run(script: str) -> subprocess.CompletedProcess[str]:
    """Run the script with all warnings shown, and assert that it ends soon after its last line.

    What keeps a program from ending does so every time; a loaded machine only now and then.
    """
    for attempt in range(3):
        done = subprocess.run(
            [sys.executable, "-X", "dev", "-c", script],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        ended = monotonic()
        assert done.stdout, done.stderr
        last = float(done.stdout)  # the monotonic clock of Linux is one for all processes
        if ended - last < 0.5:
            break
        assert attempt < 2, f"the program took {ended - last:.2f} s to end"
    return done


USE = """
pool.wait()
with pool.connection() as conn:
    conn.execute("select 1")
"""
HOLD = """
conn = pool.getconn()
conn.execute("select 1")
"""
NOTHING = "pass"
FAIL = """
with pool.connection() as conn:
    END
    sys.exit(3)
"""
USE = USE.replace("async ", "").replace("await ", "")
HOLD = HOLD.replace("await ", "")
FAIL = FAIL.replace("async ", "")


@pytest.mark.parametrize("cls", ["ConnectionPool", "NullConnectionPool"])
def test_a_program_that_never_closes_its_pool_ends_at_once_and_silently(
    package: str, dsn: str, cls: str
) -> None:
    done = run(program(package, dsn, USE, cls))
    assert (done.stderr, done.returncode) == ("", 0)


@survives_cancellation
def test_a_program_that_ends_while_it_opens_its_pool_does_so_at_once_and_silently(
    package: str, dsn: str
) -> None:
    done = run(program(package, dsn, NOTHING))
    assert (done.stderr, done.returncode) == ("", 0)


@survives_cancellation
def test_a_program_that_exits_inside_a_block_ends_at_once_and_silently(
    package: str, dsn: str
) -> None:
    done = run(program(package, dsn, FAIL))
    assert (done.stderr, done.returncode) == ("", 3)


@survives_cancellation
def test_a_program_that_ends_holding_a_connection_ends_at_once(package: str, dsn: str) -> None:
    done = run(program(package, dsn, HOLD))
    assert done.returncode == 0
    assert "Traceback" not in done.stderr


@survives_cancellation
def test_a_program_that_ends_while_a_connect_hangs_does_so_at_once_and_silently(
    package: str,
) -> None:
    with silent_port() as port:
        done = run(program(package, f"host=127.0.0.1 port={port} connect_timeout=10", NAP))
    assert (done.stderr, done.returncode) == ("", 0)


def test_a_program_that_ends_while_the_server_is_down_does_so_at_once(package: str) -> None:
    with refusing_port() as port:
        done = run(program(package, f"host=127.0.0.1 port={port}", NAP))
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
