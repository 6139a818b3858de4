"""``everpool survey`` as people and machines call it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest

from everpool.lab import FaultProxy, PostgresServer

_MAIN = "from everpool.cli import main; main()"

SECRET = "geheim4711"

Run = tuple[int, str, str]  # status, standard output, standard error


def start(*words: str, code: str = _MAIN, **extra: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "COLUMNS": "80", "NO_COLOR": "1", **extra}
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code, "survey", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env=environment,
    )


def finish(process: subprocess.Popen[str]) -> Run:
    out, err = process.communicate(timeout=50)
    assert SECRET not in out + err
    return process.returncode, out, err


def run(*words: str, code: str = _MAIN, **extra: str) -> Run:
    return finish(start(*words, code=code, **extra))


@pytest.fixture
def dsn(server: PostgresServer, proxy: FaultProxy) -> str:
    """The server behind the proxy, with a password that it does not ask for."""
    return f"postgresql://postgres:{SECRET}@{proxy.host}:{proxy.port}/postgres"


@pytest.mark.alone
def test_it_says_what_it_will_do_what_it_found_and_what_to_do(dsn: str, proxy: FaultProxy) -> None:
    proxy.idle_cut(1.0, "fatal:57P05")
    status, out, err = run(dsn, "--max-idle", "2", "--connections", "6")
    assert (status, err) == (0, "")
    assert out.startswith(
        "Opens up to 6 connections, leaves each alone for its own time, up to 2 s"
    )
    assert "Takes 6 s at most" in out
    assert re.search(r"Idle connections are cut after 1(\.0\d)? s \(seen \d times\): told so", out)
    assert "FATAL 57P05" in out
    assert "TCP keepalives do not hold it off" in out
    assert "No maximum age up to 2" in out
    assert "keepalive 0.4 s: 0.4 × the 1 s idle cut of the path" in out
    line = 'ConnectionPool(conninfo, environment=Environment(idle_cut=1, kill="fatal", activity="bytes"))'
    assert line in out
    assert proxy.stats().max_open <= 6


def test_json_alone_and_libpqs_environment(server: PostgresServer) -> None:
    status, out, err = run(
        *("", "--json", "--max-idle", "0.8", "--connections", "4"),
        PGHOST=server.host,
        PGPORT=str(server.port),
        PGUSER="postgres",
        PGPASSWORD=SECRET,
    )
    assert status == 0
    data = json.loads(out)
    assert (data["format"], data["version"], data["complete"]) == ("everpool survey", 1, True)
    assert data["limits"] == {"connections": 4, "max_idle": 0.8, "budget": None}
    assert data["findings"]["idle"] is None
    assert data["facts"]["role"] == "primary"
    assert data["python"] == "ConnectionPool(conninfo)"
    assert data["settings"] == {}
    assert {o["kind"] for o in data["observations"]} >= {"idle", "busy"}
    assert "Opens up to 4 connections" in err
    assert server.host not in out


def test_interrupted_it_tells_what_it_knows_and_is_gone_on_with(
    dsn: str, proxy: FaultProxy, tmp_path: Path
) -> None:
    proxy.idle_cut(1.8, "rst-next")
    file = tmp_path / "survey.json"
    words = ("--connections", "8", "--max-idle", "3")
    process = start(dsn, *words, "--save", str(file))
    proxy.wait(lambda stats: stats.open >= 6)
    time.sleep(1.2)
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    status, out, err = finish(process)
    assert time.monotonic() - began < 3
    assert (status, err) == (130, "")
    assert "No idle cut up to 1." in out
    assert "It was not finished" in out
    assert SECRET not in file.read_text()
    first = json.loads(file.read_text())
    assert not first["complete"]
    assert 0.9 < first["findings"]["idle_survived"] < 1.8

    status, out, _ = run(dsn, "--resume", str(file), "--json")
    assert status == 0
    data = json.loads(out)
    assert json.loads(file.read_text())["observations"] == data["observations"]
    assert data["limits"] == {"connections": 8, "max_idle": 3.0, "budget": None}
    assert data["complete"]
    assert data["observations"][: len(first["observations"])] == first["observations"]
    assert data["findings"]["idle"]["value"] == pytest.approx(1.8, rel=0.1)
    assert data["findings"]["idle"]["kill"] == "rst-next"
    assert proxy.stats().max_open <= 8
    assert not list(tmp_path.glob("*.new"))


def test_stopped_while_it_connects_it_keeps_what_was_known(
    dsn: str, proxy: FaultProxy, tmp_path: Path
) -> None:
    file = tmp_path / "survey.json"
    assert run(dsn, "--max-idle", "0.4", "--save", str(file))[0] == 0
    before = json.loads(file.read_text())
    proxy.hang()
    process = start(dsn, "--resume", str(file))
    proxy.wait(lambda stats: stats.connecting == 1)
    process.send_signal(signal.SIGINT)
    status, _, err = finish(process)
    assert (status, err) == (130, "")
    after = json.loads(file.read_text())
    assert after["observations"] == before["observations"]
    assert after["facts"] == before["facts"]


def await_rest(server: PostgresServer, connections: int) -> None:
    """Wait until so many have been idle for a while: cut in their first millisecond they would be
    taken for an idle cut of that length."""
    with psycopg.connect(server.dsn, autocommit=True) as conn:
        while True:
            found = conn.execute(
                "select count(*) from pg_stat_activity"
                " where state = 'idle' and clock_timestamp() - state_change > '0.2 s'"
            ).fetchone()
            if found and found[0] >= connections:
                return
            time.sleep(0.02)


def test_a_server_that_goes_away_is_not_named_in_the_file(
    dsn: str, server: PostgresServer, proxy: FaultProxy, tmp_path: Path
) -> None:
    file = tmp_path / "survey.json"
    process = start(dsn, "--max-idle", "20", "--save", str(file))
    await_rest(server, 8)
    proxy.refuse()
    proxy.cut("fin")
    status, out, _ = finish(process)
    assert status == 1
    assert "It ended early: no more connections could be opened: unreachable" in out
    assert proxy.host not in file.read_text()


def test_terminated_it_ends_as_well(dsn: str, proxy: FaultProxy) -> None:
    process = start(dsn, "--json", "--max-idle", "30")
    proxy.wait(lambda stats: stats.open >= 8)
    process.send_signal(signal.SIGTERM)
    status, out, _ = finish(process)
    assert status == 130
    assert not json.loads(out)["complete"]
    assert proxy.wait(lambda stats: stats.open == 0)


def test_a_file_of_another_server_is_told(dsn: str, server: PostgresServer, tmp_path: Path) -> None:
    file = tmp_path / "survey.json"
    assert run(dsn, "--max-idle", "0.4", "--save", str(file))[0] == 0
    status, out, _ = run(server.dsn, "--resume", str(file))
    assert status == 0
    assert "Warning: the file to go on from is of another server." in out
    status, out, _ = run(server.dsn, "--resume", str(file))
    assert "Warning" not in out


def test_nobody_there(dsn: str, proxy: FaultProxy) -> None:
    proxy.refuse()
    status, out, err = run(dsn, "--json")
    assert (status, out) == (1, "")
    assert "could not connect" in err
    assert "refused" in err


def test_a_wrong_password_is_not_shown() -> None:
    status, _, err = run(f"host=127.0.0.1 password={SECRET} nonsense={SECRET}")
    assert status == 1
    assert "cannot be parsed" in err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--connections", "3"), "3 is not in the range"),
        (("--max-idle", "0"), "0"),
        (("--budget", "-1"), "-1"),
        (("--save", "/nonexistent/survey.json"), "there is no directory /nonexistent"),
        (("--resume", "/nonexistent.json"), "does not exist"),
    ],
)
def test_a_wrong_call(words: tuple[str, ...], told: str) -> None:
    status, out, err = run("", *words)
    assert (status, out) == (2, "")
    assert told in err


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("hello", "is no survey"),
        ("[]", "is no survey"),
        ('{"format": "everpool survey", "version": 9}', "of version 9"),
        ('{"format": "everpool survey", "version": 1}', "'seconds'"),
        (
            '{"format": "everpool survey", "version": 1, "seconds": 1, "limits": {}, "facts": {},'
            ' "observations": [{"kind": "idle"}]}',
            "began is None",
        ),
        (
            '{"format": "everpool survey", "version": 1, "seconds": 1, "facts": {},'
            ' "limits": {"connections": 1}, "observations": []}',
            "connections must be at least 4, not 1",
        ),
    ],
)
def test_a_file_that_is_none(text: str, told: str, tmp_path: Path) -> None:
    file = tmp_path / "survey.json"
    file.write_text(text)
    status, _, err = run("", "--resume", str(file))
    assert status == 2
    assert told in " ".join(err.split())


def test_without_its_packages_it_says_what_is_missing() -> None:
    code = f"import sys; sys.modules['click'] = None; {_MAIN}"
    status, _, err = run("", code=code)
    assert status == 2
    assert 'pip install "everpool[cli]"' in err
