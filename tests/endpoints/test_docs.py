"""What docs/health.md shows is run: the manifests' probes, HAProxy's configuration, PgBouncer behind it."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub, add_HealthServicer_to_server

from everpool import ConnectionPool
from everpool.endpoints import HealthServer, Readiness
from everpool.endpoints.grpc import grpc_health
from everpool.endpoints.payload import find
from everpool.endpoints.questions import PATHS
from everpool.lab import PostgresServer
from everpool.lab.ports import free_port
from tests.support import programs
from tests.support.threads import eventually

from .pools import CLOSED, NEW, STUCK, Pretended

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "health.md").read_text(encoding="utf-8")

# What makes each probe fail.
FAILING = {"startupProbe": NEW, "livenessProbe": STUCK, "readinessProbe": CLOSED}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def containers() -> list[dict[str, Any]]:
    pods = [yaml.safe_load(block) for block in blocks("yaml")]
    assert all((pod["apiVersion"], pod["kind"]) == ("v1", "Pod") for pod in pods)
    return [container for pod in pods for container in pod["spec"]["containers"]]


def probes(kind: str) -> list[Any]:
    """All probes of a kind: the probe's name, what it asks, and the container's named ports."""
    return [
        pytest.param(
            name, probe[kind], {p["name"]: p["containerPort"] for p in c.get("ports", ())}, id=name
        )
        for c in containers()
        for name, probe in c.items()
        if name.endswith("Probe") and kind in probe
    ]


def test_all_kinds_of_probe_are_shown() -> None:
    assert [len(probes(kind)) for kind in ("httpGet", "exec", "grpc")] == [3, 3, 1]


@pytest.mark.parametrize(("name", "get", "ports"), probes("httpGet"))
def test_http_probes(name: str, get: dict[str, Any], ports: dict[str, int]) -> None:
    assert ports[get["port"]] == 8081
    pool = Pretended()
    with HealthServer(pool, 0) as health:  # type: ignore[arg-type]
        assert status(health.url + get["path"]) == 200
        pool.become(**FAILING[name])
        assert status(health.url + get["path"]) == 503


@pytest.mark.parametrize(("name", "run", "ports"), probes("exec"))
def test_exec_probes(name: str, run: dict[str, Any], ports: dict[str, int]) -> None:
    pool = Pretended()
    with HealthServer(pool, 0) as health:  # type: ignore[arg-type]
        program, *words, url = run["command"]
        assert url.startswith("http://127.0.0.1:8081/")
        url = url.replace("http://127.0.0.1:8081", health.url)
        command = [str(Path(sys.executable).with_name(program)), *words, url, "--timeout", "10"]

        def code() -> int:
            return subprocess.run(command, capture_output=True, timeout=30, check=False).returncode

        assert code() == 0
        pool.become(**FAILING[name])
        assert code() == 1


@pytest.mark.parametrize(("name", "ask", "ports"), probes("grpc"))
def test_grpc_probe(
    name: str, ask: dict[str, Any], ports: dict[str, int], server: PostgresServer
) -> None:
    with ExitStack() as stack:
        pool = stack.enter_context(ConnectionPool(server.dsn, min_size=1, name=ask["service"]))
        health = stack.enter_context(grpc_health(pool))
        executor = stack.enter_context(ThreadPoolExecutor(2))
        grpc_server = grpc.server(executor)
        add_HealthServicer_to_server(health.servicer, grpc_server)
        port = grpc_server.add_insecure_port("127.0.0.1:0")
        grpc_server.start()
        stack.callback(lambda: grpc_server.stop(0).wait())
        stub = HealthStub(stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{port}")))

        def serving() -> bool:
            reply = stub.Check(HealthCheckRequest(service=ask["service"]), timeout=5)
            return bool(reply.status == HealthCheckResponse.SERVING)

        assert serving()
        pool.close()
        eventually(lambda: not serving())


def test_the_paths_and_codes_are_all_there() -> None:
    for path in PATHS:
        assert f"`{path}`" in PAGE
    table = PAGE.partition("| code |")[2].partition("\n\n")[0]
    told = set(
        re.findall(r"`(\w+)`", "\n".join(line.split("|")[1] for line in table.splitlines()[2:]))
    )
    for changes in (NEW, CLOSED, STUCK):
        assert find("ready", Pretended(**changes).health()).code in told


# -- HAProxy ----------------------------------------------------------------------------------


@contextmanager
def program(name: str) -> Iterator[int]:
    """A program behind the balancer, which answers its name."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(name)))
            self.end_headers()
            self.wfile.write(name.encode())

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield http.server_address[1]
        finally:
            http.shutdown()
            thread.join()


def status(url: str) -> int:
    return fetch(url)[0]


def fetch(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, ""


class Balanced:
    """Two programs behind the page's HAProxy, each with its own pool and HealthServer."""

    def __init__(self, stack: ExitStack, first: HealthServer, second: HealthServer) -> None:
        self.port = free_port()
        (config,) = blocks("haproxy")
        for shown, real in {
            "127.0.0.1:8000": f"127.0.0.1:{self.port}",
            "127.0.0.1:8001 port 8081": f"127.0.0.1:{stack.enter_context(program('orders1'))} port {first.port}",
            "127.0.0.1:8002 port 8082": f"127.0.0.1:{stack.enter_context(program('orders2'))} port {second.port}",
            "inter 2s": "inter 100ms",
        }.items():
            assert config.count(shown) == 1
            config = config.replace(shown, real)
        stack.enter_context(programs.haproxy(config))

    def serving(self) -> set[str]:
        """Who answers; ``"503"`` if nobody does."""
        answers = [fetch(f"http://127.0.0.1:{self.port}/") for _ in range(6)]
        return {text or str(code) for code, text in answers}


BOTH = {"orders1", "orders2"}


def test_haproxy_asks_readiness_before_it_sends_traffic() -> None:
    with ExitStack() as stack:
        pools = [Pretended(), Pretended()]
        servers = [stack.enter_context(HealthServer(pool, 0)) for pool in pools]  # type: ignore[arg-type]
        balanced = Balanced(stack, *servers)
        eventually(lambda: balanced.serving() == BOTH)
        pools[0].become(**CLOSED)
        eventually(lambda: balanced.serving() == {"orders2"})
        pools[1].become(**CLOSED)
        eventually(lambda: balanced.serving() == {"503"})
        pools[0].become()
        eventually(lambda: balanced.serving() == {"orders1"})
        servers[0].close()
        eventually(lambda: balanced.serving() == {"503"})


def test_haproxy_takes_out_the_process_whose_pgbouncer_is_gone(server: PostgresServer) -> None:
    """As on the page, only faster."""
    quick = Readiness(strict=True, spread=0, after=0.5, back_after=0.5)
    with ExitStack() as stack:
        bouncer = stack.enter_context(programs.pgbouncer(server.dsn))
        pools = [
            stack.enter_context(ConnectionPool(dsn, min_size=1, max_size=2))
            for dsn in (bouncer.dsn, server.dsn)
        ]
        for pool in pools:
            pool.wait(10)
        servers = [stack.enter_context(HealthServer(pool, 0, readiness=quick)) for pool in pools]
        balanced = Balanced(stack, *servers)
        eventually(lambda: balanced.serving() == BOTH)
        bouncer.down()
        eventually(lambda: balanced.serving() == {"orders2"}, timeout=10)
        assert status(f"{servers[0].url}/live") == 200
        bouncer.up()
        eventually(lambda: balanced.serving() == BOTH, timeout=10)
