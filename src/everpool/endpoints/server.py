"""A small HTTP server in a thread, for processes that have none: workers, consumers, crons.

It answers while an event loop is blocked, which is when a liveness probe is worth having. What
it does is bounded: who is slow, silent or rude loses the connection, and who comes when all
places are taken gets the place of whoever has been quiet longest, so that a prober gets in
whatever others do.
"""

from __future__ import annotations

import io
import logging
import os
import socket
import socketserver
from collections.abc import Iterable
from http import HTTPStatus
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler
from ipaddress import ip_address
from threading import Lock, Thread, current_thread
from time import monotonic, sleep
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit
from weakref import WeakSet

from .payload import Reply, refusal
from .questions import ALLOW, Endpoints
from .readiness import Readiness

if TYPE_CHECKING:
    from .questions import Pool

__all__ = ["HealthServer"]

logger = logging.getLogger("everpool.endpoints")

# Probers of a few kinds, with a connection kept open each, and room to spare.
PLACES = 64

# A request has to be complete so many seconds after its connection was accepted, or after the
# answer before it: longer than the pause of common probers (Kubernetes 10 s, HAProxy 2 s).
PATIENCE = 30.0

# All headers of a request together; a prober's have some hundred bytes. `http.server` would take
# 6 MB from each of the connections.
LONGEST_HEAD = 16 * 1024

# How often the server looks whose time is up, and whether it is to end.
EVERY = 0.25

# When no connection can be accepted because descriptors have run out: not to spin meanwhile.
EXHAUSTED = 0.1

# Closing waits so long for each thread; they are in the middle of an answer at most.
GRACE = 1.0


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"  # connections may be kept
    default_request_version = "HTTP/1.0"  # who names none gets a whole answer all the same
    wbufsize = -1  # an answer is one packet
    timeout = PATIENCE
    server: _Server

    def parse_request(self) -> bool:
        whole = self.rfile
        self.rfile = _Head(whole)
        try:
            return super().parse_request()
        finally:
            self.rfile = whole

    def do_GET(self) -> None:
        if self.server.private and not _is_own(self.headers.get("Host", "")):
            self.close_connection = True
            return self._send(refusal(HTTPStatus.MISDIRECTED_REQUEST, "unknown host"))
        if self.headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in self.headers:
            self.close_connection = True  # what follows is not a request
        known = ",".join(self.headers.get_all("If-None-Match", ()))
        self._send(self.server.endpoints.reply(self.command, _path(self.path), known))

    do_HEAD = do_GET

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuse what is no request, or not one of ours. Nothing of it is repeated."""
        self.close_connection = True  # its body may follow
        if code == HTTPStatus.NOT_IMPLEMENTED:
            self._send(refusal(HTTPStatus.METHOD_NOT_ALLOWED, "unknown method", ALLOW))
        else:
            self._send(refusal(code, "bad request"))

    def _send(self, reply: Reply) -> None:
        self.send_response_only(reply.code)
        self.send_header("Date", self.date_time_string())
        for name, value in reply.headers:
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body)
        self.wfile.flush()
        self.server.renew(self.request)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Requests are not logged: probes would fill any log."""


class _Head(io.BufferedIOBase):
    """The lines of a head, which is refused when it is too long."""

    def __init__(self, whole: io.BufferedIOBase) -> None:
        self._whole = whole
        self._left = LONGEST_HEAD

    def readline(self, size: int | None = -1, /) -> bytes:
        line = self._whole.readline(self._left + 1)
        self._left -= len(line)
        if self._left < 0:
            raise HTTPException("the head is too long")  # answered with 431
        return line


class _Server(socketserver.TCPServer):
    """A listener, a thread for each connection, and an end for those that overstay."""

    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, host: str, port: int, endpoints: Endpoints, details: bool) -> None:
        self.endpoints = endpoints
        self.private = False
        self._guests: dict[socket.socket, float] = {}  # quiet longest first; and until when
        self._threads: set[Thread] = set()
        self._mutex = Lock()
        if ":" in host:
            self.address_family = socket.AF_INET6
        super().__init__((host, port), _Handler)
        self.private = details and ip_address(str(self.server_address[0])).is_loopback
        _servers.add(self)

    def renew(self, guest: Any) -> None:
        """A connection's time begins anew."""
        with self._mutex:
            if self._guests.pop(guest, None) is not None:
                self._guests[guest] = monotonic() + PATIENCE

    def get_request(self) -> tuple[socket.socket, Any]:
        try:
            return super().get_request()
        except OSError:
            sleep(EXHAUSTED)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._mutex:
            if len(self._guests) >= PLACES:
                self._hang_up(next(iter(self._guests)))
            self._guests[request] = monotonic() + PATIENCE
            thread = Thread(
                target=self._serve,
                args=(request, client_address),
                name="everpool-health-guest",
                daemon=True,
            )
            thread.start()
            self._threads.add(thread)

    def _serve(self, request: Any, client_address: Any) -> None:
        try:
            self.finish_request(request, client_address)
        except Exception:
            self.handle_error(request, client_address)
        finally:
            self.shutdown_request(request)
            with self._mutex:
                self._threads.discard(current_thread())

    def shutdown_request(self, request: Any) -> None:
        with self._mutex:
            self._guests.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that vanish in the middle are nothing to tell of."""
        logger.debug("a connection to the health server failed", exc_info=True)

    def service_actions(self) -> None:
        now = monotonic()
        with self._mutex:
            for guest, until in list(self._guests.items()):
                if until > now:
                    break
                self._hang_up(guest)

    def _hang_up(self, guest: socket.socket) -> None:
        """End a connection. Its thread closes it."""
        del self._guests[guest]
        try:
            guest.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it has ended by itself

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        with self._mutex:
            for guest in list(self._guests):
                self._hang_up(guest)
            threads = list(self._threads)
        for thread in threads:
            thread.join(GRACE)

    def abandon(self) -> None:
        """In a forked child: give up the copies of the parent's sockets, without a word on them."""
        self.socket.close()
        for guest in self._guests:
            os.close(guest.detach())


class HealthServer:
    """A server of ``/live``, ``/ready``, ``/startup`` and ``/health`` in a daemon thread.

    ::

        with HealthServer(pool, 8081):
            work()

    A forked child does not serve; it may start a server of its own.

    :param port: 0 for any free one; see ``port`` afterwards.
    :param host: the address to listen at. The default, the loopback, is right for probes that
        run inside; Kubernetes' ``httpGet`` and balancers need ``"0.0.0.0"`` or ``"::"``.

    The other parameters, and what else is raised, are those of `Endpoints`.
    """

    def __init__(
        self,
        pools: Pool | Iterable[Pool],
        port: int,
        *,
        host: str = "127.0.0.1",
        readiness: Readiness | None = None,
        details: bool = False,
    ) -> None:
        self.host = host
        self.port = port
        self._endpoints = Endpoints(pools, readiness=readiness, details=details)
        self._details = details
        self._server: _Server | None = None
        self._pid = 0

    @property
    def url(self) -> str:
        """Where it answers: ``http://127.0.0.1:8081``."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    def start(self) -> Self:
        """Begin to serve; does nothing if it does.

        :raises OSError: the address cannot be had.
        """
        if self._server is None or self._pid != os.getpid():
            server = _Server(self.host, self.port, self._endpoints, self._details)
            self.port = server.server_address[1]
            thread = Thread(
                target=server.serve_forever, args=(EVERY,), name="everpool-health", daemon=True
            )
            thread.start()
            self._server, self._pid = server, os.getpid()
        return self

    def close(self) -> None:
        """End; does nothing if it has ended, or runs in the process that this one came from."""
        server, self._server = self._server, None
        if server is not None and self._pid == os.getpid():
            server.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _path(target: str) -> str:
    """The path of what a request asks for, which may be an address in full."""
    if not target.startswith("/"):
        target = "/" + target.partition("://")[2].partition("/")[2]
    return target.partition("?")[0]


def _is_own(host: str) -> bool:
    """Whether a request may be meant for a server on the loopback.

    A web site can lead a name of its own here, and have a browser ask for details.
    """
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name in ("", "localhost") or bool(ip_address(name))
    except ValueError:
        return False


_servers: WeakSet[_Server] = WeakSet()


def _after_fork() -> None:
    for server in list(_servers):
        server.abandon()
    _servers.clear()


os.register_at_fork(after_in_child=_after_fork)
