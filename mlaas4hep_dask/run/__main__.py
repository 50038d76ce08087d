"""Entry point of ``python -m mlaas4hep_dask.run``."""

import sys

from mlaas4hep_dask.entry import run

if __name__ == "__main__":
    sys.exit(run())
