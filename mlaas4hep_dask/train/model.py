"""Finds, ships and builds the user's network."""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import inspect
import linecache
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from mlaas4hep_dask.errors import ModelError, did_you_mean, unknown_keyword

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class ModelSource:
    """A network's factory in a form that reaches workers without the user's folder.

    Parameters
    ----------
    module : str
        Module name, or the path of a Python file.
    function : str
        Name of the callable in it.
    text : str or None
        The file's text; None for an installed module.
    kwargs : mapping
        Keyword arguments of the callable.
    source_digest : str
        The sha256, in hex, of an installed module's source, if it has any.
    """

    module: str
    function: str
    text: str | None
    kwargs: Mapping[str, Any]
    source_digest: str = ""

    @property
    def reference(self) -> str:
        """``module:callable`` as in dataset.yaml."""
        return f"{self.module}:{self.function}"

    def digest(self) -> str:
        """The sha256, in hex, of the code: the file's text or the installed module's source."""
        if self.text is None:
            return self.source_digest
        return hashlib.sha256(self.text.encode()).hexdigest()

    def build(self, shape: int | tuple[int, ...], num_outputs: int = 1) -> torch.nn.Module:
        """The network for rows or images, tried on three events.

        The callable is given the number of columns of rows, or (channels, ny, nx) of images.

        A callable with a parameter ``num_outputs`` is told how many numbers to give per event.

        Raises
        ------
        ModelError
            When the callable fails, does not return a module, or the module does not give
            ``num_outputs`` finite numbers per event.
        """
        import torch

        shape = (shape,) if isinstance(shape, int) else shape
        told = shape[0] if len(shape) == 1 else shape
        factory = self._factory()
        if wrong := unknown_keyword(factory, self.kwargs):
            raise self._error(f"{wrong} (model.kwargs)")
        try:
            network = factory(told, **self._told(factory, num_outputs), **self.kwargs)
        except Exception as error:  # whatever the user's code raises
            raise self._error(f"failed for {_described(shape)}", error) from error
        if not isinstance(network, torch.nn.Module):
            raise self._error(f"returned {type(network).__name__}, expected torch.nn.Module")
        self._try(network, shape, num_outputs)
        return network

    def _told(self, factory: Callable[..., Any], num_outputs: int) -> dict[str, int]:
        parameters = inspect.signature(factory).parameters
        if "num_outputs" in self.kwargs or "num_outputs" not in parameters:
            return {}
        return {"num_outputs": num_outputs}

    def _try(self, network: torch.nn.Module, row_shape: tuple[int, ...], num_outputs: int) -> None:
        import torch

        from mlaas4hep_dask.export.torchscript import takes_missing

        x = torch.zeros(3, *row_shape)
        inputs = (x, x > 0) if takes_missing(network) else (x,)
        was_training = network.training
        try:
            with torch.no_grad():
                network.train()
                network(*inputs)
                network.eval()
                logits = network(*inputs)
        except Exception as error:  # whatever the user's code raises
            raise self._error(f"does not accept {_described(row_shape)}", error) from error
        network.train(was_training)
        shape = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        if shape != (3, num_outputs) and (num_outputs > 1 or shape != (3,)):
            expected = "one number per event"
            if num_outputs > 1:
                expected = f"(3, {num_outputs}): a callable may take num_outputs to know it"
                if row_shape == (num_outputs,):
                    expected += "; to be reconstructed, a row is as wide as the input"
            raise self._error(f"gives {shape} for 3 events, expected {expected}")
        if not torch.isfinite(logits).all():
            raise self._error("gives values that are not finite for events of zeros")

    def _factory(self) -> Callable[..., Any]:
        try:
            module = self._import()
        except Exception as error:  # whatever the user's module raises at import
            raise self._error("cannot be imported", error) from error
        factory = getattr(module, self.function, None)
        if not callable(factory):
            near = did_you_mean(self.function, vars(module))
            raise self._error(f"does not exist{near}")
        return factory  # type: ignore[no-any-return]

    def _import(self) -> ModuleType:
        if self.text is None:
            return importlib.import_module(self.module)
        name = f"mlaas4hep_dask_model_{self.digest()[:16]}"
        if name in sys.modules:
            return sys.modules[name]
        spec = importlib.util.spec_from_loader(name, loader=None, origin=self.module)
        assert spec is not None  # given a name, it always makes one
        module = importlib.util.module_from_spec(spec)
        module.__file__ = f"<{self.module} {self.digest()[:16]}>"
        # TorchScript asks for the source of classes, which no file on a worker holds.
        lines = self.text.splitlines(keepends=True)
        linecache.cache[module.__file__] = (len(self.text), None, lines, module.__file__)
        sys.modules[name] = module
        try:
            exec(compile(self.text, module.__file__, "exec"), vars(module))  # noqa: S102  # the user's own model
        except BaseException:
            del sys.modules[name]
            raise
        return module

    def _error(self, what: str, cause: Exception | None = None) -> ModelError:
        reason = f" ({type(cause).__name__}: {cause})" if cause is not None else ""
        return ModelError(f"model {self.reference!r} {what}{reason}", callable=self.reference)


def _described(shape: tuple[int, ...]) -> str:
    return f"rows of {shape[0]} columns" if len(shape) == 1 else f"images of shape {shape}"


def find_model(
    reference: str, kwargs: Mapping[str, Any], *, resolve: Callable[[str], Path], where: str
) -> ModelSource:
    """The source of a model, checked as far as possible without running it.

    Parameters
    ----------
    reference : str
        ``module:callable`` or ``path/to/file.py:callable``.
    kwargs : mapping
        Keyword arguments of the callable.
    resolve : callable
        Makes a relative path absolute.
    where : str
        Place in dataset.yaml, for errors.

    Raises
    ------
    ModelError
        When there is no such file, module or callable; names the nearest.
    """
    module, _, function = reference.rpartition(":")
    text = None
    if module.endswith(".py"):
        path = resolve(module)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            near = did_you_mean(path.name, [p.name for p in path.parent.glob("*.py")])
            reason = getattr(error, "strerror", None) or error
            raise ModelError(
                f"{where}: model.callable: {path} cannot be read ({reason}){near}",
                callable=reference,
            ) from error
        module = str(path)
        source = text
    else:
        source = _module_source(module, reference, where)
    try:
        names = _top_level_names(source)
    except SyntaxError as error:
        raise ModelError(
            f"{where}: model {reference!r}: line {error.lineno}: {error.msg}", callable=reference
        ) from error
    if source and function not in names and "*" not in names:
        raise ModelError(
            f"{where}: {module} has no {function!r}{did_you_mean(function, names)}",
            callable=reference,
        )
    digest = hashlib.sha256(source.encode()).hexdigest()
    return ModelSource(module, function, text, dict(kwargs), digest)


def _module_source(module: str, reference: str, where: str) -> str:
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError) as error:
        raise ModelError(
            f"{where}: module {module!r} cannot be found ({error})", callable=reference
        ) from error
    if spec is None:
        raise ModelError(
            f"{where}: module {module!r} cannot be found; a file is written with its .py, "
            "as models/network.py:build",
            callable=reference,
        )
    if spec.origin is None or not spec.origin.endswith(".py"):
        return ""
    return Path(spec.origin).read_text(encoding="utf-8")


def _top_level_names(source: str) -> set[str]:
    names: set[str] = set()
    left: list[ast.AST] = [ast.parse(source)]
    while left:
        node = left.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)  # what it defines inside is not at the top level
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            names.update((alias.asname or alias.name).split(".")[0] for alias in node.names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        left.extend(ast.iter_child_nodes(node))
    return names
