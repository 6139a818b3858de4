"""PostgreSQL's wire protocol, version 3: bytes in, whole messages out; and a few built by hand.

A frame is a type byte, a length that counts itself, and a body. The exceptions are all at the
beginning: a client's first packets carry no type byte, and a server answers a request for
encryption with one bare byte. After a "yes" to such a request everything is opaque. The two readers
know these rules and nothing about what a message means.

Reference: PostgreSQL documentation, "Frontend/Backend Protocol", sections on message flow and
message formats.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

__all__ = [
    "CLIENT_KINDS",
    "SERVER_KINDS",
    "ClientReader",
    "Frame",
    "ServerReader",
    "build",
    "cancel_request",
    "error_response",
    "notice_response",
    "notification_response",
    "parameter_status",
    "ready_for_query",
    "startup_message",
]

PROTOCOL_3_0: Final = 196608
_SSL_REQUEST: Final = 80877103
_GSSENC_REQUEST: Final = 80877104
_CANCEL_REQUEST: Final = 80877102
_SPECIAL: Final = {
    _SSL_REQUEST: "SSLRequest",
    _GSSENC_REQUEST: "GSSENCRequest",
    _CANCEL_REQUEST: "CancelRequest",
}

CLIENT_KINDS: Final = {
    b"B": "Bind",
    b"C": "Close",
    b"D": "Describe",
    b"E": "Execute",
    b"F": "FunctionCall",
    b"H": "Flush",
    b"P": "Parse",
    b"Q": "Query",
    b"S": "Sync",
    b"X": "Terminate",
    b"c": "CopyDone",
    b"d": "CopyData",
    b"f": "CopyFail",
    b"p": "PasswordMessage",
}
SERVER_KINDS: Final = {
    b"1": "ParseComplete",
    b"2": "BindComplete",
    b"3": "CloseComplete",
    b"A": "NotificationResponse",
    b"C": "CommandComplete",
    b"D": "DataRow",
    b"E": "ErrorResponse",
    b"G": "CopyInResponse",
    b"H": "CopyOutResponse",
    b"I": "EmptyQueryResponse",
    b"K": "BackendKeyData",
    b"N": "NoticeResponse",
    b"R": "Authentication",
    b"S": "ParameterStatus",
    b"T": "RowDescription",
    b"V": "FunctionCallResponse",
    b"W": "CopyBothResponse",
    b"Z": "ReadyForQuery",
    b"c": "CopyDone",
    b"d": "CopyData",
    b"n": "NoData",
    b"s": "PortalSuspended",
    b"t": "ParameterDescription",
    b"v": "NegotiateProtocolVersion",
}

# The largest first packet a server takes (MAX_STARTUP_PACKET_LENGTH): beyond it, this is not
# PostgreSQL.
_MAX_STARTUP = 10000
# The first byte of a TLS record: a client may begin with it, without asking.
_TLS_HANDSHAKE = 0x16


@dataclass(frozen=True, slots=True)
class Frame:
    """One message, exactly as it was on the wire.

    ``kind`` is its name in the protocol's documentation, or ``"Opaque"`` for bytes that are
    encrypted or not PostgreSQL's. ``tag`` is the type byte, empty for packets without one.
    """

    kind: str
    tag: bytes
    data: bytes

    @property
    def body(self) -> bytes:
        """What follows the length field; all bytes where there is no such field."""
        if self.kind in ("Opaque", "EncryptionReply"):
            return self.data
        return self.data[len(self.tag) + 4 :]


class _Reader:
    """What both directions share: a buffer, and the shape of typed frames."""

    _kinds: dict[bytes, str]

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.opaque = False

    @property
    def pending(self) -> int:
        """Number of bytes of a message that has not arrived whole."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[Frame]:
        """Take *data* and return the messages it completes, in order.

        Never raises: what is no message is opaque.
        """
        self._buffer += data
        frames = []
        while self._buffer:
            frame = self._opaque_frame() if self.opaque else self._next()
            if frame is None:
                break
            frames.append(frame)
        return frames

    def _next(self) -> Frame | None:
        return self._typed()

    def _typed(self) -> Frame | None:
        if len(self._buffer) < 5:
            return None
        length = int.from_bytes(self._buffer[1:5], "big")
        tag = bytes(self._buffer[:1])
        if length < 4 or tag not in self._kinds:
            return self._opaque_frame()
        return self._take(1 + length, self._kinds[tag], tag)

    def _take(self, size: int, kind: str, tag: bytes) -> Frame | None:
        if len(self._buffer) < size:
            return None
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return Frame(kind, tag, data)

    def _opaque_frame(self) -> Frame | None:
        self.opaque = True
        return self._take(len(self._buffer), "Opaque", b"")


class ClientReader(_Reader):
    """Reads what a client sends. After an encrypted reply, set ``opaque``."""

    _kinds = CLIENT_KINDS

    def __init__(self) -> None:
        super().__init__()
        self._started = False

    def _next(self) -> Frame | None:
        return self._typed() if self._started else self._untyped()

    def _untyped(self) -> Frame | None:
        if self._buffer[0] == _TLS_HANDSHAKE:
            return self._opaque_frame()
        if len(self._buffer) < 8:
            return None
        length, code = struct.unpack_from("!II", self._buffer)
        if not 8 <= length <= _MAX_STARTUP:
            return self._opaque_frame()
        kind = _SPECIAL.get(code, "StartupMessage")
        frame = self._take(length, kind, b"")
        if frame is not None and kind == "StartupMessage":
            self._started = True
        return frame


class ServerReader(_Reader):
    """Reads what a server sends; to be told of encryption requests by :meth:`expect_reply`."""

    _kinds = SERVER_KINDS

    def __init__(self) -> None:
        super().__init__()
        self._replies = 0

    def expect_reply(self) -> None:
        """The next byte answers an encryption request, unless it begins an ErrorResponse."""
        self._replies += 1

    def _next(self) -> Frame | None:
        if not self._replies:
            return self._typed()
        self._replies -= 1
        if self._buffer[:1] == b"E":
            return self._typed()
        self.opaque = bytes(self._buffer[:1]) in (b"S", b"G")
        return self._take(1, "EncryptionReply", b"")


def build(tag: bytes, body: bytes = b"") -> bytes:
    """Return a frame of type *tag* around *body*."""
    return tag + struct.pack("!I", len(body) + 4) + body


def _text(value: str) -> bytes:
    if "\0" in value:
        raise ValueError("a PostgreSQL string cannot contain a NUL character")
    return value.encode() + b"\0"


def _report(
    tag: bytes, severity: str, sqlstate: str, message: str, detail: str, hint: str
) -> bytes:
    if len(sqlstate) != 5:
        raise ValueError(f"an SQLSTATE has five characters, not {sqlstate!r}")
    # S may be translated, V (since 9.6) never is; the rest as servers order it.
    fields = {"S": severity, "V": severity, "C": sqlstate, "M": message, "D": detail, "H": hint}
    return build(
        tag, b"".join(key.encode() + _text(value) for key, value in fields.items() if value) + b"\0"
    )


def error_response(
    sqlstate: str, message: str, *, severity: str = "FATAL", detail: str = "", hint: str = ""
) -> bytes:
    """Return an ErrorResponse; *severity* is ERROR, FATAL or PANIC.

    Sending it closes nothing by itself.
    """
    return _report(b"E", severity, sqlstate, message, detail, hint)


def notice_response(
    sqlstate: str, message: str, *, severity: str = "WARNING", detail: str = "", hint: str = ""
) -> bytes:
    """Return a NoticeResponse; *severity* is WARNING, NOTICE, DEBUG, INFO or LOG."""
    return _report(b"N", severity, sqlstate, message, detail, hint)


def parameter_status(name: str, value: str) -> bytes:
    """Return a ParameterStatus: the server says that a setting has a value."""
    return build(b"S", _text(name) + _text(value))


def ready_for_query(status: str = "I") -> bytes:
    """Return a ReadyForQuery; *status* is I (idle), T (in a transaction) or E (in a failed one)."""
    if status not in ("I", "T", "E"):
        raise ValueError(f"no such transaction status: {status!r}")
    return build(b"Z", status.encode())


def notification_response(pid: int, channel: str, payload: str = "") -> bytes:
    """Return a NotificationResponse, as NOTIFY causes it; *pid* is the notifying backend's."""
    return build(b"A", struct.pack("!i", pid) + _text(channel) + _text(payload))


def startup_message(user: str, database: str = "", **parameters: str) -> bytes:
    """Return a StartupMessage of protocol 3.0."""
    pairs = {"user": user, **({"database": database} if database else {}), **parameters}
    body = (
        struct.pack("!I", PROTOCOL_3_0)
        + b"".join(_text(k) + _text(v) for k, v in pairs.items())
        + b"\0"
    )
    return struct.pack("!I", len(body) + 4) + body


def cancel_request(pid: int, key: int) -> bytes:
    """Return a CancelRequest for the backend *pid* with its secret *key*."""
    return struct.pack("!IIiI", 16, _CANCEL_REQUEST, pid, key)
