"""Reading: all 74 branches into flat arrays, against bare uproot and pure decompression.

On one core. --reference chooses the one that ``ratio`` is taken with; ``ratios`` has them all, from
the same run.
"""

import common


def main() -> None:
    parsed = common.options(__doc__.splitlines()[0], reference=common.reference_option("uproot"))
    common.pin_to_one_core()
    files = common.planned_files(parsed)
    common.close_read("read", parsed, lambda: common.read_all(files), files)


if __name__ == "__main__":
    main()
