"""One file of Python from a class of ours and all that it needs of our packages.

The definitions that a class needs are found by following names: from its own source to the imports of its module, to
the definitions there, and so on. Only these are carried over, each as it stands in our source, with the comments.
Where two modules use one name for different things, the later one is renamed by its module: `_check` of `guidance`
becomes `_check_guidance`. Nothing is guessed: what cannot be renamed safely is a ValueError.
"""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from .source_modules import Definition, Imported, SourceModule

Key = tuple[str, str]
"""A definition of ours: (module, name)."""

_KEEP_FIRST = """\
# diffusers runs this file again for every pipeline that it loads. What the first run defined stays in use, so that
# objects that were built before pass isinstance as ever.
_FIRST_RUN = dict(globals())
"""
_RESTORE_FIRST = """\
globals().update({name: value for name, value in _FIRST_RUN.items() if not name.startswith("__")})
"""
_LINE = 120


def merged_source(
    module: str,
    name: str,
    header: str,
    elsewhere: Collection[Key] = (),
    doubles: Collection[Key] = (),
    substitutes: Mapping[str, str] | None = None,
) -> str:
    """The text of a file that defines a class of ours and imports none of our packages.

    Parameters
    ----------
    module, name : str
        Of the class.
    header : str
        The docstring of the file, and comments.
    elsewhere : collection of (module, name)
        Classes that have files of their own. They may be named in annotations, where they become `Any`; a definition
        that needs one when it runs is an error, since that file's class would not be this one.
    doubles : collection of (module, name)
        Classes of which other files make objects that this file gets. It may define them, too, but isinstance with one
        is an error, since it would be false of these objects.
    substitutes : mapping of str to str, optional
        Modules that others stand in for.

    Raises
    ------
    ValueError
        When a definition cannot be carried over.
    """
    merge = _Merge(set(elsewhere), dict(substitutes or {}))
    merge.collect((module, name))
    merge.collect_aliases()
    merge.check_questions(doubles)
    return merge.text((module, name), header)


def classes_in(module: str, name: str) -> frozenset[Key]:
    """The classes of ours that a file for this one defines."""
    merge = _Merge(set(), {})
    merge.collect((module, name))
    return frozenset((each.module, each.node.name) for each in merge.kept if isinstance(each.node, ast.ClassDef))


@dataclass
class _Merge:
    elsewhere: set[Key]
    substitutes: dict[str, str]
    modules: dict[str, SourceModule] = field(default_factory=dict)
    kept: dict[Definition, None] = field(default_factory=dict)
    imports: dict[str, Imported] = field(default_factory=dict)
    annotations: dict[Key, None] = field(default_factory=dict)

    def module(self, name: str) -> SourceModule:
        name = self.substitutes.get(name, name)
        if name not in self.modules:
            self.modules[name] = SourceModule(name)
        return self.modules[name]

    def resolve(self, module: str, name: str) -> Key | Imported | None:
        """What a name stands for in a module: a definition of ours, an import of another package, or neither."""
        source = self.module(module)
        if source.defining(name):
            return source.name, name
        imported = source.imports.get(name)
        if imported is None or not imported.is_ours:
            return imported
        found = self.resolve(imported.module, imported.name) if imported.name else None
        if not isinstance(found, tuple):
            raise ValueError(f"{source.name} imports {name}, which is not a function, a class or a constant of ours.")
        return found

    def collect(self, key: Key) -> None:
        """Keep what a definition needs when it runs."""
        waiting = list(self.modules_defining(key))
        while waiting:
            definition = waiting.pop()
            if definition in self.kept:
                continue
            self.kept[definition] = None
            uses = definition.uses
            for used in sorted(uses.evaluated):
                found = self.resolve(definition.module, used)
                if isinstance(found, Imported):
                    self.keep_import(used, found, definition)
                elif found is not None:
                    self.check_is_here(found, definition)
                    waiting += self.modules_defining(found)
            for used in sorted(uses.annotations):
                found = self.resolve(definition.module, used)
                if isinstance(found, Imported):
                    self.keep_import(used, found, definition)
                elif found is not None:
                    self.annotations[found] = None

    def modules_defining(self, key: Key) -> list[Definition]:
        return self.module(key[0]).defining(key[1])

    def check_is_here(self, key: Key, user: Definition) -> None:
        if key in self.elsewhere:
            raise ValueError(
                f"{user.names[0]} in {user.module} needs {key[1]}, which has a file of its own: ask what an object can "
                "do, not of which class it is."
            )

    def check_questions(self, doubles: Collection[Key]) -> None:
        for definition in self.kept:
            for used in sorted(definition.uses.classes_asked):
                if self.resolve(definition.module, used) in doubles:
                    raise ValueError(
                        f"{definition.names[0]} in {definition.module} asks whether objects are of the class {used}, "
                        "of which files of parts have doubles: ask what an object can do."
                    )

    def keep_import(self, name: str, imported: Imported, user: Definition) -> None:
        if self.imports.setdefault(name, imported) != imported:
            raise ValueError(f"{name} is {imported} in {user.module}, and {self.imports[name]} in another module.")

    def collect_aliases(self) -> None:
        """Keep the constants that annotations name, and what they need, unless they need a class that is not here."""
        for key in list(self.annotations):
            if self.is_plain(key):
                self.collect(key)

    def is_plain(self, key: Key) -> bool:
        """Whether a definition is a constant that needs constants alone."""
        return all(
            definition in self.kept
            or (
                definition.is_constant
                and all(
                    self.is_plain(found)
                    for used in definition.uses.evaluated - set(definition.names)
                    if isinstance(found := self.resolve(definition.module, used), tuple)
                )
            )
            for definition in self.modules_defining(key)
        )

    def text(self, root: Key, header: str) -> str:
        """The file."""
        kept = {(each.module, name) for each in self.kept for name in each.names}
        absent = [key for key in self.annotations if key not in kept]
        if absent:
            self.imports["Any"] = Imported("typing", "Any")
        order = [each for module in self.run_order(root[0]) for each in self.modules[module].definitions]
        order = [each for each in order if each in self.kept]
        names = self.final_names([root, *((each.module, name) for each in order for name in each.names), *absent])
        parts = [header, "from __future__ import annotations\n\n" + _imports(self.imports), _KEEP_FIRST]
        if absent:
            listed = " = ".join(sorted({names[key] for key in absent}))
            parts.append(f"# Classes of other files, of which annotations here speak.\n{listed} = Any\n")
        module = None
        for definition in order:
            if definition.module != module:
                module = definition.module
                parts.append("\n" + _section(self.modules[module]))
            parts.append("\n" * (not definition.is_constant) + self.carried(definition, names))
        return "\n".join([*parts, "", _RESTORE_FIRST])

    def run_order(self, root: str) -> list[str]:
        """The modules in the order in which Python runs them: before a module those that it imports."""
        order: dict[str, None] = {}
        begun: set[str] = set()

        def visit(name: str) -> None:
            if name in begun:
                return
            begun.add(name)
            source = self.modules[name]
            for local, imported in source.imports.items():
                target = self.substitutes.get(imported.module, imported.module)
                if target in self.modules and local not in source.for_types:
                    visit(target)
            order[name] = None

        for name in (self.substitutes.get(root, root), *self.modules):  # those that only a type checker imports, last
            visit(name)
        return list(order)

    def final_names(self, keys: list[Key]) -> dict[Key, str]:
        """Definition -> its name in the file; those that come first keep theirs."""
        names: dict[Key, str] = {}
        taken = set(self.imports)
        for key in keys:
            module, name = key
            if key in names:
                continue
            whole = module.replace(".", "_")
            names[key] = next(
                each for each in (name, f"{name}_{module.rpartition('.')[2]}", f"{name}_{whole}") if each not in taken
            )
            taken.add(names[key])
        return names

    def carried(self, definition: Definition, names: Mapping[Key, str]) -> str:
        """The source of a definition with the names that it has in the file."""
        source, renamed = self.modules[definition.module], {}
        for used in definition.uses.evaluated | definition.uses.annotations | set(definition.names):
            found = self.resolve(definition.module, used)
            if isinstance(found, tuple) and names[found] != used:
                renamed[used] = names[found]
        lines = list(source.lines)
        for line, start, old in sorted(_places(definition, renamed), reverse=True):
            text = lines[line - 1].encode()
            if old in definition.uses.local or text[start : start + len(old)] != old.encode():
                raise ValueError(f"{old} in line {line} of {source.path.name} cannot be renamed to {renamed[old]}.")
            lines[line - 1] = (text[:start] + renamed[old].encode() + text[start + len(old) :]).decode()
        return "\n".join(lines[definition.first - 1 : definition.last]) + "\n"


def _places(definition: Definition, renamed: Mapping[str, str]) -> Iterator[tuple[int, int, str]]:
    """Where the names stand that are renamed: line from 1, byte from 0, name."""
    node = definition.node
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name in renamed:
        yield node.lineno, node.col_offset + len("def " if isinstance(node, ast.FunctionDef) else "class "), node.name
    for name in definition.uses.nodes:
        if name.id in renamed:
            yield name.lineno, name.col_offset, name.id


def _imports(imports: Mapping[str, Imported]) -> str:
    """The import statements."""
    plain: list[str] = []
    of_modules: dict[str, list[str]] = {}
    for name, imported in sorted(imports.items()):
        if imported.name is None:
            plain.append(f"import {imported.module}" + (f" as {name}" if name != imported.module else ""))
        else:
            of_modules.setdefault(imported.module, []).append(
                imported.name + (f" as {name}" if name != imported.name else "")
            )
    for module, names in sorted(of_modules.items()):
        line = f"from {module} import {', '.join(names)}"
        if len(line) > _LINE:
            line = f"from {module} import (\n" + "".join(f"    {name},\n" for name in names) + ")"
        plain.append(line)
    return "\n".join(plain) + "\n"


def _section(module: SourceModule) -> str:
    """What a module is, as a comment."""
    text = textwrap.indent(module.docstring, "# ", lambda line: True)
    return f"# ---- {module.name} ----\n#\n" + "\n".join(line.rstrip() for line in text.splitlines()) + "\n"
