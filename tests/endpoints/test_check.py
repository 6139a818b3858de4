"""The probe as a command, run as a platform runs it."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import pytest

from everpool.endpoints import HealthServer
from tests.support.figures import Figures
from tests.support.net import refusing_port, silent_port

from .pools import DOWN, SATURATED, STUCK, Pretended

EVERPOOL = Path(sys.executable).with_name("everpool")


def check(*words: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [EVERPOOL, "check", *words], capture_output=True, text=True, timeout=30, check=False
    )
    return done.returncode, done.stdout, done.stderr


@contextmanager
def answering(*pieces: bytes, pause: float = 0.0) -> Iterator[str]:
    """A server that answers the first connection with these bytes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            sock, _ = listener.accept()
            with sock:
                sock.recv(65536)
                try:
                    for piece in pieces:
                        sock.sendall(piece)
                        over.wait(pause)
                except OSError:
                    pass

        over = threading.Event()
        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/health"
        over.set()
        thread.join(5)


@pytest.mark.parametrize(
    ("path", "changes", "code", "line"),
    [
        ("/ready", {}, 0, "pass\n"),
        ("/ready", SATURATED, 0, "warn: saturated\n"),
        ("/live", STUCK, 1, "fail: stuck\n"),
        ("/health", DOWN, 1, "fail: down\n"),
        ("/health", {"cuts": 3}, 0, "warn: orders: 3 connections cut within a minute\n"),
    ],
)
def test_the_status_tells(path: str, changes: dict[str, Any], code: int, line: str) -> None:
    with HealthServer(Pretended(**changes), 0) as health:  # type: ignore[arg-type]
        assert check(health.url + path) == (code, line, "")


def test_as_json() -> None:
    with HealthServer(Pretended(**DOWN), 0) as health:  # type: ignore[arg-type]
        code, out, err = check("--json", f"{health.url}/health")
        told = json.loads(out)
        assert 0 < told.pop("took") < 1
        assert (code, err) == (1, "")
        assert told == {"status": "fail", "http": 503, "code": "down", "retry_after": 1}
        code, out, err = check("--json", f"{health.url}/nothing")
        told = json.loads(out)
        assert (code, told["status"], told["http"]) == (2, "unreachable", 404)


def test_who_does_not_answer_is_unreachable() -> None:
    with refusing_port() as port:
        code, out, err = check(f"http://127.0.0.1:{port}/ready")
        assert (code, out, err) == (2, "", "unreachable: Connection refused\n")
    with silent_port() as port:
        began = perf_counter()
        code, out, err = check(f"http://127.0.0.1:{port}/ready", "--timeout", "0.5")
        assert (code, out, err) == (2, "", "unreachable: no answer within 0.5 s\n")
        assert perf_counter() - began < 3


def test_the_timeout_holds_for_an_answer_that_drips() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n"
    with answering(head, *[b" "] * 40, pause=0.2) as url:
        assert check(url, "--timeout", "0.6")[::2] == (2, "unreachable: no answer within 0.6 s\n")


@pytest.mark.parametrize(
    ("answer", "code", "line"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\nhello", 0, "pass"),  # any service that says 200
        (b"HTTP/1.1 204 No Content\r\n\r\n", 0, "pass"),
        (b'HTTP/1.1 200 OK\r\n\r\n{"status": "fail"}', 1, "fail"),
        (b'HTTP/1.1 200 OK\r\n\r\n{"status": ["x"]}', 0, "pass"),
        (b"HTTP/1.1 200 OK\r\n\r\n[1]", 0, "pass"),
        (b"HTTP/1.1 503 No\r\n\r\n<html>", 1, "fail"),
        (b"HTTP/1.1 302 Go\r\nLocation: /\r\n\r\n", 2, "unreachable: HTTP 302: no health endpoint"),
        (b"HTTP/1.1 500 Oh\r\n\r\n", 2, "unreachable: HTTP 500: no health endpoint"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", 2, "unreachable: SSH-2.0-OpenSSH_9.2"),
        (b"", 2, "unreachable: Remote end closed connection without response"),
    ],
)
def test_other_peoples_answers(answer: bytes, code: int, line: str) -> None:
    with answering(answer) as url:
        status, out, err = check(url)
        assert (status, (out + err).strip()) == (code, line)


@pytest.mark.parametrize(
    "body", [b'{"retry_after": NaN}', b'{"retry_after": 1e999}', b"[" * 100_000]
)
def test_what_is_no_json_does_no_harm(body: bytes) -> None:
    with answering(b"HTTP/1.1 503 No\r\n\r\n" + body) as url:
        code, out, _ = check(url, "--json")
        told = json.loads(out, parse_constant=pytest.fail)
        assert (code, told["status"]) == (1, "fail")
        assert "retry_after" not in told


def test_foreign_text_is_made_harmless() -> None:
    body = json.dumps({"status": "fail", "output": "\x1b[2J\n\x9b\u202e" + "x" * 5000})
    with answering(b"HTTP/1.1 503 No\r\n\r\n" + body.encode()) as url:
        code, out, _ = check(url)
        assert code == 1
        assert out.startswith(r"fail: \x1b[2J\n\x9b\u202exxx")
        assert len(out) < 300 and out.strip().isprintable()


@pytest.mark.parametrize(
    "url",
    ["", "ready", "ftp://x/", "http://", "http://x:y/", "http://[/", "http://x/a b", "http://x/é"],
)
def test_a_wrong_url_is_told(url: str) -> None:
    code, out, err = check(url)
    assert (code, out) == (2, "")
    assert "http://HOST:PORT/PATH is needed" in err


def test_a_password_in_the_url_is_not_told() -> None:
    with refusing_port() as port:
        code, out, err = check(f"http://me:hunter2@127.0.0.1:{port}/ready?key=hunter2", "--json")
        assert code == 2
        assert "hunter2" not in out + err


def test_it_starts_fast(figure: Figures) -> None:
    with HealthServer(Pretended(), 0) as health:  # type: ignore[arg-type]
        took = []
        for _ in range(7):
            began = perf_counter()
            assert check(f"{health.url}/ready")[0] == 0
            took.append(perf_counter() - began)
    figure("everpool check, start to end, ms", 1000 * median(took), 400)


def test_nothing_of_the_pools_is_loaded() -> None:
    program = "import sys, everpool.check; print([m for m in sys.modules if 'psycopg' in m])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
