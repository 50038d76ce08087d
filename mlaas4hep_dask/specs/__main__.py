"""Entry point of ``python -m mlaas4hep_dask.specs``."""

import sys

from mlaas4hep_dask.command import announce


def command() -> int:
    """Run the command; its exit status."""
    given = sys.argv[1:]
    if given and not {"-h", "--help"} & set(given):
        announce(f"specs: {' '.join(given)}", sys.stderr)  # the output is for programs too
    from mlaas4hep_dask.specs.cli import main  # after the first line, since it takes a second

    return main()


if __name__ == "__main__":
    sys.exit(command())
