"""The whole story: something cuts connections, everybody who should know is told, and it resolves by itself.

One pool behind the fault proxy; its log, its metrics, its alerts in a real Alertmanager and at a webhook, its
readiness, and its page in a real browser.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from time import monotonic, sleep
from typing import Any
from urllib.request import urlopen

import pytest

pytest.importorskip("prometheus_client")
pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from prometheus_client import CollectorRegistry, generate_latest

from everpool import ConnectionPool, web
from everpool.alerts import Alertmanager, Alerts, ConnectionsCut, Webhook
from everpool.core import health
from everpool.endpoints import HealthServer
from everpool.lab import FaultProxy, PostgresServer, fatal
from everpool.telemetry.prometheus import Collector
from tests.support import programs
from tests.web.looking import looking

CUTS = 4
REASON = "57P05 terminating connection due to idle-session timeout"

# Nobody is to be sent anything: what arrived is asked for.
ALERTMANAGER = """
route: {receiver: nobody}
receivers: [{name: nobody}]
"""


class Hook:
    """A webhook's other end: keeps what was posted."""

    def __init__(self) -> None:
        posted = self.posted = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                posted.append(json.loads(body))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *args: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"
        Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def hook() -> Iterator[Hook]:
    hook = Hook()
    yield hook
    hook.close()


def until(condition: Callable[[], Any], timeout: float = 15.0) -> Any:
    deadline = monotonic() + timeout
    while not (value := condition()):
        assert monotonic() < deadline, f"not within {timeout} s"
        sleep(0.02)
    return value


def test_cuts_are_told_everywhere_and_resolve_by_themselves(
    server: PostgresServer,
    proxy: FaultProxy,
    hook: Hook,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("everpool.core.machine.RECENT", 8.0)  # a minute, made short
    caplog.set_level(logging.INFO, logger="everpool")
    with ExitStack() as stack:
        enter = stack.enter_context
        dsn = proxy.via(server.dsn)
        pool = enter(ConnectionPool(dsn, min_size=CUTS, max_size=2 * CUTS, name="orders"))
        pool.wait(10)
        manager = enter(programs.alertmanager(ALERTMANAGER))
        enter(
            Alerts(
                pool,
                sinks=[Webhook(hook.url), Alertmanager(manager.url)],
                conditions=[ConnectionsCut(count=3, within=6.0, clear=1.0)],
                group_wait=0.1,
                group_interval=0.5,
            )
        )
        probes = enter(HealthServer(pool, 0))
        registry = CollectorRegistry()
        registry.register(Collector(pool))
        page = enter(web.serve(pool, details=True))
        look = enter(looking(enter(programs.chromium()), page.url))

        def ready() -> dict[str, Any]:
            with urlopen(f"{probes.url}/ready") as response:  # a 503 would raise
                return json.load(response)  # type: ignore[no-any-return]

        def metric(name: str) -> float:
            value = registry.get_sample_value(*_sample(name))
            assert value is not None, generate_latest(registry).decode()
            return value

        def firing() -> list[dict[str, Any]]:
            return manager.json("/api/v2/alerts")  # type: ignore[no-any-return]

        # All is well.
        assert ready()["status"] == "pass" and look.state() == "Up"
        assert metric('everpool_cuts_total{cause="FATAL 57P05",pool="orders"}') == 0
        assert firing() == [] and hook.posted == []

        # The server ends its idle sessions, with a reason.
        sleep(1.0)
        assert proxy.cut(fatal(*REASON.split(" ", 1))) == CUTS
        until(lambda: pool.snapshot().slots["idle"] == CUTS)

        # The log: one line, with values.
        line = until(
            lambda: [r for r in caplog.records if getattr(r, "event", "") == "connection.cut"]
        )[0]
        assert f"{CUTS} connections were cut while idle" in line.getMessage()
        assert REASON in line.getMessage() and line.count == CUTS and line.sqlstate == "57P05"

        # Metrics.
        assert metric('everpool_cuts_total{cause="FATAL 57P05",pool="orders"}') == CUTS
        assert metric('everpool_connections{state="idle",pool="orders"}') == CUTS

        # An alert, at the webhook and in the Alertmanager.
        notice = until(lambda: hook.posted)[0]
        assert "connections_cut" in json.dumps(notice) and '"firing"' in json.dumps(notice)
        (alert,) = until(firing)
        assert alert["labels"]["alertname"] == "EverpoolConnectionsCut"
        assert alert["labels"]["pool"] == "orders" and alert["status"]["state"] == "active"
        assert REASON not in json.dumps([notice, alert])  # nobody allowed the server's words

        # Readiness warns, and stays.
        assert ready() == {"status": "warn", "code": "cuts"}

        # The page: the lanes end, with the reason.
        bars = look.until(lambda: len(look.bars("cut")) == CUTS and look.bars("cut"))
        bars[0].hover()
        assert "57P05" in look.text("#tip")
        look.until(lambda: REASON in look.text("#happenings"))

        # And all of it resolves by itself.
        until(lambda: ready() == {"status": "pass"})
        until(lambda: firing() == [])
        last = until(lambda: '"resolved"' in json.dumps(hook.posted[-1]) and hook.posted[-1])
        assert "connections_cut" in json.dumps(last)
        assert look.state() == "Up" and pool.health().status is health.Status.PASS
        assert pool.snapshot().refusals == {}


def _sample(name: str) -> tuple[str, dict[str, str]]:
    """``name{label="value",…}`` as prometheus-client wants it."""
    name, _, labels = name.rstrip("}").partition("{")
    pairs = (pair.partition("=") for pair in labels.split(","))
    return name, {key: value.strip('"') for key, _, value in pairs}
