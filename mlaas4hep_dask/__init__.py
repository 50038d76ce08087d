"""Machine learning as a service for high-energy physics, on Dask.

The package imports nothing heavy: ``import mlaas4hep_dask`` loads neither Dask, uproot nor torch.
``mlaas4hep_dask.Dataset`` is found on first use.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlaas4hep_dask.dataset import Dataset

__version__ = "0.1.0"
__all__ = ["Dataset", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "Dataset":
        from mlaas4hep_dask.dataset import Dataset

        return Dataset
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
