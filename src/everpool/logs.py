"""The pool's log: one line for one thing, however often it happens.

Everything goes to `logging`, below the logger ``everpool``: ``everpool.connection`` and
``everpool.pool`` tell what happens, under names that stay (``record.event``, such as
``"connection.cut"``), with the values beside the text (``record.pool``, ``record.number``,
``record.cause`` …). What happens many times at once, or again and again, is folded into one
line with a ``count``.

`JSONFormatter` writes each record as one line of JSON, values included.
"""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from enum import Enum
from math import inf, isfinite
from typing import Any

from .core.events import Cut, Happening, OpenFailed, Pinged, Suspected
from .core.verdict import Cause
from .words import describe, duration, level

__all__ = ["JSONFormatter"]

# A line waits so long for others like it: a mass death takes milliseconds to be seen. What goes
# on happening is told ever more rarely.
WINDOWS = (0.1, 1.0, 10.0, 60.0)

# Different reasons told apart at one time: a server's text must not fill the memory.
MOST_FOLDS = 100


class _Fold:
    """Happenings of one kind that will become one line: the first, the last, the extremes."""

    def __init__(self) -> None:
        self.count = 0
        self.due = inf
        self.quiet_until = -inf  # told so recently that the next line waits
        self._step = 0

    def add(self, happening: Happening, now: float) -> None:
        if not self.count:
            self.due = max(now + WINDOWS[0], self.quiet_until)
            self.first = happening
            self.shortest, self.longest = inf, 0.0
        self.count += 1
        self.last = happening
        if isinstance(happening, Cut):
            self.shortest = min(self.shortest, happening.silent_for)
            self.longest = max(self.longest, happening.silent_for)

    def told(self) -> None:
        """Begin anew after a line; what goes on is told ever more rarely."""
        again = self.due == self.quiet_until
        self._step = min(self._step + 1, len(WINDOWS) - 1) if again else 1
        self.quiet_until = self.due + WINDOWS[self._step]
        self.count, self.due = 0, inf

    def line(self, pool: str) -> _Line:
        return _Line(pool, self.first, self.last, self.count, self.shortest, self.longest)


class LogWriter:
    """Folds a pool's happenings into lines. Not safe for threads: the hub's lock is held."""

    def __init__(self, pool: str) -> None:
        self._pool = pool
        self._folds: dict[Any, _Fold] = {}
        self.due = inf  # when the next line is to be written

    def add(self, happening: Happening, now: float) -> None:
        """Note what happened, if anybody listens to the log at its level."""
        if not _logger(happening).isEnabledFor(level(happening)):
            return
        key = _key(happening)
        fold = self._folds.get(key)
        if fold is None:
            fold = self._folds[key] = _Fold()
        fold.add(happening, now)
        self.due = min(self.due, fold.due)

    def flush(self, now: float) -> list[_Line]:
        """The lines that are due, in the order in which they began; ``inf`` for all."""
        lines = []
        crowded = len(self._folds) > MOST_FOLDS
        for key, fold in list(self._folds.items()):
            if fold.count and (fold.due <= now or crowded):
                lines.append(fold.line(self._pool))
                fold.told()
            elif now > fold.quiet_until and not fold.count:
                del self._folds[key]
        if crowded:
            self._folds.clear()
        self.due = min((fold.due for fold in self._folds.values()), default=inf)
        return sorted(lines, key=lambda line: line.first.at)


@dataclass(frozen=True, slots=True)
class _Line:
    """One line of the log, to be written outside any lock."""

    pool: str
    first: Happening
    last: Happening
    count: int
    shortest: float
    longest: float

    @property
    def name(self) -> str:
        return self.last.name

    def write(self) -> None:
        extra = {"event": self.name, "pool": self.pool, "count": self.count}
        extra.update(values(self.last))
        _logger(self.last).log(level(self.last), "pool %r: %s", self.pool, self.text(), extra=extra)

    def text(self) -> str:
        last, count = self.last, self.count
        if count == 1:
            return describe(last)
        if isinstance(last, Cut) and last.cause.style != "deadline":
            how = "while lent" if last.lent else "while idle, and are replaced"
            low, high = duration(self.shortest), duration(self.longest)
            silent = low if low == high else f"{low} to {high}"
            return f"{count} connections were cut {how}: {last.cause}, after {silent} of silence"
        if isinstance(last, Suspected):
            return f"{count} connections are suspect: no answer within {duration(last.limit)}"
        return f"{describe(last)} ({count} times within {duration(last.at - self.first.at)})"


def values(happening: Happening) -> dict[str, Any]:
    """A happening's fields as plain values: for a log record, JSON, a label."""
    found: dict[str, Any] = {}
    for field in fields(happening):
        value = getattr(happening, field.name)
        if isinstance(value, Cause):
            found.update(cause=value.style, sqlstate=value.sqlstate, text=value.text)
        elif isinstance(value, Enum):
            found[field.name] = value.value
        elif field.name != "at":
            found[field.name] = round(value, 6) if isinstance(value, float) else value
    return found


def _key(happening: Happening) -> Any:
    """What makes two happenings alike enough for one line."""
    if isinstance(happening, Cut):
        return Cut, happening.cause, happening.lent
    if isinstance(happening, OpenFailed):
        return OpenFailed, happening.text
    if isinstance(happening, Suspected) or (isinstance(happening, Pinged) and happening.late):
        return type(happening)
    return happening  # itself only


def _logger(happening: Happening) -> logging.Logger:
    return _LOGGERS[happening.name.partition(".")[0]]


_ROOMS = ("connection", "pool", "server", "work")
_LOGGERS = {room: logging.getLogger(f"everpool.{room}") for room in _ROOMS}

# What every record has; anything else came with `extra`.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JSONFormatter(logging.Formatter):
    """One line of JSON for each record: ``time`` (RFC 3339, UTC), ``level``, ``logger``,
    ``message``, all that came in ``extra``, and ``exception`` and ``stack`` if there are any.

    What JSON does not know is written as text: infinity, say.
    """

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {
            "time": time.replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update({k: v for k, v in vars(record).items() if k not in _STANDARD and k not in line})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            line["stack"] = self.formatStack(record.stack_info)
        return _UNSEEN.sub(_escaped, json.dumps(_plain(line), ensure_ascii=False))


# What JSON lets pass, though terminals obey it, or it ends a line for some readers.
_UNSEEN = re.compile("[\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def _escaped(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


def _plain(value: Any) -> Any:
    """A value as JSON and UTF-8 can have it; others' records may hold anything."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, float):
        return value if isfinite(value) else str(value)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, dict):
        return {_plain(str(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return _plain(str(value))
