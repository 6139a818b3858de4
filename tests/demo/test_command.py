"""``everpool demo`` as people and machines call it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

import everpool.demo
from everpool import __version__

_MAIN = "from everpool.cli import main; main()"

Run = tuple[int, str, str]  # status, standard output, standard error


def _start(*words: str, code: str = _MAIN, **extra: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "COLUMNS": "80", "NO_COLOR": "1", **extra}
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env=environment,
    )


def _finish(process: subprocess.Popen[str]) -> Run:
    out, err = process.communicate(timeout=50)
    return process.returncode, out, err


def _run(*words: str, code: str = _MAIN) -> Run:
    return _finish(_start(*words, code=code))


def _interrupt(process: subprocess.Popen[str]) -> Run:
    """Press Ctrl-C in the middle of it, and see that nothing it started is left."""
    while not (below := _servers(process.pid)):
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    run = _finish(process)
    assert not [pid for pid in below if Path(f"/proc/{pid}").exists()]
    return run


def _without(*packages: str) -> str:
    """Code that runs the command as if *packages* were not installed."""
    return f"import sys; sys.modules.update(dict.fromkeys({packages}))\n{_MAIN}"


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the run for people leaves its picture."""
    return tmp_path_factory.mktemp("demo") / "demo.svg"


@pytest.fixture(scope="module")
def runs(picture: Path) -> dict[str, Run]:
    """One run for machines, one for people and one that is interrupted, at the same time."""
    words = ("demo", "--seconds", "7")
    machines, people = _start(*words, "--json"), _start(*words, "--svg", str(picture))
    interrupted = _interrupt(_start(*words))
    return {
        "machines": _finish(machines),
        "people": _finish(people),
        "interrupted": interrupted,
    }


@pytest.fixture(scope="module")
def numbers(runs: dict[str, Run]) -> dict[str, Any]:
    _, out, _ = runs["machines"]
    found: dict[str, Any] = json.loads(out)  # nothing else may be there
    return found


def test_json_has_what_its_description_says(numbers: dict[str, Any]) -> None:
    described = re.search(r"^    \{.*?^    \}$", str(everpool.demo.__doc__), re.S | re.M)
    assert described
    names = set(re.findall(r'"(\w+)":', described.group()))
    assert set(_names(numbers)) - {"FIN"} == names - {"FIN"} | {"psycopg_pool_check"}


def test_everpool_fails_nobody(numbers: dict[str, Any], runs: dict[str, Run]) -> None:
    pools = numbers["pools"]
    assert pools["everpool"]["failed"] == pools["everpool"]["unfinished"] == 0
    assert pools["everpool"]["errors"] == []
    assert runs["machines"][0] == 0


def test_psycopg_pool_fails_somebody(numbers: dict[str, Any]) -> None:
    plain = numbers["pools"]["psycopg_pool"]
    assert plain["failed"] > 0
    assert sum(error["count"] for error in plain["errors"]) == plain["failed"]
    assert plain["errors"][0]["class"] == "OperationalError"
    assert "\n" not in plain["errors"][0]["text"]


@pytest.mark.parametrize("key", ["psycopg_pool", "psycopg_pool_check", "everpool"])
def test_all_meet_the_same(numbers: dict[str, Any], key: str) -> None:
    pool = numbers["pools"][key]
    assert pool["requests"] == numbers["pools"]["everpool"]["requests"] > 20
    parts = ("answered", "failed", "cut_in_hand", "unfinished")
    assert sum(pool[part] for part in parts) == pool["requests"]
    assert sum(pool["cut"].values()) >= 4  # all that were open at first
    assert pool["opened"] >= sum(pool["cut"].values())
    assert 0.0 < pool["typical"] <= pool["p99"] <= pool["slowest"]


def test_everpool_notes_the_cuts(numbers: dict[str, Any]) -> None:
    ours = numbers["pools"]["everpool"]
    assert 0 < sum(ours["noted"].values()) <= sum(ours["cut"].values())
    assert numbers["pools"]["psycopg_pool"]["noted"] is None


def test_machines_get_nothing_but_numbers(runs: dict[str, Run]) -> None:
    assert runs["machines"][2] == ""


def test_people_get_words_that_fit_into_their_window(
    runs: dict[str, Run],
) -> None:
    status, out, err = runs["people"]
    assert (status, err) == (0, "")
    assert "\x1b" not in out
    told = "failed so far", "OperationalError: "  # lines for a log, which may be long
    assert max(len(line) for line in out.splitlines() if told[1] not in line) <= 80
    assert re.search(r"^everpool {6}.* 0 failed$", out, re.M)  # the end of a timeline
    assert told[0] in out
    assert told[1] in out
    assert "from everpool import ConnectionPool" in " ".join(out.split())


def test_the_picture_needs_nothing_from_elsewhere(runs: dict[str, Run], picture: Path) -> None:
    svg = picture.read_text(encoding="utf-8")
    root = ElementTree.fromstring(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    rest = svg.replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert not re.search(r"https?:|//|@import|@font-face|url\((?!#)|href|<script", rest)
    assert "psycopg_pool" in svg


def test_an_interrupt_ends_it_and_all_it_started(runs: dict[str, Run]) -> None:
    status, out, err = runs["interrupted"]
    assert (status, err) == (130, "Stopped.\n")
    assert "Traceback" not in out


def test_version_needs_no_extras() -> None:
    assert _run("--version", code=_without("click", "rich")) == (0, f"everpool {__version__}\n", "")


@pytest.mark.parametrize("package", ["click", "rich"])
def test_missing_extras_are_named(package: str) -> None:
    status, out, err = _run("demo", code=_without(package))
    assert (status, out) == (2, "")
    assert err.startswith(f"Error: {package} is not installed")
    assert 'pip install "everpool[demo]"' in err
    assert err.count("\n") == 1


def test_a_missing_server_is_named() -> None:
    process = _start("demo", "--json", EVERPOOL_PG_BIN="/nonexistent")
    status, out, err = _finish(process)
    assert (status, out) == (2, "")
    assert "/nonexistent" in err
    assert "Traceback" not in err


def test_a_picture_that_cannot_be_written_is_refused_before_the_run() -> None:
    status, out, err = _run("demo", "--json", "--svg", "/nonexistent/demo.svg")
    assert (status, out) == (2, "")
    assert "there is no directory /nonexistent" in err


def test_help() -> None:
    status, out, _ = _run("--help")
    assert status == 0
    assert re.search(r"^ +demo ", out, re.M)


def _names(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield name
            yield from _names(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _names(inner)


def _servers(pid: int) -> list[int]:
    """What runs below *pid*, once a PostgreSQL server that accepts connections is part of it."""
    below = _children(pid)
    names = [_read(f"/proc/{child}/comm").strip() for child in below]
    return below if names.count("postgres") > 4 else []


def _children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*"):
        for child in _read(f"{task}/children").split():
            found += [int(child), *_children(int(child))]
    return found


def _read(path: str) -> str:
    """A file about a process, which may end at any moment."""
    try:
        return Path(path).read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
