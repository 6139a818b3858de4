"""The launchers start what they say, it answers, and afterwards it is gone."""

from __future__ import annotations

import base64
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psycopg
import pytest

from everpool.lab import PostgresServer
from everpool.lab.ports import free_port
from tests.support import programs
from tests.support.programs import Program, ProgramError
from tests.support.threads import eventually

RULES = """
groups:
  - name: test
    rules:
      - alert: Always
        expr: vector(1)
"""


class Page(BaseHTTPRequestHandler):
    """A page that a script completes."""

    def do_GET(self) -> None:
        body = b"<title>before</title><script>document.title = 'after'</script>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def site() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def assert_gone(program: Program, pid: int) -> None:
    assert program.pid == 0
    assert not Path(f"/proc/{pid}").exists()
    assert not program.directory.exists()


def test_prometheus_with_rules() -> None:
    config = "global: {evaluation_interval: 100ms}\nrule_files: [rules.yml]\n"
    with programs.prometheus(config, {"rules.yml": RULES}) as server:
        pid = server.pid
        assert eventually(lambda: server.json("/api/v1/alerts")["data"]["alerts"])
    assert_gone(server, pid)


def test_a_configuration_that_is_refused_is_told() -> None:
    with pytest.raises(ProgramError, match="field nonsense not found"):
        with programs.prometheus("nonsense: true\n"):
            pass


def test_promtool_and_amtool(tmp_path: Path) -> None:
    code, output = programs.promtool("check", "metrics", stdin="# TYPE a_total gauge\na_total 1\n")
    assert code != 0
    assert "a_total" in output
    assert programs.promtool("check", "metrics", stdin="# HELP a A.\n# TYPE a gauge\na 1\n")[0] == 0
    path = tmp_path / "alertmanager.yml"
    path.write_text("route: {receiver: nobody}\nreceivers: [{name: nobody}]\n")
    assert programs.amtool("check-config", str(path))[0] == 0


def test_alertmanager() -> None:
    with programs.alertmanager(
        "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n"
    ) as server:
        pid = server.pid
        server.get("/api/v2/alerts", [{"labels": {"alertname": "test"}}])
        (alert,) = eventually(lambda: server.json("/api/v2/alerts"))
        assert alert["labels"] == {"alertname": "test"}
    assert_gone(server, pid)


def test_etcd_keeps_its_data_through_an_outage() -> None:
    key, value = (base64.b64encode(word).decode() for word in (b"leader", b"one"))
    with programs.etcd() as server:
        server.json("/v3/kv/put", {"key": key, "value": value})
        server.down()
        with pytest.raises(OSError, match="refused"):
            server.get("/health")
        server.up()
        pid = server.pid
        (pair,) = server.json("/v3/kv/range", {"key": key})["kvs"]
        assert pair["value"] == value
    assert_gone(server, pid)


def test_haproxy(server: PostgresServer) -> None:
    port = free_port()
    config = f"""
defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s
listen postgres
    bind 127.0.0.1:{port}
    server one {server.host}:{server.port}
"""
    with programs.haproxy(config) as proxy:
        pid = proxy.pid
        with psycopg.connect(server.dsn, port=port) as conn:
            assert conn.execute("select 1").fetchone() == (1,)
        assert proxy.command("disable server postgres/one") == ""
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(server.dsn, port=port)
    assert_gone(proxy, pid)


def test_pgbouncer(server: PostgresServer) -> None:
    with programs.pgbouncer(server.dsn, pool_mode="transaction") as bouncer:
        pid = bouncer.pid
        assert Path(f"/proc/{pid}").stat().st_uid != 0
        with psycopg.connect(bouncer.dsn) as conn:
            assert conn.execute("select 1").fetchone() == (1,)
        with psycopg.connect(bouncer.dsn, dbname="pgbouncer", autocommit=True) as console:
            databases = [row[0] for row in console.execute("show databases")]
            assert databases
    assert_gone(bouncer, pid)


def test_chromium(site: int) -> None:
    with programs.chromium() as browser:
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{site}/")
        assert page.title() == "after"


def test_a_stopped_program_ends_too() -> None:
    with programs.haproxy("") as proxy:
        pid = proxy.pid
        os.kill(pid, signal.SIGSTOP)
    assert_gone(proxy, pid)


def test_a_missing_program_skips_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *args, **kwargs: None)
    with pytest.raises(pytest.skip.Exception, match="Debian package etcd-server"):
        programs.etcd()
