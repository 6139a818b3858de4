"""Write the threads' side of everpool from the event loop's side.

The pool, and most of its tests, exist twice: once for asyncio and once for threads. They differ
in keywords and in names, so only one is written by hand and this program derives the other:

    src/everpool/_async/**.py  ->  src/everpool/_sync/**.py
    tests/aio/**.py            ->  tests/sync/**.py

It works on a syntax tree that keeps comments and layout, so the result reads like its source.

What it does:

* ``async def``, ``async with``, ``async for`` and async comprehensions lose ``async``;
  ``await x`` becomes ``x``.
* Names follow ``NAMES``, modules follow ``MODULES``, also in docstrings, messages and comments.
* ``Awaitable[X]`` and ``Coroutine[A, B, X]`` become ``X``; ``AsyncGenerator[Y, S]`` becomes
  ``Generator[Y, S, None]``.
* Where the two sides have to differ more than that, the source says so, and runs as written::

      if True:  # ASYNC
          ...   # only the async side has this
      else:
          ...   # only the sync side has this; the ``else`` may be missing

      if False:  # ASYNC
          ...   # only the sync side has this

* ``pytest.mark.anyio`` is dropped, as a decorator and in ``pytestmark``.
* An import that only dropped code used goes with it.

``--check`` writes nothing; it fails when a generated file is missing, differs from what would be
generated, or has lost its source.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import libcst as cst
from libcst import matchers as m
from libcst.helpers import get_full_name_for_node

# --- the tables -----------------------------------------------------------------------------------

# Identifiers, wherever they stand: names, attributes, keywords, imports, strings and comments.
NAMES: dict[str, str] = {
    # everpool and psycopg_pool
    "AsyncConnectionPool": "ConnectionPool",
    "AsyncNullConnectionPool": "NullConnectionPool",
    "ACT": "CT",
    "AsyncEngine": "Engine",
    "AsyncAttempt": "Attempt",
    "AsyncAttempts": "Attempts",
    "AsyncInFlight": "InFlight",
    "AsyncLease": "Lease",
    "AsyncBoundLease": "BoundLease",
    "AsyncLending": "Lending",
    "AsyncListener": "Listener",
    "AsyncListening": "Listening",
    "AsyncReporting": "Reporting",
    "AsyncWorking": "Working",
    "AsyncConnectFailedCB": "ConnectFailedCB",
    "AsyncConnectionCB": "ConnectionCB",
    "AsyncConninfoParam": "ConninfoParam",
    "AsyncKwargsParam": "KwargsParam",
    # psycopg
    "AsyncClientCursor": "ClientCursor",
    "AsyncConnection": "Connection",
    "AsyncCopy": "Copy",
    "AsyncCursor": "Cursor",
    "AsyncPipeline": "Pipeline",
    "AsyncRawCursor": "RawCursor",
    "AsyncRowFactory": "RowFactory",
    "AsyncServerCursor": "ServerCursor",
    "AsyncTransaction": "Transaction",
    "wait_async": "wait",
    "wait_conn_async": "wait_conn",
    # protocols
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
    "__aiter__": "__iter__",
    "__anext__": "__next__",
    "StopAsyncIteration": "StopIteration",
    "aclose": "close",
    "aiter": "iter",
    "anext": "next",
    # contextlib
    "AbstractAsyncContextManager": "AbstractContextManager",
    "AsyncContextDecorator": "ContextDecorator",
    "AsyncExitStack": "ExitStack",
    "aclosing": "closing",
    "asynccontextmanager": "contextmanager",
    "enter_async_context": "enter_context",
    "push_async_callback": "callback",
    "push_async_exit": "push",
    # typing
    "AsyncContextManager": "ContextManager",
    "AsyncGenerator": "Generator",
    "AsyncIterable": "Iterable",
    "AsyncIterator": "Iterator",
}

# Modules by their full dotted name, however they are imported. Only the last part may change.
MODULES: dict[str, str] = {
    "everpool._async": "everpool._sync",
    "everpool.runtime.aio": "everpool.runtime.threads",
    "psycopg.connection_async": "psycopg.connection",
    "psycopg.cursor_async": "psycopg.cursor",
    "psycopg_pool.null_pool_async": "psycopg_pool.null_pool",
    "psycopg_pool.pool_async": "psycopg_pool.pool",
    "psycopg_pool.sched_async": "psycopg_pool.sched",
}

# What the tests need on top of the above.
TEST_NAMES: dict[str, str] = {
    "AsyncMock": "Mock",
    "assert_awaited": "assert_called",
    "assert_awaited_once": "assert_called_once",
    "assert_awaited_once_with": "assert_called_once_with",
    "assert_awaited_with": "assert_called_with",
    "assert_not_awaited": "assert_not_called",
    "await_args": "call_args",
    "await_count": "call_count",
}
TEST_MODULES: dict[str, str] = {
    "tests.aio": "tests.sync",
    "tests.support.aio": "tests.support.threads",
}

# Annotations that stand for "an X, once awaited": the argument that remains, counted from the end.
UNWRAPPED = ("Awaitable", "Coroutine")

# A marker that only an async test needs.
DROPPED_MARK = "pytest.mark.anyio"


@dataclass(frozen=True)
class Tree:
    """A hand-written folder, the generated one beside it, and the tables between them."""

    source: str
    target: str
    package: str  # the dotted name of ``source``, which relative imports start from
    names: Mapping[str, str] = field(default_factory=lambda: NAMES)
    modules: Mapping[str, str] = field(default_factory=lambda: MODULES)


TREES: tuple[Tree, ...] = (
    Tree("src/everpool/_async", "src/everpool/_sync", "everpool._async"),
    Tree(
        "tests/aio",
        "tests/sync",
        "tests.aio",
        names=NAMES | TEST_NAMES,
        modules=MODULES | TEST_MODULES,
    ),
)

# --- the conversion -------------------------------------------------------------------------------

COMMAND = "python tools/async_to_sync.py"
HEADER_START = "# Generated from "
HEADER = (
    HEADER_START
    + "{source} by `{command}`.\n# Do not edit: change that file and run `make generate`.\n"
)


class ConversionError(Exception):
    """The source holds something that cannot be converted; the text says what and where."""


def convert(source: str, tree: Tree, *, package: str | None = None, name: str = "<source>") -> str:
    """Return the sync text of ``source``, without header and not yet formatted.

    ``package`` is the dotted package the module lies in (default: the tree's own) and ``name``
    what an error calls the file.
    """
    try:
        module = cst.parse_module(source)
    except cst.ParserSyntaxError as ex:
        raise ConversionError(f"{name}: {ex}") from ex
    converter = _Converter(tree, package or tree.package)
    _check_markers(module, name)
    result = module.visit(converter)
    used_before = {tree.names.get(used, used) for used in _used_names(module)}
    lost = used_before - _used_names(result)
    if lost:
        result = result.visit(_DropImports(lost))
    return result.code


class _Converter(cst.CSTTransformer):
    def __init__(self, tree: Tree, package: str) -> None:
        super().__init__()
        self.tree = tree
        self.package = package
        self.annotation_depth = 0
        self.text_pattern = re.compile(
            r"(?<![\w.])(?P<module>{})\b|\b(?P<name>{})\b".format(
                "|".join(re.escape(key) for key in sorted(tree.modules, key=len, reverse=True)),
                "|".join(re.escape(key) for key in sorted(tree.names, key=len, reverse=True)),
            )
        )

    # keywords

    def leave_FunctionDef(
        self, original_node: cst.FunctionDef, updated_node: cst.FunctionDef
    ) -> cst.FunctionDef:
        decorators = [d for d in updated_node.decorators if not _is_dropped_mark(d.decorator)]
        return updated_node.with_changes(asynchronous=None, decorators=decorators)

    def leave_ClassDef(
        self, original_node: cst.ClassDef, updated_node: cst.ClassDef
    ) -> cst.ClassDef:
        decorators = [d for d in updated_node.decorators if not _is_dropped_mark(d.decorator)]
        return updated_node.with_changes(decorators=decorators)

    def leave_With(self, original_node: cst.With, updated_node: cst.With) -> cst.With:
        return updated_node.with_changes(asynchronous=None)

    def leave_For(self, original_node: cst.For, updated_node: cst.For) -> cst.For:
        return updated_node.with_changes(asynchronous=None)

    def leave_CompFor(self, original_node: cst.CompFor, updated_node: cst.CompFor) -> cst.CompFor:
        return updated_node.with_changes(asynchronous=None)

    def leave_Await(self, original_node: cst.Await, updated_node: cst.Await) -> cst.BaseExpression:
        inner = updated_node.expression
        if not updated_node.lpar:
            return inner
        # ``await`` binds so tightly that what it awaits never needs the parentheses of the whole,
        # unless they are what lets it run over several lines.
        try:
            cst.parse_expression(cst.Module([]).code_for_node(inner).strip())
        except cst.ParserSyntaxError:
            return inner.with_changes(
                lpar=[*updated_node.lpar, *inner.lpar], rpar=[*inner.rpar, *updated_node.rpar]
            )
        return inner

    # names and modules

    def leave_Name(self, original_node: cst.Name, updated_node: cst.Name) -> cst.Name:
        new = self.tree.names.get(updated_node.value)
        return updated_node.with_changes(value=new) if new else updated_node

    def leave_Attribute(
        self, original_node: cst.Attribute, updated_node: cst.Attribute
    ) -> cst.Attribute:
        new = self._last_part(get_full_name_for_node(original_node))
        return updated_node.with_changes(attr=cst.Name(new)) if new else updated_node

    def leave_ImportFrom(
        self, original_node: cst.ImportFrom, updated_node: cst.ImportFrom
    ) -> cst.ImportFrom:
        written = get_full_name_for_node(original_node.module) if original_node.module else None
        parts = self._base_package(len(original_node.relative))
        depth = len(parts)
        parts += written.split(".") if written else []
        if depth < len(parts):
            new_parts = [
                self._last_part(".".join(parts[: i + 1])) or self.tree.names.get(part, part)
                for i, part in enumerate(parts)
            ]
            updated_node = updated_node.with_changes(module=_dotted(new_parts[depth:]))
        if isinstance(original_node.names, cst.ImportStar):
            return updated_node
        aliases: dict[tuple[str, str | None], cst.ImportAlias] = {}
        assert not isinstance(updated_node.names, cst.ImportStar)
        for before, after in zip(original_node.names, updated_node.names, strict=True):
            new = self._last_part(".".join([*parts, before.evaluated_name]))
            if new:
                after = after.with_changes(name=cst.Name(new))
            # Two names may have become one.
            aliases.setdefault((after.evaluated_name, after.evaluated_alias), after)
        return updated_node.with_changes(names=_closed(list(aliases.values()), updated_node))

    def _last_part(self, module: str | None) -> str | None:
        new = self.tree.modules.get(module) if module else None
        return new.rpartition(".")[2] if new else None

    def _base_package(self, level: int) -> list[str]:
        if not level:
            return []
        parts = self.package.split(".")
        return parts[: len(parts) - level + 1]

    # annotations

    def visit_Annotation(self, node: cst.Annotation) -> None:
        self.annotation_depth += 1

    def leave_Annotation(
        self, original_node: cst.Annotation, updated_node: cst.Annotation
    ) -> cst.Annotation:
        self.annotation_depth -= 1
        return updated_node

    def leave_Subscript(
        self, original_node: cst.Subscript, updated_node: cst.Subscript
    ) -> cst.BaseExpression:
        name = (get_full_name_for_node(original_node.value) or "").rpartition(".")[2]
        if name in UNWRAPPED:
            last = updated_node.slice[-1].slice
            if isinstance(last, cst.Index):
                return last.value
        if name == "AsyncGenerator" and len(updated_node.slice) == 2:
            none = cst.SubscriptElement(cst.Index(cst.Name("None")))
            comma = cst.Comma(whitespace_after=cst.SimpleWhitespace(" "))
            elements = [e.with_changes(comma=comma) for e in updated_node.slice]
            return updated_node.with_changes(slice=[*elements, none])
        return updated_node

    # text

    def leave_SimpleString(
        self, original_node: cst.SimpleString, updated_node: cst.SimpleString
    ) -> cst.SimpleString:
        if self.annotation_depth and "b" not in updated_node.prefix:
            text = updated_node.raw_value
            try:
                inner = cst.parse_expression(text)
            except cst.ParserSyntaxError:
                pass  # an argument of Literal[...] or Annotated[...]
            else:
                new = inner.visit(self)
                assert isinstance(new, cst.BaseExpression)
                quote = updated_node.quote
                value = f"{updated_node.prefix}{quote}{_code(new)}{quote}"
                return updated_node.with_changes(value=value)
        return updated_node.with_changes(value=self._text(updated_node.value))

    def leave_FormattedStringText(
        self, original_node: cst.FormattedStringText, updated_node: cst.FormattedStringText
    ) -> cst.FormattedStringText:
        return updated_node.with_changes(value=self._text(updated_node.value))

    def leave_Comment(self, original_node: cst.Comment, updated_node: cst.Comment) -> cst.Comment:
        return updated_node.with_changes(value=self._text(updated_node.value))

    def _text(self, text: str) -> str:
        text = re.sub(r"\basync[ ](?=(def|with|for)\b)", "", text)
        # In prose "await the answer" has to stay; a call shows that this is code.
        text = re.sub(r"\bawait[ ](?=[A-Za-z_][\w.]*\()", "", text)
        return self.text_pattern.sub(self._replacement, text)

    def _replacement(self, match: re.Match[str]) -> str:
        if match["module"]:
            return self.tree.modules[match["module"]]
        return self.tree.names[match["name"]]

    # branches and markers

    def leave_IndentedBlock(
        self, original_node: cst.IndentedBlock, updated_node: cst.IndentedBlock
    ) -> cst.IndentedBlock:
        body, footer = _spliced(updated_node.body, updated_node.footer)
        return updated_node.with_changes(body=body, footer=footer)

    def leave_Module(self, original_node: cst.Module, updated_node: cst.Module) -> cst.Module:
        body, footer = _spliced(updated_node.body, updated_node.footer)
        return updated_node.with_changes(body=body, footer=footer)

    def leave_SimpleStatementLine(
        self,
        original_node: cst.SimpleStatementLine,
        updated_node: cst.SimpleStatementLine,
    ) -> cst.SimpleStatementLine | cst.RemovalSentinel:
        if len(updated_node.body) != 1:
            return updated_node
        statement = updated_node.body[0]
        if not m.matches(statement, m.Assign(targets=[m.AssignTarget(m.Name("pytestmark"))])):
            return updated_node
        assert isinstance(statement, cst.Assign)
        if _is_dropped_mark(statement.value):
            return cst.RemoveFromParent()
        if isinstance(statement.value, cst.List | cst.Tuple):
            elements = [e for e in statement.value.elements if not _is_dropped_mark(e.value)]
            if not elements:
                return cst.RemoveFromParent()
            if len(elements) < len(statement.value.elements):
                value = statement.value.with_changes(elements=elements)
                return updated_node.with_changes(body=[statement.with_changes(value=value)])
        return updated_node


def _is_dropped_mark(node: cst.BaseExpression) -> bool:
    if isinstance(node, cst.Call):
        node = node.func
    return get_full_name_for_node(node) == DROPPED_MARK


def _code(node: cst.CSTNode) -> str:
    return cst.Module([]).code_for_node(node)


def _dotted(parts: Sequence[str]) -> cst.Name | cst.Attribute:
    node: cst.Name | cst.Attribute = cst.Name(parts[0])
    for part in parts[1:]:
        node = cst.Attribute(node, cst.Name(part))
    return node


def _closed(aliases: list[cst.ImportAlias], statement: cst.ImportFrom) -> list[cst.ImportAlias]:
    """The aliases with a comma after the last one only where parentheses allow it."""
    if statement.lpar is None:
        aliases[-1] = aliases[-1].with_changes(comma=cst.MaybeSentinel.DEFAULT)
    return aliases


# --- ``# ASYNC`` branches

_MARKER = re.compile(r"#\s*ASYNC\b")


def _marked(node: cst.CSTNode) -> cst.If | None:
    """The node, if it is an ``if`` with the marker on its own line."""
    if not isinstance(node, cst.If) or not isinstance(node.body, cst.IndentedBlock):
        return None
    comment = node.body.header.comment
    return node if comment and _MARKER.match(comment.value) else None


def _check_markers(module: cst.Module, name: str) -> None:
    """Refuse a marker that would be ignored, or that means nothing."""
    markers = _Markers()
    module.visit(markers)
    for branch in markers.branches:
        if not m.matches(branch.test, m.Name("True") | m.Name("False")):
            test = _code(branch.test)
            raise ConversionError(f"{name}: `if {test}:  # ASYNC`: only True or False can be used")
        if isinstance(branch.orelse, cst.If):
            raise ConversionError(f"{name}: `if ...:  # ASYNC` cannot be followed by elif")
    if strays := markers.comments - len(markers.branches):
        raise ConversionError(
            f"{name}: {strays} comment(s) `# ASYNC` stand elsewhere than after"
            " `if True:` or `if False:` on the same line"
        )


class _Markers(cst.CSTVisitor):
    def __init__(self) -> None:
        super().__init__()
        self.branches: list[cst.If] = []
        self.comments = 0

    def visit_If(self, node: cst.If) -> None:
        if _marked(node):
            self.branches.append(node)

    def visit_Comment(self, node: cst.Comment) -> None:
        self.comments += bool(_MARKER.match(node.value))


def _spliced(
    body: Sequence[cst.BaseStatement], footer: Sequence[cst.EmptyLine]
) -> tuple[list[cst.BaseStatement], list[cst.EmptyLine]]:
    """The statements with every marked branch replaced by what the sync side has of it.

    Comments stand before a statement or at the end of a block: where a block dissolves, those
    at its end move to the next statement.
    """
    result: list[cst.BaseStatement] = []
    pending: list[cst.EmptyLine] = []

    def add(statement: cst.BaseStatement) -> None:
        if pending:
            lines = [*pending, *getattr(statement, "leading_lines", ())]
            statement = statement.with_changes(leading_lines=lines)
            pending.clear()
        result.append(statement)

    for statement in body:
        branch = _marked(statement)
        if branch is None:
            add(statement)
            continue
        pending.extend(branch.leading_lines)
        if m.matches(branch.test, m.Name("False")):
            kept = branch.body
        elif branch.orelse is not None:
            assert isinstance(branch.orelse, cst.Else)
            pending.extend(branch.orelse.leading_lines)
            kept = branch.orelse.body
        else:
            # What is said above a branch that goes is about that branch.
            del pending[len(pending) - len(branch.leading_lines) :]
            continue
        if isinstance(kept, cst.SimpleStatementSuite):
            add(cst.SimpleStatementLine(kept.body, trailing_whitespace=kept.trailing_whitespace))
        else:
            assert isinstance(kept, cst.IndentedBlock)
            if (comment := kept.header.comment) and not _MARKER.match(comment.value):
                pending.append(cst.EmptyLine(comment=comment))
            for inner in kept.body:
                assert isinstance(inner, cst.BaseStatement)
                add(inner)
            pending.extend(kept.footer)
    return result, [*pending, *footer]


# --- imports that nothing uses any more


class _UsedNames(cst.CSTVisitor):
    """Every identifier outside import statements, those in quoted annotations included."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def visit_Import(self, node: cst.Import) -> bool:
        return False

    def visit_ImportFrom(self, node: cst.ImportFrom) -> bool:
        return False

    def visit_Expr(self, node: cst.Expr) -> bool:
        docstring = isinstance(node.value, cst.SimpleString | cst.ConcatenatedString)
        return not docstring

    def visit_Name(self, node: cst.Name) -> None:
        self.names.add(node.value)

    def visit_SimpleString(self, node: cst.SimpleString) -> None:
        if _is_expression(node.raw_value):
            self.names.update(re.findall(r"[A-Za-z_]\w*", node.raw_value))


def _used_names(module: cst.Module) -> set[str]:
    visitor = _UsedNames()
    module.visit(visitor)
    return visitor.names


def _is_expression(text: str) -> bool:
    try:
        ast.parse(text, mode="eval")
    except (SyntaxError, ValueError):
        return False
    return True


class _DropImports(cst.CSTTransformer):
    """Remove imports of names the async side used and the sync side does not."""

    def __init__(self, lost: set[str]) -> None:
        super().__init__()
        self.lost = lost

    def leave_ImportFrom(
        self, original_node: cst.ImportFrom, updated_node: cst.ImportFrom
    ) -> cst.ImportFrom | cst.RemovalSentinel:
        if isinstance(updated_node.names, cst.ImportStar):
            return updated_node
        aliases = self._kept(updated_node.names)
        if not aliases:
            return cst.RemoveFromParent()
        if len(aliases) == len(updated_node.names):
            return updated_node
        return updated_node.with_changes(names=_closed(aliases, updated_node))

    def leave_Import(
        self, original_node: cst.Import, updated_node: cst.Import
    ) -> cst.Import | cst.RemovalSentinel:
        aliases = self._kept(updated_node.names)
        if not aliases:
            return cst.RemoveFromParent()
        if len(aliases) == len(updated_node.names):
            return updated_node
        aliases[-1] = aliases[-1].with_changes(comma=cst.MaybeSentinel.DEFAULT)
        return updated_node.with_changes(names=aliases)

    def leave_SimpleStatementLine(
        self,
        original_node: cst.SimpleStatementLine,
        updated_node: cst.SimpleStatementLine,
    ) -> cst.SimpleStatementLine | cst.RemovalSentinel:
        return updated_node if updated_node.body else cst.RemoveFromParent()

    def leave_If(self, original_node: cst.If, updated_node: cst.If) -> cst.If | cst.RemovalSentinel:
        """``if TYPE_CHECKING:`` goes when its last import went."""
        emptied = original_node.body.body and not updated_node.body.body
        return cst.RemoveFromParent() if emptied and not updated_node.orelse else updated_node

    def _kept(self, aliases: Iterable[cst.ImportAlias]) -> list[cst.ImportAlias]:
        return [alias for alias in aliases if self._bound(alias) not in self.lost]

    @staticmethod
    def _bound(alias: cst.ImportAlias) -> str:
        return alias.evaluated_alias or alias.evaluated_name.partition(".")[0]


# --- files ----------------------------------------------------------------------------------------


def generate(root: Path, trees: Sequence[Tree] = TREES) -> dict[str, str]:
    """The final text of every generated file, by its path relative to ``root``."""
    _check_tables(trees)
    raw: dict[str, str] = {}
    for tree in trees:
        for path in sorted((root / tree.source).rglob("*.py")):
            relative = path.relative_to(root / tree.source)
            source = f"{tree.source}/{relative.as_posix()}"
            package = ".".join([tree.package, *relative.parent.parts])
            header = HEADER.format(source=source, command=COMMAND)
            text = convert(
                path.read_text(encoding="utf-8"), tree, package=package, name=source
            ).lstrip("\n")
            raw[f"{tree.target}/{relative.as_posix()}"] = header + ("\n" + text if text else "")
    return _formatted(root, raw)


def _check_tables(trees: Sequence[Tree]) -> None:
    for tree in trees:
        for old, new in tree.modules.items():
            if old.rpartition(".")[0] != new.rpartition(".")[0]:
                raise ConversionError(f"MODULES: {old} -> {new}: only the last part may change")


def _formatted(root: Path, files: Mapping[str, str]) -> dict[str, str]:
    if not files:
        return {}
    config = root / "pyproject.toml"
    options = ["--config", str(config)] if config.exists() else ["--isolated"]
    with tempfile.TemporaryDirectory(prefix="async-to-sync-") as scratch:
        folder = Path(scratch)
        for name, text in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        # New names sort differently, and shorter lines join.
        for command in (["check", "--select", "I", "--fix-only"], ["format"]):
            ruff = [sys.executable, "-m", "ruff", *command, *options, "--quiet", "--no-cache", "."]
            done = subprocess.run(ruff, cwd=folder, capture_output=True, text=True, check=False)
            if done.returncode:
                raise ConversionError(f"ruff {command[0]}: {done.stdout}{done.stderr}".rstrip())
        return {name: (folder / name).read_text(encoding="utf-8") for name in files}


def existing(root: Path, trees: Sequence[Tree] = TREES) -> dict[str, str]:
    """The text of every Python file that lies in a generated folder now."""
    return {
        path.relative_to(root).as_posix(): path.read_text(encoding="utf-8")
        for tree in trees
        for path in sorted((root / tree.target).rglob("*.py"))
    }


def write(root: Path, trees: Sequence[Tree] = TREES) -> list[str]:
    """Bring the generated folders up to date and return a line for each change."""
    wanted, present = generate(root, trees), existing(root, trees)
    strangers = [
        name
        for name in sorted(present.keys() - wanted.keys())
        if not present[name].startswith(HEADER_START)
    ]
    if strangers:
        raise ConversionError(f"written by hand, but in a generated folder: {', '.join(strangers)}")
    changes = []
    for name in sorted(present.keys() - wanted.keys()):
        (root / name).unlink()
        changes.append(f"removed {name}")
    for name, text in wanted.items():
        if present.get(name) != text:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text, encoding="utf-8")
            changes.append(f"wrote {name}")
    return changes


def check(root: Path, trees: Sequence[Tree] = TREES, *, diff_lines: int = 20) -> list[str]:
    """Return a text for each generated file that is not what it should be."""
    wanted, present = generate(root, trees), existing(root, trees)
    problems = []
    for name in sorted(wanted.keys() | present.keys()):
        if name not in present:
            problems.append(f"{name}: missing, its source has not been converted")
        elif name not in wanted:
            problems.append(f"{name}: has no source")
        elif wanted[name] != present[name]:
            diff = list(
                difflib.unified_diff(
                    present[name].splitlines(),
                    wanted[name].splitlines(),
                    f"{name} (as it is)",
                    f"{name} (as generated)",
                    lineterm="",
                )
            )
            lines = [f"{name}: differs from what its source gives", *diff[:diff_lines]]
            if len(diff) > diff_lines:
                lines.append(f"... and {len(diff) - diff_lines} more lines")
            problems.append("\n    ".join(lines))
    return problems


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog=COMMAND, description="Generate the sync side of everpool from its async side."
    )
    parser.add_argument("--check", action="store_true", help="write nothing; fail on a difference")
    parser.add_argument(
        "--root",
        type=Path,
        default=Path(__file__).resolve().parent.parent,
        help="the repository (default: the one this file lies in)",
    )
    options = parser.parse_args(argv)
    try:
        if not options.check:
            changes = write(options.root)
            print("\n".join(changes) or "generated files: already up to date")
            return 0
        problems = check(options.root)
    except ConversionError as ex:
        print(f"error: {ex}", file=sys.stderr)
        return 2
    if problems:
        print("\n".join(problems))
        print(f"{len(problems)} generated file(s) out of date: run `make generate`.")
        return 1
    print("generated files: up to date")
    return 0


if __name__ == "__main__":
    sys.exit(main())
