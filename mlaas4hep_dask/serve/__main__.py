"""Entry point of ``python -m mlaas4hep_dask.serve``."""

import sys

from mlaas4hep_dask.serve.cli import command

if __name__ == "__main__":
    sys.exit(command())
