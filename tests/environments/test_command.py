"""``everpool environments``, and the page that is written from the same data."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from everpool.core.policy import build
from everpool.environments import entries, find
from everpool.environments.command import environments

ROOT = Path(__file__).parents[2]


def run(*words: str, width: int = 80) -> Result:
    env = {"COLUMNS": str(width), "NO_COLOR": "1"}
    return CliRunner().invoke(environments, words, env=env)


def test_the_table_fits_a_terminal():
    result = run()
    assert result.exit_code == 0
    lines = [line.rstrip() for line in result.output.splitlines()]
    assert max(map(len, lines)) <= 80
    assert "…" not in result.output
    shown = [" ".join(line.split()) for line in lines]
    assert shown[0] == "name idle cut max age ends by counts confidence"
    rows = {line.partition(" ")[0]: line.partition(" ")[2] for line in shown if line}
    assert set(entries()) <= set(rows)
    assert rows["aws-nlb"] == "350 s never rst-next packets documented"
    assert rows["fly-postgres"] == "60 s 600 s rst bytes reported"
    assert rows["google-alloydb"] == "? ? ? ? unknown"
    assert rows["aws-iam-token"] == "never never – – documented"
    groups = [entry.group for entry in entries().values()]
    assert [line for line in lines if line in groups] == list(dict.fromkeys(groups))


def test_all_of_one():
    result = run("AWS NLB")
    assert result.exit_code == 0
    output = " ".join(result.output.split())
    for words in (
        "AWS Network Load Balancer, TCP listener (aws-nlb)",
        find("aws-nlb").text,
        "after 350 s by default, of 60 to 6000 s (1 h 40 min); TCP keepalives count",
        "Maximum age none",
        "the next packet is answered by a reset (rst-next)",
        "documented (2026-11-22)",
        "update-idle-timeout.html",
        'ConnectionPool(..., environment="aws-nlb")',
        "keepalive 140 s 0.4 × the 350 s idle cut of aws-nlb",
    ):
        assert words in output
    assert "max_size" not in output  # follows from nothing


@pytest.mark.parametrize("name", entries())
def test_every_entry_can_be_read(name):
    result = run(name)
    assert result.exit_code == 0
    entry = find(name)
    for line in result.output.splitlines():
        assert len(line.rstrip()) <= 80 or line.startswith("http")
    assert all(url in result.output or url == "measured" for url in entry.sources)
    assert "None" not in result.output.replace("None of the three", "").replace("=None", "")
    # What was not found is said.
    if entry.facts.idle_cut is None and entry.kind not in ("event", "client", "credentials"):
        assert "Idle cut" in result.output
        assert "not known" in result.output


def test_one_for_machines():
    told = json.loads(run("neon", "--json").output, parse_constant=pytest.fail)
    assert told["name"] == "neon"
    assert told["idle_cut"] == 300
    assert told["max_age"] == "never"
    assert told["failover"] is None
    assert told["hosts"] == ["*.neon.tech"]
    assert told["settings"]["keepalive"] == {
        "value": "never",
        "origin": "environment",
        "why": build(environment=(find("neon").facts,)).reason("keepalive").why,
    }
    assert told["settings"]["min_size"]["value"] == 0


def test_all_for_machines():
    told = json.loads(run("--json").output, parse_constant=pytest.fail)
    assert [each["name"] for each in told] == list(entries())
    assert all("facts" not in each and "settings" not in each for each in told)


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_name_of_none(more):
    result = run("aws-nbl", *more)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "no environment is called 'aws-nbl': did you mean aws-nlb" in result.stderr


def test_it_is_a_command_of_everpool():
    everpool = [sys.executable, "-m", "everpool.cli", "environments", "haproxy"]
    done = subprocess.run(everpool, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "HAProxy in TCP mode" in done.stdout


def test_the_page_is_what_its_tool_writes():
    command = [sys.executable, str(ROOT / "tools" / "environments_page.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_page_has_a_section_for_each():
    lines = (ROOT / "docs" / "environments.md").read_text("utf-8").splitlines()
    assert [line[4:] for line in lines if line.startswith("### ")] == list(entries())
