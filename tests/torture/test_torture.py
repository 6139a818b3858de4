"""A few thousand transactions under every fault there is, in both worlds: nothing false is told."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from everpool.torture.faults import CUTTING, SILENT

_MAIN = "from everpool.cli import main; main()"


@pytest.mark.timeout(150)  # some fifteen seconds on a machine of its own
def test_commits_are_told_as_they_are() -> None:
    words = ["lab", "torture", "--transactions", "3000", "--seed", "4", "--json"]
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", _MAIN, *words],
        capture_output=True,
        text=True,
        timeout=140,
    )
    assert run.stdout, run.stderr
    report = json.loads(run.stdout)
    assert report["broken"] == []
    assert run.returncode == 0, run.stderr
    assert report["transactions"] == 3000
    lanes = report["lanes"]
    for name, lane in lanes.items():
        total = lane["total"]
        assert total["committed"] > 0.9 * total["transactions"], name
        if name != "naive retry":
            assert total["lost"] == total["doubled"] == total["false"] == 0, name
            assert total["late"] == total["early"] == 0, name
    cuts = sum(
        counts["transactions"]
        for name, lane in lanes.items()
        for kind, counts in lane["faults"].items()
        if name != "naive retry" and kind in CUTTING
    )
    assert cuts > 100
    silences = sum(
        lane["faults"].get(kind, {"transactions": 0})["transactions"]
        for lane in lanes.values()
        for kind in SILENT
    )
    assert silences > 10
    assert report["latest"] > 0  # somebody was ended by his deadline
    assert sum("promotion" in event for event in report["events"]) == 1
    # The checker is not blind: the naive loop does work twice.
    assert lanes["naive retry"]["total"]["doubled"]
