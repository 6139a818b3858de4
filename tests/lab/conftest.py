"""A client that speaks the wire protocol itself, to see what a driver would hide."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest

from everpool.lab import FaultProxy
from everpool.lab.frames import Frame, ServerReader, build, startup_message

WAIT = 10.0


class RawClient:
    """A blocking connection through the proxy, with a limit on every wait."""

    def __init__(self, proxy: FaultProxy) -> None:
        self.sock = socket.create_connection((proxy.host, proxy.port), timeout=WAIT)
        self.number = proxy.find(client_port=self.sock.getsockname()[1])
        self._reader = ServerReader()
        self._frames: list[Frame] = []

    def login(self) -> RawClient:
        self.sock.sendall(startup_message("postgres", "postgres"))
        self.until("ReadyForQuery")
        return self

    def query(self, sql: str) -> None:
        self.sock.sendall(build(b"Q", sql.encode() + b"\0"))

    def until(self, kind: str) -> list[Frame]:
        """Return the frames up to the first of this kind, inclusive."""
        taken: list[Frame] = []
        while True:
            while self._frames:
                taken.append(self._frames.pop(0))
                if taken[-1].kind == kind:
                    return taken
            data = self.sock.recv(65536)
            assert data, (
                f"the connection ended before {kind}; got {[frame.kind for frame in taken]}"
            )
            self._frames += self._reader.feed(data)

    def ending(self) -> str:
        """Read to the end; tell whether it was a ``fin`` or an ``rst``."""
        try:
            while data := self.sock.recv(65536):
                self._frames += self._reader.feed(data)
        except ConnectionResetError:
            return "rst"
        return "fin"

    def left_over(self) -> list[Frame]:
        return self._frames

    def is_quiet(self, seconds: float = 0.15) -> bool:
        """Tell whether neither data nor an end arrives for a while."""
        self.sock.settimeout(seconds)
        try:
            self.sock.recv(1, socket.MSG_PEEK)
        except TimeoutError:
            return True
        except ConnectionResetError:
            pass
        finally:
            self.sock.settimeout(WAIT)
        return False


Raw = Callable[[], RawClient]


@pytest.fixture
def raw(proxy: FaultProxy) -> Iterator[Raw]:
    """Make clients that are connected at TCP level and closed after the test."""
    made: list[RawClient] = []

    def make() -> RawClient:
        made.append(RawClient(proxy))
        return made[-1]

    yield make
    for client in made:
        client.sock.close()
