"""Entry point of ``python -m mlaas4hep_dask.predict``."""

import sys

from mlaas4hep_dask.predict.cli import command

if __name__ == "__main__":
    sys.exit(command())
