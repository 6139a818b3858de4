"""The page from a thread, and how servers with open pages end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from time import monotonic
from typing import Any

import httpx
import pytest

from everpool import ConnectionPool, web
from everpool.lab import PostgresServer


def test_it_binds_loopback_and_answers_to_its_own_names_only(pool: ConnectionPool[Any]) -> None:
    with web.serve(pool) as server:
        assert server.url.startswith("http://127.0.0.1:")
        assert httpx.get(server.url).status_code == 200
        data = f"{server.url}snapshot.json"
        port = server.url.rsplit(":")[-1].strip("/")
        assert httpx.get(data, headers={"host": f"localhost:{port}"}).status_code == 200
        assert httpx.get(data, headers={"host": f"evil.example:{port}"}).status_code == 400
    with pytest.raises(httpx.ConnectError):
        httpx.get(server.url)


def test_a_taken_port_is_told_at_once(pool: ConnectionPool[Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(OSError):
            web.serve(pool, port=taken.getsockname()[1])


def test_closing_ends_open_streams_and_the_thread(pool: ConnectionPool[Any]) -> None:
    server = web.serve(pool)
    with httpx.stream("GET", f"{server.url}stream") as stream:
        lines = stream.iter_lines()
        assert next(lines).startswith("retry:")
        began = monotonic()
        closing = threading.Thread(target=server.close)
        closing.start()
        for _ in lines:  # until the server ends it
            pass
        closing.join(5)
    assert monotonic() - began < 1.5
    assert "everpool-web" not in [thread.name for thread in threading.enumerate()]
    server.close()


MOUNTED = """
import sys, uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount
from everpool import ConnectionPool, web
with ConnectionPool(sys.argv[1], min_size=1) as pool:
    app = Starlette(routes=[Mount("/pool", web.app(pool))])
    uvicorn.run(app, port=int(sys.argv[2]), log_level="error")
"""


def test_an_open_page_does_not_hold_up_the_end_of_the_users_server(server: PostgresServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = [sys.executable, "-c", MOUNTED, server.dsn, str(port)]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env={**os.environ}) as process:
        try:
            with _stream(f"http://127.0.0.1:{port}/pool/stream") as stream:
                lines = stream.iter_lines()
                assert next(lines).startswith("retry:")
                process.send_signal(signal.SIGTERM)
                began = monotonic()
                for _ in lines:
                    pass
            process.wait(5)
            assert monotonic() - began < 3
        finally:
            process.kill()


def _stream(url: str) -> Any:
    deadline = monotonic() + 15
    while True:
        try:
            httpx.get(url.replace("stream", "snapshot.json"))
            return httpx.stream("GET", url, timeout=5)
        except httpx.ConnectError:
            assert monotonic() < deadline
