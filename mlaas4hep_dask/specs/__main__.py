"""Entry point of ``python -m mlaas4hep_dask.specs``."""

import sys

from mlaas4hep_dask.specs.cli import command

if __name__ == "__main__":
    sys.exit(command())
