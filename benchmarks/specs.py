"""The specs pass: read and measure all 74 branches, on one core.

Against our own read of the same partitions (what measuring costs on top of it), against bare uproot
and pure decompression. --reference chooses the one that ``ratio`` is taken with; ``ratios`` has
them all, from the same run.
"""

from collections.abc import Sequence

import common
import numpy as np

from mlaas4hep_dask.encode.split import file_id
from mlaas4hep_dask.events import Branch
from mlaas4hep_dask.reader import Partition, read
from mlaas4hep_dask.specs import Specs
from mlaas4hep_dask.specs.draw import entry_keys
from mlaas4hep_dask.specs.measure import measure
from mlaas4hep_dask.specs.meter import Meter
from mlaas4hep_dask.specs.specs import merge_all


def measured(partition: Partition, branches: Sequence[Branch]) -> Specs:
    """Specs of a partition, as the workers of a run measure it."""
    keys = entry_keys(file_id(partition.uuid), partition.entry_start, partition.entry_stop)
    meter = Meter(keys)
    events = read(partition, branches, meter, keep=())
    classes = np.zeros(len(events), np.uint8)  # those of its label
    return measure(events, sample=partition.sample, meter=meter, branches=branches, classes=classes)


def main() -> None:
    parsed = common.options(__doc__.splitlines()[0], reference=common.reference_option("read"))
    common.pin_to_one_core()
    files = common.planned_files(parsed)

    def ours() -> None:
        merge_all(measured(partition, files.branches) for partition in files.partitions)

    common.close_read("specs", parsed, ours, files)


if __name__ == "__main__":
    main()
