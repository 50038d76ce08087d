"""``python -m mlaas4hep_dask.serve``."""

import sys

from mlaas4hep_dask.serve.cli import main

if __name__ == "__main__":
    sys.exit(main())
