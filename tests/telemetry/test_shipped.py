"""The rules and the dashboard: true to what is exposed, and accepted by Prometheus' own tool."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families as parse

from everpool import ConnectionPool
from everpool.lab import PostgresServer
from everpool.telemetry.commands import dashboard_json
from everpool.telemetry.commands import rules as print_rules
from everpool.telemetry.prometheus import register
from tests.support.programs import promtool
from tests.telemetry.shipped import DASHBOARD, RULES, choices, dashboard, names, rules, shown

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def exposed(server: PostgresServer) -> Iterator[str]:
    """What the program really says."""
    registry = CollectorRegistry()
    with ConnectionPool(server.dsn, min_size=1, name="orders") as pool:
        pool.wait(10)
        register(pool, registry=registry)
        yield generate_latest(registry).decode()


@pytest.fixture(scope="module")
def series(exposed: str) -> dict[str, set[tuple[str, str]]]:
    """The names of all series, and the labels and values that each has."""
    found: dict[str, set[tuple[str, str]]] = {}
    for family in parse(exposed):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels.items())
    return found


def test_promtool_finds_nothing_in_the_metrics(exposed: str) -> None:
    assert promtool("check", "metrics", stdin=exposed) == (0, "")


def test_promtool_accepts_the_rules(tmp_path: Path) -> None:
    path = tmp_path / "rules.yml"
    path.write_text(RULES)
    code, output = promtool("check", "rules", str(path))
    assert code == 0, output
    assert f"SUCCESS: {len(rules())} rules found" in output


def test_promtool_tests_the_rules() -> None:
    code, output = promtool("test", "rules", str(Path(__file__).with_name("rules_test.yml")))
    assert code == 0, output


def test_each_alert_is_tested() -> None:
    tested = Path(__file__).with_name("rules_test.yml").read_text()
    for rule in rules():
        if "alert" in rule:
            assert f'alertname="{rule["alert"]}"' in tested


def test_promtool_accepts_what_the_dashboard_asks(tmp_path: Path) -> None:
    path = tmp_path / "asked.yml"
    asked = [{"record": f"asked:{i}", "expr": expr} for i, expr in enumerate(shown())]
    path.write_text(yaml.safe_dump({"groups": [{"name": "asked", "rules": asked}]}))
    code, output = promtool("check", "rules", str(path))
    assert code == 0, output
    assert f"SUCCESS: {len(asked)} rules found" in output


def test_every_name_is_exposed_or_recorded(series: dict[str, Any]) -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    for expr in [rule["expr"] for rule in rules()] + shown():
        assert names(expr), expr
        assert names(expr) <= series.keys() | recorded, expr
    for variable in dashboard()["templating"]["list"]:
        assert names(str(variable["query"])) <= series.keys()


def test_the_texts_name_what_exists(series: dict[str, Any]) -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    families = {name.removesuffix("_bucket") for name in series}
    for rule in rules():
        for text in rule.get("annotations", {}).values():
            assert names(text) <= series.keys() | recorded | families, text


def test_every_value_selected_exists(series: dict[str, Any]) -> None:
    for expr in [rule["expr"] for rule in rules()] + shown():
        for name, label, value in choices(expr):
            assert (label, value) in series[name], expr


def test_every_metric_is_shown(series: dict[str, Any]) -> None:
    asked = set().union(*(names(expr) for expr in shown()))
    left_out = {name for name in series if not name.endswith(("_sum", "_count"))} - asked
    # The first is shown as one of the codes; the second tells of listeners, not of the pool.
    assert left_out == {"everpool_checkout_timeouts_total", "everpool_happenings_dropped_total"}


def test_an_alert_says_what_it_means_and_what_to_do() -> None:
    for rule in rules():
        if "alert" in rule:
            assert rule["labels"]["severity"] in ("warning", "critical")
            assert rule["for"]
            assert "{{ $labels.pool }}" in rule["annotations"]["summary"]
            assert len(rule["annotations"]["description"]) > 200


def test_the_dashboard_is_one_that_can_be_imported() -> None:
    loaded = dashboard()
    assert loaded["id"] is None
    assert loaded["uid"] == "everpool"
    variables = [variable["name"] for variable in loaded["templating"]["list"]]
    assert variables == ["datasource", "job", "pool"]
    ids = [panel["id"] for panel in loaded["panels"]]
    assert len(ids) == len(set(ids))
    for panel in loaded["panels"]:
        assert panel["title"]
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] == "${datasource}"
            assert panel["description"]
            references = [target["refId"] for target in panel["targets"]]
            assert len(references) == len(set(references)) > 0


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken
        taken |= cells


def test_the_dashboard_is_what_its_tool_writes() -> None:
    command = [sys.executable, str(ROOT / "tools" / "dashboard.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_commands_print_the_files() -> None:
    assert CliRunner().invoke(print_rules).output == RULES
    output = CliRunner().invoke(dashboard_json).output
    assert output == DASHBOARD
    assert json.loads(output)["title"] == "everpool"


@pytest.mark.parametrize("command", ["rules", "dashboard-json"])
def test_they_are_commands_of_everpool(command: str) -> None:
    everpool = [sys.executable, "-m", "everpool.cli", command]
    done = subprocess.run(everpool, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (RULES if command == "rules" else DASHBOARD)


def test_the_page_names_all_metrics_and_no_others(series: dict[str, Any]) -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    families = {re.sub("_(bucket|sum|count)$", "", name) for name in series}
    table = page.partition("### The metrics")[2].partition("###")[0]
    assert set(re.findall(r"^\| `(everpool_\w+)` \|", table, re.MULTILINE)) == families
    assert names(page) <= families | series.keys()
    alerts = {rule["alert"] for rule in rules() if "alert" in rule}
    assert set(re.findall(r"^\| (Everpool\w+) \|", page, re.MULTILINE)) == alerts


def test_an_alert_has_one_name_whoever_sends_it() -> None:
    """From inside the process and from Prometheus: one Alertmanager groups them."""
    from everpool.alerts import defaults

    inside = {
        "Everpool" + "".join(word.capitalize() for word in condition.name.split("_"))
        for condition in defaults()
    }
    rules = files("everpool.telemetry").joinpath("rules.yml").read_text()
    from_rules = set(re.findall(r"- alert: (\w+)", rules))
    only_inside = {"CommitUnknown", "CredentialsRefused", "Contradiction", "OlderHistory"}
    only_rules = {"BackgroundStuck", "RefusingRequests", "WorkInterrupted"}
    assert inside - from_rules == {f"Everpool{name}" for name in only_inside}
    assert from_rules - inside == {f"Everpool{name}" for name in only_rules}
