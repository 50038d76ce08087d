"""Entry point of ``python -m mlaas4hep_dask.specs``."""

import sys

from mlaas4hep_dask.entry import specs

if __name__ == "__main__":
    sys.exit(specs())
