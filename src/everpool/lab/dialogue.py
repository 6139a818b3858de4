"""What the two ends of one connection have told each other so far.

Both directions' frames go through here. The relay learns from it what it must know to time a fault:
whether the login is through, whether a request is in hand, which backend this is.
"""

from __future__ import annotations

from collections import deque

from everpool.lab.frames import ClientReader, Frame, ServerReader

__all__ = ["Dialogue"]

_EXTENDED = frozenset((b"P", b"B", b"D", b"E", b"C"))
_REQUESTS = frozenset((b"Q", b"S", b"F"))


class Dialogue:
    """The state of one PostgreSQL session, as seen from between its ends."""

    def __init__(self) -> None:
        self._client = ClientReader()
        self._server = ServerReader()
        self._requests: deque[bytes] = deque()  # each will be answered by one ReadyForQuery
        self._unsynced = False
        self._copying_in = False
        self.started = False
        """A StartupMessage was seen."""
        self.ready = False
        """A ReadyForQuery was seen: the login is through."""
        self.cancel = False
        """This is no session: it carries a CancelRequest."""
        self.backend_pid = 0
        """Process id the server announced; 0 before that."""
        self.status = ""
        """Transaction status of the last ReadyForQuery: I, T, E; empty before the first."""

    @property
    def opaque(self) -> bool:
        """The bytes cannot be read: encrypted, or not PostgreSQL's."""
        return self._client.opaque or self._server.opaque

    @property
    def in_hand(self) -> bool:
        """A request is unanswered or a transaction is open; always false while :attr:`opaque`."""
        if self.opaque or not self.ready:
            return False
        return bool(self._requests) or self._unsynced or self._copying_in or self.status != "I"

    def from_client(self, data: bytes) -> list[Frame]:
        """Take bytes the client sent; return the messages they complete."""
        frames = self._client.feed(data)
        for frame in frames:
            self._note_client(frame)
        return frames

    def from_server(self, data: bytes) -> list[Frame]:
        """Take bytes the server sent; return the messages they complete.

        They count when the client gets them, of which :meth:`delivered` is told one by one.
        """
        frames = self._server.feed(data)
        if self._server.opaque:
            self._client.opaque = True
        return frames

    def delivered(self, frame: Frame) -> None:
        """Take a message of the server's, or the relay's own, that was sent to the client."""
        if frame.tag == b"Z":
            self.ready = True
            self.status = frame.body.decode("ascii", "replace")
            self._copying_in = False
            if self._requests:
                self._requests.popleft()
        elif frame.tag == b"G":
            # The Sync that was sent with an extended-protocol COPY reaches the server in copy mode,
            # and is ignored.
            if self._requests and self._requests[0] == b"S":
                self._requests.popleft()
            self._copying_in = True
        elif frame.tag == b"K":
            self.backend_pid = int.from_bytes(frame.body[:4], "big")

    def forget(self) -> None:
        """Messages were lost: nothing is known to be in hand."""
        self._requests.clear()
        self._unsynced = self._copying_in = False

    def _note_client(self, frame: Frame) -> None:
        if frame.kind in ("SSLRequest", "GSSENCRequest"):
            self._server.expect_reply()
        elif frame.kind == "CancelRequest":
            self.cancel = True
        elif frame.kind == "StartupMessage":
            self.started = True
        elif frame.tag in _EXTENDED:
            self._unsynced = True
        elif frame.tag in _REQUESTS:
            self._requests.append(frame.tag)
            self._unsynced = False
        elif frame.tag in (b"c", b"f"):
            self._copying_in = False
