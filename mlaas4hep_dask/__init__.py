"""Machine learning as a service for high-energy physics, on Dask.

The package imports nothing heavy: ``import mlaas4hep_dask`` loads neither Dask, uproot nor torch.
``mlaas4hep_dask.Dataset`` and ``mlaas4hep_dask.connect`` are found on first use.
"""

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlaas4hep_dask.cluster.session import connect
    from mlaas4hep_dask.dataset import Dataset

__version__ = "0.1.0"
__all__ = ["Dataset", "__version__", "connect"]


def on_first_use(package: str, **places: str) -> Callable[[str], Any]:
    """A package's ``__getattr__``, which imports a name's module when it is first asked for.

    So a command can print a line, or name a missing extra, before numba or torch is imported.
    """

    def find(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{places[name]}"), name)

    return find


__getattr__ = on_first_use(__name__, Dataset="dataset", connect="cluster.session")
