"""Text of others, made harmless."""

from __future__ import annotations

# Enough for any message of PostgreSQL's own.
LONGEST_TEXT = 200


def escaped(text: str) -> str:
    """Foreign text on one line, without controls of any kind."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def printable(text: str) -> str:
    """Foreign text, safe to log: one line, controls escaped, at most 200 characters."""
    # What is cut away is not looked at: a megabyte of it would take a quarter of a second.
    line = escaped(text[: LONGEST_TEXT + 1])
    return line if len(line) <= LONGEST_TEXT else line[: LONGEST_TEXT - 1] + "…"
