"""An HTTP server that keeps what it is sent, and answers as it is told to."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from time import monotonic, sleep
from typing import Any, Self

from everpool.alerts import Alert, Notice


class Receiver:
    """`statuses` are given one by one, then 200 for ever; while `hanging` is set nothing is."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.bodies: list[Any] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self.methods: list[str] = []
        self.hanging = False
        self._let_go = Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver.times.append(monotonic())
                receiver.methods.append(self.command)
                receiver.headers.append(dict(self.headers))
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                if receiver.hanging:
                    receiver._let_go.wait(30)
                status = receiver.statuses.pop(0) if receiver.statuses else 200
                if status < 300:
                    receiver.bodies.append(json.loads(body) if body else None)
                self.send_response(status)
                if 300 <= status < 400:
                    self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_GET = do_POST

            def log_message(self, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # a client that has gone

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/hook/s3cret"

    def __enter__(self) -> Self:
        Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *args: object) -> None:
        self._let_go.set()
        self._server.shutdown()
        self._server.server_close()

    def alerts(self, status: str) -> list[Any]:
        """All alerts received so far with this status."""
        return [a for body in list(self.bodies) for a in body["alerts"] if a["status"] == status]


def wait_for(condition: Any, timeout: float = 10.0) -> Any:
    until = monotonic() + timeout
    while not (value := condition()):
        assert monotonic() < until, f"still not so after {timeout} s"
        sleep(0.01)
    return value


def alert(condition: str = "unreachable", pool: str = "main", **values: Any) -> Alert:
    given: dict[str, Any] = {
        "severity": "critical",
        "title": "database unreachable",
        "summary": "No connection can be opened.",
        "advice": "Look.",
        "detail": "",
        "started": 10.0,
    }
    return Alert(pool=pool, condition=condition, **(given | values))


def notice(*firing: Alert, resolved: tuple[Alert, ...] = (), **values: Any) -> Notice:
    given: dict[str, Any] = {"id": "n-1", "at": 40.0, "epoch": 1.7e9, "source": "billing"}
    return Notice(firing=firing, resolved=resolved, **(given | values))
