"""The server in a thread, and the rude."""

from __future__ import annotations

import http.client
import json
import os
import resource
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest

from everpool.endpoints import HealthServer, server
from everpool.lab import PostgresServer
from tests.support.threads import eventually

from .pools import DOWN, Pretended, Tasks


@contextmanager
def serving(pool: Any = None, **options: Any) -> Iterator[HealthServer]:
    with HealthServer(pool or Pretended(), 0, **options) as health:
        yield health


def get(health: HealthServer, path: str, method: str = "GET", **headers: str) -> Any:
    conn = http.client.HTTPConnection("127.0.0.1", health.port, timeout=5)
    try:
        conn.request(method, path, headers=headers)
        response = conn.getresponse()
        response.data = response.read()  # type: ignore[attr-defined]
        return response
    finally:
        conn.close()


def say(health: HealthServer, data: bytes) -> bytes:
    """What comes back for these bytes, until the server hangs up."""
    with socket.create_connection(("127.0.0.1", health.port), timeout=5) as sock:
        sock.sendall(data)
        with sock.makefile("rb") as answer:
            return answer.read()


def threads() -> int:
    return sum(thread.name.startswith("everpool-health") for thread in threading.enumerate())


def test_it_answers_on_the_loopback_only() -> None:
    with serving() as health:
        assert health.url == f"http://127.0.0.1:{health.port}"
        response = get(health, "/ready?verbose=1")
        assert (response.status, response.data) == (200, b'{"status": "pass"}')
        assert response.headers["Content-Type"] == "application/health+json"
        assert response.headers["Server"] is None
        listening = Path("/proc/net/tcp").read_text()
        assert f"0100007F:{health.port:04X} 00000000:0000 0A" in listening
        assert f"00000000:{health.port:04X} 00000000:0000 0A" not in listening


def test_it_listens_where_it_is_told() -> None:
    with serving(host="::1") as health:
        assert health.url == f"http://[::1]:{health.port}"
        with socket.create_connection(("::1", health.port), timeout=5) as sock:
            sock.sendall(b"GET /live HTTP/1.0\r\n\r\n")
            assert sock.recv(100).startswith(b"HTTP/1.1 200 OK\r\n")


def test_heads_methods_and_paths() -> None:
    with serving() as health:
        head = get(health, "/live", "HEAD")
        assert (head.status, head.data, head.headers["Content-Length"]) == (200, b"", "18")
        for method in ("POST", "OPTIONS", "BREW"):
            refused = get(health, "/live", method)
            assert (refused.status, refused.headers["Allow"]) == (405, "GET, HEAD")
        assert get(health, "/metrics").status == 404
        assert get(health, "http://example.org/live?x").status == 200
        etag = get(health, "/health").headers["ETag"]
        assert get(health, "/health", **{"If-None-Match": etag}).status == 304


def test_one_connection_serves_many_requests() -> None:
    with serving() as health:
        conn = http.client.HTTPConnection("127.0.0.1", health.port, timeout=5)
        conn.connect()
        mine = conn.sock.getsockname()
        for path, code in [("/live", 200), ("/nothing", 404), ("/health", 200), ("/ready", 200)]:
            conn.request("GET", path)
            response = conn.getresponse()
            assert (response.status, bool(response.read())) == (code, True)
            assert conn.sock.getsockname() == mine
        conn.close()


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"400"),  # TLS
        (b"hello\r\n\r\n", b"400"),
        (b"GET /live HTTP/9.9\r\n\r\n", b"505"),
        (b"GET /live HTTP/x\r\n\r\n", b"400"),
        (b"GET /" + 70000 * b"x" + b" HTTP/1.1\r\n\r\n", b"414"),
        (b"GET /live HTTP/1.1\r\n" + 200 * b"X: y\r\n" + b"\r\n", b"431"),
        (b"GET /live HTTP/1.1\r\n" + 9 * (b"X: " + 2000 * b"y" + b"\r\n") + b"\r\n", b"431"),
        (b"GET /live HTTP/1.1\r\nX: " + 70000 * b"y" + b"\r\n\r\n", b"431"),
        (b"POST /live HTTP/1.1\r\nContent-Length: 5\r\n\r\nGET /", b"405"),
    ],
)
def test_garbage_is_refused_and_not_repeated(data: bytes, code: bytes) -> None:
    with serving() as health:
        answer = say(health, data)
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 " + code)
        assert b"Connection: close" in head
        assert json.loads(body)["status"] == "fail"
        assert b"hello" not in answer and b"xxx" not in answer
        assert get(health, "/live").status == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8081", 200),
        ("127.0.0.1", 200),
        ("[::1]:8081", 200),
        ("", 200),
        ("rebound.example", 421),
        ("rebound.example:8081", 421),
        ("localhost.rebound.example", 421),
        ("[::1", 421),
    ],
)
def test_details_on_the_loopback_are_not_for_names_of_web_sites(host: str, status: int) -> None:
    with serving(details=True) as health:
        for path in ("/health", "/ready"):
            assert get(health, path, Host=host).status == status
    with serving() as health:  # nothing there is a secret, and local proxies have names
        assert get(health, "/health", Host=host).status == 200


def test_a_body_is_not_taken_for_a_request() -> None:
    with serving() as health:
        answer = say(
            health,
            b"GET /live HTTP/1.1\r\nContent-Length: 22\r\n\r\nGET /x HTTP/1.1\r\n\r\n\r\n\r\n",
        )
        assert answer.count(b"HTTP/1.1") == 1


def test_the_silent_and_the_slow_lose_their_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "PATIENCE", 0.5)
    with serving() as health:
        with socket.create_connection(("127.0.0.1", health.port), timeout=5) as slow:
            began = monotonic()
            with pytest.raises(OSError):
                while monotonic() - began < 5:  # a byte now and then is not a request
                    slow.sendall(b"G")
                    sleep(0.05)
            assert 0.4 <= monotonic() - began < 2
        assert get(health, "/live").status == 200
        eventually(lambda: threads() == 1)


def test_many_who_do_not_speak_keep_nobody_out() -> None:
    with serving() as health:
        crowd = [socket.create_connection(("127.0.0.1", health.port)) for _ in range(300)]
        began = monotonic()
        for _ in range(20):
            assert get(health, "/ready").status == 200
        assert monotonic() - began < 2
        eventually(lambda: threads() <= server.PLACES + 1)
        for sock in crowd:
            sock.close()
        eventually(lambda: threads() == 1)


def test_clients_that_reset_leave_nothing_behind(capfd: pytest.CaptureFixture[str]) -> None:
    with serving() as health:
        for _ in range(50):
            sock = socket.create_connection(("127.0.0.1", health.port))
            sock.sendall(b"GET /health HTTP/1.1\r\n\r\n" * 20)
            # Reset instead of closing in good order.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            sock.close()
        assert get(health, "/live").status == 200
        eventually(lambda: threads() == 1)
    assert capfd.readouterr() == ("", "")


def test_it_survives_running_out_of_descriptors() -> None:
    with serving() as health:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        sock = socket.create_connection(("127.0.0.1", health.port))
        used = len(os.listdir("/proc/self/fd"))
        waiting = socket.socket()
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (used, hard))
            waiting.connect(("127.0.0.1", health.port))
            began, cpu = monotonic(), sum(os.times()[:2])
            sleep(0.5)
            assert sum(os.times()[:2]) - cpu < 0.3 * (monotonic() - began)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            waiting.close()
            sock.close()
        assert get(health, "/live").status == 200


def test_it_ends_at_once_and_leaves_nothing() -> None:
    before = threading.active_count()
    fds = len(os.listdir("/proc/self/fd"))
    with serving() as health:
        idle = socket.create_connection(("127.0.0.1", health.port))
        conn = http.client.HTTPConnection("127.0.0.1", health.port)
        conn.request("GET", "/live")
        conn.getresponse().read()
        began = monotonic()
    assert monotonic() - began < 1
    assert threading.active_count() == before
    idle.close()
    conn.close()
    assert len(os.listdir("/proc/self/fd")) == fds
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", health.port))
    health.close()  # again


def test_it_may_start_again_on_its_port() -> None:
    health = HealthServer(Pretended(), 0)  # type: ignore[arg-type]
    for _ in range(3):
        with health:
            assert health.start() is health
            assert get(health, "/live").status == 200


def test_a_port_that_is_taken_is_told_at_start() -> None:
    with serving() as health, pytest.raises(OSError, match="in use"):
        HealthServer(Pretended(), health.port).start()  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_child_neither_holds_the_port_nor_harms_the_parent() -> None:
    with serving() as health:
        conn = http.client.HTTPConnection("127.0.0.1", health.port, timeout=5)
        conn.request("GET", "/live")
        conn.getresponse().read()
        ours, theirs = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(theirs)
            try:
                health.close()  # must not end the parent's
                with HealthServer(Pretended(**DOWN), 0) as own:  # type: ignore[arg-type]
                    code = 0 if get(own, "/health").status == 503 else 1
                os.read(ours, 1)
            except BaseException:
                code = 2
            os._exit(code)
        os.close(ours)
        conn.request("GET", "/live")  # the connection from before
        assert conn.getresponse().read() == b'{"status": "pass"}'
        assert get(health, "/live").status == 200
        conn.close()
        health.close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", health.port))
        os.close(theirs)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_it_answers_while_the_loop_is_blocked_and_says_so(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Half a minute is long for a test; the limit is the pool's, and so is the reckoning.
    monkeypatch.setattr("everpool.core.health.DEAD_AFTER", 1.0)
    world = Tasks()
    try:
        pool = world.open(server.dsn, min_size=1, max_size=1)
        world.wait(pool)
        with serving(pool) as health:
            assert get(health, "/live").status == 200
            world.block(8.0)  # up to five seconds pass before the pool's next turn is due
            began = monotonic()
            eventually(lambda: get(health, "/live").status == 503, timeout=7)
            assert monotonic() - began >= 1.0
            stuck = {"status": "fail", "code": "stuck", "retry_after": 5}
            assert json.loads(get(health, "/live").data) == stuck
            eventually(lambda: get(health, "/live").status == 200, timeout=9)
    finally:
        world.stop()


def test_a_program_that_never_closes_it_ends_all_the_same() -> None:
    program = """
import threading, socket
from everpool import ConnectionPool
from everpool.endpoints import HealthServer
pool = ConnectionPool("host=127.0.0.1 port=1", min_size=1, open=False)
health = HealthServer(pool, 0).start()
socket.create_connection(("127.0.0.1", health.port)).detach()
"""
    began = monotonic()
    command = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert monotonic() - began < 10
