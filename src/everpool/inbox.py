"""What a listener's connection brings, sorted: notifications for the listener, and all else."""

from __future__ import annotations

from typing import Any

from psycopg import Notify

from . import ping
from .watch import Link


class Inbox:
    """What has come on one connection. It hangs on that connection, and knows no way back."""

    __slots__ = ("channels", "notes", "others", "private", "sender", "token")

    def __init__(self, channels: tuple[str, ...], private: str) -> None:
        self.channels = channels
        self.private = private
        self.others: set[str] = set()  # what the connection had listened to before
        self.notes: list[Notify] = []
        self.token = 0  # of the notification to ourselves that is expected
        self.sender: int | None = None  # the process that sent it, if it has come

    def expect(self) -> str:
        """The statement that sends a notification to ourselves."""
        self.token += 1
        self.sender = None
        return f"NOTIFY {self.private}, '{self.token}'"

    def take(self, note: Notify) -> bool:
        """Whether it concerns nobody but the listener."""
        if note.channel == self.private:
            if note.payload == str(self.token):
                self.sender = note.pid
            return True
        if note.channel in self.channels:
            self.notes.append(note)
        return note.channel in self.channels and note.channel not in self.others

    def attach(self, conn: Any, link: Link) -> tuple[Any, Any]:
        """Have all that the server says unasked come here; return the handlers before."""
        pgconn, encoding = conn.pgconn, conn.info.encoding
        before = on_notify, on_notice = pgconn.notify_handler, pgconn.notice_handler

        def notify(pgn: Any) -> None:
            channel, payload = pgn.relname.decode(encoding), pgn.extra.decode(encoding)
            if not self.take(Notify(channel, payload, pgn.be_pid)) and on_notify:
                on_notify(pgn)

        def notice(result: Any) -> None:
            ping.note(link, result)  # the reason of an end that may follow
            if on_notice:
                on_notice(result)

        link.verdicts.clear()
        pgconn.notify_handler, pgconn.notice_handler = notify, notice
        return before
