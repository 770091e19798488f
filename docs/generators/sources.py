"""Reads texts out of Python sources without running them: constants, and the texts that an expression may be."""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

ANY = "…"
"""Stands for a part of a text that only a running program knows."""

_LIMIT = 12
"""Largest number of texts that an expression is resolved to."""


@dataclass(frozen=True, slots=True)
class Module:
    """A parsed module.

    Attributes:
        name: Name below the package: `spec.load`.
        tree: Its syntax tree.
        parents: Node -> the node that contains it.
        nodes: All calls, functions and classes.
        constants: Name -> value of each variable of the module.
        functions: Name -> function of the module that returns a text.
        imports: Name in the module -> (module, name there) that it is imported from.
    """

    name: str
    tree: ast.Module
    parents: dict[ast.AST, ast.AST] = field(default_factory=dict)
    nodes: list[ast.Call | ast.FunctionDef | ast.ClassDef] = field(default_factory=list)
    constants: dict[str, ast.expr] = field(default_factory=dict)
    functions: dict[str, ast.FunctionDef] = field(default_factory=dict)
    imports: dict[str, tuple[str, str]] = field(default_factory=dict)


def read_package(root: Path) -> dict[str, Module]:
    """Reads and parses the modules of a package.

    Args:
        root: Folder of the package.

    Returns:
        Name of each module below the package -> the module.
    """
    paths = {".".join(path.relative_to(root).with_suffix("").parts): path for path in sorted(root.rglob("*.py"))}
    return {name: parse(root.name, name, path.read_text(encoding="utf-8")) for name, path in paths.items()}


def parse(package: str, name: str, text: str) -> Module:
    """Parses a module.

    Args:
        package: Name of the package.
        name: Name of the module below the package.
        text: Source of the module.
    """
    module = Module(name, ast.parse(text))
    waiting: list[ast.AST] = [module.tree]
    while waiting:
        node = waiting.pop()
        for child in ast.iter_child_nodes(node):
            module.parents[child] = node
            waiting.append(child)
        if isinstance(node, ast.Call | ast.FunctionDef | ast.ClassDef):
            module.nodes.append(node)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == package:
            home = (node.module or "").removeprefix(package).removeprefix(".")
            module.imports.update((alias.asname or alias.name, (home, alias.name)) for alias in node.names)
    for statement in module.tree.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=variable)], value=value):
                module.constants[variable] = value
            case ast.FunctionDef(name=function, returns=ast.Name(id="str")):
                module.functions[function] = statement
    return module


class Texts:
    """Resolves expressions to the texts that they may be.

    Args:
        modules: All modules of the package, by name.
    """

    def __init__(self, modules: Mapping[str, Module]) -> None:
        self._modules = modules

    def of(self, node: ast.expr | None, module: Module) -> list[str]:
        """Returns the texts that an expression may be, with `ANY` for what is not known.

        Args:
            node: Expression. None stands for the empty text.
            module: Module that contains it.
        """
        return list(dict.fromkeys(self._of(node, module)))[:_LIMIT]

    def _of(self, node: ast.expr | None, module: Module) -> list[str]:
        match node:
            case None:
                return [""]
            case ast.Constant(value=str(text)):
                return [text]
            case ast.JoinedStr(values=values):
                return [_joined(parts) for parts in product(*(self._part(value, module) for value in values))]
            case ast.IfExp(body=body, orelse=other):
                return self._of(body, module) + self._of(other, module)
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return [_joined(parts) for parts in product(self._of(left, module), self._of(right, module))]
            case ast.List(elts=elements) | ast.Tuple(elts=elements):
                return [text for element in elements for text in self._of(element, module)]
            case ast.Name(id=name):
                values = list(_assigned(name, node, module))
                return [text for value in values for text in self._of(value, module)] or self._named(name, module.name)
            case ast.Attribute(value=ast.Name(id=home), attr=name) if home in module.imports:
                return self._named(name, ".".join(filter(None, module.imports[home])))
            case ast.Call(func=ast.Name(id=name)):
                return self._returned(name, module.name)
        return [ANY]

    def _part(self, node: ast.expr, module: Module) -> list[str]:
        """Returns the texts of a part of an f-string: of the values in it, only those of the module's constants."""
        match node:
            case ast.FormattedValue(value=ast.Name(id=name)) if name.isupper():
                return self._named(name, module.name)
            case ast.FormattedValue():
                return [ANY]
        return self._of(node, module)

    def _named(self, name: str, home: str) -> list[str]:
        """Returns the texts of a variable of a module, which may come from another one."""
        module = self._modules.get(home)
        if module is not None and name in module.constants:
            return self.of(module.constants[name], module)
        if module is not None and name in module.imports:
            where, original = module.imports[name]
            return self._named(original, where)
        return [ANY]

    def _returned(self, name: str, home: str) -> list[str]:
        """Returns the texts that a function of the package may return."""
        module = self._modules.get(home)
        if module is not None and name in module.functions:
            returns = [node for node in ast.walk(module.functions[name]) if isinstance(node, ast.Return)]
            returns.sort(key=lambda node: node.lineno)
            return [text for node in returns for text in self.of(node.value, module)]
        if module is not None and name in module.imports:
            where, original = module.imports[name]
            return self._returned(original, where)
        return [ANY]


def _joined(parts: tuple[str, ...]) -> str:
    text = "".join(parts)
    while ANY * 2 in text:
        text = text.replace(ANY * 2, ANY)
    return text


def _assigned(name: str, node: ast.AST, module: Module) -> Iterator[ast.expr]:
    """Yields the values that a local variable may have at a node: those of the nearest assignment before it."""
    inner, outer = node, module.parents.get(node)
    while outer is not None and not isinstance(outer, ast.Module):
        for block in (getattr(outer, key, None) for key in ("body", "orelse", "handlers", "finalbody")):
            if isinstance(block, list) and inner in block:
                for statement in reversed(block[: block.index(inner)]):
                    values = list(_values(name, statement))
                    if values:
                        yield from values
                        return
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef):
            return
        inner, outer = outer, module.parents.get(outer)


def _values(name: str, statement: ast.stmt) -> Iterator[ast.expr]:
    """Yields the values that a statement may give a variable."""
    for node in ast.walk(statement):
        if not isinstance(node, ast.Assign):
            continue
        for target in node.targets:
            match target:
                case ast.Name(id=variable) if variable == name:
                    yield node.value
                case ast.Tuple(elts=targets):
                    names = [each.id if isinstance(each, ast.Name) else "" for each in targets]
                    if name in names:
                        yield from _items(node.value, names.index(name), len(names))


def _items(value: ast.expr, place: int, size: int) -> Iterator[ast.expr]:
    """Yields what an item of a tuple may be; the whole value if its items are not known."""
    match value:
        case ast.Tuple(elts=items) if len(items) == size:
            yield items[place]
        case ast.IfExp(body=body, orelse=other):
            yield from _items(body, place, size)
            yield from _items(other, place, size)
        case _:
            yield value
