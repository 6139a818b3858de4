"""The benchmark runs from end to end, with numbers too small to mean anything."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.server import server

ROOT = Path(__file__).resolve().parents[2]

NAMES = {
    *(
        f"run-{what}-{world}"
        for what in ("xid", "token", "read-only")
        for world in ("threads", "asyncio")
    ),
    "uncontended-threads",
    "uncontended-asyncio",
    "busy-neighbour",
    "validated-threads",
    "validated-asyncio",
    "contended-threads",
    "contended-asyncio",
    "burst-threads",
    "burst-asyncio",
    "size",
    "waiters",
    "idle-cpu",
    "idle-memory",
    "watched-threads",
    "watched-asyncio",
}


def bench(*arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--json", "--effort", "tiny", *arguments],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.fixture(scope="module")
def dsn() -> Iterator[str]:
    with server(None) as dsn:
        yield dsn


@pytest.fixture(scope="module")
def report(dsn: str) -> dict[str, Any]:
    return bench("--dsn", dsn)


def test_every_case_is_there_once(report: dict[str, Any]) -> None:
    names = [figure["name"] for figure in report["results"]]
    assert len(names) == len(set(names))
    assert set(names) == NAMES


def test_the_conditions_are_named(report: dict[str, Any]) -> None:
    assert report["ours"].startswith("everpool ")
    assert report["theirs"].startswith("psycopg_pool ")
    assert {"psycopg", "libpq", "python", "postgresql", "cores", "effort", "seconds"} <= set(report)


def test_each_figure_stands_beside_the_asked_one(report: dict[str, Any]) -> None:
    for figure in report["results"]:
        assert set(figure) == {
            "name",
            "title",
            "measure",
            "value",
            "asked",
            "met",
            "everpool",
            "psycopg_pool",
            "unit",
            "statistic",
            "void",
            "detail",
        }
        assert isinstance(figure["value"], float)
        assert figure["asked"] > 0
        assert figure["met"] is (figure["void"] is None and figure["value"] <= figure["asked"])
        if figure["measure"] == "ratio":
            assert figure["everpool"] > 0
            assert figure["psycopg_pool"] > 0
            assert figure["value"] == pytest.approx(figure["everpool"] / figure["psycopg_pool"])


def test_only_what_is_named_runs(dsn: str) -> None:
    report = bench("--dsn", dsn, "--self-check", "--only", "contended-asyncio")
    assert [figure["name"] for figure in report["results"]] == ["contended-asyncio"]
    assert report["ours"] == report["theirs"]
