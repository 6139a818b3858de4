"""The vocabulary of faults: how connections end, what sets a fault off, what the fault is.

Everything here is a plain value. What the values do is in :mod:`everpool.lab.link`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Literal, Self

from everpool.lab.frames import CLIENT_KINDS, SERVER_KINDS, Frame

__all__ = [
    "COMMIT",
    "COMMITTED",
    "FIN",
    "READY",
    "RST",
    "RST_NEXT",
    "SILENCE",
    "STARTUP",
    "Action",
    "Answer",
    "Cut",
    "CutAfter",
    "CutBefore",
    "Direction",
    "Drop",
    "Hold",
    "Message",
    "Reason",
    "Style",
    "fatal",
]

Direction = Literal["to_server", "to_client", "both"]
Kind = Literal["fin", "rst", "rst-next", "silence", "fatal"]
Reason = Literal["asked", "idle", "age", "message", "byte"]

_UNTYPED = (
    "StartupMessage",
    "SSLRequest",
    "GSSENCRequest",
    "CancelRequest",
    "EncryptionReply",
    "Opaque",
)


@dataclass(frozen=True, slots=True)
class Style:
    """How a connection is cut. Use the constants and :func:`fatal`, or :meth:`parse` for text.

    ``fin``: closed in good order, after all that is under way was delivered. ``rst``: reset at
    once. ``rst-next``: nothing is said now, the client's next packet is answered by a reset, as by
    a load balancer or NAT that forgot the flow. ``silence``: bytes are acknowledged and dropped, in
    both directions, for ever or until healed. ``fatal``: a FATAL ErrorResponse, then as ``fin``.
    """

    kind: Kind
    sqlstate: str = ""
    message: str = ""
    server_told: bool = True

    def one_sided(self) -> Self:
        """The same, but the server is not told.

        Its session goes on, with its locks and its transaction. It is told when the proxy closes.
        """
        return replace(self, server_told=False)

    @classmethod
    def parse(cls, text: str) -> Style:
        """Return the style of that name; the last is written ``fatal:<SQLSTATE>``.

        Raises :class:`ValueError`.
        """
        kind, _, sqlstate = text.partition(":")
        if kind == "fatal":
            return fatal(sqlstate) if sqlstate else fatal()
        for style in (FIN, RST, RST_NEXT, SILENCE):
            if text == style.kind:
                return style
        raise ValueError(f"no such way to cut a connection: {text!r}")

    def __str__(self) -> str:
        return f"{self.kind}:{self.sqlstate}" if self.sqlstate else self.kind


FIN: Final = Style("fin")
RST: Final = Style("rst")
RST_NEXT: Final = Style("rst-next")
SILENCE: Final = Style("silence")


def fatal(
    sqlstate: str = "57P01", message: str = "terminating connection due to administrator command"
) -> Style:
    """Return the style that says goodbye with a FATAL ErrorResponse.

    On an encrypted connection, where nothing can be said, it is a ``fin``.
    """
    if len(sqlstate) != 5:
        raise ValueError(f"an SQLSTATE has five characters, not {sqlstate!r}")
    return Style("fatal", sqlstate, message)


@dataclass(frozen=True, slots=True)
class Message:
    """Which messages set a fault off.

    *sender* is ``"client"`` or ``"server"``. *kind* is the message's name in PostgreSQL's protocol
    documentation, or its type byte, or several of either; empty for any. *contains* must occur in
    the body, upper and lower case alike. *where* may look at the frame; it runs in the proxy's
    thread.
    """

    sender: Literal["client", "server"]
    kind: str | tuple[str, ...] = ()
    contains: bytes = b""
    where: Callable[[Frame], bool] | None = None

    def __post_init__(self) -> None:
        table = CLIENT_KINDS if self.sender == "client" else SERVER_KINDS
        known = {*table.values(), *(tag.decode() for tag in table), *_UNTYPED}
        if unknown := set(self.kinds) - known:
            raise ValueError(
                f"the {self.sender} sends no message called {', '.join(sorted(unknown))}"
            )

    @property
    def kinds(self) -> tuple[str, ...]:
        """*kind* as a tuple."""
        return (self.kind,) if isinstance(self.kind, str) else self.kind

    def matches(self, frame: Frame) -> bool:
        """Tell whether *frame*, known to come from the right sender, is meant."""
        kinds = self.kinds
        if kinds and frame.kind not in kinds and frame.tag.decode("latin-1") not in kinds:
            return False
        if self.contains and self.contains.upper() not in frame.body.upper():
            return False
        return self.where is None or self.where(frame)


STARTUP: Final = Message("client", "StartupMessage")
_commit_word = re.compile(rb"\bCOMMIT\b", re.IGNORECASE).search

COMMIT: Final = Message(
    "client", ("Query", "Parse"), where=lambda frame: _commit_word(frame.body) is not None
)
"""The client asks for a commit: the word is in its message.

In the extended protocol the request is complete only with the Sync that follows.
"""
COMMITTED: Final = Message("server", "CommandComplete", contains=b"COMMIT")
"""The server says that it committed."""
READY: Final = Message("server", "ReadyForQuery")


@dataclass(frozen=True, slots=True)
class CutBefore:
    """The message is not delivered; the connection is cut. What was sent before it is delivered."""

    style: Style = RST


@dataclass(frozen=True, slots=True)
class CutAfter:
    """The message is delivered; then the connection is cut, before any answer."""

    style: Style = RST


@dataclass(frozen=True, slots=True)
class Hold:
    """The message, and all behind it in its direction, waits until the rule is released.

    Then it is delivered, even when its sender is gone by then.
    """


@dataclass(frozen=True, slots=True)
class Drop:
    """The message vanishes."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The message is not delivered; the client gets *data*, then the cut, if any.

    Messages for *data* are built by :mod:`everpool.lab.frames`.
    """

    data: bytes
    then: Style | None = None


Action = CutBefore | CutAfter | Hold | Drop | Answer


@dataclass(frozen=True, slots=True)
class Cut:
    """One cut that happened. Times are seconds; *at* is on the clock of :func:`time.monotonic` and not
    later than the first sign of the cut."""

    link: int
    at: float
    style: Style
    reason: Reason
    idle: float
    age: float
    in_hand: bool
    """A request was unanswered, or a transaction was open."""
    backend_pid: int = 0
    """Process id of the server's backend; 0 before the login is through. Clients know it too."""
