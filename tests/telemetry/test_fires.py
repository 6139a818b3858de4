"""A real Prometheus scrapes a pool, fires the shipped alerts, and lets them go."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from everpool import ConnectionPool
from everpool.lab import FaultProxy, PostgresServer
from everpool.telemetry.prometheus import register
from tests.support.programs import Program, prometheus
from tests.support.threads import eventually
from tests.telemetry.shipped import RULES, rules

CONFIG = """
global: {{scrape_interval: 200ms, evaluation_interval: 200ms}}
rule_files: [rules.yml]
scrape_configs:
  - job_name: shop
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""

# The shipped rules with minutes as seconds, so that a test need not last for them.
HASTY = re.sub(r"\[(\d+)m\]", r"[\1s]", RULES)
HASTY = re.sub(r"for: \d+m", "for: 1s", HASTY)


@contextmanager
def watched(registry: CollectorRegistry) -> Iterator[Program]:
    """A Prometheus that scrapes this registry."""
    site, thread = start_http_server(0, "127.0.0.1", registry)
    try:
        with prometheus(CONFIG.format(port=site.server_port), {"rules.yml": HASTY}) as watcher:
            yield watcher
    finally:
        site.shutdown()
        site.server_close()
        thread.join()


def firing(watcher: Program) -> dict[str, dict[str, Any]]:
    alerts = watcher.json("/api/v1/alerts")["data"]["alerts"]
    return {a["labels"]["alertname"]: a for a in alerts if a["state"] == "firing"}


def value(watcher: Program, query: str) -> list[float]:
    result = watcher.json(f"/api/v1/query?query={query}")["data"]["result"]
    return [float(each["value"][1]) for each in result]


def test_cuts_and_an_outage_are_told_and_pass(server: PostgresServer, proxy: FaultProxy) -> None:
    registry = CollectorRegistry()
    with ConnectionPool(proxy.via(server.dsn), min_size=3, name="orders") as pool:
        pool.wait(10)
        register(pool, registry=registry)
        with watched(registry) as watcher:
            eventually(lambda: value(watcher, "everpool_up") == [1.0], timeout=10)
            assert not firing(watcher)

            proxy.idle_cut(0.3, "fin")
            eventually(lambda: "EverpoolConnectionsCut" in firing(watcher), timeout=20, every=0.2)
            alert = firing(watcher)["EverpoolConnectionsCut"]
            assert alert["labels"]["cause"] == "FIN"
            assert alert["labels"]["pool"] == "orders"
            assert alert["annotations"]["summary"] == "orders: something cuts connections (FIN)"
            assert "EverpoolUnreachable" not in firing(watcher)
            assert value(watcher, "sum(pool_cause:everpool_cuts:rate5m)") > [0.0]

            proxy.idle_cut(None)
            proxy.refuse()
            proxy.cut("rst")
            eventually(lambda: "EverpoolUnreachable" in firing(watcher), timeout=20, every=0.2)
            alert = firing(watcher)["EverpoolUnreachable"]
            assert alert["labels"]["severity"] == "critical"
            assert "100% of the processes of shop" in alert["annotations"]["description"]

            proxy.heal()
            eventually(lambda: not firing(watcher), timeout=20, every=0.2)
            assert value(watcher, "everpool_up") == [1.0]


class Calamity:
    """Two pools in which everything goes wrong: one is cut off, the other one rejected."""

    began = monotonic()

    def collect(self) -> Iterator[Any]:
        count = int(100 * (monotonic() - self.began))
        gauges = {
            "everpool_state": ("state", "down", [1, 1]),
            "everpool_trouble": ("trouble", "rejected", [0, 1]),
            "everpool_saturated": ("pod", "x", [1, 0]),
            "everpool_background_late_seconds": ("pod", "x", [float("inf"), 45]),
        }
        for name, (label, chosen, states) in gauges.items():
            family = GaugeMetricFamily(name, "", labels=["pool", label])
            for pool, state in zip("ab", states, strict=True):
                family.add_metric([pool, chosen], state)
            yield family
        counters = {
            "everpool_requests_total": ("pod", "x"),
            "everpool_requests_refused_total": ("code", "timeout"),
            "everpool_cuts_total": ("cause", "FATAL 57P01"),
            "everpool_cuts_lent_total": ("pod", "x"),
            "everpool_leaks_total": ("kind", "held"),
        }
        for name, (label, chosen) in counters.items():
            family = CounterMetricFamily(name, "", labels=["pool", label])
            family.add_metric(["a", chosen], count)
            yield family
        waits = HistogramMetricFamily("everpool_wait_seconds", "", labels=["pool"])
        waits.add_metric(["a"], buckets=[("0.5", 0), ("1.0", count), ("+Inf", count)], sum_value=0)
        yield waits


def test_every_alert_can_fire_and_reads_well() -> None:
    registry = CollectorRegistry()
    registry.register(Calamity())
    alerts = {rule["alert"] for rule in rules() if "alert" in rule}
    with watched(registry) as watcher:
        eventually(lambda: firing(watcher).keys() == alerts, timeout=30, every=0.2)
        for alert in firing(watcher).values():
            text = " ".join(alert["annotations"].values())
            for mishap in ("<error", "<no value>", "%!", "  ", "{{", "NaN"):
                assert mishap not in text, text
