"""The core is pure: a list of what it may import, where import-linter has one of what it may not.

That covers what nobody thought of forbidding.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

CORE = Path(__file__).resolve().parents[1] / "src" / "everpool" / "core"

PURE = {
    "__future__",
    "abc",
    "bisect",
    "collections",
    "contextlib",
    "dataclasses",
    "enum",
    "functools",
    "heapq",
    "itertools",
    "math",
    "numbers",
    "operator",
    "re",
    "string",
    "textwrap",
    "types",
    "typing",
}


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and absolute name of everything a module of the core imports."""
    package = ["everpool", "core", *path.relative_to(CORE).parent.parts]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            yield node.lineno, ".".join([*base, *filter(None, [node.module])])


def test_the_core_imports_only_itself_and_pure_parts_of_the_standard_library():
    wrong = [
        f"{path.relative_to(CORE)}:{line} imports {name}"
        for path in sorted(CORE.rglob("*.py"))
        for line, name in imported(path)
        if name.partition(".")[0] not in PURE and not f"{name}.".startswith("everpool.core.")
    ]
    assert wrong == []
