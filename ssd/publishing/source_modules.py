"""The source of a module of ours, read without running it: its imports, its definitions, and the names they use.

A definition is a statement at the top of a module: a function, a class, or a constant with the text that documents it.
Names in annotations are told apart from others: with `from __future__ import annotations` they are never evaluated.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

PACKAGES = ("ssd", "flexi_unet", "vdvae")
"""The packages of ours; imports of any other are kept as they are."""


@dataclass(frozen=True)
class Imported:
    """What a name of a module stands for: `name` of `module`, or the module itself where `name` is None."""

    module: str
    name: str | None

    @property
    def is_ours(self) -> bool:
        """Whether it comes from one of our packages."""
        return self.module.split(".")[0] in PACKAGES


@dataclass(frozen=True, eq=False)
class Definition:
    """A statement at the top of a module.

    Attributes
    ----------
    module : str
        The module's name.
    names : tuple of str
        What it binds.
    node : ast.stmt
    first, last : int
        Its lines, counted from 1, with the comment before it, its decorators, and the text after a constant.
    """

    module: str
    names: tuple[str, ...]
    node: ast.stmt
    first: int
    last: int

    @cached_property
    def uses(self) -> NameUses:
        """The names in it."""
        found = NameUses()
        found.visit(self.node)
        return found

    @property
    def is_constant(self) -> bool:
        """Whether it is an assignment."""
        return isinstance(self.node, (ast.Assign, ast.AnnAssign))


class NameUses(ast.NodeVisitor):
    """Names in a statement.

    Attributes
    ----------
    evaluated, annotations : set of str
        Those that running it needs, and those in annotations.
    classes_asked : set of str
        Those of the first kind that isinstance or issubclass compares with.
    local : set of str
        Those that it binds inside.
    nodes : list of ast.Name
        All of them.
    """

    def __init__(self) -> None:
        self.evaluated: set[str] = set()
        self.annotations: set[str] = set()
        self.classes_asked: set[str] = set()
        self.local: set[str] = set()
        self.nodes: list[ast.Name] = []
        self._into, self._depth = self.evaluated, 0

    def generic_visit(self, node: ast.AST) -> None:
        scoped = isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Lambda, ast.comprehension, ast.GeneratorExp))
        self._depth += scoped
        for name, value in ast.iter_fields(node):
            before, self._into = self._into, self.annotations if name in ("annotation", "returns") else self._into
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    self.visit(child)
            self._into = before
        self._depth -= scoped

    def visit_Name(self, node: ast.Name) -> None:
        self._into.add(node.id)
        self.nodes.append(node)
        if self._depth and not isinstance(node.ctx, ast.Load):
            self.local.add(node.id)

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Name) and node.func.id in ("isinstance", "issubclass"):
            self.classes_asked |= {each.id for each in ast.walk(node.args[1]) if isinstance(each, ast.Name)}
        self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> None:
        self.local.add(node.arg)
        self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._bind_inside(node.name)
        self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._bind_inside(node.name)
        self.generic_visit(node)

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        self.local.add(node.name or "")
        self.generic_visit(node)

    def _bind_inside(self, name: str) -> None:
        if self._depth:
            self.local.add(name)


@dataclass
class SourceModule:
    """A module of ours.

    Attributes
    ----------
    name : str
        Such as "ssd.process.noise".
    path : pathlib.Path
    lines : list of str
        Of its source.
    docstring : str
    imports : dict
        Name in the module -> what it stands for.
    for_types : set of str
        Those of these names that are imported for a type checker, and not when the module runs.
    definitions : list of Definition
        In the order of the file.

    Raises
    ------
    ValueError
        When there is no such module, or it has a statement that cannot be carried into another file.
    """

    name: str
    path: Path = field(init=False)
    lines: list[str] = field(init=False)
    docstring: str = field(init=False)
    imports: dict[str, Imported] = field(init=False, default_factory=dict)
    for_types: set[str] = field(init=False, default_factory=set)
    definitions: list[Definition] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        found = importlib.util.find_spec(self.name)
        if found is None or not found.origin:
            raise ValueError(f"There is no module {self.name}.")
        self.path = Path(found.origin)
        text = self.path.read_text(encoding="utf-8")
        self.lines = text.splitlines()
        tree = ast.parse(text)
        self.docstring = ast.get_docstring(tree) or ""
        for statement in tree.body:
            self._read(statement)
        self._refuse_hidden_imports(tree)

    def defining(self, name: str) -> list[Definition]:
        """The definitions that bind a name."""
        return [each for each in self.definitions if name in each.names]

    def _read(self, statement: ast.stmt) -> None:
        if isinstance(statement, (ast.Import, ast.ImportFrom)):
            self.imports |= dict(self._imported(statement))
        elif isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING":
            before = set(self.imports)
            for inner in statement.body:
                self._read(inner)
            self.for_types |= set(self.imports) - before
        elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            if self.definitions and self.definitions[-1].is_constant:  # the text that documents a constant
                last = self.definitions.pop()
                self.definitions.append(
                    Definition(last.module, last.names, last.node, last.first, statement.end_lineno or last.last)
                )
        else:
            self._define(statement, tuple(_bound(statement)))

    def _define(self, statement: ast.stmt, names: tuple[str, ...]) -> None:
        if not names:
            raise ValueError(
                f"{self.path.name}, line {statement.lineno}: only imports, functions, classes and constants can be "
                "carried into another file."
            )
        first = min([statement.lineno, *(each.lineno for each in getattr(statement, "decorator_list", []))])
        while first > 1 and self.lines[first - 2].startswith("#"):
            first -= 1
        last = statement.end_lineno or statement.lineno
        self.definitions.append(Definition(self.name, names, statement, first, last))

    def _imported(self, statement: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, Imported]]:
        """Name in this module -> what an import statement makes it."""
        if isinstance(statement, ast.Import):
            for alias in statement.names:
                whole = alias.name if alias.asname else alias.name.split(".")[0]
                yield alias.asname or whole, Imported(whole, None)
            return
        package = self.name if self.path.name == "__init__.py" else self.name.rpartition(".")[0]
        parts = package.split(".")[: len(package.split(".")) - statement.level + 1] if statement.level else []
        module = ".".join([*parts, *filter(None, [statement.module])])
        for alias in statement.names:
            yield alias.asname or alias.name, Imported(module, alias.name)

    def _refuse_hidden_imports(self, tree: ast.Module) -> None:
        top = {id(node) for node in tree.body}
        checked = {id(inner) for node in tree.body if isinstance(node, ast.If) for inner in node.body}
        for node in ast.walk(tree):
            if isinstance(node, (ast.Import, ast.ImportFrom)) and id(node) not in top | checked:
                inside = dict(self._imported(node))
                if any(each.is_ours for each in inside.values()):
                    raise ValueError(
                        f"{self.path.name}, line {node.lineno}: an import of ours inside a function cannot be followed."
                    )


def _bound(statement: ast.stmt) -> Iterator[str]:
    """The names that a statement at the top of a module binds or completes; none for one that is no definition."""
    if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
        yield statement.name
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    if isinstance(statement, (ast.Assign, ast.AnnAssign)):
        for target in targets:
            for each in target.elts if isinstance(target, ast.Tuple) else [target]:
                while isinstance(each, ast.Attribute):  # `Class.attribute = ..` belongs to the class
                    each = each.value
                if isinstance(each, ast.Name):
                    yield each.id
