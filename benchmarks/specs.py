"""The specs pass: read and measure all 74 branches, against bare uproot.iterate, on one core.

Measuring costs a few per cent of reading, since extremes and moments go over flat contents; the
same with ak.min, ak.max and ak.num costs a quarter more.
"""

import common

from mlaas4hep_dask.reader import read
from mlaas4hep_dask.specs.measure import measure
from mlaas4hep_dask.specs.specs import merge_all


def main() -> None:
    parsed = common.options(__doc__.splitlines()[0])
    common.pin_to_one_core()
    files = common.planned_files(parsed)

    def ours() -> None:
        merge_all(
            measure(read(partition, files.branches), sample=partition.sample)
            for partition in files.partitions
        )

    result = common.compare(ours, lambda: common.uproot_iterate(files), parsed.repeats)
    common.close("specs", parsed.events, result, reference=common.REFERENCE_READ, cores=1)


if __name__ == "__main__":
    main()
