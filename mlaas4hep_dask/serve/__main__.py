"""Entry point of ``python -m mlaas4hep_dask.serve``."""

import sys

from mlaas4hep_dask.entry import serve

if __name__ == "__main__":
    sys.exit(serve())
