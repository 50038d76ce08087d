"""Entry point of ``python -m mlaas4hep_dask.serve``."""

import sys

from mlaas4hep_dask.command import announce


def command() -> int:
    """Run the command; its exit status."""
    given = sys.argv[1:]
    if given and not {"-h", "--help"} & set(given):
        # The standard output tells where models are, for programs too.
        announce(f"serve: {' '.join(given)}", sys.stderr)
    from mlaas4hep_dask.serve.cli import main  # after the first line, since it takes a second

    return main()


if __name__ == "__main__":
    sys.exit(command())
