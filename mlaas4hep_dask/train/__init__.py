"""Train: blocks to ranks, ranks to a trained network; sees torch, never Dask."""
