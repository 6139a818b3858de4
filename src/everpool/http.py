"""Requests over HTTP that end, for those who ask servers of others.

urllib's ``timeout`` holds for each step: a server that sends a byte now and then is waited for
without end, and with it the thread that asks. A `Deadline` holds for all of it.
"""

from __future__ import annotations

import socket
import ssl
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from threading import Lock, Timer
from types import TracebackType
from typing import Any, Self
from urllib.parse import SplitResult
from urllib.request import HTTPHandler, HTTPSHandler, Request


class Deadline:
    """Ends what is done through its `handlers` so many seconds after it was entered.

    Not bounded is the look-up of a name, and each address that is tried has the request's own
    ``timeout``.

    :ivar handlers: for an `OpenerDirector`; to be used while this is entered, by one thread.
    :ivar passed: whether it has ended something. What was read until then may be a part.
    """

    def __init__(self, seconds: float, tls: ssl.SSLContext | None = None) -> None:
        self.passed = False
        self.handlers = (_Handler(self), _TLSHandler(self, tls))
        self._sockets: list[socket.socket] = []
        self._mutex = Lock()
        self._timer = Timer(seconds, self._end)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        try:
            self._timer.start()
        except RuntimeError:
            pass  # the interpreter is ending, and the thread that asks ends with it
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        with self._mutex:
            for sock in self._sockets:
                sock.close()
            self._sockets.clear()

    def watch(self, sock: socket.socket) -> None:
        # A duplicate, as TLS takes a socket away from who opened it.
        with self._mutex:
            self._sockets.append(sock.dup())
            if self.passed:
                _shut(self._sockets[-1])

    def _end(self) -> None:
        with self._mutex:
            self.passed = True
            for sock in self._sockets:
                _shut(sock)


def shown(parts: SplitResult) -> str:
    """What may be told of a URL: scheme and host."""
    host = parts.hostname or ""
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}"


def _shut(sock: socket.socket) -> None:
    """End a connection; who waits on it is woken."""
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # it has ended by itself


class _Connection(HTTPConnection):
    deadline: Deadline

    def connect(self) -> None:
        super().connect()
        self.deadline.watch(self.sock)


class _TLSConnection(HTTPSConnection, _Connection):
    """It connects by `_Connection`, and shakes hands, under watch, afterwards."""


class _Handler(HTTPHandler):
    def __init__(self, deadline: Deadline) -> None:
        super().__init__()
        self._deadline = deadline

    def http_open(self, req: Request) -> HTTPResponse:
        return self.do_open(self._connect, req)

    def _connect(self, host: str, /, **options: Any) -> HTTPConnection:
        connection = _Connection(host, **options)
        connection.deadline = self._deadline
        return connection


class _TLSHandler(HTTPSHandler):
    def __init__(self, deadline: Deadline, tls: ssl.SSLContext | None) -> None:
        super().__init__()
        self._deadline = deadline
        self._tls = tls

    def https_open(self, req: Request) -> HTTPResponse:
        return self.do_open(self._connect, req)

    def _connect(self, host: str, /, **options: Any) -> HTTPConnection:
        connection = _TLSConnection(host, context=self._tls, **options)
        connection.deadline = self._deadline
        return connection
