"""A server that goes on and on is not waited for: head, body, handshake."""

from __future__ import annotations

import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from time import perf_counter

import pytest

from everpool.alerts import SinkError, Webhook
from everpool.alerts.notice import Notice
from everpool.discovery.http import Away, Site

LIMIT = 0.5


@contextmanager
def trickling(start: bytes, drop: bytes) -> Iterator[int]:
    """A server that answers ``start``, and then ``drop`` ten times a second; its port."""
    ended = Event()

    def serve() -> None:
        try:
            client = server.accept()[0]
        except OSError:
            return
        with client:
            try:
                client.recv(65536)
                client.sendall(start)
                while not ended.wait(0.1):
                    client.sendall(drop)
            except OSError:
                pass

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            ended.set()
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


ANSWERS = [
    pytest.param(b"", b"H", id="status"),
    pytest.param(b"HTTP/1.1 200 OK\r\n", b"X", id="head"),
    pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", id="100"),
]
BODIES = [
    pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n", b"x", id="body"),
    pytest.param(b"HTTP/1.1 200 OK\r\n\r\n", b"x", id="endless body"),
]


@pytest.mark.parametrize(("start", "drop"), ANSWERS + BODIES)
def test_a_registry_that_trickles(start: bytes, drop: bytes) -> None:
    with trickling(start, drop) as port:
        site, began = Site(f"http://127.0.0.1:{port}", "Consul", None), perf_counter()
        with pytest.raises(Away, match="no answer in time"):
            site.ask("GET", "/", None, {}, LIMIT)
        assert LIMIT - 0.1 < perf_counter() - began < LIMIT + 1.0


@pytest.mark.parametrize(("start", "drop"), ANSWERS)
def test_a_sink_that_trickles(start: bytes, drop: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("everpool.alerts.http.TIMEOUT", LIMIT)
    with trickling(start, drop) as port:
        sink, began = Webhook(f"http://127.0.0.1:{port}/s3cret"), perf_counter()
        with pytest.raises(SinkError) as caught:
            sink.send(Notice("1", 0.0, (), ()))
        assert LIMIT - 0.1 < perf_counter() - began < LIMIT + 1.0
    assert str(caught.value) == "http://127.0.0.1: no answer within 0.5 s"


def test_a_handshake_that_trickles() -> None:
    # A TLS record of 16 kB of handshake is announced, and comes byte by byte.
    with trickling(b"\x16\x03\x03\x40\x00", b"\x02") as port:
        site, began = Site(f"https://127.0.0.1:{port}", "Consul", None), perf_counter()
        with pytest.raises(Away, match="no answer in time"):
            site.ask("GET", "/", None, {}, LIMIT)
        assert perf_counter() - began < LIMIT + 1.0


def test_tls_is_asked_as_the_owner_says(tmp_path: Path) -> None:
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = f"openssl req -x509 -newkey rsa:2048 -nodes -keyout {key} -out {cert} -days 1"
    subject = ("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1")
    subprocess.run([*command.split(), *subject], check=True, capture_output=True)
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.load_cert_chain(cert, key)

    def serve() -> None:
        for _ in range(2):
            with server.accept()[0] as plain:
                try:
                    with theirs.wrap_socket(plain, server_side=True) as client:
                        client.recv(65536)
                        client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                except OSError:
                    pass

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = Thread(target=serve)
        thread.start()
        url = f"https://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(Away, match="CERTIFICATE_VERIFY_FAILED"):
            Site(url, "Consul", None).ask("GET", "/", None, {}, 5.0)
        ours = ssl.create_default_context(cafile=str(cert))
        assert Site(url, "Consul", ours).ask("GET", "/", None, {}, 5.0) == (200, b"ok")
        thread.join()
