"""What a module's text tells of what it needs."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field

from mlaas4hep_dask.usercode.names import ANY, Texts, names_of_files

IMPORTS = {"import_module", "__import__", "run_module"}
COMPUTED = {"exec", "eval", "run_path", "spec_from_file_location", "SourceFileLoader"}


@dataclass
class Parsed:
    """What a text imports and names.

    Parameters
    ----------
    imports : list of (str, list of str, int)
        Module, names that are taken from it, ``*`` among them, and how many packages up it starts.
    texts : list of str
        All texts that stand in it.
    files : list of str
        Names of files, and patterns with ``*``, that it puts together.
    packages : list of str
        Packages of which it imports modules by a name that is computed.
    variables : list of str
        Names of the environment's variables that it asks for.
    is_dynamic : bool
        It may import what no statement names.
    changes_path : bool
        It has to do with ``sys.path``.
    """

    imports: list[tuple[str, list[str], int]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    packages: list[str] = field(default_factory=list)
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
    tree = ast.parse(text)
    parsed, texts = Parsed(files=names_of_files(tree)), Texts(tree)
    aliases: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            parsed.imports += [(alias.name, [], 0) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [alias.name for alias in node.names]
            parsed.imports.append((node.module or "", names, node.level))
            aliases |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            parsed.texts.append(node.value)
        elif isinstance(node, ast.Subscript) and _is_environment(node.value, texts):
            parsed.variables += _text_in(node.slice, texts)
        elif isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.In | ast.NotIn):
            if _is_environment(node.comparators[0], texts):
                parsed.variables += _text_in(node.left, texts)
        elif isinstance(node, ast.Attribute) and node.attr == "path":
            parsed.changes_path |= isinstance(node.value, ast.Name) and node.value.id == "sys"
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = _name_of(node.func)
            _note_call(node, aliases.get(name, name), parsed, texts)
    return parsed


def _note_call(node: ast.Call, name: str, parsed: Parsed, texts: Texts) -> None:
    first = node.args[0] if node.args else None
    owner = node.func.value if isinstance(node.func, ast.Attribute) else None
    if name == "getenv" or (owner is not None and _is_environment(owner, texts)):
        parsed.variables += _text_in(first, texts)
    if name in COMPUTED:
        parsed.is_dynamic |= not isinstance(first, ast.Constant)
    if name not in IMPORTS:
        return
    module = texts.of(first)
    package = texts.of(node.args[1]) if len(node.args) > 1 and name == "import_module" else ANY
    bare = module.lstrip(".")
    level = len(module) - len(bare)
    if level == 1 and package.strip("." + ANY):
        module, bare, level = f"{package}.{bare}", f"{package}.{bare}", 0
    if ANY not in module:
        parsed.imports.append((bare, [], level))
    elif above := module.partition(ANY)[0].rpartition(".")[0].strip("."):
        parsed.packages.append(above)
    else:
        parsed.is_dynamic = True


def _name_of(node: ast.AST) -> str:
    """The last name of ``a.b`` or ``b``; empty for anything else."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _is_environment(node: ast.AST, texts: Texts) -> bool:
    """True for ``os.environ``, and for a name that stands for it."""
    return "environ" in (_name_of(node), _name_of(texts.value_of(node)))


def _text_in(node: ast.AST | None, texts: Texts) -> list[str]:
    text = ANY if node is None else texts.of(node)
    return [] if ANY in text or not text else [text]


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
