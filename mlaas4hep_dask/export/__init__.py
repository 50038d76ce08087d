"""Export: a trained network, its specs and its layout become a bundle."""

from mlaas4hep_dask.export.torchscript import to_torchscript

__all__ = ["to_torchscript"]
