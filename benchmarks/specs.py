"""The specs pass: read and measure all 74 branches, on one core.

Against our own read of the same partitions (what measuring costs on top of it), against bare uproot
and pure decompression. --reference chooses the one that ``ratio`` is taken with; ``ratios`` has
them all, from the same run.
"""

import common

from mlaas4hep_dask.reader import read
from mlaas4hep_dask.specs.measure import measure
from mlaas4hep_dask.specs.specs import merge_all


def main() -> None:
    parsed = common.options(__doc__.splitlines()[0], reference=common.reference_option("read"))
    common.pin_to_one_core()
    files = common.planned_files(parsed)

    def ours() -> None:
        merge_all(
            measure(read(partition, files.branches), sample=partition.sample)
            for partition in files.partitions
        )

    common.close_read("specs", parsed, ours, files)


if __name__ == "__main__":
    main()
