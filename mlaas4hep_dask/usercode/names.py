"""Names of files that a module's text puts together, with ``*`` for what it does not tell."""

from __future__ import annotations

import ast
import posixpath
import re
from collections.abc import Callable, Iterable

ANY = "*"
MAX_NAME = 255
MAX_DEPTH = 20  # of names that stand for expressions with names
_FILE = "<file>"  # the module's own
_SAME = {"Path", "PurePath", "PosixPath", "PurePosixPath", "str", "fspath", "abspath", "realpath"}
_SAME |= {"expanduser", "expandvars", "resolve", "absolute", "as_posix", "normpath"}
_LISTS = {"listdir", "scandir", "iterdir"}
_READERS = re.compile(r"(read|load|open|scan|from)_|.*(dataset|concatenate|Chain|DataFrame)$", re.I)
# Whoever hands C++ to a compiler names its files in the middle of a text.
_IN_CPP = re.compile(r"[\w./-]+\.(?:hh?|hpp|hxx|C|cc?|cpp|cxx|icc|inl)\b")


def names_of_files(tree: ast.AST) -> list[str]:
    """Names and patterns of files that stand in a module, from its folder, without a repetition.

    ``Path(__file__).parent / "cuts" / f"{year}.json"`` gives ``cuts/*.json``. What a name stands
    for is known where it is assigned once.
    """
    texts = Texts(tree)
    kinds = (ast.Constant, ast.JoinedStr, ast.BinOp, ast.Call)
    nodes = [node for node in ast.walk(tree) if isinstance(node, kinds)]
    found = [texts.of(node) for node in (*nodes, *texts.steps)]
    found += [f"{text}/**/{ANY}" for node in nodes for text in _folders_of(node, texts)]
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found += _IN_CPP.findall(node.value)
    return list(dict.fromkeys(name for text in found for name in _usable(text)))


def _folders_of(node: ast.AST, texts: Texts) -> Iterable[str]:
    """What a call reads that may take a folder for all files in it, as `pandas.read_parquet`."""
    if isinstance(node, ast.Call) and node.args:
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        text = texts.of(node.args[0])
        if _READERS.match(name) and ANY not in text and text.strip("./"):
            yield text


def _usable(text: str) -> Iterable[str]:
    """The names that a text may be of a file: from the module's folder, or from one below it."""
    if _FILE in text or "://" in text or not text.isprintable() or len(text) > MAX_NAME:
        return
    if ANY not in text:
        if text.strip("./"):
            yield posixpath.normpath(text)
        return
    text = posixpath.normpath(re.sub(r"\*{3,}", ANY, text))
    if re.search(r"\s", text) or not re.search(r"\w", text):  # a message, or nothing at all
        return
    folder = posixpath.dirname(text)
    if text.startswith("/") and ANY in folder:
        return
    if re.match(r"\*+/", text):
        text = text.partition("/")[2]
        yield text
        yield f"{ANY}/{ANY}/{text}"
        text = f"{ANY}/{text}"
    if "**" not in posixpath.basename(text):
        yield text


class Texts:
    """What expressions of a module stand for, as far as its text tells.

    Parameters
    ----------
    tree : ast.AST
        The module.
    """

    def __init__(self, tree: ast.AST) -> None:
        self._values: dict[str, ast.expr] = {}
        self.steps: list[ast.expr] = []  # of names that become longer: path /= "cuts"
        self._known: dict[ast.AST, str] = {}
        times: dict[str, int] = {}
        longer: dict[str, list[ast.AugAssign]] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.arg):
                times[node.arg] = times.get(node.arg, 0) + 2
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                times[node.id] = times.get(node.id, 0) + 1
            if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
                times[node.target.id] = times.get(node.target.id, 0) - 1  # it is stored there
                longer.setdefault(node.target.id, []).append(node)
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                self._values[node.targets[0].id] = node.value
            elif (
                isinstance(node, ast.AnnAssign | ast.NamedExpr)
                and isinstance(node.target, ast.Name)
                and node.value is not None
            ):
                self._values[node.target.id] = node.value
        self._values = {name: each for name, each in self._values.items() if times[name] == 1}
        for name in longer.keys() & self._values.keys():
            for each in sorted(longer[name], key=lambda node: node.lineno):
                whole = ast.BinOp(self._values[name], each.op, each.value)
                self._values[name] = whole
                self.steps.append(whole)

    def of(self, node: ast.AST | None, depth: int = 0) -> str:
        """The text, or the path, with ``*`` for what is not known."""
        if node is None or depth > MAX_DEPTH:
            return ANY
        if node not in self._known:
            text = self._found(node, depth)
            self._known[node] = text if len(text) <= MAX_NAME else ANY
        return self._known[node]

    def value_of(self, node: ast.AST) -> ast.AST:
        """What a name stands for, if it is assigned once; else the node."""
        return self._values.get(node.id, node) if isinstance(node, ast.Name) else node

    def elements(self, nodes: Iterable[ast.AST]) -> list[ast.AST]:
        """The nodes, with those of a list or tuple in place of what is unpacked there."""
        flat: list[ast.AST] = []
        for node in nodes:
            inside = self.value_of(node.value) if isinstance(node, ast.Starred) else None
            flat += inside.elts if isinstance(inside, ast.List | ast.Tuple) else [node]
        return flat

    def _found(self, node: ast.AST, depth: int) -> str:
        def inner(part: ast.AST | None) -> str:
            return self.of(part, depth + 1)

        if isinstance(node, ast.Constant):
            value = node.value
            return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
        if isinstance(node, ast.Name):
            known = self._values.get(node.id)
            return {"__file__": _FILE, "__package__": "."}.get(node.id) or inner(known)
        if isinstance(node, ast.JoinedStr):
            return "".join(map(inner, node.values))
        if isinstance(node, ast.FormattedValue):
            return ANY if node.format_spec else inner(node.value)
        if isinstance(node, ast.BinOp):
            return _operation(node, inner)
        if isinstance(node, ast.Attribute) and node.attr == "sep":
            return "/"
        if isinstance(node, ast.Attribute) and node.attr == "parent":
            return _above(inner(node.value))
        if isinstance(node, ast.Subscript):
            return _parents(node, inner)
        return _call(node, inner, self) if isinstance(node, ast.Call) else ANY


def _operation(node: ast.BinOp, inner: Callable[[ast.AST], str]) -> str:
    left, right = inner(node.left), inner(node.right)
    if isinstance(node.op, ast.Div):
        return posixpath.join(left, right)
    if isinstance(node.op, ast.Add):
        return left + right
    is_text = isinstance(node.op, ast.Mod)
    return re.sub(r"%(\(\w*\))?[-+ #0-9.]*[a-zA-Z]", ANY, left) if is_text else ANY


def _parents(node: ast.Subscript, inner: Callable[[ast.AST], str]) -> str:
    """What ``path.parents[1]`` stands for."""
    base, index = node.value, node.slice
    is_parents = isinstance(base, ast.Attribute) and base.attr == "parents"
    if not is_parents or not isinstance(index, ast.Constant) or not isinstance(index.value, int):
        return ANY
    assert isinstance(base, ast.Attribute)
    path = inner(base.value)
    for _ in range(min(index.value + 1, MAX_DEPTH)):
        path = _above(path)
    return path


def _call(node: ast.Call, inner: Callable[[ast.AST], str], texts: Texts) -> str:
    function = node.func
    owner = function.value if isinstance(function, ast.Attribute) else None
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    arguments = [inner(each) for each in texts.elements(node.args)]
    first = arguments[0] if arguments else ""
    of_module = getattr(owner, "attr", getattr(owner, "id", ""))
    if name in ("cwd", "getcwd"):
        return "."
    if name == "files":  # of importlib.resources
        return first.replace(".", "/") if first.strip(".") else "."
    if name == "dirname":
        return _above(first)
    if name in _LISTS:
        return posixpath.join(first or (inner(owner) if owner else "."), ANY)
    if name == "walk":
        return posixpath.join(first or (inner(owner) if owner else "."), "**", ANY)
    if name == "join" and of_module == "path":
        return posixpath.join(*arguments) if arguments else ANY
    if name == "join" and owner is not None and node.args:
        joined = texts.value_of(node.args[0])
        if isinstance(joined, ast.List | ast.Tuple):
            return inner(owner).join(map(inner, texts.elements(joined.elts)))
        return ANY
    if name in ("glob", "iglob") and (owner is None or of_module == "glob"):
        return first
    if name in _SAME and arguments:
        return posixpath.join(*arguments)
    if owner is None:
        return ANY
    path = inner(owner)
    if name in _SAME:
        return path
    if name == "format":
        return re.sub(r"\{[^{}]*\}", ANY, path)
    if name == "with_name":
        return posixpath.join(_above(path), first)
    if name == "with_suffix":
        stem = posixpath.join(".", ANY) if path == _FILE else posixpath.splitext(path)[0]
        return f"{stem}{first}"
    if name in ("joinpath", "glob"):
        return posixpath.join(path, *arguments)
    return posixpath.join(path, "**", first) if name == "rglob" else ANY


def _above(path: str) -> str:
    if path == _FILE:
        return "."
    return posixpath.normpath(posixpath.join(path, "..")) if path != ANY else ANY
