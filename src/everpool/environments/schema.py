"""What a file of the catalogue may say; whatever else it says is told with file, entry and key."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from math import inf
from typing import Any

from ..core.environment import ACTIVITIES, FAILOVERS, KILLS, Environment
from .entry import CONFIDENCES, KINDS, MEASURED, Entry

_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_DATE = re.compile(r"\d{4}(-\d\d(-\d\d)?)?")
_SQLSTATE = re.compile(r"[0-9A-Z]{5}")
_SOURCE = re.compile(r"https?://\S+")


def read(file: str, text: str) -> list[Entry]:
    """The entries of one file, in its order.

    :param file: the file's name, for errors.
    :param text: what is in it.
    :raises ValueError: it is no TOML, or something is unknown, missing, or of the wrong kind.
    """
    import tomllib  # here: who names no environment does not pay for it

    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{file}: {error}") from None
    group = content.get("group")
    if not isinstance(group, str) or not group:
        raise ValueError(f"{file}: group must be a text, the heading of the file, not {group!r}")
    return [_entry(file, group, n, table) for n, table in content.items() if n != "group"]


def normal(name: str) -> str:
    """A name without case, spaces, hyphens and underscores, to compare it."""
    return re.sub(r"[\s_-]+", "", name.casefold())


def check_unique(entries: Iterable[tuple[str, Entry]]) -> None:
    """
    :param entries: pairs of file and entry.
    :raises ValueError: a name, an alias or a host pattern is given twice.
    """
    taken: dict[tuple[str, str], str] = {}
    for file, entry in entries:
        claims = [("name", entry.name, normal(entry.name))]
        claims += [("aliases", alias, normal(alias)) for alias in entry.aliases]
        claims += [("hosts", pattern, pattern) for pattern in entry.hosts]
        for key, value, compared in claims:
            space = "hosts" if key == "hosts" else "names"
            if (space, compared) in taken:
                owner = taken[space, compared]
                raise _wrong(file, entry.name, key, f"{value!r} is taken by {owner}")
            taken[space, compared] = f"[{entry.name}] in {file}"


def _entry(file: str, group: str, name: str, table: Any) -> Entry:
    if not _NAME.fullmatch(name):
        raise _wrong(file, name, "name", f"{name!r} must be lower-case words joined by hyphens")
    if not isinstance(table, dict):
        raise ValueError(f"{file}: {name} = {table!r} is no entry: write [{name}] and its keys")
    for key, value in table.items():
        if key not in _CHECKS:
            raise _wrong(file, name, key, f"no such key, with value {value!r}")
    for key in _NEEDED:
        if key not in table:
            raise _wrong(file, name, key, "is missing")
    values = {}
    for key, value in table.items():
        try:
            values[key] = _CHECKS[key](value)
        except ValueError as problem:
            raise _wrong(file, name, key, f"{problem}, not {value!r}") from None
    facts = Environment(name=name, **{key: values.pop(key, None) for key in _FACTS})
    low, high = values.get("idle_range", (0, inf))
    if facts.idle_cut is not None and facts.idle_cut < inf and not low <= facts.idle_cut <= high:
        raise _wrong(file, name, "idle_range", f"{[low, high]!r} leaves idle_cut out")
    return Entry(name=name, group=group, facts=facts, **values)


def _wrong(file: str, name: str, key: str, problem: str) -> ValueError:
    return ValueError(f"{file}: [{name}] {key}: {problem}")


# Each returns what the entry gets of a value, or raises what the value must be.


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("must be a text")
    return " ".join(value.split())  # lines end in the files where they have to


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise ValueError("must be a list of texts")
    return tuple(_text(each) for each in value)


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise ValueError("must be a number of seconds, or inf for never")
    return value


def _range(value: Any) -> tuple[float, float]:
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError("must be two numbers of seconds")
    low, high = map(_seconds, value)
    if not low < high:
        raise ValueError("must be two numbers of seconds, the lesser first")
    return low, high


def _choice(choices: tuple[str, ...]) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if value not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return str(value)

    return check


def _formed(form: re.Pattern[str], what: str) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if not isinstance(value, str) or not form.fullmatch(value):
            raise ValueError(f"must be {what}")
        return value

    return check


def _sources(value: Any) -> tuple[str, ...]:
    found = _texts(value)
    if not all(source == MEASURED or _SOURCE.fullmatch(source) for source in found):
        raise ValueError(f'must be URLs, or "{MEASURED}"')
    return found


def _hosts(value: Any) -> tuple[str, ...]:
    found = _texts(value)
    if any(host != host.lower() for host in found):
        raise ValueError("must be patterns in lower case")
    return found


_FACTS = ("idle_cut", "max_age", "kill", "activity", "failover", "sleeps_after")
_NEEDED = ("title", "vendor", "kind", "text", "sources", "date", "confidence")
_CHECKS: dict[str, Callable[[Any], Any]] = {
    "title": _text,
    "vendor": _text,
    "kind": _choice(KINDS),
    "aliases": _texts,
    "text": _text,
    "idle_cut": _seconds,
    "idle_range": _range,
    "max_age": _seconds,
    "kill": _choice(KILLS),
    "sqlstate": _formed(_SQLSTATE, "five digits or capital letters"),
    "says": _text,
    "activity": _choice(ACTIVITIES),
    "failover": _choice(FAILOVERS),
    "failover_text": _text,
    "sleeps_after": _seconds,
    "limits": _text,
    "advice": _text,
    "not_known": _text,
    "hosts": _hosts,
    "sources": _sources,
    "date": _formed(_DATE, "a date in quotes, such as 2026-11-22, 2026-11 or 2026"),
    "confidence": _choice(CONFIDENCES),
}
