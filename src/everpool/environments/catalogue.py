"""The catalogue: loaded once, when it is first asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files
from types import MappingProxyType

from ..core.environment import Environment
from .entry import Entry
from .schema import check_unique, normal, read

Path = str | Environment | Entry | Sequence[str | Environment | Entry] | None
"""What ``environment=`` takes: what is on the path to a database."""


class UnknownEnvironment(ValueError):
    """No environment has this name."""


@cache
def entries() -> Mapping[str, Entry]:
    """All entries by name, in the order of the catalogue: file by file, then as written there.

    :raises ValueError: a file does not follow the schema.
    """
    folder = files(__package__)
    names = sorted(each.name for each in folder.iterdir() if each.name.endswith(".toml"))
    found = [
        (name, entry)
        for name in names
        for entry in read(name, folder.joinpath(name).read_text("utf-8"))
    ]
    check_unique(found)
    return MappingProxyType({entry.name: entry for _, entry in found})


def find(name: str) -> Entry:
    """The entry with this name or alias. Case, spaces, hyphens and underscores do not matter.

    :raises UnknownEnvironment: there is none; the error names the closest.
    """
    names = _names()
    entry = names.get(normal(name))
    if entry is None:
        close = get_close_matches(normal(name), names, n=6)
        # Several aliases may belong to one entry.
        closest = list(dict.fromkeys(names[each].name for each in close))[:3]
        hint = f": did you mean {' or '.join(closest)}?" if closest else "."
        # A conninfo given by mistake has a password in it.
        told = repr(name[:60]) if "://" not in name and "=" not in name else "that (withheld)"
        raise UnknownEnvironment(
            f'no environment is called {told}{hint} The command "everpool environments" lists all'
        )
    return entry


def resolve(value: Path) -> tuple[Environment, ...]:
    """What ``environment=`` was given, as facts: a name, an `Environment`, several, or ``None``.

    :raises UnknownEnvironment: a name is of no environment.
    :raises TypeError: it is something else.
    """
    if value is None:
        return ()
    if isinstance(value, Sequence | Set) and not isinstance(value, str | bytes | bytearray):
        return tuple(_facts(each) for each in value)
    return (_facts(value),)


def hinted_by(host: str) -> Entry | None:
    """The entry that a host name gives away, by the pattern with most letters of its own."""
    host = host.lower().rstrip(".")
    matching = [
        (len(pattern.replace("*", "")), entry)
        for entry in entries().values()
        for pattern in entry.hosts
        if fnmatchcase(host, pattern)
    ]
    return max(matching, key=lambda match: match[0], default=(0, None))[1]


@cache
def _names() -> Mapping[str, Entry]:
    """Entries by name and alias, as they are compared."""
    return {normal(name): e for e in entries().values() for name in (e.name, *e.aliases)}


def _facts(value: object) -> Environment:
    if isinstance(value, Environment):
        return value
    if isinstance(value, Entry):
        return value.facts
    if isinstance(value, str):
        return find(value).facts
    raise TypeError(
        "an environment must be a name, an Environment or a sequence of those,"
        f" not {type(value).__name__}"
    )
