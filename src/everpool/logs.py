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
from dataclasses import fields
from datetime import UTC, datetime
from enum import Enum
from math import inf
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
    """Happenings of one kind that will become one line."""

    def __init__(self, now: float) -> None:
        self.happenings: list[Happening] = []
        self.count = 0
        self.due = now + WINDOWS[0]
        self.written_at = -inf
        self.step = 0

    def add(self, happening: Happening, now: float) -> None:
        if not self.count:
            self.due = max(now + WINDOWS[0], self.written_at + WINDOWS[self.step])
        self.count += 1
        # The first, the last and the extremes are all that the line tells.
        self.happenings = [*self.happenings[:1], happening] if self.count > 1 else [happening]
        if isinstance(happening, Cut):
            low, high = self.silences if self.count > 1 else (inf, 0.0)
            self.silences = min(low, happening.silent_for), max(high, happening.silent_for)

    silences = (inf, 0.0)


class LogWriter:
    """Folds a pool's happenings into lines. Not safe for threads: one `add`s, one `flush`es."""

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
            fold = self._folds[key] = _Fold(now)
        fold.add(happening, now)
        self.due = min(self.due, fold.due)

    def flush(self, now: float) -> list[_Line]:
        """The lines that are due, in the order in which they began; ``inf`` for all."""
        lines = []
        for key, fold in list(self._folds.items()):
            if fold.count and fold.due <= now:
                lines.append(_Line(self._pool, fold))
                quiet = fold.due - fold.written_at > 2 * WINDOWS[fold.step]
                fold.step = 1 if quiet else min(fold.step + 1, len(WINDOWS) - 1)
                fold.written_at, fold.count = fold.due, 0
            elif not fold.count and now > fold.written_at + 2 * WINDOWS[fold.step]:
                del self._folds[key]
        while len(self._folds) > MOST_FOLDS:
            key = next(iter(self._folds))
            if self._folds[key].count:
                lines.append(_Line(self._pool, self._folds[key]))
            del self._folds[key]
        self.due = min((fold.due for fold in self._folds.values() if fold.count), default=inf)
        return sorted(lines, key=lambda line: line.first.at)


class _Line:
    """One line of the log, to be written outside any lock."""

    def __init__(self, pool: str, fold: _Fold) -> None:
        self.pool = pool
        self.first, self.last = fold.happenings[0], fold.happenings[-1]
        self.count = fold.count
        self.silences = fold.silences

    def write(self) -> None:
        extra = {"event": self.last.name, "pool": self.pool, "count": self.count}
        extra.update(values(self.last))
        _logger(self.last).log(level(self.last), "pool %r: %s", self.pool, self.text(), extra=extra)

    def text(self) -> str:
        last, count = self.last, self.count
        if count == 1:
            return describe(last)
        if isinstance(last, Cut):
            how = "while lent" if last.lent else "while idle, and are replaced"
            low, high = (duration(silence) for silence in self.silences)
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


_LOGGERS = {room: logging.getLogger(f"everpool.{room}") for room in ("connection", "pool", "work")}

# What every record has; anything else came with `extra`.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JSONFormatter(logging.Formatter):
    """One line of JSON for each record: ``time`` (RFC 3339, UTC), ``level``, ``logger``,
    ``message``, all that came in ``extra``, and ``exception`` if there is one."""

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
        return json.dumps(line, default=str, ensure_ascii=False)
