"""What a module's text tells of what it needs."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field

COMPUTED = {"import_module", "__import__", "exec", "eval", "run_path", "run_module"}


@dataclass
class Parsed:
    """What a text imports and names.

    Parameters
    ----------
    imports : list of (str, list of str, int)
        Module, names that are taken from it, and how many packages up it starts.
    texts : list of str
        All texts that stand in it.
    variables : list of str
        Names of the environment's variables that it asks for.
    is_dynamic : bool
        It may import what no statement names.
    changes_path : bool
        It has to do with ``sys.path``.
    """

    imports: list[tuple[str, list[str], int]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    variables: list[str] = field(default_factory=list)
    is_dynamic: bool = False
    changes_path: bool = False


def parse(text: str) -> Parsed:
    """What a module's text imports and names, at the top and inside of functions.

    Raises
    ------
    SyntaxError, ValueError
        When it is no Python.
    """
    parsed = Parsed()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            parsed.imports += [(alias.name, [], 0) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [alias.name for alias in node.names if alias.name != "*"]
            parsed.imports.append((node.module or "", names, node.level))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            parsed.texts.append(node.value)
        elif isinstance(node, ast.Call):
            _note_call(node, parsed)
        elif isinstance(node, ast.Subscript) and _name_of(node.value) == "environ":
            parsed.variables += _text_in(node.slice)
        elif isinstance(node, ast.Attribute) and node.attr == "path":
            parsed.changes_path |= isinstance(node.value, ast.Name) and node.value.id == "sys"
    return parsed


def _note_call(node: ast.Call, parsed: Parsed) -> None:
    name = _name_of(node.func)
    first = node.args[0] if node.args else None
    of = _name_of(node.func.value) if isinstance(node.func, ast.Attribute) else ""
    if name == "getenv" or of == "environ":
        parsed.variables += _text_in(first)
    if name not in COMPUTED:
        return
    is_import = name in ("import_module", "__import__")
    if is_import and isinstance(first, ast.Constant) and isinstance(first.value, str):
        parsed.imports.append((first.value.lstrip("."), [], 0))
    elif not isinstance(first, ast.Constant):
        parsed.is_dynamic = True


def _name_of(node: ast.AST) -> str:
    """The last name of ``a.b`` or ``b``; empty for anything else."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _text_in(node: ast.AST | None) -> list[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    return []


def top_level_names(text: str) -> set[str]:
    """Names that a module defines, ``*`` if it takes all of another's.

    Raises
    ------
    SyntaxError, ValueError
        When it is no Python.
    """
    names: set[str] = set()
    nodes: list[ast.AST] = [ast.parse(text)]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)  # what it defines inside is not at the top level
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            names.update((alias.asname or alias.name).split(".")[0] for alias in node.names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        nodes.extend(ast.iter_child_nodes(node))
    return names
