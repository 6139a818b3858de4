"""Write the Grafana dashboard, src/everpool/telemetry/dashboard.json.

    python tools/dashboard.py            write it
    python tools/dashboard.py --check    fail if it is not what this would write

In Grafana's classic model, which versions before and after 13 read. What a panel shows is below,
one call a panel; how it looks is in the functions, once.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

DASHBOARD = Path(__file__).parents[1] / "src" / "everpool" / "telemetry" / "dashboard.json"

WIDTH = 24  # of Grafana's grid
HEIGHT = 8

SOURCE = {"type": "prometheus", "uid": "${datasource}"}
CHOSEN = 'job=~"$job", pool=~"$pool"'

Panel = dict[str, Any]


def query(expr: str, legend: str, **more: Any) -> Panel:
    """Square brackets around nothing stand for the choice of job and pool, <> for the interval."""
    expr = expr.replace("{", "{" + CHOSEN + ", ").replace("[]", "{" + CHOSEN + "}")
    expr = expr.replace("<>", "[$__rate_interval]")
    return {"datasource": SOURCE, "expr": expr, "legendFormat": legend, **more}


def quantiles(metric: str) -> list[Panel]:
    rate = f"sum by (pool, le) (rate({metric}_bucket[]<>))"
    return [
        query(f"histogram_quantile({share}, {rate})", f"{{{{pool}}}} p{100 * share:.0f}")
        for share in (0.5, 0.9, 0.99)
    ]


def panel(
    kind: str, title: str, text: str, *queries: Panel, unit: str = "short", **more: Any
) -> Panel:
    targets = [{**target, "refId": chr(ord("A") + i)} for i, target in enumerate(queries)]
    defaults = {"unit": unit, **more.pop("defaults", {})}
    return {
        "type": kind,
        "title": title,
        "description": text,
        "datasource": SOURCE,
        "targets": targets,
        "fieldConfig": {"defaults": defaults, "overrides": more.pop("overrides", [])},
        **more,
    }


def lines(
    title: str, text: str, *queries: Panel, unit: str = "short", stacked: bool = False
) -> Panel:
    custom = {"fillOpacity": 30, "stacking": {"mode": "normal"}} if stacked else {"fillOpacity": 5}
    return panel(
        "timeseries",
        title,
        text,
        *queries,
        unit=unit,
        defaults={"min": 0, "custom": custom},
        options={"tooltip": {"mode": "multi", "sort": "desc"}},
    )


def number(
    title: str,
    text: str,
    *queries: Panel,
    unit: str = "short",
    bad: float | None = None,
    good: float | None = None,
) -> Panel:
    """A number: red from ``bad`` on, or below ``good``."""
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if bad is not None:
        steps.append({"color": "red", "value": bad})
    if good is not None:
        steps = [{"color": "red", "value": None}, {"color": "green", "value": good}]
    return panel(
        "stat",
        title,
        text,
        *queries,
        unit=unit,
        defaults={"thresholds": {"mode": "absolute", "steps": steps}},
        options={"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "background"},
    )


def heat(title: str, text: str, metric: str) -> Panel:
    rate = f"sum by (le) (increase({metric}_bucket[]<>))"
    return panel(
        "heatmap",
        title,
        text,
        query(rate, "{{le}}", format="heatmap"),
        options={"calculate": False, "yAxis": {"unit": "s"}, "color": {"scheme": "Oranges"}},
    )


def table(title: str, text: str, *queries: Panel) -> Panel:
    instant = [{**target, "format": "table", "instant": True} for target in queries]
    hidden = {"Time": True, "Value": True, "__name__": True}
    organize = {"id": "organize", "options": {"excludeByName": hidden}}
    return panel("table", title, text, *instant, transformations=[organize])


ROWS: list[tuple[str, list[Panel]]] = [
    (
        "Is it up, and why not",
        [
            number(
                "Processes that can lend",
                "The share of processes whose pool has, or gets, connections.",
                query("avg by (pool) (everpool_up[])", "{{pool}}"),
                unit="percentunit",
                good=1,
            ),
            number(
                "Background late by",
                "From 30 s on the pool stands still, and its process should be restarted.",
                query("max by (pool) (everpool_background_late_seconds[])", "{{pool}}"),
                unit="s",
                bad=30,
            ),
            number(
                "Round trip",
                "Smoothed, to the server, in the slowest process.",
                query("max by (pool) (everpool_round_trip_seconds[])", "{{pool}}"),
                unit="s",
            ),
            table(
                "State of each process",
                "up, or what is the matter instead.",
                query("everpool_state[] == 1", ""),
            ),
            lines(
                "Processes by state",
                "down: no connection, and none can be opened. suspect: there are connections, but in doubt.",
                query("sum by (state) (everpool_state[]) > 0", "{{state}}"),
                stacked=True,
            ),
            lines(
                "Processes that cannot connect, by why",
                "rejected: the settings or the password are wrong, and only a person can help.",
                query("sum by (trouble) (everpool_trouble[]) > 0", "{{trouble}}"),
                stacked=True,
            ),
            lines(
                "Health, and what is known of the server",
                "Processes by health, and how long ago the server was last heard where that is longest.",
                query("sum by (status) (everpool_health[])", "{{status}}"),
                query(
                    "max by (pool) (everpool_last_heard_seconds[] < +Inf)", "{{pool}} heard s ago"
                ),
            ),
        ],
    ),
    (
        "Connections",
        [
            lines(
                "Connections by state",
                "All that hold a place below max_size. testing is a ping under way.",
                query("sum by (state) (everpool_connections[])", "{{state}}"),
                stacked=True,
            ),
            lines(
                "Connections and bounds",
                "All processes together.",
                query("sum by (pool) (everpool_connections[])", "{{pool}}"),
                query("sum by (pool) (everpool_connections_min[])", "{{pool}} min"),
                query("sum by (pool) (everpool_connections_max[] < +Inf)", "{{pool}} max"),
            ),
            lines(
                "Share in use, fullest process",
                "Of max_size.",
                query(
                    'max by (pool) (sum without (state) (everpool_connections{state="used"})'
                    " / everpool_connections_max[])",
                    "{{pool}}",
                ),
                unit="percentunit",
            ),
        ],
    ),
    (
        "Waiting for a connection",
        [
            lines(
                "Waits",
                "Of callers that got a connection.",
                *quantiles("everpool_wait_seconds"),
                unit="s",
            ),
            heat("Waits, all of them", "How many waited how long.", "everpool_wait_seconds"),
            lines(
                "Queue",
                "Callers that wait now.",
                query("sum by (pool) (everpool_requests_waiting[])", "{{pool}}"),
                query("sum by (pool) (everpool_saturated[])", "{{pool}} processes saturated"),
            ),
            lines(
                "Longest wait now",
                "Of the first in the queue, in the worst process.",
                query("max by (pool) (everpool_longest_wait_seconds[])", "{{pool}}"),
                unit="s",
            ),
            lines(
                "Requests",
                "Connections asked for.",
                query("sum by (pool) (rate(everpool_requests_total[]<>))", "{{pool}}"),
                unit="reqps",
            ),
            lines(
                "Refusals by code",
                "Requests that ended without a connection. gave up: cancelled by the caller.",
                query("sum by (code) (rate(everpool_requests_refused_total[]<>)) > 0", "{{code}}"),
                unit="reqps",
                stacked=True,
            ),
        ],
    ),
    (
        "Use",
        [
            lines(
                "Loans",
                "How long connections were held.",
                *quantiles("everpool_use_seconds"),
                unit="s",
            ),
            heat("Loans, all of them", "How many were held how long.", "everpool_use_seconds"),
            lines(
                "Leaks in an hour",
                "held: longer than leak_after. dropped: never returned.",
                query(
                    "sum by (pool, kind) (increase(everpool_leaks_total[][1h]))",
                    "{{pool}} {{kind}}",
                ),
            ),
        ],
    ),
    (
        "Connects, cuts and ends",
        [
            lines(
                "Connects",
                "How long opening took.",
                *quantiles("everpool_connect_seconds"),
                unit="s",
            ),
            lines(
                "Connects and failures",
                "A minute.",
                query("60 * sum by (pool) (rate(everpool_connect_seconds_count[]<>))", "{{pool}}"),
                query(
                    "60 * sum by (pool) (rate(everpool_connect_errors_total[]<>))",
                    "{{pool}} failed",
                ),
            ),
            lines(
                "Cuts by cause",
                "Connections a minute that ended without the pool's doing.",
                query("60 * sum by (cause) (rate(everpool_cuts_total[]<>)) > 0", "{{cause}}"),
                stacked=True,
            ),
            lines(
                "Cuts of connections in use",
                "A minute; each interrupted somebody's work.",
                query("60 * sum by (pool) (rate(everpool_cuts_lent_total[]<>))", "{{pool}}"),
            ),
            lines(
                "All ends by reason",
                "A minute: cuts by cause, and what the pool closed, by why.",
                query(
                    "60 * sum by (reason) (rate(everpool_discarded_total[]<>)) > 0", "{{reason}}"
                ),
                stacked=True,
            ),
            table("Versions", "Of everpool, psycopg and libpq.", query("everpool_build_info", "")),
        ],
    ),
]


def arranged() -> list[Panel]:
    """Rows and panels with ids and places, at most three beside one another."""
    found: list[Panel] = []
    y = 0
    for title, panels in ROWS:
        place = {"x": 0, "y": y, "w": WIDTH, "h": 1}
        found.append(
            {"type": "row", "title": title, "collapsed": False, "panels": [], "gridPos": place}
        )
        y += 1
        for start in range(0, len(panels), 3):
            beside = panels[start : start + 3]
            width = WIDTH // len(beside)
            for i, each in enumerate(beside):
                found.append({**each, "gridPos": {"x": i * width, "y": y, "w": width, "h": HEIGHT}})
            y += HEIGHT
    return [{"id": number, **each} for number, each in enumerate(found, 1)]


def variable(name: str, query: str) -> dict[str, Any]:
    return {
        "name": name,
        "label": name,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": name},
        "definition": query,
        "refresh": 2,  # when the time range changes
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "current": {"text": "All", "value": "$__all"},
    }


def dashboard() -> dict[str, Any]:
    source = {
        "name": "datasource",
        "label": "data source",
        "type": "datasource",
        "query": "prometheus",
    }
    return {
        "id": None,
        "uid": "everpool",
        "title": "everpool",
        "description": "PostgreSQL connection pools: printed by everpool dashboard-json.",
        "tags": ["postgresql", "everpool"],
        "schemaVersion": 39,  # Grafana 10; later ones convert it
        "editable": True,
        "graphTooltip": 1,  # one crosshair for all panels
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {
            "list": [
                source,
                variable("job", "label_values(everpool_up, job)"),
                variable("pool", 'label_values(everpool_up{job=~"$job"}, pool)'),
            ]
        },
        "panels": arranged(),
    }


def main() -> int:
    text = json.dumps(dashboard(), indent=1) + "\n"
    if "--check" not in sys.argv[1:]:
        DASHBOARD.write_text(text, "utf-8")
    elif DASHBOARD.read_text("utf-8") != text:
        print(f"{DASHBOARD.name} is not what tools/dashboard.py writes: run it")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
